//! Receiving mail over SMTP: the listeners and sessions of one virtual server.
//!
//! In: connections. Out: messages handed to the queue, each answered with 250 only after the queue
//! said that it is durable. What is said and when is decided by [`smtpd_core::smtp::server`]; this
//! room moves octets, asks policy and queue, and counts.
//!
//! What shaped it: clients are many, slow, hostile or gone. A session is one task with one small
//! buffer that grows only while a body comes; every wait has an end; a fault in one session ends
//! that session; and stopping waits for messages on their way, but not for ever.

mod aliased;
mod buffer;
mod caught;
mod count;
mod fetch;
mod filter;
mod judge;
mod listener;
mod local;
mod login;
mod message;
#[cfg(feature = "pam")]
mod pam;
mod password;
mod proxy;
mod registry;
mod secure;
mod session;
#[cfg(test)]
mod tests;
#[cfg(feature = "gssapi")]
mod ticket;
mod told;
mod turns;
mod visit;
mod vouch;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use mailroot_common::config::general::Listen;
use mailroot_common::config::milter::Milter;
use mailroot_common::id::SessionId;
use mailroot_common::net::Network;
use mailroot_common::rate::Rate;
use mailroot_common::units::Timestamp;
use smtpd_core::policy::connect::ConnectPolicy;
use smtpd_core::policy::hits::Tally;
use smtpd_core::policy::limit::{ConnectionCounts, ConnectionLimits};
use smtpd_core::policy::quota::Quotas;
use smtpd_core::policy::relay::RelayPolicy;
use smtpd_core::policy::{self, Facts};
use smtpd_core::route::table::{Table, TlsPolicy};
use smtpd_core::smtp::server as machine;
use tokio::sync::{Semaphore, mpsc};

pub use self::listener::ListenError;
use self::listener::Listeners;
pub use self::local::{Inquiry, LocalRules, LocalUser};
pub use self::login::LoginRules;
use self::registry::Registry;
pub use self::registry::SessionEntry;
use self::turns::Turns;
use crate::aliases::AliasFile;
use crate::clock::Clock;
use crate::ldap::Directory;
use crate::net::Net;
use crate::oauth::Judge;
use crate::observe::{Counters, Dialogues, Log, SessionIds};
use crate::queue::Queue;
use crate::resolve::Resolver;
use crate::sender::Checks;
use crate::tls::ServerTls;
use crate::trace::Trace;
use crate::users::Users;

/// How often entries of the two lists decide.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Of the connection list.
    pub connect: Tally,
    /// Of the relay list.
    pub relay: Tally,
}

/// How much one client may send in a span; as much as it likes where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientQuota {
    /// Connections (`access.quota.connections`).
    pub connections: Option<Rate>,
    /// Messages (`access.quota.messages`).
    pub messages: Option<Rate>,
    /// Recipients (`access.quota.recipients`).
    pub recipients: Option<Rate>,
}

/// What clients have used of it.
#[derive(Debug, Default)]
struct Used {
    connections: Quotas<policy::client::Client>,
    messages: Quotas<policy::client::Client>,
    recipients: Quotas<policy::client::Client>,
}

/// What the configuration says about receiving.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the session machine goes by.
    pub session: Arc<machine::Settings>,
    /// What sessions go by whose clients may not send to anybody.
    pub strangers: Arc<machine::Settings>,
    /// What sessions of users of this machine go by.
    pub local: Arc<machine::Settings>,
    /// What holds for those users besides.
    pub submission: LocalRules,
    /// What clients come under TLS with, if they may.
    pub tls: Option<ServerTls>,
    /// Who judges tokens of clients, if they are taken.
    pub tokens: Option<Judge>,
    /// How wrong logins are answered, and what is taken for a name.
    pub logins: LoginRules,
    /// Who may connect.
    pub connect: ConnectPolicy,
    /// Who may send to whom.
    pub relay: RelayPolicy,
    /// Counts what both decide.
    pub tallies: Tallies,
    /// Which domains are ours.
    pub table: Arc<Table>,
    /// Who knows their recipients, if clients are told which there are.
    pub directory: Option<Directory>,
    /// Who knows the senders of our own domains, if that is asked.
    pub senders_directory: Option<Directory>,
    /// How mail of strangers is looked at, if it is (`senders`).
    pub senders: Option<Arc<Checks>>,
    /// How much one client may send that has not logged in.
    pub quota: ClientQuota,
    /// Who tells the client's address ahead of its words (`access.proxy_from`).
    pub balancers: Vec<Network>,
    /// Who may tell for whom it speaks (`access.xclient_from`).
    pub tellers: Vec<Network>,
    /// How many sessions there may be.
    pub connections: ConnectionLimits,
    /// Whether the name of each client is looked up and compared with what it said
    /// (`access.reverse_dns`).
    pub reverse_dns: bool,
    /// What is done about TLS for mail that leaves, where the entry of its domain says nothing
    /// (`delivery.security.tls`): it binds whoever fetches mail as well.
    pub outbound_tls: TlsPolicy,
    /// Received fields a message may have, ours included (`delivery.max_hops`).
    pub hops_max: u32,
    /// Whether a missing Date is added (`messages.fix`).
    pub add_date: bool,
    /// Whether a missing Message-ID is added (`messages.fix`).
    pub add_message_id: bool,
    /// Octets of bodies that all sessions together may hold in memory (`limits.body_memory`).
    pub body_memory_max: u64,
    /// Who looks at mail before it is accepted (`messages.milters`).
    pub milters: Arc<[Milter]>,
    /// Finds names of clients, and the milters that have names.
    pub resolver: Resolver,
}

impl Settings {
    /// Who looks at mail of other hosts, or of users of this machine.
    fn milters_for(&self, is_local: bool) -> impl Iterator<Item = &Milter> {
        self.milters.iter().filter(move |milter| milter.local || !is_local)
    }

    /// What the machine goes by for this client.
    fn rules_for(&self, facts: &Facts, now: Timestamp) -> &Arc<machine::Settings> {
        if self.relay.is_submitter(facts, now) { &self.session } else { &self.strangers }
    }
}

/// What a receiver works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The virtual server's name, for the log.
    pub name: Arc<str>,
    /// Time.
    pub clock: Clock,
    /// The network.
    pub net: Net,
    /// The log.
    pub log: Log,
    /// The virtual server's counters.
    pub counters: Arc<Counters>,
    /// Where mail goes.
    pub queue: Queue,
    /// Gives sessions of all virtual servers their names.
    pub session_ids: Arc<SessionIds>,
    /// Who listens to sessions.
    pub dialogues: Dialogues,
    /// What is remembered of mail.
    pub trace: Trace,
    /// Who may log in.
    pub users: Users,
    /// Who gets mail for the names of this machine.
    pub aliases: AliasFile,
    /// Where users of this machine go who ask about their own mail.
    pub inquiries: mpsc::Sender<Inquiry>,
}

/// The receiving side of one virtual server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Receiver(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    settings: ArcSwap<Settings>,
    listeners: Listeners,
    registry: Registry,
    counts: Mutex<ConnectionCounts>,
    used: Mutex<Used>,
    /// Who asks about tokens.
    token_turns: Turns,
    /// Whose password others are asked about.
    password_turns: Turns,
    /// Who asks PAM.
    #[cfg(feature = "pam")]
    pam: pam::Places,
    /// Places of balancers that have not told yet for whom they come.
    balancers: Arc<Semaphore>,
    paused: AtomicBool,
    stopped: AtomicBool,
    /// Octets of bodies held in memory by all sessions.
    body_memory: AtomicU64,
}

impl Receiver {
    /// A receiver that listens nowhere yet.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> Self {
        Self(Arc::new(Inner {
            parts,
            settings: ArcSwap::from_pointee(settings),
            listeners: Listeners::default(),
            registry: Registry::default(),
            counts: Mutex::default(),
            used: Mutex::default(),
            token_turns: Turns::of(2),
            password_turns: Turns::of(1),
            #[cfg(feature = "pam")]
            pam: pam::Places::default(),
            balancers: Arc::new(Semaphore::new(proxy::AT_ONCE_MAX)),
            paused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            body_memory: AtomicU64::new(0),
        }))
    }

    /// Listens on these addresses and no others. Those listened on already stay as they are, their
    /// waiting connections included, unless one is in the way of another that is wanted.
    ///
    /// # Errors
    ///
    /// [`ListenError`] naming the address; then those that were listened on are, as far as they can be had again.
    pub async fn listen(&self, doors: &[Listen]) -> Result<(), ListenError> {
        listener::rebind(self, doors).await
    }

    /// The addresses listened on, with real ports where port 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.listeners.bound()
    }

    /// The same, with how TLS begins at each.
    #[must_use]
    pub fn doors(&self) -> Vec<Listen> {
        self.0.listeners.doors()
    }

    /// Changes the settings. Sessions keep those they began with; who may connect and how many
    /// holds at once.
    pub fn set(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Takes no new sessions: clients hear 421 and may come again. Sessions go on.
    pub fn pause(&self) {
        self.0.paused.store(true, Ordering::Relaxed);
    }

    /// Whether it takes no new sessions for now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.0.paused.load(Ordering::Relaxed)
    }

    /// Takes new sessions again.
    pub fn resume(&self) {
        self.0.paused.store(false, Ordering::Relaxed);
    }

    /// Takes no new sessions and waits until those there are have ended, but no longer than this.
    pub async fn drain(&self, most: Duration) {
        self.pause();
        let _gone = tokio::time::timeout(most, self.0.registry.empty()).await;
    }

    /// Ends every session with 421, whatever it is doing but a commit.
    pub async fn kill_all(&self) {
        self.0.registry.tell_all(registry::Order::Kill);
        let _gone = tokio::time::timeout(LAST_WORDS, self.0.registry.empty()).await;
    }

    /// Stops for good: closes the listeners, ends sessions as soon as they carry no message, and
    /// the others after `grace`. Returns when all are gone.
    pub async fn stop(&self, grace: Duration) {
        self.0.stopped.store(true, Ordering::Relaxed);
        self.0.listeners.close().await;
        self.0.registry.tell_all(registry::Order::Stop);
        if tokio::time::timeout(grace, self.0.registry.empty()).await.is_err() {
            self.0.registry.tell_all(registry::Order::Kill);
            // A session that was told twice only has its last words to send.
            let _ = tokio::time::timeout(LAST_WORDS, self.0.registry.empty()).await;
        }
    }

    /// The sessions there are, the oldest first.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionEntry> {
        self.0.registry.list()
    }

    /// Ends the sessions of a user in the same way; how many there are.
    #[must_use]
    pub fn kill_sessions_of(&self, user: &str) -> u64 {
        let all = self.0.registry.list();
        let own = all.iter().filter(|entry| entry.user.as_deref() == Some(user));
        own.filter(|entry| self.kill(entry.id)).count() as u64
    }

    /// Ends a session with 421, whatever it is doing but a commit; false if there is none of this
    /// name.
    #[must_use]
    pub fn kill(&self, id: SessionId) -> bool {
        self.0.registry.tell(id, registry::Order::Kill)
    }
}

/// How long sessions get to say that they are killed.
const LAST_WORDS: Duration = Duration::from_secs(2);

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
