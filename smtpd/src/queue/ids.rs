//! Gives ids: by time, unique, and above every id that was ever given, whatever the clock does.

use std::sync::atomic::{AtomicU64, Ordering};

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

/// The generator of one queue.
#[derive(Debug)]
pub(super) struct Ids(AtomicU64);

impl Ids {
    /// A generator whose first id is above `highest`.
    pub(super) const fn above(highest: QueueId) -> Self {
        Self(AtomicU64::new(highest.as_u64()))
    }

    /// The next id: the first of this millisecond, or the one after the last if that is higher.
    pub(super) fn next(&self, now: Timestamp) -> QueueId {
        let first = QueueId::at_millis(now.as_millis()).as_u64();
        let step = |last: u64| first.max(last + 1);
        let last = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(step(last)))
            .unwrap_or_else(|last| last);
        QueueId::from_u64(step(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_within_a_millisecond_and_when_the_clock_goes_back() {
        let ids = Ids::above(QueueId::from_u64(5));
        let moment = Timestamp::from_millis(1_763_000_000_000);
        let first = ids.next(moment);
        assert_eq!(first, QueueId::at_millis(1_763_000_000_000));
        let second = ids.next(moment);
        assert!(second > first);
        let after_jump = ids.next(Timestamp::from_millis(1_000));
        assert!(after_jump > second);
    }
}
