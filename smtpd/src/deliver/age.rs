//! Mail that waits behind a destination in trouble: it is not tried, but its time runs.

use std::sync::Arc;

use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::dispose::expire;
use smtpd_core::queue::recipient::RecipientStatus;

use super::Settings;
use super::finish::{Besides, in_doubt, record, rules};
use super::lane::Lane;
use super::room::Room;
use crate::queue::Lease;

/// Messages looked at in one go.
const BATCH: usize = 100;

/// Returns mail whose time is up and tells of delays, on all lanes in trouble.
pub(super) async fn age(room: Arc<Room>) {
    let settings = room.settings.load_full();
    for lane in room.lanes_in_trouble() {
        if !room.pause_left().is_zero() {
            return;
        }
        age_lane(&room, &settings, &lane).await;
    }
}

async fn age_lane(room: &Arc<Room>, settings: &Settings, lane: &Arc<Lane>) {
    let schedule = settings.schedule(&lane.route);
    let now = room.clock.now();
    let before =
        |span: Span| Timestamp::from_millis(now.as_millis().saturating_sub(span.as_millis()));
    loop {
        let leases = room.queue.lease_aged(&lane.route, before(schedule.expire), BATCH).await;
        if !judge(room, settings, lane, leases.unwrap_or_default()).await {
            break;
        }
    }
    let Some(notice) = schedule.delay_notice else { return };
    loop {
        let leases = room.queue.lease_untold(&lane.route, before(notice), BATCH).await;
        if !judge(room, settings, lane, leases.unwrap_or_default()).await {
            break;
        }
    }
}

/// Says whether there may be more: the batch was full, and all that was decided came to be.
async fn judge(
    room: &Arc<Room>,
    settings: &Settings,
    lane: &Arc<Lane>,
    leases: Vec<Lease>,
) -> bool {
    let schedule = settings.schedule(&lane.route);
    // A lane that got well meanwhile tries its mail itself.
    let Some(trouble) = room.trouble(lane) else { return false };
    let mut more = leases.len() == BATCH && !room.is_halted();
    for lease in leases {
        let past = room.clock.past();
        let envelope = Arc::clone(&lease.envelope);
        let in_doubt = in_doubt(settings, &envelope);
        let rules = rules(&past, &envelope, &schedule, &in_doubt);
        let disposition = expire(&envelope, &lease.due, Some(&trouble), past.now, rules);
        // Whoever wants no notice counts as told, so that the next look passes them over.
        let quiet = lease
            .due
            .iter()
            .filter(|(place, _)| disposition.status(*place).is_none())
            .map(|(place, status)| {
                let told = RecipientStatus { delay_told: true, ..status.clone() };
                (*place, told)
            })
            .collect();
        more &= record(room, settings, lease, disposition, Besides { quiet, ..Besides::default() })
            .await;
    }
    more
}
