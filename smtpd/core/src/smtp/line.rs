//! Turns octets from the wire into command lines.
//!
//! In: octets, in whatever pieces the network made. Out: whole lines without their CRLF. Verbs are
//! [`super::command`]'s business; message bodies are [`super::body`]'s.
//!
//! Two attacks shape this file. A line that never ends is skipped without being kept and is one
//! error at its end, so a connection costs bounded memory and one line gets one reply. A bare CR
//! or LF is never taken for a line end, so no relay before us sees one command where we see two
//! (SMTP smuggling; RFC 5321 section 2.3.8).

use memchr::memchr2;

/// Octets of a command line with its CRLF: 512 of RFC 5321 section 4.5.3.1.4 and what the
/// parameters of all extensions we offer add to MAIL and RCPT, with room to spare.
pub const LINE_OCTETS_MAX: usize = 2048;

/// What stands at the front of the octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line.
    Whole {
        /// Without its CRLF.
        text: &'a [u8],
        /// Octets used, CRLF included.
        octets: usize,
    },
    /// The beginning of a line; nothing was used, the octets must come again with more.
    Partial,
    /// A part of a line that is too long, used and forgotten.
    Skipped {
        /// Octets used.
        octets: usize,
    },
    /// The end of a line that was too long: the moment to say so, once.
    TooLong {
        /// Octets used, CRLF included.
        octets: usize,
    },
    /// A CR or LF stands alone. What follows must not be executed.
    BareEnd,
}

/// Finds lines. Its only state is whether it is within a line that is too long.
#[derive(Clone, Debug, Default)]
pub struct LineReader {
    skipping: bool,
}

impl LineReader {
    /// Looks at the octets that came after those used so far, for a line that may have so many octets
    /// with its CRLF.
    pub fn take_up_to<'a>(&mut self, max: usize, octets: &'a [u8]) -> Line<'a> {
        let end = memchr2(b'\r', b'\n', octets);
        let (text, rest) = octets.split_at(end.unwrap_or(octets.len()));
        let too_long = self.skipping || text.len() > max - 2;
        match rest {
            // A CR at the end may be half of a line end: it stays until more has come.
            [] | [b'\r'] if too_long && !text.is_empty() => {
                self.skipping = true;
                Line::Skipped { octets: text.len() }
            }
            [] | [b'\r'] => Line::Partial,
            [b'\r', b'\n', ..] if too_long => {
                self.skipping = false;
                Line::TooLong { octets: text.len() + 2 }
            }
            [b'\r', b'\n', ..] => Line::Whole { text, octets: text.len() + 2 },
            _ => Line::BareEnd,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All lines in `wire`, which arrives in pieces: `+text`, `-` for one too long, `!` for a bare end.
    fn lines(wire: &[u8], piece: usize) -> Vec<String> {
        let (mut reader, mut waiting, mut out) = (LineReader::default(), Vec::new(), Vec::new());
        for piece in wire.chunks(piece) {
            waiting.extend_from_slice(piece);
            loop {
                let used = match reader.take_up_to(LINE_OCTETS_MAX, &waiting) {
                    Line::Whole { text, octets } => {
                        out.push(format!("+{}", String::from_utf8_lossy(text)));
                        octets
                    }
                    Line::Partial => break,
                    Line::Skipped { octets } => octets,
                    Line::TooLong { octets } => {
                        out.push("-".to_owned());
                        octets
                    }
                    Line::BareEnd => {
                        out.push("!".to_owned());
                        return out;
                    }
                };
                waiting.drain(..used);
            }
            assert!(waiting.len() < LINE_OCTETS_MAX, "what waits is bounded");
        }
        out
    }

    #[test]
    fn lines_end_by_crlf_only() {
        assert_eq!(lines(b"a\r\n\r\nbc\r\nd", 99), ["+a", "+", "+bc"]);
        assert_eq!(lines(b"a\nb\r\n", 99), ["!"]);
        assert_eq!(lines(b"a\r\nb\rc\r\n", 1), ["+a", "!"]);
        assert_eq!(lines(b"a\r\r\n", 2), ["!"]);
    }

    #[test]
    fn an_overlong_line_is_one_error_whatever_its_length() {
        let longest = "x".repeat(LINE_OCTETS_MAX - 2);
        for piece in [1, 7, 1024, 1 << 20] {
            assert_eq!(lines(format!("{longest}\r\n").as_bytes(), piece), [format!("+{longest}")]);
            for octets in [LINE_OCTETS_MAX - 1, LINE_OCTETS_MAX, 70_000] {
                let wire = format!("{}\r\nNOOP\r\n", "x".repeat(octets));
                assert_eq!(lines(wire.as_bytes(), piece), ["-", "+NOOP"], "{octets}");
            }
            let bare = format!("{}\nNOOP\r\n", "x".repeat(70_000));
            assert_eq!(lines(bare.as_bytes(), piece), ["!"]);
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            wire in proptest::collection::vec(
                prop_oneof![
                    3 => Just(&b"\r\n"[..]), 3 => Just(&b"ab"[..]), 1 => Just(&b"\r"[..]),
                    1 => Just(&b"\n"[..]), 1 => Just(&[b'x'; 2047][..]),
                ], 0..12),
            piece in 1..3000_usize,
        ) {
            let wire = wire.concat();
            prop_assert_eq!(lines(&wire, piece), lines(&wire, wire.len().max(1)));
        }
    }
}
