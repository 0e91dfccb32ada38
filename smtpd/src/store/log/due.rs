//! The messages of one route by when they are due, and by priority (RFC 6710).
//!
//! Nearly all mail has no priority and lies in one set, which costs what it would cost alone. Each
//! other priority that occurs has a set of its own, so that whoever takes the next mail goes through
//! the sets in order and through each by time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::wishes::Priority;

type Set = BTreeSet<(Timestamp, QueueId)>;

/// Messages that wait on one route.
#[derive(Debug, Default)]
pub(super) struct Due {
    normal: Set,
    /// No set is empty, none is for [`Priority::NORMAL`]; the highest comes first.
    special: BTreeMap<Reverse<Priority>, Set>,
}

impl Due {
    pub(super) fn insert(&mut self, priority: Priority, due: Timestamp, id: QueueId) {
        let set = match priority {
            Priority::NORMAL => &mut self.normal,
            special => self.special.entry(Reverse(special)).or_default(),
        };
        set.insert((due, id));
    }

    pub(super) fn remove(&mut self, priority: Priority, due: Timestamp, id: QueueId) {
        if priority == Priority::NORMAL {
            self.normal.remove(&(due, id));
        } else if let Some(set) = self.special.get_mut(&Reverse(priority)) {
            set.remove(&(due, id));
            if set.is_empty() {
                self.special.remove(&Reverse(priority));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.normal.is_empty() && self.special.is_empty()
    }

    /// When the first of them is due.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.sets().filter_map(|set| set.first()).map(|(due, _)| *due).min()
    }

    /// Those that are due at a moment: the highest priority first, then the longest due.
    pub(super) fn by(&self, now: Timestamp) -> impl Iterator<Item = QueueId> + '_ {
        self.sets().flat_map(move |set| set.range(..=(now, QueueId::MAX))).map(|(_, id)| *id)
    }

    /// All of them, in the same order.
    pub(super) fn all(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.sets().flatten().map(|(_, id)| *id)
    }

    fn sets(&self) -> impl Iterator<Item = &Set> {
        let normal = Reverse(Priority::NORMAL);
        let higher = self.special.range(..normal).map(|(_, set)| set);
        let lower = self.special.range(normal..).map(|(_, set)| set);
        higher.chain(std::iter::once(&self.normal)).chain(lower)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn higher_priority_comes_first_and_among_equals_the_longest_due() {
        let mut due = Due::default();
        let id = QueueId::from_u64;
        let mail = [(0, 5, 1), (0, 3, 2), (9, 7, 3), (-9, 1, 4), (1, 6, 5), (1, 2, 6)];
        for (priority, moment, number) in mail {
            due.insert(Priority::try_from(priority).unwrap(), at(moment), id(number));
        }
        let by = |due: &Due, moment| due.by(at(moment)).collect::<Vec<_>>();
        assert_eq!(by(&due, 9), [3, 6, 5, 2, 1, 4].map(id));
        assert_eq!(by(&due, 3), [6, 2, 4].map(id));
        assert_eq!((due.first(), due.all().count()), (Some(at(1)), 6));
        for (priority, moment, number) in mail {
            due.remove(Priority::try_from(priority).unwrap(), at(moment), id(number));
        }
        assert!(due.is_empty() && due.special.is_empty());
        assert_eq!(due.first(), None);
    }
}
