//! Searches of the trace for users who ask about their own mail: some at once, and few for each user.
//!
//! Each may read the whole record, with several threads. A connection that ends does not end its search
//! in the same moment, so that it is the search that is counted, from its beginning to its end; whoever
//! finds no place waits for a moment.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::control::{Kind, Problem};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::local::{Place, Places};

/// How many there may be, and how many of one user.
const SCANS_MAX: usize = 4;
const SCANS_OF_USER_MAX: usize = 2;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The places for searches. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Scans {
    places: Places,
    freed: Arc<Notify>,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(super) struct Scan {
    place: Option<Place>,
    freed: Arc<Notify>,
}

impl Scans {
    /// A place for a search of a user, when there is one.
    ///
    /// # Errors
    ///
    /// A problem that says to try again, if there is none for a while.
    pub(super) async fn enter(&self, uid: u32) -> Result<Scan, Problem> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // What is given back from now on is heard of.
            let freed = self.freed.notified();
            let mut freed = std::pin::pin!(freed);
            freed.as_mut().enable();
            if let Some(place) = self.places.take(uid, SCANS_MAX, SCANS_OF_USER_MAX) {
                return Ok(Scan { place: Some(place), freed: Arc::clone(&self.freed) });
            }
            if timeout_at(deadline, freed).await.is_err() {
                let words = format!(
                    "the trace is being searched for you {SCANS_OF_USER_MAX} times already, or for \
                     several users: try again when a search has ended"
                );
                return Err(Problem::new("trace", Kind::Unavailable, words));
            }
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        drop(self.place.take());
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_has_his_share_waits_until_one_ends_and_no_longer_than_is_sensible() {
        let scans = Scans::default();
        let (first, second) = (scans.enter(7).await.unwrap(), scans.enter(7).await.unwrap());
        let others = [scans.enter(8).await.unwrap(), scans.enter(9).await.unwrap()];
        let problem = scans.enter(7).await.unwrap_err();
        assert_eq!(problem.kind(), Kind::Unavailable, "{problem:?}");
        let waiting = [7, 10].map(|uid| {
            let scans = scans.clone();
            tokio::spawn(async move { scans.enter(uid).await })
        });
        tokio::task::yield_now().await;
        drop((first, second));
        for scan in waiting {
            drop(scan.await.unwrap().unwrap());
        }
        drop(others);
    }
}
