//! What is agreed on at the beginning: which stages a milter wants to hear of, which it answers, and what it
//! may change.

use super::MilterError;

/// The version that we speak, and the oldest that milters of today speak.
const VERSION: u32 = 6;
const VERSION_MIN: u32 = 2;
/// What a milter may do: add, insert and change fields, the body, recipients and the sender, and have the
/// message held.
const ACTIONS: u32 = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20 | 0x40 | 0x80;
/// Every stage may be left out or left without an answer; a piece of a body may be the last one; values of
/// fields may keep the blank in front.
const PROTOCOL: u32 = 0x001F_FFFF & !UNKNOWN_STAGES;
/// Recipients that we refused ourselves are not told of.
const UNKNOWN_STAGES: u32 = 0x0800;

/// A stage of a session or a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The client has connected.
    Connect,
    /// It has said who it is.
    Hello,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// A field.
    Header,
    /// The end of the header.
    EndOfHeader,
    /// A piece of the body.
    Body,
    /// The end of the message, which every milter hears of and answers.
    EndOfMessage,
}

impl Stage {
    /// The flags "do not tell me" and "I do not answer".
    const fn flags(self) -> (u32, u32) {
        match self {
            Self::Connect => (0x01, 0x1000),
            Self::Hello => (0x02, 0x2000),
            Self::Mail => (0x04, 0x4000),
            Self::Rcpt => (0x08, 0x8000),
            Self::Data => (0x200, 0x0001_0000),
            Self::Header => (0x20, 0x80),
            Self::EndOfHeader => (0x40, 0x0004_0000),
            Self::Body => (0x10, 0x0008_0000),
            Self::EndOfMessage => (0, 0),
        }
    }
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    version: u32,
    actions: u32,
    protocol: u32,
}

/// The frame of our offer.
#[must_use]
pub fn offer() -> Vec<u8> {
    let words = [VERSION, ACTIONS, PROTOCOL];
    let mut out = 13_u32.to_be_bytes().to_vec();
    out.push(b'O');
    out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    out
}

impl Agreed {
    /// Reads a milter's answer to our offer.
    ///
    /// # Errors
    ///
    /// [`MilterError`].
    pub fn read(letter: u8, content: &[u8]) -> Result<Self, MilterError> {
        if letter != b'O' {
            return Err(MilterError::Unexpected(char::from(letter)));
        }
        let mut words = content
            .chunks_exact(4)
            .map(|word| word.iter().fold(0_u32, |sum, octet| sum << 8 | u32::from(*octet)));
        let mut word = || words.next().ok_or(MilterError::Form('O'));
        let (version, actions, protocol) = (word()?, word()?, word()?);
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(MilterError::Version(version));
        }
        if actions & !ACTIONS != 0 || protocol & !PROTOCOL != 0 {
            return Err(MilterError::NotOffered);
        }
        Ok(Self { version, actions, protocol })
    }

    /// Whether it wants to hear of a stage. DATA came with version 4 of the protocol.
    #[must_use]
    pub const fn wants(&self, stage: Stage) -> bool {
        let is_too_new = matches!(stage, Stage::Data) && self.version < 4;
        !is_too_new && self.protocol & stage.flags().0 == 0
    }

    /// Whether it answers at a stage.
    #[must_use]
    pub const fn answers(&self, stage: Stage) -> bool {
        self.protocol & stage.flags().1 == 0
    }

    /// Whether values of fields keep the blank behind the colon.
    #[must_use]
    pub const fn keeps_blanks(&self) -> bool {
        self.protocol & 0x0010_0000 != 0
    }

    /// Whether it said that it might do this.
    #[must_use]
    pub(super) const fn may(&self, action: u32) -> bool {
        self.actions & action != 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, frame};
    use super::*;

    fn answer(version: u32, actions: u32, protocol: u32) -> Vec<u8> {
        [version, actions, protocol].iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn our_offer_is_a_frame_and_whoever_takes_all_of_it_is_heard() {
        let offered = offer();
        let Frame { letter, content, used } = frame(&offered).unwrap().unwrap();
        assert_eq!((letter, content.len(), used), (b'O', 12, 17));
        let agreed = Agreed::read(b'O', content).unwrap();
        assert!(!agreed.wants(Stage::Connect) && agreed.wants(Stage::EndOfMessage));
        assert!(!agreed.answers(Stage::Body) && agreed.answers(Stage::EndOfMessage));
        assert!(agreed.keeps_blanks() && agreed.may(0x40));
    }

    #[test]
    fn old_and_greedy_milters_are_refused() {
        assert!(Agreed::read(b'O', &answer(6, 0x3F, 0)).is_ok());
        assert!(!Agreed::read(b'O', &answer(2, 0, 0)).unwrap().wants(Stage::Data));
        assert_eq!(Agreed::read(b'O', &answer(1, 0, 0)), Err(MilterError::Version(1)));
        assert_eq!(Agreed::read(b'O', &answer(7, 0, 0)), Err(MilterError::Version(7)));
        assert_eq!(Agreed::read(b'O', &answer(6, 0x8000, 0)), Err(MilterError::NotOffered));
        assert_eq!(Agreed::read(b'O', &answer(6, 0, 0x8000_0000)), Err(MilterError::NotOffered));
        assert_eq!(Agreed::read(b'O', b"short"), Err(MilterError::Form('O')));
        assert_eq!(Agreed::read(b'c', b""), Err(MilterError::Unexpected('c')));
        // What is behind the three words are names of macros that it would like.
        let more = [answer(6, 0, 0), b"\0\0\0\x01j i\0".to_vec()].concat();
        assert!(Agreed::read(b'O', &more).is_ok());
    }
}
