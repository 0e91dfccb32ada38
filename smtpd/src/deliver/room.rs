//! What all lanes share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mailroot_common::config::SmartHostName;
use mailroot_common::control::OutboundLimit;
use mailroot_common::id::SessionId;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::Span;
use smtpd_core::queue::outcome::{Outcome, Stage};
use smtpd_core::route::domain::Limits;
use smtpd_core::route::table::RouteName;
use tokio::sync::{Notify, watch};

use super::lane::{Lane, LaneView, Turn};
use super::limits::{Limited, SharedLimits};
use super::reuse::Reuse;
use super::session::SessionView;
use super::site::Sites;
use super::{Parts, Settings, worker};
use crate::clock::Clock;
use crate::net::Net;
use crate::observe::{Counters, Dialogues, Level, Log, SessionIds};
use crate::queue::{Queue, Rest};
use crate::trace::Trace;

/// How far delivery has been told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Halt {
    /// Not at all.
    Run,
    /// No new attempts.
    Finish,
    /// Attempts under way are given up.
    Abandon,
}

/// Lanes that wait their turn.
#[derive(Debug, Default)]
struct Queues {
    /// Lanes that could not have a worker because there were too many, first come first served.
    starved: VecDeque<Arc<Lane>>,
    /// Lanes by when they end their back-off, in the clock's time.
    waking: BTreeMap<(Duration, RouteName), Arc<Lane>>,
}

/// How long no mail is leased after the queue could not record what became of some: it would be
/// sent again and again.
const PAUSE_AFTER_TROUBLE: Duration = Duration::from_secs(15);
/// System not accepting network messages (RFC 3463 section 3.4).
const PAUSED: EnhancedCode = EnhancedCode::transient(3, 2);
/// How long attempts that were given up may take to end.
const ABANDON_PATIENCE: Duration = Duration::from_secs(5);

/// What all lanes share.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) server: Arc<str>,
    pub(super) queue: Queue,
    pub(super) net: Net,
    pub(super) clock: Clock,
    pub(super) log: Log,
    pub(super) counters: Arc<Counters>,
    pub(super) dialogues: Dialogues,
    pub(super) trace: Trace,
    pub(super) limits: SharedLimits,
    pub(super) settings: ArcSwap<Settings>,
    pub(super) reuse: Reuse,
    pub(super) sites: Sites,
    lanes: Mutex<HashMap<RouteName, Arc<Lane>>>,
    sessions: Mutex<HashMap<SessionId, Arc<SessionView>>>,
    session_ids: Arc<SessionIds>,
    workers: AtomicUsize,
    queues: Mutex<Queues>,
    halt: watch::Sender<Halt>,
    /// Wakes the dispatcher to look at all lanes.
    again: Notify,
    /// Wakes the dispatcher to sleep less.
    sooner: Notify,
    /// Told when the last worker ends.
    quiet: Notify,
    /// Until when, in milliseconds of the clock's time, no mail is leased.
    paused_until: AtomicU64,
}

impl Room {
    pub(super) fn new(parts: Parts, settings: Settings) -> Self {
        let Parts {
            server,
            queue,
            net,
            clock,
            log,
            counters,
            session_ids,
            dialogues,
            trace,
            limits,
        } = parts;
        Self {
            server,
            queue,
            net,
            clock,
            log,
            counters,
            dialogues,
            trace,
            limits,
            settings: ArcSwap::from_pointee(settings),
            reuse: Reuse::default(),
            sites: Sites::default(),
            lanes: Mutex::default(),
            sessions: Mutex::default(),
            session_ids,
            workers: AtomicUsize::new(0),
            queues: Mutex::default(),
            halt: watch::Sender::new(Halt::Run),
            again: Notify::new(),
            sooner: Notify::new(),
            quiet: Notify::new(),
            paused_until: AtomicU64::new(0),
        }
    }

    // --- stopping ---

    pub(super) fn is_halted(&self) -> bool {
        *self.halt.borrow() >= Halt::Finish
    }

    pub(super) fn is_given_up(&self) -> bool {
        *self.halt.borrow() >= Halt::Abandon
    }

    /// Waits until attempts under way are to be given up.
    pub(super) async fn given_up(&self) {
        let mut halt = self.halt.subscribe();
        // The sender lives as long as the room: the wait cannot fail.
        let _ = halt.wait_for(|halt| *halt >= Halt::Abandon).await;
    }

    /// Waits until no new attempts are to begin.
    pub(super) async fn halted(&self) {
        let mut halt = self.halt.subscribe();
        // As above.
        let _ = halt.wait_for(|halt| *halt >= Halt::Finish).await;
    }

    pub(super) async fn stop(&self, patience: Duration) {
        self.halt.send_replace(Halt::Finish);
        self.again.notify_one();
        if tokio::time::timeout(patience, self.until_quiet()).await.is_err() {
            self.halt.send_replace(Halt::Abandon);
            // Whoever does not end in time holds leases only; the store makes them due again.
            let _ = tokio::time::timeout(ABANDON_PATIENCE, self.until_quiet()).await;
        }
        self.halt.send_replace(Halt::Abandon);
        // Hanging up is all the goodbye that idle connections get: stopping must not wait. So it is for
        // whoever came in the last moment.
        self.reuse.clear();
        drop(self.queue.take_fetches());
    }

    async fn until_quiet(&self) {
        loop {
            let quiet = self.quiet.notified();
            if self.workers.load(Ordering::Acquire) == 0 {
                return;
            }
            quiet.await;
        }
    }

    // --- lanes ---

    fn lane_map(&self) -> MutexGuard<'_, HashMap<RouteName, Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue has named a route: its mail is this room's to lease.
    pub(super) fn on_due(self: &Arc<Self>, route: RouteName) {
        let lane = {
            let mut lanes = self.lane_map();
            Arc::clone(lanes.entry(route.clone()).or_insert_with(|| Arc::new(Lane::new(route))))
        };
        lane.name_due();
        self.feed(&lane);
        self.remember_waking(&lane);
    }

    /// Has a lane that backs off looked at again when that ends. Says whether it is the first of all.
    fn remember_waking(&self, lane: &Arc<Lane>) -> bool {
        let Some(at) = lane.waits_until().filter(|at| *at > self.clock.elapsed()) else {
            return false;
        };
        let mut queues = self.queues();
        queues.waking.insert((at, lane.route.clone()), Arc::clone(lane));
        queues.waking.first_key_value().is_some_and(|((first, _), _)| *first == at)
    }

    /// Feeds the lanes whose back-off is over. Returns when the next one ends its.
    pub(super) fn feed_waking(self: &Arc<Self>) -> Option<Duration> {
        loop {
            let lane = {
                let mut queues = self.queues();
                let ((at, _), _) = queues.waking.first_key_value()?;
                if *at > self.clock.elapsed() {
                    return Some(*at);
                }
                queues.waking.pop_first()?.1
            };
            self.feed(&lane);
            // It may have failed once more since it was noted, and wait anew.
            self.remember_waking(&lane);
        }
    }

    /// Feeds the lanes whose site has room again, or is well again.
    pub(super) fn feed_woken(self: &Arc<Self>) {
        for woken in self.sites.take_woken() {
            let lane = woken.tell();
            self.feed(&lane);
            self.remember_waking(&lane);
        }
    }

    /// Wakes or starts a worker if the lane has due mail and may have one more.
    pub(super) fn feed(self: &Arc<Self>, lane: &Arc<Lane>) {
        if matches!(self.take_turn(lane), Turn::Starve) {
            self.queues().starved.push_back(Arc::clone(lane));
            // A worker that ended in between did not know of the lane.
            self.feed_starved();
        }
    }

    fn take_turn(self: &Arc<Self>, lane: &Arc<Lane>) -> Turn {
        if self.is_halted() || self.rests(&lane.route) {
            lane.pass_turn();
            return Turn::Done;
        }
        let settings = self.settings.load();
        let limit = lane.limit(&self.server, &settings);
        let of_site = limit.max(settings.connections_per_route);
        drop(settings);
        let turn = lane.take_turn(self.clock.elapsed(), (limit, of_site), self.is_room_left());
        match turn {
            Turn::Start(promise) => {
                self.workers.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(worker::work(Arc::clone(self), Arc::clone(lane), promise));
                Turn::Done
            }
            Turn::Done | Turn::Starve => turn,
        }
    }

    fn is_room_left(&self) -> bool {
        self.workers.load(Ordering::SeqCst) < self.settings.load().connections_max
    }

    /// Feeds the lanes that have waited longest for a worker, while there is room for one.
    fn feed_starved(self: &Arc<Self>) {
        while self.is_room_left() {
            let Some(lane) = self.queues().starved.pop_front() else { return };
            lane.end_starving();
            if matches!(self.take_turn(&lane), Turn::Starve) {
                // Somebody else was quicker; the lane keeps its place.
                self.queues().starved.push_front(lane);
                continue;
            }
            self.remember_waking(&lane);
        }
    }

    /// Whether lanes wait for a worker of another one to end.
    pub(super) fn has_starved(&self) -> bool {
        !self.queues().starved.is_empty()
    }

    /// A worker has ended.
    pub(super) fn worker_ended(self: &Arc<Self>, lane: &Arc<Lane>) {
        if self.workers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.quiet.notify_waiters();
        }
        self.feed_starved();
        if lane.route.held_domain().is_some() {
            self.sooner.notify_one();
        }
        // It may have mail that was named since the worker was told to end.
        self.feed(lane);
        if self.remember_waking(lane) {
            self.sooner.notify_one();
        }
    }

    /// Somebody works who belongs to no lane.
    pub(super) fn visitor_came(&self) {
        self.workers.fetch_add(1, Ordering::SeqCst);
    }

    /// He has ended.
    pub(super) fn visitor_left(self: &Arc<Self>) {
        if self.workers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.quiet.notify_waiters();
        }
        self.feed_starved();
    }

    /// Whether an operator wants mail returned that nobody is trying.
    pub(super) fn has_ordered(&self) -> bool {
        !self.queue.ordered(1).is_empty()
    }

    /// Has the dispatcher look at what it waits for anew.
    pub(super) fn look_sooner(&self) {
        self.sooner.notify_one();
    }

    /// Waits until there may be something to do sooner than was known.
    pub(super) async fn sooner(&self) {
        self.sooner.notified().await;
    }

    /// Feeds every lane and forgets those that have nothing to remember.
    pub(super) fn feed_all(self: &Arc<Self>) {
        let now = self.clock.elapsed();
        let lanes: Vec<Arc<Lane>> = {
            let mut lanes = self.lane_map();
            lanes.retain(|_, lane| !lane.is_forgettable(now));
            lanes.values().cloned().collect()
        };
        self.sites.forget_unused();
        lanes.iter().for_each(|lane| self.feed(lane));
    }

    /// Lanes whose mail is not tried: they back off, are paused, or wait to be asked.
    pub(super) fn lanes_in_trouble(&self) -> Vec<Arc<Lane>> {
        let lanes: Vec<_> = self.lane_map().values().cloned().collect();
        lanes.into_iter().filter(|lane| self.trouble(lane).is_some()).collect()
    }

    /// What the last failure to reach a destination came to.
    pub(super) fn last_words(&self, route: &RouteName) -> Option<Outcome> {
        self.lane_map().get(route).and_then(|lane| lane.last())
    }

    /// Whether mail for the destination is not to be tried.
    pub(super) fn rests(&self, route: &RouteName) -> bool {
        self.queue.rest_of(route, self.clock.now()).is_some()
    }

    /// Has held mail tried that was asked for since, and ends the openings whose mail has had its
    /// turn. What is due must have been named before.
    pub(super) fn heed_openings(self: &Arc<Self>) {
        let find = |route: &RouteName| self.lane_map().get(route).cloned();
        for lane in self.queue.newly_open().iter().filter_map(find) {
            lane.forgive();
            self.feed(&lane);
        }
        let now = self.clock.elapsed();
        let is_done = |route: &RouteName| find(route).is_none_or(|lane| lane.has_had_its_turn(now));
        for route in self.queue.close_if(is_done) {
            let line = self.log.line(Level::Info, "etrn-done").word("server", &self.server);
            line.word("node", route.held_domain().unwrap_or_default()).send();
        }
    }

    /// What keeps the mail of a lane from being tried.
    pub(super) fn trouble(&self, lane: &Lane) -> Option<Outcome> {
        let now = self.clock.now();
        let rest = self.queue.rest_of(&lane.route, now).map(|rest| match rest {
            Rest::Paused(pause) => {
                let words = match &pause.reason {
                    Some(reason) => format!("delivery to this destination is paused: {reason}"),
                    None => "delivery to this destination is paused".to_owned(),
                };
                Outcome::local(pause.since, Stage::Operator, PAUSED, words)
            }
            Rest::Held | Rest::Fetched => {
                let words = "no host of the domain has asked for its mail (ETRN, ATRN)";
                lane.last().unwrap_or_else(|| Outcome::local(now, Stage::Route, PAUSED, words))
            }
        });
        rest.or_else(|| lane.trouble())
    }

    pub(super) fn lanes(&self) -> Vec<LaneView> {
        let now = (self.clock.now(), self.clock.elapsed());
        let settings = self.settings.load();
        let view = |lane: &Arc<Lane>| lane.view(now, settings.allowed(&lane.route));
        let mut views: Vec<LaneView> = self.lane_map().values().map(view).collect();
        views.sort_by(|a, b| a.route.cmp(&b.route));
        views
    }

    pub(super) fn allowed_by(&self, name: &SmartHostName) -> OutboundLimit {
        let allowed = self.settings.load().allowed_by(Some(name), Limits::default());
        allowed.with(usize::MAX, None)
    }

    pub(super) fn flush(&self, route: Option<&RouteName>) {
        for (name, lane) in self.lane_map().iter() {
            if route.is_none_or(|route| route == name) {
                lane.forgive();
            }
        }
        self.look_again();
    }

    /// Has the dispatcher look at all lanes.
    pub(super) fn look_again(&self) {
        self.again.notify_one();
    }

    /// Waits until the dispatcher is to look at all lanes.
    pub(super) async fn again(&self) {
        self.again.notified().await;
    }

    // --- trouble with the queue ---

    /// The queue cannot record what happens: no mail is leased for a while.
    pub(super) fn pause(&self) {
        let until = self.clock.elapsed() + PAUSE_AFTER_TROUBLE;
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.paused_until.store(millis, Ordering::Relaxed);
    }

    /// How long no mail is leased yet.
    pub(super) fn pause_left(&self) -> Duration {
        let until = Duration::from_millis(self.paused_until.load(Ordering::Relaxed));
        until.saturating_sub(self.clock.elapsed())
    }

    // --- sessions ---

    fn session_map(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<SessionView>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_session_id(&self) -> SessionId {
        self.session_ids.next()
    }

    pub(super) fn remember_session(&self, view: &Arc<SessionView>) {
        self.session_map().insert(view.id, Arc::clone(view));
    }

    pub(super) fn forget_session(&self, id: SessionId) {
        self.session_map().remove(&id);
    }

    /// Closes idle connections, the longest idle first, until one more keeps within the limit of all.
    /// Workers have at most one connection each and are within it themselves.
    pub(super) async fn make_way(&self, settings: &Settings) {
        // The worker that asks is counted already, with or without a connection.
        while self.workers.load(Ordering::SeqCst) + self.reuse.len() > settings.connections_max {
            let Some(connection) = self.reuse.take_oldest() else { return };
            connection.make_way().await;
        }
    }

    /// How many connections count against the limit that a session is under, and what that is now.
    pub(super) fn limit_of(&self, view: &SessionView) -> Option<(u64, OutboundLimit)> {
        let (settings, target) = (self.settings.load(), &view.target);
        let limits = target.limited.as_ref().map(|limited| limited.limits);
        let allowed = settings.allowed_by(target.smart_host.as_ref(), limits.unwrap_or_default());
        let (wall, now) = (self.clock.now(), self.clock.elapsed());
        let most = usize::try_from(allowed.connections).unwrap_or(usize::MAX);
        if let Some(Limited { name, limits: Limits { connections: Some(_), .. } }) = &target.limited
        {
            return Some((self.limits.open(name).into(), allowed.with(most, None)));
        }
        let site = target.site.as_ref()?;
        let (earned, rest) = site.look(|it| (it.limit(most, now), it.not_before()));
        let rest = u64::try_from(rest.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
        let until = (rest > 0).then(|| wall.after(Span::millis(rest)));
        Some((site.open(), allowed.with(earned, until)))
    }

    pub(super) fn sessions(&self) -> Vec<Arc<SessionView>> {
        let mut views: Vec<_> = self.session_map().values().cloned().collect();
        views.sort_by_key(|view| (view.since, view.id));
        views
    }
}
