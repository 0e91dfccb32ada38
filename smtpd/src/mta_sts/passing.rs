//! Policies that found no room among those that are kept: each holds for a few minutes, so that mail goes
//! by it and its host is not asked for every connection.
//!
//! Who is mailed is often a stranger's choice, and what a policy names is one too: their number and their
//! octets are bounded. Where there is no room the one that would end first makes way, and is asked for
//! again by whoever needs it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use smtpd_core::route::sts::Known;

/// Policies that hold for a while.
const COUNT_MAX: usize = 1_000;
/// The octets of all of them. The largest policy has some 60 KiB.
const OCTETS_MAX: usize = 4 * 1024 * 1024;

/// Those of domains, by the clock's time.
#[derive(Debug, Default)]
pub(super) struct Passing {
    all: HashMap<Domain, Passer>,
    octets: usize,
}

#[derive(Debug)]
struct Passer {
    known: Arc<Known>,
    /// When it is to be asked for again.
    until: Duration,
    octets: usize,
}

impl Passing {
    /// The policy of a domain, if it holds still.
    pub(super) fn get(&self, domain: &Domain, now: Duration) -> Option<Arc<Known>> {
        let passer = self.all.get(domain).filter(|passer| now < passer.until)?;
        Some(Arc::clone(&passer.known))
    }

    /// Has a policy hold until a moment; whether it is another than the domain had.
    pub(super) fn put(&mut self, domain: &Domain, known: Arc<Known>, until: Duration) -> bool {
        let before = self.remove(domain);
        let is_news = before.is_none_or(|before| before.policy != known.policy);
        let octets = known.octets() + domain.as_str().len();
        while self.all.len() >= COUNT_MAX || self.octets + octets > OCTETS_MAX {
            let first = self.all.iter().min_by_key(|(_, passer)| passer.until);
            let Some(first) = first.map(|(domain, _)| domain.clone()) else { break };
            self.remove(&first);
        }
        self.octets += octets;
        self.all.insert(domain.clone(), Passer { known, until, octets });
        is_news
    }

    /// Forgets what a domain had, if it had something; an end that has come changes nothing of that.
    pub(super) fn remove(&mut self, domain: &Domain) -> Option<Arc<Known>> {
        let passer = self.all.remove(domain)?;
        self.octets -= passer.octets;
        Some(passer.known)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use mailroot_common::units::Timestamp;
    use smtpd_core::route::domain::Pattern;
    use smtpd_core::route::sts::{Mode, Policy};

    use super::*;

    fn known(hosts: usize) -> Arc<Known> {
        let label = "h".repeat(60);
        let host = |n| Pattern::parse(&format!("{n}.{label}.{label}.{label}.test")).unwrap();
        let policy = Policy { mode: Mode::Enforce, max_age: 9, mx: (0..hosts).map(host).collect() };
        Arc::new(Known { id: "1".to_owned(), at: Timestamp::from_millis(0), since: None, policy })
    }

    fn domain(number: usize) -> Domain {
        Domain::parse(&format!("d{number}.test")).unwrap()
    }

    #[test]
    fn their_number_and_their_octets_are_bounded() {
        for hosts in [1, 200] {
            let mut passing = Passing::default();
            for number in 0..3_000 {
                let until = Duration::from_secs(600 + number as u64);
                assert!(passing.put(&domain(number), known(hosts), until));
                assert!(passing.all.len() <= COUNT_MAX && passing.octets <= OCTETS_MAX);
                assert!(passing.get(&domain(number), Duration::ZERO).is_some());
            }
            let sum: usize = passing.all.values().map(|passer| passer.octets).sum();
            assert_eq!(passing.octets, sum);
            assert!(passing.all.len() >= 50, "{}", passing.all.len());
            assert!(passing.get(&domain(0), Duration::ZERO).is_none(), "it would end first");
        }
    }

    #[test]
    fn each_ends_and_is_no_news_when_it_comes_again() {
        let (mut passing, of) = (Passing::default(), domain(1));
        assert!(passing.put(&of, known(1), Duration::from_secs(600)));
        assert!(passing.get(&of, Duration::from_secs(599)).is_some());
        assert!(passing.get(&of, Duration::from_secs(600)).is_none());
        assert!(!passing.put(&of, known(1), Duration::from_secs(1_200)));
        assert!(passing.put(&of, known(2), Duration::from_secs(1_300)));
        assert!(passing.remove(&of).is_some() && passing.octets == 0);
    }
}
