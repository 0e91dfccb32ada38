//! How fast questions to a long queue are answered: `cargo bench -p smtpd --bench index [MESSAGES]`.
//!
//! So many small messages wait on a thousand routes. What is measured reads or changes the index
//! of the store in memory, and the log where a verb must be durable. The store lies in the working
//! directory, because a memory file system has no syncs to measure.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::id::QueueId;
use mailroot_common::units::{ByteSize, Timestamp};
use smtpd::clock::Clock;
use smtpd::observe::Log;
use smtpd::queue::{Body, Draft, Filter, Queue, Settings};
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use smtpd_core::queue::recipient::Hold;
use smtpd_core::route::table::{DirectFirst, Settings as TableSettings, Table};

const ROUTES: u64 = 1_000;
/// Messages handed in at the same time.
const TASKS: u64 = 40;
/// Messages of one page or one change.
const PAGE: usize = 1_000;

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
    let to = format!("user{number}@dest{}.example", number % ROUTES);
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
    Draft { envelope, body: Body::Memory(vec![b'x'; 100]) }
}

async fn open(home: &Path) -> Queue {
    let settings = Settings {
        server: "bench".into(),
        directory: home.join("Queue"),
        segment_size: ByteSize::mib(64),
        min_free: ByteSize::bytes(0),
    };
    let queue = Queue::open(settings, Clock::real(), Log::quiet(), Arc::default(), table()).await;
    queue.expect("the working directory can be written")
}

async fn fill(queue: &Queue, count: u64) {
    let workers: Vec<_> = (0..TASKS)
        .map(|task| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let clock = Clock::real();
                for number in (task..count).step_by(usize::try_from(TASKS).unwrap_or(1)) {
                    queue.accept(draft(clock.now(), number)).await.expect("the disk takes it");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no task panics");
    }
}

fn report(what: &str, begun: Instant, of: usize) {
    let each = begun.elapsed().as_secs_f64() * 1e6 / of.max(1) as f64;
    println!("{what:<36} {of:>7} in {:>9.1?}  {each:>8.2} µs each", begun.elapsed());
}

/// Pages through all, as `queue list` does; returns the ids.
async fn list(queue: &Queue) -> Vec<QueueId> {
    let (mut ids, filter) = (Vec::new(), Filter::default());
    loop {
        let page = queue.list(&filter, ids.last().copied(), PAGE).await.expect("it can be read");
        ids.extend(page.iter().map(|message| message.id));
        if page.len() < PAGE {
            return ids;
        }
    }
}

async fn measure(queue: &Queue) {
    let begun = Instant::now();
    (0..1000).for_each(|_| _ = black_box(queue.counts()));
    report("counts", begun, 1000);
    let begun = Instant::now();
    let routes = queue.routes().len();
    report("routes", begun, routes);
    let begun = Instant::now();
    let ids = list(queue).await;
    report("list", begun, ids.len());
    let one = Filter {
        domain: Some(Domain::parse("dest7.example").expect("it is a domain")),
        ..Filter::default()
    };
    let begun = Instant::now();
    let found = queue.list(&one, None, ids.len()).await.expect("it can be read");
    report("list one domain", begun, found.len());
    let begun = Instant::now();
    for id in ids.iter().rev().take(PAGE) {
        black_box(queue.show(*id).await.expect("it can be read"));
    }
    report("show", begun, PAGE.min(ids.len()));

    let page = &ids[..PAGE.min(ids.len())];
    let hold = Hold { by: "operator".into(), reason: None, since: Clock::real().now() };
    let begun = Instant::now();
    let held = queue.hold(page, hold).await.expect("the disk takes it");
    report("hold", begun, held.len());
    let begun = Instant::now();
    let released = queue.release(page).await.expect("the disk takes it");
    report("release", begun, released.len());

    let begun = Instant::now();
    let due = queue.next_due(Clock::real().now()).routes;
    report("next due", begun, due.len());
    let begun = Instant::now();
    let mut leases = Vec::new();
    for route in &due {
        let now = Clock::real().now();
        leases.extend(queue.lease(route, now, 10).await.expect("it can be read"));
    }
    report("lease, ten of each route", begun, leases.len());
    let begun = Instant::now();
    let count = leases.len();
    drop(leases);
    report("give leases back", begun, count);
    let begun = Instant::now();
    let removed = queue.remove(page).await.expect("the disk takes it");
    report("remove", begun, removed.len());
}

fn main() {
    // Cargo adds `--bench`; only numbers are ours.
    let count = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(200_000);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().expect("threads can be started");
    runtime.block_on(async {
        let here = std::env::current_dir().expect("there is a working directory");
        let home = tempfile::tempdir_in(&here).expect("it can be written");
        let queue = open(home.path()).await;
        fill(&queue, count).await;
        measure(&queue).await;
        queue.close().await;
        drop(queue);
        let begun = Instant::now();
        let queue = open(home.path()).await;
        queue.close().await;
        report("open", begun, usize::try_from(count).unwrap_or(0));
    });
}
