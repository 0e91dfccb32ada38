//! One lane: the mail of one route on its way out.
//!
//! The lane knows whether its route has due mail, how many workers carry it and whether the
//! destination could be reached. One worker makes the first contact; only then others join, one
//! for each full batch. After a failure the lane backs off, and one message asks again when its
//! time has come: a dead destination is never met by more than that. Where the mail goes to a site,
//! the troubles are those of the site.

mod heavy;
mod view;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smtpd_core::queue::outcome::Outcome;
use smtpd_core::queue::retry::Schedule;
use smtpd_core::route::table::RouteName;
use tokio::sync::Notify;

pub use self::view::{LaneState, LaneView};
use super::Settings;
use super::health::Health;
use super::site::{Refused, Site, SitePermit};

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
    /// The most workers it may have, as it was said last.
    most: usize,
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
        state.most = limit;
        let is_called = std::mem::take(&mut state.is_called);
        let turn = self.decide(&mut state, now, (limit, of_site), (room_left, is_called));
        let goes_on = matches!(turn, Turn::Start(_)) || state.is_in_line;
        if is_called && !goes_on {
            state.let_next_go();
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
        if state.idle > 0 {
            self.wake.notify_one();
            return Turn::Done;
        }
        // Whoever others wait for has enough.
        let earned = state.health.limit(limit, now);
        let has_turn = is_called || !state.is_site_wanted();
        let may_grow = state.contact && state.workers < earned && has_turn;
        if state.workers > 0 && !may_grow {
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
                if state.workers == 0 || is_called {
                    self.line_up(state);
                    // Room that came meanwhile was told to nobody.
                    if state.site.as_ref().is_some_and(|site| site.has_room(of_site, now)) {
                        state.let_next_go();
                    }
                }
                return Turn::Done;
            }
        };
        if room_left {
            state.workers += 1;
            state.is_in_line = false;
            return Turn::Start(promise);
        }
        promise.into_iter().for_each(SitePermit::give_up);
        if std::mem::replace(&mut state.starving, true) { Turn::Done } else { Turn::Starve }
    }

    /// Others wait for its site and a worker has had its share: the lane stands in line behind them, for
    /// one connection. Its other workers go on.
    pub(super) fn stand_back(self: &Arc<Self>, now: Duration) {
        let mut state = self.state();
        if state.workers == 0 {
            state.put_off = Refused::Full.until(now);
        }
        if state.workers == 0 || state.due {
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

    /// Its site has room, or is well again: its next turn is for that. Whoever has no use for it lets the
    /// next one go.
    pub(super) fn leave_line(&self) {
        let mut state = self.state();
        // Who has started by himself meanwhile is here no more.
        if std::mem::replace(&mut state.is_in_line, false) {
            state.put_off = Duration::ZERO;
            state.is_called = true;
        } else {
            state.let_next_go();
        }
    }

    /// The lane may have no turn now.
    pub(super) fn pass_turn(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_called) {
            state.let_next_go();
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
            state.is_called = false;
        }
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
        state.health.on_breakdown(outcome, now);
    }

    /// What a worker does next. Decided under one lock, so that mail named meanwhile is not
    /// forgotten; a worker that is told to end is not counted any more.
    pub(super) fn next(&self, now: Duration, welcome: bool, lingered: bool) -> Next {
        let mut state = self.state();
        state.used_at = now;
        let may = welcome && now >= state.not_before() && !state.site_rests(now);
        // Small mail that comes while large mail waits is told to nobody, so one worker looks for it.
        let looks = lingered && state.heavy_waits && state.idle == 0 && !state.may_be_heavy(now);
        if may && (state.due || looks) {
            state.due = false;
            // After a failure one message asks.
            let max = if state.is_troubled() { 1 } else { BATCH };
            return Next::Lease { max, may_be_large: state.may_be_heavy(now) };
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
        self.state().is_site_wanted()
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

    fn is_site_wanted(&self) -> bool {
        self.site.as_ref().is_some_and(|site| site.is_wanted(self.is_in_line))
    }

    fn let_next_go(&self) {
        if let Some(site) = &self.site {
            site.let_next_go();
        }
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
    },
    /// Wait for more mail.
    Linger,
    /// End; the lane no longer counts the worker.
    End,
}

#[cfg(test)]
mod tests {
    use mailroot_common::status::EnhancedCode;
    use mailroot_common::units::Timestamp;
    use smtpd_core::queue::outcome::Stage;

    use super::super::site::Sites;
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn lane() -> Arc<Lane> {
        Arc::new(Lane::new(RouteName::from_text("mx:x.test")))
    }

    fn is_start(turn: &Turn) -> bool {
        matches!(turn, Turn::Start(_))
    }

    fn is_done(turn: &Turn) -> bool {
        matches!(turn, Turn::Done)
    }

    fn is_starve(turn: &Turn) -> bool {
        matches!(turn, Turn::Starve)
    }

    fn failure() -> Outcome {
        let status = EnhancedCode::transient(4, 1);
        Outcome::local(Timestamp::from_millis(0), Stage::Connect, status, "connection refused")
    }

    #[test]
    fn one_worker_makes_contact_before_others_join() {
        let lane = lane();
        assert!(is_done(&lane.take_turn(NOW, (20, 20), true)), "nothing is due");
        lane.name_due();
        assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
        assert!(is_done(&lane.take_turn(NOW, (20, 20), true)), "no contact yet");
        lane.on_contact();
        assert!(is_start(&lane.take_turn(NOW, (2, 2), true)));
        assert!(is_done(&lane.take_turn(NOW, (2, 2), true)), "limit of the route");
        assert!(is_starve(&lane.take_turn(NOW, (20, 20), false)), "limit of all");
        assert!(is_done(&lane.take_turn(NOW, (20, 20), false)), "it waits once only");
        lane.end_starving();
        assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
    }

    #[test]
    fn workers_are_as_many_as_the_destination_has_earned() {
        let lane = lane();
        lane.name_due();
        let start_all = || (0..100).take_while(|_| is_start(&lane.take_turn(NOW, (20, 20), true)));
        assert_eq!(start_all().count(), 1);
        lane.on_contact();
        assert_eq!(start_all().count(), 4);
        (0..100).for_each(|_| lane.on_progress(None, (20, 20), NOW));
        assert_eq!(start_all().count(), 15, "the limit holds");
        lane.on_slowed(None, failure(), NOW, 0);
        assert!(lane.trouble().is_some());
        let later = NOW + Duration::from_hours(48);
        assert!(
            matches!(lane.next(later, true, false), Next::Lease { max: 1, .. }),
            "one message asks"
        );
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
        let all: Vec<_> = (0..2).map(|_| site.enter(None, 2, NOW).unwrap()).collect();
        assert!(is_done(&lanes[0].take_turn(NOW, (2, 2), true)), "the site is full");
        assert!(lanes[0].waits_until().unwrap() > NOW);
        drop(all);
        let woken = sites.take_woken();
        assert_eq!(woken.len(), 1);
        woken[0].leave_line();
        assert!(is_start(&lanes[0].take_turn(NOW, (2, 2), true)));
        lanes[0].on_unreachable(Some(&site), failure(), NOW, &Schedule::outbound(), 0);
        assert!(is_done(&lanes[1].take_turn(NOW, (2, 2), true)), "the site is left alone");
        let later = lanes[1].waits_until().unwrap();
        assert_eq!(later, NOW + Duration::from_mins(1));
        assert!(lanes[1].trouble().is_some(), "though it has not asked itself");
        let probe = site.enter(None, 2, later).unwrap();
        assert!(is_done(&lanes[1].take_turn(later, (2, 2), true)), "another asks");
        site.on_contact();
        assert_eq!(sites.take_woken().len(), 1, "all hear of it");
        drop(probe);
        lanes[1].leave_line();
        assert!(is_start(&lanes[1].take_turn(later, (2, 2), true)));
        assert!(lanes[1].trouble().is_none());
    }

    #[test]
    fn of_all_lanes_of_a_site_that_has_rested_one_starts() {
        let sites = Sites::default();
        let site = sites.find(&[]);
        let lanes: Vec<_> = (0..9).map(|_| lane()).collect();
        for lane in &lanes {
            lane.name_due();
            lane.join(&site);
        }
        site.on_unreachable(failure(), NOW, &Schedule::outbound(), 0);
        let later = site.look(Health::not_before);
        let turn = |lane: &Arc<Lane>| lane.take_turn(later, (20, 20), true);
        let turns: Vec<Turn> = lanes.iter().map(turn).collect();
        assert_eq!(turns.iter().filter(|turn| is_start(turn)).count(), 1);
        // It answers: as many start as have room, before any of them has a connection.
        site.on_contact();
        let woken = sites.take_woken();
        woken.iter().for_each(|lane| lane.leave_line());
        let more: Vec<Turn> = woken.iter().map(turn).collect();
        assert_eq!(more.iter().filter(|turn| is_start(turn)).count(), 4, "five to begin with");
        // One of them finds no mail: the next one in line has its place.
        let mut more = more;
        more.retain(is_start);
        more.pop();
        let woken = sites.take_woken();
        assert_eq!(woken.len(), 1);
        woken[0].leave_line();
        assert!(is_start(&turn(&woken[0])));
        drop((turns, more));
    }

    #[test]
    fn lane_that_makes_way_stands_in_line_though_others_of_its_workers_go_on() {
        let sites = Sites::default();
        let site = sites.find(&[]);
        let [busy, other] = [lane(), lane()];
        for lane in [&busy, &other] {
            lane.name_due();
            lane.join(&site);
        }
        let turn = |lane: &Arc<Lane>| lane.take_turn(NOW, (2, 2), true);
        let first = turn(&busy);
        busy.on_contact();
        let second = turn(&busy);
        assert!(is_start(&first) && is_start(&second));
        assert!(is_done(&turn(&other)), "it waits");
        assert!(busy.is_site_wanted() && matches!(busy.next(NOW, false, false), Next::End));
        busy.stand_back(NOW);
        drop(second);
        let woken = sites.take_woken();
        assert!(woken.len() == 1 && Arc::ptr_eq(&woken[0], &other));
        other.leave_line();
        let others = turn(&other);
        assert!(is_start(&others));
        assert!(is_done(&turn(&busy)) && !busy.is_site_wanted(), "nobody else waits");
        drop(others);
        let woken = sites.take_woken();
        assert!(woken.len() == 1 && Arc::ptr_eq(&woken[0], &busy));
        busy.leave_line();
        assert!(is_start(&turn(&busy)), "beside the worker that goes on");
        drop(first);
    }

    #[test]
    fn order_to_try_at_once_outlives_an_attempt_that_fails() {
        let lane = lane();
        lane.name_due();
        assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
        lane.forgive();
        for rests in [false, true] {
            lane.name_due();
            lane.on_unreachable(None, failure(), NOW, &Schedule::outbound(), 0);
            assert_eq!(lane.waits_until(), None, "somebody works");
            assert_eq!(matches!(lane.next(NOW, true, true), Next::Lease { max: 1, .. }), !rests);
        }
    }

    #[test]
    fn half_of_the_workers_carry_large_mail_at_most() {
        let lane = lane();
        lane.name_due();
        assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
        lane.on_contact();
        assert!(lane.begin_heavy(NOW) && lane.begin_heavy(NOW), "two of five");
        assert!(!lane.begin_heavy(NOW));
        assert!(matches!(lane.next(NOW, true, false), Next::Lease { may_be_large: false, .. }));
        lane.leave_heavy(NOW);
        assert!(lane.has_had_its_turn(NOW) || matches!(lane.next(NOW, true, false), Next::Linger));
        lane.end_heavy();
        assert!(matches!(lane.next(NOW, true, false), Next::Lease { may_be_large: true, .. }));
        lane.leave_heavy(NOW);
        assert!(matches!(lane.next(NOW, true, false), Next::Lease { .. }), "it ended meanwhile");
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
            assert!(is_done(&lane.take_turn(now, (20, 20), true)));
            let until = lane.waits_until().unwrap();
            until - std::mem::replace(&mut now, until)
        });
        assert_eq!(waits, [1, 5, 15, 15, 15].map(Duration::from_mins));
        assert!(lane.trouble().is_some());
        lane.forgive();
        assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
        lane.on_contact();
        assert!(lane.trouble().is_none());
    }

    #[test]
    fn mail_behind_a_breakdown_can_grow_too_old() {
        let lane = lane();
        lane.name_due();
        assert!(is_start(&lane.take_turn(NOW, (20, 20), true)));
        lane.on_breakdown(failure(), NOW);
        assert!(lane.trouble().is_some());
        assert_eq!(lane.waits_until(), Some(NOW + Duration::from_mins(15)));
    }
}
