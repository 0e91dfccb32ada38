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
use super::due::Due;
use super::link::Link;
use super::sizes::Sizes;
use crate::clock::Past;

/// All routes that mail waits on. Numbers stand for routes and are used again.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Keyed hashing: domains are chosen by strangers.
    numbers: HashMap<RouteName, u32>,
    slots: Vec<Option<Route>>,
    vacant: Vec<u32>,
    /// The first due moment of each route, of the mail that nobody knows of.
    heads: BTreeSet<(Timestamp, u32)>,
}

/// Which due mail of a route whoever delivers it knows of, so that the route is not named for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// None.
    Nothing,
    /// What is large.
    Large,
    /// All.
    All,
}

#[derive(Debug)]
struct Route {
    name: RouteName,
    due: Due,
    /// Messages that wait on the route, in `due` or not.
    links: u64,
    known: Known,
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
            known: Known::Nothing,
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
        if route.links == 0 && route.due.is_empty() && route.known != Known::All {
            let name = route.name.clone();
            self.numbers.remove(&name);
            self.slots[number as usize] = None;
            self.vacant.push(number);
        }
    }

    /// The numbers of routes to hosts that somebody named, whatever the domains of the mail.
    pub(super) fn by_hosts(&self) -> impl Iterator<Item = u32> {
        let by_host = self.numbers.iter().filter(|(name, _)| name.is_to_hosts());
        by_host.map(|(_, number)| *number)
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

    /// Makes a message of so many octets due when its link says; if that says that it is ready, it has been
    /// due since a moment.
    pub(super) fn arm(&mut self, link: &Link, id: QueueId, size_and_since: (u64, Timestamp)) {
        self.keep_head(link.route, |route| {
            route.due.insert(link, id, size_and_since);
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
        let before = route.head();
        change(route);
        let after = route.head();
        if before != after {
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
            route.known = Known::All;
            found.routes.push(route.name.clone());
        }
        found
    }

    /// Lets a route be named again for what is not known; returns whether it has such mail that it was not
    /// to be named for before.
    pub(super) fn name_again(&mut self, name: &RouteName, known: Known) -> bool {
        let Some(number) = self.numbers.get(name).copied() else { return false };
        let before = self.route(number).head();
        self.keep_head(number, |route| route.known = known);
        let after = self.route(number).head();
        self.forget_if_unused(number);
        after.is_some() && after != before
    }

    pub(super) fn number(&self, name: &RouteName) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// Messages of a route that are due, by [`Due::pick`].
    pub(super) fn due(
        &mut self,
        number: u32,
        now: Timestamp,
        wanted: (usize, Sizes),
        find: impl FnMut(QueueId, &mut dyn FnMut(&mut Link, u64)),
    ) -> Vec<QueueId> {
        let mut found = Vec::new();
        self.keep_head(number, |route| found = route.due.pick(now, wanted, find));
        found
    }

    /// The turn that is on among messages on the link's route.
    pub(super) fn turn(&mut self, link: &Link) -> u64 {
        self.route(link.route).due.turn(link)
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

impl Route {
    /// When the first of those is due that nobody knows of.
    fn head(&self) -> Option<Timestamp> {
        match self.known {
            Known::Nothing => self.due.first(Sizes::All),
            Known::Large => self.due.first(Sizes::Small),
            Known::All => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::due::READIED_MAX;
    use super::super::link::LARGE;
    use super::*;

    fn arm(routes: &mut Routes, link: &Link, id: u64) {
        routes.arm(link, QueueId::from_u64(id), (1, at(0)));
    }

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
        arm(&mut routes, &link(number, 10), 1);
        assert_eq!(routes.next_due(at(9)).wake_at, Some(at(10)));
        assert_eq!(routes.next_due(at(10)).routes, std::slice::from_ref(&name));
        routes.join(&name);
        arm(&mut routes, &link(number, 5), 2);
        assert_eq!(routes.next_due(at(10)), NextDue::default());
        let both = routes.due(number, at(10), (9, Sizes::All), |_, _| {});
        assert_eq!(both, [QueueId::from_u64(2), QueueId::from_u64(1)]);
        assert!(routes.name_again(&name, Known::Nothing));
        assert_eq!(routes.next_due(at(10)).routes, [name]);
    }

    #[test]
    fn one_look_gets_no_more_ready_than_its_bound() {
        let mut routes = Routes::default();
        let number = routes.join(&RouteName::from_text("mx:a.example"));
        let priority = |n: u64| match n % 3 {
            0 => 5 << 24,
            1 => 0,
            _ => 251 << 24,
        };
        for n in 0..15_000 {
            let link = Link { route: number, flags: priority(n), due: at(1) };
            arm(&mut routes, &link, n);
        }
        let mut readied = 0;
        let found = routes.due(number, at(10), (10, Sizes::All), |id, give| {
            let n = id.as_u64();
            give(&mut Link { route: number, flags: priority(n), due: at(1) }, 1);
            readied += 1;
        });
        assert_eq!((found.len(), readied), (10, READIED_MAX));
    }

    #[test]
    fn large_mail_that_is_known_keeps_nobody_from_hearing_of_small_mail() {
        let mut routes = Routes::default();
        let name = RouteName::from_text("mx:a.example");
        let number = routes.join(&name);
        let large = Link { flags: LARGE, ..link(number, 1) };
        (0..100).for_each(|id| arm(&mut routes, &large, id));
        assert_eq!(routes.next_due(at(10)).routes, std::slice::from_ref(&name));
        assert!(!routes.name_again(&name, Known::Large), "there is nothing else");
        assert_eq!(routes.next_due(at(10)), NextDue::default());
        arm(&mut routes, &large, 100);
        assert_eq!(routes.next_due(at(10)), NextDue::default());
        arm(&mut routes, &link(number, 20), 101);
        assert_eq!(routes.next_due(at(10)).wake_at, Some(at(20)));
        assert_eq!(routes.next_due(at(20)).routes, std::slice::from_ref(&name));
        assert!(routes.name_again(&name, Known::Large));
        assert!(routes.name_again(&name, Known::Nothing), "for the large ones");
        assert_eq!(routes.next_due(at(10)).routes, [name]);
    }

    #[test]
    fn routes_without_mail_are_forgotten_and_their_numbers_used_again() {
        let mut routes = Routes::default();
        for round in 0..1000 {
            let number = routes.join(&RouteName::from_text(&format!("mx:d{round}.example")));
            arm(&mut routes, &link(number, 1), round);
            routes.disarm(&link(number, 1), QueueId::from_u64(round));
            routes.leave(number);
        }
        assert_eq!(routes.slots.len(), 1);
        assert!(routes.counts().is_empty());
    }
}
