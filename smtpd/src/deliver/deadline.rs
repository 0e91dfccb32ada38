//! Mail whose sender named a time by which it is to be delivered, when that time is up (RFC 2852).
//!
//! It is met here whatever lanes do: behind a destination in trouble, on a paused route, between two
//! attempts. Whoever is being tried meanwhile is judged when that attempt ends.

use std::sync::Arc;

use mailroot_common::units::Span;
use smtpd_core::queue::dispose::meet_deadline;
use smtpd_core::queue::wishes::ByMode;

use super::finish::{Besides, deadline, in_doubt, record, rules};
use super::room::Room;
use crate::observe::Level;
use crate::queue::Lease;

/// Messages looked at in one go.
const BATCH: usize = 100;
/// When a message is looked at again of which somebody is being tried, or that cannot be read.
const AGAIN: Span = Span::seconds(5);

/// Returns what is wanted back and tells of what is late, until there is none of it or the queue is in
/// trouble.
pub(super) async fn meet_deadlines(room: &Arc<Room>) {
    while !room.is_halted() && room.pause_left().is_zero() {
        let overdue = room.queue.overdue(room.clock.now(), BATCH);
        if overdue.is_empty() {
            return;
        }
        for id in overdue {
            let again = Some(room.clock.now().after(AGAIN));
            match room.queue.lease_message(id).await {
                Ok(Some(lease)) if lease.returning.is_none() => {
                    // Before it is settled: what is gone then needs no further look.
                    room.queue.put_off_deadline(id, again);
                    if !meet(room, lease).await {
                        room.pause();
                        return;
                    }
                }
                Ok(_) => room.queue.put_off_deadline(id, again),
                Err(error) => {
                    let line = room.log.line(Level::Error, "lease-failed");
                    line.word("server", &room.server).word("id", id).word("error", &error).send();
                    room.queue.put_off_deadline(id, again);
                    room.pause();
                }
            }
        }
    }
}

/// Says whether all that was decided came to be.
async fn meet(room: &Arc<Room>, lease: Lease) -> bool {
    let settings = room.settings.load_full();
    let (id, envelope) = (lease.id, Arc::clone(&lease.envelope));
    let past = room.clock.past();
    let in_doubt = in_doubt(&settings, &envelope);
    let rules = rules(&past, &envelope, &settings.schedules.outbound, &in_doubt);
    let words = |place: usize| {
        let to = envelope.recipients.get(place)?;
        room.last_words(&to.route_name(&settings.table, &envelope.sender))
    };
    let disposition = meet_deadline(&envelope, &lease.due, &words, past.now, rules);
    let is_early = deadline(&past, &envelope).is_some_and(|at| at > past.now);
    let is_told = envelope.wishes.deliver_by.is_none_or(|by| by.mode == ByMode::Notify);
    let is_done = disposition.statuses.is_empty()
        || record(room, &settings, lease, disposition, Besides::default()).await;
    if is_done && is_told && !is_early {
        // Whoever is being tried now is told of when that attempt ends.
        room.queue.put_off_deadline(id, None);
    }
    is_done
}
