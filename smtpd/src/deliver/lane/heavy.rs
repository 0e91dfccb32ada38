//! Large mail: how many workers of a lane carry it.
//!
//! A large message takes its connection for long. Half of those that the destination gets are for other
//! mail, and half of those of a site, whichever of its lanes they carry. A worker that may not carry large
//! mail leases small mail only. What it leaves is due again when another worker of the lane is done with
//! its own, or when it is the lane's turn at the site; small mail that comes meanwhile is named as ever.

use std::sync::Arc;
use std::time::Duration;

use super::{HeavyPermit, Lane, Site, State};

/// Leave of a worker to carry a large message; given back when it is dropped.
#[derive(Debug)]
pub(in super::super) struct HeavyLoad {
    lane: Arc<Lane>,
    of_site: Option<HeavyPermit>,
}

impl Lane {
    /// Leave to carry a large message, if there is any; it makes use of the lane's turn, if it is that. If
    /// there is none, the lane hears when there may be.
    pub(in super::super) fn begin_heavy(
        self: &Arc<Self>,
        turn: Option<HeavyPermit>,
        now: Duration,
    ) -> Option<HeavyLoad> {
        let mut state = self.state();
        if state.has_own_room(now) {
            let (site, most) = (state.site.clone(), state.most_of_site);
            let of_site = site.as_ref().map(|site| {
                turn.filter(|turn| turn.is_for(site)).or_else(|| site.enter_heavy(most, now))
            });
            if of_site.as_ref().is_none_or(Option::is_some) {
                state.heavy += 1;
                return Some(HeavyLoad { lane: Arc::clone(self), of_site: of_site.flatten() });
            }
        }
        self.await_heavy(&mut state, now);
        None
    }

    /// Nothing but large mail may be due.
    pub(in super::super) fn leave_heavy(self: &Arc<Self>, now: Duration) {
        self.await_heavy(&mut self.state(), now);
    }

    /// Has the lane hear when it may carry a large message.
    fn await_heavy(self: &Arc<Self>, state: &mut State, now: Duration) {
        if !state.has_own_room(now) {
            state.heavy_waits = true;
        } else if state.heavy_turn.is_some() {
            state.due = true;
        } else if !state.is_in_heavy_line {
            let (site, most) = (state.site.as_ref(), state.most_of_site);
            let lane = Arc::downgrade(self);
            state.is_in_heavy_line = site.is_some_and(|it| it.line_up_heavy(lane, most, now));
            state.due |= !state.is_in_heavy_line;
        }
    }

    /// It is its turn to carry a large message to its site.
    pub(in super::super) fn take_heavy_turn(&self, turn: HeavyPermit) {
        let mut state = self.state();
        // The turn of a lane that went elsewhere is the next one's.
        let is_here = state.site.as_ref().is_some_and(|site| turn.is_for(site));
        if is_here && std::mem::take(&mut state.is_in_heavy_line) {
            state.due = true;
            state.heavy_turn = Some(turn);
            state.is_heavy_turn_new = true;
        }
    }

    /// Waits for its turn at its site no longer, and looks itself.
    pub(super) fn step_out_heavy(&self, state: &mut State) {
        state.heavy_turn = None;
        if let Some(site) = &state.site
            && std::mem::take(&mut state.is_in_heavy_line)
        {
            site.leave_heavy_line(self);
            state.due = true;
        }
    }
}

impl State {
    /// How many workers may carry large mail, as far as the lane alone goes.
    fn has_own_room(&self, now: Duration) -> bool {
        let of_lane = self.health.limit(self.most, now);
        // A destination that asks for less asks it of its site.
        let of_site = self.site.as_ref().map(|site| site.look(|it| it.limit(self.most, now)));
        self.heavy < (of_lane.min(of_site.unwrap_or(of_lane)) / 2).max(1)
    }

    /// Whether a worker may carry large mail; `has_turn` if it is the lane's turn at its site.
    pub(super) fn may_be_heavy(&self, now: Duration, has_turn: bool) -> bool {
        let has_room = |site: &Arc<Site>| site.has_heavy_room(self.most_of_site, now);
        self.has_own_room(now) && (has_turn || self.site.as_ref().is_none_or(has_room))
    }

    /// The lane may have more workers by now.
    pub(super) fn grow_heavy(&mut self, now: Duration) {
        if self.heavy_waits && self.has_own_room(now) {
            self.heavy_waits = false;
            self.due = true;
        }
    }
}

impl HeavyLoad {
    /// A large message is about to leave for a site; says whether it may. What was counted elsewhere is
    /// counted there from now on.
    pub(in super::super) fn move_to(&mut self, site: &Arc<Site>, now: Duration) -> bool {
        if self.of_site.as_ref().is_some_and(|known| known.is_for(site)) {
            return true;
        }
        let most = self.lane.state().most_of_site;
        self.of_site = site.enter_heavy(most, now);
        self.of_site.is_some()
    }
}

impl Drop for HeavyLoad {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        state.heavy -= 1;
        state.due |= std::mem::take(&mut state.heavy_waits);
    }
}
