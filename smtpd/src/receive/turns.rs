//! Questions to others about tokens and passwords, few at once for each client: whoever guesses waits for
//! himself, and for nobody else.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use smtpd_core::policy::client::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;

/// The turns of clients that ask or wait, and of few that did so last.
#[derive(Debug)]
pub(super) struct Turns {
    at_once: usize,
    clients: Mutex<HashMap<Client, Arc<Semaphore>>>,
}

impl Turns {
    /// So many at once for one client.
    pub(super) fn of(at_once: usize) -> Self {
        Self { at_once, clients: Mutex::default() }
    }

    /// Waits for the client's turn, which lasts until what is returned is dropped.
    pub(super) async fn take(&self, client: IpAddr) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = lock(&self.clients);
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = all.entry(Client::of(client));
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(self.at_once))))
        };
        turns.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_client_waits_for_itself_alone_and_is_forgotten() {
        let turns = Turns::of(2);
        let [eve, ada] = ["203.0.113.9", "192.0.2.1"].map(|text| text.parse().unwrap());
        let (first, second) = (turns.take(eve).await.unwrap(), turns.take(eve).await.unwrap());
        assert!(poll(turns.take(eve)).is_pending());
        assert!(poll(turns.take(ada)).is_ready());
        drop(first);
        let third = turns.take(eve).await;
        assert!(third.is_some());
        drop((second, third));
        drop(turns.take(ada).await);
        assert_eq!(lock(&turns.clients).len(), 1);
    }
}
