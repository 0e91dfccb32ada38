//! The oldest message of each route. Nobody keeps it: who asks passes by the index in portions.

use std::collections::BTreeMap;
use std::ops::Bound;

use mailroot_common::id::QueueId;
use smtpd_core::route::table::RouteName;

use super::Log;
use super::index::{CHUNK, Index, LOOKED_AT_MAX};

impl Log {
    /// The oldest message of each route that any waits for. The messages are passed by in portions, so
    /// that nobody waits for this.
    pub(in super::super) fn oldest_by_route(&self) -> Vec<(RouteName, QueueId)> {
        let mut oldest = BTreeMap::new();
        let mut after = None;
        while let Some(last) = self.index().look_for_oldest(after, &mut oldest) {
            after = Some(last);
        }
        let index = self.index();
        let known = oldest.into_iter().filter(|(number, _)| index.routes.has(*number));
        known.map(|(number, id)| (index.routes.name(number).clone(), id)).collect()
    }
}

impl Index {
    /// Passes by the next messages, and notes the first of each route; where to go on, unless every route
    /// has one or there are no more.
    fn look_for_oldest(
        &self,
        after: Option<QueueId>,
        oldest: &mut BTreeMap<u32, QueueId>,
    ) -> Option<QueueId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.by_id.range((from, Bound::Unbounded)).take(LOOKED_AT_MAX);
        let routes = self.routes.in_use();
        let mut last = None;
        for (id, number) in all {
            last = Some(*id);
            let slot = self.slots[*number as usize / CHUNK][*number as usize % CHUNK].as_ref();
            for link in slot.iter().flat_map(|slot| slot.links.all()) {
                oldest.entry(link.route).or_insert(*id);
            }
            if oldest.len() >= routes {
                return None;
            }
        }
        last
    }
}
