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
    Known { id: id.to_owned(), at: START, policy }
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
async fn their_number_is_bounded_and_the_one_that_ends_first_goes() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let cache = open(place.path(), &clock);
    for number in 0..KEPT_MAX {
        let seconds = 1_000 + u32::try_from(number).unwrap();
        let state = State { known: Some(Arc::new(known("1", seconds))), ..State::default() };
        *lock(&cache.entry(&domain(&format!("d{number}.test"))).state) = state;
    }
    let new = domain("new.test");
    cache.keep(&new, &cache.entry(&new), known("1", 9_000)).await;
    let policies = policies(&cache);
    assert!(policies.known(&domain("d0.test")).is_none());
    assert!(policies.known(&domain("d1.test")).is_some() && policies.known(&new).is_some());
}
