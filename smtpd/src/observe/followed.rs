//! Messages whose senders see what becomes of them.
//!
//! In: ids, for as long as somebody stays. Out: whether there are any, by a look at a number, and whether
//! one is among them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use mailroot_common::id::QueueId;

/// Those messages.
#[derive(Debug, Default)]
pub(super) struct Followed {
    count: AtomicUsize,
    messages: Mutex<HashSet<QueueId>>,
}

impl Followed {
    pub(super) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    pub(super) fn has(&self, message: QueueId) -> bool {
        self.is_any() && self.change(|messages| messages.contains(&message))
    }

    pub(super) fn add(&self, message: QueueId) {
        self.change(|messages| messages.insert(message));
    }

    pub(super) fn take(&self, message: QueueId) {
        self.change(|messages| messages.remove(&message));
    }

    fn change(&self, how: impl FnOnce(&mut HashSet<QueueId>) -> bool) -> bool {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let said = how(&mut messages);
        self.count.store(messages.len(), Ordering::Relaxed);
        said
    }
}
