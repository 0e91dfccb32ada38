//! The sessions that are alive: who they are, what they do, and how they are told to end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use mailroot_common::id::SessionId;
use mailroot_common::units::Timestamp;
use smtpd_core::smtp::server::Standing;
use tokio::sync::Notify;

use super::lock;

/// One session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEntry {
    /// Its name.
    pub id: SessionId,
    /// The client.
    pub client: SocketAddr,
    /// What the client called itself, if it did.
    pub helo: Option<String>,
    /// Who has logged in.
    pub user: Option<String>,
    /// The version of TLS it is under.
    pub tls: Option<&'static str>,
    /// SHA-256 of the client's certificate, if it is a good one.
    pub certificate: Option<String>,
    /// What it is doing.
    pub standing: Standing,
    /// Messages accepted.
    pub messages: u64,
    /// Octets received.
    pub octets: u64,
    /// When it began.
    pub since: Timestamp,
}

/// What a session is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Order {
    /// Go on.
    None,
    /// End when no message is on its way.
    Stop,
    /// End.
    Kill,
}

/// A session as the registry and its own task see it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: SessionId,
    client: Mutex<SocketAddr>,
    pub(super) since: Timestamp,
    helo: Mutex<Option<String>>,
    user: Mutex<Option<String>>,
    tls: OnceLock<&'static str>,
    certificate: Mutex<Option<Box<str>>>,
    standing: AtomicU8,
    messages: AtomicU64,
    octets: AtomicU64,
    order: AtomicU8,
    told: Notify,
}

const STANDINGS: [Standing; 7] = [
    Standing::Greeting,
    Standing::Idle,
    Standing::Envelope,
    Standing::Body,
    Standing::Commit,
    Standing::Reversed,
    Standing::Closing,
];

impl Live {
    pub(super) fn new(id: SessionId, client: SocketAddr, since: Timestamp) -> Self {
        Self {
            id,
            client: Mutex::new(client),
            since,
            helo: Mutex::default(),
            user: Mutex::default(),
            tls: OnceLock::new(),
            certificate: Mutex::default(),
            standing: AtomicU8::new(Standing::Greeting as u8),
            messages: AtomicU64::new(0),
            octets: AtomicU64::new(0),
            order: AtomicU8::new(Order::None as u8),
            told: Notify::new(),
        }
    }

    /// The client, as far as it is known.
    pub(super) fn client(&self) -> SocketAddr {
        *lock(&self.client)
    }

    /// The session is another client's from now on.
    pub(super) fn show_client(&self, client: SocketAddr) {
        *lock(&self.client) = client;
        *lock(&self.helo) = None;
        self.show_user(None);
    }

    pub(super) fn show(&self, standing: Standing, messages: u64) {
        self.standing.store(standing as u8, Ordering::Relaxed);
        self.messages.store(messages, Ordering::Relaxed);
    }

    pub(super) fn show_helo(&self, name: &str) {
        *lock(&self.helo) = Some(name.to_owned());
    }

    /// The session is under TLS; what the client said before does not count.
    pub(super) fn show_tls(&self, version: &'static str) {
        *lock(&self.helo) = None;
        self.show_user(None);
        // It comes under TLS once at most.
        let _ = self.tls.set(version);
    }

    /// The SHA-256 of the good certificate that the client has shown, if it has.
    pub(super) fn show_certificate(&self, fingerprint: Option<&str>) {
        *lock(&self.certificate) = fingerprint.map(Into::into);
    }

    pub(super) fn show_user(&self, name: Option<&str>) {
        *lock(&self.user) = name.map(str::to_owned);
    }

    pub(super) fn add_octets(&self, octets: u64) {
        self.octets.fetch_add(octets, Ordering::Relaxed);
    }

    pub(super) fn octets(&self) -> u64 {
        self.octets.load(Ordering::Relaxed)
    }

    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::None,
            1 => Order::Stop,
            _ => Order::Kill,
        }
    }

    /// Waits for the next order.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }

    /// Waits until the session is to end at once.
    pub(super) async fn killed(&self) {
        while self.order() != Order::Kill {
            self.told().await;
        }
    }

    fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Release);
        self.told.notify_one();
    }

    fn entry(&self) -> SessionEntry {
        let standing = usize::from(self.standing.load(Ordering::Relaxed));
        SessionEntry {
            id: self.id,
            client: self.client(),
            helo: lock(&self.helo).clone(),
            user: lock(&self.user).clone(),
            tls: self.tls.get().copied(),
            certificate: lock(&self.certificate).as_deref().map(str::to_owned),
            standing: STANDINGS.get(standing).copied().unwrap_or(Standing::Closing),
            messages: self.messages(),
            octets: self.octets(),
            since: self.since,
        }
    }
}

/// The sessions of one virtual server.
#[derive(Debug, Default)]
pub(super) struct Registry {
    sessions: Mutex<HashMap<SessionId, Arc<Live>>>,
    emptied: Notify,
}

impl Registry {
    pub(super) fn add(&self, live: Arc<Live>) {
        lock(&self.sessions).insert(live.id, live);
    }

    pub(super) fn remove(&self, id: SessionId) {
        let mut sessions = lock(&self.sessions);
        sessions.remove(&id);
        if sessions.is_empty() {
            // A flood that is over shall not hold its memory for ever.
            if sessions.capacity() > 1024 {
                sessions.shrink_to_fit();
            }
            self.emptied.notify_waiters();
        }
    }

    /// Waits until there is no session.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if lock(&self.sessions).is_empty() {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn list(&self) -> Vec<SessionEntry> {
        let sessions: Vec<Arc<Live>> = lock(&self.sessions).values().cloned().collect();
        let mut entries: Vec<SessionEntry> = sessions.iter().map(|live| live.entry()).collect();
        entries.sort_by_key(|entry| (entry.since, entry.id));
        entries
    }

    pub(super) fn tell(&self, id: SessionId, order: Order) -> bool {
        let live = lock(&self.sessions).get(&id).cloned();
        live.inspect(|live| live.tell(order)).is_some()
    }

    pub(super) fn tell_all(&self, order: Order) {
        let sessions: Vec<Arc<Live>> = lock(&self.sessions).values().cloned().collect();
        for live in sessions {
            live.tell(order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_standing_is_read_back_as_it_was_shown() {
        let client = "127.0.0.1:1".parse().unwrap();
        let live = Live::new(SessionId::from_u64(1), client, Timestamp::default());
        for standing in STANDINGS {
            live.show(standing, 3);
            assert_eq!((live.entry().standing, live.entry().messages), (standing, 3));
        }
    }

    #[test]
    fn an_order_is_never_taken_back_by_a_milder_one() {
        let client = "127.0.0.1:1".parse().unwrap();
        let registry = Registry::default();
        let live = Arc::new(Live::new(SessionId::from_u64(1), client, Timestamp::default()));
        registry.add(Arc::clone(&live));
        assert!(registry.tell(live.id, Order::Kill));
        registry.tell_all(Order::Stop);
        assert_eq!(live.order(), Order::Kill);
        assert!(!registry.tell(SessionId::from_u64(2), Order::Kill));
    }
}
