//! One lane: the mail of one route on its way out.
//!
//! The lane knows whether its route has due mail, how many workers carry it and whether the
//! destination could be reached. One worker makes the first contact; only then others join, one
//! for each full batch. After a failure the lane backs off, and one message asks again when its
//! time has come: a dead destination is never met by more than that. Where the mail goes to a site,
//! the troubles are those of the site.

mod heavy;
mod line;
#[cfg(test)]
mod tests;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smtpd_core::queue::outcome::Outcome;
use smtpd_core::queue::retry::Schedule;
use smtpd_core::route::table::RouteName;
use tokio::sync::Notify;

pub(super) use self::heavy::HeavyLoad;
pub use self::view::{LaneState, LaneView};
use super::Settings;
use super::health::Health;
use super::site::{HeavyPermit, Refused, Site, SitePermit};

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

/// What [`Room::feed`] is to do.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing, or a worker was woken.
    Done,
    /// Start a worker; the lane counts it already, and its site does so where that is known.
    Start(Option<SitePermit>),
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
    /// Workers that carry a large message.
    heavy: usize,
    /// Large mail may be due and waits for one of them.
    heavy_waits: bool,
    /// Large mail may be due, and the lane stands in its site's line for it.
    is_in_heavy_line: bool,
    /// It was its turn in that line; whichever worker looks next may carry a large message.
    heavy_turn: Option<HeavyPermit>,
    /// Nobody was woken for that turn yet.
    is_heavy_turn_new: bool,
    /// The most workers it may have, as it was said last.
    most: usize,
    /// The most connections its site may have, as it was said last.
    most_of_site: usize,
    /// How the destination fares, as far as that is no matter of a site.
    health: Health,
    /// The site that its mail goes to, as far as it is known.
    site: Option<Arc<Site>>,
    /// Whether it stands in its site's line.
    is_in_line: bool,
    /// It was its turn in that line.
    is_called: bool,
    /// An operator wants its mail tried at once, and does not know what a worker is finding out.
    is_urged: bool,
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
        (state.most, state.most_of_site) = (limit, of_site);
        let is_called = std::mem::take(&mut state.is_called);
        let turn = self.decide(&mut state, now, (limit, of_site), (room_left, is_called));
        let starts = matches!(turn, Turn::Start(_));
        if is_called && !starts && !state.is_in_line {
            state.let_next_go();
        }
        // A worker that carries no large mail takes the turn when its batch is done.
        let has_free_worker = state.workers > state.heavy;
        let comes = starts
            || state.wakes_idle(now)
            || state.is_in_line
            || state.starving
            || has_free_worker;
        if std::mem::take(&mut state.is_heavy_turn_new) && !comes {
            // Its mail is due, and is looked at when that can be.
            state.heavy_turn = None;
        }
        turn
    }

    fn decide(
        self: &Arc<Self>,
        state: &mut State,
        now: Duration,
        (limit, of_site): (usize, usize),
        (room_left, is_called): (bool, bool),
    ) -> Turn {
        if !state.due || now < state.not_before() {
            return Turn::Done;
        }
        if state.wakes_idle(now) {
            self.wake.notify_one();
            return Turn::Done;
        }
        let earned = state.health.limit(limit, now);
        if state.workers > 0 && !(state.contact && state.workers < earned) {
            return Turn::Done;
        }
        // Whoever others wait for has enough, but stands in line if large mail keeps all its workers.
        let is_stuck = state.heavy == state.workers;
        if state.workers > 0 && !is_called && state.is_site_wanted() {
            if is_stuck {
                self.await_room(state, of_site, now);
            }
            return Turn::Done;
        }
        // Promised before the worker starts: else all lanes of a site would start one for the same room.
        let promise = match state.site.as_ref().map(|site| site.promise(of_site, now)) {
            None => None,
            Some(Ok(promise)) => Some(promise),
            Some(Err(refused)) => {
                if state.workers == 0 {
                    state.put_off = refused.until(now);
                }
                if is_stuck || is_called {
                    self.await_room(state, of_site, now);
                }
                return Turn::Done;
            }
        };
        if room_left {
            state.workers += 1;
            self.step_out(state);
            return Turn::Start(promise);
        }
        promise.into_iter().for_each(SitePermit::give_up);
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
        state.is_urged = false;
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
            site.on_progress(of_site, now);
        }
        state.grow_heavy(now);
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
        if std::mem::take(&mut state.is_urged) {
            state.forgive();
        }
    }

    /// A worker broke down: the lane waits as if nobody had answered.
    pub(super) fn on_breakdown(&self, outcome: Outcome, now: Duration) {
        let mut state = self.state();
        state.workers -= 1;
        state.contact = false;
        state.due = true;
        // The lane waits now, and others may carry large mail meanwhile.
        state.heavy_turn = None;
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
            let max = if state.is_troubled() { 1 } else { BATCH };
            let turn = state.heavy_turn.take();
            let may_be_large = state.may_be_heavy(now, turn.is_some());
            return Next::Lease { max, may_be_large, turn };
        }
        if may && !lingered {
            state.idle += 1;
            return Next::Linger;
        }
        state.workers -= 1;
        // Another lane may make use of it; what is due here is looked at again.
        state.heavy_turn = None;
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
        state.forgive();
        state.put_off = Duration::ZERO;
        state.is_urged = state.workers > 0;
    }

    pub(super) fn waits_until(&self) -> Option<Duration> {
        let state = self.state();
        (state.due && state.workers == 0).then_some(state.not_before())
    }

    /// Whether what was due has been tried: nobody carries mail, and none is due that may be tried.
    pub(super) fn has_had_its_turn(&self, now: Duration) -> bool {
        let state = self.state();
        let rests = state.health.rests(now) || state.site_rests(now);
        state.workers == 0 && !state.is_in_heavy_line && (!state.due || rests)
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

    pub(super) fn is_forgettable(&self, now: Duration) -> bool {
        let state = self.state();
        let remembers = state.is_troubled() || state.last().is_some();
        let of_site = state.site.as_ref().map(|site| site.look(Health::not_before));
        let not_before = state.not_before().max(of_site.unwrap_or_default());
        let fresh = now < state.used_at.max(not_before) + REMEMBERED;
        // Of smart hosts that have names there are few, and people ask how they fare.
        let is_wanted = (remembers && fresh) || self.route.smart_host().is_some();
        // Nobody else would come back for the large mail that it waits for.
        let is_at_rest = state.workers == 0 && !state.due && !state.is_in_heavy_line;
        is_at_rest && !is_wanted
    }
}

impl State {
    /// Whether an idle worker is woken for what is due.
    fn wakes_idle(&self, now: Duration) -> bool {
        self.due && now >= self.not_before() && self.idle > 0
    }

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

    fn forgive(&mut self) {
        self.health.forgive();
        if let Some(site) = &self.site {
            site.forgive();
        }
    }

    fn last(&self) -> Option<Outcome> {
        let of_site = || self.site.as_ref()?.look(|health| health.last().cloned());
        self.health.last().cloned().or_else(of_site)
    }
}

/// What a worker does next.
pub(super) enum Next {
    /// Lease.
    Lease {
        /// So many messages.
        max: usize,
        /// Whether a large one may be among them.
        may_be_large: bool,
        /// Leave to carry one, if it was the lane's turn; whoever finds none gives it back.
        turn: Option<HeavyPermit>,
    },
    /// Wait for more mail.
    Linger,
    /// End; the lane no longer counts the worker.
    End,
}
