//! Policies that outlive the daemon, and looks without a network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;

use mailroot_common::config::Profile;
use mailroot_common::config::section::Section as _;
use mailroot_common::config::tls::Tls;
use mailroot_common::units::Span;
use smtpd_core::route::sts::Mode;

use super::*;
use crate::net::{Listener, Net, SimulatedNet};
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
    policies_in(cache, &SimulatedNet::default(), &SimulatedDns::default())
}

fn policies_in(cache: &Cache, net: &SimulatedNet, dns: &SimulatedDns) -> MtaSts {
    let https = Https {
        net: Net::Simulated(net.clone()),
        resolver: Resolver::Simulated(dns.clone()),
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
    assert_eq!(policies(&again).policy(&long, &rule).await.unwrap().unwrap().id, "1");
    assert!(policies(&again).known(&short).is_some());
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(policies(&again).policy(&short, &rule).await, Ok(None));
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
    // It holds for a while all the same, and connections in hand hear of it.
    assert!(policies.known(&domain("flood99.test")).is_some());
    assert_eq!(policies.changes(), 100);
    // That long nobody looks: there is no record in DNS, and it would have been found.
    let passing = policies.policy(&domain("flood99.test"), &AddressRule::default()).await;
    assert_eq!(passing.unwrap().unwrap().id, "1");
    tokio::time::advance(FRESH).await;
    assert!(policies.known(&domain("flood99.test")).is_none());
    tokio::time::advance(Duration::from_hours(1)).await;
    let new = domain("later.test");
    assert!(cache.keep(&new, &cache.entry(&new), known("1", 9_000)).await);
    let with = lock(&cache.0.entries).values().filter(|it| lock(&it.state).known.is_some()).count();
    assert_eq!(with, KEPT_MAX);
}

#[tokio::test(start_paused = true)]
async fn mail_does_not_overtake_a_policy_where_the_last_one_was_to_be_enforced() {
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let cache = open(place.path(), &clock);
    let testing = || Known {
        policy: Policy { mode: Mode::Testing, ..known("1", 60).policy },
        ..known("1", 60)
    };
    for (name, known) in [("enforced.test", known("1", 60)), ("testing.test", testing())] {
        let of = domain(name);
        assert!(cache.keep(&of, &cache.entry(&of), known).await);
    }
    let of = domain("passing.test");
    cache.pass(&of, &cache.entry(&of), &known("1", 60), Duration::from_secs(60));
    tokio::time::advance(Duration::from_secs(61)).await;
    let rule = AddressRule::default();
    let again = open(place.path(), &Clock::simulated(START.after(Span::seconds(61)), 1));
    for (cache, name, waits) in [
        (&cache, "enforced.test", true),
        (&again, "enforced.test", true),
        (&cache, "passing.test", true),
        (&cache, "testing.test", false),
        (&cache, "never.test", false),
    ] {
        let entry = cache.entry(&domain(name));
        // Somebody looks for it, and does not come to an end.
        let _turn = entry.turn.lock().await;
        let found = policies(cache).policy(&domain(name), &rule).await;
        assert_eq!(found.is_err(), waits, "{name}: {found:?}");
    }
    // A look that has found no record says that there is none.
    assert_eq!(policies(&cache).policy(&domain("enforced.test"), &rule).await, Ok(None));
    let late = Clock::simulated(START.after(Span::days(31)), 1);
    assert!(lock(&open(place.path(), &late).0.entries).is_empty(), "it is long over");
}

/// Domains whose policies ended a second ago, and one that never had any. Of each the record is there; the
/// policy hosts take calls and say nothing.
async fn ended(cache: &Cache) -> (Listener, SimulatedNet, SimulatedDns) {
    let (net, dns) = (SimulatedNet::default(), SimulatedDns::default());
    let at: SocketAddr = "203.0.113.9:443".parse().unwrap();
    let silent = Net::Simulated(net.clone()).listen(at).unwrap();
    for (name, mode) in ALL {
        let of = domain(name);
        dns.add_text(&domain(&format!("_mta-sts.{name}")), "v=STSv1; id=2;");
        dns.add_address(&domain(&format!("mta-sts.{name}")), at.ip());
        if let Some(mode) = mode {
            let policy = Policy { mode, ..known("1", 60).policy };
            let known = Known { policy, ..known("1", 60) };
            assert!(cache.keep(&of, &cache.entry(&of), known).await);
        }
    }
    let of = domain("passing.test");
    cache.pass(&of, &cache.entry(&of), &known("1", 60), Duration::from_secs(60));
    tokio::time::advance(Duration::from_secs(61)).await;
    (silent, net, dns)
}

const ALL: [(&str, Option<Mode>); 4] = [
    ("enforced.test", Some(Mode::Enforce)),
    ("testing.test", Some(Mode::Testing)),
    ("passing.test", None),
    ("never.test", None),
];
const CAREFUL: [&str; 2] = ["enforced.test", "passing.test"];

#[tokio::test(start_paused = true)]
async fn a_look_that_came_to_nothing_says_nothing_of_the_next_policy() {
    let rule = AddressRule::default();
    for is_dns_out in [false, true] {
        let place = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(START, 1);
        let cache = open(place.path(), &clock);
        let (_silent, net, dns) = ended(&cache).await;
        let policies = policies_in(&cache, &net, &dns);
        let record = |name: &str| domain(&format!("_mta-sts.{name}"));
        ALL.iter().for_each(|(name, _)| dns.set_out_of_order(&record(name), is_dns_out));
        for (name, _) in ALL {
            let waits = CAREFUL.contains(&name);
            // Whoever looks, whoever asks after that, and whoever has the next look made.
            for pause in [0, 60, 600] {
                tokio::time::advance(Duration::from_secs(pause)).await;
                let found = policies.policy(&domain(name), &rule).await;
                assert_eq!(found.is_err(), waits, "{name}: {found:?}");
                assert_eq!(found.unwrap_or_default(), None);
            }
        }
        let of = domain("enforced.test");
        let why = policies.policy(&of, &rule).await.unwrap_err().to_string();
        let words = if is_dns_out { "out of order" } else { "no answer within 60 s" };
        assert!(why.contains(words) && why.contains("until 2025-12-13"), "{why}");
        // The domain has taken its record away: that is an answer.
        let gone = policies_in(&cache, &net, &SimulatedDns::default());
        tokio::time::advance(FAILED).await;
        assert_eq!(gone.policy(&of, &rule).await, Ok(None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_ends_after_a_look_came_to_nothing_is_waited_for_as_long_as_it_is_remembered()
{
    let place = tempfile::tempdir().unwrap();
    let clock = Clock::simulated(START, 1);
    let cache = open(place.path(), &clock);
    let (_silent, net, dns) = ended(&cache).await;
    let (policies, rule) = (policies_in(&cache, &net, &dns), AddressRule::default());
    let of = domain("enforced.test");
    let lasting = Known { at: clock.now(), ..known("1", 200) };
    assert!(cache.keep(&of, &cache.entry(&of), lasting).await);
    tokio::time::advance(Duration::from_secs(110)).await;
    assert!(policies.policy(&of, &rule).await.unwrap().is_some(), "it holds meanwhile");
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(policies.trouble(&of).is_some() && policies.known(&of).is_none());
    assert!(policies.policy(&of, &rule).await.is_err());
    tokio::time::advance(Duration::from_hours(30 * 24) - FAILED).await;
    assert!(policies.policy(&of, &rule).await.is_err());
    tokio::time::advance(FAILED).await;
    assert_eq!(policies.policy(&of, &rule).await, Ok(None));
}
