//! What is handed to the committer, and the place where it gathers.
//!
//! Whoever wants something durable hands a [`Submission`] in and waits for its answer. While one
//! batch is being synced the next one gathers here; the committer takes what there is and never
//! waits for more. Submissions that nobody waits for ride along, at the latest after 50 ms.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::MessageState;
use smtpd_core::route::table::Table;
use tokio::sync::oneshot;

use super::super::{Body, Change, Changes, CommitError, Draft};
use super::LargeFile;
use super::active::Seat;
use super::index::Place;
use super::plan::{Plan, plan};
use super::record::{Kind, frame_len};
use super::sending::Mark;
use crate::clock::Past;

/// How long an outcome that nobody waits for may stay in memory only.
const RIDE_MAX: Duration = Duration::from_millis(50);
/// What a state or removal record takes, about.
const STATE_COST: u64 = 512;

/// The content of a new message.
#[derive(Debug)]
pub(super) enum NewBody {
    /// In memory, with its checksum.
    Memory(Arc<Vec<u8>>, u32),
    /// In a file of its own.
    File(LargeFile),
}

/// A message that is to become mail, with everything prepared that the committer need not do.
#[derive(Debug)]
pub(super) struct NewMessage {
    pub(super) id: QueueId,
    pub(super) envelope: Arc<Envelope>,
    pub(super) meta: Vec<u8>,
    pub(super) meta_crc: u32,
    pub(super) body: NewBody,
    pub(super) size: u64,
    /// Its links, by the table they were made with.
    pub(super) plans: Vec<Plan>,
    pub(super) table: Arc<Table>,
}

impl NewMessage {
    /// Prepares a draft; nothing if its body is in another store's file.
    pub(super) fn new(id: QueueId, draft: Draft, past: &Past, table: Arc<Table>) -> Option<Self> {
        let size = draft.body.size();
        let meta = serde_json::to_vec(&draft.envelope).expect("an envelope has a form in JSON");
        let body = match draft.body {
            Body::Memory(octets) => {
                let crc = crc32c::crc32c(&octets);
                NewBody::Memory(Arc::new(octets), crc)
            }
            Body::File(large) => NewBody::File(large.into_file()?),
        };
        let envelope = Arc::new(draft.envelope);
        let state = MessageState::fresh(&envelope);
        let plans = plan(past, &table, &envelope, &state, |_| Seat::Free);
        let meta_crc = crc32c::crc32c(&meta);
        Some(Self { id, envelope, meta, meta_crc, body, size, plans, table })
    }

    /// The most octets the states of its recipients may come to, without the words of hosts.
    pub(super) fn state_cost_max(&self) -> u64 {
        2 * STATE_COST * self.envelope.recipients.len() as u64
    }

    /// Octets of its record.
    pub(super) fn cost(&self) -> u64 {
        let body = match &self.body {
            NewBody::Memory(octets, _) => octets.len(),
            NewBody::File(file) => file.checksums.len(),
        };
        frame_len(self.meta.len() as u64, body as u64)
    }
}

/// A record that compaction moves.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) id: QueueId,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) version: u32,
    pub(super) size: u64,
    pub(super) from: Place,
    pub(super) meta: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// Something to be made durable, whole or not at all.
#[derive(Debug)]
pub(super) enum Task {
    /// A new message.
    Accept(NewMessage),
    /// What became of leased recipients, and the reports that causes; `mark` is the slot of the mark
    /// that ends with it.
    Settle {
        id: QueueId,
        places: Vec<usize>,
        changes: Changes,
        reports: Vec<NewMessage>,
        mark: Option<u32>,
    },
    /// A mark found at the start; its message is open, pinned for this.
    Doubt(Mark),
    /// An operator's wish. The message is open, unless the wish is to remove it. `pinned` if it is
    /// kept open only until this is done.
    Change { id: QueueId, change: Change, pinned: bool },
    /// Records that compaction moves.
    Copy(Vec<Copied>),
}

/// A task and who waits for it.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) task: Task,
    pub(super) answer: Option<oneshot::Sender<Result<(), CommitError>>>,
}

impl Submission {
    /// Octets its records take, about.
    pub(super) fn cost(&self) -> u64 {
        match &self.task {
            Task::Accept(message) => message.cost(),
            Task::Settle { places, reports, .. } => {
                STATE_COST * (places.len() as u64 + 1)
                    + reports.iter().map(NewMessage::cost).sum::<u64>()
            }
            Task::Change { .. } | Task::Doubt(_) => STATE_COST,
            Task::Copy(records) => records.iter().map(|record| record.from.len()).sum(),
        }
    }

    /// Whether it brings mail from outside, which may not use the reserve.
    pub(super) const fn is_ordinary(&self) -> bool {
        matches!(self.task, Task::Accept(_))
    }

    pub(super) fn answer(self, answer: Result<(), CommitError>) {
        if let Some(sender) = self.answer {
            // Who does not wait any more need not be told.
            sender.send(answer).unwrap_or_default();
        }
    }
}

/// Where submissions gather.
#[derive(Debug, Default)]
pub(super) struct Gather {
    queue: Mutex<Gathered>,
    arrived: Condvar,
    closing: Condvar,
    /// Told of each submission, for a test that drives the committer itself.
    #[cfg(test)]
    pub(super) told: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Gathered {
    waiting: VecDeque<Submission>,
    /// Somebody waits for an answer.
    urgent: bool,
    /// Since when the oldest submission without a waiter is here.
    since: Option<Instant>,
    closed: bool,
}

impl Gather {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a task in; returns where its answer will come.
    pub(super) fn submit(
        &self,
        task: Task,
    ) -> Result<oneshot::Receiver<Result<(), CommitError>>, CommitError> {
        let (sender, receiver) = oneshot::channel();
        let mut gathered = self.lock();
        if gathered.closed {
            return Err(CommitError::Closed);
        }
        gathered.waiting.push_back(Submission { task, answer: Some(sender) });
        #[cfg(test)]
        self.told.notify_one();
        let first = !std::mem::replace(&mut gathered.urgent, true);
        drop(gathered);
        if first {
            self.arrived.notify_one();
        }
        Ok(receiver)
    }

    /// Hands a task in that nobody waits for. A closed store forgets it.
    pub(super) fn ride(&self, task: Task) {
        let mut gathered = self.lock();
        if gathered.closed {
            return;
        }
        gathered.waiting.push_back(Submission { task, answer: None });
        #[cfg(test)]
        self.told.notify_one();
        let first = gathered.since.is_none();
        gathered.since.get_or_insert_with(Instant::now);
        drop(gathered);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Takes submissions of up to `max` octets, at least one if there is any.
    pub(super) fn take(&self, max: u64) -> Vec<Submission> {
        let mut gathered = self.lock();
        let (mut taken, mut octets) = (Vec::with_capacity(gathered.waiting.len()), 0);
        while let Some(next) = gathered.waiting.front() {
            octets += next.cost();
            if octets > max && !taken.is_empty() {
                break;
            }
            taken.extend(gathered.waiting.pop_front());
        }
        if gathered.waiting.is_empty() {
            gathered.urgent = false;
            gathered.since = None;
        }
        taken
    }

    /// Puts submissions back to the front, in their order.
    pub(super) fn put_back(&self, submissions: Vec<Submission>) {
        let mut gathered = self.lock();
        for submission in submissions.into_iter().rev() {
            gathered.urgent |= submission.answer.is_some();
            gathered.since.get_or_insert_with(Instant::now);
            gathered.waiting.push_front(submission);
        }
    }

    /// Takes all that somebody waits for, but outcomes.
    pub(super) fn take_awaited(&self) -> VecDeque<Submission> {
        let mut gathered = self.lock();
        let is_awaited =
            |one: &Submission| one.answer.is_some() && !matches!(one.task, Task::Settle { .. });
        let (awaited, left) =
            std::mem::take(&mut gathered.waiting).into_iter().partition(is_awaited);
        gathered.waiting = left;
        awaited
    }

    /// Waits until there is a batch to write. Returns false when the store is closed and nothing
    /// is left.
    pub(super) fn wait(&self) -> bool {
        let mut gathered = self.lock();
        loop {
            if gathered.urgent || (gathered.closed && !gathered.waiting.is_empty()) {
                return true;
            }
            if gathered.closed {
                return false;
            }
            let patience = gathered.since.map(|since| RIDE_MAX.saturating_sub(since.elapsed()));
            gathered = match patience {
                Some(Duration::ZERO) => return true,
                Some(patience) => {
                    let woken = self.arrived.wait_timeout(gathered, patience);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.arrived.wait(gathered).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Lets a thread of the store rest; the closing of the store ends the rest.
    pub(super) fn rest(&self, span: Duration) {
        let rested = self.closing.wait_timeout_while(self.lock(), span, |state| !state.closed);
        drop(rested.unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.closing.notify_all();
        self.arrived.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}
