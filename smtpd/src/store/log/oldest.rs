//! The oldest message of each route. Nobody keeps it: who asks passes by the index in portions.
//!
//! Between two portions mail comes and goes, and the number of a route that has none any more may stand for
//! another one. So the name is kept beside it.

use std::collections::BTreeMap;
use std::ops::Bound;

use mailroot_common::id::QueueId;
use smtpd_core::route::table::RouteName;

use super::Log;
use super::index::{CHUNK, Index, LOOKED_AT_MAX};

/// The first message found of each route, by the route's number.
type Oldest = BTreeMap<u32, (RouteName, QueueId)>;

impl Log {
    /// The oldest message of each route that any waits for. The messages are passed by in portions, so
    /// that nobody waits for this.
    pub(in super::super) fn oldest_by_route(&self) -> Vec<(RouteName, QueueId)> {
        let mut oldest = Oldest::new();
        let mut after = None;
        while let Some(last) = self.index().look_for_oldest(after, LOOKED_AT_MAX, &mut oldest) {
            after = Some(last);
        }
        self.index().still_waited_for(oldest)
    }
}

impl Index {
    /// Passes by the next messages, and notes the first of each route; where to go on, unless every route
    /// has one or there are no more.
    fn look_for_oldest(
        &self,
        after: Option<QueueId>,
        max: usize,
        oldest: &mut Oldest,
    ) -> Option<QueueId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.by_id.range((from, Bound::Unbounded)).take(max);
        let routes = self.routes.in_use();
        let mut last = None;
        for (id, number) in all {
            last = Some(*id);
            let slot = self.slots[*number as usize / CHUNK][*number as usize % CHUNK].as_ref();
            for link in slot.iter().flat_map(|slot| slot.links.all()) {
                let name = self.routes.name(link.route);
                if oldest.get(&link.route).is_none_or(|(known, _)| known != name) {
                    oldest.insert(link.route, (name.clone(), *id));
                }
            }
            if oldest.len() >= routes {
                // Those of routes that are gone meanwhile stand for nobody.
                oldest.retain(|number, (name, _)| self.is_route(*number, name));
            }
            if oldest.len() >= routes {
                return None;
            }
        }
        last
    }

    /// Those of the routes that mail still waits for.
    fn still_waited_for(&self, oldest: Oldest) -> Vec<(RouteName, QueueId)> {
        let found = oldest.into_iter().filter(|(number, (name, _))| self.is_route(*number, name));
        found.map(|(_, found)| found).collect()
    }

    /// Whether a number still stands for the route of this name.
    fn is_route(&self, number: u32, name: &RouteName) -> bool {
        self.routes.has(number) && self.routes.name(number) == name
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::{id, table};
    use super::super::index::Place;
    use super::super::plan::Plan;
    use super::*;
    use crate::clock::Clock;

    fn add(index: &mut Index, number: u64, route: &str) {
        index.insert(id(number), Place::new(0, number * 64, 64), 10);
        let (route, priority) = (RouteName::from_text(route), Default::default());
        let plan = Plan { route, due: None, told: false, priority, sender: 0, turn: None };
        index.relink(id(number), &[plan], false);
    }

    #[test]
    fn route_that_takes_the_number_of_another_one_has_an_age_of_its_own() {
        let mut index = Index::new(table(&[]), Clock::real());
        for (number, route) in [(1, "mx:x.example"), (2, "mx:y.example"), (3, "mx:y.example")] {
            add(&mut index, number, route);
        }
        let mut oldest = Oldest::new();
        let after = index.look_for_oldest(None, 1, &mut oldest);
        assert_eq!(after, Some(id(1)));
        // Between two portions the one route is done with, and another begins.
        index.remove(id(1), 0);
        add(&mut index, 4, "mx:z.example");
        let mut after = after;
        while let Some(last) = index.look_for_oldest(after, 1, &mut oldest) {
            after = Some(last);
        }
        let mut found = index.still_waited_for(oldest);
        found.sort();
        let expected = [("mx:y.example", 2), ("mx:z.example", 4)];
        assert_eq!(found, expected.map(|(name, number)| (RouteName::from_text(name), id(number))));
    }
}
