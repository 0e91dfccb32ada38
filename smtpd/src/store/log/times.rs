//! What senders want of time: kept in the index for messages that say so, and for no others.

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::Envelope;

use super::index::{CHUNK, Index};

/// What the sender of a message wants of time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    deadline: Option<Timestamp>,
    release: Option<Timestamp>,
}

impl Times {
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self { deadline: envelope.deadline(), release: envelope.wishes.release_at }
    }
}

impl Index {
    /// Takes down what the sender of a message wants of time.
    pub(super) fn note_times(&mut self, id: QueueId, times: Times) {
        if let Some(deadline) = times.deadline {
            self.deadlines.add(id, deadline);
        }
        if let Some(release) = times.release {
            self.releases.insert(id, release);
        }
    }

    /// Up to `max` messages that wait though the time is up that their senders named.
    pub(super) fn overdue(&mut self, now: Timestamp, max: usize) -> Vec<QueueId> {
        let Self { deadlines, by_id, slots, .. } = self;
        deadlines.overdue(now, max, |id| {
            let Some(number) = by_id.get(&id).map(|number| *number as usize) else { return false };
            let slot = slots[number / CHUNK][number % CHUNK].as_ref();
            slot.is_some_and(|slot| slot.standing.is_held())
        })
    }
}
