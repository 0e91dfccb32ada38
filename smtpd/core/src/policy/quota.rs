//! Quotas: how much one user or one client may ask for in a span.
//!
//! A quota of 500 a day lets 500 go at once, and what was used comes back evenly over the day. Memory
//! is bounded: whoever has used least is forgotten first, and has nothing to gain by that.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use mailroot_common::rate::Rate;

use crate::queue::pace::Pace;

/// How many are remembered.
const REMEMBERED_MAX: usize = 50_000;

/// What was used of quotas. Moments count from any fixed one.
#[derive(Debug)]
pub struct Quotas<K>(HashMap<K, (Pace, Rate)>);

impl<K> Default for Quotas<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Quotas<K> {
    /// Uses one.
    ///
    /// # Errors
    ///
    /// How long to wait for the next one, if nothing is left; nothing was used.
    pub fn charge(&mut self, who: K, quota: Rate, now: Duration) -> Result<(), Duration> {
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&who) {
            self.forget(now);
        }
        let (pace, old) = self.0.entry(who).or_insert_with(|| (Pace::default(), quota));
        if *old != quota {
            (*pace, *old) = (pace.at_rate(*old, quota, now), quota);
        }
        pace.take_ahead(quota, quota.span(), 1, now).map(drop)
    }

    fn forget(&mut self, now: Duration) {
        self.0.retain(|_, (pace, _)| pace.paid_until() > now);
        let mut moments: Vec<Duration> =
            self.0.values().map(|(pace, _)| pace.paid_until()).collect();
        if moments.len() < REMEMBERED_MAX {
            return;
        }
        // A quarter at once, so that it is not looked through for each newcomer.
        let (_, border, _) = moments.select_nth_unstable(REMEMBERED_MAX / 4);
        let border = *border;
        self.0.retain(|_, (pace, _)| pace.paid_until() > border);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_quota_may_be_used_at_once_and_comes_back_evenly() {
        let (mut quotas, rate) = (Quotas::default(), Rate::parse("60/h").unwrap());
        for _ in 0..60 {
            assert_eq!(quotas.charge("ada", rate, at(1000)), Ok(()));
        }
        assert_eq!(quotas.charge("ada", rate, at(1000)), Err(at(60)));
        assert_eq!(quotas.charge("bob", rate, at(1000)), Ok(()), "each has his own");
        assert_eq!(quotas.charge("ada", rate, at(1059)), Err(at(1)));
        assert_eq!(quotas.charge("ada", rate, at(1060)), Ok(()));
        assert_eq!(quotas.charge("ada", rate, at(1060)), Err(at(60)));
        for _ in 0..60 {
            assert_eq!(
                quotas.charge("ada", rate, at(10_000)),
                Ok(()),
                "and is whole after an hour"
            );
        }
        assert!(quotas.charge("ada", rate, at(10_000)).is_err());
    }

    #[test]
    fn another_quota_counts_what_was_used_of_the_old_one() {
        let mut quotas = Quotas::default();
        let [old, more, less] = ["2/d", "5/d", "3/h"].map(|text| Rate::parse(text).unwrap());
        (0..2).for_each(|_| quotas.charge("ada", old, at(1)).unwrap());
        assert!(quotas.charge("ada", old, at(1)).is_err());
        (0..3).for_each(|_| quotas.charge("ada", more, at(1)).unwrap());
        assert!(quotas.charge("ada", more, at(1)).is_err());
        assert!(quotas.charge("ada", less, at(1)).is_err());
        assert_eq!(quotas.charge("ada", less, at(1 + 3 * 1200)), Ok(()));
    }

    #[test]
    fn who_has_used_most_is_remembered_longest() {
        let (mut quotas, rate) = (Quotas::default(), Rate::parse("10/d").unwrap());
        for _ in 0..10 {
            quotas.charge(u32::MAX, rate, at(1)).unwrap();
        }
        for number in 0..120_000_u32 {
            quotas.charge(number, rate, at(2)).unwrap();
            assert!(quotas.0.len() <= REMEMBERED_MAX);
        }
        assert!(quotas.charge(u32::MAX, rate, at(3)).is_err());
    }
}
