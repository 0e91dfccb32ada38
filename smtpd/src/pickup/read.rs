//! Reads a claimed file: its header whole, its body in pieces. Everything here blocks.

use std::fs::File;
use std::io::{self, Read};

use mailroot_common::units::ByteSize;
use smtpd_core::message::import::{Bad, Rules};
use smtpd_core::message::line_ends::LineEnds;
use smtpd_core::message::pickup::{self, Parsed};

/// How much is read at a time, and how large a file may be to be read in one go.
pub(super) const PIECE_OCTETS: usize = 256 << 10;

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
pub(super) fn front(file: File, rules: &Rules) -> io::Result<Result<Front, Bad>> {
    let mut reading = Reading {
        file,
        ends: rules.line_ends(),
        left: rules.size_max.as_u64(),
        limit: rules.size_max,
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
        match pickup::parse(&octets, reading.is_done, &rules.parse) {
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

    use smtpd_core::message::pickup::Fault;

    use super::*;

    fn file(octets: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        file.rewind().unwrap();
        file
    }

    fn rules() -> Rules {
        Rules {
            parse: pickup::Settings {
                x_headers: true,
                header_octets_max: 1 << 20,
                recipients_max: 100,
                default_sender: None,
            },
            fix_line_ends: true,
            dot_stuffed: false,
            size_max: ByteSize::mib(2),
            hops_max: 100,
            add_date: true,
            add_message_id: true,
        }
    }

    #[test]
    fn small_file_is_read_whole_with_its_line_ends_put_right() {
        let front = front(file(b"From: a@b\nTo: c@d\n\nhi\n.\n\xfc"), &rules()).unwrap().unwrap();
        assert!(front.reading.is_done() && front.reading.is_eight_bit());
        assert_eq!(front.parsed.header, b"From: a@b\r\nTo: c@d\r\n\r\n");
        assert_eq!(front.body, b"hi\r\n.\r\n\xfc\r\n");
    }

    #[test]
    fn large_file_comes_in_pieces() {
        let mut octets = b"From: a@b\r\nTo: c@d\r\n\r\n".to_vec();
        let lines = b"0123456789\r\n".repeat(100_000);
        octets.extend_from_slice(&lines);
        let mut front = front(file(&octets), &rules()).unwrap().unwrap();
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
        let front = front(file(long.as_bytes()), &rules()).unwrap().unwrap();
        assert_eq!(front.body, b"hi\r\n");
    }

    #[test]
    fn bad_files_say_why() {
        let bad = |octets: &[u8], rules: &Rules| front(file(octets), rules).unwrap().unwrap_err();
        assert_eq!(bad(b"", &rules()), Bad::Fault(Fault::Empty));
        let strict = Rules { fix_line_ends: false, ..rules() };
        assert!(bad(b"From: a@b\n", &strict).to_string().contains("line 1 has a bare LF"));
        let small = Rules { size_max: ByteSize::bytes(5), ..rules() };
        assert!(matches!(bad(b"From: a@b\n", &small), Bad::Grew(_)));
        let narrow =
            Rules { parse: pickup::Settings { header_octets_max: 10, ..rules().parse }, ..rules() };
        assert!(bad(b"From: a@b\r\nTo: c@d\r\n", &narrow).to_string().contains("larger than 10"));
    }
}
