//! How fast the rules of SMTP are, without any input or output: `cargo bench -p smtpd-core`.
//!
//! Four parts: command lines, bodies with and without dots, what signatures cover, and both machines over a whole
//! transaction of 4 KiB, where each is fed all at once and again in pieces as a network makes
//! them. Each figure is the best of some turns, because what disturbs only ever adds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::config::dkim::usual_headers;
use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::message::sign::{Covered, SimpleBody};
use smtpd_core::queue::envelope::{BodyKind, Recipient};
use smtpd_core::queue::wishes::Priority;
use smtpd_core::smtp::body::{BodyDecoder, BodyLimits, Framing};
use smtpd_core::smtp::client;
use smtpd_core::smtp::client::{Action, Client, Timeouts, Transaction};
use smtpd_core::smtp::command::{self, Grammar};
use smtpd_core::smtp::extension::Offer;
use smtpd_core::smtp::line::{LINE_OCTETS_MAX, LineReader};
use smtpd_core::smtp::server::{self, Question, Server};

const TURNS: usize = 20;
const REPEATS: u32 = 2_000;
const BODY: usize = 4096;
const LIMITS: BodyLimits =
    BodyLimits { size_max: 35 << 20, line_max: 64 << 10, header_max: 256 << 10 };

/// The best time of one call among all turns.
fn best(mut call: impl FnMut()) -> Duration {
    let turn = |call: &mut dyn FnMut()| {
        let begun = Instant::now();
        (0..REPEATS).for_each(|_| call());
        begun.elapsed() / REPEATS
    };
    (0..TURNS).map(|_| turn(&mut call)).min().unwrap_or_default()
}

fn report(what: &str, took: Duration, octets: usize) {
    let rate = octets as f64 / took.as_secs_f64() / f64::from(1 << 20);
    println!("{what:<44} {:>9.0} ns {rate:>9.0} MiB/s", took.as_secs_f64() * 1e9);
}

fn grammar() -> Grammar {
    let default_domain = Domain::parse("d.test").expect("it is a domain");
    Grammar { offer: Offer::all(), default_domain, auth: false, inquiries: false }
}

fn commands() {
    let grammar = grammar();
    for text in [
        "EHLO client.example.org",
        "MAIL FROM:<sender@source.example>",
        "MAIL FROM:<sender@source.example> SIZE=4096 BODY=8BITMIME RET=HDRS ENVID=a1b2c3",
        "RCPT TO:<user@destination.example>",
        "RCPT TO:<\"quoted user\"@[192.0.2.1]> NOTIFY=FAILURE,DELAY ORCPT=rfc822;u@d.example",
        "BDAT 4096 LAST",
        "NOTHING of the kind",
    ] {
        let took = best(|| {
            let _ = black_box(command::parse(black_box(text.as_bytes()), &grammar));
        });
        let (verb, _) = text.split_at(text.len().min(36));
        report(&format!("command {verb}"), took, text.len());
    }
    let wire = b"RCPT TO:<user@destination.example>\r\n";
    let took = best(|| {
        black_box(LineReader::default().take_up_to(LINE_OCTETS_MAX, black_box(wire)));
    });
    report("line", took, wire.len());
}

/// A body in lines of that many octets, each beginning with `first`, without the final dot.
fn body(line: usize, first: u8) -> Vec<u8> {
    let mut text = vec![b'x'; line];
    if let Some(octet) = text.first_mut() {
        *octet = first;
    }
    text.extend_from_slice(b"\r\n");
    let mut all = b"Subject: a subject of the usual length\r\n\r\n".to_vec();
    while all.len() < BODY {
        all.extend_from_slice(&text);
    }
    all
}

fn bodies() {
    for (what, line, first, piece) in [
        ("body, lines of 76", 76, b'x', usize::MAX),
        ("body, lines of 76, pieces of 1448", 76, b'x', 1448),
        ("body, lines of 76, each begins with a dot", 76, b'.', usize::MAX),
        ("body, lines of 998", 998, b'x', usize::MAX),
        ("body, lines of 2", 2, b'x', usize::MAX),
    ] {
        let mut wire = body(line, first);
        wire.extend_from_slice(b".\r\n");
        let mut out = Vec::with_capacity(2 * BODY);
        let took = best(|| {
            out.clear();
            let mut decoder = BodyDecoder::new(Framing::Dots, LIMITS);
            for piece in wire.chunks(piece.min(wire.len())) {
                black_box(decoder.push(black_box(piece), &mut out));
            }
        });
        report(what, took, wire.len());
    }
}

fn receiving() {
    let settings = Arc::new(server::Settings {
        host: "mx.test".to_owned(),
        banner: "ESMTP".to_owned(),
        grammar: grammar(),
        body: LIMITS,
        recipients_max: 1000,
        release_max: Span::days(60),
        deliver_by_min: Span::ZERO,
        priority_max: Priority::MAX,
        session_octets_max: u64::MAX,
        errors_max: 20,
        idle_commands_max: 100,
        idle: Duration::from_mins(5),
        session_time: Duration::from_hours(1),
        rate_min: 128,
        tls: server::Tls::Off,
        logins: server::Logins::default(),
    });
    let mut content = body(76, b'x');
    content.extend_from_slice(b".\r\n");
    let steps: [&[u8]; 4] =
        [b"MAIL FROM:<s@source.test>\r\n", b"RCPT TO:<u@sink.test>\r\n", b"DATA\r\n", &content];
    let mut session = Server::new(settings, Duration::ZERO, Timestamp::default());
    session.on_octets(b"EHLO client.test\r\n", Duration::ZERO);
    let octets = steps.iter().map(|step| step.len()).sum();
    let took = best(|| {
        for step in steps {
            let mut rest = step;
            while !rest.is_empty() {
                let used = session.on_octets(rest, Duration::ZERO);
                rest = &rest[used..];
                answer(&mut session);
                session.output().clear();
            }
        }
    });
    assert!(session.messages() >= u64::from(REPEATS), "every message was accepted");
    report("the receiving machine, a message", took, octets);
}

fn answer(session: &mut Server) {
    while let Some(action) = session.poll() {
        match action {
            server::Action::Answer(Question::Commit) => {
                session.body_taken();
                session.committed(Ok(QueueId::from_u64(1)), Duration::ZERO);
            }
            server::Action::Answer(_) => session.admit(Ok(()), Duration::ZERO),
            server::Action::Handshake | server::Action::Rejected(_) => {}
        }
    }
}

fn sending() {
    let settings = Arc::new(client::Settings {
        name: "c.test".to_owned(),
        helo_only: false,
        tls: client::Tls::Off,
        login: None,
        recipients_max: None,
        timeouts: Timeouts::default(),
    });
    let mut session = Client::new(settings, Duration::ZERO);
    session.on_octets(b"220 mx.test\r\n", Duration::ZERO);
    session.on_octets(b"250-mx.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n", Duration::ZERO);
    while session.poll().is_some() {}
    let sender = ReversePath::parse("s@source.test").expect("it is an address");
    let to = Recipient::plain(Mailbox::parse("u@sink.test").expect("it is an address"));
    let content = body(76, b'x');
    let mut delivered: u32 = 0;
    let took = best(|| {
        let transaction = Transaction {
            sender: &sender,
            recipients: vec![&to],
            envid: None,
            ret: None,
            size: content.len() as u64,
            body: BodyKind::SevenBit,
            smtputf8: false,
            by: None,
            priority: Priority::NORMAL,
            require_tls: false,
        };
        assert!(session.begin(&transaction, Duration::ZERO).is_ok(), "the peer takes anything");
        session.output().clear();
        session.on_octets(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 Go on\r\n", Duration::ZERO);
        while let Some(action) = session.poll() {
            match action {
                Action::SendBody => {
                    session.last_body(&content, Duration::ZERO);
                    black_box(session.output()).clear();
                    session.on_octets(b"250 2.0.0 Ok\r\n", Duration::ZERO);
                }
                Action::Done(_) => delivered += 1,
                _ => {}
            }
        }
    });
    assert!(delivered >= REPEATS, "every message was delivered");
    report("the sending machine, a message", took, content.len());
}

/// The form that a signature covers, without digests and keys.
fn signing() {
    let header =
        b"From: Ann <ann@a.test>\r\nTo: b@b.test,\r\n\tc@c.test\r\nSubject: a  subject\r\n\
        Date: Mon, 30 Nov 2026 09:30:00 +0000\r\nMessage-ID: <1@a.test>\r\nMIME-Version: 1.0\r\n";
    let wanted = usual_headers();
    let took = best(|| {
        black_box(Covered::of(black_box(header), &wanted));
    });
    report("the fields that a signature covers", took, header.len());
    let content = body(72, b'x');
    let took = best(|| {
        let (mut form, mut octets) = (SimpleBody::default(), 0);
        for piece in content.chunks(1460) {
            form.push(black_box(piece), |out| octets += out.len());
        }
        form.finish(|out| octets += out.len());
        black_box(octets);
    });
    report("a body in the form that is signed", took, content.len());
}

fn main() {
    commands();
    bodies();
    signing();
    receiving();
    sending();
}
