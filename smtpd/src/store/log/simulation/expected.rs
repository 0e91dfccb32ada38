//! What the simulation knows of its messages: where each recipient may be found after a restart.

use mailroot_common::id::QueueId;
use smtpd_core::queue::recipient::Phase;
use tokio::sync::oneshot::Receiver;

use super::super::super::CommitError;

/// Where one recipient was, step by step, and up to which step that was acknowledged.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) history: Vec<(Phase, u32)>,
    pub(super) acknowledged: usize,
    /// Whether an attempt ever marked it. Marks are not synced, so that even one that was cleared may
    /// be back after loss of power.
    pub(super) marked: bool,
    /// Whether a mark stands that no settlement has followed yet.
    pub(super) under_way: bool,
}

impl Expected {
    pub(super) fn at(now: (Phase, u32)) -> Self {
        Self { history: vec![now], acknowledged: 0, marked: false, under_way: false }
    }

    /// Whether it may be found so: where it was, or in doubt after an attempt from there.
    pub(super) fn may_be(&self, (phase, attempts): (Phase, u32)) -> bool {
        let possible = &self.history[self.acknowledged..];
        let from = |(before, count): &(Phase, u32)| !before.is_end() && count + 1 == attempts;
        possible.contains(&(phase, attempts))
            || (self.marked && phase == Phase::InDoubt && possible.iter().any(from))
    }
}

/// What is known of one message.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) body: Vec<u8>,
    pub(super) accepted: bool,
    pub(super) removal_asked: bool,
    pub(super) removed: bool,
    pub(super) recipients: Vec<Expected>,
}

/// A submission under way.
pub(super) struct Pending {
    pub(super) answer: Receiver<Result<(), CommitError>>,
    pub(super) what: What,
}

pub(super) enum What {
    Accept(QueueId),
    Settle { id: QueueId, steps: Vec<(usize, usize)>, report: Option<QueueId> },
    Remove(QueueId),
    Hold,
}
