//! The keeper: everything the log does that nobody waits for.
//!
//! [`Log::keep_step`] does one small thing at a time, the most urgent first: recycling, a segment in
//! reserve, the reading of old mail after a start, files of large bodies whose message is gone, mail
//! to be sorted by a new table, compaction. A thread drives it in production; a simulation
//! calls it when it likes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mailroot_common::id::QueueId;

use super::super::CommitError;
use super::Log;
use super::active::Seat;
use super::compact::Compaction;
use super::large;
use super::plan::plan;
use super::read::Location;
use super::recover::Recovery;
use super::segment::{SegmentFile, SegmentHeader};
use super::segments::Use;
use super::sending::Mark;
use crate::observe::Level;

/// Spare segments wanted: one for the next batches, one in reserve. While a segment fills, one that
/// is not needed any more is recycled, or one is emptied, or another is made.
pub(super) const SPARES: usize = 2;
/// More are given back to the file system.
const SPARES_MAX: usize = 3;
/// How often the disk's room is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Messages sorted by a new table in one step.
const SORT_CHUNK: usize = 256;

/// What a step of the keeper came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Nothing to do, or nothing that can be done now.
    Idle,
    /// Something was done, and there may be more.
    Done,
    /// Records were handed in to be moved; the pace of that is bounded.
    Copied,
}

/// What the keeper remembers from step to step.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) recovery: Option<Recovery>,
    pub(super) compaction: Compaction,
    /// Files of large bodies up to this number were there before the start.
    pub(super) old_large: u64,
    looked: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(old_large: u64, marks: Vec<Mark>) -> Self {
        let recovery = Some(Recovery::new(marks));
        Self { recovery, compaction: Compaction::default(), old_large, looked: None }
    }
}

impl Log {
    /// Does one thing that is due.
    pub(super) fn keep_step(&self) -> Kept {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        self.look_at_disk(&mut keeper);
        // Until everything is read nobody knows which removals are still needed.
        if (keeper.recovery.is_none() && self.recycle_one()) || self.keep_spare(&keeper) {
            return Kept::Done;
        }
        if let Some(mut recovery) = keeper.recovery.take() {
            if !self.recover_step(&mut recovery, keeper.old_large) {
                keeper.recovery = Some(recovery);
            }
            let waits = self.index().doubts > 0;
            return if waits { Kept::Idle } else { Kept::Done };
        }
        self.unlink_bodies();
        if self.sort_some() {
            return Kept::Done;
        }
        self.compact_step(&mut keeper.compaction)
    }

    fn look_at_disk(&self, keeper: &mut Keeper) {
        if keeper.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        keeper.looked = Some(Instant::now());
        if let Ok(space) = self.disk.space(&self.settings.directory) {
            self.free.store(space.free.as_u64(), Ordering::Relaxed);
        }
        // The next batch tells whether the trouble is over.
        *self.trouble() = None;
    }

    /// Makes a spare segment if one is missing, or gives one back if there are too many; returns
    /// whether it did.
    fn keep_spare(&self, keeper: &Keeper) -> bool {
        let spares = self.index().segments.count(Use::Spare);
        if spares > SPARES_MAX {
            // A start found them: the disk had not let go of them.
            return self.give_back_spare();
        }
        // Below the floor only the reserve is filled up: it is what lets the queue shrink.
        let roomy = self.free().as_u64() > self.min_free().as_u64();
        if spares >= if roomy { SPARES } else { 1 } {
            return false;
        }
        let soon = keeper.recovery.is_none() && self.gains_soon(&keeper.compaction);
        let can_wait = spares > 0 && soon;
        !can_wait && self.make_spare().is_ok()
    }

    /// Gives a spare segment back to the file system.
    fn give_back_spare(&self) -> bool {
        let removed = {
            let mut index = self.index();
            let spare = index.segments.find(Use::Spare);
            spare.and_then(|number| index.segments.remove(number))
        };
        // If the file stays, the next start finds it.
        removed.is_some_and(|segment| self.disk.unlink(&segment.file.path).is_ok())
    }

    /// Makes a segment of zeros.
    pub(super) fn make_spare(&self) -> Result<(), CommitError> {
        let (number, size) = (self.index().segments.new_number(), self.settings.segment_size);
        let made = SegmentFile::create(&self.disk, &self.settings.directory, number, size);
        let failed = |error| CommitError::from_io(&self.settings.directory, error);
        let file = made.map_err(failed)?;
        // So that the next start knows it for what it is, without reading all of it.
        let header = self.header_of_spare();
        if let Err(error) = file.write_header(&header) {
            self.disk.unlink(&file.path).unwrap_or_default();
            return Err(failed(error));
        }
        self.index().segments.add(file, Use::Spare, header.generation);
        self.counters.segments_made.add_one();
        Ok(())
    }

    /// The header of a segment that holds nothing.
    fn header_of_spare(&self) -> SegmentHeader {
        SegmentHeader {
            in_use: false,
            generation: self.new_generation(),
            highest_id: self.index().highest,
            previous: 0,
            previous_end: 0,
            void_batch: 0,
            last_batch: 0,
        }
    }

    /// Voids a segment in which nothing is needed any more, so that it can be written again.
    fn recycle_one(&self) -> bool {
        let (file, spares) = {
            let mut index = self.index();
            let sealed: Vec<u32> = index
                .segments
                .iter()
                .filter(|s| s.usage == Use::Sealed)
                .map(|s| s.file.number)
                .collect();
            let free = sealed.into_iter().find(|number| index.segments.is_free(*number));
            let Some(segment) = free.and_then(|number| index.segments.get_mut(number)) else {
                return false;
            };
            segment.usage = Use::Changing;
            (Arc::clone(&segment.file), index.segments.count(Use::Spare))
        };
        let header = self.header_of_spare();
        let written = file.write_header(&header);
        let mut index = self.index();
        if let Err(error) = written {
            // Which header stands is unknown, so nothing that depends on it may be forgotten.
            index.segments.set_use(file.number, Use::Sealed);
            drop(index);
            self.report_failure(&CommitError::from_io(&file.path, error));
            return false;
        }
        index.segments.recycled(file.number, header.generation);
        self.counters.segments_recycled.add_one();
        // A segment of another size is of a time with other settings.
        if spares >= SPARES_MAX || file.len != self.settings.segment_size {
            index.segments.remove(file.number);
            drop(index);
            // If the file stays, the next start finds a spare segment.
            self.disk.unlink(&file.path).unwrap_or_default();
        }
        true
    }

    fn unlink_bodies(&self) {
        let unlinks = std::mem::take(&mut self.index().unlinks);
        for number in unlinks {
            // If a file stays, the next start finds it and no record that names it.
            self.disk.unlink(&large::path(self, number)).unwrap_or_default();
        }
    }

    /// Gives some messages the routes of a new table; returns whether there were any left.
    fn sort_some(&self) -> bool {
        let chunk: Vec<QueueId> = {
            let mut index = self.index();
            let Some(from) = index.unsorted else { return false };
            let chunk: Vec<QueueId> = index.ids_after(Some(from)).take(SORT_CHUNK).collect();
            index.unsorted = chunk.last().copied();
            chunk
        };
        for id in &chunk {
            self.sort_one(*id);
        }
        self.work.notify_one();
        !chunk.is_empty()
    }

    fn sort_one(&self, id: QueueId) {
        let mut index = self.index();
        index.actives.open_fresh(id);
        if index.actives.get(id).is_some() {
            index.relink_elsewhere(id);
            index.actives.close_if_idle(id);
            return;
        }
        let Some(location) = Location::of(&index, id) else { return };
        drop(index);
        let loaded = match location.load() {
            Ok(loaded) => loaded,
            Err(error) => {
                self.set_aside(id, &error);
                return;
            }
        };
        let mut index = self.index();
        if index.actives.get(id).is_some() {
            index.relink_elsewhere(id);
        } else if index.get(id).is_some_and(|slot| slot.version == loaded.version) {
            let active = &loaded.active;
            let plans =
                plan(&index.clock.past(), &index.table, &active.envelope, &active.state, |_| {
                    Seat::Free
                });
            index.relink(id, &plans, true);
        }
        // A message that changed in between was linked by the new table already.
    }

    /// Copies damaged octets to where people find them.
    pub(super) fn keep_damaged(&self, file: &SegmentFile, at: u64, len: u64) {
        self.index().damaged += 1;
        let line = self.journal.line(Level::Error, "log_damaged");
        line.word("file", file.path.display()).word("at", at).word("octets", len).send();
        let aside = self.settings.directory.join(super::open::DAMAGED);
        let copy = || -> std::io::Result<()> {
            let mut octets = vec![0; usize::try_from(len).map_err(std::io::Error::other)?];
            file.file.read_exact_at(&mut octets, at)?;
            self.disk.create_dir_all(&aside)?;
            let name = format!("segment-{:06}-{at}", file.number);
            let temporary = aside.join(format!(".{name}"));
            self.disk.replace(&aside.join(name), &temporary, &octets)
        };
        if let Err(error) = copy() {
            let line = self.journal.line(Level::Error, "damage_not_kept");
            line.word("file", file.path.display()).word("error", error).send();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use super::super::super::Change;
    use super::super::super::conformance::{draft, id, settings, start, surroundings};
    use super::super::commit::{NewMessage, Task};
    use super::super::committer::Progress;
    use super::super::faults::{Machine, ids, submit};
    use super::*;
    use crate::disk::{Disk, Fault, Modelled};

    #[test]
    fn a_disk_that_refuses_does_not_keep_the_keeper_busy() {
        let model = Arc::new(Modelled::new(1));
        let settings = settings(Path::new("/spool/Queue"));
        let disk = Disk::Modelled(Arc::clone(&model));
        let log = Log::open(disk, settings, surroundings()).unwrap();
        while log.keep_step() != Kept::Idle {}
        for number in 0..12 {
            let draft = draft(&["a@x.example"], start(), &[b'x'; 14_000]);
            let message =
                NewMessage::new(id(number), draft, &log.clock.past(), log.table.load_full())
                    .unwrap();
            let _accepted = log.gather.submit(Task::Accept(message)).unwrap();
            log.commit_step();
            let removal = Task::Change { id: id(number), change: Change::Remove, pinned: false };
            let _removed = log.gather.submit(removal).unwrap();
            log.commit_step();
        }
        let is_free = |log: &Log| {
            let index = log.index();
            let mut sealed = index.segments.iter().filter(|s| s.usage == Use::Sealed);
            sealed.any(|segment| index.segments.is_free(segment.file.number))
        };
        assert!(is_free(&log), "there is a segment to recycle");
        for operation in 1..100 {
            model.plan(operation, Fault::Error(io::ErrorKind::Other));
        }
        *log.bell.rung.lock().unwrap() = false;
        assert_eq!(log.keep_step(), Kept::Idle);
        assert!(!*log.bell.rung.lock().unwrap(), "it would not rest");

        model.plan_nothing();
        while log.keep_step() != Kept::Idle {}
        assert!(!is_free(&log), "the segment is recycled once the disk is well");
    }

    #[test]
    fn a_removal_stands_as_long_as_a_copy_of_its_message_does() {
        let machine = Machine::new();
        let log = machine.open();
        let remove = |number: u64| {
            let change = Change::Remove;
            let task = Task::Change { id: id(number), change, pinned: false };
            let mut answer = log.gather.submit(task).unwrap();
            log.commit_step();
            answer.try_recv().unwrap().unwrap();
        };
        submit(&log, 1, b"stays, and its segment with it").unwrap();
        submit(&log, 2, b"goes").unwrap();
        let mut number = 2;
        for sealed in 1..=3 {
            while log.index().segments.count(Use::Sealed) < sealed {
                number += 1;
                submit(&log, number, &[b'x'; 9000]).unwrap();
                remove(number);
            }
            if sealed == 1 {
                remove(2);
            }
        }
        // What keeps it from being found again is in a segment in which nothing is alive.
        while log.recycle_one() {}
        assert_eq!(ids(&machine.restart(Arc::clone(&log))), [id(1)]);
    }

    #[test]
    fn beside_a_long_queue_segments_are_emptied_rather_than_made() {
        let log = Machine::new().open();
        let keep = || while log.keep_step() != Kept::Idle || log.commit_step() != Progress::Idle {};
        let mut number = 0;
        let mut send = || {
            number += 1;
            submit(&log, number, &[b'x'; 9000]).unwrap();
            keep();
            number
        };
        while log.index().segments.count(Use::Sealed) < 12 {
            send();
        }
        let segments = || log.index().segments.iter().count();
        let before = segments();
        for _ in 0..200 {
            // Later than the next ones come, so that removals stand in the segment behind.
            let (id, change) = (id(send() - 3), Change::Remove);
            let task = Task::Change { id, change, pinned: false };
            let _removed = log.gather.submit(task).unwrap();
            log.commit_step();
        }
        keep();
        assert!(segments() <= before + 1, "{before} have become {}", segments());
    }

    #[test]
    fn spare_segments_that_were_found_are_given_back() {
        let log = Machine::new().open();
        for _ in 0..5 {
            log.make_spare().unwrap();
        }
        while log.keep_step() != Kept::Idle {}
        assert_eq!(log.index().segments.count(Use::Spare), SPARES_MAX);
    }
}
