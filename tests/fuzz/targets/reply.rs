//! Replies of a peer: pieces make no difference, memory is bounded, what is taken for a reply is
//! one by a slow check, and what is written is read again as itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailroot_fuzz::split;
use smtpd_core::smtp::reply::{LINE_OCTETS_MAX, OCTETS_MAX, Reply, ReplyError, ReplyReader, parse};

fuzz_target!(|input: &[u8]| {
    let (octets, mut choices) = split(input);
    let (mut reader, mut said, mut error) = (ReplyReader::default(), Vec::new(), None);
    let mut rest = octets;
    'wire: while !rest.is_empty() {
        let (piece, behind) = choices.piece(rest);
        rest = behind;
        reader.feed(piece);
        loop {
            match reader.next_reply() {
                Ok(Some(reply)) => said.push(reply),
                Ok(None) => break,
                Err(fault) => {
                    error = Some(fault);
                    break 'wire;
                }
            }
        }
    }
    if error.is_none() {
        // What no reply has used up is the beginning of one.
        assert_eq!(reader.has_rest(), whole(octets).0 < octets.len());
    }

    let mut rest = octets;
    let mut at_once = Vec::new();
    let ended = loop {
        match parse(rest) {
            Ok(Some((reply, used))) => {
                assert!(used <= OCTETS_MAX);
                check(&reply, &rest[..used]);
                at_once.push(reply);
                rest = &rest[used..];
            }
            Ok(None) => {
                assert!(rest.len() < OCTETS_MAX, "no more is kept than a reply may have");
                break None;
            }
            Err(fault) => break Some(fault),
        }
    };
    assert_eq!((said, error), (at_once.clone(), ended));
    assert_eq!(at_once.len(), whole(octets).1);

    if let Ok(text) = String::from_utf8(octets.to_vec())
        && let Some(reply) = at_once.first()
    {
        written(&Reply::new(reply.code(), reply.enhanced(), text));
    }
});

/// How many octets and replies stand at the front, by the grammar: `*( code "-" text CRLF ) code
/// [ SP text ] CRLF` with one code.
fn whole(octets: &[u8]) -> (usize, usize) {
    let (mut used, mut replies, mut at, mut code) = (0, 0, 0, None);
    while let Some(end) = octets[at..].iter().position(|octet| *octet == b'\n') {
        let line = &octets[at..=at + end];
        at += end + 1;
        let good = line.len() <= LINE_OCTETS_MAX
            && line.len() >= 5
            && line.ends_with(b"\r\n")
            && !line.contains(&0)
            && (b'2'..=b'5').contains(&line[0])
            && line[1..3].iter().all(u8::is_ascii_digit)
            && matches!(line[3], b' ' | b'-' | b'\r')
            && (line[3] != b'\r' || line.len() == 5)
            && code.is_none_or(|code: [u8; 3]| code == line[..3])
            && at - used <= OCTETS_MAX;
        if !good {
            break;
        }
        code = Some([line[0], line[1], line[2]]);
        if line[3] != b'-' {
            (used, replies, code) = (at, replies + 1, None);
        }
    }
    (used, replies)
}

fn check(reply: &Reply, octets: &[u8]) {
    assert_eq!(whole(octets), (octets.len(), 1), "only what is a reply is taken for one");
    assert_eq!(reply.code().to_string().as_bytes(), &octets[..3]);
    let printable = |c: char| c == '\n' || !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}');
    assert!(reply.text().chars().all(printable));
    assert_eq!(reply.lines().count(), octets.iter().filter(|octet| **octet == b'\n').count());
    assert!(reply.text().len() <= 3 * octets.len());
    assert!(!reply.to_string().contains(['\n', '\r']));
    if let Some(enhanced) = reply.enhanced() {
        assert_eq!(enhanced.class(), reply.class());
    }
    written(reply);
}

fn written(reply: &Reply) {
    let mut out = Vec::new();
    reply.write_to(&mut out);
    match parse(&out) {
        Ok(Some((again, used))) => {
            assert_eq!(used, out.len(), "one reply is one reply");
            assert_eq!((again.code(), again.text()), (reply.code(), reply.text()));
            assert_eq!(again.enhanced(), reply.enhanced());
            assert_eq!(again.clone().into_text(), reply.text());
        }
        Err(ReplyError::Length) => assert!(out.len() > LINE_OCTETS_MAX),
        other => panic!("{other:?}"),
    }
}
