//! Which messages in memory a lease takes.

use std::cmp::Reverse;
use std::collections::HashMap;

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::turns::is_large;
use smtpd_core::queue::wishes::Priority;

use super::super::Pick;
use super::Stored;
use crate::clock::Past;

/// A message that may be leased: the highest priority first, then the longest due.
pub(super) type Candidate = (Reverse<Option<Priority>>, Timestamp, QueueId);

impl Stored {
    pub(super) fn picked(&self, past: &Past, pick: Pick, place: usize) -> bool {
        let Some(due) = self.due(past, place) else { return false };
        let accepted_at = past.as_of_now(self.envelope.begins_at());
        match pick {
            Pick::Due(now) => due <= now,
            Pick::SmallDue(now) => due <= now && !is_large(self.body.len() as u64),
            Pick::Aged(before) => {
                accepted_at < before && !self.state.recipients[place].awaits_operator()
            }
            Pick::Untold(before) => {
                let status = &self.state.recipients[place];
                accepted_at < before && !status.delay_told && !status.awaits_operator()
            }
        }
    }
}

/// Puts one sender's mail after the other's: the first of each, then the second of each.
pub(super) fn by_turns(found: &mut [Candidate], sender: impl Fn(QueueId) -> Option<ReversePath>) {
    let mut taken: HashMap<_, usize> = HashMap::new();
    found.sort_by_cached_key(|(priority, _, id)| {
        let sender = sender(*id).map(|sender| sender.to_string());
        let count = taken.entry((*priority, sender)).or_default();
        *count += 1;
        (*priority, *count)
    });
}
