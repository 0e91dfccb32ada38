//! Lanes that wait for something of their site, first come first served.

use std::collections::VecDeque;
use std::ptr;
use std::sync::{Arc, Weak};

use super::super::lane::Lane;
use super::Site;
use super::heavy::HeavyPermit;

/// Lanes in line. A lane leaves its lines before it is gone.
#[derive(Debug, Default)]
pub(super) struct Line(VecDeque<Weak<Lane>>);

impl Line {
    /// A lane stands at the end.
    pub(super) fn join(&mut self, lane: Weak<Lane>) {
        self.0.push_back(lane);
    }

    /// A lane waits no longer, wherever it stood.
    pub(super) fn leave(&mut self, lane: &Lane) {
        self.0.retain(|known| !ptr::eq(known.as_ptr(), lane));
    }

    /// Takes the one out that has waited longest.
    pub(super) fn next(&mut self) -> Option<Arc<Lane>> {
        // One that is about to be gone has no use for anything.
        while let Some(lane) = self.0.pop_front() {
            if let Some(lane) = lane.upgrade() {
                return Some(lane);
            }
        }
        None
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A lane that may look again, and why. It lives until it was told.
#[derive(Debug)]
pub(in super::super) enum Woken {
    /// It is its turn in the line for connections of this site, or the site is well again.
    Turn(Arc<Lane>, Arc<Site>),
    /// It is its turn to carry a large message.
    Heavy(Arc<Lane>, HeavyPermit),
}

impl Woken {
    /// Tells the lane, which is to be looked at then.
    pub(in super::super) fn tell(self) -> Arc<Lane> {
        match self {
            Self::Turn(lane, site) => {
                lane.leave_line(&site);
                lane
            }
            Self::Heavy(lane, permit) => {
                lane.take_heavy_turn(permit);
                lane
            }
        }
    }
}
