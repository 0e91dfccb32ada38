//! Idle connections, kept a while for the next mail to the same host.
//!
//! A kept connection is good for any mail to the same address and port in the same mode: which
//! route the mail is on does not matter to the peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::Settings;
use super::session::Connection;
use super::target::Target;

/// Idle connections of all lanes.
#[derive(Debug, Default)]
pub(super) struct Reuse {
    idle: Arc<Mutex<HashMap<Target, Vec<Kept>>>>,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    connection: Connection,
}

/// Idle connections kept for one host.
const KEPT_MAX: usize = 100;

impl Reuse {
    fn idle(&self) -> MutexGuard<'_, HashMap<Target, Vec<Kept>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a connection for as long as the settings it was made by say, or closes it: also if
    /// others are in force now.
    pub(super) fn keep(
        &self,
        connection: Connection,
        settings: &Settings,
        in_force: &ArcSwap<Settings>,
    ) {
        let target = connection.target.clone();
        let Some(span) = settings.reuse.filter(|_| connection.is_usable(settings)) else {
            tokio::spawn(connection.close());
            return;
        };
        let number = connection.number();
        {
            let mut idle = self.idle();
            // Looked at under the lock: whoever changes settings empties this room afterwards.
            let outdated = !std::ptr::eq(Arc::as_ptr(&in_force.load()), settings);
            let kept = idle.entry(target.clone()).or_default();
            if outdated || kept.len() >= KEPT_MAX {
                if kept.is_empty() {
                    idle.remove(&target);
                }
                drop(idle);
                tokio::spawn(connection.close());
                return;
            }
            kept.push(Kept { number, connection });
        }
        let idle = Arc::clone(&self.idle);
        tokio::spawn(async move {
            tokio::time::sleep(span).await;
            let expired = take_where(&idle, &target, |kept| kept.number == number);
            if let Some(connection) = expired {
                connection.close().await;
            }
        });
    }

    /// A kept connection to the target that is still alive, the most recently used first.
    pub(super) async fn take(&self, target: &Target) -> Option<Connection> {
        while let Some(mut connection) = take_where(&self.idle, target, |_| true) {
            if connection.is_fresh().await {
                return Some(connection);
            }
        }
        None
    }

    /// Takes all connections out, to close them.
    pub(super) fn drain(&self) -> Vec<Connection> {
        let all = std::mem::take(&mut *self.idle());
        all.into_values().flatten().map(|kept| kept.connection).collect()
    }
}

fn take_where(
    idle: &Mutex<HashMap<Target, Vec<Kept>>>,
    target: &Target,
    wanted: impl Fn(&Kept) -> bool,
) -> Option<Connection> {
    let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = idle.get_mut(target)?;
    let place = kept.iter().rposition(wanted)?;
    let found = kept.remove(place);
    if kept.is_empty() {
        idle.remove(target);
    }
    Some(found.connection)
}
