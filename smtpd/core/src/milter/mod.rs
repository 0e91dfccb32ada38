//! What is said to a milter and what its answers mean: version 6 of the protocol of libmilter.
//!
//! In: what is known of a session and a message, and the octets of a milter. Out: frames, and answers
//! that were found good. A milter is a program of the operator's, but one that may be broken, or have been
//! taken over by the mail that it looks at: whatever it says is bounded, and what makes no sense is an
//! error and never half an answer.

pub mod answer;
pub mod command;
pub mod edit;
pub mod offer;

use thiserror::Error;

/// The most octets of one answer: a piece of a body (64 KiB) and room for a long field.
pub const ANSWER_OCTETS_MAX: usize = 1024 * 1024;
/// The most octets of a piece of a body that we send.
pub const PIECE_OCTETS_MAX: usize = 65_535;

/// Why an answer of a milter is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MilterError {
    /// A frame of no octets, or of too many.
    #[error("it says something of {0} octets")]
    Length(u64),
    /// An answer that nobody knows, or that has no place here.
    #[error("it answers {0:?}, which has no place here")]
    Unexpected(char),
    /// An answer whose parts cannot be read.
    #[error("its answer {0:?} cannot be read")]
    Form(char),
    /// It wants to speak an older or newer protocol than there is.
    #[error("it speaks version {0} of the protocol")]
    Version(u32),
    /// It wants to do what was not offered.
    #[error("it wants what was not offered")]
    NotOffered,
    /// It does what it did not say it would.
    #[error("it answers {0:?} without having asked to")]
    NotAgreed(char),
    /// It wants more changes than there may be.
    #[error("it wants more changes than there may be")]
    TooMuch,
}

/// One thing that is said, by either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub letter: u8,
    /// The rest of it.
    pub content: &'a [u8],
    /// How many octets it took.
    pub used: usize,
}

/// One frame at the front of the octets; nothing until it is there whole.
///
/// # Errors
///
/// [`MilterError::Length`].
pub fn frame(octets: &[u8]) -> Result<Option<Frame<'_>>, MilterError> {
    let Some((length, rest)) = octets.split_first_chunk::<4>() else { return Ok(None) };
    let said = u32::from_be_bytes(*length);
    let length = usize::try_from(said).unwrap_or(usize::MAX);
    if length == 0 || length > ANSWER_OCTETS_MAX {
        return Err(MilterError::Length(u64::from(said)));
    }
    let Some(frame) = rest.get(..length) else { return Ok(None) };
    let Some((&letter, content)) = frame.split_first() else { return Ok(None) };
    Ok(Some(Frame { letter, content, used: 4 + length }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_comes_whole_or_not_at_all() {
        let octets = b"\0\0\0\x03abcrest";
        assert_eq!(frame(octets), Ok(Some(Frame { letter: b'a', content: b"bc", used: 7 })));
        for end in 0..7 {
            assert_eq!(frame(&octets[..end]), Ok(None), "{end}");
        }
        assert_eq!(frame(b"\0\0\0\0"), Err(MilterError::Length(0)));
        assert!(matches!(frame(b"\x7f\0\0\0x"), Err(MilterError::Length(_))));
    }

    proptest! {
        #[test]
        fn any_octets_are_a_frame_an_error_or_not_yet(octets: Vec<u8>) {
            if let Ok(Some(Frame { content, used, .. })) = frame(&octets) {
                prop_assert_eq!(content.len() + 5, used);
            }
        }
    }
}
