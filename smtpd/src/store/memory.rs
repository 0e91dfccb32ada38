//! The store in memory: for tests of everything above it, and the measure for the one on disk.
//!
//! Simple on purpose: it finds due mail by looking at all of it, so that `conformance` compares the
//! log's index with something that is right by inspection. It forgets on drop, and it refuses to
//! commit when a test asks for that.

mod pick;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::{MessageState, RecipientStatus};
use smtpd_core::queue::turns::is_large;
use smtpd_core::route::table::{RouteName, Table};
use tokio::sync::Notify;

use self::pick::{Candidate, by_turns};
use super::body::{Body, BodyReader};
use super::lease::{Holder, Lease};
use super::list::{Filter, Message};
use super::{Change, Changes, CommitError, Counts, Draft, Pick, RouteCount, Unready, due_at};
use crate::clock::{Clock, Past};

/// Mail in memory.
#[derive(Debug)]
pub struct Memory {
    inner: Mutex<Inner>,
    work: Arc<Notify>,
}

#[derive(Debug)]
struct Inner {
    messages: BTreeMap<QueueId, Stored>,
    table: Arc<Table>,
    clock: Clock,
    /// Routes that [`Memory::next_due`] has named and whose lease did not come back short since; whether
    /// only their large mail is known, because one of small mail did.
    named: HashMap<RouteName, bool>,
    highest: QueueId,
    refusals: Vec<io::ErrorKind>,
    closed: bool,
}

#[derive(Debug)]
struct Stored {
    envelope: Arc<Envelope>,
    state: MessageState,
    body: Arc<Vec<u8>>,
    /// One for each recipient.
    leased: Vec<bool>,
    /// The body cannot be read any more.
    lost: bool,
    /// When its deadline is looked at; nothing if it has none any more.
    deadline: Option<Timestamp>,
    /// An operator wants it tried at this moment, also those who were being tried when it was said.
    wanted: Option<Timestamp>,
}

impl Stored {
    fn new(draft: Draft) -> Option<Self> {
        let body = match draft.body {
            Body::Memory(octets) => octets,
            Body::File(large) => large.into_memory()?,
        };
        let state = MessageState::fresh(&draft.envelope);
        let deadline = draft.envelope.deadline();
        let count = state.recipients.len();
        Some(Self {
            envelope: Arc::new(draft.envelope),
            state,
            deadline,
            body: Arc::new(body),
            leased: vec![false; count],
            wanted: None,
            lost: false,
        })
    }

    /// When the recipient at `place` may be tried; nothing if it is not waiting to be.
    fn due(&self, past: &Past, place: usize) -> Option<Timestamp> {
        let status = &self.state.recipients[place];
        let free = self.state.is_free() && !self.leased[place] && !status.phase.is_end();
        free.then(|| due_at(past, status))
    }

    fn is_large(&self) -> bool {
        is_large(self.body.len() as u64)
    }

    /// Everybody who waits and is not being tried.
    fn idle(&self) -> Vec<(usize, RecipientStatus)> {
        let recipients = self.state.recipients.iter().enumerate();
        recipients
            .filter(|(place, status)| !self.leased[*place] && !status.phase.is_end())
            .map(|(place, status)| (place, status.clone()))
            .collect()
    }

    fn apply(&mut self, changes: Changes) {
        let wanted = self.wanted.take();
        for (place, mut status) in changes {
            status.next_attempt = wanted.unwrap_or(status.next_attempt);
            self.state.recipients[place] = status;
        }
    }

    fn view(&self, id: QueueId, table: &Table) -> Message {
        Message {
            id,
            size: self.body.len() as u64,
            envelope: Arc::clone(&self.envelope),
            state: self.state.clone(),
            active: self.leased.contains(&true),
            routes: self.routes(table),
        }
    }

    fn routes(&self, table: &Table) -> Vec<RouteName> {
        let sender = &self.envelope.sender;
        let route = |to| self.state.route_name(table, sender, to);
        self.envelope.recipients.iter().map(route).collect()
    }
}

impl Inner {
    fn check(&mut self) -> Result<(), CommitError> {
        if self.closed {
            return Err(CommitError::Closed);
        }
        match self.refusals.pop() {
            Some(kind) => Err(CommitError::from_io(Path::new("memory"), kind.into())),
            None => Ok(()),
        }
    }

    fn insert(&mut self, id: QueueId, draft: Draft) -> Result<(), CommitError> {
        let stored = Stored::new(draft).ok_or(CommitError::Foreign { id })?;
        self.highest = self.highest.max(id);
        self.messages.insert(id, stored);
        Ok(())
    }

    fn drop_if_done(&mut self, id: QueueId) {
        if self.messages.get(&id).is_some_and(|stored| stored.state.is_done()) {
            self.messages.remove(&id);
        }
    }

    /// Every waiting (message, route) with the moment its first recipient is due.
    fn links(&self) -> BTreeMap<(RouteName, QueueId), Option<Timestamp>> {
        let (mut links, past) = (BTreeMap::new(), self.clock.past());
        for (id, stored) in &self.messages {
            for (place, route) in stored.routes(&self.table).into_iter().enumerate() {
                if stored.state.recipients[place].phase.is_end() {
                    continue;
                }
                let link: &mut Option<Timestamp> = links.entry((route, *id)).or_default();
                if let Some(due) = stored.due(&past, place) {
                    *link = Some(link.map_or(due, |before| before.min(due)));
                }
            }
        }
        links
    }
}

impl Memory {
    /// An empty store. `work` is notified when mail may have become due.
    #[must_use]
    pub fn new(table: Arc<Table>, clock: Clock, work: Arc<Notify>) -> Self {
        let inner = Inner {
            messages: BTreeMap::new(),
            table,
            clock,
            named: HashMap::new(),
            highest: QueueId::from_u64(0),
            refusals: Vec::new(),
            closed: false,
        };
        Self { inner: Mutex::new(inner), work }
    }

    /// Makes the next writing verbs fail, the last kind first.
    pub fn refuse(&self, kinds: &[io::ErrorKind]) {
        self.lock().refusals.extend_from_slice(kinds);
    }

    /// Makes the body of a message unreadable.
    pub fn lose_body(&self, id: QueueId) {
        if let Some(stored) = self.lock().messages.get_mut(&id) {
            stored.lost = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ready(&self) -> Result<(), Unready> {
        let inner = self.lock();
        if inner.closed {
            return Err(Unready::Trouble);
        }
        match inner.refusals.last() {
            Some(io::ErrorKind::StorageFull) => Err(Unready::NoRoom),
            _ => Ok(()),
        }
    }

    pub(super) fn commit(&self, id: QueueId, draft: Draft) -> Result<(), CommitError> {
        let mut inner = self.lock();
        inner.check()?;
        if inner.messages.contains_key(&id) {
            return Err(CommitError::Duplicate { id });
        }
        inner.insert(id, draft)?;
        self.work.notify_one();
        Ok(())
    }

    pub(super) fn name_again(&self, route: &RouteName) {
        self.lock().named.remove(route);
        self.work.notify_one();
    }

    pub(super) fn lease(self: &Arc<Self>, route: &RouteName, pick: Pick, max: usize) -> Vec<Lease> {
        let mut inner = self.lock();
        let priority = |id: &QueueId| {
            Reverse(inner.messages.get(id).map(|stored| stored.envelope.wishes.priority))
        };
        let mut found: Vec<Candidate> = inner
            .links()
            .into_iter()
            .filter_map(|((name, id), due)| (name == *route).then_some((priority(&id), due?, id)))
            .collect();
        found.sort_unstable();
        by_turns(&mut found, |id| Some(inner.messages.get(&id)?.envelope.sender.clone()));
        let Inner { messages, table, named, clock, .. } = &mut *inner;
        let (mut leases, past) = (Vec::new(), clock.past());
        for (_, _, id) in found {
            let is_full = leases.len() == max;
            if is_full || leases.last().is_some_and(|last: &Lease| is_large(last.size)) {
                break;
            }
            let Some(stored) = messages.get_mut(&id) else { continue };
            let mut due = Vec::new();
            for (place, name) in stored.routes(table).into_iter().enumerate() {
                if name == *route && stored.picked(&past, pick, place) {
                    stored.leased[place] = true;
                    due.push((place, stored.state.recipients[place].clone()));
                }
            }
            if !due.is_empty() {
                leases.push(self.lease_of(id, stored, due));
            }
        }
        if Lease::are_all(&leases, max) {
            match pick {
                Pick::Due(_) => {
                    named.remove(route);
                }
                Pick::SmallDue(_) => {
                    named.insert(route.clone(), true);
                }
                Pick::Aged(_) | Pick::Untold(_) => {}
            }
        }
        leases
    }

    fn lease_of(
        self: &Arc<Self>,
        id: QueueId,
        stored: &Stored,
        due: Vec<(usize, RecipientStatus)>,
    ) -> Lease {
        Lease {
            id,
            envelope: Arc::clone(&stored.envelope),
            due,
            size: stored.body.len() as u64,
            via: stored.state.via.clone(),
            returning: stored.state.returning.clone(),
            holder: Holder::Memory(Arc::clone(self)),
            mark: None,
        }
    }

    pub(super) fn lease_message(self: &Arc<Self>, id: QueueId) -> Option<Lease> {
        let mut inner = self.lock();
        let stored = inner.messages.get_mut(&id)?;
        let due = stored.idle();
        due.iter().for_each(|(place, _)| stored.leased[*place] = true);
        (!due.is_empty()).then(|| self.lease_of(id, stored, due))
    }

    pub(super) fn overdue(&self, now: Timestamp, max: usize) -> Vec<QueueId> {
        let inner = self.lock();
        let is_over = |stored: &Stored| {
            stored.state.hold.is_none() && stored.deadline.is_some_and(|at| at <= now)
        };
        let found = inner.messages.iter().filter(|(_, stored)| is_over(stored));
        found.map(|(id, _)| *id).take(max).collect()
    }

    pub(super) fn put_off_deadline(&self, id: QueueId, until: Option<Timestamp>) {
        if let Some(stored) = self.lock().messages.get_mut(&id) {
            stored.deadline = until;
        }
    }

    pub(super) fn ordered(&self, max: usize) -> Vec<QueueId> {
        let inner = self.lock();
        let ordered =
            |stored: &Stored| stored.state.returning.is_some() && !stored.idle().is_empty();
        let found = inner.messages.iter().filter(|(_, stored)| ordered(stored));
        found.map(|(id, _)| *id).take(max).collect()
    }

    /// Ends the lease of these recipients.
    pub(super) fn give_back(&self, id: QueueId, places: impl Iterator<Item = usize>) {
        if let Some(stored) = self.lock().messages.get_mut(&id) {
            places.for_each(|place| stored.leased[place] = false);
        }
        self.work.notify_one();
    }

    pub(super) fn settle(
        &self,
        lease: &Lease,
        changes: Changes,
        reports: Vec<(QueueId, Draft)>,
    ) -> Result<(), CommitError> {
        let done = self.record(lease.id, changes, reports);
        self.give_back(lease.id, lease.places());
        done
    }

    fn record(
        &self,
        id: QueueId,
        changes: Changes,
        reports: Vec<(QueueId, Draft)>,
    ) -> Result<(), CommitError> {
        let mut inner = self.lock();
        inner.check()?;
        // A message an operator removed while it was tried has its end; nobody is told twice.
        let Some(stored) = inner.messages.get_mut(&id) else { return Ok(()) };
        stored.apply(changes);
        inner.drop_if_done(id);
        for (id, draft) in reports {
            inner.insert(id, draft)?;
        }
        Ok(())
    }

    pub(super) fn settle_later(&self, lease: &Lease, changes: Changes) {
        {
            let mut inner = self.lock();
            if let Some(stored) = inner.messages.get_mut(&lease.id) {
                stored.apply(changes);
            }
            inner.drop_if_done(lease.id);
        }
        self.give_back(lease.id, lease.places());
    }

    pub(super) fn change(
        &self,
        ids: &[QueueId],
        change: &Change,
    ) -> Result<Vec<QueueId>, CommitError> {
        let mut inner = self.lock();
        inner.check()?;
        let mut changed = Vec::new();
        for id in ids {
            let Some(stored) = inner.messages.get_mut(id) else { continue };
            changed.push(*id);
            match change {
                Change::Hold(hold) => stored.state.hold = Some(hold.clone()),
                Change::Release => stored.state.hold = None,
                Change::Retry(at) => retry(stored, *at),
                Change::Return(order) => stored.state.returning = Some(order.clone()),
                Change::Redirect(host, at) => {
                    stored.state.via = Some(host.clone());
                    retry(stored, *at);
                }
                Change::Remove => {
                    inner.messages.remove(id);
                }
            }
        }
        self.work.notify_one();
        Ok(changed)
    }

    pub(super) fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Vec<Message> {
        let inner = self.lock();
        let begin = after.map_or(QueueId::from_u64(0), QueueId::next);
        inner
            .messages
            .range(begin..)
            .map(|(id, stored)| stored.view(*id, &inner.table))
            .filter(|message| filter.matches(message))
            .take(limit)
            .collect()
    }

    pub(super) fn show(&self, id: QueueId) -> Option<Message> {
        let inner = self.lock();
        inner.messages.get(&id).map(|stored| stored.view(id, &inner.table))
    }

    pub(super) fn read(&self, id: QueueId) -> Option<BodyReader> {
        let inner = self.lock();
        let stored = inner.messages.get(&id).filter(|stored| !stored.lost)?;
        Some(BodyReader::memory(Arc::clone(&stored.body)))
    }

    pub(super) fn set_table(&self, table: Arc<Table>) {
        self.lock().table = table;
        self.work.notify_one();
    }

    pub(super) fn counts(&self) -> Counts {
        let inner = self.lock();
        let mut counts = Counts::default();
        for (id, stored) in &inner.messages {
            counts.messages += 1;
            counts.oldest = counts.oldest.into_iter().chain([*id]).min();
            counts.tried += u64::from(stored.state.recipients.iter().any(|s| s.attempts > 0));
            counts.octets += stored.body.len() as u64;
            counts.held += u64::from(stored.state.hold.is_some());
            counts.active += u64::from(stored.leased.contains(&true));
        }
        counts
    }

    pub(super) fn routes(&self) -> Vec<RouteCount> {
        let mut routes: Vec<RouteCount> = Vec::new();
        for ((route, _), due) in self.lock().links() {
            match routes.last_mut() {
                Some(last) if last.route == route => {
                    last.messages += 1;
                    last.next_due = [last.next_due, due].into_iter().flatten().min();
                }
                _ => routes.push(RouteCount { route, messages: 1, next_due: due }),
            }
        }
        routes
    }

    pub(super) fn oldest_by_route(&self) -> Vec<(RouteName, QueueId)> {
        let mut oldest = BTreeMap::new();
        for (route, id) in self.lock().links().into_keys() {
            oldest.entry(route).or_insert(id);
        }
        oldest.into_iter().collect()
    }

    pub(super) fn highest_id(&self) -> QueueId {
        self.lock().highest
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
    }
}

fn retry(stored: &mut Stored, at: Timestamp) {
    stored.wanted = stored.leased.contains(&true).then_some(at);
    for status in stored.state.recipients.iter_mut().filter(|status| !status.phase.is_end()) {
        status.next_attempt = at;
    }
}
