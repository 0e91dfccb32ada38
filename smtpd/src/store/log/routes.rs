//! Due mail by route: for each route the messages that wait on it, by when they are due.
//!
//! Each route has its own ordered set, and one more set orders the routes by their first due
//! message. So the next work is found in logarithmic time, and a dead destination with a million
//! messages costs the others nothing: once named, its mail is not looked at until somebody leases.

use std::collections::{BTreeSet, HashMap};

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::route::table::RouteName;

use super::super::{NextDue, RouteCount};
use super::due::{Due, READIED_MAX};
use super::link::Link;
use crate::clock::Past;

/// All routes that mail waits on. Numbers stand for routes and are used again.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Keyed hashing: domains are chosen by strangers.
    numbers: HashMap<RouteName, u32>,
    slots: Vec<Option<Route>>,
    vacant: Vec<u32>,
    /// The first due moment of each route that is not named.
    heads: BTreeSet<(Timestamp, u32)>,
}

#[derive(Debug)]
struct Route {
    name: RouteName,
    due: Due,
    /// Messages that wait on the route, in `due` or not.
    links: u64,
    named: bool,
    /// No message in `due` has a lower id, so a look for aged mail need not look below.
    oldest: QueueId,
}

impl Routes {
    /// Counts a message in on a route; returns the route's number.
    pub(super) fn join(&mut self, name: &RouteName) -> u32 {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.add(name),
        };
        self.route(number).links += 1;
        number
    }

    fn add(&mut self, name: &RouteName) -> u32 {
        let route = Route {
            name: name.clone(),
            due: Due::default(),
            links: 0,
            named: false,
            oldest: QueueId::MAX,
        };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.slots[number as usize] = Some(route);
                number
            }
            None => {
                self.slots.push(Some(route));
                u32::try_from(self.slots.len() - 1).expect("routes are fewer than 2^32")
            }
        };
        self.numbers.insert(name.clone(), number);
        number
    }

    /// Counts a message out of a route.
    pub(super) fn leave(&mut self, number: u32) {
        self.route(number).links -= 1;
        self.forget_if_unused(number);
    }

    fn forget_if_unused(&mut self, number: u32) {
        let route = self.route(number);
        if route.links == 0 && route.due.is_empty() && !route.named {
            let name = route.name.clone();
            self.numbers.remove(&name);
            self.slots[number as usize] = None;
            self.vacant.push(number);
        }
    }

    fn route(&mut self, number: u32) -> &mut Route {
        self.slots[number as usize].as_mut().expect("a route lives while a message is counted in")
    }

    /// How many routes mail waits on.
    pub(super) fn in_use(&self) -> usize {
        let waits = |route: &&Option<Route>| route.as_ref().is_some_and(|route| route.links > 0);
        self.slots.iter().filter(waits).count()
    }

    /// Whether there is still a route of that number.
    pub(super) fn has(&self, number: u32) -> bool {
        self.slots.get(number as usize).is_some_and(Option::is_some)
    }

    pub(super) fn name(&self, number: u32) -> &RouteName {
        let route = self.slots[number as usize].as_ref();
        &route.expect("a route lives while a message is counted in").name
    }

    /// Makes a message due when its link says.
    pub(super) fn arm(&mut self, link: &Link, id: QueueId) {
        self.keep_head(link.route, |route| {
            route.due.insert(link, id);
            route.oldest = route.oldest.min(id);
        });
    }

    /// Takes back what [`Routes::arm`] did.
    pub(super) fn disarm(&mut self, link: &Link, id: QueueId) {
        self.keep_head(link.route, |route| route.due.remove(link, id));
    }

    /// Changes a route's set and keeps `heads` in step.
    fn keep_head(&mut self, number: u32, change: impl FnOnce(&mut Route)) {
        let route = self.slots[number as usize].as_mut();
        let route = route.expect("a route lives while a message is counted in");
        let before = route.due.first();
        change(route);
        let after = route.due.first();
        if !route.named && before != after {
            if let Some(due) = before {
                self.heads.remove(&(due, number));
            }
            if let Some(due) = after {
                self.heads.insert((due, number));
            }
        }
    }

    pub(super) fn next_due(&mut self, now: Timestamp) -> NextDue {
        let mut found = NextDue::default();
        while let Some((due, number)) = self.heads.first().copied() {
            if due > now {
                found.wake_at = Some(due);
                break;
            }
            self.heads.pop_first();
            let route = self.route(number);
            route.named = true;
            found.routes.push(route.name.clone());
        }
        found
    }

    /// Lets a route be named again; returns whether it has mail to be named for.
    pub(super) fn name_again(&mut self, name: &RouteName) -> bool {
        let Some(number) = self.numbers.get(name).copied() else { return false };
        let route = self.route(number);
        if !std::mem::replace(&mut route.named, false) {
            return false;
        }
        let head = route.due.first();
        match head {
            Some(due) => {
                self.heads.insert((due, number));
            }
            None => self.forget_if_unused(number),
        }
        head.is_some()
    }

    pub(super) fn number(&self, name: &RouteName) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// Up to `max` messages of a route that are due, those of higher priority first, among equals by
    /// their senders' turns and the longest due; large ones only if they may be among them. `find` finds
    /// the link of a message, and its octets.
    pub(super) fn due(
        &mut self,
        number: u32,
        now: Timestamp,
        (max, may_be_large): (usize, bool),
        mut find: impl FnMut(QueueId, &mut dyn FnMut(&mut Link, u64)),
    ) -> Vec<QueueId> {
        let mut found = Vec::new();
        self.keep_head(number, |route| {
            for priority in route.due.priorities() {
                let (class, left) = (route.due.class(priority), max - found.len());
                let few = if may_be_large { class.few(now, left) } else { None };
                found.extend(few.unwrap_or_else(|| {
                    let _readied =
                        (0..READIED_MAX).take_while(|_| class.get_ready(now, &mut find)).count();
                    class.take(left, may_be_large)
                }));
            }
        });
        found
    }

    /// Up to `max` messages of a route that are older than a moment, due or not. `release` says before when
    /// a message was not to be tried, `told` whether its sender was told of the delay, if that counts.
    pub(super) fn aged(
        &mut self,
        number: u32,
        before: Timestamp,
        (max, past): (usize, &Past),
        release: impl Fn(QueueId) -> Option<Timestamp>,
        told: Option<&impl Fn(QueueId) -> bool>,
    ) -> Vec<QueueId> {
        let route = self.route(number);
        // An id tells when its message was accepted. Where the wall clock went back, ids stood
        // still until it caught up; then the envelope says better.
        let is_before = |at: Timestamp| past.as_of_now(at) < before;
        let came_before = |id: QueueId| is_before(Timestamp::from_millis(id.as_millis()));
        if !came_before(route.oldest) {
            return Vec::new();
        }
        let is_old = |id: QueueId| came_before(id) && release(id).is_none_or(is_before);
        let is_told = |id: QueueId| told.is_some_and(|told| told(id));
        let aged = route.due.all();
        let found: Vec<QueueId> =
            aged.filter(|id| is_old(*id) && !is_told(*id)).take(max).collect();
        if found.is_empty() && told.is_none() {
            // Every message was looked at, so the bound can be made exact.
            route.oldest = route.due.all().min().unwrap_or(QueueId::MAX);
        }
        found
    }

    pub(super) fn counts(&self) -> Vec<RouteCount> {
        let routes = self.slots.iter().flatten().filter(|route| route.links > 0);
        let mut counts: Vec<RouteCount> = routes
            .map(|route| RouteCount {
                route: route.name.clone(),
                messages: route.links,
                next_due: route.due.first_said(),
            })
            .collect();
        counts.sort_unstable_by(|a, b| a.route.cmp(&b.route));
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn link(route: u32, due: u64) -> Link {
        Link { route, flags: 0, due: at(due) }
    }

    #[test]
    fn a_route_is_named_once_and_again_when_given_back() {
        let mut routes = Routes::default();
        let name = RouteName::from_text("mx:a.example");
        let number = routes.join(&name);
        routes.arm(&link(number, 10), QueueId::from_u64(1));
        assert_eq!(routes.next_due(at(9)).wake_at, Some(at(10)));
        assert_eq!(routes.next_due(at(10)).routes, std::slice::from_ref(&name));
        routes.join(&name);
        routes.arm(&link(number, 5), QueueId::from_u64(2));
        assert_eq!(routes.next_due(at(10)), NextDue::default());
        let both = routes.due(number, at(10), (9, true), |_, _| {});
        assert_eq!(both, [QueueId::from_u64(2), QueueId::from_u64(1)]);
        assert!(routes.name_again(&name));
        assert_eq!(routes.next_due(at(10)).routes, [name]);
    }

    #[test]
    fn routes_without_mail_are_forgotten_and_their_numbers_used_again() {
        let mut routes = Routes::default();
        for round in 0..1000 {
            let number = routes.join(&RouteName::from_text(&format!("mx:d{round}.example")));
            routes.arm(&link(number, 1), QueueId::from_u64(round));
            routes.disarm(&link(number, 1), QueueId::from_u64(round));
            routes.leave(number);
        }
        assert_eq!(routes.slots.len(), 1);
        assert!(routes.counts().is_empty());
    }
}
