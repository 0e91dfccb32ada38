//! When the time is up that senders named (RFC 2852): apart from the due sets, because it is kept also
//! for mail that nobody tries, such as that of a destination in trouble. Mail without such a time is
//! not in here.

use std::collections::{BTreeSet, HashMap};

use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};

use crate::clock::Past;

/// When a held message is looked at again.
const HELD_PAUSE: Span = Span::minutes(1);

/// The deadlines of messages that wait.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_id: HashMap<QueueId, Deadline, foldhash::fast::RandomState>,
    by_moment: BTreeSet<(Timestamp, QueueId)>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    /// By the clock as it was when the message was accepted.
    said: Timestamp,
    /// When to look, by the clock as it goes now.
    at: Timestamp,
}

impl Deadlines {
    pub(super) fn add(&mut self, id: QueueId, said: Timestamp) {
        self.remove(id);
        self.by_id.insert(id, Deadline { said, at: said });
        self.by_moment.insert((said, id));
    }

    pub(super) fn remove(&mut self, id: QueueId) {
        if let Some(deadline) = self.by_id.remove(&id) {
            self.by_moment.remove(&(deadline.at, id));
        }
    }

    pub(super) fn put_off(&mut self, id: QueueId, until: Timestamp) {
        if let Some(deadline) = self.by_id.get_mut(&id) {
            self.by_moment.remove(&(deadline.at, id));
            deadline.at = until;
            self.by_moment.insert((until, id));
        }
    }

    pub(super) fn first(&self) -> Option<Timestamp> {
        self.by_moment.first().map(|(at, _)| *at)
    }

    /// Up to `max` messages whose time is up; those that are held are put off.
    pub(super) fn overdue(
        &mut self,
        now: Timestamp,
        max: usize,
        is_held: impl Fn(QueueId) -> bool,
    ) -> Vec<QueueId> {
        let due = self.by_moment.iter().take_while(|(at, _)| *at <= now);
        let (held, found): (Vec<_>, Vec<_>) =
            due.map(|(_, id)| *id).take(max).partition(|id| is_held(*id));
        held.into_iter().for_each(|id| self.put_off(id, now.after(HELD_PAUSE)));
        found
    }

    /// Has all moments follow a wall clock that has jumped. An id tells when its message was accepted.
    pub(super) fn follow(&mut self, past: &Past) {
        self.by_moment.clear();
        for (id, deadline) in &mut self.by_id {
            let accepted = Timestamp::from_millis(id.as_millis());
            deadline.at = past.due(accepted, deadline.said);
            self.by_moment.insert((deadline.at, *id));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::super::super::conformance::{id, start};
    use super::*;
    use crate::clock::Clock;

    fn later(minutes: u64) -> Timestamp {
        start().after(Span::minutes(minutes))
    }

    #[test]
    fn overdue_messages_are_named_until_they_go_or_are_put_off() {
        let mut deadlines = Deadlines::default();
        for number in 1..=4 {
            deadlines.add(id(number), later(number));
        }
        let none_held = |_| false;
        assert_eq!(deadlines.overdue(later(0), 9, none_held), []);
        assert_eq!(deadlines.overdue(later(3), 2, none_held), [id(1), id(2)]);
        deadlines.put_off(id(1), later(10));
        deadlines.remove(id(2));
        assert_eq!(deadlines.overdue(later(4), 9, |id_| id_ == id(3)), [id(4)]);
        deadlines.remove(id(4));
        assert_eq!(deadlines.first(), Some(later(5)), "a held one is looked at a minute later");
        assert_eq!(deadlines.overdue(later(10), 9, none_held), [id(3), id(1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_of_the_clock_brings_no_deadline_nearer() {
        let clock = Clock::simulated(start(), 1);
        let mut deadlines = Deadlines::default();
        deadlines.add(id(0), later(60));
        for by in [86_400_000, -3 * 86_400_000] {
            clock.jump_by(by);
            let now = clock.now();
            deadlines.follow(&clock.past());
            assert_eq!(deadlines.first(), Some(now.after(Span::hours(1))), "{by}");
        }
    }
}
