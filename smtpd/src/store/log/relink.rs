//! How the links of messages change: which routes they wait on, and when they are due there.
//!
//! Whoever changes a link of a message keeps the sets of its route in step.

use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::recipient::RecipientStatus;
use smtpd_core::queue::turns::is_large;
use smtpd_core::route::table::RouteName;

use super::index::{CHUNK, Index};
use super::link::{LARGE, Link, Links, NEVER, READY, WANTED};
use super::plan::Plan;
use crate::clock::Jump;

impl Index {
    /// Replaces a message's links. What is ready on a route that stays, or comes back untried, keeps its
    /// turn. So does a wish of an operator for an attempt its moment; one that came while a recipient was
    /// being tried counts when that is over, not before its moment.
    pub(super) fn relink(&mut self, id: QueueId, plans: &[Plan], armed: bool) {
        let Some(number) = self.by_id.get(&id).copied() else { return };
        let slot = &mut self.slots[number as usize / CHUNK][number as usize % CHUNK];
        let slot = slot.as_mut().expect("the map of ids names only slots in use");
        let (now, size, mut since) = (self.clock.now(), slot.size, None);
        let wanted_at = self.wanted_at.get(&id).copied();
        let mut link = |plan: &Plan| {
            let route = self.routes.join(&plan.route);
            let old = slot.links.all().iter().find(|link| link.route == route);
            let wanted = old.filter(|link| link.flags & WANTED != 0);
            let turn = [plan.turn, old.and_then(Link::turn)].into_iter().flatten().min();
            let flags = Link::flags(plan) | if is_large(size) { LARGE } else { 0 };
            let later = wanted.filter(|old| old.due == NEVER).and(wanted_at);
            if let (Some(turn), Some(due), None) = (turn, plan.due, later) {
                since = [since, Some(due)].into_iter().flatten().min();
                let wanted = wanted.map_or(0, |_| WANTED);
                let due = Timestamp::from_millis(turn);
                return Link { route, flags: flags | wanted | READY, due };
            }
            let (flags, due) = match (plan.due, wanted) {
                // What came while a recipient was being tried counts from now on.
                (Some(_), Some(old)) if old.due == NEVER => {
                    (flags | WANTED, Some(later.unwrap_or(now)))
                }
                (Some(_), Some(old)) => (flags | WANTED, Some(old.due)),
                (None, Some(Link { due: NEVER, .. })) => (flags | WANTED, None),
                (due, _) => (flags, due),
            };
            Link { route, flags, due: due.unwrap_or(NEVER) }
        };
        let new = match plans {
            [plan] => Links::One(link(plan)),
            plans => Links::Many(plans.iter().map(link).collect()),
        };
        let old = std::mem::replace(&mut slot.links, new);
        if wanted_at.is_some() && !slot.links.all().iter().any(Link::is_wanted_after_this) {
            self.wanted_at.remove(&id);
        }
        for link in old.all() {
            if link.due != NEVER {
                self.routes.disarm(link, id);
            }
        }
        if armed {
            for link in slot.links.all().iter().filter(|link| link.due != NEVER) {
                self.routes.arm(link, id, (size, since.unwrap_or(now)));
            }
        }
        // Last, so that a route the message stays on is not forgotten in between.
        old.all().iter().for_each(|link| self.routes.leave(link.route));
    }

    /// Puts the links of a message that was found during recovery into their due sets.
    pub(super) fn arm(&mut self, id: QueueId) {
        let Some(number) = self.by_id.get(&id).copied() else { return };
        let slot = self.slots[number as usize / CHUNK][number as usize % CHUNK].as_ref();
        let slot = slot.expect("the map of ids names only slots in use");
        for link in slot.links.all().iter().filter(|link| link.due != NEVER) {
            self.routes.arm(link, id, (slot.size, link.due));
        }
    }

    /// Takes a message's turn on a route away, because it is leased; nothing if it was not due there, as
    /// far as is known. Mail that leaves as it comes has the turn that is on.
    pub(super) fn take_turn(&mut self, id: QueueId, route: u32, is_due: bool) -> Option<u64> {
        let number = *self.by_id.get(&id)? as usize;
        let slot = self.slots[number / CHUNK][number % CHUNK].as_mut()?;
        let link = slot.links.all_mut().iter_mut().find(|link| link.route == route)?;
        let Some(turn) = link.turn() else { return is_due.then(|| self.routes.turn(link)) };
        self.routes.disarm(link, id);
        link.wait_until(NEVER);
        link.flags &= !WANTED;
        Some(turn)
    }

    /// Has every link that is due some time due at `at`, because an operator wants it; one of which a
    /// recipient is being tried, or that is held, as soon as that is over, not before `at`.
    pub(super) fn want(&mut self, id: QueueId, at: Timestamp) {
        self.make_due(id, at, WANTED);
        let is_later = at > self.clock.now();
        let Some(slot) = self.get_mut(id) else { return };
        let links = slot.links.all_mut().iter_mut();
        links.filter(|link| link.due == NEVER).for_each(|link| link.flags |= WANTED);
        if is_later && slot.links.all().iter().any(Link::is_wanted_after_this) {
            self.wanted_at.insert(id, at);
        } else {
            self.wanted_at.remove(&id);
        }
    }

    /// The same because the message could not be read before.
    pub(super) fn postpone(&mut self, id: QueueId, at: Timestamp) {
        self.make_due(id, at, 0);
    }

    fn make_due(&mut self, id: QueueId, at: Timestamp, flag: u32) {
        let Some(number) = self.by_id.get(&id).copied() else { return };
        let slot = self.slots[number as usize / CHUNK][number as usize % CHUNK].as_mut();
        let slot = slot.expect("the map of ids names only slots in use");
        let (now, size) = (self.clock.now(), slot.size);
        for link in slot.links.all_mut().iter_mut().filter(|link| link.due != NEVER) {
            if flag == WANTED && link.flags & READY != 0 && at <= now {
                // It could not be sooner.
                link.flags |= WANTED;
                continue;
            }
            self.routes.disarm(link, id);
            link.wait_until(at);
            link.flags = (link.flags & !WANTED) | flag;
            self.routes.arm(link, id, (size, at));
        }
    }

    /// Has a message that waits for a moment of the time before a jump back of the wall clock wait
    /// for the same moment after it. What was decided on after the jump may so come up too early:
    /// then its state says better.
    pub(super) fn follow(&mut self, id: QueueId, jump: Jump) {
        let Some(number) = self.by_id.get(&id).copied() else { return };
        let slot = self.slots[number as usize / CHUNK][number as usize % CHUNK].as_mut();
        let slot = slot.expect("the map of ids names only slots in use");
        let waits = jump.after.after(Span::millis(1))..RecipientStatus::AT_OPERATORS_WORD;
        let is_waiting = |link: &Link| link.flags & READY == 0 && waits.contains(&link.due);
        for link in slot.links.all_mut().iter_mut().filter(|link| is_waiting(link)) {
            self.routes.disarm(link, id);
            link.due = jump.after.after(link.due.since(jump.before));
            self.routes.arm(link, id, (slot.size, link.due));
        }
    }

    /// Keeps a message that cannot be read from ever being due.
    pub(super) fn disarm(&mut self, id: QueueId) {
        let Some(number) = self.by_id.get(&id).copied() else { return };
        let slot = self.slots[number as usize / CHUNK][number as usize % CHUNK].as_mut();
        let slot = slot.expect("the map of ids names only slots in use");
        for link in slot.links.all_mut().iter_mut().filter(|link| link.due != NEVER) {
            self.routes.disarm(link, id);
            link.wait_until(NEVER);
        }
    }

    /// When an operator wants the message tried on a route, if that was asked for.
    pub(super) fn wanted(&self, id: QueueId, route: &RouteName) -> Option<Timestamp> {
        let number = self.routes.number(route)?;
        let links = self.get(id)?.links.all();
        let link = links.iter().find(|link| link.route == number)?;
        link.due().filter(|_| link.flags & WANTED != 0)
    }
}
