//! The limits of time: of waiting, of the whole session, and of a body's pace.

use std::time::Duration;

use super::{Server, Stage, State};
use crate::smtp::refusal::Refusal;

/// The span over which the pace of a body is measured.
pub const RATE_WINDOW: Duration = Duration::from_mins(1);

impl Server {
    /// When [`Server::on_time`] must be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let settings = &self.settings;
        let common = self
            .quiet_since
            .saturating_add(settings.idle)
            .min(self.started.saturating_add(settings.session_time));
        match self.state {
            State::Commands | State::Login => common,
            State::Data | State::Chunk => common.min(self.window_start + RATE_WINDOW),
            State::Asking(_) | State::Handshake | State::Closed(_) => Duration::MAX,
        }
    }

    /// Looks at the clock; closes a session that met a limit of time.
    pub fn on_time(&mut self, now: Duration) {
        if now < self.deadline() {
            return;
        }
        let stage = if self.decoder.is_some() { Stage::End } else { Stage::Session };
        if now >= self.started.saturating_add(self.settings.session_time) {
            self.refuse(stage, Refusal::SessionTooLong, None);
        } else if now >= self.quiet_since.saturating_add(self.settings.idle) {
            self.refuse(stage, Refusal::Idle, None);
        } else if self.window_octets < self.settings.rate_min * RATE_WINDOW.as_secs() {
            self.refuse(stage, Refusal::TooSlow, None);
        } else {
            self.begin_window(now);
        }
    }

    pub(super) fn begin_window(&mut self, now: Duration) {
        self.window_start = now;
        self.window_octets = 0;
    }
}
