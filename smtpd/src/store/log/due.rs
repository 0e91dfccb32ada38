//! The messages of one route by when they are due, and by priority (RFC 6710).
//!
//! Nearly all mail has no priority and lies in one class, which costs what it would cost alone. Each
//! other priority that occurs has a class of its own, so that whoever takes the next mail goes through
//! the classes in order.
//!
//! In a class messages wait by time. Where more are due than are taken at once, they get ready first:
//! each by the turn of its sender, so that nobody's mail waits behind all of somebody else's. Mail that
//! leaves as it comes never goes that way.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::turns::Turns;
use smtpd_core::queue::wishes::Priority;

use super::link::{LARGE, Link, READY};

/// Messages that get ready at once: one look must not hold others up.
pub(super) const READIED_MAX: usize = 4096;

/// Messages that wait on one route.
#[derive(Debug, Default)]
pub(super) struct Due {
    normal: Class,
    /// No class is empty, none is for [`Priority::NORMAL`]; the highest comes first.
    special: BTreeMap<Reverse<Priority>, Class>,
}

/// Those of one priority.
#[derive(Debug, Default)]
pub(super) struct Class {
    waiting: BTreeSet<(Timestamp, QueueId)>,
    /// Not there while nothing is ready, as on nearly all routes.
    ready: Option<Box<Ready>>,
}

/// Messages that are due, by their turns.
#[derive(Debug)]
struct Ready {
    small: BTreeSet<(u64, QueueId)>,
    large: BTreeSet<(u64, QueueId)>,
    turns: Turns,
    /// When the first of them was due.
    since: Timestamp,
}

impl Due {
    pub(super) fn insert(&mut self, link: &Link, id: QueueId) {
        self.class(link.priority()).waiting.insert((link.due, id));
    }

    pub(super) fn remove(&mut self, link: &Link, id: QueueId) {
        let class = self.class(link.priority());
        if link.flags & READY == 0 {
            class.waiting.remove(&(link.due, id));
        } else if let Some(ready) = &mut class.ready {
            ready.set(link).remove(&(link.due.as_millis(), id));
            if ready.small.is_empty() && ready.large.is_empty() {
                class.ready = None;
            }
        }
        if class.is_empty() && link.priority() != Priority::NORMAL {
            self.special.remove(&Reverse(link.priority()));
        }
    }

    pub(super) fn class(&mut self, priority: Priority) -> &mut Class {
        match priority {
            Priority::NORMAL => &mut self.normal,
            special => self.special.entry(Reverse(special)).or_default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.normal.is_empty() && self.special.is_empty()
    }

    /// When the first of them is due; the beginning of time if it is ready.
    pub(super) fn first(&self) -> Option<Timestamp> {
        self.classes().filter_map(|(_, class)| class.first()).min()
    }

    /// When the first of them is due, or was.
    pub(super) fn first_said(&self) -> Option<Timestamp> {
        let said = |class: &Class| {
            let since = class.ready.as_ref().map(|ready| ready.since);
            class.first_waiting().into_iter().chain(since).min()
        };
        self.classes().filter_map(|(_, class)| said(class)).min()
    }

    /// The priorities that occur, the highest first.
    pub(super) fn priorities(&self) -> Vec<Priority> {
        self.classes().map(|(priority, _)| priority).collect()
    }

    /// All of them: the highest priority first, then those that are ready, then the longest due.
    pub(super) fn all(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.classes().flat_map(|(_, class)| {
            let ready = class.ready.iter().flat_map(|it| it.small.iter().chain(&it.large));
            let waiting = class.waiting.iter().map(|(_, id)| *id);
            ready.map(|(_, id)| *id).chain(waiting)
        })
    }

    fn classes(&self) -> impl Iterator<Item = (Priority, &Class)> {
        let normal = Reverse(Priority::NORMAL);
        let special = |(priority, class): (&Reverse<Priority>, _)| (priority.0, class);
        let higher = self.special.range(..normal).map(special);
        let lower = self.special.range(normal..).map(special);
        higher.chain(std::iter::once((Priority::NORMAL, &self.normal))).chain(lower)
    }
}

impl Class {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.ready.is_none()
    }

    fn first_waiting(&self) -> Option<Timestamp> {
        self.waiting.first().map(|(due, _)| *due)
    }

    fn first(&self) -> Option<Timestamp> {
        match self.ready {
            Some(_) => Some(Timestamp::from_millis(0)),
            None => self.first_waiting(),
        }
    }

    /// All that is due at a moment, by time, if that is at most `max` messages and none had to get ready.
    pub(super) fn few(&self, now: Timestamp, max: usize) -> Option<Vec<QueueId>> {
        if self.ready.is_some() {
            return None;
        }
        let due = self.waiting.range(..=(now, QueueId::MAX)).take(max + 1);
        let found: Vec<QueueId> = due.map(|(_, id)| *id).collect();
        (found.len() <= max).then_some(found)
    }

    /// Gets the message ready that is longest due. `ready` is told of the message, finds its link and its
    /// octets and has them given the turn; it says whether there is such a message.
    pub(super) fn get_ready(
        &mut self,
        now: Timestamp,
        find: impl FnOnce(QueueId, &mut dyn FnMut(&mut Link, u64)),
    ) -> bool {
        let Some((due, id)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) else {
            return false;
        };
        self.waiting.pop_first();
        let new = || Box::new(Ready { since: due, ..Ready::default() });
        let ready = self.ready.get_or_insert_with(new);
        ready.since = ready.since.min(due);
        find(id, &mut |link, octets| {
            let turn = ready.turns.give(link.sender(), octets);
            link.due = Timestamp::from_millis(turn);
            link.flags |= READY;
            ready.set(link).insert((turn, id));
        });
        if ready.small.is_empty() && ready.large.is_empty() {
            self.ready = None;
        }
        true
    }

    /// Up to `max` of those that are ready, in turn; large ones only if they may be among them.
    pub(super) fn take(&mut self, max: usize, may_be_large: bool) -> Vec<QueueId> {
        let Some(ready) = self.ready.as_deref_mut() else { return Vec::new() };
        let mut small = ready.small.iter().peekable();
        let mut large = ready.large.iter().filter(|_| may_be_large).peekable();
        let mut found = Vec::new();
        while found.len() < max {
            let next = match (small.peek(), large.peek()) {
                (Some(one), Some(other)) if other < one => large.next(),
                (Some(_), _) => small.next(),
                (None, _) => large.next(),
            };
            let Some((turn, id)) = next else { break };
            ready.turns.take(*turn);
            found.push(*id);
        }
        found
    }
}

impl Default for Ready {
    fn default() -> Self {
        let (small, large) = Default::default();
        Self { small, large, turns: Turns::default(), since: Timestamp::from_millis(0) }
    }
}

impl Ready {
    fn set(&mut self, link: &Link) -> &mut BTreeSet<(u64, QueueId)> {
        if link.flags & LARGE == 0 { &mut self.small } else { &mut self.large }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use smtpd_core::route::table::RouteName;

    use super::super::plan::Plan;
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn link(priority: i8, due: u64, sender: u16) -> Link {
        let plan = Plan {
            route: RouteName::from_text("mx:a.example"),
            due: None,
            told: false,
            priority: Priority::try_from(priority).unwrap(),
            sender,
        };
        Link { route: 0, flags: Link::flags(&plan), due: at(due) }
    }

    const ID: fn(u64) -> QueueId = QueueId::from_u64;

    #[test]
    fn higher_priority_comes_first_and_among_equals_the_longest_due() {
        let mut due = Due::default();
        let mail = [(0, 5, 1), (0, 3, 2), (9, 7, 3), (-9, 1, 4), (1, 6, 5), (1, 2, 6)];
        for (priority, moment, number) in mail {
            due.insert(&link(priority, moment, 0), ID(number));
        }
        let by = |due: &mut Due, moment| -> Vec<QueueId> {
            let all = due.priorities().into_iter();
            all.flat_map(|it| due.class(it).few(at(moment), 9).unwrap()).collect()
        };
        assert_eq!(by(&mut due, 9), [3, 6, 5, 2, 1, 4].map(ID));
        assert_eq!(by(&mut due, 3), [6, 2, 4].map(ID));
        assert_eq!((due.first(), due.all().count()), (Some(at(1)), 6));
        assert_eq!(due.class(Priority::NORMAL).few(at(9), 1), None, "more than are wanted");
        for (priority, moment, number) in mail {
            due.remove(&link(priority, moment, 0), ID(number));
        }
        assert!(due.is_empty() && due.special.is_empty());
        assert_eq!(due.first(), None);
    }

    #[test]
    fn mail_gets_ready_by_its_sender_s_turn_and_leaves_nothing_behind() {
        let mut due = Due::default();
        let mut links: BTreeMap<QueueId, Link> =
            (0..300).map(|n| (ID(n), link(0, n, u16::from(n == 299)))).collect();
        links.iter().for_each(|(id, link)| due.insert(link, *id));
        let class = due.class(Priority::NORMAL);
        while class.get_ready(at(1000), |id, give| give(links.get_mut(&id).unwrap(), 10)) {}
        assert_eq!(class.take(3, true), [ID(0), ID(299), ID(1)]);
        assert_eq!((due.first(), due.first_said()), (Some(at(0)), Some(at(0))));
        assert_eq!(due.all().count(), 300);
        links.iter().for_each(|(id, link)| due.remove(link, *id));
        assert!(due.is_empty() && due.first().is_none());
    }

    #[test]
    fn large_mail_is_passed_over_where_it_may_not_go() {
        let mut due = Due::default();
        let mut links: BTreeMap<QueueId, Link> = (0..4).map(|n| (ID(n), link(0, n, 0))).collect();
        links.values_mut().take(2).for_each(|link| link.flags |= LARGE);
        links.iter().for_each(|(id, link)| due.insert(link, *id));
        let class = due.class(Priority::NORMAL);
        while class.get_ready(at(9), |id, give| give(links.get_mut(&id).unwrap(), 10)) {}
        assert_eq!(class.take(9, false), [ID(2), ID(3)]);
        assert_eq!(class.take(9, true), [0, 1, 2, 3].map(ID));
    }
}
