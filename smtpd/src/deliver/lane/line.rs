//! A lane and its site: which it is, and standing in line for its connections.
//!
//! The lane knows in which lines it stands, so that it leaves them when its mail goes elsewhere or when it
//! is gone.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Lane, Refused, Site, State};

impl Lane {
    /// Its mail goes to this site.
    pub(in super::super) fn join(&self, site: &Arc<Site>) {
        let mut state = self.state();
        if state.is_at(site) {
            return;
        }
        // What it waited for there is no longer for it.
        self.step_out(&mut state);
        self.step_out_heavy(&mut state);
        if std::mem::take(&mut state.is_called) {
            state.let_next_go();
        }
        state.site = Some(Arc::clone(site));
    }

    /// Whether this is its site.
    pub(in super::super) fn is_at(&self, site: Option<&Arc<Site>>) -> bool {
        let state = self.state();
        site.map_or_else(|| state.site.is_none(), |site| state.is_at(site))
    }

    /// Whether others wait for its site, so that whoever has had a fair share makes way.
    pub(in super::super) fn is_site_wanted(&self) -> bool {
        self.state().is_site_wanted()
    }

    /// Others wait for its site and a worker has had its share: the lane stands in line behind them, for
    /// one connection. Its other workers go on.
    pub(in super::super) fn stand_back(self: &Arc<Self>, now: Duration) {
        let mut state = self.state();
        if !state.due {
            return;
        }
        if state.workers == 0 {
            state.put_off = Refused::Full.until(now);
        }
        self.line_up(&mut state);
    }

    /// Has itself woken when its site has room.
    pub(super) fn await_room(self: &Arc<Self>, state: &mut State, of_site: usize, now: Duration) {
        self.line_up(state);
        // Room that came meanwhile was told to nobody.
        if state.site.as_ref().is_some_and(|site| site.has_room(of_site, now)) {
            state.let_next_go();
        }
    }

    /// Has itself woken by its site.
    fn line_up(self: &Arc<Self>, state: &mut State) {
        if let Some(site) = &state.site
            && !std::mem::replace(&mut state.is_in_line, true)
        {
            site.line_up(Arc::downgrade(self));
        }
    }

    /// Waits for its site no longer.
    pub(super) fn step_out(&self, state: &mut State) {
        if let Some(site) = &state.site
            && std::mem::take(&mut state.is_in_line)
        {
            site.leave_line(self);
        }
    }

    /// The site in whose line it stood has room, or is well again: its next turn is for that. Whoever has no
    /// use for it lets the next one go.
    pub(in super::super) fn leave_line(&self, site: &Arc<Site>) {
        let mut state = self.state();
        // Who has started by himself meanwhile, or belongs to another site, is here no more.
        if state.is_at(site) && std::mem::take(&mut state.is_in_line) {
            state.put_off = Duration::ZERO;
            state.is_called = true;
        } else {
            site.let_next_go();
        }
    }

    /// The lane may have no turn now.
    pub(in super::super) fn pass_turn(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_called) {
            state.let_next_go();
        }
        state.heavy_turn = None;
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (is_in_line, is_in_heavy_line) = (state.is_in_line, state.is_in_heavy_line);
        let Some(site) = state.site.take() else { return };
        if is_in_line {
            site.leave_line(self);
        }
        if is_in_heavy_line {
            site.leave_heavy_line(self);
        }
    }
}

impl State {
    /// Whether its mail goes to this site.
    pub(super) fn is_at(&self, site: &Arc<Site>) -> bool {
        self.site.as_ref().is_some_and(|own| Arc::ptr_eq(own, site))
    }

    pub(super) fn is_site_wanted(&self) -> bool {
        self.site.as_ref().is_some_and(|site| site.is_wanted(self.is_in_line))
    }

    pub(super) fn let_next_go(&self) {
        if let Some(site) = &self.site {
            site.let_next_go();
        }
    }
}
