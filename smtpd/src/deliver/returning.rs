//! Mail that an operator wants returned to its senders.
//!
//! The order stands in the store. It is carried out here, whatever lanes do: nobody is tried any
//! more, and whoever is being tried is returned when that attempt ends without an end of its own.
//! What it comes to is settled as any permanent failure is.

use std::sync::Arc;

use smtpd_core::queue::dispose::{give_up, returned_by_operator};

use super::deadline::meet_deadlines;
use super::finish::{Besides, record};
use super::room::Room;
use crate::observe::Level;

/// Messages looked at in one go.
const BATCH: usize = 100;

/// Does what need not wait for an attempt: what operators and senders want of mail that waits.
pub(super) async fn settle_waiting(room: Arc<Room>) {
    return_ordered(&room).await;
    meet_deadlines(&room).await;
    room.look_sooner();
}

/// Returns messages until there is none to return, or the queue is in trouble.
async fn return_ordered(room: &Arc<Room>) {
    while !room.is_halted() && room.pause_left().is_zero() {
        let ordered = room.queue.ordered(BATCH);
        if ordered.is_empty() {
            break;
        }
        for id in ordered {
            let lease = match room.queue.lease_message(id).await {
                Ok(Some(lease)) => lease,
                Ok(None) => continue,
                Err(error) => {
                    let line = room.log.line(Level::Error, "lease-failed");
                    line.word("server", &room.server).word("id", id).word("error", &error).send();
                    room.pause();
                    continue;
                }
            };
            let Some(order) = lease.returning.clone() else { continue };
            let settings = room.settings.load_full();
            let outcome = returned_by_operator(&order, room.clock.now());
            let disposition = give_up(&lease.envelope, &lease.due, &outcome);
            if !record(room, &settings, lease, disposition, Besides::default()).await {
                // It would be tried again at once.
                room.pause();
                break;
            }
        }
    }
}
