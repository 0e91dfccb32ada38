//! Names of sessions, inbound and outbound alike, so that a log line and an operator mean the same one.

use std::sync::atomic::{AtomicU64, Ordering};

use mailroot_common::id::SessionId;

/// Names for sessions, unique while the daemon runs.
#[derive(Debug, Default)]
pub struct SessionIds(AtomicU64);

impl SessionIds {
    /// Names that begin somewhere, so that those of two runs of the daemon are unlikely to meet.
    #[must_use]
    pub fn beginning_at(start: u64) -> Self {
        Self(AtomicU64::new(start & SessionId::MAX.as_u64()))
    }

    /// A name nobody has.
    pub fn next(&self) -> SessionId {
        SessionId::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }
}
