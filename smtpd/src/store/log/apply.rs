//! What the index makes of a task once its records are durable.

use std::sync::Arc;

use mailroot_common::id::QueueId;
use smtpd_core::queue::recipient::MessageState;

use super::active::Seat;
use super::commit::{Copied, NewBody, NewMessage, Task};
use super::committer::Record;
use super::index::{Index, Place};
use super::plan::plan;
use super::record::Kind;
use super::sending::Mark;
use super::standing::Standing;
use super::times::Times;

impl Index {
    /// Does what a task whose records are durable means.
    pub(super) fn apply(&mut self, task: Task, mut records: impl Iterator<Item = (Record, Place)>) {
        match task {
            Task::Accept(message) => {
                if let Some((_, place)) = records.next() {
                    self.accept(message, place);
                }
            }
            Task::Settle { id, places, reports, .. } => {
                let mut reports = reports.into_iter();
                for (record, place) in records {
                    if let Record::Message(_) = record {
                        let report = reports.next().expect("each report has one record");
                        self.accept(report, place);
                    } else {
                        self.change_state(id, record, place);
                    }
                }
                if let Some(active) = self.actives.get_mut(id) {
                    active.give_back(places);
                }
                self.relink_active(id);
                self.actives.close_if_idle(id);
            }
            Task::Change { id, pinned, .. } => {
                records.for_each(|(record, place)| self.change_state(id, record, place));
                self.relink_active(id);
                if pinned {
                    self.actives.unpin(id);
                }
            }
            Task::Doubt(mark) => {
                records.for_each(|(record, place)| self.change_state(mark.id, record, place));
                self.relink_active(mark.id);
                self.end_doubt(&mark);
            }
            Task::Copy(copied) => {
                for (record, to) in records {
                    let Record::Copied(place) = record else { continue };
                    let Copied { id, kind, from, .. } = &copied[place];
                    match kind {
                        Kind::Message => self.moved_record(*id, *from, to),
                        Kind::State => self.moved_state(*id, *from, to),
                        Kind::Removed => {
                            self.segments.moved_grave(*id, from.segment, to.segment);
                        }
                    }
                }
            }
        }
    }

    /// A mark found at the start is dealt with.
    pub(super) fn end_doubt(&mut self, mark: &Mark) {
        self.doubts -= 1;
        self.actives.unpin(mark.id);
    }

    fn accept(&mut self, message: NewMessage, place: Place) {
        let NewMessage { id, envelope, body, size, plans, table, .. } = message;
        self.insert(id, place, size);
        if envelope.hold.is_some() {
            self.hold_fresh(id);
        }
        self.note_times(id, Times::of(&envelope));
        let body = match body {
            NewBody::Memory(octets, _) => Some(octets),
            NewBody::File(mut file) => {
                self.large.insert(id, file.keep());
                None
            }
        };
        if Arc::ptr_eq(&table, &self.table) {
            self.relink(id, &plans, true);
        } else {
            let state = MessageState::fresh(&envelope);
            let plans = plan(&self.clock.past(), &self.table, &envelope, &state, |_| Seat::Free);
            self.relink(id, &plans, true);
        }
        self.actives.keep_fresh(id, envelope, body);
    }

    fn change_state(&mut self, id: QueueId, record: Record, place: Place) {
        match record {
            Record::State(state, version) => {
                self.set_state(id, place, version, Standing::of(&state));
                if let Some(active) = self.actives.get_mut(id) {
                    active.change_state(state);
                }
            }
            Record::Removed(_) => {
                self.remove(id, place.segment);
                self.actives.remove(id);
            }
            Record::Message(_) | Record::Copied(_) => {}
        }
    }

    /// Links an open message anew by another table. A turn that it had was one of another route.
    pub(super) fn relink_elsewhere(&mut self, id: QueueId) {
        if let Some(active) = self.actives.get_mut(id) {
            active.forget_turns();
        }
        self.relink_active(id);
    }

    /// Makes the links of an open message what its state says.
    pub(super) fn relink_active(&mut self, id: QueueId) {
        let Self { actives, table, clock, .. } = self;
        let Some(active) = actives.get_mut(id) else { return };
        let seat = |place: usize| active.seats[place];
        let plans = plan(&clock.past(), table, &active.envelope, &active.state, seat);
        active.end_return();
        self.relink(id, &plans, true);
    }
}
