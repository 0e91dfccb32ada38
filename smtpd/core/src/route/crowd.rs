//! Who makes room for whom, where something is remembered of hosts or domains and there is no more room.
//!
//! Whom mail goes to is often a stranger's choice: whoever writes to many domains of his own must not have
//! those forgotten that matter here. So what is over goes first, then newcomers, then whoever was not
//! used for longest; and of those that are still good an hour may push out only so many. A flood would
//! have to go on for days, and whoever is written to meanwhile stays.

use mailroot_common::units::{Span, Timestamp};

/// Nobody belongs to the house who was not used again a day after he came.
const SETTLED: Span = Span::days(1);
const HOUR: Span = Span::hours(1);

/// How much somebody is worth remembering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It does not count any more.
    pub is_over: bool,
    /// When it came.
    pub since: Timestamp,
    /// When it was last used.
    pub used: Timestamp,
}

impl Standing {
    /// Who is worth less comes first.
    fn rank(&self) -> (bool, bool, Timestamp) {
        (!self.is_over, self.used.since(self.since) >= SETTLED, self.used)
    }
}

/// Whoever is worth least.
#[must_use]
pub fn least<K>(all: impl IntoIterator<Item = (K, Standing)>) -> Option<(K, Standing)> {
    all.into_iter().min_by_key(|(_, standing)| standing.rank())
}

/// Counts those that were pushed out while they were still good.
#[derive(Clone, Copy, Debug, Default)]
pub struct Door {
    hour: Option<Timestamp>,
    pushed: u32,
}

/// Whether one more may be pushed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// He may.
    Allowed,
    /// There were too many in this hour; the first time, which is worth a word.
    JustFull,
    /// There were too many in this hour.
    Full,
}

impl Door {
    /// Pushes one more out, if there were not so many in the hour before.
    pub fn push(&mut self, now: Timestamp, max: u32) -> Push {
        // A clock that was set back begins another hour.
        let goes_on = self.hour.is_some_and(|hour| hour <= now && now.since(hour) < HOUR);
        if !goes_on {
            (self.hour, self.pushed) = (Some(now), 0);
        }
        self.pushed = self.pushed.saturating_add(1);
        match self.pushed {
            pushed if pushed <= max => Push::Allowed,
            pushed if pushed == max + 1 => Push::JustFull,
            _ => Push::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_over_goes_first_then_newcomers_then_the_one_least_used() {
        let at = |hours: u64| Timestamp::from_millis(0).after(Span::hours(hours));
        let standing =
            |is_over, since, used| Standing { is_over, since: at(since), used: at(used) };
        let mut all = vec![
            ("old friend", standing(false, 0, 900)),
            ("lapsed friend", standing(true, 0, 999)),
            ("older friend", standing(false, 0, 800)),
            ("newcomer of today", standing(false, 990, 1_000)),
            ("newcomer of long ago", standing(false, 100, 101)),
        ];
        let mut went = Vec::new();
        while let Some((name, _)) = least(all.iter().copied()) {
            went.push(name);
            all.retain(|(other, _)| *other != name);
        }
        let expected = [
            "lapsed friend",
            "newcomer of long ago",
            "newcomer of today",
            "older friend",
            "old friend",
        ];
        assert_eq!(went, expected);
    }

    #[test]
    fn an_hour_pushes_out_only_so_many() {
        let mut door = Door::default();
        let start = Timestamp::from_millis(1_000_000_000);
        let pushes: Vec<Push> = (0..4).map(|_| door.push(start, 2)).collect();
        assert_eq!(pushes, [Push::Allowed, Push::Allowed, Push::JustFull, Push::Full]);
        assert_eq!(door.push(start.after(Span::minutes(59)), 2), Push::Full);
        assert_eq!(door.push(start.after(Span::hours(1)), 2), Push::Allowed);
        assert_eq!(door.push(start, 2), Push::Allowed, "the clock was set back");
    }
}
