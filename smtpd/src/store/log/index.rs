//! The index: in memory, what is alive in the log and where.
//!
//! Compact on purpose: one slot of 72 octets per message, one link of 16 octets per route it waits
//! on, and one entry in the route's due set. Addresses and outcomes stay on disk; they are in
//! memory only while somebody leases the message ([`super::active`]).
//!
//! The index changes only after the batch that says so was synced. It also knows, for each
//! segment, how much of it is alive and which removal records in it are still needed: a removal
//! lives until every copy of its message was overwritten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::wishes::Priority;
use smtpd_core::route::table::{RouteName, Table};

use super::active::{Active, Actives};
use super::deadlines::Deadlines;
use super::link::Links;
use super::routes::Routes;
use super::segments::Segments;
use super::standing::Standing;
use crate::clock::Clock;

/// A frame: segment, place and length, both in units of 8 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    at: u32,
    len: u32,
}

impl Place {
    /// The place of no frame.
    pub(super) const NOWHERE: Self = Self { segment: u32::MAX, at: 0, len: 0 };

    pub(super) fn new(segment: u32, at: u64, len: u64) -> Self {
        let units = |octets: u64| u32::try_from(octets / 8).expect("segments are under 32 GiB");
        Self { segment, at: units(at), len: units(len) }
    }

    pub(super) const fn at(self) -> u64 {
        self.at as u64 * 8
    }

    pub(super) const fn len(self) -> u64 {
        self.len as u64 * 8
    }

    pub(super) fn is_somewhere(self) -> bool {
        self != Self::NOWHERE
    }
}

/// One message.
#[derive(Debug)]
pub(super) struct Slot {
    /// The message record.
    pub(super) record: Place,
    /// The state record of the highest version, if there is one.
    pub(super) state: Place,
    pub(super) version: u32,
    pub(super) standing: Standing,
    /// Octets of the content.
    pub(super) size: u64,
    pub(super) links: Links,
}

/// Everything that is alive.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) by_id: BTreeMap<QueueId, u32>,
    pub(super) slots: Vec<Vec<Option<Slot>>>,
    vacant: Vec<u32>,
    pub(super) routes: Routes,
    pub(super) segments: Segments,
    pub(super) actives: Actives,
    pub(super) table: Arc<Table>,
    pub(super) clock: Clock,
    /// Messages up to this id wait to be sorted by a new table.
    pub(super) unsorted: Option<QueueId>,
    /// The files of large bodies, by their message.
    pub(super) large: HashMap<QueueId, u64, foldhash::fast::RandomState>,
    /// Messages an operator wants returned.
    returning: BTreeSet<QueueId>,
    /// When the time is up that senders named.
    pub(super) deadlines: Deadlines,
    /// Before when messages are not tried whose senders named such a moment.
    pub(super) releases: HashMap<QueueId, Timestamp, foldhash::fast::RandomState>,
    /// When operators want messages tried again that are being tried, if that is later than at once.
    pub(super) wanted_at: HashMap<QueueId, Timestamp, foldhash::fast::RandomState>,
    /// Files of large bodies whose message's removal is durable.
    pub(super) unlinks: Vec<u64>,
    pub(super) octets: u64,
    pub(super) held: u64,
    /// Messages with a state record, because something became of them already.
    pub(super) tried: u64,
    pub(super) damaged: u64,
    /// Marks found at the start that are not dealt with yet.
    pub(super) doubts: u32,
    /// False until everything stored before the start was read.
    pub(super) recovered: bool,
    pub(super) highest: QueueId,
}

pub(super) const CHUNK: usize = 1024;
/// How many messages one look passes by at most.
pub(super) const LOOKED_AT_MAX: usize = 8192;

/// What one look at the messages came to.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Those found.
    pub(super) ids: Vec<QueueId>,
    /// The last one looked at; nothing if there was none.
    pub(super) last: Option<QueueId>,
}

impl Index {
    pub(super) fn new(table: Arc<Table>, clock: Clock) -> Self {
        Self {
            by_id: BTreeMap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            routes: Routes::default(),
            segments: Segments::default(),
            actives: Actives::default(),
            table,
            clock,
            unsorted: None,
            large: HashMap::default(),
            returning: BTreeSet::new(),
            deadlines: Deadlines::default(),
            releases: HashMap::default(),
            wanted_at: HashMap::default(),
            unlinks: Vec::new(),
            octets: 0,
            held: 0,
            tried: 0,
            damaged: 0,
            doubts: 0,
            recovered: false,
            highest: QueueId::from_u64(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn contains(&self, id: QueueId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn get(&self, id: QueueId) -> Option<&Slot> {
        let number = *self.by_id.get(&id)? as usize;
        self.slots[number / CHUNK][number % CHUNK].as_ref()
    }

    pub(super) fn get_mut(&mut self, id: QueueId) -> Option<&mut Slot> {
        let number = *self.by_id.get(&id)? as usize;
        self.slots[number / CHUNK][number % CHUNK].as_mut()
    }

    fn slot(&self, number: u32) -> &Slot {
        let slot = self.slots[number as usize / CHUNK][number as usize % CHUNK].as_ref();
        slot.expect("the map of ids names only slots in use")
    }

    /// The ids after one, in order.
    pub(super) fn ids_after(&self, after: Option<QueueId>) -> impl Iterator<Item = QueueId> + '_ {
        let begin = after.map_or(QueueId::from_u64(0), QueueId::next);
        self.by_id.range(begin..).map(|(id, _)| *id)
    }

    /// A look at the messages after one: their ids, or of many messages those that may have a
    /// recipient in `domain`. Ends after `max` ids, or when it has looked at many messages, so that
    /// nobody waits for the index long.
    pub(super) fn look_after(
        &self,
        after: Option<QueueId>,
        domain: Option<&Domain>,
        max: usize,
    ) -> Look {
        let begin = after.map_or(QueueId::from_u64(0), QueueId::next);
        // Until all is read and sorted, a message may lie on another route than the table says.
        let domain = domain.filter(|_| self.recovered && self.unsorted.is_none());
        let routes: Option<Vec<u32>> = domain.map(|domain| {
            let names = self.table.route_names_of(domain);
            let named = names.iter().filter_map(|name| self.routes.number(name));
            // A directory may have given a recipient a host of its own.
            named.chain(self.routes.by_hosts()).collect()
        });
        let may_be_for = |slot: u32| {
            let Some(routes) = &routes else { return true };
            let slot = self.slot(slot);
            let links = slot.links.all();
            slot.standing.is_redirected() || links.iter().any(|link| routes.contains(&link.route))
        };
        let mut look = Look::default();
        for (id, slot) in self.by_id.range(begin..).take(LOOKED_AT_MAX) {
            if look.ids.len() == max {
                break;
            }
            look.last = Some(*id);
            if may_be_for(*slot) {
                look.ids.push(*id);
            }
        }
        look
    }

    /// Adds a message without links.
    pub(super) fn insert(&mut self, id: QueueId, record: Place, size: u64) {
        let links = Links::Many(Box::default());
        let slot = Slot {
            record,
            state: Place::NOWHERE,
            version: 0,
            standing: Standing::default(),
            size,
            links,
        };
        let number = match self.vacant.pop() {
            Some(number) => number,
            None => {
                if self.slots.last().is_none_or(|chunk| chunk.len() == CHUNK) {
                    self.slots.push(Vec::with_capacity(CHUNK));
                }
                let full = (self.slots.len() - 1) * CHUNK;
                let chunk = self.slots.last_mut().expect("a chunk was just made sure of");
                chunk.push(None);
                u32::try_from(full + chunk.len() - 1).expect("messages are fewer than 2^32")
            }
        };
        self.slots[number as usize / CHUNK][number as usize % CHUNK] = Some(slot);
        self.by_id.insert(id, number);
        self.octets += size;
        self.highest = self.highest.max(id);
        self.segments.add_live(record);
    }

    /// The number of routes the message waits on, and the first of them.
    pub(super) fn only_route(&self, id: QueueId) -> Option<&RouteName> {
        match self.get(id)?.links.all() {
            [link] => Some(self.routes.name(link.route)),
            _ => None,
        }
    }

    /// The priority of a message that waits, and the number of its sender.
    pub(super) fn rank(&self, id: QueueId) -> (Priority, u16) {
        let link = self.get(id).and_then(|slot| slot.links.all().first());
        link.map(|link| (link.priority(), link.sender())).unwrap_or_default()
    }

    /// The id of the oldest message.
    pub(super) fn oldest(&self) -> Option<QueueId> {
        self.by_id.keys().next().copied()
    }

    /// Notes that a message without a state is held.
    pub(super) fn hold_fresh(&mut self, id: QueueId) {
        if let Some(slot) = self.get_mut(id) {
            slot.standing = Standing::held();
            self.held += 1;
        }
    }

    /// Records where the state of a message now is, and what it says.
    pub(super) fn set_state(
        &mut self,
        id: QueueId,
        state: Place,
        version: u32,
        standing: Standing,
    ) {
        let Some(slot) = self.get_mut(id) else { return };
        let old = std::mem::replace(&mut slot.state, state);
        slot.version = version;
        let before = std::mem::replace(&mut slot.standing, standing);
        self.held = self.held + u64::from(standing.is_held()) - u64::from(before.is_held());
        if standing.is_returning() {
            self.returning.insert(id);
        }
        self.tried = self.tried + u64::from(state.is_somewhere()) - u64::from(old.is_somewhere());
        self.segments.drop_live(old);
        self.segments.add_live(state);
    }

    /// A message that cannot be read is not returned, as it is not tried.
    pub(super) fn forget_order(&mut self, id: QueueId) {
        self.returning.remove(&id);
    }

    /// Up to `max` messages an operator wants returned that have somebody nobody is trying.
    pub(super) fn ordered(&self, max: usize) -> Vec<QueueId> {
        if !self.recovered {
            return Vec::new();
        }
        let is_idle = |id: &QueueId| self.actives.get(*id).is_none_or(Active::has_idle);
        self.returning.iter().copied().filter(is_idle).take(max).collect()
    }

    /// Those of the messages that have a recipient which waits for an operator's word.
    pub(super) fn awaiting(&self, ids: &[QueueId]) -> Vec<QueueId> {
        let awaits = |id: &&QueueId| self.get(**id).is_some_and(|it| it.standing.is_awaiting());
        ids.iter().filter(awaits).copied().collect()
    }

    /// Forgets a message whose removal record stands in `grave`.
    pub(super) fn remove(&mut self, id: QueueId, grave: u32) -> bool {
        self.relink(id, &[], false);
        let Some(number) = self.by_id.remove(&id) else { return false };
        let slot = self.slots[number as usize / CHUNK][number as usize % CHUNK].take();
        let slot = slot.expect("the map of ids names only slots in use");
        self.vacant.push(number);
        self.returning.remove(&id);
        self.deadlines.remove(id);
        self.releases.remove(&id);
        self.wanted_at.remove(&id);
        self.octets -= slot.size;
        self.held -= u64::from(slot.standing.is_held());
        self.tried -= u64::from(slot.state.is_somewhere());
        self.unlinks.extend(self.large.remove(&id));
        self.segments.drop_live(slot.record);
        self.segments.drop_live(slot.state);
        self.segments.bury(id, slot.record.segment, grave);
        true
    }

    /// Follows a message record that was copied, if it is still the one that counts.
    pub(super) fn moved_record(&mut self, id: QueueId, from: Place, to: Place) {
        if let Some(slot) = self.get_mut(id)
            && slot.record == from
        {
            slot.record = to;
            self.segments.drop_live(from);
            self.segments.add_live(to);
            self.segments.moved_out(id, from.segment);
        }
    }

    /// Follows a state record that was copied, if it is still the one that counts.
    pub(super) fn moved_state(&mut self, id: QueueId, from: Place, to: Place) {
        if let Some(slot) = self.get_mut(id)
            && slot.state == from
        {
            slot.state = to;
            self.segments.drop_live(from);
            self.segments.add_live(to);
        }
    }

    /// Takes a newer copy of a message record into account, found during recovery.
    pub(super) fn second_copy(&mut self, id: QueueId, newer: Place) {
        if let Some(slot) = self.get_mut(id) {
            let older = std::mem::replace(&mut slot.record, newer);
            self.segments.drop_live(older);
            self.segments.add_live(newer);
            self.segments.moved_out(id, older.segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::{id, table};
    use super::super::link::Link;
    use super::*;

    #[test]
    fn a_message_takes_the_room_the_design_allows() {
        // A slot and its share of the map of ids; at most 120 octets together.
        assert!(size_of::<Option<Slot>>() <= 80, "{}", size_of::<Option<Slot>>());
        assert_eq!(size_of::<Link>(), 16);
    }

    #[test]
    fn messages_that_were_tried_are_counted_until_they_go() {
        let mut index = Index::new(table(&[]), Clock::real());
        let place = |at| Place::new(0, at, 64);
        for number in 1..=3 {
            index.insert(id(number), place(number * 64), 10);
        }
        assert_eq!(index.tried, 0);
        for version in 1..=2 {
            let held = Standing::held();
            index.set_state(id(1), place(640 * u64::from(version)), version, Standing::default());
            index.set_state(id(2), place(6400 * u64::from(version)), version, held);
        }
        assert_eq!((index.tried, index.held), (2, 1));
        for number in 1..=3 {
            index.remove(id(number), 0);
        }
        assert_eq!((index.tried, index.held, index.octets), (0, 0, 0));
    }
}
