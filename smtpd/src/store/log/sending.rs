//! The marks of messages whose end is on its way to another host.
//!
//! Before the last octets of a body leave, the attempt marks its slot in the file `sending`: message,
//! recipients, host. If the process dies between that and the record of the outcome, nobody can know
//! whether the host took the message; the mark says that it may have. The start that finds it puts
//! these recipients *in doubt*, which is recorded before any old mail is delivered ([`super::recover`]).
//!
//! A mark is one write and never synced: it outlives the process, but after loss of power it may be
//! missing, or be one that was cleared. So a mark counts only if its checksum is right and its
//! recipients still wait. The slot of a message that is gone is not cleared, for nothing asks for it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mailroot_common::id::QueueId;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::outcome::{AttemptResult, Outcome, RemoteHost, Stage};
use smtpd_core::queue::recipient::{Hold, MessageState, Phase};

use super::super::Change;
use super::Log;
use super::commit::Task;
use super::record::{read_u32, read_u64};
use crate::disk::{Disk, File, Open};

const NAME: &str = "sending";
const MAGIC: [u8; 4] = *b"MRS\x01";
const SLOT: usize = 1024;
/// Where the bits of the recipients begin, and the host behind them.
const BITS_AT: usize = 20;
const HOST_AT: usize = 276;
/// Recipients that have a bit; a message with more is marked as a whole.
const PLACES_MAX: usize = (HOST_AT - BITS_AT) * 8;
/// A file with more slots is none of ours.
const SLOTS_MAX: u64 = 1 << 20;

/// A message marked at this many deaths in a row may be what kills us: it is held.
const DEATHS_MAX: u8 = 3;

/// What a process marked of one message, in one slot or, if it was found in several, in all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) id: QueueId,
    slots: Vec<u32>,
    /// Deaths in a row before the one that left it.
    deaths: u8,
    /// Places of the recipients; all of them if absent.
    places: Option<Vec<usize>>,
    pub(super) host: Option<RemoteHost>,
}

impl Mark {
    fn write(&self) -> [u8; SLOT] {
        let mut octets = [0; SLOT];
        octets[4..8].copy_from_slice(&MAGIC);
        octets[8..16].copy_from_slice(&self.id.as_u64().to_le_bytes());
        octets[16] = self.deaths;
        match &self.places {
            Some(places) if places.iter().all(|place| *place < PLACES_MAX) => {
                for place in places {
                    octets[BITS_AT + place / 8] |= 1 << (place % 8);
                }
            }
            _ => octets[17] = 1,
        }
        // A name that is too long to be kept is only missing in the words about it.
        let host = self.host.as_ref().and_then(|host| serde_json::to_vec(host).ok());
        if let Some(host) = host.filter(|host| host.len() <= SLOT - HOST_AT) {
            let len = u16::try_from(host.len()).expect("it is shorter than a slot");
            octets[18..20].copy_from_slice(&len.to_le_bytes());
            octets[HOST_AT..HOST_AT + host.len()].copy_from_slice(&host);
        }
        let crc = crc32c::crc32c(&octets[4..]);
        octets[..4].copy_from_slice(&crc.to_le_bytes());
        octets
    }

    fn read(slot: u32, octets: &[u8]) -> Option<Self> {
        if octets[4..8] != MAGIC || read_u32(octets, 0) != crc32c::crc32c(&octets[4..]) {
            return None;
        }
        let bit = |place: &usize| octets[BITS_AT + place / 8] & (1 << (place % 8)) != 0;
        let places = (octets[17] == 0).then(|| (0..PLACES_MAX).filter(bit).collect());
        let len = usize::from(u16::from_le_bytes([octets[18], octets[19]]));
        let host = octets.get(HOST_AT..HOST_AT + len);
        Some(Self {
            id: QueueId::from_u64(read_u64(octets, 8)),
            slots: vec![slot],
            deaths: octets[16],
            places,
            host: host.and_then(|host| serde_json::from_slice(host).ok()),
        })
    }

    /// Takes in what another slot says of the same message.
    fn join(&mut self, other: Self) {
        self.slots.extend(other.slots);
        self.deaths = self.deaths.max(other.deaths);
        self.host = other.host.or_else(|| self.host.take());
        match (&mut self.places, other.places) {
            (Some(places), Some(more)) => {
                places.extend(more);
                places.sort_unstable();
                places.dedup();
            }
            (places, _) => *places = None,
        }
    }

    fn names(&self, place: usize) -> bool {
        self.places.as_ref().is_none_or(|places| places.contains(&place))
    }

    /// The places of its recipients that still wait.
    pub(super) fn waiting(&self, state: &MessageState) -> Vec<usize> {
        let recipients = state.recipients.iter().enumerate();
        let waits = recipients.filter(|(place, it)| self.names(*place) && !it.phase.is_end());
        waits.map(|(place, _)| place).collect()
    }

    /// Puts the recipients in doubt that still wait.
    pub(super) fn doubt(&self, state: &mut MessageState, now: Timestamp) {
        let text = "this service ended before the host had answered";
        let local = Outcome::local(now, Stage::End, EnhancedCode::transient(3, 0), text);
        let last = Outcome { result: AttemptResult::InDoubt, host: self.host.clone(), ..local };
        let doubted = self.waiting(state);
        for place in &doubted {
            let status = &mut state.recipients[*place];
            status.phase = Phase::InDoubt;
            status.doubted = false;
            status.attempts = status.attempts.saturating_add(1);
            status.last = Some(last.clone());
        }
        let deaths = self.deaths.saturating_add(1);
        if deaths >= DEATHS_MAX && !doubted.is_empty() && state.hold.is_none() {
            let reason = format!("the service ended {DEATHS_MAX} times while it sent this message");
            state.hold = Some(Hold { by: "mailroot".into(), reason: Some(reason), since: now });
        }
    }
}

/// The file of marks.
#[derive(Debug)]
pub(super) struct Sending {
    file: File,
    slots: Mutex<Slots>,
    /// Whether it was said that marks cannot be written.
    reported: AtomicBool,
}

#[derive(Debug, Default)]
struct Slots {
    /// The slots in use, by message.
    used: HashMap<QueueId, Vec<u32>, foldhash::fast::RandomState>,
    free: Vec<u32>,
    count: u32,
    /// Deaths in a row that messages were marked at.
    deaths: HashMap<QueueId, u8, foldhash::fast::RandomState>,
}

impl Sending {
    /// Opens the file of a `Queue` directory, or makes it; returns the marks that were left in it.
    pub(super) fn open(disk: &Disk, directory: &Path) -> io::Result<(Self, Vec<Mark>)> {
        let file = disk.open(&directory.join(NAME), Open::Create)?;
        let count = file.len()? / SLOT as u64;
        if count > SLOTS_MAX {
            file.set_len(0)?;
        }
        let mut slots = Slots::default();
        let mut marks: BTreeMap<QueueId, Mark> = BTreeMap::new();
        let mut octets = [0; SLOT];
        for slot in 0..if count > SLOTS_MAX { 0 } else { count } {
            let slot = u32::try_from(slot).expect("there are fewer");
            slots.count = slot + 1;
            if file.read_exact_at(&mut octets, at(slot)).is_err() {
                // What cannot be read is not used again, and says nothing.
                continue;
            }
            match Mark::read(slot, &octets) {
                Some(mark) => {
                    slots.used.entry(mark.id).or_default().push(slot);
                    match marks.entry(mark.id) {
                        Entry::Occupied(mut known) => known.get_mut().join(mark),
                        Entry::Vacant(place) => drop(place.insert(mark)),
                    }
                }
                None => slots.free.push(slot),
            }
        }
        for mark in marks.values() {
            slots.deaths.insert(mark.id, mark.deaths.saturating_add(1));
        }
        let sending = Self { file, slots: Mutex::new(slots), reported: AtomicBool::new(false) };
        Ok((sending, marks.into_values().collect()))
    }

    /// Marks recipients of a message, in the slot it was given before if there is one.
    pub(super) fn mark(
        &self,
        id: QueueId,
        slot: Option<u32>,
        places: &[usize],
        host: &RemoteHost,
    ) -> io::Result<u32> {
        let mut slots = self.slots();
        // If the message was removed meanwhile, its slot may be another's.
        let is_ours = |slot: &u32| slots.used.get(&id).is_some_and(|used| used.contains(slot));
        let known = slot.filter(is_ours);
        let slot = known.unwrap_or_else(|| slots.give(id));
        let deaths = slots.deaths.get(&id).copied().unwrap_or(0);
        let (places, host) = (Some(places.to_vec()), Some(host.clone()));
        let mark = Mark { id, slots: vec![slot], deaths, places, host };
        let written = self.file.write_all_at(&mark.write(), at(slot));
        if written.is_err() && known.is_none() {
            slots.take_back(id, slot);
        }
        written.map(|()| slot)
    }

    /// Clears a mark: the outcome is recorded, and the message lives on.
    pub(super) fn clear(&self, id: QueueId, slot: u32) -> io::Result<()> {
        self.slots().deaths.remove(&id);
        self.empty(id, slot)
    }

    /// Clears a mark that was found at the start: its recipients are recorded as in doubt. The next
    /// mark of the message still knows of the death.
    pub(super) fn lay_down(&self, mark: &Mark) -> io::Result<()> {
        let emptied = mark.slots.iter().map(|slot| self.empty(mark.id, *slot));
        emptied.fold(Ok(()), Result::and)
    }

    fn empty(&self, id: QueueId, slot: u32) -> io::Result<()> {
        let mut slots = self.slots();
        let is_ours = slots.used.get(&id).is_some_and(|used| used.contains(&slot));
        if !is_ours {
            return Ok(());
        }
        let cleared = self.file.write_all_at(&[0; SLOT], at(slot));
        slots.take_back(id, slot);
        cleared
    }

    /// Gives the slots of a message that is gone to others.
    pub(super) fn forget(&self, id: QueueId) {
        let mut slots = self.slots();
        slots.deaths.remove(&id);
        if let Some(mut freed) = slots.used.remove(&id) {
            slots.free.append(&mut freed);
        }
    }

    /// Whether trouble with the file was not told yet.
    pub(super) fn is_news(&self) -> bool {
        !self.reported.swap(true, Ordering::Relaxed)
    }

    /// An operator wants the message sent whatever happened before.
    pub(super) fn pardon(&self, id: QueueId) {
        self.slots().deaths.remove(&id);
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn take_back(&mut self, id: QueueId, slot: u32) {
        if let Some(of_message) = self.used.get_mut(&id) {
            of_message.retain(|one| *one != slot);
            if of_message.is_empty() {
                self.used.remove(&id);
            }
            self.free.push(slot);
        }
    }

    fn give(&mut self, id: QueueId) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.count += 1;
            self.count - 1
        });
        self.used.entry(id).or_default().push(slot);
        slot
    }
}

/// Marks that end with a batch.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Messages that may be gone now.
    gone: HashSet<QueueId>,
    marks: Vec<(QueueId, u32)>,
    doubts: Vec<Mark>,
    /// Messages that an operator has released.
    pardoned: Vec<QueueId>,
}

impl Ends {
    /// Takes note of a task that is about to be applied.
    pub(super) fn note(&mut self, task: &Task) {
        match task {
            Task::Settle { id, mark, .. } => {
                self.gone.insert(*id);
                self.marks.extend(mark.map(|mark| (*id, mark)));
            }
            Task::Change { id, change: Change::Remove, .. } => {
                self.gone.insert(*id);
            }
            Task::Change { id, change: Change::Release, .. } => self.pardoned.push(*id),
            Task::Doubt(mark) => self.doubts.push(mark.clone()),
            Task::Change { .. } | Task::Accept(_) | Task::Copy(_) => {}
        }
    }

    /// Says which of the messages are gone, now that all is applied.
    pub(super) fn keep_gone(&mut self, is_gone: impl Fn(QueueId) -> bool) {
        self.gone.retain(|id| is_gone(*id));
    }

    pub(super) const fn has_doubts(&self) -> bool {
        !self.doubts.is_empty()
    }
}

impl Log {
    /// Clears the marks of attempts whose outcome is durable.
    pub(super) fn end_marks(&self, ends: &Ends) {
        ends.gone.iter().for_each(|id| self.sending.forget(*id));
        ends.pardoned.iter().for_each(|id| self.sending.pardon(*id));
        let mut cleared = Ok(());
        for (id, slot) in ends.marks.iter().filter(|(id, _)| !ends.gone.contains(id)) {
            let done = self.sending.clear(*id, *slot);
            cleared = cleared.and(done);
        }
        for mark in &ends.doubts {
            let done = self.sending.lay_down(mark);
            cleared = cleared.and(done);
        }
        if let Err(error) = cleared {
            self.report_unmarked(&error);
        }
    }
}

fn at(slot: u32) -> u64 {
    u64::from(slot) * SLOT as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::conformance::{envelope, id, start};
    use super::*;
    use crate::disk::Modelled;

    fn host() -> RemoteHost {
        RemoteHost { name: "mx.there.example".to_owned(), address: None, port: 25, tls: None }
    }

    fn disk() -> Disk {
        let disk = Disk::Modelled(Arc::new(Modelled::new(1)));
        disk.create_dir_all(Path::new("/q")).unwrap();
        disk
    }

    #[test]
    fn what_was_marked_and_not_cleared_is_found_again() {
        let disk = disk();
        let (sending, found) = Sending::open(&disk, Path::new("/q")).unwrap();
        assert!(found.is_empty());
        let first = sending.mark(id(1), None, &[0, 2, 700], &host()).unwrap();
        let second = sending.mark(id(2), None, &[1], &host()).unwrap();
        let many = sending.mark(id(3), None, &[2100], &host()).unwrap();
        sending.clear(id(2), second).unwrap();
        assert_eq!(sending.mark(id(4), None, &[0], &host()).unwrap(), second, "it is used again");
        let (_, found) = Sending::open(&disk, Path::new("/q")).unwrap();
        let told: Vec<_> =
            found.iter().map(|mark| (mark.id, mark.slots[0], &mark.places)).collect();
        let (three, one) = (Some(vec![0, 2, 700]), Some(vec![0]));
        assert_eq!(told, [(id(1), first, &three), (id(3), many, &None), (id(4), second, &one)]);
        assert_eq!(found[0].host, Some(host()));
    }

    #[test]
    fn the_slot_of_a_removed_message_is_not_taken_from_its_new_owner() {
        let disk = disk();
        let (sending, _) = Sending::open(&disk, Path::new("/q")).unwrap();
        let slot = sending.mark(id(1), None, &[0], &host()).unwrap();
        sending.forget(id(1));
        assert_eq!(sending.mark(id(2), None, &[0], &host()).unwrap(), slot);
        let other = sending.mark(id(1), Some(slot), &[0], &host()).unwrap();
        assert_ne!(other, slot);
        sending.clear(id(1), slot).unwrap();
        let (_, found) = Sending::open(&disk, Path::new("/q")).unwrap();
        assert_eq!(found.iter().map(|mark| mark.id).collect::<Vec<_>>(), [id(1), id(2)]);
    }

    #[test]
    fn a_mark_that_cannot_be_written_keeps_no_slot() {
        let model = Arc::new(Modelled::new(1));
        let disk = Disk::Modelled(Arc::clone(&model));
        disk.create_dir_all(Path::new("/q")).unwrap();
        let (sending, _) = Sending::open(&disk, Path::new("/q")).unwrap();
        for number in 0..10 {
            model.plan(1, crate::disk::Fault::Error(io::ErrorKind::StorageFull));
            assert!(sending.mark(id(number), None, &[0], &host()).is_err());
        }
        assert_eq!(sending.mark(id(11), None, &[0], &host()).unwrap(), 0);
        assert_eq!(sending.slots().used.len(), 1);
    }

    #[test]
    fn a_message_marked_at_three_deaths_in_a_row_is_held() {
        let disk = disk();
        for death in 1..=3 {
            let (sending, found) = Sending::open(&disk, Path::new("/q")).unwrap();
            let mut state = MessageState::fresh(&envelope(&["a@x.example"], start()));
            for mark in found {
                mark.doubt(&mut state, start());
                sending.lay_down(&mark).unwrap();
            }
            assert!(state.hold.is_none(), "death {death}");
            sending.mark(id(1), None, &[0], &host()).unwrap();
        }
        let (_, found) = Sending::open(&disk, Path::new("/q")).unwrap();
        let mut state = MessageState::fresh(&envelope(&["a@x.example"], start()));
        found[0].doubt(&mut state, start());
        assert!(state.hold.is_some_and(|hold| hold.reason.unwrap().contains("3 times")));
    }

    #[test]
    fn an_outcome_ends_the_row_of_deaths() {
        let disk = disk();
        let (sending, _) = Sending::open(&disk, Path::new("/q")).unwrap();
        sending.mark(id(1), None, &[0], &host()).unwrap();
        let (sending, found) = Sending::open(&disk, Path::new("/q")).unwrap();
        sending.lay_down(&found[0]).unwrap();
        let slot = sending.mark(id(1), None, &[0], &host()).unwrap();
        sending.clear(id(1), slot).unwrap();
        sending.mark(id(1), None, &[0], &host()).unwrap();
        let (_, found) = Sending::open(&disk, Path::new("/q")).unwrap();
        assert_eq!(found[0].deaths, 0);
    }

    #[test]
    fn who_has_reached_an_end_is_not_in_doubt() {
        let mut state = MessageState::fresh(&envelope(&["a@x.example", "b@x.example"], start()));
        state.recipients[0].phase = Phase::Delivered;
        let mark = Mark {
            id: id(1),
            slots: vec![0],
            deaths: 0,
            places: Some(vec![0, 1]),
            host: Some(host()),
        };
        assert_eq!(mark.waiting(&state), [1]);
        mark.doubt(&mut state, start());
        assert_eq!(state.recipients[0].phase, Phase::Delivered);
        let doubted = &state.recipients[1];
        assert!(doubted.is_undecided() && doubted.attempts == 1);
    }

    #[test]
    fn torn_and_foreign_octets_are_no_marks() {
        let mark = Mark { id: id(1), slots: vec![0], deaths: 0, places: Some(vec![0]), host: None };
        let mut octets = mark.write();
        assert_eq!(Mark::read(0, &octets), Some(mark));
        octets[20] ^= 4;
        assert_eq!(Mark::read(0, &octets), None);
        assert_eq!(Mark::read(0, &[0; SLOT]), None);
    }
}
