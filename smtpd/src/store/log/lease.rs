//! Leases of the log: due mail found in the index, read where it is not at hand, handed out.
//!
//! A lease is in memory only: after a crash everything is due again. Two leases never have the same
//! recipient; recipients of one message on different routes are leased and settled apart, and each
//! settlement is applied to the state as it then is.

use std::io;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::outcome::RemoteHost;
use smtpd_core::queue::recipient::RecipientStatus;
use smtpd_core::route::table::RouteName;
use tokio::task::spawn_blocking;

use super::super::lease::{Holder, Lease};
use super::super::{Changes, CommitError, Draft, NextDue, Pick, ReadError, RouteCount, due_at};
use super::Log;
use super::active::Seat;
use super::commit::Task;
use super::index::Index;
use super::read::{Loaded, Location};
use super::routes::Known;
use crate::observe::Level;

/// How long mail waits that the disk would not give.
const UNREADABLE_PAUSE: Span = Span::minutes(1);

impl Log {
    pub(in super::super) fn next_due(&self, now: Timestamp) -> NextDue {
        let mut index = self.index();
        let mut due = index.routes.next_due(now);
        due.deadline_at = index.deadlines.first().filter(|_| index.recovered);
        due
    }

    pub(in super::super) fn overdue(&self, now: Timestamp, max: usize) -> Vec<QueueId> {
        self.index().overdue(now, max)
    }

    pub(in super::super) fn put_off_deadline(&self, id: QueueId, until: Option<Timestamp>) {
        let deadlines = &mut self.index().deadlines;
        match until {
            Some(until) => deadlines.put_off(id, until),
            None => deadlines.remove(id),
        }
    }

    pub(in super::super) fn name_again(&self, route: &RouteName) {
        self.forget_known(route, Known::Nothing);
    }

    fn forget_known(&self, route: &RouteName, known: Known) {
        if self.index().routes.name_again(route, known) {
            self.work.notify_one();
        }
    }

    pub(in super::super) fn routes(&self) -> Vec<RouteCount> {
        self.index().routes.counts()
    }

    pub(in super::super) async fn lease(
        self: &Arc<Self>,
        route: &RouteName,
        pick: Pick,
        max: usize,
    ) -> Result<Vec<Lease>, ReadError> {
        let (ids, missing) = self.look(route, pick, max);
        let loaded = if missing.is_empty() {
            Vec::new()
        } else {
            let log = Arc::clone(self);
            spawn_blocking(move || log.load_all(&missing)).await.unwrap_or_default()
        };
        let leases = self.hand_out(route, pick, &ids, loaded);
        // Also if candidates came to nothing: whoever asked goes by what it was given.
        if Lease::are_all(&leases, max) {
            match pick {
                Pick::Due(_) => self.forget_known(route, Known::Nothing),
                Pick::SmallDue(_) => self.forget_known(route, Known::Large),
                Pick::Aged(_) | Pick::Untold(_) => {}
            }
        }
        Ok(leases)
    }

    /// The messages that may be leased, and those of them that have to be read first.
    pub(super) fn look(
        &self,
        route: &RouteName,
        pick: Pick,
        max: usize,
    ) -> (Vec<QueueId>, Vec<Location>) {
        let mut index = self.index();
        let ids = index.candidates(route, pick, max);
        let missing = ids
            .iter()
            .filter(|id| !index.actives.is_at_hand(**id))
            .filter_map(|id| Location::of(&index, *id))
            .collect();
        (ids, missing)
    }

    /// Reads messages. One that is damaged is set aside, so that it does not come up again; one the
    /// disk will not give comes up again after a while.
    pub(super) fn load_all(&self, missing: &[Location]) -> Vec<(QueueId, Loaded)> {
        let mut loaded = Vec::with_capacity(missing.len());
        for location in missing {
            match location.load() {
                Ok(found) => loaded.push((location.id, found)),
                Err(error @ ReadError::Damaged { .. }) => self.set_aside(location.id, &error),
                Err(error) => self.postpone(location.id, &error),
            }
        }
        loaded
    }

    fn postpone(&self, id: QueueId, error: &ReadError) {
        let line = self.journal.line(Level::Error, "message_unreadable");
        line.word("id", id).word("error", error).send();
        self.index().postpone(id, self.clock.now().after(UNREADABLE_PAUSE));
    }

    pub(super) fn hand_out(
        self: &Arc<Self>,
        route: &RouteName,
        pick: Pick,
        ids: &[QueueId],
        loaded: Vec<(QueueId, Loaded)>,
    ) -> Vec<Lease> {
        let mut index = self.index();
        for (id, Loaded { version, active }) in loaded {
            // If the message changed while it was read, it comes up again.
            if index.get(id).is_some_and(|slot| slot.version == version) {
                index.actives.open(id, active);
            }
        }
        ids.iter().filter_map(|id| self.lease_one(&mut index, route, pick, *id)).collect()
    }

    fn lease_one(
        self: &Arc<Self>,
        index: &mut Index,
        route: &RouteName,
        pick: Pick,
        id: QueueId,
    ) -> Option<Lease> {
        let size = index.get(id)?.size;
        let wanted = index.wanted(id, route);
        let (table, past) = (Arc::clone(&index.table), index.clock.past());
        let active = index.actives.open_fresh(id)?;
        let mut due = Vec::new();
        let held = !active.state.is_free();
        for (place, status) in active.state.recipients.iter().enumerate() {
            let free = !held && !status.phase.is_end() && !active.seats[place].is_leased();
            let picked = match pick {
                Pick::Due(now) | Pick::SmallDue(now) => {
                    wanted.unwrap_or_else(|| due_at(&past, status)) <= now
                }
                Pick::Aged(before) => {
                    past.as_of_now(active.envelope.begins_at()) < before
                        && !status.awaits_operator()
                }
                Pick::Untold(before) => {
                    past.as_of_now(active.envelope.begins_at()) < before
                        && !status.delay_told
                        && !status.awaits_operator()
                }
            };
            let to = &active.envelope.recipients[place];
            let sender = &active.envelope.sender;
            if free && picked && active.state.route_name(&table, sender, to) == *route {
                due.push((place, status.clone()));
            }
        }
        // What turns out not to be due waits for its moment: else it would come up for ever.
        let is_due = matches!(pick, Pick::Due(_) | Pick::SmallDue(_));
        let takes_turn = is_due || !due.is_empty();
        let number = index.routes.number(route).filter(|_| takes_turn);
        let turn = number.and_then(|number| index.take_turn(id, number, is_due));
        self.lease_places(index, id, (due, turn), size)
    }

    /// Takes these recipients of an open message, which has this turn.
    fn lease_places(
        self: &Arc<Self>,
        index: &mut Index,
        id: QueueId,
        (due, turn): (Vec<(usize, RecipientStatus)>, Option<u64>),
        size: u64,
    ) -> Option<Lease> {
        let active = index.actives.get_mut(id)?;
        for (place, _) in &due {
            active.seats[*place] = Seat::Leased(turn);
        }
        let (envelope, body) = (Arc::clone(&active.envelope), active.body.clone());
        let (via, returning) = (active.state.via.clone(), active.state.returning.clone());
        index.relink_active(id);
        if due.is_empty() {
            index.actives.close_if_idle(id);
            return None;
        }
        let holder = Holder::Log(Arc::clone(self), body);
        Some(Lease { id, envelope, due, size, via, returning, holder, mark: None })
    }

    pub(in super::super) async fn lease_message(
        self: &Arc<Self>,
        id: QueueId,
    ) -> Result<Option<Lease>, ReadError> {
        self.wait_recovered().await;
        loop {
            let location = {
                let mut index = self.index();
                let Some(size) = index.get(id).map(|slot| slot.size) else { return Ok(None) };
                if let Some(active) = index.actives.open_fresh(id) {
                    let recipients = active.state.recipients.iter().enumerate();
                    let due = recipients
                        .filter(|(place, status)| {
                            !active.seats[*place].is_leased() && !status.phase.is_end()
                        })
                        .map(|(place, status)| (place, status.clone()))
                        .collect();
                    return Ok(self.lease_places(&mut index, id, (due, None), size));
                }
                Location::of(&index, id)
            };
            let Some(location) = location else { return Ok(None) };
            let loaded = spawn_blocking(move || location.load()).await;
            let Ok(loaded) = loaded else { return Ok(None) };
            let Loaded { version, active } = loaded.inspect_err(|error| {
                self.set_aside(id, error);
                if matches!(error, ReadError::Damaged { .. }) {
                    // It would be asked for again and again.
                    self.index().forget_order(id);
                }
            })?;
            let mut index = self.index();
            // If the message changed while it was read, it is read again.
            if index.get(id).is_some_and(|slot| slot.version == version) {
                index.actives.open(id, active);
            }
        }
    }

    pub(in super::super) fn ordered(&self, max: usize) -> Vec<QueueId> {
        self.index().ordered(max)
    }

    pub(in super::super) fn give_back(&self, id: QueueId, places: impl Iterator<Item = usize>) {
        let mut index = self.index();
        if let Some(active) = index.actives.get_mut(id) {
            active.give_back(places);
            index.relink_active(id);
            index.actives.close_if_idle(id);
        }
        drop(index);
        self.work.notify_one();
    }

    pub(in super::super) async fn settle(
        self: &Arc<Self>,
        mut lease: Lease,
        changes: Changes,
        reports: Vec<(QueueId, Draft)>,
    ) -> Result<(), CommitError> {
        let mut prepared = Vec::with_capacity(reports.len());
        for (id, draft) in reports {
            // Until everything is prepared the lease gives its recipients back by itself, also if
            // the wait for the disk is broken off.
            prepared.push(self.prepare(id, draft).await?);
        }
        lease.disarm();
        let places = lease.places().collect();
        let (id, mark) = (lease.id, lease.mark);
        let task = Task::Settle { id, places, changes, reports: prepared, mark };
        let answer = self.gather.submit(task)?;
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    pub(in super::super) fn settle_later(&self, lease: &Lease, changes: Changes) {
        let places = lease.places().collect();
        let (id, mark) = (lease.id, lease.mark);
        self.gather.ride(Task::Settle { id, places, changes, reports: Vec::new(), mark });
    }

    /// Marks that the end of a message is about to leave; returns the slot of the mark. Without one
    /// the mail goes out all the same: what is lost is only the knowledge that it may have.
    pub(in super::super) fn mark_sending(
        &self,
        id: QueueId,
        mark: Option<u32>,
        places: &[usize],
        host: &RemoteHost,
    ) -> Option<u32> {
        match self.sending.mark(id, mark, places, host) {
            Ok(slot) => Some(slot),
            Err(error) => {
                self.report_unmarked(&error);
                mark
            }
        }
    }

    pub(super) fn report_unmarked(&self, error: &io::Error) {
        // Once per life: it would be said for every message.
        if self.sending.is_news() {
            let line = self.journal.line(Level::Error, "sending_not_marked");
            line.word("queue", self.settings.directory.display()).word("error", error).send();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mailroot_common::units::Span;
    use smtpd_core::queue::recipient::{Hold, ReturnOrder};
    use smtpd_core::route::smart_host::SmartHost;

    use super::super::super::Change;
    use super::super::super::conformance::{draft, id, route, settings, start, surroundings};
    use super::super::keeper::Kept;
    use super::*;
    use crate::disk::{Disk, Modelled};

    #[tokio::test]
    async fn mail_the_disk_did_not_give_is_named_again_and_leased_later() {
        let model = Arc::new(Modelled::new(1));
        let open = || {
            let settings = settings(Path::new("/spool/Queue"));
            Log::open(Disk::Modelled(Arc::clone(&model)), settings, surroundings()).unwrap()
        };
        let log = open();
        for number in 0..4 {
            let (committing, draft) = (Arc::clone(&log), draft(&["a@x.example"], start(), b"x"));
            let commit = tokio::spawn(async move { committing.commit(id(number), draft).await });
            while !commit.is_finished() {
                log.commit_step();
                tokio::task::yield_now().await;
            }
        }
        drop(log);
        model.kill();
        let log = open();
        while log.keep_step() != Kept::Idle {}
        let (name, now) = (route("mx:x.example"), log.clock.now());
        assert_eq!(log.next_due(now).routes, [name.as_str()].map(RouteName::from_text));

        model.refuse_reads(true);
        let first = log.lease(&name, Pick::Due(now), 2).await.unwrap();
        assert_eq!(first.len(), 0, "none could be read");
        model.refuse_reads(false);
        assert_eq!(
            log.next_due(now).routes,
            [name.as_str()].map(RouteName::from_text),
            "there is more"
        );
        let second = log.lease(&name, Pick::Due(now), 10).await.unwrap();
        assert_eq!(second.len(), 2, "those in trouble hold nobody up");
        let due = log.next_due(now);
        assert!(due.routes.is_empty() && due.wake_at.is_some(), "{due:?}");

        let later = log.clock.now().after(Span::minutes(2));
        assert_eq!(log.next_due(later).routes, [name.as_str()].map(RouteName::from_text));
        assert_eq!(log.lease(&name, Pick::Due(later), 10).await.unwrap().len(), 2);
    }

    /// Waits for a verb while the store's work is done step by step.
    async fn stepped<T: Send + 'static>(
        log: &Arc<Log>,
        verb: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let task = tokio::spawn(verb);
        while !task.is_finished() {
            log.commit_step();
            tokio::task::yield_now().await;
        }
        task.await.unwrap()
    }

    #[tokio::test]
    async fn orders_and_holds_of_a_message_are_there_after_a_loss_of_power() {
        let model = Arc::new(Modelled::new(1));
        let open = || {
            let settings = settings(Path::new("/spool/Queue"));
            let log = Log::open(Disk::Modelled(Arc::clone(&model)), settings, surroundings());
            let log = log.unwrap();
            while log.keep_step() != Kept::Idle {}
            log
        };
        let log = open();
        let hold = Hold { by: "anna".into(), reason: None, since: start() };
        for number in 0..3 {
            let mut draft = draft(&["a@x.example"], start(), b"x");
            draft.envelope.hold = (number == 2).then(|| hold.clone());
            let committing = Arc::clone(&log);
            stepped(&log, async move { committing.commit(id(number), draft).await }).await.unwrap();
        }
        let order = ReturnOrder { by: "anna".into(), reason: None, since: start() };
        let host = SmartHost::parse("hub.example:2525").unwrap();
        for (number, change) in
            [(0, Change::Return(order.clone())), (1, Change::Redirect(host, start()))]
        {
            let changing = Arc::clone(&log);
            let verb = async move { changing.change(&[id(number)], &change).await };
            assert_eq!(stepped(&log, verb).await.unwrap(), [id(number)]);
        }
        drop(log);
        model.kill();

        let log = open();
        assert_eq!((log.ordered(9), log.counts().held), (vec![id(0)], 1));
        let now = log.clock.now();
        let due = log.next_due(now).routes;
        assert_eq!(due, [route("host:hub.example:2525")], "neither returned nor held mail is due");
        let lease = log.lease_message(id(0)).await.unwrap().unwrap();
        assert_eq!(lease.returning, Some(order));
    }
}
