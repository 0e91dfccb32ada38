//! Whose password is looked at next: a few at once, and of one client one, so that nobody's guesses
//! hold up the logins of others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use smtpd_core::policy::client::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Passwords that are looked at at once; each takes 19 MiB for the time.
const AT_ONCE: usize = 2;

#[derive(Clone, Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    clients: Arc<Clients>,
}

type Clients = Mutex<HashMap<Client, Arc<Semaphore>>>;

/// The right to look at a password.
#[derive(Debug)]
pub(super) struct Turn {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_client: OwnedSemaphorePermit,
    _line: InLine,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), clients: Arc::default() }
    }

    /// Waits for a turn, in line behind others of the same client and then behind one of each other
    /// client. Nothing only if the semaphores were closed, which nobody does.
    pub(super) async fn take(&self, client: IpAddr) -> Option<Turn> {
        let line = InLine::new(Arc::clone(&self.clients), Client::of(client));
        let own = Arc::clone(&line.own).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _one_of_all: all, _one_of_client: own, _line: line })
    }
}

/// A place in the line of a client, which is forgotten with the last one in it.
#[derive(Debug)]
struct InLine {
    clients: Arc<Clients>,
    client: Client,
    own: Arc<Semaphore>,
}

impl InLine {
    fn new(clients: Arc<Clients>, client: Client) -> Self {
        let own = {
            let mut all = lock(&clients);
            Arc::clone(all.entry(client).or_insert_with(|| Arc::new(Semaphore::new(1))))
        };
        Self { clients, client, own }
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut all = lock(&self.clients);
        // The list's and ours: whoever has a permit has a place in line as well.
        if Arc::strong_count(&self.own) == 2 {
            all.remove(&self.client);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn now<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn one_client_takes_one_turn_at_a_time() {
        let turns = Turns::new();
        let [eve, eve6, other6, ada] = ["192.0.2.9", "2001:db8::1", "2001:db8::ffff", "192.0.2.1"]
            .map(|text| text.parse::<IpAddr>().unwrap());
        let first = turns.take(eve).await.unwrap();
        let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(turns.take(eve))).collect();
        assert!(waiting.iter_mut().all(|it| now(it.as_mut()).is_none()));
        let second = now(std::pin::pin!(turns.take(ada))).expect("others do not wait for them");
        let mut third = Box::pin(turns.take(eve6));
        assert!(now(third.as_mut()).is_none(), "two at once");
        drop(second);
        let third = now(third.as_mut()).unwrap();
        assert!(now(std::pin::pin!(turns.take(other6))).is_none(), "a /64 is one network");
        drop(first);
        assert!(now(waiting[0].as_mut()).is_some(), "first come, first served");
        drop((waiting, third));
        assert!(lock(&turns.clients).is_empty(), "nobody is remembered");
    }
}
