//! A body in the simple form of DKIM (RFC 6376 section 3.4.3): as it is, but empty lines at its end
//! count as none, and it always ends with one CRLF.
//!
//! In: pieces of any size. Out: the same octets, handed on as they come; of a run of line ends only
//! its length is kept, so that a gigabyte of empty lines costs as little as one.

/// Puts the pieces of one body into the simple form.
#[derive(Clone, Debug, Default)]
pub struct SimpleBody {
    /// CRLFs that count only if something follows.
    held: u64,
    /// The last piece ended with a CR, behind those.
    after_cr: bool,
}

/// CRLFs handed on at once.
const LINE_ENDS: &[u8; 64] = b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\
      \r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n";

impl SimpleBody {
    /// Takes a piece; hands on what is certain of it.
    pub fn push(&mut self, piece: &[u8], mut out: impl FnMut(&[u8])) {
        let mut piece = piece;
        let Some(&first) = piece.first() else { return };
        if self.after_cr {
            self.after_cr = false;
            if first == b'\n' {
                self.held += 1;
                piece = &piece[1..];
            } else {
                self.release(&mut out);
                out(b"\r");
            }
        }
        let mut end = piece.len();
        if piece.last() == Some(&b'\r') {
            self.after_cr = true;
            end -= 1;
        }
        let mut line_ends = 0;
        while piece[..end].ends_with(b"\r\n") {
            end -= 2;
            line_ends += 1;
        }
        if end > 0 {
            self.release(&mut out);
            out(&piece[..end]);
        }
        self.held += line_ends;
    }

    /// Ends the body.
    pub fn finish(mut self, mut out: impl FnMut(&[u8])) {
        if self.after_cr {
            self.release(&mut out);
            out(b"\r");
        }
        out(b"\r\n");
    }

    fn release(&mut self, out: &mut impl FnMut(&[u8])) {
        let at_once = LINE_ENDS.len() / 2;
        while self.held > 0 {
            let count = usize::try_from(self.held).map_or(at_once, |held| held.min(at_once));
            out(&LINE_ENDS[..count * 2]);
            self.held -= count as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn simple(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut body, mut out) = (SimpleBody::default(), Vec::new());
        for piece in pieces {
            body.push(piece, |octets| out.extend_from_slice(octets));
        }
        body.finish(|octets| out.extend_from_slice(octets));
        out
    }

    #[test]
    fn empty_lines_at_the_end_count_as_none_and_others_as_they_are() {
        for (body, expected) in [
            ("", "\r\n"),
            ("\r\n\r\n", "\r\n"),
            ("a", "a\r\n"),
            ("a\r\n\r\n\r\n", "a\r\n"),
            (" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n"),
            ("a\r\n \r\n\r\n", "a\r\n \r\n"),
            ("\r\n\r\na\r\n", "\r\n\r\na\r\n"),
            ("a\r", "a\r\r\n"),
            ("a\n\n", "a\n\n\r\n"),
        ] {
            assert_eq!(simple(&[body.as_bytes()]), expected.as_bytes(), "{body:?}");
        }
        let many = "\r\n".repeat(100);
        let text = format!("a{many}b{many}");
        assert_eq!(simple(&[text.as_bytes()]), format!("a{many}b\r\n").as_bytes());
    }

    /// The rule as the standard words it, on the whole body.
    fn slow(body: &[u8]) -> Vec<u8> {
        let mut out = body.to_vec();
        while out.ends_with(b"\r\n") {
            out.truncate(out.len() - 2);
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(pieces in prop::collection::vec("[a\r\n]{0,3}|(\r\n){0,40}", 0..9)) {
            let cut: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            prop_assert_eq!(simple(&cut), slow(pieces.concat().as_bytes()));
        }
    }
}
