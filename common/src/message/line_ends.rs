//! Gives a file the line ends of mail: every line ends with CRLF.
//!
//! In: the octets of a file in whatever pieces they are read. Out: the same octets with CRLF for
//! each bare LF (Unix), each bare CR (old programs) and each CR CR LF (text mode by mistake), and
//! with an end to the last line. Where the operator does not want that, a bare CR or LF is an error
//! with its line, for such octets must never reach the wire (SMTP smuggling).
//!
//! Files written for the original may be dot-stuffed; then one dot at the front of each line goes,
//! and a line that is one dot goes whole: it says "end" to SMTP and nothing here.

/// Converts one file; feed it the octets in order, then [`LineEnds::finish`].
#[derive(Clone, Debug)]
pub struct LineEnds {
    may_fix: bool,
    is_dot_stuffed: bool,
    line: usize,
    /// Nothing of the line has been seen yet.
    is_fresh: bool,
    /// All that was seen of the line is the dot that goes.
    is_dot: bool,
    /// CRs seen whose meaning the next octet decides.
    returns: usize,
    is_eight_bit: bool,
    was_fixed: bool,
}

/// A CR or LF that stands alone, where that may not be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} has a bare {octet}: write lines with CRLF, or add line-ends to messages.fix")]
pub struct BareLineEnd {
    /// The line it ends, from 1.
    pub line: usize,
    /// `CR` or `LF`.
    pub octet: &'static str,
}

impl LineEnds {
    /// A converter for one file.
    #[must_use]
    pub fn new(may_fix: bool, is_dot_stuffed: bool) -> Self {
        Self {
            may_fix,
            is_dot_stuffed,
            line: 1,
            is_fresh: true,
            is_dot: false,
            returns: 0,
            is_eight_bit: false,
            was_fixed: false,
        }
    }

    /// Appends the converted octets to `out`; at most twice as many as it is given.
    ///
    /// # Errors
    ///
    /// [`BareLineEnd`], if line ends may not be fixed.
    pub fn feed(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        self.is_eight_bit = self.is_eight_bit || !octets.is_ascii();
        let mut rest = octets;
        while let Some((&first, after)) = rest.split_first() {
            match first {
                b'\r' => {
                    self.returns += 1;
                    rest = after;
                    continue;
                }
                b'\n' => {
                    if self.returns != 1 {
                        self.fix(if self.returns == 0 { "LF" } else { "CR" })?;
                    }
                    self.returns = 0;
                    self.end_line(out);
                    rest = after;
                    continue;
                }
                _ => self.resolve_returns(out)?,
            }
            if self.is_fresh && self.is_dot_stuffed && first == b'.' {
                (self.is_fresh, self.is_dot) = (false, true);
                rest = after;
                continue;
            }
            let length = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
            if length > 0 {
                (self.is_fresh, self.is_dot) = (false, false);
                out.extend_from_slice(&rest[..length]);
                rest = &rest[length..];
            }
        }
        Ok(())
    }

    /// Ends the last line if it is open.
    ///
    /// # Errors
    ///
    /// [`BareLineEnd`] for a CR as the very last octet, if line ends may not be fixed.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        self.resolve_returns(out)?;
        if !self.is_fresh {
            self.end_line(out);
        }
        Ok(())
    }

    /// Whether an octet beyond ASCII was seen.
    #[must_use]
    pub fn is_eight_bit(&self) -> bool {
        self.is_eight_bit
    }

    /// Whether a bare CR or LF was repaired.
    #[must_use]
    pub fn was_fixed(&self) -> bool {
        self.was_fixed
    }

    /// CRs with no LF after them end a line each.
    fn resolve_returns(&mut self, out: &mut Vec<u8>) -> Result<(), BareLineEnd> {
        for _ in 0..std::mem::take(&mut self.returns) {
            self.fix("CR")?;
            self.end_line(out);
        }
        Ok(())
    }

    fn fix(&mut self, octet: &'static str) -> Result<(), BareLineEnd> {
        self.was_fixed = true;
        if self.may_fix { Ok(()) } else { Err(BareLineEnd { line: self.line, octet }) }
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        if !self.is_dot {
            out.extend_from_slice(b"\r\n");
        }
        self.line += 1;
        (self.is_fresh, self.is_dot) = (true, false);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn convert(pieces: &[&[u8]], fix: bool, dots: bool) -> Result<Vec<u8>, BareLineEnd> {
        let mut converter = LineEnds::new(fix, dots);
        let mut out = Vec::new();
        for piece in pieces {
            converter.feed(piece, &mut out)?;
        }
        converter.finish(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_line_ends_with_crlf() {
        for (from, to) in [
            ("a\nb\n", "a\r\nb\r\n"),
            ("a\r\nb", "a\r\nb\r\n"),
            ("a\rb\r", "a\r\nb\r\n"),
            ("a\r\r\nb\r\n", "a\r\nb\r\n"),
            ("a\n\rb", "a\r\n\r\nb\r\n"),
            ("\n\n", "\r\n\r\n"),
            ("", ""),
            (".a\n.\n..\n", ".a\r\n.\r\n..\r\n"),
        ] {
            let out = convert(&[from.as_bytes()], true, false).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), to, "{from:?}");
        }
    }

    #[test]
    fn stuffed_dots_go_and_a_lone_dot_ends_nothing() {
        let out = convert(&[b"..a\r\n.b\r\n.\r\nc.\r\n..\r\n."], true, true).unwrap();
        assert_eq!(out, b".a\r\nb\r\nc.\r\n.\r\n");
    }

    #[test]
    fn bare_line_ends_are_named_where_they_may_not_be_fixed() {
        let error = |text: &[u8]| convert(&[text], false, false).unwrap_err();
        assert_eq!(error(b"a\r\nb\nc"), BareLineEnd { line: 2, octet: "LF" });
        assert_eq!(error(b"a\r\nb\rc"), BareLineEnd { line: 2, octet: "CR" });
        assert_eq!(error(b"a\r\r\n"), BareLineEnd { line: 1, octet: "CR" });
        assert_eq!(error(b"a\r"), BareLineEnd { line: 1, octet: "CR" });
        assert_eq!(convert(&[b"a\r\nb"], false, false).unwrap(), b"a\r\nb\r\n");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "[ab.\r\n]{0,30}", cut in 0_usize..30, fix: bool, dots: bool
        ) {
            let octets = text.as_bytes();
            let (front, back) = octets.split_at(cut.min(octets.len()));
            let one_by_one: Vec<_> = octets.chunks(1).collect();
            let whole = convert(&[octets], fix, dots);
            prop_assert_eq!(&convert(&[front, back], fix, dots), &whole);
            prop_assert_eq!(&convert(&one_by_one, fix, dots), &whole);
        }

        #[test]
        fn good_lines_pass_untouched_and_converted_ones_twice_the_same(text in "[ab.\r\n]{0,30}") {
            let once = convert(&[text.as_bytes()], true, false).unwrap();
            prop_assert_eq!(&convert(&[&once], false, false).unwrap(), &once);
        }
    }
}
