//! Answers of a milter: whatever it says is read or refused, and whatever it wants changed leaves one header
//! before the same body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailroot_common::message::header::{HeaderEnd, scan};
use smtpd_core::milter::answer::{Answer, Verdict};
use smtpd_core::milter::edit::edited;
use smtpd_core::milter::offer::Agreed;
use smtpd_core::milter::{Frame, frame};

const HEADER: &[u8] = b"From: a@client.test\r\nSubject: one\r\n\ttwo\r\nX: 1\r\nX: 2\r\n\r\n";
const BODY: &[u8] = b"X: this is the body\r\n";
const OCTETS_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((terms, mut rest)) = input.split_at_checked(12) else { return };
    // All that was offered, in every second case, so that changes are not refused for the terms alone.
    let all = [0, 0, 0, 6, 0, 0, 0, 0xFF, 0, 0, 0, 0];
    let terms = if terms[0] & 1 == 1 { &all[..] } else { terms };
    let Ok(agreed) = Agreed::read(b'O', terms) else { return };
    let mut changes = Vec::new();
    while let Ok(Some(Frame { letter, content, used })) = frame(rest) {
        assert_eq!(used, content.len() + 5);
        rest = &rest[used..];
        match Answer::read(letter, content, &agreed) {
            Ok(Answer::Change(change)) => changes.push(change),
            Ok(Answer::Verdict(Verdict::Reply(reply))) => {
                assert_eq!(reply.code.class(), reply.enhanced.class());
                assert!(reply.words.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let Ok(made) = edited(HEADER, &changes, agreed.keeps_blanks(), OCTETS_MAX) else { return };
    assert!(made.len() <= OCTETS_MAX);
    let whole = [&made[..], BODY].concat();
    let facts = scan(&whole, whole.len());
    assert_eq!(facts.end, HeaderEnd::EmptyLine);
    assert_eq!(&whole[facts.header_octets..], BODY);
});
