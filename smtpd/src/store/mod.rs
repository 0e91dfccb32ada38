//! The durable half of the queue: what a message's life needs from storage, verb by verb.
//!
//! In: drafts, outcomes, an operator's wishes. Out: leases of due mail, lists, bodies. [`Store`] is
//! a closed set: [`log::Log`] writes to disk, [`memory::Memory`] forgets on drop and refuses where a
//! test tells it to. Both pass `conformance`.
//!
//! The verbs are those of a message's life, not get and put, so that each arm can be fast in its
//! own way and what must be durable together is one call. Only the queue room calls them.

mod body;
#[cfg(test)]
pub(crate) mod conformance;
mod error;
pub(crate) mod guard;
mod lease;
mod list;
pub mod log;
pub mod memory;

use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::units::{ByteSize, Timestamp};
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::{Hold, RecipientStatus, ReturnOrder};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::{RouteName, Table};

pub use self::body::{Body, BodyReader, LargeBody, LargeBodyWriter};
pub use self::error::{CommitError, ReadError, Unready};
pub use self::lease::Lease;
pub use self::list::{Filter, Glob, Message};
pub use self::log::{OpenError, Settings, Surroundings};
use crate::clock::{Jump, Past};
use crate::disk::Disk;

/// A message that is not yet mail: what [`Store::commit`] makes durable.
#[derive(Debug)]
pub struct Draft {
    /// Its envelope, frozen from now on.
    pub envelope: Envelope,
    /// Its content, header first, lines ended by CRLF, without dot stuffing.
    pub body: Body,
}

/// Which mail of a route a lease takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Recipients whose next attempt has come by this moment.
    Due(Timestamp),
    /// The same, but no large message.
    SmallDue(Timestamp),
    /// Every waiting recipient of messages accepted before this moment, due or not.
    Aged(Timestamp),
    /// The same, but only recipients whose sender was not told of the delay.
    Untold(Timestamp),
}

/// What an operator wants done with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// No attempt until it is released.
    Hold(Hold),
    /// End of the hold.
    Release,
    /// Every recipient that waits is tried at this moment, or at once if it has passed.
    Retry(Timestamp),
    /// The message ends here, without a report.
    Remove,
    /// Nobody is tried any more; see [`Store::ordered`].
    Return(ReturnOrder),
    /// Everybody who waits is tried at this moment, at this host instead of where the table leads.
    Redirect(SmartHost, Timestamp),
}

/// What is due, and when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NextDue {
    /// Routes that have due mail and were not named since a lease of theirs last came back with
    /// less than it asked for.
    pub routes: Vec<RouteName>,
    /// When the next route that is not named above has due mail.
    pub wake_at: Option<Timestamp>,
    /// When the time is up, or was, that a sender named for mail that still waits.
    pub deadline_at: Option<Timestamp>,
}

/// How much mail waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages stored.
    pub messages: u64,
    /// Octets of their bodies.
    pub octets: u64,
    /// Messages an operator holds back.
    pub held: u64,
    /// Messages of which something became already, such as a failed attempt.
    pub tried: u64,
    /// The oldest message.
    pub oldest: Option<QueueId>,
    /// Messages of which an attempt is being made.
    pub active: u64,
    /// Messages set aside or records skipped because they were damaged.
    pub damaged: u64,
    /// Whether the store still reads what was stored before the start; counts grow until then.
    pub recovering: bool,
}

/// The mail of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteCount {
    /// The route.
    pub route: RouteName,
    /// Messages with a recipient that waits on it.
    pub messages: u64,
    /// When the first of them is due; absent if all are held or being tried.
    pub next_due: Option<Timestamp>,
}

/// When a recipient is due, by the wall clock as it goes now.
fn due_at(past: &Past, status: &RecipientStatus) -> Timestamp {
    if status.awaits_operator() || status.is_fixed() {
        return status.next_attempt;
    }
    past.due(status.decided_at(), status.next_attempt)
}

/// The changes of a settled lease: recipients by their place in the envelope.
pub type Changes = Vec<(usize, RecipientStatus)>;

/// A place where mail survives, or pretends to.
#[derive(Clone, Debug)]
pub enum Store {
    /// A log of segments on disk.
    Log(Arc<log::Log>),
    /// Forgets on drop.
    Memory(Arc<memory::Memory>),
}

impl Store {
    /// Opens the store in a directory and starts its threads. Mail stored before is known by and by; see [`Counts::recovering`].
    ///
    /// # Errors
    ///
    /// [`OpenError`] if somebody else has the store or the disk refuses.
    pub fn open(disk: Disk, settings: Settings, around: Surroundings) -> Result<Self, OpenError> {
        let path = settings.directory.clone();
        let log = log::Log::open(disk, settings, around)?;
        log.start().map_err(|source| OpenError::Disk { path, source })?;
        Ok(Self::Log(log))
    }

    /// A store without threads, and the log whose work the test does step by step.
    #[cfg(test)]
    pub(crate) fn stepped(
        disk: Disk,
        settings: Settings,
        around: Surroundings,
    ) -> Result<(Self, Arc<log::Log>), OpenError> {
        let log = log::Log::open(disk, settings, around)?;
        Ok((Self::Log(Arc::clone(&log)), log))
    }

    /// Whether new mail is likely to be taken.
    ///
    /// # Errors
    ///
    /// [`Unready`], with the reason.
    pub fn ready(&self) -> Result<(), Unready> {
        match self {
            Self::Log(log) => log.ready(),
            Self::Memory(memory) => memory.ready(),
        }
    }

    /// Begins a body that is too large for memory.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if no file can be made.
    pub async fn large_body(&self) -> Result<LargeBodyWriter, CommitError> {
        match self {
            Self::Log(log) => LargeBodyWriter::file(Arc::clone(log)).await,
            Self::Memory(_) => Ok(LargeBodyWriter::memory()),
        }
    }

    /// Makes a message durable. After `Ok` it survives loss of power; after `Err` nothing of it
    /// will ever be sent.
    ///
    /// # Errors
    ///
    /// [`CommitError`], which knows what the peer is to hear.
    pub async fn commit(&self, id: QueueId, draft: Draft) -> Result<(), CommitError> {
        match self {
            Self::Log(log) => log.commit(id, draft).await,
            Self::Memory(memory) => memory.commit(id, draft),
        }
    }

    /// Routes with due mail. A route is named once; it is named again after a lease of [`Pick::Due`] came
    /// back with all there was ([`Lease::are_all`]), or after [`Store::name_again`]. After a lease of
    /// [`Pick::SmallDue`] came back so, it is named for small mail alone: whoever left large mail there
    /// comes back for it.
    #[must_use]
    pub fn next_due(&self, now: Timestamp) -> NextDue {
        match self {
            Self::Log(log) => log.next_due(now),
            Self::Memory(memory) => memory.next_due(now),
        }
    }

    /// Lets [`Store::next_due`] name a route again.
    pub fn name_again(&self, route: &RouteName) {
        match self {
            Self::Log(log) => log.name_again(route),
            Self::Memory(memory) => memory.name_again(route),
        }
    }

    /// Takes up to `max` messages of a route for an attempt, those of higher priority first, among
    /// equals one sender's after the other's, of each the longest due first. Large mail comes one message
    /// at a time, as the last. Nobody else is given their recipients until the lease is settled or
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if an envelope cannot be read; the message concerned is set aside.
    pub async fn lease(
        &self,
        route: &RouteName,
        pick: Pick,
        max: usize,
    ) -> Result<Vec<Lease>, ReadError> {
        match self {
            Self::Log(log) => log.lease(route, pick, max).await,
            Self::Memory(memory) => Ok(memory.lease(route, pick, max)),
        }
    }

    /// Takes everybody of one message who waits and is not being tried, whatever their routes and
    /// moments, held or not. Nothing if there is nobody.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the message cannot be read.
    pub async fn lease_message(&self, id: QueueId) -> Result<Option<Lease>, ReadError> {
        match self {
            Self::Log(log) => log.lease_message(id).await,
            Self::Memory(memory) => Ok(memory.lease_message(id)),
        }
    }

    /// Up to `max` messages that an operator wants returned and that have recipients nobody is
    /// trying now.
    #[must_use]
    pub fn ordered(&self, max: usize) -> Vec<QueueId> {
        match self {
            Self::Log(log) => log.ordered(max),
            Self::Memory(memory) => memory.ordered(max),
        }
    }

    /// Up to `max` messages that wait although the time is up that their senders named, the most
    /// overdue first; held ones are passed over. They are named again until they are gone or
    /// [`Store::put_off_deadline`] was called.
    #[must_use]
    pub fn overdue(&self, now: Timestamp, max: usize) -> Vec<QueueId> {
        match self {
            Self::Log(log) => log.overdue(now, max),
            Self::Memory(memory) => memory.overdue(now, max),
        }
    }

    /// Has the deadline of a message looked at again at a moment, or never.
    pub fn put_off_deadline(&self, id: QueueId, until: Option<Timestamp>) {
        match self {
            Self::Log(log) => log.put_off_deadline(id, until),
            Self::Memory(memory) => memory.put_off_deadline(id, until),
        }
    }

    /// Records what became of a lease's recipients, and the reports that causes: all of it durable
    /// together when this returns `Ok`. Recipients not named in `changes` are due as before.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; the recipients are then due as before, and no report exists.
    pub async fn settle(
        &self,
        mut lease: Lease,
        changes: Changes,
        reports: Vec<(QueueId, Draft)>,
    ) -> Result<(), CommitError> {
        match self {
            Self::Log(log) => log.settle(lease, changes, reports).await,
            Self::Memory(memory) => {
                lease.disarm();
                memory.settle(&lease, changes, reports)
            }
        }
    }

    /// Records what became of a lease's recipients without waiting: durable with the next batch,
    /// at the latest after 50 ms. If the power fails before, they are tried again.
    pub fn settle_later(&self, mut lease: Lease, changes: Changes) {
        lease.disarm();
        match self {
            Self::Log(log) => log.settle_later(&lease, changes),
            Self::Memory(memory) => memory.settle_later(&lease, changes),
        }
    }

    /// Does what an operator wants with those of `ids` that exist; returns these.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it could not be made durable.
    pub async fn change(
        &self,
        ids: &[QueueId],
        change: &Change,
    ) -> Result<Vec<QueueId>, CommitError> {
        match self {
            Self::Log(log) => log.change(ids, change).await,
            Self::Memory(memory) => memory.change(ids, change),
        }
    }

    /// Up to `limit` messages that pass `filter`, by id, beginning after `after`.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store cannot be read.
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Message>, ReadError> {
        match self {
            Self::Log(log) => log.list(filter, after, limit).await,
            Self::Memory(memory) => Ok(memory.list(filter, after, limit)),
        }
    }

    /// One message with the state of all its recipients.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the store cannot be read.
    pub async fn show(&self, id: QueueId) -> Result<Option<Message>, ReadError> {
        match self {
            Self::Log(log) => log.show(id).await,
            Self::Memory(memory) => Ok(memory.show(id)),
        }
    }

    /// The content of one message.
    #[must_use]
    pub fn read(&self, id: QueueId) -> Option<BodyReader> {
        match self {
            Self::Log(log) => {
                log.size_of(id).map(|size| BodyReader::log(Arc::clone(log), id, size))
            }
            Self::Memory(memory) => memory.read(id),
        }
    }

    /// Has new mail refused while the disk has less room than this.
    pub fn set_min_free(&self, floor: ByteSize) {
        match self {
            Self::Log(log) => log.set_min_free(floor),
            Self::Memory(_) => {}
        }
    }

    /// Gives every waiting recipient the route it has in another table.
    pub fn set_table(&self, table: Arc<Table>) {
        match self {
            Self::Log(log) => log.set_table(table),
            Self::Memory(memory) => memory.set_table(table),
        }
    }

    /// Has waiting mail follow jumps of the wall clock; not before all of it is known, which is
    /// what this answers. Blocks.
    #[must_use]
    pub fn follow(&self, jumps: &[Jump]) -> bool {
        match self {
            Self::Log(log) => log.follow(jumps),
            // It looks at all mail each time.
            Self::Memory(_) => true,
        }
    }

    /// How much mail waits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        match self {
            Self::Log(log) => log.counts(),
            Self::Memory(memory) => memory.counts(),
        }
    }

    /// How much mail waits on each route.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteCount> {
        match self {
            Self::Log(log) => log.routes(),
            Self::Memory(memory) => memory.routes(),
        }
    }

    /// The oldest message of each route that any waits for.
    #[must_use]
    pub fn oldest_by_route(&self) -> Vec<(RouteName, QueueId)> {
        match self {
            Self::Log(log) => log.oldest_by_route(),
            Self::Memory(memory) => memory.oldest_by_route(),
        }
    }

    /// An id as high as any that was ever given.
    #[must_use]
    pub fn highest_id(&self) -> QueueId {
        match self {
            Self::Log(log) => log.highest_id(),
            Self::Memory(memory) => memory.highest_id(),
        }
    }

    /// Octets free on the disk of the store, where that is known.
    #[must_use]
    pub fn free(&self) -> Option<ByteSize> {
        match self {
            Self::Log(log) => Some(log.free()),
            Self::Memory(_) => None,
        }
    }

    /// Whether the store's threads run. Blocks until its locks are free.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Log(log) => log.is_alive(),
            Self::Memory(memory) => memory.counts().messages < u64::MAX,
        }
    }

    /// Asks the store to end, without waiting for it.
    pub fn shut(&self) {
        match self {
            Self::Log(log) => log.shut(),
            Self::Memory(memory) => memory.close(),
        }
    }

    /// Makes what nobody waited for durable, and ends the store's threads. Later verbs that write
    /// are refused.
    pub async fn close(&self) {
        match self {
            Self::Log(log) => log.close().await,
            Self::Memory(memory) => memory.close(),
        }
    }
}
