//! One lane: the mail of one route on its way out.
//!
//! The lane knows whether its route has due mail, how many workers carry it and whether the
//! destination could be reached. One worker makes the first contact; only then others join, one
//! for each full batch. After a failure the lane backs off, and one message asks again when its
//! time has come: a dead destination is never met by more than that.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::outcome::Outcome;
use smtpd_core::queue::retry::Schedule;
use smtpd_core::route::table::RouteName;
use tokio::sync::Notify;

use super::Settings;

/// Messages leased at once.
const BATCH: usize = 10;
/// How long a worker waits for more mail before it ends.
const LINGER: Duration = Duration::from_millis(100);
/// The longest back-off.
const BACK_OFF_MAX: Span = Span::minutes(15);
/// How long a destination that let no more connections in is not asked for more.
const CROWD_BELIEVED: Duration = Duration::from_mins(1);
/// How long the last words of a lane without trouble are remembered.
const REMEMBERED: Duration = Duration::from_hours(1);
/// Workers of a destination before it has taken anything.
const WORKERS_AT_FIRST: usize = 5;
/// How long a destination that asked for less is left alone, longer each time in a row.
const SLOWED_WAITS: [Duration; 4] = [
    Duration::from_secs(15),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
];
/// How long a lane waits whose shared limit of connections is used up by others.
const FULL_WAIT: Duration = Duration::from_secs(1);
/// Workers that write into Drop at once; more gain nothing.
const LOCAL_WORKERS: usize = 32;

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
    /// What the last failure to reach the destination came to.
    pub last: Option<Outcome>,
}

/// What [`Room::feed`] is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing, or a worker was woken.
    Done,
    /// Start a worker; the lane counts it already.
    Start,
    /// Keep the lane until a worker of another one ends; it stands in the queue once only.
    Starve,
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) route: RouteName,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    /// The queue has named the route and no lease came back short since: mail is due.
    due: bool,
    workers: usize,
    idle: usize,
    /// Whether the lane waits for a worker of another one to end.
    starving: bool,
    /// The destination was reached since the last failure.
    contact: bool,
    /// Workers with a connection that answers.
    in_contact: usize,
    /// The most workers the destination has let in, and until when that is believed.
    crowd: Option<(usize, Duration)>,
    failures: u32,
    /// How often in a row it asked for less.
    slowed: u32,
    /// The most workers for now: twice as many after each batch that goes well, half of them when less
    /// is asked for.
    window: usize,
    /// It has asked for less once: from then on one more after each batch.
    is_cautious: bool,
    /// Until when, in the clock's time, nothing is tried.
    not_before: Duration,
    last: Option<Outcome>,
    used_at: Duration,
}

impl Lane {
    pub(super) fn new(route: RouteName) -> Self {
        let state = State {
            due: false,
            workers: 0,
            idle: 0,
            starving: false,
            contact: false,
            in_contact: 0,
            crowd: None,
            failures: 0,
            slowed: 0,
            window: WORKERS_AT_FIRST,
            is_cautious: false,
            not_before: Duration::ZERO,
            last: None,
            used_at: Duration::ZERO,
        };
        Self { route, state: Mutex::new(state), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name_due(&self) {
        self.state().due = true;
    }

    /// How many workers it may have at most.
    pub(super) fn limit(&self, server: &str, settings: &Settings) -> usize {
        if self.route.is_drop() {
            return settings.connections_per_route.min(LOCAL_WORKERS);
        }
        let limited = settings.limited(server, &self.route);
        match limited.and_then(|limited| limited.limits.connections) {
            Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
            None => settings.connections_per_route,
        }
    }

    /// Wakes a worker that idles, or counts one more if the lane may have it.
    pub(super) fn take_turn(&self, now: Duration, limit: usize, room_left: bool) -> Turn {
        let mut state = self.state();
        if !state.due || now < state.not_before {
            return Turn::Done;
        }
        if state.idle > 0 {
            self.wake.notify_one();
            return Turn::Done;
        }
        let crowd = state.crowd.filter(|(_, until)| now < *until).map(|(most, _)| most);
        let limit = crowd.map_or(limit, |most| most.min(limit)).min(state.window);
        let may_grow = state.contact && state.workers < limit;
        if state.workers > 0 && !may_grow {
            return Turn::Done;
        }
        if room_left {
            state.workers += 1;
            return Turn::Start;
        }
        if std::mem::replace(&mut state.starving, true) { Turn::Done } else { Turn::Starve }
    }

    /// The lane has left the queue of those that wait for a worker.
    pub(super) fn end_starving(&self) {
        self.state().starving = false;
    }

    /// The destination answers.
    pub(super) fn on_contact(&self) {
        let mut state = self.state();
        state.contact = true;
        state.failures = 0;
    }

    /// The destination lets no more in than those who are in contact, if there are such.
    pub(super) fn is_crowded(&self, now: Duration) -> bool {
        let mut state = self.state();
        if state.in_contact == 0 {
            return false;
        }
        state.crowd = Some((state.in_contact, now + CROWD_BELIEVED));
        // The mail of whoever asks is due again.
        state.due = true;
        true
    }

    /// A batch has gone well.
    pub(super) fn on_progress(&self, limit: usize) {
        let mut state = self.state();
        state.slowed = 0;
        let more = if state.is_cautious { 1 } else { state.window };
        state.window = state.window.saturating_add(more).min(limit.max(1));
    }

    /// The destination asks for less: fewer workers, after a while. What several workers hear at
    /// the same time is one wish.
    pub(super) fn on_slowed(&self, outcome: Outcome, now: Duration, random: u64) {
        let mut state = self.state();
        state.due = true;
        if now < state.not_before {
            return;
        }
        let place = usize::try_from(state.slowed).unwrap_or(usize::MAX);
        let wait = *SLOWED_WAITS.get(place).unwrap_or(&SLOWED_WAITS[SLOWED_WAITS.len() - 1]);
        state.slowed = state.slowed.saturating_add(1);
        state.window = (state.window.min(state.workers) / 2).max(1);
        state.is_cautious = true;
        state.contact = false;
        state.last = Some(outcome);
        state.not_before = now + wait + jitter(wait, random);
    }

    /// Nothing may go before a moment, for no fault of the destination.
    pub(super) fn put_off(&self, until: Duration) {
        let mut state = self.state();
        state.due = true;
        state.not_before = state.not_before.max(until);
    }

    /// The limit of connections that it shares is used up by others.
    pub(super) fn on_full(&self, now: Duration) {
        self.put_off(now + FULL_WAIT);
    }

    /// There is no destination: all its mail is returned, and nothing is gained by waiting.
    pub(super) fn on_nowhere(&self) {
        let mut state = self.state();
        state.failures = 0;
        state.last = None;
    }

    /// Not one host could be talked to.
    pub(super) fn on_unreachable(
        &self,
        outcome: Outcome,
        now: Duration,
        schedule: &Schedule,
        random: u64,
    ) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.window = WORKERS_AT_FIRST;
        state.contact = false;
        state.last = Some(outcome);
        let wait = schedule.wait(state.failures).as_duration().min(BACK_OFF_MAX.as_duration());
        state.not_before = now + wait + jitter(wait, random);
    }

    /// A worker broke down: the lane waits as if nobody had answered.
    pub(super) fn on_breakdown(&self, outcome: Outcome, now: Duration) {
        let mut state = self.state();
        // So that the mail can grow too old, should it be the reason.
        state.last = Some(outcome);
        state.workers -= 1;
        state.failures = state.failures.saturating_add(1);
        state.contact = false;
        state.due = true;
        state.not_before = now + BACK_OFF_MAX.as_duration();
    }

    /// What a worker does next. Decided under one lock, so that mail named meanwhile is not
    /// forgotten; a worker that is told to end is not counted any more.
    pub(super) fn next(&self, now: Duration, welcome: bool, lingered: bool) -> Next {
        let mut state = self.state();
        state.used_at = now;
        let may = welcome && now >= state.not_before;
        if may && state.due {
            state.due = false;
            // After a failure one message asks.
            return Next::Lease(if state.is_troubled() { 1 } else { BATCH });
        }
        if may && !lingered {
            state.idle += 1;
            return Next::Linger;
        }
        state.workers -= 1;
        Next::End
    }

    /// Waits for more mail, for a while; says whether there is some.
    pub(super) async fn linger(&self) -> bool {
        let woken = tokio::time::timeout(LINGER, self.wake.notified()).await;
        self.state().idle -= 1;
        woken.is_ok()
    }

    /// A worker has a connection that answers.
    pub(super) fn gain_contact(&self) {
        self.state().in_contact += 1;
    }

    /// It has none any more.
    pub(super) fn lose_contact(&self) {
        self.state().in_contact -= 1;
    }

    pub(super) fn forgive(&self) {
        let mut state = self.state();
        state.not_before = Duration::ZERO;
    }

    pub(super) fn waits_until(&self) -> Option<Duration> {
        let state = self.state();
        (state.due && state.workers == 0).then_some(state.not_before)
    }

    /// Whether what was due has been tried: nobody carries mail, and none is due that may be tried.
    pub(super) fn has_had_its_turn(&self, now: Duration) -> bool {
        let state = self.state();
        state.workers == 0 && (!state.due || now < state.not_before)
    }

    /// What the last failure to reach the destination came to.
    pub(super) fn last(&self) -> Option<Outcome> {
        self.state().last.clone()
    }

    /// What the last failure came to, while the lane backs off.
    pub(super) fn trouble(&self) -> Option<Outcome> {
        let state = self.state();
        state.last.clone().filter(|_| state.is_troubled())
    }

    pub(super) fn is_forgettable(&self, now: Duration) -> bool {
        let state = self.state();
        let remembers = state.is_troubled() || state.last.is_some();
        let fresh = now < state.used_at.max(state.not_before) + REMEMBERED;
        state.workers == 0 && !state.due && !(remembers && fresh)
    }

    pub(super) fn view(&self, (wall, now): (Timestamp, Duration)) -> LaneView {
        let state = self.state();
        let lane_state = if state.is_troubled() && now < state.not_before {
            let left = u64::try_from((state.not_before - now).as_millis()).unwrap_or(u64::MAX);
            LaneState::BackingOff {
                until: wall.after(Span::millis(left)),
                failures: state.failures.max(state.slowed),
            }
        } else if state.workers > state.idle {
            LaneState::Active
        } else {
            LaneState::Idle
        };
        LaneView {
            route: self.route.clone(),
            state: lane_state,
            workers: state.workers,
            last: state.last.clone(),
        }
    }
}

impl State {
    /// Whether the destination could not be reached, or asked for less, when it was tried last.
    fn is_troubled(&self) -> bool {
        self.failures > 0 || self.slowed > 0
    }
}

/// What a worker does next.
pub(super) enum Next {
    /// Lease this many messages.
    Lease(usize),
    /// Wait for more mail.
    Linger,
    /// End; the lane no longer counts the worker.
    End,
}

/// Up to a tenth more.
fn jitter(wait: Duration, random: u64) -> Duration {
    let thousandths = u32::try_from(random % 100).unwrap_or(0);
    wait * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use mailroot_common::status::EnhancedCode;
    use smtpd_core::queue::outcome::Stage;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn lane() -> Lane {
        Lane::new(RouteName::from_text("mx:x.test"))
    }

    fn failure() -> Outcome {
        let status = EnhancedCode::transient(4, 1);
        Outcome::local(Timestamp::from_millis(0), Stage::Connect, status, "connection refused")
    }

    #[test]
    fn one_worker_makes_contact_before_others_join() {
        let lane = lane();
        assert_eq!(lane.take_turn(NOW, 20, true), Turn::Done, "nothing is due");
        lane.name_due();
        assert_eq!(lane.take_turn(NOW, 20, true), Turn::Start);
        assert_eq!(lane.take_turn(NOW, 20, true), Turn::Done, "no contact yet");
        lane.on_contact();
        assert_eq!(lane.take_turn(NOW, 2, true), Turn::Start);
        assert_eq!(lane.take_turn(NOW, 2, true), Turn::Done, "limit of the route");
        assert_eq!(lane.take_turn(NOW, 20, false), Turn::Starve, "limit of all");
        assert_eq!(lane.take_turn(NOW, 20, false), Turn::Done, "it waits once only");
        lane.end_starving();
        assert_eq!(lane.take_turn(NOW, 20, true), Turn::Start);
    }

    #[test]
    fn workers_grow_with_success_and_halve_when_less_is_asked_for() {
        let lane = lane();
        lane.name_due();
        let start_all = || (0..100).take_while(|_| lane.take_turn(NOW, 20, true) == Turn::Start);
        assert_eq!(start_all().count(), 1);
        lane.on_contact();
        assert_eq!(start_all().count(), WORKERS_AT_FIRST - 1);
        (0..100).for_each(|_| lane.on_progress(20));
        assert_eq!(start_all().count(), 20 - WORKERS_AT_FIRST, "the limit holds");
        let mut waits = Vec::new();
        for (later, window) in [(0, 10), (100, 5), (1_000, 2), (10_000, 1), (100_000, 1)] {
            let now = NOW + Duration::from_secs(later);
            lane.on_slowed(failure(), now, 0);
            lane.on_slowed(failure(), now, 0);
            waits.push((lane.state().not_before - now).as_secs());
            assert_eq!(lane.state().window, window);
        }
        assert_eq!(waits, [15, 60, 300, 900, 900]);
        assert!(lane.trouble().is_some());
        let later = NOW + Duration::from_hours(48);
        assert!(matches!(lane.next(later, true, false), Next::Lease(1)), "one message asks");
        lane.on_progress(20);
        assert!(lane.trouble().is_none());
        assert_eq!(lane.state().window, 2);
    }

    #[test]
    fn back_off_grows_by_the_schedule_and_ends_at_its_maximum() {
        let lane = lane();
        lane.name_due();
        let schedule = Schedule::outbound();
        let waits = [1, 2, 3, 4, 5].map(|_| {
            lane.on_unreachable(failure(), NOW, &schedule, 0);
            assert_eq!(lane.take_turn(NOW, 20, true), Turn::Done);
            lane.waits_until().unwrap() - NOW
        });
        assert_eq!(waits, [1, 5, 15, 15, 15].map(Duration::from_mins));
        assert!(lane.trouble().is_some());
        lane.forgive();
        assert_eq!(lane.take_turn(NOW, 20, true), Turn::Start);
        lane.on_contact();
        assert!(lane.trouble().is_none());
    }

    #[test]
    fn mail_behind_a_breakdown_can_grow_too_old() {
        let lane = lane();
        lane.name_due();
        assert_eq!(lane.take_turn(NOW, 20, true), Turn::Start);
        lane.on_breakdown(failure(), NOW);
        assert!(lane.trouble().is_some());
        assert_eq!(lane.waits_until(), Some(NOW + BACK_OFF_MAX.as_duration()));
    }

    #[test]
    fn jitter_adds_less_than_a_tenth() {
        let wait = Duration::from_mins(10);
        for random in [0, 1, 99, u64::MAX] {
            assert!(jitter(wait, random) < wait / 10);
        }
    }
}
