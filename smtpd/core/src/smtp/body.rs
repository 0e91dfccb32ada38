//! Message bodies as they arrive.
//!
//! In: octets after DATA or within BDAT, in whatever pieces the network made. Out: the octets of
//! the message, counted and checked.
//!
//! SMTP smuggling shapes this file: two servers that do not agree where a message ends can be made
//! to see two messages where there was one. So only CR LF `.` CR LF ends a good message, a bare CR
//! or LF makes the message a bad one, and nothing that follows a bad one is executed: the server
//! machine closes. Once a message is bad, LF `.` LF is taken for its end as well, because a client
//! that writes such lines waits for its reply there.
//!
//! Bodies are most of what is received, so the few octets that matter are looked for with
//! `memchr` and the runs between them copied once.

use memchr::memchr3;

use super::refusal::Refusal;

/// What a message may be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Octets of the whole message, without dots that were stuffed.
    pub size_max: u64,
    /// Octets of a line with its CRLF; at least 1000 by RFC 5321 section 4.5.3.1.6.
    pub line_max: usize,
    /// Octets of the header, without the empty line after it.
    pub header_max: usize,
}

/// How a body is framed and what may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// DATA: lines, dots stuffed, ended by a line with one dot.
    Dots,
    /// BDAT of a message in lines: counted octets.
    Chunks,
    /// BDAT of a BINARYMIME message: counted octets of any kind (RFC 3030).
    BinaryChunks,
}

/// Takes a message off the wire.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    framing: Framing,
    limits: BodyLimits,
    place: Place,
    /// Octets of the message so far, also those of a message that is refused already.
    octets: u64,
    line_octets: usize,
    header_octets: Option<usize>,
    fault: Option<Refusal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    LineStart,
    /// Behind a dot that began a line; it is not part of the message.
    Dot,
    /// Behind a dot that began a line, and CR.
    DotCr,
    Line,
    /// Behind a CR.
    Cr,
}

/// What one piece of octets came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many octets of the piece were used.
    pub octets: usize,
    /// Whether the end of the message was among them; then the octets after it are commands.
    pub ended: bool,
}

impl BodyDecoder {
    /// A decoder for one message.
    #[must_use]
    pub const fn new(framing: Framing, limits: BodyLimits) -> Self {
        Self {
            framing,
            limits,
            place: Place::LineStart,
            octets: 0,
            line_octets: 0,
            header_octets: Some(0),
            fault: None,
        }
    }

    /// Why the message must be refused, as far as is known.
    #[must_use]
    pub const fn fault(&self) -> Option<Refusal> {
        self.fault
    }

    /// Octets of the message so far.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// Takes octets and appends those of the message to `out`; nothing is appended any more once
    /// the message must be refused. With [`Framing::Dots`] all octets are used unless the message
    /// ends; with chunks all octets are used and the caller knows where the message ends.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Taken {
        let taken = match self.framing {
            Framing::BinaryChunks => {
                self.keep(octets, out);
                Taken { octets: octets.len(), ended: false }
            }
            Framing::Dots | Framing::Chunks => self.push_lines(octets, out),
        };
        if self.octets > self.limits.size_max {
            self.refuse(Refusal::TooLarge);
        }
        taken
    }

    /// The chunk that was declared the last one is complete.
    pub fn finish_chunks(&mut self) {
        if self.framing == Framing::Chunks && self.place == Place::Cr {
            self.refuse(Refusal::BareLineEndInChunk);
        }
    }

    fn push_lines(&mut self, octets: &[u8], out: &mut Vec<u8>) -> Taken {
        // Octets from `run` to `at` belong to the message and are not copied yet.
        let (mut run, mut at) = (0, 0);
        while let Some(&octet) = octets.get(at) {
            match self.place {
                Place::LineStart if octet == b'.' && self.framing == Framing::Dots => {
                    self.keep(between(octets, run, at), out);
                    at += 1;
                    run = at;
                    self.place = Place::Dot;
                }
                Place::Dot if octet == b'\r' => {
                    at += 1;
                    run = at;
                    self.place = Place::DotCr;
                }
                Place::Dot if octet == b'\n' => {
                    self.on_bare_line_end();
                    return Taken { octets: at + 1, ended: true };
                }
                Place::DotCr if octet == b'\n' => return Taken { octets: at + 1, ended: true },
                Place::DotCr => {
                    self.on_bare_line_end();
                    self.place = Place::Line;
                }
                Place::LineStart | Place::Dot | Place::Line => at = self.scan_line(octets, at),
                Place::Cr if octet == b'\n' => {
                    at += 1;
                    self.end_line();
                }
                Place::Cr => {
                    self.on_bare_line_end();
                    self.place = Place::Line;
                }
            }
        }
        self.keep(between(octets, run, at), out);
        Taken { octets: octets.len(), ended: false }
    }

    /// Goes on to the octet after the next CR, LF or NUL, or to the end of the piece.
    fn scan_line(&mut self, octets: &[u8], at: usize) -> usize {
        let rest = octets.get(at..).unwrap_or_default();
        let Some(plain) = memchr3(b'\r', b'\n', 0, rest) else {
            self.place = Place::Line;
            self.line_octets += rest.len();
            self.check_line();
            return octets.len();
        };
        self.line_octets += plain;
        match rest.get(plain) {
            Some(b'\r') => self.place = Place::Cr,
            Some(b'\n') => {
                self.on_bare_line_end();
                self.place = Place::LineStart;
            }
            _ => {
                self.refuse(Refusal::NulInMessage);
                self.place = Place::Line;
            }
        }
        self.check_line();
        at + plain + 1
    }

    fn check_line(&mut self) {
        if self.line_octets + 2 > self.limits.line_max {
            self.refuse(Refusal::MessageLineTooLong);
        }
        if self.header_octets.is_some_and(|o| o + self.line_octets > self.limits.header_max) {
            self.refuse(Refusal::HeaderTooLarge);
        }
    }

    fn end_line(&mut self) {
        if let Some(octets) = &mut self.header_octets {
            *octets += self.line_octets + 2;
            if self.line_octets == 0 {
                self.header_octets = None;
            }
        }
        self.line_octets = 0;
        self.place = Place::LineStart;
    }

    fn on_bare_line_end(&mut self) {
        self.line_octets = 0;
        let refusal = match self.framing {
            Framing::Dots => Refusal::BareLineEnd,
            Framing::Chunks | Framing::BinaryChunks => Refusal::BareLineEndInChunk,
        };
        // It outranks what was found before: it decides whether the session can go on.
        self.fault = Some(refusal);
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.fault.get_or_insert(refusal);
    }

    fn keep(&mut self, run: &[u8], out: &mut Vec<u8>) {
        self.octets = self.octets.saturating_add(run.len() as u64);
        if self.fault.is_none() && self.octets <= self.limits.size_max {
            out.extend_from_slice(run);
        }
    }
}

/// Ends of runs never lie before their beginnings or behind the piece they were found in.
fn between(octets: &[u8], start: usize, end: usize) -> &[u8] {
    octets.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { size_max: 10_000, line_max: 1000, header_max: 5_000 };

    fn decode(wire: &[u8]) -> (Vec<u8>, Option<Refusal>, Option<usize>) {
        decode_in_pieces(wire, wire.len().max(1), LIMITS)
    }

    fn decode_in_pieces(
        wire: &[u8],
        piece: usize,
        limits: BodyLimits,
    ) -> (Vec<u8>, Option<Refusal>, Option<usize>) {
        let mut decoder = BodyDecoder::new(Framing::Dots, limits);
        let (mut out, mut used) = (Vec::new(), 0);
        for piece in wire.chunks(piece) {
            let taken = decoder.push(piece, &mut out);
            used += taken.octets;
            if taken.ended {
                return (out, decoder.fault(), Some(used));
            }
        }
        (out, decoder.fault(), None)
    }

    /// The decoder as slow and plain as can be: octet by octet, from the definition.
    fn model(wire: &[u8]) -> (Vec<u8>, bool, Option<usize>) {
        let (mut bad, mut line, mut out) = (false, Vec::new(), Vec::new());
        let mut at = 0;
        while at < wire.len() {
            let two = &wire[at..wire.len().min(at + 2)];
            let end = match two {
                b"\r\n" => Some(2),
                [b'\n', ..] => {
                    bad = true;
                    Some(1)
                }
                [b'\r', _] => {
                    bad = true;
                    None
                }
                _ => None,
            };
            let Some(end) = end else {
                line.push(wire[at]);
                at += 1;
                continue;
            };
            at += end;
            if line == b"." {
                return (out, bad, Some(at));
            }
            out.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            out.extend_from_slice(b"\r\n");
            line.clear();
        }
        (out, bad, None)
    }

    #[test]
    fn dots_are_unstuffed_and_the_end_is_found() {
        let (out, fault, end) = decode(b"a\r\n..b\r\n.c\r\n.\r\nNOOP\r\n");
        assert_eq!(out, b"a\r\n.b\r\nc\r\n");
        assert_eq!((fault, end), (None, Some(15)));
        assert_eq!(decode(b".\r\n"), (vec![], None, Some(3)));
    }

    #[test]
    fn no_other_sequence_ends_a_good_message() {
        for sequence in [
            &b"\r\n\0.\r\n"[..],
            b"\r\n.\0\r\n",
            b"\r\n. \r\n",
            b"\r\n .\r\n",
            b"\r\n.\t\r\n",
            b"\r\n.\x08\r\n",
            b"\r\n..\r\n",
            b"\x0b.\x0b",
            b"\x0c.\x0c",
            b"\x1c.\x1c",
            b"\x85.\x85",
            "\u{85}.\u{85}".as_bytes(),
            "\u{2028}.\u{2028}".as_bytes(),
            "\r\n\u{ff0e}\r\n".as_bytes(),
            b"\r\n\xae\r\n",
            b"\\r\\n.\\r\\n",
        ] {
            let wire = [b"x: y\r\n\r\nq", sequence, b"MAIL FROM:<a@b>\r\n.\r\n"].concat();
            let (_, fault, end) = decode(&wire);
            assert_eq!(end, Some(wire.len()), "{sequence:?}");
            let nul = sequence.contains(&0);
            assert_eq!(fault, nul.then_some(Refusal::NulInMessage), "{sequence:?}");
        }
    }

    #[test]
    fn bare_line_ends_make_the_message_bad_at_any_place() {
        for sequence in [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\n\n.\n",
            "\n.\n\n",
            "\r.\r",
            "\r.\n",
            "\n.\r",
            "\r.\r\n",
            "\r\n.\r",
            "\n\r.\n\r",
            "\r\n.\r\r\n",
            "\r\r\n.\r\r\n",
            "\r\n.\r\0\n",
            "\r\0\n.\r\n",
            "\r",
            "\n",
        ] {
            for before in ["", "x: y", "x: y\r\n\r\nbody"] {
                let wire = format!("{before}{sequence}MAIL FROM:<a@b>\r\n.\r\n");
                let (_, fault, end) = decode(wire.as_bytes());
                assert_eq!(fault, Some(Refusal::BareLineEnd), "{wire:?}");
                assert!(end.is_some(), "{wire:?}");
                let large = BodyLimits { size_max: 2, ..LIMITS };
                let (out, fault, _) = decode_in_pieces(wire.as_bytes(), 3, large);
                assert_eq!(fault, Some(Refusal::BareLineEnd), "after the limit: {wire:?}");
                assert!(out.len() <= 2);
            }
        }
    }

    #[test]
    fn limits_are_met_exactly_and_bound_what_is_kept() {
        let limits = BodyLimits { size_max: 12, line_max: 8, header_max: 8 };
        let play = |wire: &str| {
            let (out, fault, end) = decode_in_pieces(wire.as_bytes(), 2, limits);
            assert_eq!(end, Some(wire.len()), "{wire:?}");
            assert!(out.len() <= 12, "{wire:?}");
            fault
        };
        assert_eq!(play("a: b\r\n\r\n12\r\n.\r\n"), None);
        assert_eq!(play("a: b\r\n\r\n123\r\n.\r\n"), Some(Refusal::TooLarge));
        assert_eq!(play("\r\n123456\r\n.\r\n"), None);
        assert_eq!(play("\r\n1234567\r\n.\r\n"), Some(Refusal::MessageLineTooLong));
        assert_eq!(play("a: b\r\n12\r\n.\r\n"), None);
        assert_eq!(play("a: b\r\n123\r\n.\r\n"), Some(Refusal::HeaderTooLarge));
    }

    #[test]
    fn chunks_are_counted_and_dots_mean_nothing_in_them() {
        let limits = BodyLimits { size_max: 20, line_max: 12, header_max: 20 };
        let mut decoder = BodyDecoder::new(Framing::Chunks, limits);
        let mut out = Vec::new();
        decoder.push(b".\r\n..\r", &mut out);
        decoder.push(b"\n.\r\n", &mut out);
        decoder.finish_chunks();
        assert_eq!((out.as_slice(), decoder.fault()), (&b".\r\n..\r\n.\r\n"[..], None));

        for bare in [&b"a\nb"[..], b"a\rb", b"a\r"] {
            let mut decoder = BodyDecoder::new(Framing::Chunks, limits);
            decoder.push(bare, &mut Vec::new());
            decoder.finish_chunks();
            assert_eq!(decoder.fault(), Some(Refusal::BareLineEndInChunk), "{bare:?}");
            let mut decoder = BodyDecoder::new(Framing::BinaryChunks, limits);
            let mut out = Vec::new();
            decoder.push(bare, &mut out);
            decoder.finish_chunks();
            assert_eq!((out.as_slice(), decoder.fault()), (bare, None));
        }
    }

    /// Octets that are likely to matter.
    fn wire() -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a'),];
        let part = prop_oneof![
            3 => Just(b"\r\n".to_vec()),
            2 => Just(b"\r\n.\r\n".to_vec()),
            3 => octet.prop_map(|octet| vec![octet]),
        ];
        proptest::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn decoder_equals_the_plain_model_however_the_octets_are_cut(
            wire in wire(), piece in 1..9_usize,
        ) {
            let (out, fault, end) = decode_in_pieces(&wire, piece, LIMITS);
            let (plain, bad, plain_end) = model(&wire);
            prop_assert_eq!(end, plain_end);
            if end.is_some() {
                prop_assert_eq!(fault == Some(Refusal::BareLineEnd), bad);
                if !bad {
                    prop_assert_eq!(out, plain);
                }
            }
        }
    }
}
