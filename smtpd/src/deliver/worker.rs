//! A worker: carries mail of one lane, batch after batch, over a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::{AttemptResult, Outcome, Stage};
use smtpd_core::queue::turns::is_large;
use smtpd_core::route::table::{NextHop, Route, RouteName};

use super::attempt::Report;
use super::finish::{finish, finish_doubts, finish_late};
use super::job::Job;
use super::lane::{HeavyLoad, Lane, Next};
use super::permits::NoRoom;
use super::prepare::prepare_all;
use super::room::Room;
use super::session::Connection;
use super::site::{HeavyPermit, Site, SitePermit};
use super::strict::attempt_all;
use super::{Settings, local};
use crate::observe::Level;
use crate::queue::Lease;

/// Batches a worker carries before it makes way for lanes that have none.
const BATCHES_IN_TURN: u32 = 20;

/// How long a lane waits whose mail lies elsewhere by the settings in force.
const TABLES_MEET: Duration = Duration::from_secs(1);

/// Keeps the lane's count right however the worker ends.
pub(super) struct Working<'a> {
    room: &'a Arc<Room>,
    lane: &'a Arc<Lane>,
    counted: bool,
    /// Whether the lane counts it among those in contact.
    in_contact: AtomicBool,
    /// The destination, or its site, let it not in, though others are.
    left_out: AtomicBool,
    /// Whether it carries a large message, which is what the lock below is for.
    is_heavy: AtomicBool,
    heavy: Mutex<Option<HeavyLoad>>,
}

impl<'a> Working<'a> {
    /// A host answers.
    pub(super) fn on_contact(&self, site: Option<&Arc<Site>>) {
        if !self.in_contact.swap(true, Ordering::Relaxed) {
            self.lane.gain_contact();
        }
        self.lane.on_contact();
        if let Some(site) = site {
            site.on_contact();
        }
        self.room.feed(self.lane);
    }

    /// The hosts of its mail are this site.
    pub(super) fn join(&self, site: &Arc<Site>) {
        self.lane.join(site);
    }

    /// A host took something.
    pub(super) fn on_progress(&self, site: Option<&Arc<Site>>, settings: &Settings) {
        let limit = self.lane.limit(&self.room.server, settings);
        let limits = (limit, limit.max(settings.connections_per_route));
        self.lane.on_progress(site, limits, self.room.clock.elapsed());
    }

    /// Every host that was asked wants less.
    pub(super) fn on_slowed(&self, site: Option<&Arc<Site>>, outcome: Outcome) {
        let clock = &self.room.clock;
        self.room.counters.destinations_slowed.add_one();
        self.lane.on_slowed(site, outcome, clock.elapsed(), clock.random());
    }

    /// Not one host could be talked to.
    pub(super) fn on_unreachable(
        &self,
        site: Option<&Arc<Site>>,
        outcome: &Outcome,
        settings: &Settings,
    ) {
        if is_nowhere(outcome) {
            return self.lane.on_nowhere();
        }
        let (clock, schedule) = (&self.room.clock, &settings.schedules.outbound);
        let (now, random) = (clock.elapsed(), clock.random());
        self.lane.on_unreachable(site, outcome.clone(), now, schedule, random);
    }

    /// No host answers; says whether that is no news about the destination, because other
    /// connections to it are alive: it takes no more of them. Then nothing counts as tried.
    pub(super) fn is_crowded(&self, site: Option<&Arc<Site>>) -> bool {
        self.lose_contact();
        let crowded = self.lane.is_crowded(site, self.room.clock.elapsed());
        self.left_out.store(crowded, Ordering::Relaxed);
        crowded
    }

    fn new(room: &'a Arc<Room>, lane: &'a Arc<Lane>) -> Self {
        let (in_contact, left_out, is_heavy, heavy) = Default::default();
        Self { room, lane, counted: true, in_contact, left_out, is_heavy, heavy }
    }

    /// Takes note of a large message in a lease, or gives it back where others carry enough of them. If
    /// it is the lane's turn and nothing large is in the lease, that is the next one's.
    fn begin_heavy(&self, leases: &mut Vec<Lease>, turn: Option<HeavyPermit>) {
        let Some(large) = leases.pop_if(|last| is_large(last.size)) else { return };
        if let Some(load) = self.lane.begin_heavy(turn, self.room.clock.elapsed()) {
            *self.heavy.lock().unwrap_or_else(PoisonError::into_inner) = Some(load);
            self.is_heavy.store(true, Ordering::Relaxed);
            leases.push(large);
        }
    }

    /// Mail is about to leave for a site; says whether what is large may be among it. If it may not, none
    /// is to leave, and the lane hears when it may.
    pub(super) fn may_carry_heavy(&self, site: Option<&Arc<Site>>) -> bool {
        let Some(site) = site.filter(|_| self.is_heavy.load(Ordering::Relaxed)) else {
            return true;
        };
        let now = self.room.clock.elapsed();
        let mut heavy = self.heavy.lock().unwrap_or_else(PoisonError::into_inner);
        let may = heavy.as_mut().is_none_or(|load| load.move_to(site, now));
        drop(heavy);
        if !may {
            self.end_heavy();
            self.lane.leave_heavy(now);
        }
        may
    }

    /// Whether a site is the lane's own.
    pub(super) fn is_at(&self, site: Option<&Arc<Site>>) -> bool {
        self.lane.is_at(site)
    }

    fn end_heavy(&self) {
        if self.is_heavy.swap(false, Ordering::Relaxed) {
            let load = self.heavy.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(load);
        }
    }

    fn lose_contact(&self) {
        if self.in_contact.swap(false, Ordering::Relaxed) {
            self.lane.lose_contact();
        }
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.lose_contact();
        self.end_heavy();
        if self.counted {
            // Only a panic leads here.
            self.room.counters.panics.add_one();
            let (status, text) = (EnhancedCode::transient(3, 0), "this server broke down over it");
            let outcome = Outcome::local(self.room.clock.now(), Stage::Route, status, text);
            self.lane.on_breakdown(outcome, self.room.clock.elapsed());
        }
        self.room.worker_ended(self.lane);
    }
}

/// Carries mail of a lane until there is none, or the lane backs off.
pub(super) async fn work(room: Arc<Room>, lane: Arc<Lane>, promise: Option<SitePermit>) {
    let mut working = Working::new(&room, &lane);
    let mut connection: Option<Kept> = None;
    let mut promise = promise;
    let mut lingered = false;
    let mut batches = 0;
    let stands_back = loop {
        // Its share is done while others wait for a worker.
        let has_share = batches >= BATCHES_IN_TURN;
        let stands_back = has_share && lane.is_site_wanted();
        let makes_way = stands_back || (has_share && room.has_starved());
        let welcome = !room.is_halted()
            && !room.rests(&lane.route)
            && !working.left_out.load(Ordering::Relaxed)
            && !makes_way;
        match lane.next(room.clock.elapsed(), welcome, lingered) {
            Next::Lease { max, may_be_large, turn } => {
                lingered = false;
                batches += 1;
                let means = (connection, promise.take());
                connection = carry(&working, (max, may_be_large, turn), means).await;
                working.end_heavy();
            }
            Next::Linger => lingered = !lane.linger().await,
            Next::End => break stands_back,
        }
    };
    working.counted = false;
    if stands_back {
        lane.stand_back(room.clock.elapsed());
    }
    drop(promise);
    if let Some(Kept { connection, settings, .. }) = connection {
        room.reuse.keep(connection, &settings, &room.settings);
    }
}

/// A connection between two batches, with the settings it was made by.
struct Kept {
    connection: Box<Connection>,
    settings: Arc<Settings>,
    /// How much was known of what others demand when its host was chosen, or later.
    rules_known: u64,
}

/// Leases one batch and sees it through.
async fn carry(
    working: &Working<'_>,
    wanted: (usize, bool, Option<HeavyPermit>),
    (kept, promise): (Option<Kept>, Option<SitePermit>),
) -> Option<Kept> {
    let (room, lane) = (working.room, working.lane);
    let leases = lease(working, wanted).await;
    if leases.is_empty() {
        return kept;
    }
    let settings = room.settings.load_full();
    // The queue follows another table a moment sooner: what lies elsewhere by ours waits that long.
    let (leases, elsewhere): (Vec<Lease>, Vec<Lease>) =
        leases.into_iter().partition(|lease| settings.is_on(lease, &lane.route));
    if !elsewhere.is_empty() {
        lane.put_off(room.clock.elapsed() + TABLES_MEET);
    }
    drop(elsewhere);
    let Some(first) = leases.first() else { return kept };
    // Every recipient of a lease has the same route.
    let place = first.places().next().unwrap_or_default();
    let Some(recipient) = first.envelope.recipients.get(place) else { return kept };
    let route = match &first.via {
        Some(host) => Route::to_host(host.clone()),
        None => recipient.route(&settings.table, &first.envelope.sender),
    };
    let local = route.hop == NextHop::Drop;
    let mut jobs = jobs_of(leases, &settings, &lane.route, local);
    sort_out(room, &settings, &mut jobs).await;
    if local {
        working.on_contact(None);
        local::deliver(room, &settings, &mut jobs).await;
        return kept;
    }
    prepare_all(room, &settings, &mut jobs).await;
    if !jobs.iter().any(Job::is_open) {
        return kept;
    }
    let rules_known = settings.rules_known();
    let connection = match kept {
        Some(kept) if !Arc::ptr_eq(&kept.settings, &settings) => {
            kept.connection.close().await;
            None
        }
        Some(kept) if kept.rules_known != rules_known => {
            // What is known by now may demand more; if it does not, the connection is found again.
            room.reuse.keep(kept.connection, &settings, &room.settings);
            None
        }
        kept => kept.map(|kept| kept.connection),
    };
    let Report { connection, no_room } =
        attempt_all(room, &settings, &route, &mut jobs, (connection, promise), working).await;
    match no_room {
        Some(NoRoom::Limit) => lane.on_full(room.clock.elapsed()),
        // The others of the lane go on; if there are none, it stands in line.
        Some(NoRoom::Site) => {
            lane.name_due();
            working.left_out.store(true, Ordering::Relaxed);
        }
        None => {}
    }
    connection.map(|connection| Kept { connection, settings, rules_known })
}

/// What is to be done for each of the leased messages.
pub(super) fn jobs_of(
    leases: Vec<Lease>,
    settings: &Settings,
    route: &RouteName,
    local: bool,
) -> Vec<Job> {
    let job = |lease: Lease| {
        let sender = match local {
            true => lease.envelope.sender.clone(),
            false => settings.senders.envelope(&lease.envelope.sender, &settings.table),
        };
        Job::new(lease, sender, route.clone())
    };
    leases.into_iter().map(job).collect()
}

/// Leaves those that may be tried: mail that goes in circles, and mail whose end was decided meanwhile,
/// is seen to.
pub(super) async fn sort_out(room: &Room, settings: &Settings, jobs: &mut Vec<Job>) {
    turn_back_loops(room, settings, jobs).await;
    for job in &mut *jobs {
        finish_doubts(room, settings, job).await;
        finish_late(room, settings, job).await;
    }
    jobs.retain(|job| job.lease.is_some());
}

/// No host was asked, and none is to be asked: the domain does not exist, or wants no mail.
fn is_nowhere(outcome: &Outcome) -> bool {
    let stage = matches!(outcome.stage, Stage::Dns | Stage::Route);
    stage && outcome.result == AttemptResult::Failed
}

/// The next batch of the lane; more workers are called if there may be more mail.
async fn lease(
    working: &Working<'_>,
    (max, may_be_large, turn): (usize, bool, Option<HeavyPermit>),
) -> Vec<Lease> {
    let (room, lane) = (working.room, working.lane);
    let pause = room.pause_left();
    if !pause.is_zero() {
        lane.name_due();
        tokio::select! {
            () = room.clock.sleep(pause) => {}
            () = room.halted() => {}
        }
        return Vec::new();
    }
    let settings = room.settings.load();
    let limited = settings.limited(&room.server, &lane.route);
    let paced = limited.and_then(|limited| Some((limited.name, limited.limits.rate?)));
    drop(settings);
    let mut size = max;
    if let Some((name, rate)) = &paced {
        let now = room.clock.elapsed();
        match room.limits.take(name, *rate, size, now) {
            Ok(free) => size = free,
            Err(wait) => {
                lane.put_off(now + wait);
                return Vec::new();
            }
        }
    }
    let now = room.clock.now();
    let leased = match may_be_large {
        true => room.queue.lease(&lane.route, now, size).await,
        false => room.queue.lease_small(&lane.route, now, size).await,
    };
    if let Some((name, rate)) = &paced {
        room.limits.give_back(name, *rate, size - leased.as_ref().map_or(0, Vec::len));
    }
    match leased {
        Ok(mut leases) => {
            let are_all = Lease::are_all(&leases, size);
            working.begin_heavy(&mut leases, turn);
            if !are_all {
                lane.name_due();
                room.feed(lane);
            }
            // Else its large mail would never have a turn while small mail comes.
            if !may_be_large {
                lane.leave_heavy(room.clock.elapsed());
            }
            leases
        }
        Err(error) => {
            room.log
                .line(Level::Error, "lease-failed")
                .word("server", &room.server)
                .word("route", &lane.route)
                .word("error", &error)
                .send();
            room.pause();
            lane.name_due();
            Vec::new()
        }
    }
}

/// Mail that has gone round too often ends here.
async fn turn_back_loops(room: &Room, settings: &Settings, jobs: &mut [Job]) {
    for job in jobs.iter_mut().filter(|job| job.envelope.hops > settings.max_hops) {
        room.counters.hops_met.add_one();
        let hops = job.envelope.hops;
        let text = format!("the message has passed {hops} servers: it goes in circles");
        let status = EnhancedCode::permanent(4, 6);
        job.end_all(&Outcome::local(room.clock.now(), Stage::Route, status, text));
        finish(room, job).await;
    }
}
