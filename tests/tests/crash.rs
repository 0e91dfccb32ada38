//! Killed under load and started again, many times in a row: nothing acknowledged is lost.
//!
//! Twenty and more clients send uniquely tagged messages, some to Drop and some through a sink that fails
//! one time in five; the daemon gets SIGKILL in the middle of it. Segments are 64 KiB, so that they are
//! recycled while this goes on, and what stays alive must be moved out of them again and again.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailroot_tests::account::{Balance, arrived, queued};
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};

const SHAPE: Shape = Shape { clients: 24, per_connection: 10, filling: 1500 };

/// Messages that can go nowhere, so that there is always something alive to move.
const STUCK: usize = 20;

/// Kills in a row, and how many messages must be acknowledged between two of them.
fn extent() -> (usize, usize) {
    if skip::full() { (200, 150) } else { (30, 300) }
}

/// Fails one time in five, in turn by a deferral, by closing before the message was kept and by closing
/// after it.
fn flaky(event: &Event) -> Answer {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    if event.stage != Stage::End {
        return Answer::Accept;
    }
    match TURN.fetch_add(1, Ordering::SeqCst) % 15 {
        4 => Answer::say("451 4.3.0 not this time"),
        9 => Answer::Close,
        14 => Answer::AcceptAndClose,
        _ => Answer::Accept,
    }
}

/// The segments in use: file name, and the number that its header gets anew at each use.
fn segments(site: &Site) -> BTreeSet<(String, u64)> {
    let entries = fs::read_dir(site.spool("default", "Queue")).unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"segment-"))
        .filter_map(|entry| {
            let octets = fs::read(entry.path()).ok()?;
            let in_use = u32::from_le_bytes(octets.get(12..16)?.try_into().ok()?) == 1;
            let generation = u64::from_le_bytes(octets.get(16..24)?.try_into().ok()?);
            in_use.then(|| (entry.file_name().to_string_lossy().into_owned(), generation))
        })
        .collect()
}

fn site(sink: &Peer) -> Site {
    let nowhere = ports::free();
    Site::start(
        Setup::new()
            .smart_host(sink.address())
            .domain(&format!(
                "{{name: stuck.test, type: remote, route: \"[127.0.1.99]:{nowhere}\"}}"
            ))
            .key("general.max_connections_per_client", "unlimited"),
    )
}

/// What the store did in all lives of the daemon, as far as it was asked before each death.
#[derive(Default)]
struct Housekeeping(BTreeMap<String, u64>);

impl Housekeeping {
    fn note(&mut self, site: &Site) {
        let shown = site.control().json(&["server", "show", "default"]);
        for name in ["segments_made", "segments_recycled", "segments_compacted", "store_batches"] {
            let counted = shown["counters"][name].as_u64().unwrap();
            *self.0.entry(name.to_owned()).or_default() += counted;
        }
    }
}

fn report(kills: usize, done: &Housekeeping, arrivals: usize, balance: &Balance) {
    println!("{kills} kills: {arrivals} arrived, {balance}, {:?}", done.0);
}

#[test]
fn kills_in_a_row_under_load_lose_nothing_that_was_acknowledged() {
    let (kills, between) = extent();
    let sink = Peer::start(ports::local(), flaky);
    let site = site(&sink);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for number in 0..STUCK {
        let octets = tagged(&format!("stuck{number}"));
        assert_eq!(talk.message("a@client.test", &["x@stuck.test"], &octets).unwrap().code, 250);
    }
    let load = Load::start(site.address(), SHAPE, |number| match number % 4 {
        0 => format!("d{number}@{LOCAL_DOMAIN}"),
        _ => format!("r{number}@far.test"),
    });
    let mut done = Housekeeping::default();
    let mut first = BTreeSet::new();
    for kill in 0..kills {
        let target = load.account.acknowledged() + between;
        wait::until("acknowledged messages", || {
            (load.account.acknowledged() >= target).then_some(())
        });
        done.note(&site);
        site.kill();
        if kill == 0 {
            first = segments(&site);
        }
        site.launch();
    }
    let account = load.stop();
    let mut left = String::new();
    let emptied = wait::within(wait::PATIENCE, || {
        let listed = site.ctl(&["queue", "list", "-o", "jsonl"]);
        left = listed.out;
        if left.contains("the service ended 3 times") {
            // Held, in case it was the reason.
            let _released = site.ctl(&["queue", "release", "--state", "held"]);
        }
        (listed.code == 0 && left.lines().count() == STUCK).then_some(())
    });
    assert!(emptied.is_some(), "more than what is stuck waits: {left}");

    let arrived = arrived(&site, &sink);
    let balance = account.balance(&arrived);
    let mut stuck = queued(&site, "stuck.test");
    stuck.sort();
    done.note(&site);
    site.kill();
    let last = segments(&site);
    report(kills, &done, arrived.len(), &balance);
    assert!(balance.lost.is_empty(), "{} lost: {:?}", balance.lost.len(), balance.lost);
    assert!(balance.strangers.is_empty(), "{:?}", balance.strangers);
    assert!(site.badmail().is_empty(), "{:?}", site.badmail());
    for name in ["segments_recycled", "segments_compacted"] {
        assert!(done.0[name] >= 10, "{name}: {:?}", done.0);
    }
    let mut expected: Vec<String> = (0..STUCK).map(|number| format!("stuck{number}")).collect();
    expected.sort();
    assert_eq!(stuck, expected, "what was stuck is there, each once");
    let old: Vec<_> = first.intersection(&last).collect();
    assert!(old.is_empty(), "the stuck messages were moved out of the first segments: {old:?}");
}
