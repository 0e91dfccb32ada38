//! One lane: the mail of one route on its way out.
//!
//! The lane knows whether its route has due mail, how many workers carry it and whether the
//! destination could be reached. One worker makes the first contact; only then others join, one
//! for each full batch. After a failure the lane backs off, and one message asks again when its
//! time has come: a dead destination is never met by more than that. Where the mail goes to a site,
//! the troubles are those of the site.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::units::{Span, Timestamp};
use smtpd_core::queue::outcome::Outcome;
use smtpd_core::queue::retry::Schedule;
use smtpd_core::route::table::RouteName;
use tokio::sync::Notify;

use super::Settings;
use super::health::Health;
use super::site::{Refused, Site};

/// Messages leased at once.
const BATCH: usize = 10;
/// How long a worker waits for more mail before it ends.
const LINGER: Duration = Duration::from_millis(100);
/// How long the last words of a lane without trouble are remembered.
const REMEMBERED: Duration = Duration::from_hours(1);
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
    /// When it last took something.
    pub taken_at: Option<Timestamp>,
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

#[derive(Debug, Default)]
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
    /// How the destination fares, as far as that is no matter of a site.
    health: Health,
    /// The site that its mail goes to, as far as it is known.
    site: Option<Arc<Site>>,
    /// Whether it stands in its site's line.
    is_in_line: bool,
    /// Until when, in the clock's time, nothing is tried for no fault of the destination.
    put_off: Duration,
    used_at: Duration,
    /// When the destination last took something.
    taken_at: Option<Duration>,
}

impl Lane {
    pub(super) fn new(route: RouteName) -> Self {
        Self { route, state: Mutex::default(), wake: Notify::new() }
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

    /// Wakes a worker that idles, or counts one more if the lane may have it. The limits are its own, and
    /// that of its site.
    pub(super) fn take_turn(
        self: &Arc<Self>,
        now: Duration,
        (limit, of_site): (usize, usize),
        room_left: bool,
    ) -> Turn {
        let mut state = self.state();
        if !state.due || now < state.not_before() {
            return Turn::Done;
        }
        if state.idle > 0 {
            self.wake.notify_one();
            return Turn::Done;
        }
        // Whoever others wait for has enough.
        let is_wanted = state.site.as_ref().is_some_and(|site| site.is_wanted());
        let earned = state.health.limit(limit, now);
        let may_grow = state.contact && state.workers < earned && !is_wanted;
        if state.workers > 0 && !may_grow {
            return Turn::Done;
        }
        if let Some(refused) = state.site_refuses(of_site, now) {
            if state.workers == 0 {
                state.put_off = refused.until(now);
                self.line_up(&mut state);
                // Room that came meanwhile was told to nobody.
                if state.site_refuses(of_site, now).is_none()
                    && let Some(site) = &state.site
                {
                    site.let_next_go();
                }
            }
            return Turn::Done;
        }
        if room_left {
            state.workers += 1;
            state.is_in_line = false;
            return Turn::Start;
        }
        if std::mem::replace(&mut state.starving, true) { Turn::Done } else { Turn::Starve }
    }

    /// Others wait for its site and this lane has had its share: it stands in line behind them, unless
    /// some of its workers go on.
    pub(super) fn stand_back(self: &Arc<Self>, now: Duration) {
        let mut state = self.state();
        if state.workers == 0 {
            state.put_off = Refused::Full.until(now);
            self.line_up(&mut state);
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

    /// Its site has room, or is well again. Whoever has no use for that lets the next one go.
    pub(super) fn leave_line(&self, now: Duration) {
        let mut state = self.state();
        // Who has started by himself meanwhile is here no more.
        let was_in_line = std::mem::replace(&mut state.is_in_line, false);
        if was_in_line {
            state.put_off = Duration::ZERO;
        }
        let has_use = was_in_line && state.due && !state.health.rests(now);
        if let Some(site) = state.site.as_ref().filter(|_| !has_use) {
            site.let_next_go();
        }
    }

    /// The lane has left the queue of those that wait for a worker.
    pub(super) fn end_starving(&self) {
        self.state().starving = false;
    }

    /// Its mail goes to this site.
    pub(super) fn join(&self, site: &Arc<Site>) {
        let mut state = self.state();
        if state.site.as_ref().is_none_or(|known| !Arc::ptr_eq(known, site)) {
            state.site = Some(Arc::clone(site));
            // Whatever line it stood in is no longer its own.
            state.is_in_line = false;
        }
    }

    /// The destination answers.
    pub(super) fn on_contact(&self) {
        let mut state = self.state();
        state.contact = true;
        state.health.on_contact();
    }

    /// The destination lets no more in than those who are in contact, if there are such.
    pub(super) fn is_crowded(&self, site: Option<&Arc<Site>>, now: Duration) -> bool {
        let mut state = self.state();
        let in_contact = state.in_contact;
        let is_crowded = match site {
            Some(site) => site.is_crowded(now),
            None => in_contact > 0,
        };
        if !is_crowded {
            return false;
        }
        if site.is_none() {
            state.health.on_crowded(in_contact, now);
        }
        // The mail of whoever asks is due again.
        state.due = true;
        true
    }

    /// A batch has gone well.
    pub(super) fn on_progress(
        &self,
        site: Option<&Arc<Site>>,
        (limit, of_site): (usize, usize),
        now: Duration,
    ) {
        let mut state = self.state();
        state.health.on_progress(limit);
        state.taken_at = Some(now);
        if let Some(site) = site {
            site.on_progress(of_site);
        }
    }

    /// The destination asks for less: fewer connections, after a while.
    pub(super) fn on_slowed(
        &self,
        site: Option<&Arc<Site>>,
        outcome: Outcome,
        now: Duration,
        random: u64,
    ) {
        let mut state = self.state();
        state.due = true;
        state.contact = false;
        match site {
            Some(site) => site.on_slowed(outcome, now, random),
            None => {
                let workers = state.workers;
                state.health.on_slowed(outcome, workers, now, random);
            }
        }
    }

    /// Nothing may go before a moment, for no fault of the destination.
    pub(super) fn put_off(&self, until: Duration) {
        let mut state = self.state();
        state.due = true;
        state.put_off = state.put_off.max(until);
    }

    /// The limit of connections that it shares is used up by others.
    pub(super) fn on_full(&self, now: Duration) {
        self.put_off(now + FULL_WAIT);
    }

    /// There is no destination: all its mail is returned, and nothing is gained by waiting.
    pub(super) fn on_nowhere(&self) {
        self.state().health.on_nowhere();
    }

    /// Not one host could be talked to, or none was found; in the first case that is a matter of the
    /// site, if the hosts are one.
    pub(super) fn on_unreachable(
        &self,
        site: Option<&Arc<Site>>,
        outcome: Outcome,
        now: Duration,
        schedule: &Schedule,
        random: u64,
    ) {
        let mut state = self.state();
        state.contact = false;
        match site {
            Some(site) => site.on_unreachable(outcome, now, schedule, random),
            None => state.health.on_unreachable(outcome, now, schedule, random),
        }
    }

    /// A worker broke down: the lane waits as if nobody had answered.
    pub(super) fn on_breakdown(&self, outcome: Outcome, now: Duration) {
        let mut state = self.state();
        state.workers -= 1;
        state.contact = false;
        state.due = true;
        state.health.on_breakdown(outcome, now);
    }

    /// What a worker does next. Decided under one lock, so that mail named meanwhile is not
    /// forgotten; a worker that is told to end is not counted any more.
    pub(super) fn next(&self, now: Duration, welcome: bool, lingered: bool) -> Next {
        let mut state = self.state();
        state.used_at = now;
        let may = welcome && now >= state.not_before() && !state.site_rests(now);
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

    /// Its mail may be tried at once.
    pub(super) fn forgive(&self) {
        let mut state = self.state();
        state.health.forgive();
        state.put_off = Duration::ZERO;
        if let Some(site) = &state.site {
            site.forgive();
        }
    }

    pub(super) fn waits_until(&self) -> Option<Duration> {
        let state = self.state();
        (state.due && state.workers == 0).then_some(state.not_before())
    }

    /// Whether what was due has been tried: nobody carries mail, and none is due that may be tried.
    pub(super) fn has_had_its_turn(&self, now: Duration) -> bool {
        let state = self.state();
        let rests = state.health.rests(now) || state.site_rests(now);
        state.workers == 0 && (!state.due || rests)
    }

    /// What the last failure to reach the destination came to.
    pub(super) fn last(&self) -> Option<Outcome> {
        self.state().last()
    }

    /// What the last failure came to, while the lane backs off.
    pub(super) fn trouble(&self) -> Option<Outcome> {
        let state = self.state();
        let of_site = || state.site.as_ref()?.look(|health| health.trouble().cloned());
        state.health.trouble().cloned().or_else(of_site)
    }

    /// Whether others wait for its site, so that whoever has had a fair share makes way.
    pub(super) fn is_site_wanted(&self) -> bool {
        self.state().site.as_ref().is_some_and(|site| site.is_wanted())
    }

    pub(super) fn is_forgettable(&self, now: Duration) -> bool {
        let state = self.state();
        let remembers = state.is_troubled() || state.last().is_some();
        let of_site = state.site.as_ref().map(|site| site.look(Health::not_before));
        let not_before = state.not_before().max(of_site.unwrap_or_default());
        let fresh = now < state.used_at.max(not_before) + REMEMBERED;
        // Of smart hosts that have names there are few, and people ask how they fare.
        let is_wanted = (remembers && fresh) || self.route.smart_host().is_some();
        state.workers == 0 && !state.due && !is_wanted
    }

    pub(super) fn view(&self, (wall, now): (Timestamp, Duration)) -> LaneView {
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
        LaneView {
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

impl State {
    /// Whether the destination could not be reached, or asked for less, when it was tried last.
    fn is_troubled(&self) -> bool {
        let of_site = || self.site.as_ref().is_some_and(|site| site.look(Health::is_troubled));
        self.health.is_troubled() || of_site()
    }

    /// Until when the lane itself tries nothing.
    fn not_before(&self) -> Duration {
        self.put_off.max(self.health.not_before())
    }

    fn site_rests(&self, now: Duration) -> bool {
        self.site.as_ref().is_some_and(|site| site.look(|health| health.rests(now)))
    }

    fn site_refuses(&self, limit: usize, now: Duration) -> Option<Refused> {
        self.site.as_ref()?.has_room(limit, now).err()
    }

    fn last(&self) -> Option<Outcome> {
        let of_site = || self.site.as_ref()?.look(|health| health.last().cloned());
        self.health.last().cloned().or_else(of_site)
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

#[cfg(test)]
mod tests {
    use mailroot_common::status::EnhancedCode;
    use smtpd_core::queue::outcome::Stage;

    use super::super::site::Sites;
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn lane() -> Arc<Lane> {
        Arc::new(Lane::new(RouteName::from_text("mx:x.test")))
    }

    fn failure() -> Outcome {
        let status = EnhancedCode::transient(4, 1);
        Outcome::local(Timestamp::from_millis(0), Stage::Connect, status, "connection refused")
    }

    #[test]
    fn one_worker_makes_contact_before_others_join() {
        let lane = lane();
        assert_eq!(lane.take_turn(NOW, (20, 20), true), Turn::Done, "nothing is due");
        lane.name_due();
        assert_eq!(lane.take_turn(NOW, (20, 20), true), Turn::Start);
        assert_eq!(lane.take_turn(NOW, (20, 20), true), Turn::Done, "no contact yet");
        lane.on_contact();
        assert_eq!(lane.take_turn(NOW, (2, 2), true), Turn::Start);
        assert_eq!(lane.take_turn(NOW, (2, 2), true), Turn::Done, "limit of the route");
        assert_eq!(lane.take_turn(NOW, (20, 20), false), Turn::Starve, "limit of all");
        assert_eq!(lane.take_turn(NOW, (20, 20), false), Turn::Done, "it waits once only");
        lane.end_starving();
        assert_eq!(lane.take_turn(NOW, (20, 20), true), Turn::Start);
    }

    #[test]
    fn workers_are_as_many_as_the_destination_has_earned() {
        let lane = lane();
        lane.name_due();
        let start_all =
            || (0..100).take_while(|_| lane.take_turn(NOW, (20, 20), true) == Turn::Start);
        assert_eq!(start_all().count(), 1);
        lane.on_contact();
        assert_eq!(start_all().count(), 4);
        (0..100).for_each(|_| lane.on_progress(None, (20, 20), NOW));
        assert_eq!(start_all().count(), 15, "the limit holds");
        lane.on_slowed(None, failure(), NOW, 0);
        assert!(lane.trouble().is_some());
        let later = NOW + Duration::from_hours(48);
        assert!(matches!(lane.next(later, true, false), Next::Lease(1)), "one message asks");
        lane.on_progress(None, (20, 20), later);
        assert!(lane.trouble().is_none());
    }

    #[test]
    fn lanes_of_a_site_stand_in_line_and_one_asks_how_it_fares() {
        let sites = Sites::default();
        let site = sites.find(&[]);
        let lanes = [lane(), lane()];
        for lane in &lanes {
            lane.name_due();
            lane.join(&site);
        }
        let all: Vec<_> = (0..2).map(|_| site.enter(2, NOW).unwrap()).collect();
        assert_eq!(lanes[0].take_turn(NOW, (2, 2), true), Turn::Done, "the site is full");
        assert!(lanes[0].waits_until().unwrap() > NOW);
        drop(all);
        let woken = sites.take_woken();
        assert_eq!(woken.len(), 1);
        woken[0].leave_line(NOW);
        assert_eq!(lanes[0].take_turn(NOW, (2, 2), true), Turn::Start);
        lanes[0].on_unreachable(Some(&site), failure(), NOW, &Schedule::outbound(), 0);
        assert_eq!(lanes[1].take_turn(NOW, (2, 2), true), Turn::Done, "the site is left alone");
        let later = lanes[1].waits_until().unwrap();
        assert_eq!(later, NOW + Duration::from_mins(1));
        assert!(lanes[1].trouble().is_some(), "though it has not asked itself");
        let probe = site.enter(2, later).unwrap();
        assert_eq!(lanes[1].take_turn(later, (2, 2), true), Turn::Done, "another asks");
        site.on_contact();
        assert_eq!(sites.take_woken().len(), 1, "all hear of it");
        drop(probe);
        lanes[1].leave_line(later);
        assert_eq!(lanes[1].take_turn(later, (2, 2), true), Turn::Start);
        assert!(lanes[1].trouble().is_none());
    }

    #[test]
    fn back_off_grows_by_the_schedule_and_ends_at_its_maximum() {
        let lane = lane();
        lane.name_due();
        let schedule = Schedule::outbound();
        let mut now = NOW;
        let waits = [1, 2, 3, 4, 5].map(|_| {
            lane.on_unreachable(None, failure(), now, &schedule, 0);
            lane.on_unreachable(None, failure(), now, &schedule, 0);
            assert_eq!(lane.take_turn(now, (20, 20), true), Turn::Done);
            let until = lane.waits_until().unwrap();
            until - std::mem::replace(&mut now, until)
        });
        assert_eq!(waits, [1, 5, 15, 15, 15].map(Duration::from_mins));
        assert!(lane.trouble().is_some());
        lane.forgive();
        assert_eq!(lane.take_turn(NOW, (20, 20), true), Turn::Start);
        lane.on_contact();
        assert!(lane.trouble().is_none());
    }

    #[test]
    fn mail_behind_a_breakdown_can_grow_too_old() {
        let lane = lane();
        lane.name_due();
        assert_eq!(lane.take_turn(NOW, (20, 20), true), Turn::Start);
        lane.on_breakdown(failure(), NOW);
        assert!(lane.trouble().is_some());
        assert_eq!(lane.waits_until(), Some(NOW + Duration::from_mins(15)));
    }
}
