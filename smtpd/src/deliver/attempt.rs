//! One try of some messages at the hosts of their route.
//!
//! In: leased messages of one route, perhaps a connection that was kept. Out: an outcome for every
//! recipient. Every host is asked before "not now" counts; a refusal counts at once; a host that
//! cannot be talked to is passed over.

use std::sync::Arc;

use smtpd_core::route::table::Route;

use super::Settings;
use super::finish::finish;
use super::job::Job;
use super::permits::NoRoom;
use super::room::Room;
use super::session::Connection;
use super::site::{Site, SitePermit};
use super::target::Targets;
use super::worker::Working;

/// What an attempt says about the route, apart from the mail.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// A connection that can carry more.
    pub(super) connection: Option<Connection>,
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
    kept: Option<Connection>,
    working: &Working<'_>,
) -> Report {
    let limited = settings.limited(&room.server, &route.name());
    let mut targets = Targets::new(route, limited, Some(&room.sites));
    let asked = ask_hosts(room, settings, &mut targets, jobs, kept, working).await;
    let site = asked.site.as_ref().or_else(|| targets.site()).cloned();
    if jobs.iter().any(Job::had_progress) {
        working.on_progress(site.as_ref(), settings);
    }
    let wish = jobs.iter().find_map(Job::last_word).filter(|_| asked.is_slowed).cloned();
    let had_room = asked.report.no_room.is_none();
    let left_out = !asked.has_talked && had_room && jobs.iter().any(Job::is_open);
    let crowded = left_out && working.is_crowded(site.as_ref());
    let is_slowed = wish.is_some();
    if let Some(outcome) = wish {
        working.on_slowed(site.as_ref(), outcome);
    }
    if room.is_given_up() || crowded || !had_room || is_slowed {
        break_off(room, jobs).await;
        return asked.report;
    }
    if jobs.iter().any(Job::is_open) {
        let verdict = targets.verdict(room.clock.now());
        if !asked.has_talked {
            working.on_unreachable(site.as_ref(), &verdict, settings);
        }
        drop(asked.held);
        for job in jobs.iter_mut().filter(|job| job.is_open()) {
            job.give_up(&verdict);
            finish(room, job).await;
        }
    }
    asked.report
}

/// How it went with the hosts.
#[derive(Default)]
struct Asked {
    report: Report,
    /// Whether one of them could be talked to.
    has_talked: bool,
    /// Whether every one that was asked wants less.
    is_slowed: bool,
    /// The site of the last one.
    site: Option<Arc<Site>>,
    /// Held until it is known how the site fares, so that nobody asks it meanwhile.
    held: Option<SitePermit>,
}

/// Asks one host after the other, as long as there is something to send.
async fn ask_hosts(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
    jobs: &mut [Job],
    kept: Option<Connection>,
    working: &Working<'_>,
) -> Asked {
    let (mut asked, mut kept) = (Asked::default(), kept);
    while jobs.iter().any(Job::is_open) {
        let connection = match kept.take() {
            Some(connection) => connection,
            None => {
                match next_connection(room, settings, targets, &mut asked.held, working).await {
                    Some(Found::Connection(connection)) => *connection,
                    Some(Found::NoRoom(why)) => {
                        asked.report.no_room = Some(why);
                        break;
                    }
                    None => break,
                }
            }
        };
        targets.mark_given(&connection.target);
        asked.has_talked = true;
        asked.site.clone_from(&connection.target.site);
        working.on_contact(asked.site.as_ref());
        jobs.iter_mut().for_each(Job::turn_to_next_host);
        let (left, is_slowed) =
            send_all(room, settings, targets, jobs, connection, &mut asked.held).await;
        asked.is_slowed |= is_slowed;
        if let Some(connection) = left {
            if jobs.iter().any(Job::is_open) {
                room.reuse.keep(connection, settings, &room.settings);
            } else {
                asked.report.connection = Some(connection);
            }
        }
        if room.is_given_up() {
            break;
        }
    }
    asked
}

/// Gives back what was not decided, without counting it as tried.
async fn break_off(room: &Arc<Room>, jobs: &mut [Job]) {
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
    let found = |connection| Some(Found::Connection(Box::new(connection)));
    while !room.is_given_up() {
        let target = targets.next(settings, room.clock.random()).await?;
        if let Some(connection) = room.reuse.take(&target).await {
            return found(connection);
        }
        room.make_way(settings).await;
        if let Some(site) = &target.site {
            working.join(site);
        }
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
        match Connection::open(room, settings, &target).await {
            Ok(mut connection) => {
                permits.note_connected();
                connection.permits = permits;
                return found(connection);
            }
            Err(ending) => {
                *held = permits.into_site();
                targets.note(ending, Some(target.host()));
            }
        }
    }
    None
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
    connection: Connection,
    held: &mut Option<SitePermit>,
) -> (Option<Connection>, bool) {
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
        match Connection::open(room, settings, &target).await {
            Ok(next) => {
                connection = next;
                permits.note_connected();
                connection.permits = permits;
            }
            Err(ending) => {
                *held = permits.into_site();
                targets.note(ending, Some(target.host()));
                return (None, false);
            }
        }
    }
}
