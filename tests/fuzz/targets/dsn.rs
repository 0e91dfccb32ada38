//! Reports: whatever peers and senders chose, a report is one message that a second parser reads
//! as three parts, without bare CR or LF and without control octets, and no larger than promised.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::id::QueueId;
use mailroot_common::status::{EnhancedCode, ReplyCode};
use mailroot_common::units::Timestamp;
use smtpd_core::message::dsn::{HEADER_OCTETS_MAX, Kind, Original, Report, Written, write};
use smtpd_core::queue::envelope::{BodyKind, Envelope, Notify, Origin, Recipient, Ret, Via};
use smtpd_core::queue::outcome::{AttemptResult, Outcome, RemoteHost, Stage};
use smtpd_core::queue::recipient::{Phase, RecipientStatus};

/// Everything a stranger chooses.
#[derive(Debug, Arbitrary)]
struct Input<'a> {
    kind: u8,
    sender: &'a str,
    smtputf8: bool,
    ret: Option<bool>,
    envid: Option<&'a str>,
    helo: Option<&'a str>,
    message_id: Option<&'a str>,
    subject: Option<&'a str>,
    copy: bool,
    recipients: Vec<Case<'a>>,
    again: u8,
    whole: bool,
    random: u64,
    original: &'a [u8],
}

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    address: &'a str,
    orcpt: Option<&'a str>,
    code: Option<u16>,
    status: (u8, u16, u16),
    text: &'a str,
    host: Option<&'a str>,
    stage: u8,
    attempts: u8,
    silent: bool,
}

const STAGES: [Stage; 13] = [
    Stage::Route,
    Stage::Dns,
    Stage::Connect,
    Stage::Greeting,
    Stage::Hello,
    Stage::Mail,
    Stage::Rcpt,
    Stage::Data,
    Stage::End,
    Stage::Drop,
    Stage::Expiry,
    Stage::Deadline,
    Stage::Operator,
];

fuzz_target!(|input: Input<'_>| {
    let now = Timestamp::from_millis(1_763_000_000_000);
    let mut cases: Vec<(Recipient, RecipientStatus)> =
        input.recipients.iter().filter_map(|case| build(case, now)).collect();
    for _ in 0..input.again.min(cases.len().try_into().unwrap_or(0)) {
        cases.extend_from_within(..1);
    }
    let Ok(sender) = ReversePath::parse(input.sender) else { return };
    let domain = |text: &str| Domain::parse(text).expect("a domain");
    let copy = Mailbox::parse("ops@h.test").expect("an address");
    let envelope = Envelope {
        hold: None,
        tls_optional: false,
        sender,
        recipients: cases.iter().map(|(recipient, _)| recipient.clone()).collect(),
        accepted_at: now,
        body: BodyKind::EightBitMime,
        smtputf8: input.smtputf8,
        ret: input.ret.map(|full| if full { Ret::Full } else { Ret::Headers }),
        envid: input.envid.map(str::to_owned),
        hops: 1,
        origin: Origin {
            via: Via::Smtp,
            client: None,
            helo: input.helo.map(str::to_owned),
            session: None,
            source: None,
            user: None,
            uid: None,
            checks: None,
        },
        message_id: input.message_id.map(str::to_owned),
        subject: input.subject.map(str::to_owned),
        wishes: smtpd_core::queue::wishes::Wishes::default(),
    };
    let places: Vec<(usize, &RecipientStatus)> =
        cases.iter().enumerate().map(|(place, (_, status))| (place, status)).collect();
    let report = Report {
        kind: [Kind::Failure, Kind::Delay, Kind::Success][usize::from(input.kind) % 3],
        id: QueueId::at_millis(1),
        envelope: &envelope,
        recipients: &places,
        original: if input.whole {
            Original::Whole(input.original)
        } else {
            Original::Header(input.original)
        },
        host: &domain("h.test"),
        default_domain: &domain("d.test"),
        copy_to: input.copy.then_some(&copy),
        retry_until: now,
        now,
        random: input.random,
    };
    let size = input.original.len() as u64;
    if Original::wants_whole(report.kind, &envelope, true, size) {
        assert!(report.kind == Kind::Failure && input.ret != Some(false));
    }
    let told = places.iter().filter(|(_, status)| status.last.is_some()).count();
    match write(&report) {
        None => assert!(envelope.sender == ReversePath::Null || told == 0),
        Some(written) => {
            assert!(envelope.sender != ReversePath::Null && told > 0);
            check(&report, &written, told);
        }
    }
});

fn build(case: &Case<'_>, now: Timestamp) -> Option<(Recipient, RecipientStatus)> {
    let mailbox = Mailbox::parse(case.address).ok()?;
    let orcpt = case.orcpt.map(str::to_owned);
    let recipient = Recipient { orcpt, ..Recipient::plain(mailbox) };
    let (class, subject, detail) = case.status;
    let (subject, detail) = (subject % 1000, detail % 1000);
    let (status, result) = match class % 3 {
        0 => (EnhancedCode::permanent(subject, detail), AttemptResult::Failed),
        1 => (EnhancedCode::transient(subject, detail), AttemptResult::Deferred),
        _ => (EnhancedCode::success(subject, detail), AttemptResult::Delivered),
    };
    let outcome = Outcome {
        at: now,
        result,
        status,
        code: case.code.and_then(|code| ReplyCode::try_from(200 + code % 400).ok()),
        text: case.text.to_owned(),
        host: case.host.map(|name| RemoteHost {
            name: name.to_owned(),
            address: None,
            port: 25,
            tls: None,
        }),
        stage: STAGES[usize::from(case.stage) % STAGES.len()],
    };
    let status = RecipientStatus {
        phase: Phase::Waiting,
        attempts: case.attempts.into(),
        next_attempt: now,
        delay_told: false,
        doubted: case.attempts % 3 == 1,
        deadline_told: false,
        fixed: false,
        last: (!case.silent).then_some(outcome),
    };
    Some((recipient, status))
}

fn check(report: &Report<'_>, written: &Written, told: usize) {
    let octets = &written.octets;
    for (at, octet) in octets.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(octets.get(at + 1), Some(&b'\n'), "bare CR"),
            b'\n' => assert_eq!(at.checked_sub(1).map(|at| octets[at]), Some(b'\r'), "bare LF"),
            b'\t' => {}
            octet => assert!(!octet.is_ascii_control(), "control octet {octet}"),
        }
    }
    assert!(octets.ends_with(b"\r\n"));
    assert!(octets.split(|octet| *octet == b'\n').all(|line| line.len() <= 999), "a line too long");
    if written.envelope.body == BodyKind::SevenBit && !written.envelope.smtputf8 {
        assert!(octets.is_ascii(), "8-bit content is not declared");
    }
    let addresses: usize =
        report.envelope.recipients.iter().map(|one| 3 * 8 * one.mailbox.to_string().len()).sum();
    let header = report_header(report).min(HEADER_OCTETS_MAX);
    let most = header + (64 << 10) + addresses + told * 1024;
    assert!(octets.len() <= most, "{} octets, promised {most}", octets.len());

    assert_eq!(written.envelope.sender, ReversePath::Null);
    for recipient in &written.envelope.recipients {
        assert_eq!(recipient.notify, Some(Notify::NEVER));
    }

    let parsed = MessageParser::default().parse(octets).expect("a second parser reads it");
    assert_eq!(parsed.header_raw("Auto-Submitted").map(str::trim), Some("auto-replied"));
    assert_eq!(parsed.header_values("Subject").count(), 1, "no field was smuggled in");
    assert_eq!(parsed.header_values("To").count(), 1);
    let PartType::Multipart(parts) = &parsed.parts[0].body else { panic!("not multipart") };
    assert_eq!(parts.len(), 3, "three parts");
    let second = &parsed.parts[usize::try_from(parts[1]).unwrap_or(0)];
    let kind = second.content_type().expect("a type");
    let global = report.envelope.smtputf8;
    let expected = if global { "global-delivery-status" } else { "delivery-status" };
    assert_eq!(kind.subtype(), Some(expected));
    fields(octets, told);
}

/// The header of the original as it came.
fn report_header(report: &Report<'_>) -> usize {
    let (Original::Header(octets) | Original::Whole(octets)) = report.original;
    // Quoted-printable may treble it, within its limit.
    3 * octets.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(octets.len()) + 512
}

/// The second part by eye: one group of fields for the message and one for each recipient.
fn fields(octets: &[u8], told: usize) {
    let text = String::from_utf8_lossy(octets);
    let at = text.find("\r\nContent-Description: Delivery report\r\n").expect("the part");
    let body = &text[at..];
    let body = &body[body.find("\r\n\r\n").expect("its header ends") + 4..];
    let body = &body[..body.find("\r\n--").expect("it ends")];
    let groups: Vec<&str> = body.split("\r\n\r\n").collect();
    assert_eq!(groups.len(), told + 1, "{body:?}");
    for (place, group) in groups.iter().enumerate() {
        let begin = if place == 0 { "Reporting-MTA: " } else { "" };
        assert!(group.starts_with(begin), "{group:?}");
        for line in group.split("\r\n").filter(|line| !line.is_empty()) {
            let name = line.split(": ").next().unwrap_or_default();
            let field =
                !name.is_empty() && name.bytes().all(|o| o.is_ascii_alphabetic() || o == b'-');
            assert!(field || line.starts_with(' ') && !line.trim().is_empty(), "{line:?}");
        }
        let count = |name: &str| group.matches(&format!("\r\n{name}: ")).count();
        assert_eq!(count("Action"), usize::from(place > 0));
        assert_eq!(count("Status"), usize::from(place > 0));
    }
}
