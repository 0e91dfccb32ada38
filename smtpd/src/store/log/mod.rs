//! The store on disk: a log of segments and an index in memory.
//!
//! Mail is written once, in order. A message, every change of its state and its end are records
//! ([`record`]) in segments ([`segment`]); what gathers while one batch is synced is the next batch
//! ([`commit`], [`committer`]). The index ([`index`], [`routes`], [`segments`]) says what is alive,
//! where, and when it is due. At start the segments are read ([`recover`], [`scan`]) while new mail
//! is taken already; a thread in the background ([`keeper`], [`compact`]) prepares, empties and
//! recycles segments.
//!
//! Lock order: keeper, committer, index, gather; the slots of [`sending`] and the trouble are leaves. No
//! lock is held across a wait, the index not across disk.

mod active;
mod apply;
mod change;
#[cfg(test)]
mod clock;
mod commit;
mod committer;
mod compact;
mod deadlines;
mod due;
#[cfg(test)]
mod faults;
mod index;
mod keeper;
mod large;
mod lease;
mod link;
#[cfg(test)]
mod liveness;
mod oldest;
mod open;
mod pick;
mod plan;
mod read;
mod record;
mod recover;
mod relink;
mod routes;
mod scan;
mod segment;
mod segments;
mod sending;
#[cfg(test)]
mod simulation;
mod sizes;
mod standing;
mod times;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use mailroot_common::id::QueueId;
use mailroot_common::units::ByteSize;
use smtpd_core::route::table::Table;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use self::commit::{Gather, NewMessage, Task};
use self::committer::{Committer, Progress};
use self::index::Index;
use self::keeper::{Keeper, Kept};
use self::sending::Sending;
use super::guard::AbortOnUnwind;
use super::{Body, CommitError, Counts, Draft, Unready};
use crate::clock::Clock;
use crate::disk::{Disk, File};
use crate::observe::{Counters, Level, Log as Journal};

pub(super) use self::change::Opened;
pub(super) use self::large::{
    Finished as LargeFile, Reader as LargeReader, Writer as LargeFileWriter,
};
pub use self::open::{OpenError, Surroundings};

/// What a store on disk is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `Queue` directory.
    pub directory: PathBuf,
    /// Octets of one segment: [`Settings::SEGMENT_SIZE`], less in tests.
    pub segment_size: u64,
    /// New mail is refused while the disk has less room than this, until another figure is told.
    pub min_free: ByteSize,
    /// Who opens the store, for whoever finds it locked: such as `smtpd, server default`.
    pub holder: String,
}

impl Settings {
    /// The size of a segment unless somebody knows better.
    pub const SEGMENT_SIZE: u64 = 64 << 20;
    /// The smallest size that works: a few records.
    pub const SEGMENT_SIZE_MIN: u64 = 64 << 10;
}

/// The store on disk.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    disk: Disk,
    journal: Journal,
    counters: Arc<Counters>,
    work: Arc<Notify>,
    clock: Clock,
    table: ArcSwap<Table>,
    gather: Gather,
    committer: Mutex<Committer>,
    index: Mutex<Index>,
    keeper: Mutex<Keeper>,
    sending: Sending,
    recovered: watch::Sender<bool>,
    /// The number of the next header, the upper half of its generation.
    uses: AtomicU64,
    /// The number the next file of a large body gets.
    large: AtomicU64,
    /// Octets free on the disk when it was last looked.
    free: AtomicU64,
    /// Octets that must stay free, as the configuration has it by now.
    floor: AtomicU64,
    /// Why the disk refused the last batch, if it did.
    trouble: Mutex<Option<Unready>>,
    bell: Bell,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held open for its lock, until the store is closed.
    lock: Mutex<Option<File>>,
}

/// Wakes the keeper.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    /// Waits until it rings, at most `patience`.
    fn wait(&self, patience: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.heard.wait_timeout_while(rung, patience, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

/// How long the committer waits before it tries a disk again that refused.
const TROUBLE_PAUSE: Duration = Duration::from_millis(100);
/// How long compaction rests after each 256 KiB, unless the log takes more than it may.
const COPY_PAUSE: Duration = Duration::from_millis(8);
/// How often the keeper looks around when nothing wakes it.
const KEEPER_PAUSE: Duration = Duration::from_millis(500);

impl Log {
    /// Runs the committer and the keeper on threads of their own.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        let (committing, keeping) = (Arc::clone(self), Arc::clone(self));
        let committer = std::thread::Builder::new().name("store-commit".into());
        let keeper = std::thread::Builder::new().name("store-keep".into());
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.push(committer.spawn(move || committing.run_committer())?);
        threads.push(keeper.spawn(move || keeping.run_keeper())?);
        Ok(())
    }

    fn run_committer(&self) {
        let _guard = AbortOnUnwind;
        while self.gather.wait() {
            if self.commit_step() == Progress::Failed {
                if self.gather.is_closed() {
                    // The disk refuses even now; what could not be recorded is tried again after
                    // the next start.
                    break;
                }
                self.gather.rest(TROUBLE_PAUSE);
            }
        }
        for left in self.gather.take(u64::MAX) {
            left.answer(Err(CommitError::Closed));
        }
    }

    fn run_keeper(&self) {
        let _guard = AbortOnUnwind;
        while !self.gather.is_closed() {
            match self.keep_step() {
                Kept::Idle => self.bell.wait(KEEPER_PAUSE),
                Kept::Done => {}
                Kept::Copied if self.is_overfull() => {}
                Kept::Copied => self.gather.rest(COPY_PAUSE),
            }
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(|_| abort_poisoned())
    }

    fn committer(&self) -> MutexGuard<'_, Committer> {
        self.committer.lock().unwrap_or_else(|_| abort_poisoned())
    }

    fn wake_keeper(&self) {
        self.bell.ring();
    }

    /// A generation above all others that nobody can guess.
    ///
    /// After damage, reading goes on at the next record that verifies, and that may be in the
    /// middle of a body. A stranger who knew the generation could send a body that holds records.
    fn new_generation(&self) -> u64 {
        (self.uses.fetch_add(1, Ordering::Relaxed) << 32) | (self.clock.random() >> 32)
    }

    fn new_large_number(&self) -> u64 {
        self.large.fetch_add(1, Ordering::Relaxed)
    }

    fn report_failure(&self, error: &CommitError) {
        // Once per trouble, not once per message.
        if self.trouble().replace(error.into()).is_none() {
            self.journal.line(Level::Error, "store_failed").word("error", error).send();
        }
    }

    /// Has new mail refused while the disk has less room than this.
    pub(super) fn set_min_free(&self, floor: ByteSize) {
        self.floor.store(floor.as_u64(), Ordering::Relaxed);
    }

    fn min_free(&self) -> ByteSize {
        ByteSize::bytes(self.floor.load(Ordering::Relaxed))
    }

    pub(super) fn free(&self) -> ByteSize {
        ByteSize::bytes(self.free.load(Ordering::Relaxed))
    }

    /// A look before new mail comes: it need not be sent in vain.
    pub(super) fn ready(&self) -> Result<(), Unready> {
        self.check_room().map_err(|error| Unready::from(&error))?;
        self.trouble().map_or(Ok(()), Err)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Unready>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_room(&self) -> Result<(), CommitError> {
        let (free, floor) = (self.free(), self.min_free());
        if free < floor {
            return Err(CommitError::Low { path: self.settings.directory.clone(), free, floor });
        }
        Ok(())
    }

    /// The largest body that is kept in a record.
    const fn inline_max(&self) -> u64 {
        let quarter = self.settings.segment_size / 4;
        let usual = Body::MEMORY_MAX as u64;
        if quarter < usual { quarter } else { usual }
    }

    pub(super) async fn commit(
        self: &Arc<Self>,
        id: QueueId,
        draft: Draft,
    ) -> Result<(), CommitError> {
        self.check_room()?;
        let message = self.prepare(id, draft).await?;
        if self.index().contains(id) {
            return Err(CommitError::Duplicate { id });
        }
        let answer = self.gather.submit(Task::Accept(message))?;
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// Gets a message ready for the committer: writes a body out that is too large for a record.
    async fn prepare(
        self: &Arc<Self>,
        id: QueueId,
        mut draft: Draft,
    ) -> Result<NewMessage, CommitError> {
        if let Body::Memory(octets) = &draft.body
            && octets.len() as u64 > self.inline_max()
        {
            let mut writer = super::LargeBodyWriter::file(Arc::clone(self)).await?;
            writer.append(octets).await?;
            draft.body = Body::File(writer.finish().await?);
        }
        let message = NewMessage::new(id, draft, &self.clock.past(), self.table.load_full());
        let message = message.ok_or(CommitError::Foreign { id })?;
        let limit = self.settings.segment_size - segment::FIRST;
        match message.cost().max(message.state_cost_max()) {
            octets if octets > limit => Err(CommitError::TooLarge { octets, limit }),
            _ => Ok(message),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let index = self.index();
        Counts {
            messages: index.len() as u64,
            octets: index.octets,
            held: index.held,
            tried: index.tried,
            oldest: index.oldest(),
            active: index.actives.leased(),
            damaged: index.damaged,
            recovering: !index.recovered || index.unsorted.is_some(),
        }
    }

    pub(super) fn highest_id(&self) -> QueueId {
        self.index().highest
    }

    pub(super) fn set_table(&self, table: Arc<Table>) {
        self.table.store(Arc::clone(&table));
        let mut index = self.index();
        index.table = table;
        index.unsorted = Some(QueueId::from_u64(0));
        drop(index);
        self.wake_keeper();
    }

    /// Waits until everything stored before the start was read.
    pub(super) async fn wait_recovered(&self) {
        let mut told = self.recovered.subscribe();
        let done = told.wait_for(|done| *done).await;
        debug_assert!(done.is_ok(), "the sender lives as long as the store does");
    }

    /// Does everything that the store's threads would do by now, for a test that has no threads;
    /// says whether the disk still has power.
    #[cfg(test)]
    pub(crate) fn step(&self) -> bool {
        let mut idle = 0;
        while idle < 2 && self.disk.is_on() {
            let at_rest = self.commit_step() == Progress::Idle && self.keep_step() == Kept::Idle;
            idle = if at_rest { idle + 1 } else { 0 };
        }
        self.disk.is_on()
    }

    /// Waits for the next submission, for at most as long as a keeper of old would.
    #[cfg(test)]
    pub(crate) async fn submitted(&self) {
        // What it comes to does not matter: either way it is time to look.
        let _told =
            tokio::time::timeout(Duration::from_secs(600), self.gather.told.notified()).await;
    }

    pub(super) fn is_alive(&self) -> bool {
        drop(self.index());
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        self.gather.is_closed() || threads.iter().all(|thread| !thread.is_finished())
    }

    /// Takes nothing more, and lets the threads end when everything handed in is written.
    pub(super) fn shut(&self) {
        self.gather.close();
        self.bell.ring();
    }

    pub(super) async fn close(self: &Arc<Self>) {
        self.shut();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = spawn_blocking(move || {
            for thread in threads {
                // A panic in one of them has ended the process already.
                thread.join().unwrap_or_default();
            }
        });
        joined.await.unwrap_or_default();
        // Nobody writes any more, though somebody may still hold the store.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The index of a store that panicked cannot be trusted: the process ends and recovery makes a
/// new one.
fn abort_poisoned() -> ! {
    std::process::abort()
}
