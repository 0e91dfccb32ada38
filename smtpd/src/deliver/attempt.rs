//! One try of some messages at the hosts of their route.
//!
//! In: leased messages of one route, perhaps a connection that was kept. Out: an outcome for every
//! recipient. Every host is asked before "not now" counts; a refusal counts at once; a host that
//! cannot be talked to is passed over.

use std::sync::Arc;

use mailroot_common::address::Host;
use smtpd_core::queue::turns::is_large;
use smtpd_core::route::table::Route;
use smtpd_core::tls_report::FailureKind;

use super::Settings;
use super::finish::finish;
use super::job::Job;
use super::permits::NoRoom;
use super::remember;
use super::room::Room;
use super::session::Connection;
use super::site::{Site, SitePermit};
use super::strict::TlsWish;
use super::target::Targets;
use super::tls_report;
use super::trust::Rule;
use super::worker::Working;
use crate::observe::Level;
use crate::tls::Flaw;

/// What an attempt says about the route, apart from the mail.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// A connection that can carry more.
    pub(super) connection: Option<Box<Connection>>,
    /// What left no room for a connection.
    pub(super) no_room: Option<NoRoom>,
}

/// Tries the jobs; each is finished when this returns, unless the room was given up. How the
/// destination fares is told to the lane, and to its site, before mail is given back.
pub(super) async fn attempt(
    room: &Arc<Room>,
    settings: &Settings,
    route: &Route,
    jobs: &mut [Job],
    (kept, promise): (Option<Box<Connection>>, Option<SitePermit>),
    working: &Working<'_>,
    wish: TlsWish,
) -> Report {
    let limited = settings.limited(&room.server, &route.name());
    let targets = Targets::new(route, limited.clone(), Some(&room.sites), wish);
    let targets = targets.counted(tls_report::are_counted(settings, jobs));
    let mut targets = targets.by_directory(jobs.iter().any(Job::is_by_directory));
    let mut tried = Tried { connection: kept, held: promise, ..Tried::default() };
    try_hosts(room, settings, &mut targets, jobs, working, &mut tried).await;
    if let Some(mut relaxed) = targets.relaxed(route, limited) {
        // Boxed, because it is rare and as large as all else here.
        Box::pin(try_relaxed(room, settings, &mut relaxed, jobs, working, &mut tried)).await;
    }
    let site = tried.site.as_ref().or_else(|| targets.site()).cloned();
    if jobs.iter().any(Job::had_progress) {
        working.on_progress(site.as_ref(), settings);
    }
    let asked = jobs.iter().find_map(Job::last_word).filter(|_| tried.slowed).cloned();
    let had_room = tried.no_room.is_none();
    let is_shut = !tried.talked && targets.obstacles().are_of_all();
    let left_out = is_shut && had_room && jobs.iter().any(Job::is_open);
    let crowded = left_out && working.is_crowded(site.as_ref());
    let is_slowed = asked.is_some();
    if let Some(outcome) = asked {
        working.on_slowed(site.as_ref(), outcome);
    }
    if room.is_given_up() || crowded || !had_room || is_slowed {
        break_off(room, jobs).await;
    } else if jobs.iter().any(Job::is_open) {
        let verdict = targets.verdict(room.clock.now());
        // What only such mail asks for keeps no other mail waiting.
        if !tried.talked && (wish != TlsWish::Strict || is_shut) {
            let site = site.filter(|_| is_shut);
            working.on_unreachable(site.as_ref(), &verdict, settings);
        }
        drop(tried.held);
        for job in jobs.iter_mut().filter(|job| job.is_open()) {
            for (host, said) in targets.said() {
                remember::dialogue(room, job.id, host, said, true);
            }
            job.give_up(&verdict);
            finish(room, job).await;
        }
    }
    Report { connection: tried.connection, no_room: tried.no_room }
}

/// What came of the hosts of a route.
#[derive(Debug, Default)]
struct Tried {
    /// A connection that was kept at first, and one that can carry more at the end.
    connection: Option<Box<Connection>>,
    /// One host at least could be talked to.
    talked: bool,
    /// Some host wants less.
    slowed: bool,
    /// What left no room for a connection.
    no_room: Option<NoRoom>,
    /// The site of the last host.
    site: Option<Arc<Site>>,
    /// Held until it is known how the site fares, so that nobody asks it meanwhile.
    held: Option<SitePermit>,
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
            None => {
                let next = next_connection(room, settings, targets, &mut tried.held, working);
                // Boxed, so that connections that carry mail hold no room for it.
                match Box::pin(next).await {
                    Some(Found::Connection(connection)) => connection,
                    Some(Found::NoRoom(why)) => {
                        tried.no_room = Some(why);
                        break;
                    }
                    None => break,
                }
            }
        };
        targets.mark_given(&connection.target);
        tried.talked = true;
        tried.site.clone_from(&connection.target.site);
        working.on_contact(tried.site.as_ref());
        let has_large = jobs.iter().any(|job| job.is_open() && is_large(job.size));
        if has_large && !working.may_carry_heavy(tried.site.as_ref()) {
            give_back_large(room, jobs).await;
            if !jobs.iter().any(Job::is_open) {
                // At another site than the lane's it would be refused again and again.
                match working.is_at(tried.site.as_ref()) {
                    true => tried.connection = Some(connection),
                    false => room.reuse.keep(connection, settings, &room.settings),
                }
                break;
            }
        }
        jobs.iter_mut().for_each(Job::turn_to_next_host);
        let (left, asked) =
            send_all(room, settings, targets, jobs, connection, &mut tried.held).await;
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
    let is_over = tried.no_room.is_some() || tried.slowed;
    if room.is_given_up() || is_over || !jobs.iter().any(is_meant) {
        return;
    }
    jobs.sort_by_key(|job| !is_meant(job));
    let count = jobs.iter().take_while(|job| is_meant(job)).count();
    let (jobs, _) = jobs.split_at_mut(count);
    let mut again = Tried { held: tried.held.take(), ..Tried::default() };
    try_hosts(room, settings, targets, jobs, working, &mut again).await;
    if let Some(connection) = again.connection.take() {
        // Other mail of the lane must not leave by it; its like may have it.
        room.reuse.keep(connection, settings, &room.settings);
    }
    tried.held = again.held.take();
    tried.site = again.site.or_else(|| tried.site.take());
    tried.talked |= again.talked;
    tried.slowed |= again.slowed;
    tried.no_room = again.no_room;
    if room.is_given_up() || again.no_room.is_some() || again.slowed {
        return;
    }
    for job in jobs.iter_mut().filter(|job| job.is_open()) {
        job.give_up(&targets.verdict(room.clock.now()));
        finish(room, job).await;
    }
}

/// Gives large messages back, untried.
async fn give_back_large(room: &Arc<Room>, jobs: &mut [Job]) {
    for job in jobs.iter_mut().filter(|job| job.is_open() && is_large(job.size)) {
        break_off(room, std::slice::from_mut(job)).await;
        job.lease = None;
    }
}

/// Gives back what was not decided, without counting it as tried.
pub(super) async fn break_off(room: &Arc<Room>, jobs: &mut [Job]) {
    for job in jobs.iter_mut().filter(|job| job.lease.is_some()) {
        job.break_off();
        if !job.ended.is_empty() {
            finish(room, job).await;
        }
    }
}

/// A connection to the next host that can be talked to, a kept one if there is one.
async fn next_connection(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
    held: &mut Option<SitePermit>,
    working: &Working<'_>,
) -> Option<Found> {
    let found = |connection| Some(Found::Connection(connection));
    while !room.is_given_up() {
        let target = targets.next(settings, room.clock.random()).await?;
        if let Some(site) = &target.site {
            working.join(site);
        }
        if let Some(connection) = room.reuse.take(&target).await {
            if let Some(ending) = targets.wish.shortcoming(&connection) {
                targets.note(ending, Some(connection.host.clone()));
                room.reuse.keep(connection, settings, &room.settings);
                continue;
            }
            // Its leave comes with it.
            held.take_if(|held| !held.is_leave()).into_iter().for_each(SitePermit::give_up);
            return found(connection);
        }
        room.make_way(settings).await;
        let mut permits = match room.enter(settings, &target, held).await {
            Ok(permits) => permits,
            // Idle ones to another of its hosts are among those that are counted.
            Err(NoRoom::Limit) => {
                return match room.reuse.take_limited(&target).await {
                    Some(connection) => found(connection),
                    None => Some(Found::NoRoom(NoRoom::Limit)),
                };
            }
            Err(NoRoom::Site) => return Some(Found::NoRoom(NoRoom::Site)),
        };
        // Boxed for the same reason; so it is below.
        match Box::pin(Connection::open(room, settings, &target)).await {
            Ok(mut connection) => {
                permits.note_connected();
                connection.permits = permits;
                tls_report::opened(settings, targets, &connection);
                tell_trial(room, targets, &connection);
                let Some(ending) = targets.wish.shortcoming(&connection) else {
                    return found(connection);
                };
                targets.note(ending, Some(connection.host.clone()));
                room.reuse.keep(connection, settings, &room.settings);
            }
            Err(why) => {
                *held = permits.into_site();
                targets.note_failure(settings, why, &target);
            }
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
    let without = || Flaw {
        kind: FailureKind::StartTlsNotSupported,
        text: "the connection is not under TLS".to_owned(),
    };
    let flaw = match &connection.host.tls {
        Some(_) => connection.flaw.clone(),
        None => Some(without()),
    };
    let Some(of_domain) = targets.of_domain() else { return };
    if let Some(why) = of_domain.trial(host, flaw.as_ref()) {
        let line = room.log.line(Level::Warn, "sts-testing").word("server", &room.server);
        line.word("domain", of_domain.domain())
            .word("relay", &connection.host)
            .text("reason", why.text)
            .send();
    }
}

/// What there is for mail to leave by.
enum Found {
    Connection(Box<Connection>),
    /// There is none, and no room for another.
    NoRoom(NoRoom),
}

/// Sends everything to one host, over as many connections as its limits and ours demand. The last
/// one is returned if it can carry more; also whether the host asked for less.
async fn send_all(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
    jobs: &mut [Job],
    connection: Box<Connection>,
    held: &mut Option<SitePermit>,
) -> (Option<Box<Connection>>, bool) {
    let target = connection.target.clone();
    let mut connection = connection;
    loop {
        connection.send(settings, jobs).await;
        if !jobs.iter().any(Job::has_todo) || room.is_given_up() {
            let asked = connection.is_slowed;
            return (connection.is_usable(settings).then_some(connection), asked);
        }
        let mut permits = connection.take_permits();
        if connection.is_slowed {
            *held = permits.into_site();
            return (None, true);
        }
        // Its place is taken by the next.
        drop(connection);
        match Box::pin(Connection::open(room, settings, &target)).await {
            Ok(next) => {
                connection = next;
                permits.note_connected();
                connection.permits = permits;
                tls_report::opened(settings, targets, &connection);
            }
            Err(why) => {
                *held = permits.into_site();
                targets.note_failure(settings, why, &target);
                return (None, false);
            }
        }
    }
}
