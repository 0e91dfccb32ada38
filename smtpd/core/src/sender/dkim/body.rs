//! The digests of a body in both canonical forms of DKIM (RFC 6376 section 3.4), taken while it arrives.
//!
//! In: pieces of any size. Out: a SHA-256 for each form that a signature uses, and how many octets it
//! covers. Nothing of the body is kept.

use sha2::{Digest as _, Sha256};

use crate::message::sign::SimpleBody;

/// How a header or a body is put into canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Form {
    /// As it is.
    Simple,
    /// Blanks may have changed.
    Relaxed,
}

/// What was digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Digested {
    /// The SHA-256.
    pub(in super::super) sum: [u8; 32],
    /// Octets in canonical form.
    pub(in super::super) octets: u64,
}

#[derive(Clone, Debug, Default)]
struct Hasher {
    hash: Sha256,
    octets: u64,
}

impl Hasher {
    fn take(&mut self, octets: &[u8]) {
        self.hash.update(octets);
        self.octets += octets.len() as u64;
    }

    fn finish(self) -> Digested {
        Digested { sum: self.hash.finalize().into(), octets: self.octets }
    }
}

/// The digests of one body.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Bodies {
    simple: Option<(SimpleBody, Hasher)>,
    relaxed: Option<(RelaxedBody, Hasher)>,
}

impl Bodies {
    /// Has a form digested as well.
    pub(in super::super) fn want(&mut self, form: Form) {
        match form {
            Form::Simple => drop(self.simple.get_or_insert_with(Default::default)),
            Form::Relaxed => drop(self.relaxed.get_or_insert_with(Default::default)),
        }
    }

    /// Takes a piece.
    pub(in super::super) fn push(&mut self, piece: &[u8]) {
        if let Some((body, hasher)) = &mut self.simple {
            body.push(piece, |octets| hasher.take(octets));
        }
        if let Some((body, hasher)) = &mut self.relaxed {
            body.push(piece, |octets| hasher.take(octets));
        }
    }

    /// Ends the body.
    pub(in super::super) fn finish(self) -> Sums {
        let simple = self.simple.map(|(body, mut hasher)| {
            body.finish(|octets| hasher.take(octets));
            hasher.finish()
        });
        let relaxed = self.relaxed.map(|(body, mut hasher)| {
            body.finish(|octets| hasher.take(octets));
            hasher.finish()
        });
        Sums { simple, relaxed }
    }
}

/// The digests of a whole body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Sums {
    simple: Option<Digested>,
    relaxed: Option<Digested>,
}

impl Sums {
    /// That of a form that was wanted.
    pub(in super::super) fn of(&self, form: Form) -> Option<Digested> {
        match form {
            Form::Simple => self.simple,
            Form::Relaxed => self.relaxed,
        }
    }
}

/// Puts the pieces of one body into the relaxed form (section 3.4.4): runs of blanks are one blank, none
/// stands at the end of a line, and lines that are empty then count only if something follows.
#[derive(Clone, Debug, Default)]
struct RelaxedBody {
    /// Line ends that count only if something follows.
    held: u64,
    /// Blanks that count only if something follows on the line.
    gap: bool,
    /// The last piece ended with a CR.
    after_cr: bool,
    /// Something was handed on.
    begun: bool,
}

impl RelaxedBody {
    fn push(&mut self, piece: &[u8], mut out: impl FnMut(&[u8])) {
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) {
                if first == b'\n' {
                    self.held += 1;
                    self.gap = false;
                    rest = &rest[1..];
                    continue;
                }
                self.release(&mut out);
                out(b"\r");
            }
            match first {
                b'\r' => {
                    self.after_cr = true;
                    rest = &rest[1..];
                }
                b' ' | b'\t' => {
                    self.gap = true;
                    rest = &rest[1..];
                }
                _ => {
                    let special = |&octet: &u8| matches!(octet, b'\r' | b' ' | b'\t');
                    let end = rest.iter().position(special).unwrap_or(rest.len());
                    self.release(&mut out);
                    out(&rest[..end]);
                    rest = &rest[end..];
                }
            }
        }
    }

    fn finish(mut self, mut out: impl FnMut(&[u8])) {
        if self.after_cr {
            self.release(&mut out);
            out(b"\r");
        }
        if self.begun {
            out(b"\r\n");
        }
    }

    fn release(&mut self, out: &mut impl FnMut(&[u8])) {
        self.begun = true;
        for _ in 0..std::mem::take(&mut self.held) {
            out(b"\r\n");
        }
        if std::mem::take(&mut self.gap) {
            out(b" ");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn relaxed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut body, mut out) = (RelaxedBody::default(), Vec::new());
        for piece in pieces {
            body.push(piece, |octets| out.extend_from_slice(octets));
        }
        body.finish(|octets| out.extend_from_slice(octets));
        out
    }

    #[test]
    fn blanks_shrink_and_empty_lines_at_the_end_go() {
        for (body, expected) in [
            ("", ""),
            ("\r\n\r\n", ""),
            (" \t\r\n  ", ""),
            ("a", "a\r\n"),
            (" C \r\nD \t E\r\n\r\n\r\n", " C\r\nD E\r\n"),
            ("Hello\r\n \t \r\n\r\n", "Hello\r\n"),
            ("a\r\n \r\n b", "a\r\n\r\n b\r\n"),
            ("a \r", "a \r\r\n"),
        ] {
            assert_eq!(relaxed(&[body.as_bytes()]), expected.as_bytes(), "{body:?}");
        }
    }

    #[test]
    fn digests_are_those_of_the_forms_that_are_wanted() {
        let mut bodies = Bodies::default();
        bodies.want(Form::Relaxed);
        bodies.push(b"\r\n");
        let sums = bodies.finish();
        assert_eq!(sums.of(Form::Simple), None);
        let empty = Digested { sum: Sha256::digest(b"").into(), octets: 0 };
        assert_eq!(sums.of(Form::Relaxed), Some(empty));
        let mut bodies = Bodies::default();
        bodies.want(Form::Simple);
        let sums = bodies.finish();
        let line = Digested { sum: Sha256::digest(b"\r\n").into(), octets: 2 };
        assert_eq!(sums.of(Form::Simple), Some(line));
    }

    /// The rule as the standard words it, on the whole body.
    fn slow(body: &str) -> Vec<u8> {
        let mut lines: Vec<String> = body
            .split("\r\n")
            .map(|line| {
                let mut line = line.replace('\t', " ");
                while line.contains("  ") {
                    line = line.replace("  ", " ");
                }
                line.trim_end_matches(' ').to_owned()
            })
            .collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines.into_iter().map(|line| line + "\r\n").collect::<String>().into_bytes()
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(pieces in prop::collection::vec("[a \t]{0,3}|(\r\n){0,4}|\r|\n", 0..9)) {
            let cut: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            prop_assert_eq!(relaxed(&cut), slow(&pieces.concat()));
        }
    }
}
