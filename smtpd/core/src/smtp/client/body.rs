//! The body on its way out after DATA: dots stuffed, its end marked.
//!
//! In: the message's octets in pieces of any size. Out: what goes on the wire. A bare CR or LF
//! is an error instead of an octet sent: whoever reads the message behind us may see a line end
//! there, and a dot behind that would end the message early (SMTP smuggling).

/// A CR without LF or an LF without CR stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message has a CR or LF that is not part of a CRLF")]
pub struct BareLineEnd;

/// Stuffs dots across the pieces of one body.
#[derive(Debug)]
pub(super) struct Stuffer {
    at_line_start: bool,
    after_cr: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self { at_line_start: true, after_cr: false }
    }
}

/// What stands side by side in a piece.
struct Pairs {
    /// A CR before something else than LF, or an LF behind something else than CR.
    any_bare: bool,
    /// A dot at the start of a line.
    any_dot: bool,
}

impl Pairs {
    /// All pairs are looked at and nothing is branched on, which takes several octets at a time: mail
    /// whose lines are in order, nearly all, is not searched line by line.
    fn of(piece: &[u8]) -> Self {
        let (mut bare, mut dot) = (0, 0);
        let behind = piece.get(1..).unwrap_or_default();
        for (&before, &octet) in piece.iter().zip(behind) {
            bare |= u8::from((before == b'\r') != (octet == b'\n'));
            dot |= u8::from((before == b'\n') & (octet == b'.'));
        }
        Self { any_bare: bare != 0, any_dot: dot != 0 }
    }
}

impl Stuffer {
    /// Appends one piece of the body to `out`.
    ///
    /// # Errors
    ///
    /// [`BareLineEnd`]; the connection cannot be used further.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        let (Some(&first), Some(&last)) = (piece.first(), piece.last()) else {
            return Ok(());
        };
        let pairs = Pairs::of(piece);
        if self.after_cr != (first == b'\n') || pairs.any_bare {
            return Err(BareLineEnd);
        }
        if self.at_line_start && first == b'.' {
            out.push(b'.');
        }
        let mut from = 0;
        if pairs.any_dot {
            for at in memchr::memmem::find_iter(piece, b"\n.") {
                out.extend_from_slice(&piece[from..=at]);
                out.push(b'.');
                from = at + 1;
            }
        }
        out.extend_from_slice(&piece[from..]);
        self.at_line_start = last == b'\n';
        self.after_cr = last == b'\r';
        Ok(())
    }

    /// Appends the end of the message; a last line without CRLF gets one.
    ///
    /// # Errors
    ///
    /// [`BareLineEnd`] if the message ends with a CR.
    pub(super) fn finish(&self, out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        if self.after_cr {
            return Err(BareLineEnd);
        }
        out.extend_from_slice(if self.at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stuffed(pieces: &[&[u8]]) -> Result<String, BareLineEnd> {
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        for piece in pieces {
            stuffer.push(piece, &mut out)?;
        }
        stuffer.finish(&mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn dots_at_line_starts_are_doubled() {
        assert_eq!(stuffed(&[b".\r\n..a\r\nb.\r\n"]).unwrap(), "..\r\n...a\r\nb.\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r", b"\n", b".", b"b\r\n"]).unwrap(), "a\r\n..b\r\n.\r\n");
        assert_eq!(stuffed(&[]).unwrap(), ".\r\n");
        assert_eq!(stuffed(&[b"no end"]).unwrap(), "no end\r\n.\r\n");
    }

    #[test]
    fn bare_line_ends_are_errors_wherever_the_pieces_part() {
        for pieces in [
            &[&b"a\nb"[..]][..],
            &[b"a\rb"],
            &[b"a\r", b"b"],
            &[b"a\r"],
            &[b"a", b"\n"],
            &[b"\r\r\n"],
            &[b"\n.\r\n"],
        ] {
            assert_eq!(stuffed(pieces), Err(BareLineEnd), "{pieces:?}");
        }
    }

    proptest! {
        #[test]
        fn all_at_once_and_octet_by_octet_come_to_the_same(
            message in prop::collection::vec(prop::sample::select(&b"\r\n.a"[..]), 0..64),
        ) {
            let octets: Vec<&[u8]> = message.chunks(1).collect();
            prop_assert_eq!(stuffed(&[&message]), stuffed(&octets));
        }

        #[test]
        fn pieces_do_not_matter_and_a_receiver_gets_the_message_back(
            lines in prop::collection::vec("[.a]{0,4}", 0..8),
            cuts in prop::collection::vec(1_usize..5, 1..5),
        ) {
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let whole = stuffed(&[message.as_bytes()]).unwrap();
            let (mut pieces, mut rest) = (Vec::new(), message.as_bytes());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            prop_assert_eq!(&stuffed(&pieces).unwrap(), &whole);
            let taken = whole.strip_suffix(".\r\n").unwrap();
            let ended_early = format!("\r\n{taken}").contains("\r\n.\r\n");
            prop_assert!(!ended_early);
            let back: String = taken
                .split_inclusive("\r\n")
                .map(|line| line.strip_prefix('.').unwrap_or(line))
                .collect();
            prop_assert_eq!(back, message);
        }
    }
}
