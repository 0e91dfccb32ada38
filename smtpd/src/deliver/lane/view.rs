//! What control shows of a lane.

use std::time::Duration;

use mailroot_common::control::OutboundLimit;
use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::outcome::Outcome;
use smtpd_core::route::table::RouteName;

use super::super::limits::Allowed;
use super::Lane;

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Nothing is under way.
    Idle,
    /// Mail is under way.
    Active,
    /// The destination could not be reached.
    BackingOff {
        /// When it is asked again.
        until: Timestamp,
        /// How often in a row it could not be reached.
        failures: u32,
    },
}

/// What control shows of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// The route.
    pub route: RouteName,
    /// What it is doing.
    pub state: LaneState,
    /// Workers that carry its mail, each with at most one connection.
    pub workers: usize,
    /// What limits the mail that leaves for it; nothing for Drop.
    pub limit: Option<OutboundLimit>,
    /// What the last failure to reach the destination came to.
    pub last: Option<Outcome>,
    /// When it last took something.
    pub taken_at: Option<Timestamp>,
}

impl Lane {
    /// As it is now, by both clocks, where the configuration allows so much.
    pub(in super::super) fn view(
        &self,
        (wall, now): (Timestamp, Duration),
        allowed: Allowed,
    ) -> LaneView {
        let state = self.state();
        let of_site = state
            .site
            .as_ref()
            .map(|site| site.look(|it| (it.is_troubled(), it.not_before(), it.failures())));
        let own = &state.health;
        let own = (own.is_troubled(), own.not_before(), own.failures());
        let rests = [Some(own), of_site].into_iter().flatten();
        let rest = rests.filter(|(is_troubled, until, _)| *is_troubled && now < *until);
        let lane_state = match rest.max_by_key(|(_, until, _)| *until) {
            Some((_, until, failures)) => {
                let left = u64::try_from((until - now).as_millis()).unwrap_or(u64::MAX);
                LaneState::BackingOff { until: wall.after(Span::millis(left)), failures }
            }
            None if state.workers > state.idle => LaneState::Active,
            None => LaneState::Idle,
        };
        let most = usize::try_from(allowed.connections).unwrap_or(usize::MAX);
        let of_site = state.site.as_ref().map(|site| site.look(|it| it.limit(most, now)));
        let earned = of_site.unwrap_or(most).min(state.health.limit(most, now));
        let rests_until = match lane_state {
            LaneState::BackingOff { until, .. } => Some(until),
            LaneState::Idle | LaneState::Active => None,
        };
        let is_outbound = !self.route.is_drop();
        LaneView {
            limit: is_outbound.then(|| OutboundLimit {
                entry: self.route.limited_by().map(str::to_owned),
                ..allowed.with(earned, rests_until)
            }),
            route: self.route.clone(),
            state: lane_state,
            workers: state.workers,
            last: state.last(),
            taken_at: state.taken_at.map(|taken_at| {
                let ago = u64::try_from((now - taken_at).as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_millis(wall.as_millis().saturating_sub(ago))
            }),
        }
    }
}
