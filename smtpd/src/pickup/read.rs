//! Reads a claimed file: its header whole, its body in pieces. Everything here blocks.

use std::fs::File;
use std::io::{self, Read};

use mailroot_common::units::ByteSize;
use smtpd_core::message::line_ends::{BareLineEnd, LineEnds};
use smtpd_core::message::pickup::{self, Fault, Parsed};

/// How much is read at a time, and how large a file may be to be read in one go.
pub(super) const PIECE_OCTETS: usize = 256 << 10;

/// Why a file is for Badmail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Bad {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    LineEnd(#[from] BareLineEnd),
    #[error("it grew beyond messages.max_size ({0}) after it was taken")]
    Grew(ByteSize),
    #[error("it has {hops} Received fields (delivery.max_hops is {limit}): it goes in circles")]
    Hops { hops: u32, limit: u32 },
    #[error("it cannot be queued: {0}")]
    Unstorable(String),
}

/// How files are read.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) parse: pickup::Settings,
    pub(super) fix_line_ends: bool,
    pub(super) dot_stuffed: bool,
    pub(super) limit: ByteSize,
}

/// A file being read.
#[derive(Debug)]
pub(super) struct Reading {
    file: File,
    ends: LineEnds,
    left: u64,
    limit: ByteSize,
    is_done: bool,
}

/// The front of a file.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) parsed: Parsed,
    /// What follows the header, as far as it has been read.
    pub(super) body: Vec<u8>,
    pub(super) reading: Reading,
}

/// Reads a file up to the end of its header, and a small one whole.
pub(super) fn front(file: File, manner: &Manner) -> io::Result<Result<Front, Bad>> {
    let mut reading = Reading {
        file,
        ends: LineEnds::new(manner.fix_line_ends, manner.dot_stuffed),
        left: manner.limit.as_u64(),
        limit: manner.limit,
        is_done: false,
    };
    let mut octets = Vec::new();
    loop {
        if let Err(bad) = reading.piece(&mut octets)? {
            return Ok(Err(bad));
        }
        if !reading.is_done && octets.len() < PIECE_OCTETS {
            continue;
        }
        match pickup::parse(&octets, reading.is_done, &manner.parse) {
            Ok(Some(parsed)) => {
                octets.drain(..parsed.body_start);
                return Ok(Ok(Front { parsed, body: octets, reading }));
            }
            Ok(None) => {}
            Err(fault) => return Ok(Err(fault.into())),
        }
    }
}

impl Reading {
    /// Whether all of the file has been read.
    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether an octet beyond ASCII was seen.
    pub(super) fn is_eight_bit(&self) -> bool {
        self.ends.is_eight_bit()
    }

    /// Appends the next piece, its line ends put right.
    pub(super) fn piece(&mut self, out: &mut Vec<u8>) -> io::Result<Result<(), Bad>> {
        let mut raw = Vec::new();
        let count = (&mut self.file).take(PIECE_OCTETS as u64).read_to_end(&mut raw)? as u64;
        if count > self.left {
            return Ok(Err(Bad::Grew(self.limit)));
        }
        self.left -= count;
        let done = self.ends.feed(&raw, out);
        // A regular file gives fewer octets than asked for only at its end.
        let done = done.and_then(|()| {
            if count == PIECE_OCTETS as u64 {
                return Ok(());
            }
            self.is_done = true;
            self.ends.finish(out)
        });
        Ok(done.map_err(Bad::from))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn file(octets: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        file.rewind().unwrap();
        file
    }

    fn manner() -> Manner {
        Manner {
            parse: pickup::Settings {
                x_headers: true,
                header_octets_max: 1 << 20,
                recipients_max: 100,
                default_sender: None,
            },
            fix_line_ends: true,
            dot_stuffed: false,
            limit: ByteSize::mib(2),
        }
    }

    #[test]
    fn small_file_is_read_whole_with_its_line_ends_put_right() {
        let front = front(file(b"From: a@b\nTo: c@d\n\nhi\n.\n\xfc"), &manner()).unwrap().unwrap();
        assert!(front.reading.is_done() && front.reading.is_eight_bit());
        assert_eq!(front.parsed.header, b"From: a@b\r\nTo: c@d\r\n\r\n");
        assert_eq!(front.body, b"hi\r\n.\r\n\xfc\r\n");
    }

    #[test]
    fn large_file_comes_in_pieces() {
        let mut octets = b"From: a@b\r\nTo: c@d\r\n\r\n".to_vec();
        let lines = b"0123456789\r\n".repeat(100_000);
        octets.extend_from_slice(&lines);
        let mut front = front(file(&octets), &manner()).unwrap().unwrap();
        let mut body = front.body;
        let mut pieces = 0;
        while !front.reading.is_done() {
            front.reading.piece(&mut body).unwrap().unwrap();
            pieces += 1;
        }
        assert!(pieces > 3);
        assert_eq!(body, lines);
    }

    #[test]
    fn header_may_be_larger_than_a_piece() {
        let long = format!("From: a@b\r\nTo: c@d\r\nX: {}\r\n\r\nhi\r\n", "x".repeat(400_000));
        let front = front(file(long.as_bytes()), &manner()).unwrap().unwrap();
        assert_eq!(front.body, b"hi\r\n");
    }

    #[test]
    fn bad_files_say_why() {
        let bad =
            |octets: &[u8], manner: &Manner| front(file(octets), manner).unwrap().unwrap_err();
        assert_eq!(bad(b"", &manner()), Bad::Fault(Fault::Empty));
        let strict = Manner { fix_line_ends: false, ..manner() };
        assert!(bad(b"From: a@b\n", &strict).to_string().contains("line 1 has a bare LF"));
        let small = Manner { limit: ByteSize::bytes(5), ..manner() };
        assert!(matches!(bad(b"From: a@b\n", &small), Bad::Grew(_)));
        let narrow = Manner {
            parse: pickup::Settings { header_octets_max: 10, ..manner().parse },
            ..manner()
        };
        assert!(bad(b"From: a@b\r\nTo: c@d\r\n", &narrow).to_string().contains("larger than 10"));
    }
}
