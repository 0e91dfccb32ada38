//! The messages of one route by when they are due, and by priority (RFC 6710).
//!
//! Nearly all mail has no priority and lies in one class, which costs what it would cost alone. Each
//! other priority that occurs has a class of its own, so that whoever takes the next mail goes through
//! the classes in order.
//!
//! In a class messages wait by time. Where more are due than are taken at once, they get ready first:
//! each by the turn of its sender, so that nobody's mail waits behind all of somebody else's. Mail that
//! leaves as it comes never goes that way. What was taken and comes back untried is ready at once, by the turn
//! it had.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::turns::Turns;
use smtpd_core::queue::wishes::Priority;

use super::link::{Link, READY};
use super::sizes::{BySize, Sizes};

/// Messages of a route that get ready at once: one look must not hold others up.
pub(super) const READIED_MAX: usize = 4096;

/// Messages that wait on one route.
#[derive(Debug, Default)]
pub(super) struct Due {
    normal: Class,
    /// No class is empty, none is for [`Priority::NORMAL`]; the highest comes first.
    special: BTreeMap<Reverse<Priority>, Class>,
    /// The highest turn that was on when nothing was left ready; turns go on from there.
    turn: u64,
}

/// Those of one priority.
#[derive(Debug, Default)]
struct Class {
    waiting: BySize<Timestamp>,
    /// Not there while nothing is ready, as on nearly all routes.
    ready: Option<Box<Ready>>,
}

/// Messages that are due, by their turns.
#[derive(Debug)]
struct Ready {
    mail: BySize<u64>,
    turns: Turns,
    /// When the first of them was due.
    since: Timestamp,
}

impl Due {
    /// Adds a message of so many octets. If its link says that it is ready, it was so before, or was taken
    /// and comes back; it was due at `since` then.
    pub(super) fn insert(&mut self, link: &Link, id: QueueId, (octets, since): (u64, Timestamp)) {
        let turn = self.turn;
        let class = self.class(link.priority());
        if link.flags & READY == 0 {
            class.waiting.of(link).insert((link.due, id));
        } else {
            let ready = class.ready(turn, since);
            ready.turns.keep(link.sender(), octets, link.due.as_millis());
            ready.mail.of(link).insert((link.due.as_millis(), id));
        }
    }

    pub(super) fn remove(&mut self, link: &Link, id: QueueId) {
        let class = self.class(link.priority());
        let mut turn = 0;
        if link.flags & READY == 0 {
            class.waiting.of(link).remove(&(link.due, id));
        } else if let Some(ready) = &mut class.ready {
            ready.mail.of(link).remove(&(link.due.as_millis(), id));
            turn = class.end_turns();
        }
        if class.is_empty() && link.priority() != Priority::NORMAL {
            self.special.remove(&Reverse(link.priority()));
        }
        self.turn = self.turn.max(turn);
    }

    fn class(&mut self, priority: Priority) -> &mut Class {
        match priority {
            Priority::NORMAL => &mut self.normal,
            special => self.special.entry(Reverse(special)).or_default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.normal.is_empty() && self.special.is_empty()
    }

    /// When the first of them is due, of these sizes; the beginning of time if it is ready.
    pub(super) fn first(&self, sizes: Sizes) -> Option<Timestamp> {
        self.classes().filter_map(|(_, class)| class.first(sizes)).min()
    }

    /// When the first of them is due, or was.
    pub(super) fn first_said(&self) -> Option<Timestamp> {
        let said = |class: &Class| {
            let since = class.ready.as_ref().map(|ready| ready.since);
            class.first_waiting(Sizes::All).into_iter().chain(since).min()
        };
        self.classes().filter_map(|(_, class)| said(class)).min()
    }

    /// The turn that is on among messages of the link's priority.
    pub(super) fn turn(&self, link: &Link) -> u64 {
        let class = match link.priority() {
            Priority::NORMAL => Some(&self.normal),
            special => self.special.get(&Reverse(special)),
        };
        class.and_then(|class| class.ready.as_ref()).map_or(self.turn, |ready| ready.turns.now())
    }

    /// All of them: the highest priority first, then those that are ready, then the longest due.
    pub(super) fn all(&self) -> impl Iterator<Item = QueueId> + '_ {
        self.classes().flat_map(|(_, class)| {
            let ready = class.ready.iter().flat_map(|ready| ready.mail.all(Sizes::All));
            let waiting = class.waiting.all(Sizes::All).map(|(_, id, _)| id);
            ready.map(|(_, id, _)| id).chain(waiting)
        })
    }

    /// Up to `max` messages of these sizes that are due, those of higher priority first, among equals by
    /// their senders' turns and the longest due; a large one is the last. `find` finds the link of a
    /// message, and its octets.
    pub(super) fn pick(
        &mut self,
        now: Timestamp,
        (max, sizes): (usize, Sizes),
        mut find: impl FnMut(QueueId, &mut dyn FnMut(&mut Link, u64)),
    ) -> Vec<QueueId> {
        let mut found = Vec::new();
        let mut may_ready = READIED_MAX;
        for priority in self.priorities() {
            let (left, begin) = (max - found.len(), self.turn);
            if left == 0 {
                break;
            }
            let class = self.class(priority);
            if class.few(now, (left, sizes), &mut found) {
                continue;
            }
            while may_ready > 0 && class.get_ready(now, (sizes, begin), &mut find) {
                may_ready -= 1;
            }
            let ended = class.take(left, sizes, &mut found);
            let turn = class.end_turns();
            self.turn = self.turn.max(turn);
            if ended {
                break;
            }
        }
        found
    }

    /// The priorities that occur, the highest first.
    fn priorities(&self) -> Vec<Priority> {
        self.classes().map(|(priority, _)| priority).collect()
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

    fn first_waiting(&self, sizes: Sizes) -> Option<Timestamp> {
        self.waiting.first(sizes).map(|(due, _)| due)
    }

    fn first(&self, sizes: Sizes) -> Option<Timestamp> {
        match &self.ready {
            Some(ready) if ready.mail.first(sizes).is_some() => Some(Timestamp::from_millis(0)),
            _ => self.first_waiting(sizes),
        }
    }

    /// Finds all that is due at a moment, by time, if that is at most `max` messages and none had to get
    /// ready; says whether it did.
    fn few(&self, now: Timestamp, (max, sizes): (usize, Sizes), found: &mut Vec<QueueId>) -> bool {
        if self.ready.is_some() {
            return false;
        }
        let before = found.len();
        let due = self.waiting.all(sizes).take_while(|(due, _, _)| *due <= now);
        found.extend(due.take(max + 1).map(|(_, id, _)| id));
        let are_few = found.len() - before <= max;
        if !are_few {
            found.truncate(before);
        }
        are_few
    }

    fn ready(&mut self, turn: u64, since: Timestamp) -> &mut Ready {
        let new = || {
            let (mail, turns) = (BySize::default(), Turns::beginning_at(turn));
            Box::new(Ready { mail, turns, since })
        };
        let ready = self.ready.get_or_insert_with(new);
        ready.since = ready.since.min(since);
        ready
    }

    /// Gets the message of these sizes ready that is longest due; says whether there is such a message.
    /// Turns begin with `begin`. `find` is told of the message, finds its link and its octets and has them
    /// given the turn.
    fn get_ready(
        &mut self,
        now: Timestamp,
        (sizes, begin): (Sizes, u64),
        find: impl FnOnce(QueueId, &mut dyn FnMut(&mut Link, u64)),
    ) -> bool {
        let Some((due, id)) = self.waiting.first(sizes).filter(|(due, _)| *due <= now) else {
            return false;
        };
        self.waiting.pop_first(sizes);
        let ready = self.ready(begin, due);
        find(id, &mut |link, octets| {
            let turn = ready.turns.give(link.sender(), octets);
            link.due = Timestamp::from_millis(turn);
            link.flags |= READY;
            ready.mail.of(link).insert((turn, id));
        });
        true
    }

    /// Finds up to `max` of those that are ready, of these sizes, in turn; says whether a large one, which
    /// is the last, ended them.
    fn take(&mut self, max: usize, sizes: Sizes, found: &mut Vec<QueueId>) -> bool {
        let Some(ready) = self.ready.as_deref_mut() else { return false };
        for (turn, id, is_large) in ready.mail.all(sizes).take(max) {
            ready.turns.take(turn);
            found.push(id);
            if is_large {
                return true;
            }
        }
        false
    }

    /// Forgets the turns if nothing is ready; returns the one that was on then.
    fn end_turns(&mut self) -> u64 {
        let ended = self.ready.take_if(|ready| ready.mail.is_empty());
        ended.map_or(0, |ready| ready.turns.now())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use smtpd_core::route::table::RouteName;

    use super::super::link::LARGE;
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
            turn: None,
        };
        Link { route: 0, flags: Link::flags(&plan), due: at(due) }
    }

    const ID: fn(u64) -> QueueId = QueueId::from_u64;

    type Links = BTreeMap<QueueId, Link>;

    fn insert_all(due: &mut Due, links: &Links) {
        links.iter().for_each(|(id, link)| due.insert(link, *id, (10, at(0))));
    }

    fn pick(
        due: &mut Due,
        links: &mut Links,
        moment: u64,
        max: usize,
        sizes: Sizes,
    ) -> Vec<QueueId> {
        due.pick(at(moment), (max, sizes), |id, give| give(links.get_mut(&id).unwrap(), 10))
    }

    #[test]
    fn higher_priority_comes_first_and_among_equals_the_longest_due() {
        let mut due = Due::default();
        let mail = [(0, 5, 1), (0, 3, 2), (9, 7, 3), (-9, 1, 4), (1, 6, 5), (1, 2, 6)];
        let mut links: Links = mail
            .iter()
            .map(|(priority, moment, number)| (ID(*number), link(*priority, *moment, 0)))
            .collect();
        insert_all(&mut due, &links);
        let mut by = |due: &mut Due, moment| pick(due, &mut links, moment, 9, Sizes::All);
        assert_eq!(by(&mut due, 9), [3, 6, 5, 2, 1, 4].map(ID));
        assert_eq!(by(&mut due, 3), [6, 2, 4].map(ID));
        assert_eq!((due.first(Sizes::All), due.all().count()), (Some(at(1)), 6));
        assert!(due.normal.ready.is_none(), "they are few");
        links.iter().for_each(|(id, link)| due.remove(link, *id));
        assert!(due.is_empty() && due.special.is_empty());
        assert_eq!(due.first(Sizes::All), None);
    }

    #[test]
    fn mail_gets_ready_by_its_sender_s_turn_and_leaves_nothing_behind() {
        let mut due = Due::default();
        let mut links: Links = (0..300).map(|n| (ID(n), link(0, n, u16::from(n == 299)))).collect();
        insert_all(&mut due, &links);
        let taken = pick(&mut due, &mut links, 1000, 3, Sizes::All);
        assert_eq!(taken, [ID(0), ID(299), ID(1)]);
        assert_eq!((due.first(Sizes::All), due.first_said()), (Some(at(0)), Some(at(0))));
        assert_eq!(due.all().count(), 300);
        links.iter().for_each(|(id, link)| due.remove(link, *id));
        assert!(due.is_empty() && due.first(Sizes::All).is_none());
    }

    #[test]
    fn large_mail_is_passed_over_where_it_may_not_go_and_is_the_last_where_it_may() {
        let mut due = Due::default();
        let mut links: Links = (0..5).map(|n| (ID(n), link(0, n, 0))).collect();
        links.values_mut().take(2).for_each(|link| link.flags |= LARGE);
        insert_all(&mut due, &links);
        assert_eq!(pick(&mut due, &mut links, 9, 2, Sizes::Small), [2, 3].map(ID));
        assert_eq!(due.first(Sizes::Small), Some(at(0)), "they are ready");
        for number in 2..5 {
            due.remove(&links[&ID(number)], ID(number));
        }
        assert_eq!((due.first(Sizes::Small), due.first(Sizes::All)), (None, Some(at(0))));
        assert_eq!(pick(&mut due, &mut links, 9, 1, Sizes::All), [ID(0)]);
        let turn = due.turn(&links[&ID(0)]);
        assert_eq!(pick(&mut due, &mut links, 9, 9, Sizes::All), [ID(0)], "a large one ends it");
        assert_eq!(due.turn(&links[&ID(0)]), turn, "the next one is not taken");
    }

    #[test]
    fn turns_go_on_where_they_ended() {
        let mut due = Due::default();
        let mut links: Links = (0..9).map(|n| (ID(n), link(0, n, 0))).collect();
        insert_all(&mut due, &links);
        assert_eq!(pick(&mut due, &mut links, 9, 8, Sizes::All).len(), 8);
        links.iter().for_each(|(id, link)| due.remove(link, *id));
        assert!(due.is_empty());
        // Two come back, and others have come meanwhile.
        for number in [5, 6] {
            due.insert(&links[&ID(number)], ID(number), (10, at(number)));
        }
        let mut new: Links = (20..23).map(|n| (ID(n), link(0, n, 1))).collect();
        insert_all(&mut due, &new);
        let taken = due.pick(at(99), (3, Sizes::All), |id, give| {
            give(new.get_mut(&id).unwrap(), 10);
        });
        assert_eq!(taken, [5, 6, 20].map(ID));
        assert_eq!(due.first_said(), Some(at(5)));
    }
}
