//! One try of some messages at the hosts of their route.
//!
//! In: leased messages of one route, perhaps a connection that was kept. Out: an outcome for every
//! recipient. Every host is asked before "not now" counts; a refusal counts at once; a host that
//! cannot be talked to is passed over.

use std::sync::Arc;

use smtpd_core::queue::outcome::Outcome;
use smtpd_core::route::table::Route;

use super::Settings;
use super::finish::finish;
use super::job::Job;
use super::room::Room;
use super::session::Connection;
use super::target::Targets;
use super::worker::Working;

/// What an attempt says about the route, apart from the mail.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// A connection that can carry more.
    pub(super) connection: Option<Connection>,
    /// Set if not one host could be talked to.
    pub(super) unreachable: Option<Outcome>,
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
    let mut targets = Targets::new(route);
    let mut report = Report::default();
    let mut talked = false;
    let mut kept = kept;
    while jobs.iter().any(Job::is_open) {
        let connection = match kept.take() {
            Some(connection) => connection,
            None => match next_connection(room, settings, &mut targets).await {
                Some(connection) => connection,
                None => break,
            },
        };
        targets.mark_given(&connection.target);
        talked = true;
        working.on_contact();
        jobs.iter_mut().for_each(Job::turn_to_next_host);
        let left = send_all(room, settings, &mut targets, jobs, connection).await;
        if let Some(connection) = left {
            if jobs.iter().any(Job::is_open) {
                room.reuse.keep(connection, settings, &room.settings);
            } else {
                report.connection = Some(connection);
            }
        }
        if room.is_given_up() {
            break;
        }
    }
    let crowded = !talked && jobs.iter().any(Job::is_open) && working.is_crowded();
    if room.is_given_up() || crowded {
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
        if !talked {
            report.unreachable = Some(verdict);
        }
    }
    report
}

/// A connection to the next host that can be talked to, a kept one if there is one.
async fn next_connection(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
) -> Option<Connection> {
    while !room.is_given_up() {
        let target = targets.next(settings, room.clock.random()).await?;
        if let Some(connection) = room.reuse.take(&target).await {
            return Some(connection);
        }
        room.make_way(settings).await;
        match Connection::open(room, settings, &target).await {
            Ok(connection) => return Some(connection),
            Err(ending) => targets.note(ending, Some(target.host())),
        }
    }
    None
}

/// Sends everything to one host, over as many connections as its limits and ours demand. The last
/// one is returned if it can carry more.
async fn send_all(
    room: &Arc<Room>,
    settings: &Settings,
    targets: &mut Targets,
    jobs: &mut [Job],
    connection: Connection,
) -> Option<Connection> {
    let target = connection.target.clone();
    let mut connection = connection;
    loop {
        connection.send(settings, jobs).await;
        if !jobs.iter().any(Job::has_todo) || room.is_given_up() {
            return connection.is_usable(settings).then_some(connection);
        }
        drop(connection);
        match Connection::open(room, settings, &target).await {
            Ok(next) => connection = next,
            Err(ending) => {
                targets.note(ending, Some(target.host()));
                return None;
            }
        }
    }
}
