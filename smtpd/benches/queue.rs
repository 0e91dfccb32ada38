//! How fast the queue is, apart from SMTP: `cargo bench -p smtpd --bench queue [MESSAGES [TASKS]]`.
//!
//! Two rows, messages of 4 KiB, every one durable: *accept and hold*, where nothing leaves the
//! queue, and *through*, where one task leases, reads and settles what the others hand in. The
//! store lies in the working directory, because a memory file system has no syncs to measure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::units::{ByteSize, Timestamp};
use smtpd::clock::Clock;
use smtpd::observe::Log;
use smtpd::queue::{Body, Draft, Lease, Queue, Settings};
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use smtpd_core::queue::recipient::{Phase, RecipientStatus};
use smtpd_core::route::table::{DirectFirst, Settings as TableSettings, Table};

const BODY: usize = 4096;

fn table() -> Arc<Table> {
    let settings = TableSettings {
        default_domain: Domain::parse("here.example").expect("it is a domain"),
        alias_domains: Vec::new(),
        sender_routes: Vec::new(),
        remote_domains: Vec::new(),
        smart_hosts: Vec::new(),
        direct_first: DirectFirst::Never,
    };
    Arc::new(Table::new(settings).expect("the domains differ"))
}

fn draft(now: Timestamp, number: u64) -> Draft {
    let to = format!("user{number}@dest{}.example", number % 20);
    let envelope = Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::parse("sender@here.example").expect("it is an address"),
        recipients: vec![Recipient::plain(Mailbox::parse(&to).expect("it is an address"))],
        accepted_at: now,
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        hops: 1,
        origin: Origin {
            via: Via::Smtp,
            client: None,
            helo: None,
            session: None,
            source: None,
            user: None,
            uid: None,
            checks: None,
        },
        message_id: Some(format!("<{number}@here.example>")),
        subject: Some("a subject of the usual length".into()),
        wishes: smtpd_core::queue::wishes::Wishes::default(),
    };
    Draft { envelope, body: Body::Memory(vec![b'x'; BODY]) }
}

async fn open(home: &tempfile::TempDir) -> Queue {
    let settings = Settings {
        server: "bench".into(),
        directory: home.path().join("Queue"),
        segment_size: ByteSize::mib(64),
        min_free: ByteSize::bytes(0),
    };
    let queue = Queue::open(settings, Clock::real(), Log::quiet(), Arc::default(), table()).await;
    queue.expect("the working directory can be written")
}

/// Hands `count` messages in from `tasks` tasks; returns how long each waited, sorted.
async fn accept(queue: &Queue, count: u64, tasks: u64) -> Vec<Duration> {
    let clock = Clock::real();
    let workers: Vec<_> = (0..tasks)
        .map(|task| {
            let (queue, clock) = (queue.clone(), clock.clone());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for number in (task..count).step_by(usize::try_from(tasks).unwrap_or(1)) {
                    let begun = Instant::now();
                    let accepted = queue.accept(draft(clock.now(), number)).await;
                    accepted.expect("the disk takes it");
                    waits.push(begun.elapsed());
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for worker in workers {
        waits.extend(worker.await.expect("no task panics"));
    }
    waits.sort_unstable();
    waits
}

/// Leases, reads and settles until `count` messages have gone.
async fn deliver(queue: Queue, count: u64) {
    let (clock, mut gone) = (Clock::real(), 0);
    while gone < count {
        for route in queue.next_due(clock.now()).routes {
            loop {
                let leases = queue.lease(&route, clock.now(), 50).await.expect("it can be read");
                let last = leases.len() < 50;
                for lease in leases {
                    let mut reader = lease.open();
                    while reader.next().await.expect("it is whole").is_some() {}
                    let changes = delivered(&lease);
                    queue.settle_later(lease, changes);
                    gone += 1;
                }
                if last {
                    break;
                }
            }
        }
        if gone < count {
            queue.wait_for_work().await;
        }
    }
}

fn delivered(lease: &Lease) -> Vec<(usize, RecipientStatus)> {
    let end = |status: &RecipientStatus| RecipientStatus {
        phase: Phase::Delivered,
        attempts: status.attempts + 1,
        ..status.clone()
    };
    lease.due.iter().map(|(place, status)| (*place, end(status))).collect()
}

/// Starts again over `count` messages: how long until new mail is taken, how long until all old
/// mail is known, and what that takes in memory.
async fn reopen(home: &tempfile::TempDir, count: u64) {
    let begun = Instant::now();
    let queue = open(home).await;
    let opened = begun.elapsed();
    while queue.counts().recovering {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(queue.counts().messages, count, "everything accepted is there");
    println!("start            open {opened:?}  all known {:?}  {}", begun.elapsed(), memory());
    queue.close().await;
}

/// The process's resident memory, where the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.map_or_else(String::new, |line| line.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn report(row: &str, count: u64, took: Duration, waits: &[Duration]) {
    let rate = count as f64 / took.as_secs_f64();
    let at = |part: usize| waits[(waits.len() - 1) * part / 100];
    println!("{row:<16} {rate:>9.0}/s  median {:?}  99th {:?}", at(50), at(99));
}

fn main() {
    // Cargo adds `--bench`; only numbers are ours.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse::<u64>().ok());
    let (count, tasks) = (numbers.next().unwrap_or(200_000), numbers.next().unwrap_or(40));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("threads can be started");
    runtime.block_on(async {
        let here = std::env::current_dir().expect("there is a working directory");
        let home = tempfile::tempdir_in(&here).expect("it can be written");
        let queue = open(&home).await;
        let begun = Instant::now();
        let waits = accept(&queue, count, tasks).await;
        report("accept and hold", count, begun.elapsed(), &waits);
        queue.close().await;
        drop(queue);
        reopen(&home, count).await;

        let home = tempfile::tempdir_in(&here).expect("it can be written");
        let queue = open(&home).await;
        let begun = Instant::now();
        let delivering = tokio::spawn(deliver(queue.clone(), count));
        let waits = accept(&queue, count, tasks).await;
        delivering.await.expect("no task panics");
        report("through", count, begun.elapsed(), &waits);
        queue.close().await;
    });
}
