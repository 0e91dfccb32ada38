//! The queue: the one handle to stored mail.
//!
//! In: drafts from the doors, outcomes from deliveries, wishes of operators. Out: leases of due
//! mail, lists, numbers. Everything above talks to [`Queue`]; only this room knows the store.
//!
//! What is asked here is cheap to ask: no verb looks at all mail to answer about some of it. A
//! panic inside the store aborts the process rather than leaving its locks and its promises in an
//! unknown state; the supervisor starts it again and recovery sorts things out.

mod body;
mod fetch;
mod held;
mod ids;
mod lease;
mod openings;
mod orders;
#[cfg(test)]
mod stepper;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroot_common::id::QueueId;
use mailroot_common::units::{ByteSize, Timestamp};
use smtpd_core::queue::recipient::{Hold, ReturnOrder};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::{RouteName, Table};
use tokio::sync::Notify;

pub use self::body::CopyError;
pub use self::fetch::{Claim, Fetch, Fetcher, Leash, Leashed, NoFetch, leash};
pub use self::held::{Asked, Rest};
use self::ids::Ids;
use self::openings::Openings;
pub use self::orders::{OrderError, Orders};
#[cfg(test)]
pub(crate) use self::stepper::Stepper;
use crate::clock::{Clock, Jump};
use crate::disk::Disk;
use crate::observe::{Counters, Log};
use crate::store::memory::Memory;
use crate::store::{self, Change, Store, Surroundings, guard};

pub use crate::store::{
    Body, BodyReader, Changes, CommitError, Counts, Draft, Filter, Glob, LargeBody,
    LargeBodyWriter, Lease, Message, NextDue, OpenError, ReadError, RouteCount, Unready,
};

/// How long a store may take to answer the watchdog. A sync of a busy disk can take seconds.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What the operator decided about a queue.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The virtual server's name, for whoever finds the queue locked.
    pub server: String,
    /// Where the log of segments lies: the `Queue` directory.
    pub directory: PathBuf,
    /// The size of new segments, at least 64 KiB.
    pub segment_size: ByteSize,
    /// Room that must stay free on the disk; below it new mail is refused.
    pub min_free: ByteSize,
}

/// The one handle to stored mail. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    /// Jumps of the wall clock that waiting mail has followed.
    jumps: AtomicUsize,
    ids: Ids,
    orders: Orders,
    openings: Openings,
    /// Connections handed over to whoever delivers.
    fetches: Mutex<Vec<Fetch>>,
    work: Arc<Notify>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Threads of a store that was not closed must not outlive the queue for ever.
        self.store.shut();
    }
}

impl Queue {
    /// A queue in memory, for tests: it forgets on drop.
    #[must_use]
    pub fn in_memory(clock: Clock, table: Arc<Table>) -> Self {
        let work = Arc::new(Notify::new());
        let store = Store::Memory(Arc::new(Memory::new(table, clock.clone(), Arc::clone(&work))));
        Self::over(store, clock, work, (Orders::in_memory(), Openings::default()))
    }

    /// Opens the queue in a directory and starts its threads. It takes new mail at once; mail
    /// stored before is read in the background and not due before all of it is known.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if another process has the queue, named in it, or the disk refuses.
    pub async fn open(
        settings: Settings,
        clock: Clock,
        log: Log,
        counters: Arc<Counters>,
        table: Arc<Table>,
    ) -> Result<Self, OpenError> {
        Self::open_on(Disk::Real, settings, clock, log, counters, table).await
    }

    /// The same on any disk.
    ///
    /// # Errors
    ///
    /// Those of [`Queue::open`].
    pub async fn open_on(
        disk: Disk,
        settings: Settings,
        clock: Clock,
        log: Log,
        counters: Arc<Counters>,
        table: Arc<Table>,
    ) -> Result<Self, OpenError> {
        let work = Arc::new(Notify::new());
        let path = settings.directory.clone();
        let beside = path.clone();
        let (told, time) = (Arc::clone(&work), clock.clone());
        let kept = (disk.clone(), settings.directory.clone(), log.clone(), settings.server.clone());
        let around = Surroundings { table, work: told, clock: time, journal: log, counters };
        let settings = store::Settings {
            segment_size: settings.segment_size.as_u64(),
            min_free: settings.min_free,
            holder: format!("smtpd, server {}", settings.server),
            directory: settings.directory,
        };
        let opened = guard::blocking(move || Store::open(disk, settings, around));
        let store = opened.await.map_err(|source| OpenError::Disk { path, source })??;
        let (disk, directory, log, server) = kept;
        let journal = log.clone();
        let read = guard::blocking(move || {
            let openings = Openings::open(&disk, &directory, &log, &server);
            (Orders::open(disk, directory, log, server), openings)
        });
        let kept = read.await.map_err(|source| OpenError::Disk { path: beside, source })?;
        let queue = Self::over(store, clock, work, kept);
        queue.reopen(journal);
        Ok(queue)
    }

    fn over(store: Store, clock: Clock, work: Arc<Notify>, kept: (Orders, Openings)) -> Self {
        let (orders, openings) = kept;
        let ids = Ids::above(store.highest_id());
        let jumps = AtomicUsize::new(clock.jumps());
        Self(Arc::new(Inner {
            store,
            clock,
            jumps,
            ids,
            orders,
            openings,
            fetches: Mutex::default(),
            work,
        }))
    }

    /// What an operator wants of destinations and of mail yet to come.
    #[must_use]
    pub fn orders(&self) -> &Orders {
        &self.0.orders
    }

    /// Whether new mail is likely to be taken; asked before a body is.
    ///
    /// # Errors
    ///
    /// [`Unready`], with the reason.
    pub fn ready(&self) -> Result<(), Unready> {
        self.0.store.ready()
    }

    /// An id nobody has or had, for a message that is about to be accepted with
    /// [`Queue::accept_as`]. An id that is not used is lost, which harms nobody.
    #[must_use]
    pub fn new_id(&self) -> QueueId {
        self.0.ids.next(self.0.clock.now())
    }

    /// Makes a message durable under a new id. After `Ok` it survives loss of power.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; nothing of the message will ever be sent then.
    pub async fn accept(&self, draft: Draft) -> Result<QueueId, CommitError> {
        let id = self.new_id();
        self.accept_as(id, draft).await.map(|()| id)
    }

    /// Makes a message durable under an id from [`Queue::new_id`]; held, if the envelope or an
    /// operator's rule says so.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; nothing of the message will ever be sent then.
    pub async fn accept_as(&self, id: QueueId, mut draft: Draft) -> Result<(), CommitError> {
        if draft.envelope.hold.is_none() {
            draft.envelope.hold = self.0.orders.hold_for(&draft.envelope, self.0.clock.now());
        }
        let hold = draft.envelope.hold.clone();
        guard::wait(pin!(self.0.store.commit(id, draft))).await?;
        if let Some(hold) = hold {
            self.0.orders.tell(id, &hold);
        }
        Ok(())
    }

    /// Routes that have due mail. Each is named once: whoever gets a name leases from it until a
    /// lease comes back with fewer messages than it asked for; from then on the route may be named
    /// again. So a destination that is backing off costs the others nothing.
    #[must_use]
    pub fn next_due(&self, now: Timestamp) -> NextDue {
        guard::call(|| self.0.store.next_due(now))
    }

    /// Has waiting mail follow the wall clock, if that has jumped; returns the jumps that were new.
    /// For one caller at a time.
    pub async fn follow_clock(&self) -> Vec<Jump> {
        let (seen, count) = (self.0.jumps.load(Ordering::Acquire), self.0.clock.jumps());
        if seen == count {
            return Vec::new();
        }
        let mut jumps = self.0.clock.jumps_after(seen);
        // One that came in between is for the next time.
        jumps.truncate(count - seen);
        let (store, follow) = (self.0.store.clone(), jumps.clone());
        let followed = guard::blocking(move || store.follow(&follow)).await;
        if !followed.unwrap_or(false) {
            return Vec::new();
        }
        self.0.jumps.store(count, Ordering::Release);
        jumps
    }

    /// Gives a route that [`Queue::next_due`] named back, without having emptied it.
    pub fn name_again(&self, route: &RouteName) {
        guard::call(|| self.0.store.name_again(route));
    }

    /// Waits until [`Queue::next_due`] may have something new to say. For one caller at a time.
    pub async fn wait_for_work(&self) {
        self.0.work.notified().await;
    }

    /// Up to `max` messages that an operator wants returned and that have recipients nobody is
    /// trying now. [`Queue::wait_for_work`] ends when there may be more.
    #[must_use]
    pub fn ordered(&self, max: usize) -> Vec<QueueId> {
        guard::call(|| self.0.store.ordered(max))
    }

    /// Up to `max` messages that wait although the time is up that their senders named; held ones are
    /// passed over. They are named until they are gone or put off.
    #[must_use]
    pub fn overdue(&self, now: Timestamp, max: usize) -> Vec<QueueId> {
        guard::call(|| self.0.store.overdue(now, max))
    }

    /// Has the deadline of a message looked at again at a moment, or never.
    pub fn put_off_deadline(&self, id: QueueId, until: Option<Timestamp>) {
        guard::call(|| self.0.store.put_off_deadline(id, until));
    }

    /// Records what became of a lease's recipients together with the reports that causes; returns
    /// the ids of the reports. All of it is durable when this returns `Ok`. A message whose
    /// recipients have all reached their end is gone.
    ///
    /// # Errors
    ///
    /// [`CommitError`]; no report exists then, and the recipients are due as they were before.
    pub async fn settle(
        &self,
        lease: Lease,
        changes: Changes,
        reports: Vec<Draft>,
    ) -> Result<Vec<QueueId>, CommitError> {
        let reports: Vec<(QueueId, Draft)> =
            reports.into_iter().map(|draft| (self.new_id(), draft)).collect();
        let ids = reports.iter().map(|(id, _)| *id).collect();
        // Boxed, because it is large: whoever may come to wait for the disk holds no room for it before.
        let mut settling = Box::pin(self.0.store.settle(lease, changes, reports));
        guard::wait(settling.as_mut()).await.map(|()| ids)
    }

    /// Records what became of a lease's recipients without waiting; durable within 50 ms. For
    /// plain deliveries: after loss of power before that, they are tried again.
    pub fn settle_later(&self, lease: Lease, changes: Changes) {
        guard::call(|| self.0.store.settle_later(lease, changes));
    }

    /// Up to `limit` messages that pass `filter`, by id, beginning after `after`.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the disk cannot be read.
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Message>, ReadError> {
        guard::wait(pin!(self.0.store.list(filter, after, limit))).await
    }

    /// One message with the states of all its recipients.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if the disk cannot be read.
    pub async fn show(&self, id: QueueId) -> Result<Option<Message>, ReadError> {
        guard::wait(pin!(self.0.store.show(id))).await
    }

    /// The content of one message, if it exists.
    #[must_use]
    pub fn read(&self, id: QueueId) -> Option<BodyReader> {
        guard::call(|| self.0.store.read(id))
    }

    /// Holds messages back until they are released; returns those that exist.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    pub async fn hold(&self, ids: &[QueueId], hold: Hold) -> Result<Vec<QueueId>, CommitError> {
        self.change(ids, Change::Hold(hold)).await
    }

    /// Ends holds; returns the messages that exist.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    pub async fn release(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, CommitError> {
        self.change(ids, Change::Release).await
    }

    /// Ends messages without a report to anybody; returns those that existed.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    pub async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, CommitError> {
        self.change(ids, Change::Remove).await
    }

    /// Orders messages to be returned to their senders; returns those that exist. The order is
    /// durable; whoever delivers carries it out (see [`Queue::ordered`]).
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    pub async fn give_up(
        &self,
        ids: &[QueueId],
        order: ReturnOrder,
    ) -> Result<Vec<QueueId>, CommitError> {
        self.change(ids, Change::Return(order)).await
    }

    /// Sends messages by a host of the operator's choice from now on, at once; returns those that
    /// exist.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    pub async fn redirect(
        &self,
        ids: &[QueueId],
        host: SmartHost,
        now: Timestamp,
    ) -> Result<Vec<QueueId>, CommitError> {
        self.change(ids, Change::Redirect(host, now)).await
    }

    /// Has every waiting recipient tried at a moment, at once if that has passed; returns the
    /// messages that exist. Held messages stay held.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    pub async fn retry(&self, ids: &[QueueId], at: Timestamp) -> Result<Vec<QueueId>, CommitError> {
        self.change(ids, Change::Retry(at)).await
    }

    async fn change(&self, ids: &[QueueId], change: Change) -> Result<Vec<QueueId>, CommitError> {
        guard::wait(pin!(self.0.store.change(ids, &change))).await
    }

    /// Has new mail refused while the disk has less room than this.
    pub fn set_min_free(&self, floor: ByteSize) {
        self.0.store.set_min_free(floor);
    }

    /// Sorts all mail anew by another route table, in the background where there is much of it.
    pub fn set_table(&self, table: Arc<Table>) {
        guard::call(|| self.0.store.set_table(table));
    }

    /// How much mail waits.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.store.counts()
    }

    /// How much mail waits on each route.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteCount> {
        self.0.store.routes()
    }

    /// The oldest message of each route that any waits for. It passes by the queue.
    #[must_use]
    pub fn oldest_by_route(&self) -> Vec<(RouteName, QueueId)> {
        self.0.store.oldest_by_route()
    }

    /// Octets free on the queue's disk, where that is known.
    #[must_use]
    pub fn free(&self) -> Option<ByteSize> {
        self.0.store.free()
    }

    /// Whether the queue still answers: its threads run and its locks are free within seconds.
    /// For the watchdog.
    pub async fn is_alive(&self) -> bool {
        let store = self.0.store.clone();
        let asked = guard::blocking(move || store.is_alive());
        match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(Ok(alive)) => alive,
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Makes everything handed in durable and ends the queue's threads; later verbs that write are
    /// refused.
    pub async fn close(&self) {
        guard::wait(pin!(self.0.store.close())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::disk::Modelled;
    use crate::store::conformance::{draft, route, start, table};

    #[tokio::test(start_paused = true)]
    async fn a_refused_message_leaves_nothing_and_the_next_is_taken() {
        let clock = Clock::simulated(start(), 1);
        let queue = Queue::in_memory(clock, table(&[]));
        queue.memory().unwrap().refuse(&[io::ErrorKind::StorageFull]);
        assert_eq!(queue.ready(), Err(Unready::NoRoom));
        let refused = queue.accept(draft(&["a@x.example"], start(), b"x")).await.unwrap_err();
        assert!(refused.is_full());
        assert_eq!(queue.counts().messages, 0);
        let id = queue.accept(draft(&["a@x.example"], start(), b"x")).await.unwrap();
        queue.wait_for_work().await;
        assert_eq!(queue.next_due(start()).routes, [route("mx:x.example")]);
        let leases = queue.lease(&route("mx:x.example"), start(), 5).await.unwrap();
        assert_eq!(leases[0].id, id);
    }

    #[tokio::test]
    async fn mail_and_ids_go_on_after_a_restart_though_the_clock_went_back() {
        let disk = Disk::Modelled(Arc::new(Modelled::new(3)));
        let open = |clock: Clock| {
            let settings = Settings {
                server: "test".into(),
                directory: "/spool/Queue".into(),
                segment_size: ByteSize::kib(64),
                min_free: ByteSize::bytes(0),
            };
            Queue::open_on(disk.clone(), settings, clock, Log::quiet(), Arc::default(), table(&[]))
        };
        let queue = open(Clock::simulated(start(), 1)).await.unwrap();
        let mut ids = Vec::new();
        for number in 0..100_u8 {
            let draft = draft(&["a@x.example"], start(), &[number; 700]);
            ids.push(queue.accept(draft).await.unwrap());
        }
        assert!(queue.is_alive().await);
        queue.close().await;
        drop(queue);
        let earlier = Timestamp::from_millis(start().as_millis() - 86_400_000);
        let queue = open(Clock::simulated(earlier, 2)).await.unwrap();
        assert!(queue.new_id() > ids[99], "no id is given twice");
        while queue.counts().recovering {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let listed = queue.list(&Filter::default(), None, 1000).await.unwrap();
        assert_eq!(listed.iter().map(|message| message.id).collect::<Vec<_>>(), ids);
        let leases = queue.lease(&route("mx:x.example"), start(), 1000).await.unwrap();
        assert_eq!(leases.len(), 100);
        let eighth = leases.iter().find(|lease| lease.id == ids[7]).unwrap();
        assert_eq!(eighth.open().read_all().await.unwrap(), [7; 700]);
        queue.close().await;
    }
}
