//! Recovery: reads what was stored before the start, segment by segment, oldest use first.
//!
//! New mail is accepted meanwhile; old mail is found by and by but is not due before the last
//! segment was read, because only then the highest version of each message is known. Versions
//! decide, not the order of records: compaction and removal leave older records behind anywhere.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::MessageState;

use super::super::due_at;
use super::Log;
use super::active::Seat;
use super::commit::Task;
use super::index::{Index, Place};
use super::large;
use super::plan::{Plan, plan};
use super::read::Location;
use super::record::{HEADER, IN_FILE, Kind};
use super::scan::{Sound, Step, Walk, Window};
use super::segment::SegmentFile;
use super::segments::Use;
use super::sending::Mark;
use super::standing::Standing;
use super::times::Times;
use crate::observe::Level;

/// Records applied to the index at once.
const CHUNK: usize = 512;

/// What recovery knows beyond the index.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Removed messages, with the segment of the removal.
    removed: HashMap<QueueId, u32, foldhash::fast::RandomState>,
    /// States of messages not met yet.
    early: HashMap<QueueId, State, foldhash::fast::RandomState>,
    /// Messages whose links need envelope and state together.
    unlinked: HashSet<QueueId, foldhash::fast::RandomState>,
    messages: u64,
    /// Marks of the process before us.
    marks: Vec<Mark>,
}

impl Recovery {
    pub(super) fn new(marks: Vec<Mark>) -> Self {
        Self { marks, ..Self::default() }
    }
}

/// What a record found says.
enum Found {
    Message { size: u64, plans: Vec<Plan>, large: Option<u64>, held: bool, times: Times },
    State(State),
    Removed,
}

/// A state record, and what links are made from if there is only one.
#[derive(Clone, Copy, Debug)]
struct State {
    version: u32,
    place: Place,
    standing: Standing,
    /// When the first waiting recipient is due.
    due: Option<Timestamp>,
    told: bool,
}

impl Log {
    /// Reads one segment, or finishes; returns whether recovery is over.
    pub(super) fn recover_step(&self, recovery: &mut Recovery, old_large: u64) -> bool {
        let next = {
            let index = self.index();
            let unread = index.segments.iter().filter(|segment| segment.usage == Use::Unread);
            let oldest = unread.min_by_key(|segment| segment.generation);
            oldest.map(|segment| (Arc::clone(&segment.file), segment.generation, segment.end))
        };
        let Some((file, generation, end)) = next else {
            if !self.doubt(&mut recovery.marks) {
                return false;
            }
            self.finish_recovery(recovery, old_large);
            return true;
        };
        if let Err(error) = self.read_segment(recovery, &file, generation, end) {
            // Its mail is not lost, only not known: the file is left as it is for the next start.
            let line = self.journal.line(Level::Error, "segment_unread");
            line.word("file", file.path.display()).word("error", error).send();
            let mut index = self.index();
            index.damaged += 1;
            index.segments.set_use(file.number, Use::Changing);
        } else {
            self.index().segments.set_use(file.number, Use::Sealed);
        }
        false
    }

    fn read_segment(
        &self,
        recovery: &mut Recovery,
        file: &SegmentFile,
        generation: u64,
        end: Option<u64>,
    ) -> io::Result<()> {
        let mut window = Window::new(file);
        let mut walk = Walk::new(window.len(), generation, end);
        let mut found = Vec::with_capacity(CHUNK);
        loop {
            match walk.next(&mut window)? {
                Step::Frame(frame) => match self.understand(&mut window, &frame)? {
                    Some(record) => found.push((frame, record)),
                    None => self.keep_damaged(file, frame.at, frame.header.frame_len()),
                },
                Step::Damage { at, len } => self.keep_damaged(file, at, len),
                Step::End => break,
            }
            if found.len() == CHUNK {
                recovery.apply(&mut self.index(), file.number, &mut found);
            }
        }
        recovery.apply(&mut self.index(), file.number, &mut found);
        Ok(())
    }

    /// Reads the meta of a record; nothing if it makes no sense.
    fn understand(&self, window: &mut Window, frame: &Sound) -> io::Result<Option<Found>> {
        let header = frame.header;
        Ok(match header.kind {
            Kind::Removed => Some(Found::Removed),
            Kind::State => {
                let Ok(state) = serde_json::from_slice::<MessageState>(window.meta(frame)?) else {
                    return Ok(None);
                };
                let waiting = || state.recipients.iter().filter(|one| !one.phase.is_end());
                let past = self.clock.past();
                let first = waiting().map(|status| due_at(&past, status)).min();
                Some(Found::State(State {
                    version: header.version,
                    place: Place::NOWHERE,
                    standing: Standing::of(&state),
                    due: first.filter(|_| state.is_free()),
                    told: waiting().all(|status| status.delay_told),
                }))
            }
            Kind::Message => {
                let Ok(envelope) = serde_json::from_slice::<Envelope>(window.meta(frame)?) else {
                    return Ok(None);
                };
                let fresh = MessageState::fresh(&envelope);
                let plans =
                    plan(&self.clock.past(), &self.table.load(), &envelope, &fresh, |_| Seat::Free);
                let large = if header.flags & IN_FILE == 0 {
                    None
                } else {
                    let at = frame.at + HEADER as u64 + u64::from(header.meta_len);
                    large::number_in(window.at(at, 8)?)
                };
                let (held, times) = (envelope.hold.is_some(), Times::of(&envelope));
                Some(Found::Message { size: header.size, plans, large, held, times })
            }
        })
    }

    /// Puts in doubt what the process before us was sending when it ended; says whether all of that
    /// is recorded. Nothing old is due before.
    fn doubt(&self, marks: &mut Vec<Mark>) -> bool {
        for mark in std::mem::take(marks) {
            if !self.pin_one(mark.id) {
                let index = self.index();
                if !index.contains(mark.id) && index.segments.count(Use::Changing) == 0 {
                    // Its message is gone: it had been delivered, and that was recorded.
                    self.sending.forget(mark.id);
                }
                // Else it cannot be read now; the mark stands for a start that can.
                continue;
            }
            let mut index = self.index();
            let waiting = index.actives.get(mark.id).map(|it| mark.waiting(&it.state));
            index.doubts += 1;
            drop(index);
            for place in waiting.unwrap_or_default() {
                self.counters.recipients_in_doubt.add_one();
                let line = self.journal.line(Level::Warn, "in_doubt").word("id", mark.id);
                let line = line.word("rcpt", place + 1);
                match &mark.host {
                    Some(host) => line.word("relay", host).send(),
                    None => line.send(),
                }
            }
            self.gather.ride(Task::Doubt(mark));
        }
        self.index().doubts == 0
    }

    fn finish_recovery(&self, recovery: &mut Recovery, old_large: u64) {
        for id in std::mem::take(&mut recovery.unlinked) {
            self.link(id);
        }
        let mut after = None;
        loop {
            let mut index = self.index();
            let chunk: Vec<QueueId> = index.ids_after(after).take(CHUNK).collect();
            let Some(last) = chunk.last() else { break };
            after = Some(*last);
            chunk.iter().for_each(|id| index.arm(*id));
        }
        self.remove_orphans(old_large);
        let mut index = self.index();
        index.recovered = true;
        let (messages, damaged) = (index.len(), index.damaged);
        drop(index);
        *recovery = Recovery::default();
        self.recovered.send_replace(true);
        self.work.notify_one();
        let line = self.journal.line(Level::Info, "queue_read");
        let line = line.word("queue", self.settings.directory.display());
        line.word("messages", messages).word("damaged", damaged).send();
    }

    /// Makes the links of a message from its envelope and its state.
    fn link(&self, id: QueueId) {
        let Some(location) = Location::of(&self.index(), id) else { return };
        match location.load() {
            Ok(loaded) => {
                let mut index = self.index();
                let active = &loaded.active;
                let plans = plan(
                    &index.clock.past(),
                    &index.table,
                    &active.envelope,
                    &active.state,
                    |_| Seat::Free,
                );
                index.relink(id, &plans, false);
            }
            Err(error) => self.set_aside(id, &error),
        }
    }

    /// Unlinks files of large bodies that no record names: they were being written when the
    /// process ended, or their message was removed and its file not yet.
    fn remove_orphans(&self, old_large: u64) {
        // A segment that could not be read may name any of them.
        if self.index().segments.count(Use::Changing) > 0 {
            return;
        }
        let named: HashSet<u64> = self.index().large.values().copied().collect();
        let names = self.disk.list(&self.settings.directory).unwrap_or_default();
        for number in names.iter().filter_map(|name| large::number_of(name.to_str()?)) {
            if number <= old_large && !named.contains(&number) {
                self.disk.unlink(&large::path(self, number)).unwrap_or_default();
            }
        }
    }
}

impl Recovery {
    fn apply(&mut self, index: &mut Index, segment: u32, found: &mut Vec<(Sound, Found)>) {
        for (frame, record) in found.drain(..) {
            let id = frame.header.id;
            let place = Place::new(segment, frame.at, frame.header.frame_len());
            index.highest = index.highest.max(id);
            match record {
                Found::Message { size, plans, large, held, times } => {
                    self.message(index, id, (place, size, held), &plans);
                    if index.contains(id) {
                        index.large.extend(large.map(|number| (id, number)));
                        index.note_times(id, times);
                    }
                }
                Found::State(state) => self.state(index, id, State { place, ..state }),
                Found::Removed => self.removal(index, id, segment),
            }
        }
    }

    fn message(
        &mut self,
        index: &mut Index,
        id: QueueId,
        (place, size, held): (Place, u64, bool),
        plans: &[Plan],
    ) {
        if let Some(grave) = self.removed.get(&id) {
            index.segments.found_buried(id, place.segment, *grave);
        } else if index.contains(id) {
            index.second_copy(id, place);
        } else {
            self.messages += 1;
            index.insert(id, place, size);
            if held {
                index.hold_fresh(id);
            }
            index.relink(id, plans, false);
            if let Some(state) = self.early.remove(&id) {
                self.state(index, id, state);
            }
        }
    }

    fn state(&mut self, index: &mut Index, id: QueueId, state: State) {
        if self.removed.contains_key(&id) {
            return;
        }
        let Some(slot) = index.get(id) else {
            if self.early.get(&id).is_none_or(|known| known.version <= state.version) {
                self.early.insert(id, state);
            }
            return;
        };
        // Equal versions are copies of one record; the later copy is the one that stays.
        if state.version < slot.version {
            return;
        }
        index.set_state(id, state.place, state.version, state.standing);
        let route = index.only_route(id).filter(|_| !state.standing.is_redirected());
        match route.cloned() {
            Some(route) => {
                let (priority, sender) = index.rank(id);
                let plan =
                    Plan { route, due: state.due, told: state.told, priority, sender, turn: None };
                index.relink(id, &[plan], false);
            }
            None => {
                self.unlinked.insert(id);
            }
        }
    }

    fn removal(&mut self, index: &mut Index, id: QueueId, segment: u32) {
        if let Some(before) = self.removed.insert(id, segment) {
            index.segments.moved_grave(id, before, segment);
            return;
        }
        self.early.remove(&id);
        self.unlinked.remove(&id);
        index.remove(id, segment);
    }
}
