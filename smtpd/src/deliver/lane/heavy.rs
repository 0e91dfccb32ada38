//! Large mail: how many workers of a lane carry it.
//!
//! A large message takes its connection for long. Half of those that the destination gets are for other
//! mail; a worker that may not carry large mail leases small mail only, and what it leaves is due again
//! when one of the others is done.

use std::time::Duration;

use super::{Lane, State};

impl Lane {
    /// A worker is about to carry a large message; says whether it may. Half of the connections are for
    /// other mail.
    pub(in super::super) fn begin_heavy(&self, now: Duration) -> bool {
        let mut state = self.state();
        let may = state.may_be_heavy(now);
        state.heavy += usize::from(may);
        state.heavy_waits |= !may;
        may
    }

    /// It has done so.
    pub(in super::super) fn end_heavy(&self) {
        let mut state = self.state();
        state.heavy -= 1;
        state.due |= std::mem::take(&mut state.heavy_waits);
    }

    /// Nothing but large mail may be due.
    pub(in super::super) fn leave_heavy(&self, now: Duration) {
        let mut state = self.state();
        if state.may_be_heavy(now) {
            state.due = true;
        } else {
            state.heavy_waits = true;
        }
    }
}

impl State {
    pub(super) fn may_be_heavy(&self, now: Duration) -> bool {
        let of_lane = self.health.limit(self.most, now);
        // A destination that asks for less asks it of its site.
        let of_site = self.site.as_ref().map(|site| site.look(|it| it.limit(self.most, now)));
        self.heavy < (of_lane.min(of_site.unwrap_or(of_lane)) / 2).max(1)
    }
}
