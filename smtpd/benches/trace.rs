//! How fast a long trace answers: `cargo bench -p smtpd --bench trace [EVENTS]`.
//!
//! So many events of two weeks are written by the trace itself, hour by hour, in the working
//! directory. Then each kind of question is put to it as `smtpctl trace` does. Files are in memory
//! as far as the machine has any, as those of a server that was just asked are.

use std::net::IpAddr;
use std::path::Path;
use std::time::Instant;

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::config::trace::Dialogues;
use mailroot_common::control::Selector;
use mailroot_common::id::{QueueId, SessionId};
use mailroot_common::status::{EnhancedCode, ReplyCode};
use mailroot_common::units::{ByteSize, Span, Timestamp};
use smtpd::clock::Clock;
use smtpd::observe::Log;
use smtpd::trace::{Settings, Trace};
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use smtpd_core::queue::outcome::{AttemptResult, Outcome, RemoteHost, Stage};
use smtpd_core::queue::recipient::{Phase, RecipientStatus};
use smtpd_core::trace::event::{Number, Text};
use smtpd_core::trace::note::{Admission, Cause, Note};

const HOURS: u64 = 14 * 24;
const HOUR_MILLIS: u64 = 3_600_000;
const NOW: Timestamp = Timestamp::from_millis(1_795_600_000_000);
/// Stories that a person is told.
const STORIES: usize = 10;
/// Events handed in before the writer is waited for.
const AHEAD: u64 = 5_000;

const SENDERS: u64 = 40_000;
const DOMAINS: u64 = 20_000;
const CLIENTS: u64 = 4_000;

/// Numbers that look random and are the same in every run.
fn mixed(number: u64, of: u64) -> u64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) % of
}

fn client(number: u64) -> IpAddr {
    let [.., high, low] = mixed(number, CLIENTS).to_be_bytes();
    IpAddr::from([10, 20, high, low])
}

fn recipient(number: u64) -> String {
    let domain = mixed(number + 1, DOMAINS);
    format!("user{}@mail{domain}.example", mixed(number + 2, 900_000))
}

fn subject(number: u64) -> String {
    match number % 5 {
        0 => format!("Invoice {} for order {}", 100_000 + number, mixed(number, 10_000_000)),
        1 => format!("Your parcel {} is on its way", mixed(number + 3, 1_000_000_000)),
        2 => "Backup report of host db7: success".to_owned(),
        3 => format!("Re: meeting on {} of the month", number % 31),
        _ => format!("Please confirm your registration, user {}", mixed(number, 900_000)),
    }
}

fn envelope(number: u64, at: Timestamp) -> Envelope {
    let sender = format!("app{}@sender{}.example", mixed(number, SENDERS), number % 900);
    let origin = Origin {
        via: Via::Smtp,
        client: Some(client(number)),
        helo: Some(format!("app{}.lan.example", number % 300)),
        session: Some(SessionId::from_u64(number)),
        source: None,
        user: None,
        uid: None,
        checks: None,
    };
    let to = Mailbox::parse(&recipient(number)).expect("it is an address");
    Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::parse(&sender).expect("it is an address"),
        recipients: vec![Recipient::plain(to)],
        accepted_at: at,
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        hops: 1,
        origin,
        message_id: Some(format!("<{:016x}.{number}@lan.example>", mixed(number, u64::MAX))),
        subject: Some(subject(number)),
        wishes: smtpd_core::queue::wishes::Wishes::default(),
    }
}

/// What an attempt came to: most are taken, some later, a few never.
fn status(number: u64, at: Timestamp, phase: Phase) -> RecipientStatus {
    let (result, code, status, text) = match phase {
        Phase::Delivered => (
            AttemptResult::Delivered,
            250,
            EnhancedCode::success(0, 0),
            format!("2.0.0 Ok: queued as {:010X}", mixed(number, 1 << 40)),
        ),
        Phase::Returned => (
            AttemptResult::Failed,
            550,
            EnhancedCode::permanent(1, 1),
            "5.1.1 <user>: Recipient address rejected: User unknown".to_owned(),
        ),
        _ => (
            AttemptResult::Deferred,
            451,
            EnhancedCode::transient(7, 1),
            "4.7.1 Greylisting in action, please come back later".to_owned(),
        ),
    };
    let host = RemoteHost {
        name: format!("mx{}.mail{}.example", number % 3, mixed(number + 1, DOMAINS)),
        address: Some(IpAddr::from([192, 0, 2, 7])),
        port: 25,
        tls: None,
    };
    let stage = Stage::Rcpt;
    let (code, host) = (Some(ReplyCode::new(code)), Some(host));
    RecipientStatus {
        phase,
        attempts: 1,
        next_attempt: Timestamp::from_millis(at.as_millis() + 60_000),
        delay_told: false,
        doubted: false,
        deadline_told: false,
        fixed: false,
        last: Some(Outcome { at, result, status, code, text, host, stage }),
    }
}

fn outcome(number: u64, id: QueueId, at: Timestamp, phase: Phase) -> Option<Note> {
    let route = format!("mx:mail{}.example", mixed(number + 1, DOMAINS));
    let status = status(number, at, phase);
    Note::outcome("default", id, at, &recipient(number), &route, (&status, Cause::Attempt))
}

/// The events of one message; of some numbers a client that was turned away instead.
fn events(number: u64, at: Timestamp) -> Vec<Note> {
    let later = |millis| Timestamp::from_millis(at.as_millis() + millis);
    if number % 25 == 7 {
        let note = Note::refused("default", client(number), at)
            .text(Text::Stage, "rcpt")
            .number(Number::Code, 550)
            .text(Text::Status, "5.7.1")
            .text(Text::Reason, "relay-denied")
            .text(Text::Session, SessionId::from_u64(number))
            .text(Text::From, "spammer@else.example")
            .text(Text::To, recipient(number));
        return vec![note];
    }
    let id = id(number, at);
    let rule: &dyn std::fmt::Display = &"relay list 10.20.0.0/16";
    let admitted = Admission {
        rule: Some(rule),
        name: Some("app.lan.example"),
        subjects: true,
        ..Admission::default()
    };
    let mut all = vec![Note::received(
        "default",
        id,
        &envelope(number, at),
        4_000 + number % 9_000,
        admitted,
    )];
    if number % 10 == 3 {
        all.extend(outcome(number, id, later(90), Phase::Waiting));
    }
    let end = if number % 40 == 9 { Phase::Returned } else { Phase::Delivered };
    all.extend(outcome(number, id, later(200), end));
    all
}

fn id(number: u64, at: Timestamp) -> QueueId {
    QueueId::from_u64(QueueId::at_millis(at.as_millis()).as_u64() + number % 1_000)
}

fn settings() -> Settings {
    Settings {
        keep: Span::days(40),
        max_size: ByteSize::mib(8 << 10),
        subjects: true,
        dialogues: Dialogues::Off,
    }
}

fn open(path: &Path, at: Timestamp) -> Trace {
    Trace::open(path.to_owned(), settings(), Clock::simulated(at, 1), Log::quiet())
        .expect("the working directory can be written")
}

/// Writes them; returns how many messages there are.
async fn write(path: &Path, wanted: u64) -> u64 {
    let begun = Instant::now();
    let (mut number, mut written) = (0, 0);
    for hour in 0..HOURS {
        let start = NOW.as_millis() - (HOURS - hour) * HOUR_MILLIS;
        let trace = open(path, Timestamp::from_millis(start));
        let until = wanted * (hour + 1) / HOURS;
        let (first, step) = (number, HOUR_MILLIS * HOURS / wanted.max(1) * 2);
        let mut asked = written;
        while written < until {
            let at = Timestamp::from_millis(start + (number - first) * step.max(1));
            for note in events(number, at) {
                trace.record(note);
                written += 1;
            }
            number += 1;
            if written - asked > AHEAD {
                trace.snapshot().await;
                asked = written;
            }
        }
        trace.close();
        assert_eq!(trace.counters()[1], ("trace_dropped", 0));
    }
    println!("{written} events of {number} messages written in {:.1?}", begun.elapsed());
    number
}

async fn ask(path: &Path, what: &str, selector: Selector, is_refusals: bool) {
    let trace = open(path, NOW);
    let (mut times, cpu) = (Vec::new(), cpu_seconds());
    let (mut count, mut counts) = (0, String::new());
    for _ in 0..3 {
        let begun = Instant::now();
        let matcher = selector.compile().expect("it makes sense");
        let mut search = trace.search().await;
        count = 0;
        let mut next = || {
            count += 1;
            count < STORIES
        };
        let done = if is_refusals {
            search.refusals(&matcher, NOW, |_| next())
        } else {
            search.stories(&matcher, NOW, STORIES, |_| next())
        };
        done.expect("it makes sense");
        times.push(begun.elapsed());
        let found = search.counts();
        counts = format!("{} of {}", found.looked_at - found.passed_over, found.looked_at);
    }
    trace.close();
    times.sort();
    let cpu = (cpu_seconds() - cpu) / times.len() as f64;
    let median = times[times.len() / 2].as_secs_f64();
    println!("| {what:<44} | {count:>5} | {counts:>16} | {median:>8.3} s | {cpu:>5.2} s |");
}

fn questions(messages: u64) -> Vec<(&'static str, Selector, bool)> {
    let none = Selector::default;
    let text = |text: &str| Some(text.to_owned());
    // A message of the first day, neither refused nor put off.
    let old = messages / 20 / 200 * 200;
    let from = format!("app{}@sender{}.example", mixed(old, SENDERS), old % 900);
    let to = recipient(old);
    let domain = to.rsplit_once('@').map(|(_, domain)| domain.to_owned());
    let first = Timestamp::from_millis(NOW.as_millis() - HOURS * HOUR_MILLIS);
    vec![
        ("--last 10", none(), false),
        ("ID of the first message", Selector::id(id(0, first).to_string()), false),
        ("ID that does not exist", Selector::id("0123456789AB"), false),
        ("--from, one address", Selector { from: Some(from), ..none() }, false),
        ("--from, nobody", Selector { from: text("nobody@nowhere.example"), ..none() }, false),
        ("--from, a pattern without a hit", Selector { from: text("x*y@*"), ..none() }, false),
        ("--to, one address", Selector { to: Some(to), ..none() }, false),
        ("--domain", Selector { domain, ..none() }, false),
        ("--domain, unknown", Selector { domain: text("nowhere.example"), ..none() }, false),
        (
            "--subject, in every fifth message",
            Selector { subject: text("invoice"), ..none() },
            false,
        ),
        (
            "--subject, in one old message",
            Selector { subject: Some(format!("Invoice {} ", 100_000 + old)), ..none() },
            false,
        ),
        ("--subject, in none", Selector { subject: text("holiday"), ..none() }, false),
        ("--subject, short, in none", Selector { subject: text("xq"), ..none() }, false),
        (
            "--subject, an expression, in none",
            Selector { subject: text("/x[qz]+y/"), ..none() },
            false,
        ),
        ("--client, one address", Selector { client: text("10.20.3.7"), ..none() }, false),
        ("--client, unknown network", Selector { client: text("172.16.0.0/12"), ..none() }, false),
        ("--newer-than 1h", Selector { newer_than: text("1h"), ..none() }, false),
        ("--older-than 13d", Selector { older_than: text("13d"), ..none() }, false),
        ("--size '>100MiB', none", Selector { size: text(">100MiB"), ..none() }, false),
        ("--refused", none(), true),
        ("--refused --client, unknown", Selector { client: text("172.16.1.1"), ..none() }, true),
        ("--refused --older-than 13d", Selector { older_than: text("13d"), ..none() }, true),
    ]
}

/// What the process has used of all cores.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    // Time in user and in system mode, in hundredths of a second.
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<u32>().ok()).map(f64::from).sum::<f64>() / 100.0
}

/// The most memory that the process has had so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

fn main() {
    // Cargo adds `--bench`; only numbers are ours.
    let count = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(10_000_000);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().expect("a runtime can be started");
    runtime.block_on(async {
        let here = std::env::current_dir().expect("there is a working directory");
        let home = tempfile::tempdir_in(&here).expect("it can be written");
        let messages = write(home.path(), count).await;
        let record = open(home.path(), NOW).search().await.record();
        println!("{} events in {} MiB; memory {} MiB", record.events, record.size >> 20, peak());
        println!("| smtpctl trace                                | found |      blocks read |     median |     CPU |");
        for (what, selector, is_refusals) in questions(messages) {
            ask(home.path(), what, selector, is_refusals).await;
        }
        println!("memory, most: {} MiB", peak());
    });
}
