//! Large mail: how much of it is on its way to a site at once.
//!
//! Half of a site's connections are for other mail, whichever of its lanes carry the large messages. A lane
//! that may not carry one stands in a line of its own; leave that is given back goes to the next in line, so
//! that whoever comes by at that moment takes it from nobody. Where nothing large is on its way, nobody
//! stands in line.

use std::iter;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::super::lane::Lane;
use super::line::{Line, Woken};
use super::{Site, State};

/// Large mail of a site.
#[derive(Debug, Default)]
pub(super) struct Heavy {
    /// Messages on their way, and those that lanes were told of.
    carried: usize,
    /// How many may be, as it was said last.
    most: usize,
    /// Lanes that have more.
    line: Line,
}

/// Leave to carry a large message to a site; given back when it is dropped.
#[derive(Debug)]
pub(in super::super) struct HeavyPermit {
    site: Arc<Site>,
}

impl Site {
    /// Leave to carry one more large message, if there is any.
    pub(in super::super) fn enter_heavy(
        self: &Arc<Self>,
        limit: usize,
        now: Duration,
    ) -> Option<HeavyPermit> {
        let mut state = self.state();
        if !state.has_heavy_room(limit, now) {
            return None;
        }
        state.heavy.carried += 1;
        Some(HeavyPermit { site: Arc::clone(self) })
    }

    /// Whether there is leave to carry one more.
    pub(in super::super) fn has_heavy_room(&self, limit: usize, now: Duration) -> bool {
        self.state().has_heavy_room(limit, now)
    }

    /// Has a lane woken when it may carry a large message; says whether it stands in line now, and need not
    /// look at once.
    pub(in super::super) fn line_up_heavy(
        &self,
        lane: Weak<Lane>,
        limit: usize,
        now: Duration,
    ) -> bool {
        let mut state = self.state();
        let stands = !state.has_heavy_room(limit, now);
        if stands {
            state.heavy.line.join(lane);
        }
        stands
    }

    /// The lane has no large mail for it any more.
    pub(in super::super) fn leave_heavy_line(&self, lane: &Lane) {
        self.state().heavy.line.leave(lane);
    }

    /// It may have more connections by now.
    pub(super) fn grow_heavy(self: &Arc<Self>, state: &mut State, limit: usize, now: Duration) {
        if state.has_heavy_room(limit, now) {
            self.wake_heavy(state);
        }
    }

    fn wake_heavy(self: &Arc<Self>, state: &mut State) {
        let heavy = &mut state.heavy;
        self.wake(iter::from_fn(|| {
            let lane = (heavy.carried < heavy.most).then(|| heavy.line.next())??;
            heavy.carried += 1;
            Some(Woken::Heavy(lane, HeavyPermit { site: Arc::clone(self) }))
        }));
    }
}

impl State {
    fn has_heavy_room(&mut self, limit: usize, now: Duration) -> bool {
        self.heavy.most = (self.health.limit(limit, now) / 2).max(1);
        self.heavy.carried < self.heavy.most
    }
}

impl HeavyPermit {
    /// Whether it is for this site.
    pub(in super::super) fn is_for(&self, site: &Site) -> bool {
        *self.site == *site
    }
}

impl Drop for HeavyPermit {
    fn drop(&mut self) {
        let mut state = self.site.state();
        state.heavy.carried -= 1;
        self.site.wake_heavy(&mut state);
    }
}
