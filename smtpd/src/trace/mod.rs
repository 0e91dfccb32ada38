//! The record of what became of mail, on disk for a while.
//!
//! In: events from every room, as one buffer each. Out: stories of messages, for queries. Nobody
//! waits for the record: events gather in memory up to a bound, beyond it they are counted and
//! dropped; one thread packs them into blocks ([`writer`]), a directory holds the blocks by the hour
//! ([`files`]), and a query ([`ask`]) passes over most of them ([`read`], [`search`], [`parallel`]).
//! [`traffic`] tells who sent to whom lately.
//!
//! Nothing here is synced, and what gathered in the last seconds before SIGKILL or loss of power may
//! be missing: the queue keeps mail, this keeps its story.

mod ask;
mod files;
mod parallel;
mod read;
mod search;
mod traffic;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use mailroot_common::config::trace::Dialogues;
use mailroot_common::units::{ByteSize, Span};
use smtpd_core::trace::note::Note;
use tokio::sync::oneshot;

use self::files::Directory;
pub use self::search::{Search, SearchError};
pub use self::traffic::{Fact, Seen, Senders, Traffic};
use crate::clock::Clock;
use crate::observe::Log;

/// What may wait to be packed; beyond it events are counted and dropped, mail goes on.
const WAITING_OCTETS_MAX: usize = 8 << 20;
/// Octets that are packed without waiting for more.
const GATHERED_OCTETS: usize = 256 << 10;
/// How many refusals of one second are recorded: clients without end may be turned away, and must
/// not drive everything else out of the record.
const REFUSALS_PER_SECOND: u32 = 200;

/// What the operator decided about the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long it is kept.
    pub keep: Span,
    /// What it may take of the disk.
    pub max_size: ByteSize,
    /// Whether subjects are recorded.
    pub subjects: bool,
    /// Which dialogues are recorded.
    pub dialogues: Dialogues,
}

/// Why there is no record.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Its directory.
    #[error("cannot use the directory of the trace {}: {source}", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes the trace: {0}")]
    Thread(#[source] io::Error),
}

/// The handle to the record. Cheap to clone.
#[derive(Clone)]
pub struct Trace(Option<Arc<Inner>>);

struct Inner {
    directory: Directory,
    clock: Clock,
    log: Log,
    settings: ArcSwap<Settings>,
    subjects: AtomicBool,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    writer: Mutex<Option<JoinHandle<()>>>,
    tally: Arc<Tally>,
}

/// What happened to events since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    events: AtomicU64,
    dropped: AtomicU64,
    damaged: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    octets: Vec<u8>,
    events: u64,
    /// Who waits for everything up to now.
    asking: Vec<oneshot::Sender<Snapshot>>,
    /// Refusals of a second, and which second that is.
    refusals: (u64, u32),
    closing: bool,
}

impl Waiting {
    /// Whether the writer is to wait no longer.
    fn is_pressed(&self) -> bool {
        self.closing || !self.asking.is_empty() || self.octets.len() >= GATHERED_OCTETS
    }
}

/// The record at one moment: what lay on disk, and events that had not yet got there.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The files, the oldest first, with the octets that count.
    files: Vec<(PathBuf, u64)>,
    /// Events that gather.
    plain: Vec<u8>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace").field(&self.0.as_ref().map(|inner| &inner.directory)).finish()
    }
}

impl Trace {
    /// No record: everything is forgotten at once.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Opens the record in a directory, made if need be, and starts its thread.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn open(
        path: PathBuf,
        settings: Settings,
        clock: Clock,
        log: Log,
    ) -> Result<Self, TraceError> {
        let directory =
            Directory::prepare(&path).map_err(|source| TraceError::Directory { path, source })?;
        let inner = Arc::new(Inner {
            directory,
            clock,
            log,
            subjects: AtomicBool::new(settings.subjects),
            settings: ArcSwap::from_pointee(settings),
            waiting: Mutex::default(),
            wake: Condvar::new(),
            writer: Mutex::default(),
            tally: Arc::default(),
        });
        let writer = writer::Writer::new(Arc::clone(&inner));
        let thread = std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || writer.run())
            .map_err(TraceError::Thread)?;
        *lock(&inner.writer) = Some(thread);
        Ok(Self(Some(inner)))
    }

    /// From now on goes by other settings.
    pub fn set(&self, settings: Settings) {
        if let Some(inner) = &self.0 {
            inner.subjects.store(settings.subjects, Ordering::Relaxed);
            inner.settings.store(Arc::new(settings));
        }
    }

    /// Whether subjects are recorded.
    #[must_use]
    pub fn wants_subjects(&self) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.subjects.load(Ordering::Relaxed))
    }

    /// Which dialogues are recorded.
    #[must_use]
    pub fn wants_dialogues(&self) -> Dialogues {
        self.0.as_ref().map_or(Dialogues::Off, |inner| inner.settings.load().dialogues)
    }

    /// Whether anything is recorded; then a note need not be written.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records an event.
    pub fn record(&self, note: Note) {
        if let Some(inner) = &self.0 {
            inner.hand_in(&note.finish(), None);
        }
    }

    /// Records that a client was turned away, unless too many are.
    pub fn record_refusal(&self, note: Note) {
        if let Some(inner) = &self.0 {
            let second = inner.clock.now().as_millis() / 1_000;
            inner.hand_in(&note.finish(), Some(second));
        }
    }

    /// Everything recorded up to now; nothing without a record.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let inner = self.0.as_ref()?;
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = lock(&inner.waiting);
            if waiting.closing {
                return None;
            }
            waiting.asking.push(sender);
        }
        inner.wake.notify_one();
        receiver.await.ok()
    }

    /// A search in what is recorded up to now; in nothing without a record.
    pub async fn search(&self) -> Search {
        let tally = self.0.as_ref().map(|inner| Arc::clone(&inner.tally)).unwrap_or_default();
        Search::new(self.snapshot().await.unwrap_or_default(), tally)
    }

    /// What is counted, by name: events recorded, events lost, blocks that could not be read.
    #[must_use]
    pub fn counters(&self) -> [(&'static str, u64); 3] {
        let of = |count: fn(&Tally) -> &AtomicU64| {
            self.0.as_ref().map_or(0, |inner| count(&inner.tally).load(Ordering::Relaxed))
        };
        [
            ("trace_events", of(|tally| &tally.events)),
            ("trace_dropped", of(|tally| &tally.dropped)),
            ("trace_damaged_blocks", of(|tally| &tally.damaged)),
        ]
    }

    /// Writes what waits and ends the thread. Events that come later are lost.
    pub fn close(&self) {
        let Some(inner) = &self.0 else { return };
        lock(&inner.waiting).closing = true;
        inner.wake.notify_one();
        if let Some(writer) = lock(&inner.writer).take() {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

impl Inner {
    fn hand_in(&self, event: &[u8], second_of_refusal: Option<u64>) {
        let mut waiting = lock(&self.waiting);
        let refusals = &mut waiting.refusals;
        let too_many = second_of_refusal.is_some_and(|second| {
            *refusals = if refusals.0 == second { (second, refusals.1 + 1) } else { (second, 1) };
            refusals.1 > REFUSALS_PER_SECOND
        });
        if too_many || waiting.closing || waiting.octets.len() + event.len() > WAITING_OCTETS_MAX {
            drop(waiting);
            self.tally.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (was_empty, was_pressed) = (waiting.octets.is_empty(), waiting.is_pressed());
        waiting.octets.extend_from_slice(event);
        waiting.events += 1;
        let wakes = was_empty || waiting.is_pressed() && !was_pressed;
        drop(waiting);
        if wakes {
            self.wake.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
