//! Due mail by route: for each route the messages that wait on it, by when they are due.
//!
//! Each route has its own ordered set, and one more set orders the routes by their first due
//! message. So the next work is found in logarithmic time, and a dead destination with a million
//! messages costs the others nothing: once named, its mail is not looked at until somebody leases.

use std::collections::{BTreeSet, HashMap};

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::wishes::Priority;
use smtpd_core::route::table::RouteName;

use super::super::{NextDue, Pick, RouteCount};
use super::due::Due;

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

    pub(super) fn name(&self, number: u32) -> &RouteName {
        let route = self.slots[number as usize].as_ref();
        &route.expect("a route lives while a message is counted in").name
    }

    /// Makes a message due at a moment.
    pub(super) fn arm(&mut self, number: u32, priority: Priority, due: Timestamp, id: QueueId) {
        self.keep_head(number, |route| {
            route.due.insert(priority, due, id);
            route.oldest = route.oldest.min(id);
        });
    }

    /// Takes back what [`Routes::arm`] did.
    pub(super) fn disarm(&mut self, number: u32, priority: Priority, due: Timestamp, id: QueueId) {
        self.keep_head(number, |route| {
            route.due.remove(priority, due, id);
        });
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

    /// Up to `max` messages of a route that may be picked, those of higher priority first, among equals
    /// the longest due. `begins_at` says when a message's time began, `told` whether its sender was told
    /// of the delay.
    pub(super) fn candidates(
        &mut self,
        number: u32,
        pick: Pick,
        max: usize,
        begins_at: impl Fn(QueueId) -> Timestamp,
        told: impl Fn(QueueId) -> bool,
    ) -> Vec<QueueId> {
        let route = self.route(number);
        let before = match pick {
            Pick::Due(now) => return route.due.by(now).take(max).collect(),
            Pick::Aged(before) | Pick::Untold(before) => before,
        };
        if route.oldest == QueueId::MAX {
            return Vec::new();
        }
        let is_old = |id: QueueId| begins_at(id) < before;
        let untold = matches!(pick, Pick::Untold(_));
        let aged = route.due.all();
        let found: Vec<QueueId> =
            aged.filter(|id| is_old(*id) && !(untold && told(*id))).take(max).collect();
        if found.is_empty() && !untold {
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
                next_due: route.due.first(),
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

    #[test]
    fn a_route_is_named_once_and_again_when_given_back() {
        let mut routes = Routes::default();
        let name = RouteName::from_text("mx:a.example");
        let number = routes.join(&name);
        routes.arm(number, Priority::NORMAL, at(10), QueueId::from_u64(1));
        assert_eq!(routes.next_due(at(9)).wake_at, Some(at(10)));
        assert_eq!(routes.next_due(at(10)).routes, std::slice::from_ref(&name));
        routes.join(&name);
        routes.arm(number, Priority::NORMAL, at(5), QueueId::from_u64(2));
        assert_eq!(routes.next_due(at(10)), NextDue::default());
        let begins_at = |id: QueueId| at(id.as_millis());
        let both = routes.candidates(number, Pick::Due(at(10)), 9, begins_at, |_| false);
        assert_eq!(both, [QueueId::from_u64(2), QueueId::from_u64(1)]);
        assert!(routes.name_again(&name));
        assert_eq!(routes.next_due(at(10)).routes, [name]);
    }

    #[test]
    fn routes_without_mail_are_forgotten_and_their_numbers_used_again() {
        let mut routes = Routes::default();
        for round in 0..1000 {
            let number = routes.join(&RouteName::from_text(&format!("mx:d{round}.example")));
            routes.arm(number, Priority::NORMAL, at(1), QueueId::from_u64(round));
            routes.disarm(number, Priority::NORMAL, at(1), QueueId::from_u64(round));
            routes.leave(number);
        }
        assert_eq!(routes.slots.len(), 1);
        assert!(routes.counts().is_empty());
    }
}
