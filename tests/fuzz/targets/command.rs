//! Command lines: pieces make no difference to the line reader, a command that is read is written
//! and read again as itself, and where a second parser is known to be right it agrees.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::{Domain, ReversePath};
use mailroot_fuzz::{Choices, split};
use smtp_proto::{MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_RET_FULL, MAIL_RET_HDRS};
use smtp_proto::{MAIL_SMTPUTF8, Request};
use smtpd_core::queue::envelope::{BodyKind, Notify, Ret};
use smtpd_core::queue::wishes::{ByMode, HoldBack, Priority};
use smtpd_core::smtp::command::{Chunk, Command, Grammar, Mail, Rcpt, parse};
use smtpd_core::smtp::extension::{Extension, Offer};
use smtpd_core::smtp::line::{LINE_OCTETS_MAX, Line, LineReader};
use smtpd_core::smtp::refusal::{After, Refusal};

fuzz_target!(|input: &[u8]| {
    let (octets, mut choices) = split(input);
    let offer = match choices.octet() {
        0 => Offer::all(),
        bits => Extension::ALL
            .into_iter()
            .enumerate()
            .filter(|(place, _)| (usize::from(bits) >> (place % 8)) & 1 == place / 8)
            .map(|(_, extension)| extension)
            .collect(),
    };
    let default_domain = Domain::parse("d.test").expect("a domain");
    let grammar = Grammar { offer, default_domain, auth: octets.len() % 2 == 1, inquiries: false };
    let expected = slow_lines(octets);
    assert_eq!(lines(octets, &mut choices), expected);
    for line in &expected {
        if let Some(line) = line {
            check(line, &grammar);
        }
    }
    // A crash file of one line without its end is of use as well.
    let rest = octets.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
    check(rest, &grammar);
});

/// What the reader makes of octets in pieces: lines, `None` for one that is too long or bare.
fn lines(octets: &[u8], choices: &mut Choices<'_>) -> Vec<Option<Vec<u8>>> {
    let (mut reader, mut waiting, mut out) = (LineReader::default(), Vec::new(), Vec::new());
    let mut rest = octets;
    while !rest.is_empty() {
        let (piece, behind) = choices.piece(rest);
        rest = behind;
        waiting.extend_from_slice(piece);
        loop {
            let used = match reader.take_up_to(LINE_OCTETS_MAX, &waiting) {
                Line::Whole { text, octets } => {
                    assert!(octets <= LINE_OCTETS_MAX && octets == text.len() + 2);
                    out.push(Some(text.to_vec()));
                    octets
                }
                Line::Partial => break,
                Line::Skipped { octets } => {
                    assert!(octets > 0, "it would never end");
                    octets
                }
                Line::TooLong { octets } => {
                    out.push(None);
                    octets
                }
                Line::BareEnd => {
                    out.push(None);
                    return out;
                }
            };
            waiting.drain(..used);
        }
        assert!(waiting.len() < LINE_OCTETS_MAX, "what waits is bounded");
    }
    out
}

/// The same from the definition: the first CR or LF must be a CRLF.
fn slow_lines(octets: &[u8]) -> Vec<Option<Vec<u8>>> {
    let (mut out, mut rest) = (Vec::new(), octets);
    while let Some(end) = rest.iter().position(|octet| matches!(octet, b'\r' | b'\n')) {
        match &rest[end..] {
            [b'\r', b'\n', behind @ ..] => {
                out.push((end + 2 <= LINE_OCTETS_MAX).then(|| rest[..end].to_vec()));
                rest = behind;
            }
            [b'\r'] => break,
            _ => {
                out.push(None);
                break;
            }
        }
    }
    out
}

fn check(line: &[u8], grammar: &Grammar) {
    let text = std::str::from_utf8(line).ok();
    let trimmed = text.map(|text| text.trim_end_matches([' ', '\t']));
    let good = trimmed.filter(|text| !text.bytes().any(|octet| octet.is_ascii_control()));
    let Some(good) = good else {
        let complaint = parse(line, grammar).expect_err("such octets are in no command");
        assert_eq!(complaint.refusal, Refusal::BadOctet);
        return;
    };
    match parse(line, grammar) {
        Ok(command) => {
            let said = print(&command);
            assert!(!said.bytes().any(|octet| octet.is_ascii_control()), "{said:?}");
            let again = parse(said.as_bytes(), grammar).expect("what is printed is a command");
            assert_eq!(again, as_printed(command.clone(), &said), "{said:?}");
            compare(good, &command);
        }
        Err(complaint) => {
            if let Some(about) = complaint.about {
                assert!(good.contains(about));
            }
            if complaint.refusal.after() == After::Close {
                let word = good.split(' ').next().unwrap_or_default().to_ascii_uppercase();
                let http = [
                    "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "PATCH", "TRACE",
                ];
                assert!(word == "BDAT" || http.contains(&word.as_str()), "{word}");
            }
        }
    }
}

/// A domain beyond ASCII is printed as ASCII; then RCPT alone does not tell that it was not.
fn as_printed<'a>(command: Command<'a>, said: &str) -> Command<'a> {
    match command {
        Command::Rcpt(rcpt) => Command::Rcpt(Rcpt { ascii: said.is_ascii(), ..rcpt }),
        other => other,
    }
}

fn print(command: &Command<'_>) -> String {
    match command {
        Command::Helo(name) => format!("HELO {name}"),
        Command::Ehlo(name) => format!("EHLO {name}"),
        Command::Mail(mail) => print_mail(mail),
        Command::Rcpt(rcpt) => print_rcpt(rcpt),
        Command::Data => "DATA".into(),
        Command::Bdat(Chunk { octets, last }) => {
            format!("BDAT {octets}{}", if *last { " LAST" } else { "" })
        }
        Command::Rset => "RSET".into(),
        Command::Noop => "NOOP".into(),
        Command::Help => "HELP".into(),
        Command::Vrfy => "VRFY x".into(),
        Command::Etrn(etrn) => format!("ETRN {etrn}"),
        Command::Reverse(domains) if domains.is_empty() => "ATRN".to_owned(),
        Command::Reverse(domains) => {
            let names: Vec<String> = domains.iter().map(ToString::to_string).collect();
            format!("ATRN {}", names.join(","))
        }
        Command::StartTls => "STARTTLS".into(),
        Command::Xclient("") => "XCLIENT".into(),
        Command::Xclient(told) => format!("XCLIENT {told}"),
        Command::Auth(auth) => match auth.initial {
            Some(initial) => format!("AUTH {} {initial}", auth.mechanism),
            None => format!("AUTH {}", auth.mechanism),
        },
        Command::Quit => "QUIT".into(),
        Command::Query => "XQUERY".into(),
        Command::Verbose => "VERB".into(),
    }
}

fn print_mail(mail: &Mail) -> String {
    let path = match &mail.sender {
        ReversePath::Null => String::new(),
        ReversePath::Mailbox(mailbox) => mailbox.to_string(),
    };
    let mut out = format!("MAIL FROM:<{path}>");
    if mail.size > 0 {
        out.push_str(&format!(" SIZE={}", mail.size));
    }
    match mail.body {
        BodyKind::SevenBit => {}
        BodyKind::EightBitMime => out.push_str(" BODY=8BITMIME"),
        BodyKind::BinaryMime => out.push_str(" BODY=BINARYMIME"),
    }
    if mail.smtputf8 {
        out.push_str(" SMTPUTF8");
    }
    if mail.require_tls {
        out.push_str(" REQUIRETLS");
    }
    match mail.ret {
        None => {}
        Some(Ret::Full) => out.push_str(" RET=FULL"),
        Some(Ret::Headers) => out.push_str(" RET=HDRS"),
    }
    if let Some(envid) = &mail.envid {
        assert!(envid.len() <= 100 && envid.is_ascii());
        out.push_str(&format!(" ENVID={envid}"));
    }
    if let Some(by) = mail.by {
        assert!(by.seconds > 0 || by.mode == ByMode::Notify);
        out.push_str(&format!(" BY={by}"));
    }
    match mail.hold {
        None => {}
        Some(HoldBack::For(span)) => {
            let seconds = span.as_millis() / 1000;
            assert!((1..=999_999_999).contains(&seconds));
            out.push_str(&format!(" HOLDFOR={seconds}"));
        }
        Some(HoldBack::Until(at)) => out.push_str(&format!(" HOLDUNTIL={at}")),
    }
    if mail.priority != Priority::NORMAL {
        assert!((-9..=9).contains(&mail.priority.as_i8()));
        out.push_str(&format!(" MT-PRIORITY={}", mail.priority));
    }
    out
}

fn print_rcpt(rcpt: &Rcpt) -> String {
    let mut out = format!("RCPT TO:<{}>", rcpt.mailbox);
    if let Some(notify) = rcpt.notify {
        let Notify { success, failure, delay } = notify;
        let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
        let mut words: Vec<&str> = words.iter().filter(|(on, _)| *on).map(|(_, w)| *w).collect();
        if words.is_empty() {
            words.push("NEVER");
        }
        out.push_str(&format!(" NOTIFY={}", words.join(",")));
    }
    if let Some(orcpt) = &rcpt.orcpt {
        assert!(orcpt.len() <= 500);
        out.push_str(&format!(" ORCPT={orcpt}"));
    }
    out
}

/// Asks smtp-proto about a line we took. It is right about whole addresses in angle brackets that
/// are plain dot-strings at a domain of ASCII; elsewhere it unquotes, trims, adds or takes more than
/// the grammar has, so nothing is asked there.
fn compare(line: &str, command: &Command<'_>) {
    let plain = line.is_ascii() && !line.contains(['"', '\\', '\t', '[', '(']);
    let path = line.split(['<', '>']).nth(1).unwrap_or_default();
    let routed = path.starts_with('@');
    let bracket = line.find(':').is_some_and(|at| line[at..].starts_with(":<"));
    let spaced = line.contains("  ") || line.contains(": ");
    // It has no answer to a size that just about fits 64 bit.
    let huge = match command {
        Command::Mail(mail) => mail.size > u64::MAX / 100,
        Command::Bdat(chunk) => chunk.octets > u64::MAX / 100,
        _ => false,
    };
    let half = !path.is_empty() && !path.contains('@');
    // It refuses what is longer than every server must take (RFC 5321 section 4.5.3.1.3).
    let long = path.len() > 256 - "<>".len();
    // Its forms of times and priorities are not those of the standards.
    let timed = ["BY=", "HOLD", "MT-"].iter().any(|name| line.to_uppercase().contains(name));
    if !plain || routed || spaced || half || huge || long || timed {
        return;
    }
    let wire = format!("{line}\r\n");
    let mut octets = wire.as_bytes().iter();
    let theirs = Request::parse(&mut octets);
    match command {
        Command::Mail(mail) if bracket => {
            let Ok(Request::Mail { from }) = theirs else {
                panic!("MAIL: {theirs:?} for {line:?}")
            };
            same_address(path, &from.address);
            assert_eq!(from.size as u64, mail.size, "{line:?}");
            let flag = |flag| from.flags & flag != 0;
            assert_eq!(flag(MAIL_BODY_8BITMIME), mail.body == BodyKind::EightBitMime, "{line:?}");
            assert_eq!(flag(MAIL_BODY_BINARYMIME), mail.body == BodyKind::BinaryMime, "{line:?}");
            assert_eq!(flag(MAIL_RET_FULL), mail.ret == Some(Ret::Full), "{line:?}");
            assert_eq!(flag(MAIL_RET_HDRS), mail.ret == Some(Ret::Headers), "{line:?}");
            assert_eq!(flag(MAIL_SMTPUTF8), mail.smtputf8, "{line:?}");
            assert_eq!(from.env_id.is_some(), mail.envid.is_some(), "{line:?}");
        }
        Command::Rcpt(rcpt) if bracket && rcpt.orcpt.is_none() => {
            let Ok(Request::Rcpt { to }) = theirs else { panic!("RCPT: {theirs:?} for {line:?}") };
            same_address(path, &to.address);
            let Some(Notify { success, failure, delay }) = rcpt.notify else {
                assert_eq!(to.flags, 0, "{line:?}");
                return;
            };
            let never = !(success || failure || delay);
            let ours = [success, failure, delay, never];
            let ours = (0..).zip(ours).fold(0, |all, (bit, on)| all | u64::from(on) << bit);
            assert_eq!(to.flags, ours, "{line:?}");
        }
        Command::Bdat(chunk) => {
            let Ok(Request::Bdat { chunk_size, is_last }) = theirs else {
                panic!("BDAT: {theirs:?} for {line:?}")
            };
            assert_eq!((chunk_size as u64, is_last), (chunk.octets, chunk.last), "{line:?}");
        }
        Command::Data => assert!(matches!(theirs, Ok(Request::Data)), "{theirs:?}"),
        Command::Rset => assert!(matches!(theirs, Ok(Request::Rset)), "{theirs:?}"),
        Command::Quit => assert!(matches!(theirs, Ok(Request::Quit)), "{theirs:?}"),
        _ => {}
    }
}

/// An address without a domain has got the default domain from us.
fn same_address(path: &str, theirs: &Cow<'_, str>) {
    assert_eq!(path, theirs.as_ref());
}
