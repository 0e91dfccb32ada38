//! One try of some messages at the hosts of their route.
//!
//! In: leased messages of one route, perhaps a connection that was kept. Out: an outcome for every
//! recipient. Every host is asked before "not now" counts; a refusal counts at once; a host that
//! cannot be talked to is passed over.

use std::sync::Arc;

use mailroot_common::address::Host;
use smtpd_core::queue::outcome::Outcome;
use smtpd_core::route::table::Route;

use super::Settings;
use super::finish::finish;
use super::job::Job;
use super::room::Room;
use super::session::Connection;
use super::target::Targets;
use super::trust::Rule;
use super::worker::Working;
use crate::observe::Level;

/// What an attempt says about the route, apart from the mail.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// A connection that can carry more.
    pub(super) connection: Option<Connection>,
    /// Set if not one host could be talked to.
    pub(super) unreachable: Option<Outcome>,
    /// Set if every host that was asked wants less.
    pub(super) slowed: Option<Outcome>,
    /// Whether a limit that others share left no room for a connection.
    pub(super) full: bool,
    /// Whether a host took something.
    pub(super) progress: bool,
}

/// Tries the jobs; each is finished when this returns, unless the room was given up.
pub(super) async fn attempt(
    room: &Arc<Room>,
    settings: &Settings,
    route: &Route,
    jobs: &mut [Job],
    kept: Option<Connection>,
    working: &Working<'_>,
) -> Report {
    let limited = settings.limited(&room.server, &route.name());
    let mut targets = Targets::new(route, limited.clone());
    let mut tried = Tried { connection: kept, ..Tried::default() };
    try_hosts(room, settings, &mut targets, jobs, working, &mut tried).await;
    if let Some(mut relaxed) = targets.relaxed(route, limited) {
        // Boxed, because it is rare and as large as all else here.
        Box::pin(try_relaxed(room, settings, &mut relaxed, jobs, working, &mut tried)).await;
    }
    let mut report = Report { connection: tried.connection.take(), ..Report::default() };
    report.full = tried.full;
    report.progress = jobs.iter().any(Job::had_progress);
    if tried.slowed {
        report.slowed = jobs.iter().find_map(Job::last_word).cloned();
    }
    let crowded =
        !tried.talked && !report.full && jobs.iter().any(Job::is_open) && working.is_crowded();
    if room.is_given_up() || crowded || report.full || report.slowed.is_some() {
        for job in jobs.iter_mut().filter(|job| job.lease.is_some()) {
            job.break_off();
            if !job.ended.is_empty() {
                finish(room, job).await;
            }
        }
        return report;
    }
    if jobs.iter().any(Job::is_open) {
        let verdict = targets.verdict(room.clock.now());
        for job in jobs.iter_mut().filter(|job| job.is_open()) {
            job.give_up(&verdict);
            finish(room, job).await;
        }
        if !tried.talked {
            report.unreachable = Some(verdict);
        }
    }
    report
}

/// What came of the hosts of a route.
#[derive(Debug, Default)]
struct Tried {
    /// A connection that was kept at first, and one that can carry more at the end.
    connection: Option<Connection>,
    /// One host at least could be talked to.
    talked: bool,
    /// Some host wants less.
    slowed: bool,
    /// A limit that others share left no room for a connection.
    full: bool,
}

/// Tries the jobs at one host after the other.
async fn try_hosts(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
    jobs: &mut [Job],
    working: &Working<'_>,
    tried: &mut Tried,
) {
    while jobs.iter().any(Job::is_open) {
        let connection = match tried.connection.take() {
            Some(connection) => connection,
            None => match next_connection(room, settings, targets).await {
                Some(Found::Connection(connection)) => *connection,
                Some(Found::Full) => {
                    tried.full = true;
                    break;
                }
                None => break,
            },
        };
        targets.mark_given(&connection.target);
        tried.talked = true;
        working.on_contact();
        jobs.iter_mut().for_each(Job::turn_to_next_host);
        let (left, asked) = send_all(room, settings, targets, jobs, connection).await;
        tried.slowed |= asked;
        if let Some(connection) = left {
            if jobs.iter().any(Job::is_open) {
                room.reuse.keep(connection, settings, &room.settings);
            } else {
                tried.connection = Some(connection);
            }
        }
        if room.is_given_up() {
            break;
        }
    }
}

/// Tries those once more whose senders would have them go without what others demand.
async fn try_relaxed(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
    jobs: &mut [Job],
    working: &Working<'_>,
    tried: &mut Tried,
) {
    let is_meant = |job: &Job| job.is_open() && job.is_tls_optional();
    if room.is_given_up() || tried.full || tried.slowed || !jobs.iter().any(is_meant) {
        return;
    }
    jobs.sort_by_key(|job| !is_meant(job));
    let count = jobs.iter().take_while(|job| is_meant(job)).count();
    let (jobs, _) = jobs.split_at_mut(count);
    let mut again = Tried::default();
    try_hosts(room, settings, targets, jobs, working, &mut again).await;
    if let Some(connection) = again.connection.take() {
        // Other mail of the lane must not leave by it; its like may have it.
        room.reuse.keep(connection, settings, &room.settings);
    }
    tried.talked |= again.talked;
    tried.slowed |= again.slowed;
    tried.full |= again.full;
    if room.is_given_up() || again.full || again.slowed {
        return;
    }
    for job in jobs.iter_mut().filter(|job| job.is_open()) {
        job.give_up(&targets.verdict(room.clock.now()));
        finish(room, job).await;
    }
}

/// A connection to the next host that can be talked to, a kept one if there is one.
async fn next_connection(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
) -> Option<Found> {
    let found = |connection| Some(Found::Connection(Box::new(connection)));
    while !room.is_given_up() {
        let target = targets.next(settings, room.clock.random()).await?;
        if let Some(connection) = room.reuse.take(&target).await {
            return found(connection);
        }
        room.make_way(settings).await;
        let Ok(permit) = room.enter(&target) else {
            // Idle ones to another of its hosts are among those that are counted.
            return match room.reuse.take_limited(&target).await {
                Some(connection) => found(connection),
                None => Some(Found::Full),
            };
        };
        // Boxed, so that connections that carry mail hold no room for it; so it is below.
        match Box::pin(Connection::open(room, settings, &target, permit)).await {
            Ok(connection) => {
                tell_trial(room, targets, &connection);
                return found(connection);
            }
            Err(ending) => targets.note_failure(ending, &target),
        }
    }
    None
}

/// Tells what would keep a host from getting mail, were the policy of the domain not on trial.
fn tell_trial(room: &Room, targets: &Targets, connection: &Connection) {
    let (Rule::StsTesting, Host::Name(host)) = (&connection.target.rule, &connection.target.name)
    else {
        return;
    };
    let flaw = match &connection.host.tls {
        Some(_) => connection.flaw.as_deref(),
        None => Some("the connection is not under TLS"),
    };
    let Some(of_domain) = targets.of_domain() else { return };
    if let Some(why) = of_domain.trial_failure(host, flaw) {
        let line = room.log.line(Level::Warn, "sts-testing").word("server", &room.server);
        line.word("domain", of_domain.domain())
            .word("relay", &connection.host)
            .text("reason", why)
            .send();
    }
}

/// What there is for mail to leave by.
enum Found {
    Connection(Box<Connection>),
    /// A limit that others share leaves no room.
    Full,
}

/// Sends everything to one host, over as many connections as its limits and ours demand. The last
/// one is returned if it can carry more; also whether the host asked for less.
async fn send_all(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
    jobs: &mut [Job],
    connection: Connection,
) -> (Option<Connection>, bool) {
    let target = connection.target.clone();
    let mut connection = connection;
    loop {
        connection.send(settings, jobs).await;
        if !jobs.iter().any(Job::has_todo) || room.is_given_up() {
            let asked = connection.is_slowed;
            return (connection.is_usable(settings).then_some(connection), asked);
        }
        if connection.is_slowed {
            return (None, true);
        }
        // Its place is taken by the next.
        let permit = connection.permit.take();
        drop(connection);
        match Box::pin(Connection::open(room, settings, &target, permit)).await {
            Ok(next) => connection = next,
            Err(ending) => {
                targets.note_failure(ending, &target);
                return (None, false);
            }
        }
    }
}
