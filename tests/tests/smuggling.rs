//! SMTP smuggling: only CRLF.CRLF ends a message, inbound and outbound; nothing after a bare CR or LF is
//! ever executed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::ErrorKind;

use mailroot_tests::message::{awkward, tagged};
use mailroot_tests::peer::Peer;
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;

/// The sequences of the catalogue, as they would end a message in a sloppy server.
const SEQUENCES: &[(&str, &[u8])] = &[
    ("LF . LF", b"\n.\n"),
    ("LF . CRLF", b"\n.\r\n"),
    ("CRLF . LF", b"\r\n.\n"),
    ("LFLF . LF", b"\n\n.\n"),
    ("LF . LFLF", b"\n.\n\n"),
    ("CR . CR", b"\r.\r"),
    ("CR . LF", b"\r.\n"),
    ("LF . CR", b"\n.\r"),
    ("CR . CRLF", b"\r.\r\n"),
    ("CRLF . CR", b"\r\n.\r"),
    ("LFCR . LFCR", b"\n\r.\n\r"),
    ("CRLF . CRCRLF", b"\r\n.\r\r\n"),
    ("CRCRLF . CRLF", b"\r\r\n.\r\n"),
    ("CRLF NUL . CRLF", b"\r\n\0.\r\n"),
    ("CRLF . NUL CRLF", b"\r\n.\0\r\n"),
    ("CRLF . CR NUL LF", b"\r\n.\r\0\n"),
    ("CR NUL LF . CRLF", b"\r\0\n.\r\n"),
    ("CRLF . blank CRLF", b"\r\n. \r\n"),
    ("CRLF blank . CRLF", b"\r\n .\r\n"),
    ("CRLF . tab CRLF", b"\r\n.\t\r\n"),
    ("CRLF . backspace CRLF", b"\r\n.\x08\r\n"),
    ("CRLF .. CRLF", b"\r\n..\r\n"),
    ("VT . VT", b"\x0b.\x0b"),
    ("FF . FF", b"\x0c.\x0c"),
    ("FS . FS", b"\x1c.\x1c"),
    ("NEL . NEL, one octet", b"\x85.\x85"),
    ("U+0085 . U+0085", "\u{85}.\u{85}".as_bytes()),
    ("U+2028 . U+2028", "\u{2028}.\u{2028}".as_bytes()),
    ("CRLF fullwidth dot CRLF", "\r\n\u{ff0e}\r\n".as_bytes()),
    ("CRLF 0xAE CRLF", b"\r\n\xae\r\n"),
    ("literal backslashes", b"\\r\\n.\\r\\n"),
    ("CRLF ideographic dot CRLF", "\r\n\u{3002}\r\n".as_bytes()),
];

const SECOND: &[u8] =
    b"MAIL FROM:<smuggled@client.test>\r\nRCPT TO:<victim@local.test>\r\nDATA\r\nsmuggled\r\n.\r\n";

/// Opens a transaction up to 354.
fn open(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<outer@client.test>", 250);
    talk.expect(&format!("RCPT TO:<x@{LOCAL_DOMAIN}>"), 250);
    talk.expect("DATA", 354);
    talk
}

/// Exactly one reply came for all that was sent; then the connection is closed or still in order.
fn one_reply(name: &str, talk: &mut Talk) -> u16 {
    let reply = talk.reply().unwrap_or_else(|error| panic!("{name}: {error}"));
    match talk.try_say("NOOP") {
        Ok(next) => assert_eq!(next.code, 250, "{name}: after {reply} came {next}"),
        Err(error) => assert!(
            matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            "{name}: {error}"
        ),
    }
    reply.code
}

fn nothing_was_smuggled(site: &Site) {
    site.await_empty_queue();
    for stored in site.dropped("default") {
        assert_ne!(stored.fields("Return-Path"), ["<smuggled@client.test>"], "{}", stored.text());
    }
}

#[test]
fn no_sequence_but_the_genuine_one_ends_a_message() {
    let site = Site::start(Setup::new());
    for (name, sequence) in SEQUENCES {
        let mut talk = open(&site);
        let head = b"Subject: outer\r\n\r\nfirst line";
        let _may_be_cut = talk.send(&[&head[..], sequence, SECOND].concat());

        let code = one_reply(name, &mut talk);

        let bare = sequence.iter().enumerate().any(|(at, &octet)| {
            octet == b'\n' && (at == 0 || sequence[at - 1] != b'\r')
                || octet == b'\r' && sequence.get(at + 1) != Some(&b'\n')
        });
        assert!(!bare || code >= 500, "{name}: a bare line end was answered {code}");
    }
    nothing_was_smuggled(&site);
}

#[test]
fn the_place_of_a_sequence_makes_no_difference() {
    let site = Site::start(Setup::new().key("messages.max_size", "64KiB"));
    for (place, before) in [
        ("first line", 0),
        ("after 1 KiB", 1 << 10),
        ("before 4 KiB", (4 << 10) - 1),
        ("at 16 KiB", 16 << 10),
        ("at 64 KiB", 64 << 10),
        ("past the size limit", 80 << 10),
    ] {
        for (name, sequence) in &SEQUENCES[..4] {
            let mut talk = open(&site);
            let mut octets = b"Subject: outer\r\n\r\n".to_vec();
            while octets.len() < before {
                octets.push(if octets.len() % 70 == 69 { b'\n' } else { b'x' });
                if octets.ends_with(b"\n") {
                    let at = octets.len() - 2;
                    octets[at] = b'\r';
                }
            }
            if before == 0 {
                octets.clear();
            }
            let _may_be_cut = talk.send(&[&octets[..], sequence, SECOND].concat());
            let code = one_reply(&format!("{name} {place}"), &mut talk);
            assert!(code >= 400, "{name} {place}: {code}");
        }
    }
    nothing_was_smuggled(&site);
}

#[test]
fn the_genuine_end_is_found_octet_by_octet_and_at_every_edge() {
    let site = Site::start(Setup::new());
    let mut talk = open(&site);
    for octet in b"Subject: slowly\r\n\r\nx\r\n.\r\n" {
        talk.send(&[*octet]).unwrap();
    }
    assert_eq!(talk.reply().unwrap().code, 250);

    for size in [4096, 8192, 16_384, 65_536] {
        for cut in 0..5 {
            let mut talk = open(&site);
            let mut octets = b"Subject: edge\r\n\r\n".to_vec();
            while octets.len() < size - cut {
                let line = usize::min(60, size - cut - octets.len());
                if line < 3 {
                    break;
                }
                octets.extend(std::iter::repeat_n(b'e', line - 2));
                octets.extend_from_slice(b"\r\n");
            }
            octets.extend_from_slice(b"\r\n.\r\n");
            talk.send(&octets).unwrap();
            assert_eq!(talk.reply().unwrap().code, 250, "{size} {cut}");
        }
    }
}

#[test]
fn the_end_of_a_message_within_a_chunk_is_data() {
    let site = Site::start(Setup::new());
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<outer@client.test>", 250);
    talk.expect(&format!("RCPT TO:<x@{LOCAL_DOMAIN}>"), 250);
    let inside = [b"Subject: chunk\r\n\r\na\r\n.\r\n", SECOND].concat();
    talk.send(format!("BDAT {} LAST\r\n", inside.len()).as_bytes()).unwrap();
    talk.send(&inside).unwrap();

    assert_eq!(talk.reply().unwrap().code, 250);
    talk.expect("NOOP", 250);
    assert!(site.await_dropped(1)[0].octets.ends_with(&inside));
    nothing_was_smuggled(&site);
}

#[test]
fn a_bare_line_end_in_a_command_makes_no_second_command() {
    let site = Site::start(Setup::new());
    for line in [
        &b"MAIL FROM:<a@client.test>\nRCPT TO:<x@local.test>\r\n"[..],
        b"MAIL FROM:<a@client.test>\rRCPT TO:<x@local.test>\r\n",
        b"NOOP\nNOOP\r\n",
        b"NOOP\rNOOP\r\n",
    ] {
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        talk.send(line).unwrap();
        let code = one_reply(&String::from_utf8_lossy(line), &mut talk);
        assert!(code >= 500, "{code}");
    }
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.send(&[vec![b'x'; 70_000], b"\r\n".to_vec()].concat()).unwrap();
    assert!(one_reply("an overlong line", &mut talk) >= 500);
}

#[test]
fn what_leaves_has_clean_lines_and_its_dots() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let messages: Vec<Vec<u8>> = vec![
        awkward("dots"),
        b"Subject: only dots\r\n\r\n.\r\n..\r\n...\r\n".to_vec(),
        b".no header, a dot first\r\n".to_vec(),
        [tagged("end"), b"line\r\n.".to_vec(), b"\r\n".to_vec()].concat(),
        b"\r\n".to_vec(),
    ];
    for octets in &messages {
        let reply = talk.message("a@client.test", &["b@far.test"], octets).unwrap();
        assert_eq!(reply.code, 250, "{reply}");
    }

    let received = peer.await_received(messages.len());

    for sent in &messages {
        let found = received.iter().any(|message| message.octets.ends_with(sent));
        assert!(found, "{:?} did not come unchanged", String::from_utf8_lossy(sent));
    }
    peer.must_have_read_clean_lines();
}
