//! Mail that its host has come for: sent over the connection the host has made (ATRN, RFC 2645).
//!
//! The connection comes from whoever receives, with the routes it may carry. They go by no lane: only
//! this task leases their mail meanwhile, one batch after the other, and what the host does not take
//! stays on its route with what was said. When nothing is due any more it says goodbye.

use std::sync::Arc;

use mailroot_common::status::EnhancedCode;
use smtpd_core::queue::outcome::Stage;
use smtpd_core::route::table::RouteName;
use smtpd_core::smtp::client::Ending;

use super::Settings;
use super::attempt::break_off;
use super::finish::finish;
use super::job::Job;
use super::opening::Handed;
use super::prepare::prepare_all;
use super::room::Room;
use super::session::Connection;
use super::worker::{jobs_of, sort_out};
use crate::observe::Level;
use crate::queue::Fetch;

/// Messages leased at once.
const BATCH: usize = 10;
/// As RFC 8689 section 4.2.1 has it, but for now only.
const NEEDS_REQUIRETLS: EnhancedCode = EnhancedCode::transient(7, 30);
const CANNOT_KEEP: &str = "the host came for it without TLS, or does not offer REQUIRETLS there, which this \
                           message needs";

/// Sees to the connections that were handed over since this was done last.
pub(super) fn begin_all(room: &Arc<Room>) {
    for fetch in room.queue.take_fetches() {
        let visit = Visit::begin(Arc::clone(room));
        tokio::spawn(async move { serve(&visit.0, fetch).await });
    }
}

/// Counts as a worker for as long as it lives.
struct Visit(Arc<Room>);

impl Visit {
    fn begin(room: Arc<Room>) -> Self {
        room.visitor_came();
        Self(room)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visitor_left();
    }
}

/// Sends what waits on the routes of a connection, and ends it.
async fn serve(room: &Arc<Room>, fetch: Fetch) {
    let Fetch { claim, stream, session, peer, tls, user, leashed, done } = fetch;
    // It cannot be followed by another: all that is to leave leaves by it.
    let settings =
        Settings { messages_per_connection: u32::MAX, ..Settings::clone(&room.settings.load()) };
    let handed = Handed { stream, session, peer, tls, leashed: leashed.clone() };
    let opened = Box::pin(Connection::take_over(room, &settings, handed)).await;
    let (sent, why) = match opened {
        Ok(mut connection) => {
            for route in claim.routes() {
                room.queue.hurry_held(route, &room.log).await;
                let is_paused = || {
                    let now = room.clock.now();
                    room.queue.orders().pause_of(route, now).is_some()
                };
                let is_over = || room.is_halted() || leashed.is_pulled() || is_paused();
                send_all(room, &settings, route, &mut connection, is_over).await;
            }
            let sent = connection.used;
            connection.close().await;
            (sent, None)
        }
        Err(ending) => (0, Some(ending.text)),
    };
    // The routes are free before the session counts as over.
    drop(claim);
    let line = room.log.line(Level::Info, "atrn-done").word("server", &room.server);
    let line = line.word("client", peer.ip()).word("sid", session).text("user", &user);
    let line = line.word("messages", sent);
    match why {
        Some(why) => line.text("error", why).send(),
        None => line.send(),
    }
    // Nobody waits where the session is gone.
    let _ = done.send(sent);
}

/// Mail that goes under TLS all the way or not at all waits for a connection that keeps to that: its host
/// can come again by one.
async fn put_off_strict(room: &Room, connection: &Connection, jobs: &mut Vec<Job>) {
    if connection.host.tls.is_some() && connection.client.peer().require_tls {
        return;
    }
    for job in jobs.iter_mut().filter(|job| job.requires_tls()) {
        let ending = Ending::local(Stage::Hello, NEEDS_REQUIRETLS, CANNOT_KEEP);
        let outcome = ending.into_outcome(room.clock.now(), Some(connection.host.clone()));
        job.end_all(&outcome);
        finish(room, job).await;
    }
    jobs.retain(|job| job.lease.is_some());
}

async fn send_all(
    room: &Arc<Room>,
    settings: &Settings,
    route: &RouteName,
    connection: &mut Connection,
    is_over: impl Fn() -> bool,
) {
    while !is_over() && connection.is_usable(settings) && room.pause_left().is_zero() {
        let leases = match room.queue.lease(route, room.clock.now(), BATCH).await {
            Ok(leases) => leases,
            Err(error) => {
                let line = room.log.line(Level::Error, "lease-failed").word("server", &room.server);
                line.word("route", route).word("error", &error).send();
                return;
            }
        };
        if leases.is_empty() {
            return;
        }
        let mut jobs = jobs_of(leases, settings, route, false);
        sort_out(room, settings, &mut jobs).await;
        put_off_strict(room, connection, &mut jobs).await;
        prepare_all(room, settings, &mut jobs).await;
        connection.send(settings, &mut jobs).await;
        // What was said of recipients counts; those that the connection did not come to are not tried.
        break_off(room, &mut jobs).await;
    }
}
