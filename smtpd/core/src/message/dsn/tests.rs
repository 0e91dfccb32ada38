//! Reports are read back with a parser that is not ours.

use std::net::IpAddr;

use mail_parser::{MessageParser, MimeHeaders, PartType};
use mailroot_common::status::{EnhancedCode, ReplyCode};
use mailroot_common::units::Span;
use proptest::prelude::{any, prop_assert, proptest};

use super::*;
use crate::queue::outcome::{AttemptResult, RemoteHost};
use crate::queue::recipient::Phase;
use crate::queue::wishes::{ByMode, DeliverBy, Priority};

const ORIGINAL: &[u8] = b"Received: from app\r\nFrom: ada@here.example\r\nSubject: Numbers\r\n\
    Message-ID: <1@here.example>\r\n\r\nBody of the message\r\n.line\r\n";
const NOW: Timestamp = Timestamp::from_millis(1_763_000_000_000);

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn message(sender: &str, recipients: &[&str]) -> Envelope {
    let recipient = |to: &&str| Recipient::plain(Mailbox::parse(to).unwrap());
    Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::parse(sender).unwrap(),
        recipients: recipients.iter().map(recipient).collect(),
        accepted_at: Timestamp::from_millis(1_762_900_000_000),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        hops: 1,
        origin: Origin {
            via: Via::Smtp,
            client: Some(IpAddr::from([192, 0, 2, 1])),
            helo: Some("app.here.example".to_owned()),
            session: None,
            source: None,
            user: None,
            uid: None,
            checks: None,
        },
        message_id: Some("<1@here.example>".to_owned()),
        subject: Some("Numbers".to_owned()),
        wishes: Wishes::default(),
    }
}

fn said(code: u16, status: &str, text: &str) -> Outcome {
    let status = EnhancedCode::parse(status).unwrap();
    let address = Some(IpAddr::from([192, 0, 2, 20]));
    Outcome {
        code: Some(ReplyCode::new(code)),
        host: Some(RemoteHost {
            name: "mx.there.example".to_owned(),
            address,
            port: 25,
            tls: None,
        }),
        ..Outcome::local(NOW, Stage::Rcpt, status, text)
    }
}

fn after(outcome: Outcome) -> RecipientStatus {
    RecipientStatus {
        phase: Phase::Returned,
        attempts: 1,
        next_attempt: NOW,
        delay_told: false,
        doubted: outcome.result == AttemptResult::InDoubt,
        deadline_told: false,
        fixed: false,
        last: Some(outcome),
    }
}

/// A report about these recipients, each with its outcome.
fn written(
    kind: Kind,
    envelope: &Envelope,
    outcomes: &[(usize, Outcome)],
    original: Original<'_>,
) -> Option<Written> {
    let statuses: Vec<_> = outcomes.iter().map(|(r, o)| (*r, after(o.clone()))).collect();
    let recipients: Vec<_> = statuses.iter().map(|(place, status)| (*place, status)).collect();
    write(&Report {
        kind,
        id: QueueId::at_millis(NOW.as_millis()),
        envelope,
        recipients: &recipients,
        original,
        host: &domain("mx.here.example"),
        default_domain: &domain("here.example"),
        copy_to: None,
        retry_until: NOW.after(Span::days(3)),
        now: NOW,
        random: 0x0123_4567_89ab_cdef,
    })
}

fn failure(envelope: &Envelope, outcomes: &[(usize, Outcome)]) -> Written {
    written(Kind::Failure, envelope, outcomes, Original::Header(ORIGINAL)).unwrap()
}

/// What an independent parser finds: the words, the fields, the original.
fn parts(octets: &[u8]) -> [String; 3] {
    let message = MessageParser::default().parse(octets).unwrap();
    let multipart = message.content_type().unwrap();
    assert_eq!((multipart.ctype(), multipart.subtype()), ("multipart", Some("report")));
    let PartType::Multipart(children) = &message.parts[0].body else {
        panic!("not a multipart: {:?}", message.parts[0].body)
    };
    assert_eq!(children.len(), 3, "{}", String::from_utf8_lossy(octets));
    let text = |place: usize| {
        let part = &message.parts[children[place] as usize];
        match &part.body {
            PartType::Message(inner) => String::from_utf8_lossy(inner.raw_message()).into_owned(),
            _ => String::from_utf8_lossy(part.contents()).into_owned(),
        }
    };
    [text(0), text(1), text(2)]
}

fn content_types(octets: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(octets);
    let types = text.split("\r\nContent-Type: ").skip(2);
    types.map(|rest| rest.split(['\r', ';']).next().unwrap().to_owned()).collect()
}

/// What must hold of every report, whatever went in.
fn check_octets(written: &Written) {
    let octets = &written.octets;
    for line in octets.split(|&o| o == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(line.len() <= 998, "line of {} octets", line.len());
        let odd = line.iter().find(|o| o.is_ascii_control() && **o != b'\t');
        assert_eq!(odd, None, "{}", String::from_utf8_lossy(line));
    }
    let ends = octets.windows(2).filter(|two| two == b"\r\n").count();
    assert_eq!(ends, octets.iter().filter(|&&o| o == b'\n').count(), "bare LF");
    assert!(octets.ends_with(b"\r\n"));
    if written.envelope.body == BodyKind::SevenBit && !written.envelope.smtputf8 {
        assert!(octets.is_ascii(), "8-bit content is not declared");
    }
}

#[test]
fn failure_report_has_the_fields_of_the_standard() {
    let mut envelope = message("ada@here.example", &["bob@there.example", "cy@there.example"]);
    envelope.envid = Some("QQ+3D314".to_owned());
    envelope.recipients[1].orcpt = Some("rfc822;Cy+2BX@there.example".to_owned());
    let outcomes = [
        (0, said(550, "5.1.1", "no such user\nask elsewhere")),
        (1, Outcome::local(NOW, Stage::Dns, EnhancedCode::permanent(4, 4), "no such domain")),
    ];
    let report = failure(&envelope, &outcomes);
    check_octets(&report);

    let parsed = MessageParser::default().parse(&report.octets).unwrap();
    assert_eq!(parsed.subject(), Some("Delivery Status Notification (Failure)"));
    let from = parsed.from().unwrap().first().unwrap();
    assert_eq!(from.address(), Some("postmaster@here.example"));
    assert_eq!(from.name(), Some("Mail Delivery System"));
    assert_eq!(parsed.to().unwrap().first().unwrap().address(), Some("ada@here.example"));
    assert_eq!(parsed.header_raw("Auto-Submitted").unwrap().trim(), "auto-replied");
    assert_eq!(parsed.in_reply_to().as_text(), Some("1@here.example"));
    assert_eq!(parsed.date().unwrap().to_timestamp(), 1_763_000_000);
    assert_eq!(parsed.content_type().unwrap().attribute("report-type"), Some("delivery-status"));

    let [words, fields, original] = parts(&report.octets);
    assert_eq!(
        fields.trim_end(),
        "Reporting-MTA: dns; mx.here.example\r\n\
         Original-Envelope-Id: QQ=314\r\n\
         Received-From-MTA: dns; app.here.example\r\n\
         Arrival-Date: Tue, 11 Nov 2025 22:26:40 +0000\r\n\
         \r\n\
         Final-Recipient: rfc822; bob@there.example\r\n\
         Action: failed\r\n\
         Status: 5.1.1\r\n\
         Remote-MTA: dns; mx.there.example\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n ask elsewhere\r\n\
         Last-Attempt-Date: Thu, 13 Nov 2025 02:13:20 +0000\r\n\
         \r\n\
         Original-Recipient: rfc822; Cy+X@there.example\r\n\
         Final-Recipient: rfc822; cy@there.example\r\n\
         Action: failed\r\n\
         Status: 5.4.4\r\n\
         Diagnostic-Code: x-mailroot; no such domain\r\n\
         Last-Attempt-Date: Thu, 13 Nov 2025 02:13:20 +0000"
    );
    for words_of_it in [
        "could not be delivered to these recipients",
        "<bob@there.example>\r\n    mx.there.example[192.0.2.20]:25 said about the recipient:\r\n        \
         550 5.1.1 no such user\r\n        550 5.1.1 ask elsewhere\r\n    Look for a typing error",
        "<cy@there.example>\r\n    The recipient's domain could not be looked up:\r\n        no such domain",
        "Subject:  Numbers",
    ] {
        assert!(words.contains(words_of_it), "{words_of_it}\n---\n{words}");
    }
    assert!(original.starts_with("Received: from app\r\n"), "{original}");
    assert!(!original.contains("Body of the message"), "{original}");
    assert_eq!(
        content_types(&report.octets),
        ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    );
}

#[test]
fn report_travels_from_nobody_to_the_sender_and_asks_for_no_report() {
    let envelope = message("ada@here.example", &["bob@there.example"]);
    let report = failure(&envelope, &[(0, said(550, "5.1.1", "no"))]).envelope;
    assert_eq!(report.sender, ReversePath::Null);
    assert_eq!(report.recipients.len(), 1);
    assert_eq!(report.recipients[0].mailbox.to_string(), "ada@here.example");
    assert_eq!(report.recipients[0].notify, Some(Notify::NEVER));
    assert_eq!((report.origin.via, report.body, report.hops), (Via::Report, BodyKind::SevenBit, 0));
    assert_eq!(report.accepted_at, NOW);
}

#[test]
fn nobody_is_told_of_mail_of_the_null_sender_or_of_nothing() {
    let outcome = said(550, "5.1.1", "no");
    let null = message("", &["bob@there.example"]);
    let header = Original::Header(ORIGINAL);
    assert_eq!(written(Kind::Failure, &null, &[(0, outcome.clone())], header), None);
    let known = message("ada@here.example", &["bob@there.example"]);
    assert_eq!(written(Kind::Failure, &known, &[], header), None);
    assert_eq!(written(Kind::Failure, &known, &[(7, outcome)], header), None);
}

#[test]
fn copy_of_a_failure_goes_to_who_asked_and_of_nothing_else() {
    let envelope = message("ada@here.example", &["bob@there.example"]);
    let status = after(said(550, "5.1.1", "no"));
    let copy = Mailbox::parse("ops@here.example").unwrap();
    let report = Report {
        kind: Kind::Failure,
        id: QueueId::at_millis(1),
        envelope: &envelope,
        recipients: &[(0, &status)],
        original: Original::Header(ORIGINAL),
        host: &domain("mx.here.example"),
        default_domain: &domain("here.example"),
        copy_to: Some(&copy),
        retry_until: NOW,
        now: NOW,
        random: 1,
    };
    let to = |report: &Report<'_>| -> Vec<String> {
        let written = write(report).unwrap();
        written.envelope.recipients.iter().map(|r| r.mailbox.to_string()).collect()
    };
    assert_eq!(to(&report), ["ada@here.example", "ops@here.example"]);
    assert_eq!(to(&Report { kind: Kind::Delay, ..report.clone() }), ["ada@here.example"]);
    let sender = envelope.sender.mailbox();
    assert_eq!(to(&Report { copy_to: sender, ..report }), ["ada@here.example"]);
}

#[test]
fn delay_says_until_when_and_success_says_who_has_it() {
    let envelope = message("ada@here.example", &["bob@there.example", "cy@here.example"]);
    let header = Original::Header(ORIGINAL);
    let delay = said(451, "4.7.1", "greylisted");
    let report = written(Kind::Delay, &envelope, &[(0, delay)], header).unwrap();
    let [words, fields, _] = parts(&report.octets);
    assert!(fields.contains("Action: delayed\r\nStatus: 4.7.1\r\n"), "{fields}");
    assert!(fields.contains("Will-Retry-Until: Sun, 16 Nov 2025 02:13:20 +0000\r\n"), "{fields}");
    assert!(words.contains("you do not need to send it again"), "{words}");
    assert!(words.contains("451 4.7.1 greylisted"), "{words}");

    let drop = Outcome::local(NOW, Stage::Drop, EnhancedCode::success(0, 0), "stored");
    let relayed = Outcome { stage: Stage::End, ..said(250, "2.0.0", "queued as 7") };
    let outcomes = [(0, relayed), (1, drop)];
    let report = written(Kind::Success, &envelope, &outcomes, header).unwrap();
    let [words, fields, _] = parts(&report.octets);
    let actions: Vec<_> = fields.lines().filter(|line| line.starts_with("Action")).collect();
    assert_eq!(actions, ["Action: relayed", "Action: delivered"]);
    assert!(words.contains("250 2.0.0 queued as 7"), "{words}");
    assert!(words.contains("Subject:"), "{words}");
}

#[test]
fn a_report_says_when_it_is_not_known_whether_the_message_arrived() {
    let envelope = message("ada@here.example", &["bob@there.example", "cy@there.example"]);
    let lost = "the host closed the connection";
    let lost = Outcome::local(NOW, Stage::End, EnhancedCode::transient(4, 2), lost);
    let doubt = Outcome { result: AttemptResult::InDoubt, ..lost };
    let alone = failure(&envelope, &[(0, doubt.clone())]);
    let [words, fields, _] = parts(&alone.octets);
    assert!(words.contains("It is not known whether your message has reached"), "{words}");
    assert!(words.contains("may have the message all the same"), "{words}");
    assert!(words.contains("the host closed the connection"), "{words}");
    assert!(fields.contains("Action: failed\r\nStatus: 4.4.2\r\n"), "{fields}");

    let mixed = failure(&envelope, &[(0, doubt), (1, said(550, "5.1.1", "no such user"))]);
    let [words, ..] = parts(&mixed.octets);
    assert!(words.contains("could not be delivered to these recipients"), "{words}");
    assert_eq!(words.matches("may have the message all the same").count(), 1, "{words}");
}

#[test]
fn expired_mail_is_4_4_7_and_keeps_the_last_words() {
    let envelope = message("ada@here.example", &["bob@there.example"]);
    let last = Outcome {
        stage: Stage::Expiry,
        result: AttemptResult::Failed,
        ..said(452, "4.2.2", "mailbox full")
    };
    let [words, fields, _] = parts(&failure(&envelope, &[(0, last)]).octets);
    assert!(fields.contains("Status: 4.4.7\r\n"), "{fields}");
    assert!(fields.contains("Diagnostic-Code: smtp; 452 4.2.2 mailbox full\r\n"), "{fields}");
    assert!(words.contains("Its time is up. The last answer, from mx.there.example"), "{words}");
    assert!(words.contains("The recipient's mailbox is full"), "{words}");

    let never = Outcome::local(NOW, Stage::Expiry, EnhancedCode::transient(4, 7), "no attempt");
    let [words, fields, _] = parts(&failure(&envelope, &[(0, never)]).octets);
    assert!(
        fields.contains("Status: 4.4.7\r\nDiagnostic-Code: x-mailroot; no attempt"),
        "{fields}"
    );
    assert!(words.contains("could not be reached in time"), "{words}");
}

#[test]
fn mail_whose_sender_named_a_time_is_reported_by_that_time() {
    let mut envelope = message("ada@here.example", &["bob@there.example"]);
    let at = NOW.after(Span::hours(1));
    envelope.wishes.deliver_by = Some(DeliverBy { at, mode: ByMode::Return, trace: true });
    envelope.wishes.release_at = Some(NOW.after(Span::minutes(1)));
    let withdrawn = Outcome {
        stage: Stage::Deadline,
        result: AttemptResult::Failed,
        ..said(452, "4.2.2", "mailbox full")
    };
    let [words, fields, _] = parts(&failure(&envelope, &[(0, withdrawn)]).octets);
    let date = at.to_rfc5322();
    assert!(words.contains(&format!("Wanted by: {date}\r\n")), "{words}");
    assert!(fields.contains(&format!("Deliver-By-Date: {date}\r\n")), "{fields}");
    let release = NOW.after(Span::minutes(1));
    let asked = format!("Future-Release-Request: until;{release}\r\n");
    assert!(fields.contains(&asked), "{fields}");
    envelope.wishes.held_for = Some(Span::minutes(1));
    assert!(fields.contains("Status: 5.4.7\r\n"), "{fields}");
    assert!(words.contains("Its time is up. The last answer"), "{words}");

    let relayed = [(0, said(250, "2.0.0", "ok"))];
    envelope.wishes.priority = Priority::MAX;
    let report = written(Kind::Success, &envelope, &relayed, Original::Header(ORIGINAL)).unwrap();
    let [words, fields, _] = parts(&report.octets);
    assert!(fields.contains("Action: relayed\r\n"), "{fields}");
    assert!(fields.contains("Future-Release-Request: for;60\r\n"), "{fields}");
    assert_eq!(report.envelope.wishes.priority, Priority::MAX);
    assert!(words.contains("on its way") && !words.contains("does not report"), "{words}");
}

#[test]
fn whole_message_is_returned_only_if_it_can_travel() {
    let envelope = message("ada@here.example", &["bob@there.example"]);
    let outcomes = [(0, said(550, "5.1.1", "no"))];
    let returned = |octets: &[u8]| {
        let report = written(Kind::Failure, &envelope, &outcomes, Original::Whole(octets)).unwrap();
        check_octets(&report);
        let kind = content_types(&report.octets)[2].clone();
        let has_body = memchr::memmem::find(&report.octets, b"Body").is_some();
        assert_eq!(has_body, kind == "message/rfc822");
        (has_body, report.envelope.body)
    };
    let with = |body: &[u8]| [b"Subject: x\r\n\r\nBody ", body].concat();
    assert_eq!(returned(ORIGINAL), (true, BodyKind::SevenBit));
    assert_eq!(returned(&with("grün\r\n".as_bytes())), (true, BodyKind::EightBitMime));
    assert_eq!(returned(&with(&[0xff, 0xfe])), (true, BodyKind::EightBitMime));
    assert_eq!(returned(&with(b"\0\r\n")), (false, BodyKind::SevenBit));
    assert_eq!(returned(&with(b"bare\nLF\r\n")), (false, BodyKind::SevenBit));
    assert_eq!(returned(&with(&[b'x'; 1000])), (false, BodyKind::SevenBit));
    assert_eq!(returned(&with(&b"line\r\n".repeat(6200))), (false, BodyKind::SevenBit));
}

#[test]
fn original_is_asked_for_whole_only_for_failures_and_as_the_sender_wished() {
    let small = 4096;
    for (kind, ret, by_default, size, whole) in [
        (Kind::Failure, None, false, small, false),
        (Kind::Failure, None, true, small, true),
        (Kind::Failure, Some(Ret::Full), false, small, true),
        (Kind::Failure, Some(Ret::Headers), true, small, false),
        (Kind::Delay, Some(Ret::Full), true, small, false),
        (Kind::Success, Some(Ret::Full), true, small, false),
        (Kind::Failure, Some(Ret::Full), true, 1 << 40, false),
    ] {
        let envelope = Envelope { ret, ..message("a@b.example", &["c@d.example"]) };
        let wants = Original::wants_whole(kind, &envelope, by_default, size);
        assert_eq!(wants, whole, "{kind:?} {ret:?} {by_default} {size}");
    }
    // What is to go under TLS all the way comes back as a header at most.
    let mut envelope = message("a@b.example", &["c@d.example"]);
    envelope.ret = Some(Ret::Full);
    envelope.wishes.require_tls = true;
    assert!(!Original::wants_whole(Kind::Failure, &envelope, true, small));
}

#[test]
fn internationalized_mail_gets_the_global_types() {
    let mut envelope = message("ädä@here.example", &["bøb@there.example"]);
    envelope.smtputf8 = true;
    let report = failure(&envelope, &[(0, said(550, "5.1.1", "unbekannt: bøb"))]);
    check_octets(&report);
    assert_eq!(
        content_types(&report.octets),
        ["text/plain", "message/global-delivery-status", "message/global-headers"]
    );
    assert!(report.envelope.smtputf8);
    assert_eq!(report.envelope.body, BodyKind::EightBitMime);
    let text = String::from_utf8(report.octets).unwrap();
    assert!(text.contains("Final-Recipient: utf-8; bøb@there.example\r\n"), "{text}");
    assert!(text.contains("Diagnostic-Code: smtp; 550 5.1.1 unbekannt: bøb\r\n"), "{text}");
    assert!(text.contains("report-type=global-delivery-status"), "{text}");

    // A sender with an ASCII address may not be able to take UTF-8 addresses.
    let plain = message("ada@here.example", &["bøb@there.example"]);
    let report = failure(&plain, &[(0, said(550, "5.1.1", "unbekannt: bøb"))]);
    check_octets(&report);
    let [words, fields, _] = parts(&report.octets);
    assert!(fields.contains("Final-Recipient: utf-8; b\\x{F8}b@there.example\r\n"), "{fields}");
    assert!(fields.contains("unbekannt: b\\x{F8}b\r\n"), "{fields}");
    assert!(words.contains("<bøb@there.example>"), "{words}");
    assert!(words.contains("550 5.1.1 unbekannt: bøb"), "{words}");
}

#[test]
fn text_of_peers_adds_no_field_no_part_and_no_control_octet() {
    let evil = "no\r\nBcc: x@y.example\r\n\r\n--=_mailroot_0123456789abcdef--\r\n\u{0}\u{1b}[31m\u{9b}\u{202e}";
    let mut envelope = message("ada@here.example", &["bob@there.example"]);
    envelope.origin.helo = Some("app\r\nX-Forged: 1".to_owned());
    envelope.subject = Some("Hi\r\nX-Forged: 2\r\n\r\nbody".to_owned());
    envelope.message_id = Some("<1@x>\r\nX-Forged: 3".to_owned());
    envelope.envid = Some("a+0D+0AX-Forged:4".to_owned());
    envelope.recipients[0].orcpt = Some("rfc822;a+0D+0AX-Forged:5".to_owned());
    let mut outcome = said(550, "5.1.1", evil);
    outcome.host.as_mut().unwrap().name = "mx\r\nX-Forged: 6".to_owned();
    let header = b"Subject: --=_mailroot_0123456789abcdef\r\nX: \0\x1b[2J\n bare\r\r\n\r\nbody";
    let original = Original::Header(header);
    let report = written(Kind::Failure, &envelope, &[(0, outcome)], original).unwrap();
    check_octets(&report);

    let parsed = MessageParser::default().parse(&report.octets).unwrap();
    assert!(parsed.header_raw("X-Forged").is_none() && parsed.header_raw("Bcc").is_none());
    let [words, fields, original] = parts(&report.octets);
    for text in [&words, &fields, &original] {
        let odd = text.chars().find(|c| c.is_control() && !"\r\n\t".contains(*c));
        assert_eq!(odd, None, "{text:?}");
    }
    let forged = |line: &str| line.starts_with("X-Forged") || line.starts_with("Bcc");
    assert!(!fields.lines().any(forged), "{fields}");
    assert!(!fields.contains("Original-"), "xtext that hides line ends is left out: {fields}");
    assert!(!fields.contains("\r\n \r\n") && fields.matches("\r\n\r\n").count() <= 2, "{fields}");
    assert!(words.contains("550 5.1.1 Bcc: x@y.example"), "the words stay: {words}");
}

#[test]
fn huge_words_and_headers_stay_within_the_bound() {
    let envelope = message("ada@here.example", &["bob@there.example"]);
    for text in
        ["x".repeat(1 << 20), "é=".repeat(1 << 18), "a\n".repeat(1 << 18), " ".repeat(99_999)]
    {
        let outcomes = [(0, said(550, "5.1.1", &text))];
        let body = [ORIGINAL, &b"x".repeat(990), b"\r\n"].concat();
        let report = written(Kind::Failure, &envelope, &outcomes, Original::Whole(&body)).unwrap();
        check_octets(&report);
        let spare = report.octets.len() - ORIGINAL.len();
        assert!(spare < 24 << 10, "{spare} octets beside the original");
        parts(&report.octets);
    }
    let long_line = [b"X: ".to_vec(), vec![b'y'; 1 << 20]].concat();
    let folds = b"X: y\r\n ".repeat(1 << 17);
    let eight_bit = "X: é\r\n".repeat(1 << 17).into_bytes();
    let fields = b"X: y\r\n".repeat(1 << 17);
    for header in [long_line, folds, eight_bit, fields] {
        let outcomes = [(0, said(550, "5.1.1", "no"))];
        for original in [Original::Header(&header), Original::Whole(&header)] {
            let report = written(Kind::Failure, &envelope, &outcomes, original).unwrap();
            check_octets(&report);
            let size = report.octets.len();
            assert!((HEADER_OCTETS_MAX / 2..HEADER_OCTETS_MAX + 4096).contains(&size), "{size}");
        }
    }
}

#[test]
fn thousand_recipients_are_all_named_and_cost_little_each() {
    let names: Vec<_> = (0..1000).map(|n| format!("r{n}@there.example")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let envelope = message("ada@here.example", &names);
    let outcome = said(550, "5.1.1", &"long words ".repeat(100));
    let outcomes: Vec<_> = (0..1000).map(|place| (place, outcome.clone())).collect();
    let report = failure(&envelope, &outcomes);
    check_octets(&report);
    let [words, fields, _] = parts(&report.octets);
    for name in names {
        assert!(words.contains(&format!("<{name}>\r\n")), "{name}");
        assert!(fields.contains(&format!("Final-Recipient: rfc822; {name}\r\n")), "{name}");
    }
    assert!(report.octets.len() < 1000 * 1024 + (64 << 10), "{}", report.octets.len());
}

proptest! {
    #[test]
    fn report_is_well_formed_whatever_goes_in(
        text in any::<String>(), helo in any::<String>(), subject in any::<String>(),
        orcpt in any::<String>(), envid in any::<String>(),
        original in proptest::collection::vec(any::<u8>(), 0..400),
        whole in any::<bool>(), smtputf8 in any::<bool>(),
    ) {
        let mut envelope = message("ada@here.example", &["bob@there.example"]);
        envelope.origin.helo = Some(helo);
        envelope.subject = Some(subject.clone());
        envelope.message_id = Some(format!("<{subject}>"));
        envelope.envid = Some(envid);
        envelope.smtputf8 = smtputf8;
        envelope.recipients[0].orcpt = Some(format!("rfc822;{orcpt}"));
        let original =
            if whole { Original::Whole(&original) } else { Original::Header(&original) };
        let outcomes = [(0, said(550, "5.1.1", &text))];
        let report = written(Kind::Failure, &envelope, &outcomes, original).unwrap();
        check_octets(&report);
        let count = String::from_utf8_lossy(&report.octets).matches("\r\n--=_mailroot_").count();
        prop_assert!(count == 4, "{count} boundaries");
        let fields = &parts(&report.octets)[1];
        let names = fields.lines().filter(|line| line.starts_with("Final-Recipient: ")).count();
        prop_assert!(names == 1, "{fields}");
    }
}
