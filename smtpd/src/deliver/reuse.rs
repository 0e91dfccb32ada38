//! Idle connections, kept a while for the next mail to the same host.
//!
//! A kept connection is good for any mail to the same address and port in the same mode: which
//! route the mail is on does not matter to the peer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::Settings;
use super::aim::Target;
use super::session::Connection;
use super::site::Site;

/// Idle connections of all lanes.
#[derive(Debug, Default)]
pub(super) struct Reuse {
    idle: Arc<Mutex<Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    of_target: HashMap<Target, Vec<Kept>>,
    /// Where each stands, the longest idle first.
    by_turn: BTreeMap<u64, Target>,
    turns: u64,
}

#[derive(Debug)]
struct Kept {
    turn: u64,
    connection: Box<Connection>,
}

/// Idle connections kept for one host.
const KEPT_MAX: usize = 100;

impl Reuse {
    /// Keeps a connection for as long as the settings it was made by say, or closes it: also if
    /// others are in force now.
    pub(super) fn keep(
        &self,
        connection: Box<Connection>,
        settings: &Settings,
        in_force: &ArcSwap<Settings>,
    ) {
        let Some(span) = settings.reuse.filter(|_| connection.is_usable(settings)) else {
            tokio::spawn(connection.close());
            return;
        };
        let mut connection = connection;
        let turn = {
            let mut idle = lock(&self.idle);
            // Looked at under the lock: whoever changes settings empties this room afterwards.
            let outdated = !std::ptr::eq(Arc::as_ptr(&in_force.load()), settings);
            if outdated || idle.count(&connection.target) >= KEPT_MAX {
                drop(idle);
                tokio::spawn(connection.close());
                return;
            }
            connection.permits.note_idle(true);
            idle.keep(connection)
        };
        let idle = Arc::clone(&self.idle);
        tokio::spawn(async move {
            tokio::time::sleep(span).await;
            let expired = lock(&idle).take_turn(turn);
            if let Some(connection) = expired {
                connection.close().await;
            }
        });
    }

    /// A kept connection to the target that is still alive, the most recently used first.
    pub(super) async fn take(&self, target: &Target) -> Option<Box<Connection>> {
        loop {
            let mut connection = lock(&self.idle).take(target)?;
            if connection.is_fresh().await {
                return Some(connection);
            }
        }
    }

    /// A kept connection under the same limit as the target, and in the same mode, that is still alive.
    pub(super) async fn take_limited(&self, target: &Target) -> Option<Box<Connection>> {
        loop {
            let other = lock(&self.idle).of_target.keys().find(|it| it.is_akin(target)).cloned()?;
            if let Some(connection) = self.take(&other).await {
                return Some(connection);
            }
        }
    }

    /// A kept connection to a site, to make way for one that can be used.
    pub(super) fn take_of_site(&self, site: &Site) -> Option<Box<Connection>> {
        let mut idle = lock(&self.idle);
        let is_of = |target: &&Target| target.site.as_deref() == Some(site);
        let target = idle.of_target.keys().find(is_of).cloned()?;
        idle.take(&target)
    }

    /// How many connections are idle.
    pub(super) fn len(&self) -> usize {
        lock(&self.idle).by_turn.len()
    }

    /// The connection that has been idle longest, to make way for another.
    pub(super) fn take_oldest(&self) -> Option<Box<Connection>> {
        let mut idle = lock(&self.idle);
        let turn = *idle.by_turn.first_key_value()?.0;
        idle.take_turn(turn)
    }

    /// Closes all connections.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *lock(&self.idle));
        drop(all);
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Idle {
    fn count(&self, target: &Target) -> usize {
        self.of_target.get(target).map_or(0, Vec::len)
    }

    /// Returns the turn by which the connection is found again.
    fn keep(&mut self, connection: Box<Connection>) -> u64 {
        let target = connection.target.clone();
        self.turns += 1;
        let turn = self.turns;
        self.of_target.entry(target.clone()).or_default().push(Kept { turn, connection });
        self.by_turn.insert(turn, target);
        turn
    }

    fn take(&mut self, target: &Target) -> Option<Box<Connection>> {
        let turn = self.of_target.get(target)?.last()?.turn;
        self.take_turn(turn)
    }

    fn take_turn(&mut self, turn: u64) -> Option<Box<Connection>> {
        let target = self.by_turn.remove(&turn)?;
        let known = self.of_target.get_mut(&target)?;
        let place = known.iter().position(|kept| kept.turn == turn)?;
        let found = known.remove(place);
        if known.is_empty() {
            self.of_target.remove(&target);
        }
        let mut connection = found.connection;
        connection.permits.note_idle(false);
        Some(connection)
    }
}
