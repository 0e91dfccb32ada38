//! How often entries of a list decide, and when they last did.
//!
//! A counter belongs to what the entry means, not to its line, so that it goes on when the list is
//! written anew. Counting costs a look into a map that nobody writes, and two atomic words.

use std::array;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mailroot_common::units::Timestamp;

use super::access::Entry;

/// Hours that are told of.
const HOURS: usize = 24;
const HOUR_MILLIS: u64 = 3_600_000;

/// The counter of one entry: a day by the hour.
#[derive(Debug)]
pub struct Hits {
    /// The hour since 1970 in the upper half, its count in the lower. A slot serves one hour of
    /// each day and begins anew with it.
    slots: [AtomicU64; HOURS],
    /// Milliseconds since 1970; 0 for never.
    last: AtomicU64,
}

impl Default for Hits {
    fn default() -> Self {
        Self { slots: array::from_fn(|_| AtomicU64::new(0)), last: AtomicU64::new(0) }
    }
}

/// The hour of a moment.
fn hour(at: Timestamp) -> u32 {
    u32::try_from(at.as_millis() / HOUR_MILLIS).unwrap_or(u32::MAX)
}

const fn packed(hour: u32, count: u32) -> u64 {
    (hour as u64) << 32 | count as u64
}

#[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits")]
const fn unpacked(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

impl Hits {
    /// Counts one decision.
    pub fn note(&self, now: Timestamp) {
        let hour = hour(now);
        if let Some(slot) = self.slots.get(hour as usize % HOURS) {
            // Two that meet at the turn of an hour agree on its first word by trying again.
            let _old = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (of, count) = unpacked(word);
                Some(packed(hour, if of == hour { count.saturating_add(1) } else { 1 }))
            });
        }
        self.last.fetch_max(now.as_millis(), Ordering::Relaxed);
    }

    /// Decisions in this hour and the 23 before it.
    #[must_use]
    pub fn of_the_day(&self, now: Timestamp) -> u64 {
        let now = hour(now);
        let words = self.slots.iter().map(|slot| unpacked(slot.load(Ordering::Relaxed)));
        let lately = words.filter(|(of, _)| *of <= now && ((now - of) as usize) < HOURS);
        lately.map(|(_, count)| u64::from(count)).sum()
    }

    /// When it last decided.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        let last = self.last.load(Ordering::Relaxed);
        (last != 0).then(|| Timestamp::from_millis(last))
    }
}

/// The counters of a list: one for each of its entries, and no more.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<HashMap<Entry, Arc<Hits>>>);

impl Tally {
    /// Counters of these entries; those that were counted before go on.
    #[must_use]
    pub fn following(&self, entries: impl IntoIterator<Item = Entry>) -> Self {
        let kept = |entry: &Entry| self.0.get(entry).map(Arc::clone).unwrap_or_default();
        Self(Arc::new(entries.into_iter().map(|entry| (entry.clone(), kept(&entry))).collect()))
    }

    /// Counts a decision, if an entry made it.
    pub fn note(&self, entry: Option<&Entry>, now: Timestamp) {
        if let Some(hits) = entry.and_then(|entry| self.0.get(entry)) {
            hits.note(now);
        }
    }

    /// The counter of an entry.
    #[must_use]
    pub fn get(&self, entry: &Entry) -> Option<&Hits> {
        self.0.get(entry).map(|hits| &**hits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64, minutes: u64) -> Timestamp {
        Timestamp::from_millis((490_000 + hours) * HOUR_MILLIS + minutes * 60_000)
    }

    #[test]
    fn a_day_of_decisions_is_told_and_older_ones_are_forgotten() {
        let hits = Hits::default();
        assert_eq!((hits.of_the_day(at(0, 0)), hits.last()), (0, None));
        hits.note(at(0, 10));
        hits.note(at(0, 50));
        hits.note(at(5, 0));
        assert_eq!((hits.of_the_day(at(5, 1)), hits.last()), (3, Some(at(5, 0))));
        assert_eq!(hits.of_the_day(at(23, 59)), 3);
        assert_eq!(hits.of_the_day(at(24, 0)), 1);
        hits.note(at(24, 5));
        assert_eq!(hits.of_the_day(at(24, 5)), 2);
        assert_eq!(hits.of_the_day(at(90, 0)), 0);
        // A clock that was set back counts what it can and tells nothing of the future.
        assert_eq!(hits.of_the_day(at(4, 0)), 0);
    }

    #[test]
    fn counting_goes_on_for_entries_that_stay() {
        let [stays, goes, comes] =
            ["10.0.0.0/8", "*.corp.example", "::1"].map(|text| Entry::parse(text).unwrap());
        let before = Tally::default().following([stays.clone(), goes.clone()]);
        before.note(Some(&stays), at(0, 0));
        before.note(Some(&goes), at(0, 0));
        let after = before.following([stays.clone(), comes.clone()]);
        after.note(Some(&stays), at(0, 1));
        after.note(Some(&goes), at(0, 1));
        let count = |entry| after.get(entry).map(|hits| hits.of_the_day(at(0, 2)));
        assert_eq!([count(&stays), count(&goes), count(&comes)], [Some(2), None, Some(0)]);
    }
}
