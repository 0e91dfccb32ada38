//! Which routes in memory are named, and which messages a lease takes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::wishes::Priority;
use smtpd_core::route::table::RouteName;

use super::super::{NextDue, Pick};
use super::{Memory, Stored};
use crate::clock::Past;

/// A message that may be leased: the highest priority first, then the longest due.
pub(super) type Candidate = (Reverse<Option<Priority>>, Timestamp, QueueId);

impl Memory {
    pub(in super::super) fn next_due(&self, now: Timestamp) -> NextDue {
        let mut inner = self.lock();
        let mut first: BTreeMap<RouteName, Timestamp> = BTreeMap::new();
        for ((route, id), due) in inner.links() {
            let is_large = || inner.messages.get(&id).is_some_and(Stored::is_large);
            let is_known = match inner.named.get(&route) {
                Some(only_large) => !only_large || is_large(),
                None => false,
            };
            if let Some(due) = due
                && !is_known
            {
                first.entry(route).and_modify(|before| *before = due.min(*before)).or_insert(due);
            }
        }
        let mut found = NextDue::default();
        for (route, due) in first {
            if due <= now {
                inner.named.insert(route.clone(), false);
                found.routes.push(route);
            } else {
                found.wake_at = Some(found.wake_at.map_or(due, |before| before.min(due)));
            }
        }
        let free = inner.messages.values().filter(|stored| stored.state.hold.is_none());
        found.deadline_at = free.filter_map(|stored| stored.deadline).min();
        found
    }
}

impl Stored {
    pub(super) fn picked(&self, past: &Past, pick: Pick, place: usize) -> bool {
        let Some(due) = self.due(past, place) else { return false };
        let accepted_at = past.as_of_now(self.envelope.begins_at());
        match pick {
            Pick::Due(now) => due <= now,
            Pick::SmallDue(now) => due <= now && !self.is_large(),
            Pick::Aged(before) => {
                accepted_at < before && !self.state.recipients[place].awaits_operator()
            }
            Pick::Untold(before) => {
                let status = &self.state.recipients[place];
                accepted_at < before && !status.delay_told && !status.awaits_operator()
            }
        }
    }
}

/// Puts one sender's mail after the other's: the first of each, then the second of each.
pub(super) fn by_turns(found: &mut [Candidate], sender: impl Fn(QueueId) -> Option<ReversePath>) {
    let mut taken: HashMap<_, usize> = HashMap::new();
    found.sort_by_cached_key(|(priority, _, id)| {
        let sender = sender(*id).map(|sender| sender.to_string());
        let count = taken.entry((*priority, sender)).or_default();
        *count += 1;
        (*priority, *count)
    });
}
