//! Sites: what stands behind domains. All domains whose mail goes to the same MX hosts are one
//! site; they share its connections and its troubles.
//!
//! A lane learns its site with each look-up. One of them asks a site that could not be reached; the
//! others wait to hear of it. Where a site has as many connections as it may, lanes stand in line.
//!
//! Locks: a lane's may be held while a site's is taken, never the other way round.

mod heavy;
mod line;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use mailroot_common::address::Domain;
use smtpd_core::queue::outcome::Outcome;
use smtpd_core::queue::retry::Schedule;
use tokio::sync::Notify;

use self::heavy::Heavy;
pub(super) use self::heavy::HeavyPermit;
use self::line::{Line, Woken};
use super::health::Health;
use super::lane::Lane;

/// How long a lane waits at most before it looks itself whether its site has room.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The sites of a virtual server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Sites(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<HashMap<Arc<str>, Arc<Site>>>,
    /// Lanes that may look again.
    woken: Mutex<Vec<Woken>>,
    /// Told when there are such.
    bell: Notify,
}

/// One site.
pub(super) struct Site {
    /// Its hosts, sorted.
    name: Arc<str>,
    state: Mutex<State>,
    shared: Weak<Shared>,
}

#[derive(Debug, Default)]
struct State {
    health: Health,
    /// Workers that were started for it and have not asked for a connection yet.
    coming: usize,
    /// Connections from before they are opened until they are closed, idle ones included.
    open: usize,
    /// Those that were answered.
    connected: usize,
    /// Those that carry nothing and wait for more.
    idle: usize,
    /// Who asks whether it is well again, by number.
    probe: Option<u64>,
    /// How many have asked.
    probes: u64,
    /// Lanes that wait for room or for good news.
    waiting: Line,
    heavy: Heavy,
}

/// Why a site gets no connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is in trouble and left alone.
    Rests {
        /// Until when, in the clock's time.
        until: Duration,
    },
    /// It has as many as it may have, or another lane is asking how it fares.
    Full,
}

/// Leave to have a connection to a site, or the promise of it; given back when it is dropped.
#[derive(Debug)]
pub(super) struct SitePermit {
    site: Arc<Site>,
    claim: Claim,
    is_connected: bool,
    is_idle: bool,
    /// Its number among those that asked whether the site is well again.
    probe: Option<u64>,
}

/// What a permit is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Nothing any more.
    Nothing,
    /// A worker that was started for the site.
    Coming,
    /// A connection.
    Open,
}

impl Sites {
    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Site>>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The site of these hosts, which are sorted.
    pub(super) fn find(&self, hosts: &[Domain]) -> Arc<Site> {
        let names: Vec<&str> = hosts.iter().map(Domain::as_str).collect();
        let name: Arc<str> = names.join(",").into();
        let new = |name: &Arc<str>| {
            let shared = Arc::downgrade(&self.0);
            Arc::new(Site { name: Arc::clone(name), state: Mutex::default(), shared })
        };
        Arc::clone(self.known().entry(Arc::clone(&name)).or_insert_with(|| new(&name)))
    }

    /// Forgets the sites that no lane and no connection knows.
    pub(super) fn forget_unused(&self) {
        self.known().retain(|_, site| Arc::strong_count(site) > 1);
    }

    /// Limits may be others by now: whoever waits for room looks again.
    pub(super) fn look_again(&self) {
        let all: Vec<Arc<Site>> = self.known().values().cloned().collect();
        all.iter().for_each(|site| site.wake_all(&mut site.state()));
    }

    /// The lanes that may look again.
    pub(super) fn take_woken(&self) -> Vec<Woken> {
        std::mem::take(&mut *self.0.woken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there are such.
    pub(super) async fn bell(&self) {
        self.0.bell.notified().await;
    }
}

impl Site {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leave to have one more connection. A promise of it is made good, if there is one.
    ///
    /// # Errors
    ///
    /// Why there is none now.
    pub(super) fn enter(
        self: &Arc<Self>,
        promise: Option<SitePermit>,
        limit: usize,
        now: Duration,
    ) -> Result<SitePermit, Refused> {
        let mut promise = promise.filter(|it| it.is_for(self));
        let mut state = self.state();
        if let Some(promise) = &mut promise {
            promise.void(&mut state);
        }
        let taken = state.open.max(state.carrying());
        state.may_have(taken, limit, now)?;
        state.open += 1;
        Ok(self.permit(&mut state, Claim::Open))
    }

    /// Promises a worker that is about to start leave to have a connection, a new one or an idle one
    /// that it makes use of.
    ///
    /// # Errors
    ///
    /// Why it would have none.
    pub(super) fn promise(
        self: &Arc<Self>,
        limit: usize,
        now: Duration,
    ) -> Result<SitePermit, Refused> {
        let mut state = self.state();
        state.may_have(state.carrying(), limit, now)?;
        state.coming += 1;
        Ok(self.permit(&mut state, Claim::Coming))
    }

    fn permit(self: &Arc<Self>, state: &mut State, claim: Claim) -> SitePermit {
        let probe = state.health.is_troubled().then(|| {
            state.probes += 1;
            state.probes
        });
        state.probe = probe.or(state.probe);
        let site = Arc::clone(self);
        SitePermit { site, claim, is_connected: false, is_idle: false, probe }
    }

    /// Whether it would promise a connection now.
    pub(super) fn has_room(&self, limit: usize, now: Duration) -> bool {
        let state = self.state();
        state.may_have(state.carrying(), limit, now).is_ok()
    }

    /// How many connections there are to it, idle ones included.
    pub(super) fn open(&self) -> u64 {
        self.state().open as u64
    }

    /// Has a lane woken when it may look again.
    pub(super) fn line_up(&self, lane: Weak<Lane>) {
        self.state().waiting.join(lane);
    }

    /// The lane has no use for it any more.
    pub(super) fn leave_line(&self, lane: &Lane) {
        self.state().waiting.leave(lane);
    }

    /// The one that was woken has no use for it.
    pub(super) fn let_next_go(self: &Arc<Self>) {
        let mut state = self.state();
        self.wake_next(&mut state);
    }

    /// Whether lanes wait for room, apart from one that may be in the line itself.
    pub(super) fn is_wanted(&self, is_in_line: bool) -> bool {
        self.state().waiting.len() > usize::from(is_in_line)
    }

    /// One of its hosts answers.
    pub(super) fn on_contact(self: &Arc<Self>) {
        drop(self.change(Health::on_contact));
    }

    /// A batch has gone well. Where that earns it more connections, they are for whoever waits.
    pub(super) fn on_progress(self: &Arc<Self>, limit: usize, now: Duration) {
        let mut before = 0;
        let mut state = self.change(|health| {
            before = health.limit(limit, now);
            health.on_progress(limit);
        });
        let more = state.health.limit(limit, now).saturating_sub(before);
        self.wake_some(&mut state, more);
        self.grow_heavy(&mut state, limit, now);
    }

    /// It asks for less.
    pub(super) fn on_slowed(&self, outcome: Outcome, now: Duration, random: u64) {
        let mut state = self.state();
        let open = state.open;
        state.health.on_slowed(outcome, open, now, random);
    }

    /// Not one of its hosts could be talked to.
    pub(super) fn on_unreachable(
        &self,
        outcome: Outcome,
        now: Duration,
        schedule: &Schedule,
        random: u64,
    ) {
        self.state().health.on_unreachable(outcome, now, schedule, random);
    }

    /// It lets no more in than those who are connected, if there are such.
    pub(super) fn is_crowded(&self, now: Duration) -> bool {
        let mut state = self.state();
        let connected = state.connected;
        if connected > 0 {
            state.health.on_crowded(connected, now);
        }
        connected > 0
    }

    /// It may be asked at once.
    pub(super) fn forgive(self: &Arc<Self>) {
        let mut state = self.state();
        state.health.forgive();
        self.wake_all(&mut state);
    }

    /// Looks at how it fares.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Health) -> T) -> T {
        look(&self.state().health)
    }

    /// What may end its trouble; then everybody hears of it.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Health)) -> MutexGuard<'_, State> {
        let mut state = self.state();
        let was_troubled = state.health.is_troubled();
        change(&mut state.health);
        if was_troubled && !state.health.is_troubled() {
            state.probe = None;
            self.wake_all(&mut state);
        }
        state
    }

    /// Wakes lanes; where there is nobody to tell them, none is taken.
    fn wake(&self, lanes: impl Iterator<Item = Woken>) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut woken = shared.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let before = woken.len();
        woken.extend(lanes);
        if woken.len() > before {
            shared.bell.notify_one();
        }
    }

    fn wake_all(self: &Arc<Self>, state: &mut State) {
        self.wake_some(state, usize::MAX);
    }

    fn wake_next(self: &Arc<Self>, state: &mut State) {
        self.wake_some(state, 1);
    }

    fn wake_some(self: &Arc<Self>, state: &mut State, count: usize) {
        let next = || state.waiting.next();
        self.wake(iter::from_fn(next).take(count).map(|lane| Woken::Turn(lane, Arc::clone(self))));
    }
}

impl State {
    /// Connections that carry mail, or soon will.
    fn carrying(&self) -> usize {
        self.coming + self.open.saturating_sub(self.idle)
    }

    /// A permit asks no longer; whoever asks by now is left alone.
    fn end_probe(&mut self, probe: Option<u64>) {
        if probe.is_some() && self.probe == probe {
            self.probe = None;
        }
    }

    fn may_have(&self, connections: usize, limit: usize, now: Duration) -> Result<(), Refused> {
        if self.health.rests(now) {
            return Err(Refused::Rests { until: self.health.not_before() });
        }
        let is_asked = self.probe.is_some() && self.health.is_troubled();
        if is_asked || connections >= self.health.limit(limit, now) {
            return Err(Refused::Full);
        }
        Ok(())
    }
}

impl Refused {
    /// When a lane looks again by itself.
    pub(super) fn until(self, now: Duration) -> Duration {
        match self {
            Self::Rests { until } => until,
            Self::Full => now + LOOK_AGAIN,
        }
    }
}

impl SitePermit {
    /// Whether it is for this site.
    pub(super) fn is_for(&self, site: &Site) -> bool {
        *self.site == *site
    }

    /// Whether it is leave already.
    pub(super) fn is_leave(&self) -> bool {
        self.claim == Claim::Open
    }

    /// Gives a promise back whose place is taken at once, so that nobody is woken for it.
    pub(super) fn give_up(mut self) {
        let site = Arc::clone(&self.site);
        self.void(&mut site.state());
    }

    fn void(&mut self, state: &mut State) {
        match std::mem::replace(&mut self.claim, Claim::Nothing) {
            Claim::Nothing => return,
            Claim::Coming => state.coming -= 1,
            Claim::Open => state.open -= 1,
        }
        state.connected -= usize::from(self.is_connected);
        state.idle -= usize::from(self.is_idle);
        state.end_probe(self.probe);
    }

    /// The connection was answered.
    pub(super) fn note_connected(&mut self) {
        if !std::mem::replace(&mut self.is_connected, true) {
            self.site.state().connected += 1;
        }
    }

    /// The connection carries nothing and waits for more, or does so no longer.
    pub(super) fn note_idle(&mut self, is_idle: bool) {
        if std::mem::replace(&mut self.is_idle, is_idle) == is_idle {
            return;
        }
        let mut state = self.site.state();
        if is_idle {
            state.idle += 1;
            // What it was to find out is known.
            state.end_probe(self.probe.take());
            self.site.wake_next(&mut state);
        } else {
            state.idle -= 1;
        }
    }
}

impl Drop for SitePermit {
    fn drop(&mut self) {
        if self.claim == Claim::Nothing {
            return;
        }
        let site = Arc::clone(&self.site);
        let mut state = site.state();
        self.void(&mut state);
        site.wake_next(&mut state);
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Site {}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Site").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use mailroot_common::status::EnhancedCode;
    use mailroot_common::units::Timestamp;
    use smtpd_core::queue::outcome::Stage;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    /// The site fails; returns when it may be asked.
    fn fail(site: &Site, now: Duration) -> Duration {
        let status = EnhancedCode::transient(4, 1);
        let at = Timestamp::from_millis(0);
        let outcome = Outcome::local(at, Stage::Connect, status, "connection refused");
        site.on_unreachable(outcome, now, &Schedule::outbound(), 0);
        site.look(Health::not_before)
    }

    #[test]
    fn connection_that_once_asked_does_not_speak_for_a_later_one() {
        let site = Sites::default().find(&[]);
        let later = fail(&site, NOW);
        let first = site.enter(None, 20, later).unwrap();
        assert_eq!(site.enter(None, 20, later).unwrap_err(), Refused::Full, "one asks");
        site.on_contact();
        let later = fail(&site, later);
        let second = site.enter(None, 20, later).unwrap();
        drop(first);
        assert_eq!(site.enter(None, 20, later).unwrap_err(), Refused::Full, "the second asks");
        drop(second);
        assert!(site.enter(None, 20, later).is_ok());
    }

    #[test]
    fn whoever_asked_and_idles_keeps_nobody_from_asking() {
        let site = Sites::default().find(&[]);
        let later = fail(&site, NOW);
        let mut asking = site.enter(None, 20, later).unwrap();
        asking.note_connected();
        asking.note_idle(true);
        assert!(site.promise(20, later).is_ok(), "it has asked");
    }

    #[test]
    fn promise_counts_until_it_is_made_good_or_given_up() {
        let site = Sites::default().find(&[]);
        let [first, second] = [0, 1].map(|_| site.promise(2, NOW).unwrap());
        assert!(site.promise(2, NOW).is_err() && site.enter(None, 2, NOW).is_err());
        let first = site.enter(Some(first), 2, NOW).unwrap();
        assert!(site.promise(2, NOW).is_err());
        second.give_up();
        let second = site.promise(2, NOW).unwrap();
        drop((first, second));
        assert_eq!(site.state().carrying(), 0);
    }
}
