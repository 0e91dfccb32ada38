//! A few connections to whichever directory server answers.
//!
//! Whoever asks has one of `ldap.connections` seats; a connection is kept for the next who has one. A
//! server that fails is left alone for a while and the next one is asked, within the same question.

mod user;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::config::ldap::Ldap;
use smtpd_core::ldap::health::Health;
use smtpd_core::ldap::message::Search;
use tokio::sync::Semaphore;

use super::Means;
use super::connection::{Connection, DirectoryError, Found};
use crate::observe::Level;

/// How long a connection that nobody uses is good for another question.
const KEPT: Duration = Duration::from_secs(30);

/// Why nothing is known: no directory answered. It may pass.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Outage(pub String);

#[derive(Debug)]
pub(super) struct Pool {
    keys: Arc<Ldap>,
    seats: Semaphore,
    idle: Mutex<Vec<Idle>>,
    health: Mutex<Health>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    server: usize,
    since: Duration,
}

impl Pool {
    pub(super) fn new(keys: Arc<Ldap>) -> Self {
        Self {
            seats: Semaphore::new(keys.connections.into()),
            idle: Mutex::default(),
            health: Mutex::new(Health::of(keys.server.len())),
            keys,
        }
    }

    /// Asks the first server that answers within its time.
    pub(super) async fn search(
        &self,
        means: &Means,
        wanted: &Search<'_>,
        patience: Duration,
    ) -> Result<Found, Outage> {
        let seat = tokio::time::timeout(patience, self.seats.acquire()).await;
        let Ok(Ok(_seat)) = seat else {
            let words = "all connections to the directory are in use (ldap.connections)";
            return Err(Outage(words.to_owned()));
        };
        // One that was closed while nobody used it is no failure of its server.
        while let Some(mut kept) = self.take(means.clock.elapsed()) {
            match kept.connection.search(wanted, patience).await {
                Ok(found) => {
                    self.keep(kept, means);
                    return Ok(found);
                }
                Err(error) if error.is_answer() => {
                    let why = self.outage(kept.server, &error);
                    self.keep(kept, means);
                    return Err(why);
                }
                Err(error @ DirectoryError::TimedOut(_)) => {
                    self.note_failure(means, kept.server, &error);
                    break;
                }
                Err(_) => {}
            }
        }
        self.search_anew(means, wanted, patience).await
    }

    /// Asks over a new connection.
    async fn search_anew(
        &self,
        means: &Means,
        wanted: &Search<'_>,
        patience: Duration,
    ) -> Result<Found, Outage> {
        let askable = lock(&self.health).askable(means.clock.elapsed());
        let mut last = None;
        for server in askable {
            // Somebody else may have been refused meanwhile.
            if self.rest(server, means.clock.elapsed()).is_some() {
                continue;
            }
            let Some(address) = self.keys.server.get(server) else { continue };
            means.counters.ldap_connections.add_one();
            let opened = Connection::open(means, &self.keys, address, patience).await;
            let searched = match opened {
                Ok(mut connection) => {
                    let found = connection.search(wanted, patience).await;
                    let is_usable = found.as_ref().map_or_else(DirectoryError::is_answer, |_| true);
                    if is_usable {
                        self.note_answer(means, server);
                        self.keep(Idle { connection, server, since: Duration::ZERO }, means);
                    }
                    found
                }
                Err(error) => Err(error),
            };
            match searched {
                Ok(found) => return Ok(found),
                Err(error) if error.is_answer() => return Err(self.outage(server, &error)),
                Err(error) => {
                    self.note_failure(means, server, &error);
                    last = Some(self.outage(server, &error));
                }
            }
        }
        Err(last.unwrap_or_else(|| Outage(lock(&self.health).trouble().to_owned())))
    }

    /// Forgets which servers are left alone.
    pub(super) fn ask_anew(&self) {
        *lock(&self.health) = Health::of(self.keys.server.len());
    }

    fn outage(&self, server: usize, error: &DirectoryError) -> Outage {
        let address = self.keys.server.get(server).map(ToString::to_string);
        Outage(format!("{}: {error}", address.unwrap_or_default()))
    }

    /// For how much longer a server is left alone, and why, if it is.
    pub(super) fn rest(&self, server: usize, now: Duration) -> Option<(Duration, String)> {
        lock(&self.health).rest(server, now).map(|(span, why)| (span, why.to_owned()))
    }

    /// A server has failed. What its realm refuses is refused to every server of it.
    pub(super) fn note_failure(&self, means: &Means, server: usize, error: &DirectoryError) {
        let why = self.outage(server, error).0;
        let (now, refused) = (means.clock.elapsed(), error.is_refusal());
        let span = {
            let mut health = lock(&self.health);
            if matches!(error, DirectoryError::Realm(_)) {
                let others = (0..self.keys.server.len()).filter(|it| *it != server);
                others.for_each(|it| _ = health.failed(it, &why, refused, now));
            }
            health.failed(server, &why, refused, now)
        };
        let line = means.log.line(Level::Warn, "ldap-down").word("server", &means.server);
        line.word("rests", format_args!("{}s", span.as_secs())).text("error", why).send();
    }

    /// A server answers, which may be news.
    pub(super) fn note_answer(&self, means: &Means, server: usize) {
        if lock(&self.health).answered(server) {
            let line = means.log.line(Level::Info, "ldap-up").word("server", &means.server);
            line.maybe("ldap", self.keys.server.get(server)).send();
        }
    }

    fn take(&self, now: Duration) -> Option<Idle> {
        let mut idle = lock(&self.idle);
        idle.retain(|kept| now.saturating_sub(kept.since) < KEPT);
        idle.pop()
    }

    fn keep(&self, kept: Idle, means: &Means) {
        lock(&self.idle).push(Idle { since: means.clock.elapsed(), ..kept });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
