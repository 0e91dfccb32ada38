//! A soak beside a sink that fails one time in five: half an hour at full size, three rounds otherwise.
//!
//! Rounds of load follow each other; after each the queue empties, the books are closed and the daemon is
//! weighed. What grows from round to round is a leak.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::time::{Duration, Instant};

use mailroot_tests::account::arrived;
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};

const SHAPE: Shape = Shape { clients: 8, per_connection: 20, filling: 1500 };

/// After this time the daemon has reached its size.
const GROWING: Duration = Duration::from_mins(5);

/// How much more memory it may have later, in per cent.
const GROWTH_MAX: u64 = 10;

/// How many more segments of the queue may be open than at the start.
const SEGMENTS: usize = 8;

/// How long it goes on at least, and how many messages a round has.
fn extent() -> (Duration, usize) {
    if skip::full() { (Duration::from_mins(30), 8000) } else { (Duration::ZERO, 800) }
}

/// Rounds at least.
const ROUNDS: usize = 3;

/// Fails at random one time in five: a deferral, no greeting, or an end in the middle of the message.
fn flaky(event: &Event) -> Answer {
    let fails = |of: u32| fastrand::u32(..of) == 0;
    match event.stage {
        Stage::Connect if fails(20) => Answer::Close,
        Stage::Rcpt if fails(20) => Answer::say("450 4.2.1 not now"),
        Stage::Body if fails(20) => Answer::Close,
        Stage::End if fails(20) => Answer::say("451 4.3.0 not this time"),
        _ => Answer::Accept,
    }
}

/// The daemon's size when it has nothing to do.
#[derive(Clone, Copy, Debug)]
struct Weight {
    resident_kib: u64,
    descriptors: usize,
}

impl Weight {
    fn of(site: &Site) -> Self {
        let resident_kib = site.memory_kib("VmRSS");
        let descriptors = fs::read_dir(format!("/proc/{}/fd", site.pid())).unwrap().count();
        Self { resident_kib, descriptors }
    }
}

/// One round, in which so many messages are acknowledged and all reach their end.
fn round(site: &Site, sink: &Peer, messages: usize) {
    let load = Load::start(site.address(), SHAPE, |number| match number % 10 {
        0 => format!("d{number}@{LOCAL_DOMAIN}"),
        _ => format!("r{number}@far.test"),
    });
    wait::until("acknowledged messages", || {
        assert!(site.runs(), "the daemon ended");
        (load.account.acknowledged() >= messages).then_some(())
    });
    let account = load.stop();
    site.await_empty_queue();
    let balance = account.balance(&arrived(site, sink));
    assert!(balance.lost.is_empty(), "{} lost: {:?}", balance.lost.len(), balance.lost);
    assert!(balance.strangers.is_empty(), "{:?}", balance.strangers);
    assert!(site.badmail().is_empty(), "{:?}", site.badmail());
    for file in fs::read_dir(site.spool("default", "Drop")).unwrap().flatten() {
        fs::remove_file(file.path()).unwrap();
    }
    sink.forget();
    assert_eq!(balance.duplicates, 0, "the sink says what it keeps");
}

#[test]
fn beside_a_flaky_sink_nothing_is_lost_and_nothing_grows() {
    if !skip::root() {
        return skip::note("the soak", "only root may look into the daemon");
    }
    let sink = Peer::start(ports::local(), flaky);
    let site = Site::start(
        Setup::new()
            .smart_host(sink.address())
            .key("delivery.connections.reuse", "1s")
            .key("general.max_connections_per_client", "unlimited"),
    );
    let (least, messages) = extent();
    let (mut grown, begun) = (Weight::of(&site), Instant::now());
    let descriptors = grown.descriptors + SEGMENTS;
    for number in 1.. {
        if number > ROUNDS && begun.elapsed() > least {
            break;
        }
        round(&site, &sink, messages);
        wait::until("closed connections", || {
            (Weight::of(&site).descriptors <= descriptors).then_some(())
        });
        let (weight, passed) = (Weight::of(&site), begun.elapsed());
        println!("{} s, round {number}: {weight:?}", passed.as_secs());
        if passed < GROWING {
            grown = weight;
        } else {
            let most = grown.resident_kib * (100 + GROWTH_MAX) / 100;
            assert!(weight.resident_kib < most, "round {number}: {weight:?} after {grown:?}");
        }
    }
}
