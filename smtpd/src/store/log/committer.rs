//! The committer: one batch, one write, one sync, then everybody is answered.
//!
//! [`Log::commit_step`] is a step function: in production a thread of the store drives it, a
//! simulation drives it directly. It takes what has gathered, decides for each task which records
//! it means, writes them as one numbered batch and syncs once. Only then the index changes and the
//! answers go out. If the write or the sync fails the batch is void, nothing of it happened, and
//! the segment is never appended to again: the header of the next one says where it ended. The
//! failed sync is not repeated, because the second one may say yes without having written.
//!
//! What became of deliveries is not forgotten when it cannot be written: it goes into the next
//! batch, until the disk takes it. Its recipients stay leased so long.

use std::collections::HashMap;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use smtpd_core::queue::recipient::MessageState;

use super::super::{Change, CommitError};
use super::Log;
use super::commit::{Copied, NewBody, NewMessage, Submission, Task};
use super::index::{Index, Place};
use super::record::{Batch, IN_FILE, Kind, Label, Part};
use super::segment::{FIRST, SegmentFile, SegmentHeader};
use super::segments::Use;
use super::sending::{Ends, Mark};

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There was nothing to do.
    Idle,
    /// A batch was written, or was found to need no writing.
    Done,
    /// A batch could not be written.
    Failed,
}

/// What the committer remembers from batch to batch.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) open: Option<OpenSegment>,
    pub(super) previous: Previous,
    pub(super) last_batch: u64,
    batch: Batch,
}

/// The segment that records are appended to.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) file: Arc<SegmentFile>,
    pub(super) generation: u64,
    pub(super) at: u64,
}

/// How the segment before ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Previous {
    pub(super) generation: u64,
    pub(super) end: u64,
    pub(super) void_batch: u64,
}

/// A record that a submission means.
pub(super) enum Record {
    /// The message of an Accept, or the n-th report of a Settle.
    Message(usize),
    State(MessageState, u32),
    Removed(u32),
    /// The n-th record of a Copy.
    Copied(usize),
}

/// A record, the submission that means it, and where it is in the batch.
struct Meant {
    submission: usize,
    record: Record,
    at: u64,
    len: u64,
}

/// Where a message stands after the tasks of this batch so far.
enum Staged {
    State(MessageState, u32),
    Removed,
}

impl Committer {
    pub(super) fn new(previous: Previous, last_batch: u64) -> Self {
        Self { open: None, previous, last_batch, batch: Batch::default() }
    }
}

impl Log {
    /// Writes one batch of what has gathered.
    pub(super) fn commit_step(&self) -> Progress {
        let submissions = self.gather.take(self.batch_max());
        if submissions.is_empty() {
            return Progress::Idle;
        }
        self.commit_batch(&mut self.committer(), submissions)
    }

    /// Writes submissions as one batch, or in parts if they do not go together.
    fn commit_batch(&self, committer: &mut Committer, submissions: Vec<Submission>) -> Progress {
        let meant = self.resolve(&submissions);
        let (first, second) = match self.write(committer, &submissions, meant) {
            Ok((meant, segment, base)) => {
                self.apply(submissions, meant, segment, base);
                return Progress::Done;
            }
            Err(Failure::Commit(error)) => {
                self.fail(submissions, &error);
                return Progress::Failed;
            }
            Err(Failure::TooLong) => {
                let mut first = submissions;
                let second = first.split_off(first.len().div_ceil(2));
                (first, second)
            }
            Err(Failure::Reserve) => {
                submissions.into_iter().partition(|submission| !submission.is_ordinary())
            }
        };
        let parts = [first, second].map(|part| self.commit_batch(committer, part));
        if parts.contains(&Progress::Failed) { Progress::Failed } else { Progress::Done }
    }

    /// The most octets taken for one batch: enough to make a sync worth it, no more than fits.
    const fn batch_max(&self) -> u64 {
        let room = (self.settings.segment_size - FIRST) / 2;
        if room < (4 << 20) { room } else { 4 << 20 }
    }

    /// The most octets of remote hosts' words in one state, so that it fits into a segment however
    /// they are written.
    fn words_max(&self) -> usize {
        let octets = (self.settings.segment_size - FIRST) / 4;
        usize::try_from(octets).expect("a segment fits into memory")
    }

    /// Decides which records the tasks mean, as things stand.
    fn resolve(&self, submissions: &[Submission]) -> Vec<Meant> {
        let index = self.index();
        let known = (&*index, self.words_max());
        let mut staged: HashMap<QueueId, Staged> = HashMap::new();
        let mut meant = Vec::with_capacity(submissions.len());
        for (submission, Submission { task, .. }) in submissions.iter().enumerate() {
            let mut mean = |record| meant.push(Meant { submission, record, at: 0, len: 0 });
            match task {
                Task::Accept(_) => mean(Record::Message(0)),
                Task::Settle { id, changes, reports, .. } => {
                    let found = next_state(known, &mut staged, *id, |state| {
                        for (place, status) in changes {
                            if let Some(one) = state.recipients.get_mut(*place) {
                                one.clone_from(status);
                            }
                        }
                    });
                    if let Some(record) = found {
                        if !changes.is_empty() {
                            mean(record);
                        }
                        (0..reports.len()).for_each(|report| mean(Record::Message(report)));
                    }
                }
                Task::Doubt(mark) => {
                    let now = self.clock.now();
                    let found = next_state(known, &mut staged, mark.id, |state| {
                        mark.doubt(state, now);
                    });
                    found.into_iter().for_each(mean);
                }
                Task::Change { id, change, .. } => {
                    let found = match change {
                        Change::Remove => removal(&index, &mut staged, *id),
                        change => next_state(known, &mut staged, *id, |state| wish(state, change)),
                    };
                    found.into_iter().for_each(mean);
                }
                Task::Copy(records) => {
                    let counts = |record: &Copied| match record.kind {
                        Kind::Message => index.get(record.id).map(|slot| slot.record),
                        Kind::State => index.get(record.id).map(|slot| slot.state),
                        Kind::Removed => {
                            let needed = index.segments.is_grave(record.id, record.from.segment);
                            needed.then_some(record.from)
                        }
                    };
                    for (place, record) in records.iter().enumerate() {
                        if counts(record) == Some(record.from) {
                            mean(Record::Copied(place));
                        }
                    }
                }
            }
        }
        meant
    }

    /// Writes and syncs the records; returns them with their places, the segment and where the
    /// batch begins in it.
    fn write(
        &self,
        committer: &mut Committer,
        submissions: &[Submission],
        mut meant: Vec<Meant>,
    ) -> Result<(Vec<Meant>, u32, u64), Failure> {
        committer.batch.clear();
        for meant in &mut meant {
            encode(&mut committer.batch, submissions, meant);
        }
        if committer.batch.is_empty() {
            return Ok((meant, 0, 0));
        }
        let (len, capacity) = (committer.batch.len(), self.settings.segment_size - FIRST);
        if len > capacity {
            return Err(if submissions.len() > 1 {
                Failure::TooLong
            } else {
                Failure::Commit(CommitError::TooLarge { octets: len, limit: capacity })
            });
        }
        self.make_room(committer, submissions, len)?;
        let open = committer.open.as_mut().expect("a segment was just opened");
        let number = committer.last_batch + 1;
        committer.last_batch = number;
        let octets = committer.batch.stamp(open.generation, number);
        let written = open.file.file.write_all_at(octets, open.at);
        if let Err(error) = written.and_then(|()| open.file.file.sync_data()) {
            let error = CommitError::from_io(&open.file.path, error);
            self.abandon(committer, number);
            return Err(Failure::Commit(error));
        }
        self.counters.store_batches.add_one();
        let base = open.at;
        open.at += len;
        Ok((meant, open.file.number, base))
    }

    /// Makes sure that a batch has a segment to go to. With new mail in it one more stays spare for
    /// outcomes, removals and compaction: without it a full disk could never be emptied again.
    fn make_room(
        &self,
        committer: &mut Committer,
        submissions: &[Submission],
        len: u64,
    ) -> Result<(), Failure> {
        let ordinary = submissions.iter().any(Submission::is_ordinary);
        let fits =
            committer.open.as_ref().is_some_and(|open| open.at + len <= self.settings.segment_size);
        let made = if !fits {
            self.next_segment(committer, ordinary)
        } else if ordinary && self.index().segments.count(Use::Spare) == 0 {
            self.make_spare()
        } else {
            Ok(())
        };
        match made {
            Err(_) if ordinary && !submissions.iter().all(Submission::is_ordinary) => {
                Err(Failure::Reserve)
            }
            made => made.map_err(Failure::Commit),
        }
    }

    /// Stops appending to the open segment, whose last batch is void.
    fn abandon(&self, committer: &mut Committer, void_batch: u64) {
        if let Some(open) = committer.open.take() {
            let OpenSegment { file, generation, at } = open;
            committer.previous = Previous { generation, end: at, void_batch };
            self.index().segments.seal(file.number, at);
        }
        self.wake_keeper();
    }

    /// Opens the next segment: its header says, durably, how the one before ended.
    pub(super) fn next_segment(
        &self,
        committer: &mut Committer,
        ordinary: bool,
    ) -> Result<(), CommitError> {
        let spares = self.index().segments.count(Use::Spare);
        // New mail leaves one spare segment for outcomes, removals and compaction.
        if spares < if ordinary { 2 } else { 1 } {
            self.make_spare()?;
        }
        if let Some(open) = committer.open.take() {
            let OpenSegment { file, generation, at } = open;
            committer.previous = Previous { generation, end: at, void_batch: 0 };
            self.index().segments.seal(file.number, at);
        }
        let (file, highest_id) = {
            let mut index = self.index();
            let number = index.segments.find(Use::Spare).ok_or(CommitError::Closed)?;
            index.segments.set_use(number, Use::Changing);
            let segment = index.segments.get(number).expect("it was found just now");
            (Arc::clone(&segment.file), index.highest)
        };
        let generation = self.new_generation();
        let Previous { generation: previous, end: previous_end, void_batch } = committer.previous;
        let header = SegmentHeader {
            in_use: true,
            generation,
            highest_id,
            previous,
            previous_end,
            void_batch,
            last_batch: committer.last_batch,
        };
        let written = file.write_header(&header);
        let mut index = self.index();
        let guards = (void_batch != 0 && written.is_ok()).then_some(previous);
        index.segments.begin(file.number, generation, guards);
        if let Err(error) = written {
            // Which header stands is unknown; nothing follows it, so the keeper can void it. The
            // next header says again what this one would have said.
            index.segments.seal(file.number, FIRST);
            return Err(CommitError::from_io(&file.path, error));
        }
        drop(index);
        committer.open = Some(OpenSegment { file, generation, at: FIRST });
        self.wake_keeper();
        Ok(())
    }

    /// Changes the index as a durable batch says, and answers.
    fn apply(&self, submissions: Vec<Submission>, meant: Vec<Meant>, segment: u32, base: u64) {
        let mut answers = Vec::with_capacity(submissions.len());
        let mut ends = Ends::default();
        let copied = submissions.iter().any(|it| matches!(it.task, Task::Copy(_)));
        let mut meant = meant.into_iter().peekable();
        let mut index = self.index();
        for (number, Submission { task, answer }) in submissions.into_iter().enumerate() {
            let mine = std::iter::from_fn(|| meant.next_if(|meant| meant.submission == number));
            let places =
                mine.map(|meant| (meant.record, Place::new(segment, base + meant.at, meant.len)));
            ends.note(&task);
            index.apply(task, places);
            answers.extend(answer);
        }
        let unlinks = !index.unlinks.is_empty();
        ends.keep_gone(|id| !index.contains(id));
        drop(index);
        self.end_marks(&ends);
        self.work.notify_one();
        if unlinks || ends.has_doubts() {
            self.wake_keeper();
        }
        for answer in answers {
            // Who does not wait any more need not be told.
            answer.send(Ok(())).unwrap_or_default();
        }
        if copied {
            // It waits for this answer without being woken by it.
            self.wake_keeper();
        }
    }

    /// Tells everybody that the batch is void; outcomes are kept for the next one.
    fn fail(&self, submissions: Vec<Submission>, error: &CommitError) {
        let lasting = matches!(error, CommitError::TooLarge { .. });
        let mut again = Vec::new();
        for submission in submissions {
            match &submission.task {
                Task::Settle { .. } | Task::Doubt(_) if !lasting => again.push(submission),
                Task::Settle { id, places, .. } => {
                    self.give_back(*id, places.iter().copied());
                    submission.answer(Err(error.clone()));
                }
                Task::Change { id, pinned: true, .. } => self.index().actives.unpin(*id),
                Task::Doubt(mark) => self.index().end_doubt(mark),
                _ => submission.answer(Err(error.clone())),
            }
        }
        self.gather.put_back(again);
        if !lasting {
            // They would stand behind outcomes that are tried again until the disk takes them.
            for submission in self.gather.take_awaited() {
                submission.answer(Err(error.clone()));
            }
        }
        self.report_failure(error);
        self.wake_keeper();
    }
}

/// Why a batch was not written.
enum Failure {
    /// It fits into no segment; its halves may.
    TooLong,
    /// The reserve is for outcomes: they are to be tried without the new mail, and it without them.
    Reserve,
    /// The disk.
    Commit(CommitError),
}

fn encode(batch: &mut Batch, submissions: &[Submission], meant: &mut Meant) {
    let task = &submissions[meant.submission].task;
    let label = |kind, id, version| Label { kind, flags: 0, id, version, size: 0 };
    (meant.at, meant.len) = match (&meant.record, task) {
        (Record::Message(_), Task::Accept(message)) => push_message(batch, message),
        (Record::Message(report), Task::Settle { reports, .. }) => {
            push_message(batch, &reports[*report])
        }
        (
            Record::State(state, version),
            Task::Settle { id, .. } | Task::Change { id, .. } | Task::Doubt(Mark { id, .. }),
        ) => {
            let meta = serde_json::to_vec(state).expect("a state has a form in JSON");
            batch.push(label(Kind::State, *id, *version), Part::new(&meta), Part::EMPTY)
        }
        (
            Record::Removed(version),
            Task::Settle { id, .. } | Task::Change { id, .. } | Task::Doubt(Mark { id, .. }),
        ) => batch.push(label(Kind::Removed, *id, *version), Part::EMPTY, Part::EMPTY),
        (Record::Copied(place), Task::Copy(records)) => {
            let Copied { id, kind, flags, version, size, meta, body, .. } = &records[*place];
            let (id, kind, flags) = (*id, *kind, *flags);
            let label = Label { kind, flags, id, version: *version, size: *size };
            batch.push(label, Part::new(meta), Part::new(body))
        }
        _ => unreachable!("resolve() means only records of the task at hand"),
    };
}

fn push_message(batch: &mut Batch, message: &NewMessage) -> (u64, u64) {
    let (flags, body) = match &message.body {
        NewBody::Memory(octets, crc) => (0, Part { octets, crc: *crc }),
        NewBody::File(file) => (IN_FILE, Part::new(&file.checksums)),
    };
    let label =
        Label { kind: Kind::Message, flags, id: message.id, version: 0, size: message.size };
    batch.push(label, Part { octets: &message.meta, crc: message.meta_crc }, body)
}

/// The record for a message's next state: a snapshot, or its end if every recipient has reached
/// its own. Nothing if the message is gone.
fn next_state(
    (index, words_max): (&Index, usize),
    staged: &mut HashMap<QueueId, Staged>,
    id: QueueId,
    change: impl FnOnce(&mut MessageState),
) -> Option<Record> {
    let slot = index.get(id)?;
    let (mut state, version) = match staged.remove(&id) {
        Some(Staged::Removed) => {
            staged.insert(id, Staged::Removed);
            return None;
        }
        Some(Staged::State(state, version)) => (state, version + 1),
        None => (index.actives.get(id)?.state.clone(), slot.version + 1),
    };
    change(&mut state);
    state.cut_words(words_max);
    if state.is_done() {
        staged.insert(id, Staged::Removed);
        return Some(Record::Removed(version));
    }
    staged.insert(id, Staged::State(state.clone(), version));
    Some(Record::State(state, version))
}

/// What a state becomes by an operator's wish. The removal is none of a state.
fn wish(state: &mut MessageState, change: &Change) {
    match change {
        Change::Hold(hold) => state.hold = Some(hold.clone()),
        Change::Release => state.hold = None,
        Change::Retry(at) => {
            let awaiting = state.recipients.iter_mut();
            for status in awaiting.filter(|status| status.awaits_operator()) {
                status.next_attempt = *at;
            }
        }
        Change::Return(order) => state.returning = Some(order.clone()),
        Change::Redirect(host, at) => {
            state.via = Some(host.clone());
            let waiting = state.recipients.iter_mut().filter(|status| !status.phase.is_end());
            waiting.for_each(|status| status.next_attempt = *at);
        }
        Change::Remove => {}
    }
}

fn removal(index: &Index, staged: &mut HashMap<QueueId, Staged>, id: QueueId) -> Option<Record> {
    let version = match staged.insert(id, Staged::Removed) {
        Some(Staged::Removed) => return None,
        Some(Staged::State(_, version)) => version + 1,
        None => index.get(id)?.version + 1,
    };
    Some(Record::Removed(version))
}
