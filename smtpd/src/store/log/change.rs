//! What operators ask of the log: lists, single messages, holds, retries, removals; and what the
//! store itself does with a message it cannot read.

use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::recipient::Hold;
use tokio::task::spawn_blocking;

use super::super::list::{Filter, Message};
use super::super::{Change, CommitError, ReadError, due_at};
use super::Log;
use super::commit::Task;
use super::index::Index;
use super::large::Reader;
use super::read::{Loaded, Location};
use super::record::IN_FILE;
use crate::clock::Jump;
use crate::observe::Level;

/// How many messages are looked at before others get the index.
const CHUNK: usize = 256;
/// How often a message is looked for whose records move meanwhile.
const READS_MAX: usize = 3;

/// A body as it was found.
#[derive(Debug)]
pub(in super::super) enum Opened {
    Small(Arc<Vec<u8>>),
    Large(Reader),
}

impl Log {
    pub(in super::super) async fn change(
        self: &Arc<Self>,
        ids: &[QueueId],
        change: &Change,
    ) -> Result<Vec<QueueId>, CommitError> {
        // The newest version of old mail is not known before.
        self.wait_recovered().await;
        match change {
            Change::Retry(at) => {
                // Those that waited for this word would wait for ever if it were only in memory.
                let awaiting = self.index().awaiting(ids);
                self.change_open(&awaiting, change).await?;
                Ok(self.want(ids, *at))
            }
            Change::Remove => self.submit_changes(ids.to_vec(), change).await,
            Change::Hold(_) | Change::Release | Change::Return(_) | Change::Redirect(..) => {
                self.change_open(ids, change).await
            }
        }
    }

    /// Changes states: each message is read if it is not at hand, and kept open until it is done.
    async fn change_open(
        self: &Arc<Self>,
        ids: &[QueueId],
        change: &Change,
    ) -> Result<Vec<QueueId>, CommitError> {
        let mut changed = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            let (log, chunk) = (Arc::clone(self), chunk.to_vec());
            let pins = spawn_blocking(move || log.pin(&chunk)).await;
            let pins = pins.map_err(|_| CommitError::Closed)?;
            let open = pins.ids.clone();
            changed.extend(self.submit_changes(open, change).await?);
        }
        Ok(changed)
    }

    /// A wish for an attempt is kept in memory: after a restart the schedule counts again.
    fn want(&self, ids: &[QueueId], at: Timestamp) -> Vec<QueueId> {
        let mut found = Vec::new();
        for chunk in ids.chunks(CHUNK) {
            let mut index = self.index();
            for id in chunk.iter().filter(|id| index.contains(**id)).copied().collect::<Vec<_>>() {
                index.want(id, at);
                found.push(id);
            }
        }
        self.work.notify_one();
        found
    }

    pub(in super::super) fn follow(&self, jumps: &[Jump]) -> bool {
        if !self.index().recovered {
            return false;
        }
        for jump in jumps.iter().filter(|jump| jump.back() > Span::default()) {
            let mut after = None;
            loop {
                let mut index = self.index();
                let ids: Vec<QueueId> = index.ids_after(after).take(CHUNK).collect();
                let Some(last) = ids.last() else { break };
                after = Some(*last);
                ids.iter().for_each(|id| index.follow(*id, *jump));
            }
        }
        let mut index = self.index();
        let past = index.clock.past();
        index.deadlines.follow(&past);
        drop(index);
        self.work.notify_one();
        true
    }

    async fn submit_changes(
        &self,
        ids: Vec<QueueId>,
        change: &Change,
    ) -> Result<Vec<QueueId>, CommitError> {
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            if self.index().contains(id) {
                let task = Task::Change { id, change: change.clone(), pinned: false };
                answers.push((id, self.gather.submit(task)?));
            }
        }
        let mut changed = Vec::with_capacity(answers.len());
        for (id, answer) in answers {
            answer.await.unwrap_or(Err(CommitError::Closed))?;
            changed.push(id);
        }
        Ok(changed)
    }

    /// Opens messages and keeps them open. Blocks.
    fn pin(self: &Arc<Self>, ids: &[QueueId]) -> Pins {
        let mut pins = Pins { log: Arc::clone(self), ids: Vec::with_capacity(ids.len()) };
        for id in ids {
            if self.pin_one(*id) {
                pins.ids.push(*id);
            }
        }
        pins
    }

    pub(super) fn pin_one(&self, id: QueueId) -> bool {
        // The message may change while it is read; then it is read again.
        loop {
            let mut index = self.index();
            if let Some(active) = index.actives.open_fresh(id) {
                active.pins += 1;
                return true;
            }
            let Some(location) = Location::of(&index, id) else { return false };
            drop(index);
            let Loaded { version, active } = match location.load() {
                Ok(loaded) => loaded,
                Err(error) => {
                    self.set_aside(id, &error);
                    return false;
                }
            };
            let mut index = self.index();
            if index.get(id).is_some_and(|slot| slot.version == version) {
                index.actives.open(id, active).pins += 1;
                return true;
            }
        }
    }

    pub(in super::super) async fn list(
        self: &Arc<Self>,
        filter: &Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<Message>, ReadError> {
        let (log, filter) = (Arc::clone(self), filter.clone());
        let listed = spawn_blocking(move || log.list_now(&filter, after, limit)).await;
        Ok(listed.unwrap_or_default())
    }

    pub(in super::super) async fn show(
        self: &Arc<Self>,
        id: QueueId,
    ) -> Result<Option<Message>, ReadError> {
        let log = Arc::clone(self);
        spawn_blocking(move || log.show_now(id)).await.unwrap_or(Ok(None))
    }

    pub(in super::super) fn list_now(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Vec<Message> {
        if !filter.ids.is_empty() {
            let mut ids = filter.ids.clone();
            ids.retain(|id| after.is_none_or(|after| *id > after));
            ids.sort_unstable();
            ids.dedup();
            return self.view_matching(filter, ids).take(limit).collect();
        }
        let (mut found, mut after) = (Vec::new(), after);
        while found.len() < limit {
            let chunk = self.index().look_after(after, filter.exact_domain.as_ref(), CHUNK);
            let Some(last) = chunk.last else { break };
            after = Some(last);
            let room = limit - found.len();
            found.extend(self.view_matching(filter, chunk.ids).take(room));
        }
        found
    }

    /// Those of the messages that pass the filter. What cannot be read cannot be shown.
    fn view_matching(&self, filter: &Filter, ids: Vec<QueueId>) -> impl Iterator<Item = Message> {
        let messages = ids.into_iter().filter_map(|id| self.show_now(id).ok().flatten());
        messages.filter(|message| filter.matches(message))
    }

    /// One message, read if it is not at hand. Blocks.
    pub(in super::super) fn show_now(&self, id: QueueId) -> Result<Option<Message>, ReadError> {
        // Its records may move between the look and the reading; then they are found at the next.
        for _ in 1..READS_MAX {
            if let Ok(found) = self.show_once(id) {
                return Ok(found);
            }
        }
        self.show_once(id)
    }

    fn show_once(&self, id: QueueId) -> Result<Option<Message>, ReadError> {
        let index = self.index();
        if let Some(message) = view_open(&index, id) {
            return Ok(Some(message));
        }
        let Some(location) = Location::of(&index, id) else { return Ok(None) };
        drop(index);
        let Loaded { active, .. } = match location.load_without_body() {
            Ok(loaded) => loaded,
            // It may have gone between the look and the reading.
            Err(error) => return if self.index().contains(id) { Err(error) } else { Ok(None) },
        };
        let index = self.index();
        let Some(size) = index.get(id).map(|slot| slot.size) else { return Ok(None) };
        let mut message = Message {
            id,
            size,
            envelope: active.envelope,
            state: active.state,
            active: false,
            routes: Vec::new(),
        };
        complete(&index, &mut message);
        Ok(Some(message))
    }

    /// Finds the body of a message. Blocks.
    pub(in super::super) fn open_body(&self, id: QueueId) -> Result<Opened, ReadError> {
        let location = Location::of(&self.index(), id);
        let location = location.ok_or(ReadError::Damaged { id, what: "it was removed" })?;
        let (header, octets) = location.body()?;
        if header.flags & IN_FILE == 0 {
            Ok(Opened::Small(Arc::new(octets)))
        } else {
            Reader::open(self, id, octets, header.size).map(Opened::Large)
        }
    }

    pub(in super::super) fn size_of(&self, id: QueueId) -> Option<u64> {
        self.index().get(id).map(|slot| slot.size)
    }

    /// Holds a message back that cannot be read, and says so.
    pub(in super::super) fn set_aside(&self, id: QueueId, error: &ReadError) {
        if !matches!(error, ReadError::Damaged { .. }) || !self.index().contains(id) {
            return;
        }
        self.journal
            .line(Level::Error, "message_damaged")
            .word("id", id)
            .word("error", error)
            .send();
        let mut index = self.index();
        index.damaged += 1;
        if let Some(active) = index.actives.get_mut(id) {
            active.pins += 1;
            let since = self.clock.now();
            let hold = Hold { by: "mailroot".into(), reason: Some(error.to_string()), since };
            drop(index);
            self.gather.ride(Task::Change { id, change: Change::Hold(hold), pinned: true });
        } else {
            // Not even its envelope can be read: it keeps its place and is never due.
            index.disarm(id);
        }
    }
}

/// Messages that are kept open until this is dropped.
struct Pins {
    log: Arc<Log>,
    ids: Vec<QueueId>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut index = self.log.index();
        for id in &self.ids {
            index.actives.unpin(*id);
        }
    }
}

fn view_open(index: &Index, id: QueueId) -> Option<Message> {
    let size = index.get(id)?.size;
    let active = index.actives.get(id)?;
    let mut message = Message {
        id,
        size,
        envelope: Arc::clone(&active.envelope),
        state: active.state.clone(),
        active: active.is_leased(),
        routes: Vec::new(),
    };
    complete(index, &mut message);
    Some(message)
}

/// Fills in the routes, and the wishes of operators, which are in memory only.
fn complete(index: &Index, message: &mut Message) {
    let past = index.clock.past();
    for (place, to) in message.envelope.recipients.iter().enumerate() {
        let route = message.state.route_name(&index.table, &message.envelope.sender, to);
        let status = &mut message.state.recipients[place];
        if !status.phase.is_end() {
            let wanted = index.wanted(message.id, &route);
            status.next_attempt = wanted.unwrap_or_else(|| due_at(&past, status));
        }
        message.routes.push(route);
    }
}
