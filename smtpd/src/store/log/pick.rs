//! Which messages of a route somebody may lease.

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::turns::is_large;
use smtpd_core::route::table::RouteName;

use super::super::Pick;
use super::index::{CHUNK, Index};
use super::link::TOLD;
use super::sizes::Sizes;

impl Index {
    /// Up to `max` messages of a route that may be picked. What is due ends with a large one, so that no
    /// other waits behind it.
    pub(super) fn candidates(&mut self, route: &RouteName, pick: Pick, max: usize) -> Vec<QueueId> {
        let Some(number) = self.routes.number(route) else { return Vec::new() };
        match pick {
            Pick::Due(now) => self.due(number, now, (max, Sizes::All)),
            Pick::SmallDue(now) => self.due(number, now, (max, Sizes::Small)),
            Pick::Aged(before) => self.aged(number, before, max, false),
            Pick::Untold(before) => self.aged(number, before, max, true),
        }
    }

    fn due(&mut self, number: u32, now: Timestamp, wanted: (usize, Sizes)) -> Vec<QueueId> {
        let Self { routes, by_id, slots, .. } = self;
        let mut found = routes.due(number, now, wanted, |id, give| {
            let Some(place) = by_id.get(&id).map(|place| *place as usize) else { return };
            let Some(slot) = slots[place / CHUNK][place % CHUNK].as_mut() else { return };
            let size = slot.size;
            let mut links = slot.links.all_mut().iter_mut();
            if let Some(link) = links.find(|link| link.route == number) {
                give(link, size);
            }
        });
        let large = |id: &QueueId| self.get(*id).is_some_and(|slot| is_large(slot.size));
        if let Some(first) = found.iter().position(large) {
            found.truncate(first + 1);
        }
        found
    }

    fn aged(
        &mut self,
        number: u32,
        before: Timestamp,
        max: usize,
        only_untold: bool,
    ) -> Vec<QueueId> {
        let Self { routes, by_id, slots, clock, releases, .. } = self;
        let release = |id: QueueId| releases.get(&id).copied();
        let told = |id: QueueId| {
            let Some(slot) = by_id.get(&id).map(|n| *n as usize) else { return true };
            slots[slot / CHUNK][slot % CHUNK].as_ref().is_none_or(|slot| {
                let links = slot.links.all();
                links.iter().any(|link| link.route == number && link.flags & TOLD != 0)
            })
        };
        routes.aged(number, before, (max, &clock.past()), release, only_untold.then_some(&told))
    }
}
