//! Killed under load and started again, many times in a row: nothing acknowledged is lost.
//!
//! Twenty and more clients send uniquely tagged messages, some to Drop and some through a sink that fails
//! one time in five; the daemon gets SIGKILL in the middle of it. Segments are 64 KiB, so that they are
//! recycled and compacted while this goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use mailroot_tests::account::tag;
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::wait;

/// Kills in a row, and what must be acknowledged between two of them.
const KILLS: usize = 30;
const ACKNOWLEDGED_BETWEEN: usize = 100;

const SHAPE: Shape = Shape { clients: 24, per_connection: 10, filling: 1500 };

/// Fails one time in five, in turn by a deferral, by closing before the reply and by closing before the
/// body's end.
fn flaky(event: &Event) -> Answer {
    static TURN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    if event.stage != Stage::End {
        return Answer::Accept;
    }
    match TURN.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 15 {
        4 => Answer::say("451 4.3.0 not this time"),
        9 => Answer::Close,
        14 => Answer::AcceptAndClose,
        _ => Answer::Accept,
    }
}

#[test]
fn thirty_kills_under_load_lose_nothing_that_was_acknowledged() {
    let sink = Peer::start(ports::local(), flaky);
    let site = Site::start(
        Setup::new()
            .smart_host(sink.address())
            .key("general.max_connections_per_client", "unlimited")
            .key("delivery.outbound.retry", "[1s]"),
    );
    let load = Load::start(site.address(), SHAPE, |number| {
        if number % 4 == 0 {
            format!("d{number}@{LOCAL_DOMAIN}")
        } else {
            format!("r{number}@far.test")
        }
    });
    for _ in 0..KILLS {
        let target = load.account.acknowledged() + ACKNOWLEDGED_BETWEEN;
        wait::until("acknowledged messages", || {
            (load.account.acknowledged() >= target).then_some(())
        });
        site.kill();
        site.launch();
    }
    let account = load.stop();
    site.await_empty_queue();

    let dropped = site.dropped("default");
    let names: BTreeSet<_> = dropped.iter().map(|stored| &stored.path).collect();
    assert_eq!(names.len(), dropped.len());
    let mut arrived: Vec<String> = dropped.iter().map(|stored| tag(&stored.octets)).collect();
    arrived.extend(sink.with_received(|received| {
        received.iter().map(|message| tag(&message.octets)).collect::<Vec<_>>()
    }));
    let balance = account.balance(&arrived);

    println!(
        "{KILLS} kills: {} acknowledged, {} arrived, {} lost, {} duplicates, {} arrived unacknowledged",
        balance.acknowledged,
        arrived.len(),
        balance.lost.len(),
        balance.duplicates,
        balance.unacknowledged_arrivals
    );
    assert!(balance.lost.is_empty(), "{} lost: {:?}", balance.lost.len(), balance.lost);
    assert!(balance.strangers.is_empty(), "{:?}", balance.strangers);
    assert!(site.badmail().is_empty(), "{:?}", site.badmail());
    let recycled: usize = counted(&site, "recycled");
    println!("segments recycled or compacted in the log: {recycled}");
}

/// How often the log speaks of a kind of upkeep.
fn counted(site: &Site, word: &str) -> usize {
    site.log().lines().filter(|line| line.contains(word)).count()
}
