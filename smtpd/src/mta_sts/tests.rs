//! Policies that outlive the daemon, and looks without a network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use mailroot_common::config::Profile;
use mailroot_common::config::section::Section as _;
use mailroot_common::config::tls::Tls;
use smtpd_core::route::sts::Mode;

use super::*;
use crate::net::{Net, SimulatedNet};
use crate::resolve::{Resolver, SimulatedDns};
use crate::tls::ClientTls;

const START: Timestamp = Timestamp::from_millis(1_763_000_000_000);

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn known(id: &str, max_age: u32) -> Known {
    let policy = Policy { mode: Mode::Enforce, max_age, mx: Vec::new() };
    Known { id: id.to_owned(), at: START, since: None, policy }
}

fn open(place: &Path, clock: &Clock) -> Cache {
    Cache::open(Disk::Real, place.join("mta-sts"), clock.clone(), Log::quiet())
}

fn policies(cache: &Cache) -> MtaSts {
    let https = Https {
        net: Net::Simulated(SimulatedNet::default()),
        resolver: Resolver::Simulated(SimulatedDns::default()),
        tls: ClientTls::new(&Tls::defaults(Profile::Modern)),
    };
    MtaSts::new(cache.clone(), https)
}

#[tokio::test(start_paused = true)]
async fn a_policy_holds_over_a_restart_and_until_it_ends() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let (long, short) = (domain("long.test"), domain("short.test"));
    let cache = open(place.path(), &clock);
    cache.keep(&long, &cache.entry(&long), known("1", 86_400)).await;
    cache.keep(&short, &cache.entry(&short), known("1", 60)).await;
    std::fs::write(place.path().join("mta-sts/.draft.test"), "{").unwrap();
    std::fs::write(place.path().join("mta-sts/broken.test"), "{").unwrap();

    let later = Clock::simulated(START, 1);
    let again = open(place.path(), &later);
    assert_eq!(std::fs::read_dir(place.path().join("mta-sts")).unwrap().count(), 2);
    let rule = AddressRule::default();
    // DNS knows of no record: what is known holds all the same.
    assert_eq!(policies(&again).policy(&long, &rule).await.unwrap().id, "1");
    assert!(policies(&again).known(&short).is_some());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(policies(&again).policy(&short, &rule).await.is_none());
    assert!(policies(&again).known(&long).is_some());
    assert!(policies(&again).known(&domain("none.test")).is_none());
}

#[tokio::test(start_paused = true)]
async fn their_number_is_bounded_and_a_flood_pushes_out_only_newcomers() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let cache = open(place.path(), &clock);
    let put = |name: &str, known: Known| {
        let used = START;
        let state = State { known: Some(Arc::new(known)), used, ..State::default() };
        *lock(&cache.entry(&domain(name)).state) = state;
    };
    // Its life is short, as those of strangers need not be; but it has come back day after day.
    let before = Timestamp::from_millis(START.as_millis() - 5 * 86_400_000);
    put("friend.test", Known { since: Some(before), ..known("1", 90_000) });
    put("over.test", known("1", 0));
    for number in 2..KEPT_MAX {
        put(&format!("d{number}.test"), known("1", 31_000_000));
    }
    let mut kept = 0;
    for number in 0..100 {
        let new = domain(&format!("flood{number}.test"));
        kept += u32::from(cache.keep(&new, &cache.entry(&new), known("1", 31_000_000)).await);
    }
    // What was over makes way for one more.
    assert_eq!(kept, PUSHED_MAX + 1);
    let policies = policies(&cache);
    assert!(policies.known(&domain("friend.test")).is_some());
    assert!(policies.known(&domain("flood0.test")).is_some());
    assert!(policies.known(&domain("flood99.test")).is_none());
    tokio::time::advance(Duration::from_hours(1)).await;
    let new = domain("later.test");
    assert!(cache.keep(&new, &cache.entry(&new), known("1", 9_000)).await);
    let with = lock(&cache.0.entries).values().filter(|it| lock(&it.state).known.is_some()).count();
    assert_eq!(with, KEPT_MAX);
}
