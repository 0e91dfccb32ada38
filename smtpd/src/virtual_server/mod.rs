//! A virtual server: its listeners, its mail root, its queue and everything between.
//!
//! It is stopped, running or paused (no new mail, delivery goes on). Its rooms are opened at its
//! first start and stay open while it is stopped, so that its queue can be looked at; what fails
//! to open leaves it stopped, with its trouble to be seen, and harms no other virtual server.

mod decide;
mod describe;
mod directory;
mod dkim;
mod error;
mod moved;
mod probe;
mod protection;
mod published;
mod rooms;
mod root;
mod roots;
mod rules;
mod senders;
mod settings;
mod tls;
mod windows;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use mailroot_common::address::Domain;
use mailroot_common::config::smart_hosts::SmartHosts;
use mailroot_common::config::submission::Submission;
use mailroot_common::config::tls::TlsVersion;
use mailroot_common::config::{ServerConfig, ServerName};
use mailroot_common::control::ServerState;
use mailroot_common::units::ByteSize;
use tokio::sync::mpsc;

pub use self::decide::Court;
pub use self::error::StartError;
pub use self::moved::{LeftBehind, Moved};
use self::rooms::{Inlets, Rooms};
pub use self::root::{MailRoot, RootError};
pub use self::roots::{Roots, waiting_in};
pub use self::senders::Sender;
use self::windows::Windows;
use crate::aliases::AliasFile;
use crate::badmail::Badmail;
use crate::clock::Clock;
use crate::config::Secrets;
use crate::deliver::SharedLimits;
use crate::drop::DropDirectory;
use crate::ldap::Directory;
use crate::mta_sts::MtaSts;
use crate::net::Net;
use crate::oauth::Tokens;
use crate::observe::{Counters, Dialogues, Log, SessionIds};
use crate::pickup::{self, Pickup};
use crate::queue::Queue;
use crate::receive::{Inquiry, Tallies};
use crate::resolve::Resolver;
use crate::tls::{Certificates, ClientTls, Recall};
use crate::tls_report::Ledger;
use crate::trace::Trace;
use crate::users::Users;

/// How long sessions with a message on its way may go on after a stop.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long attempts under way may go on after a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What all virtual servers get from the service, and what it decides for this one.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Time and chance.
    pub clock: Clock,
    /// The network.
    pub net: Net,
    /// The log.
    pub log: Log,
    /// Asks DNS.
    pub resolver: Resolver,
    /// What connections come under TLS with.
    pub tls: ClientTls,
    /// What clients are shown.
    pub certificates: Certificates,
    /// The oldest version of TLS that clients may speak (`tls.min_version`).
    pub tls_min_version: TlsVersion,
    /// Who may log in.
    pub users: Users,
    /// What holds for users of this machine.
    pub submission: Submission,
    /// Who gets mail for the names of this machine.
    pub aliases: AliasFile,
    /// The domain of addresses without one in mail of this machine's programs, if they hand it in here and
    /// the default domain is not meant.
    pub mail_name: Option<Domain>,
    /// Where they go who ask about their own mail.
    pub inquiries: mpsc::Sender<Inquiry>,
    /// The smart hosts that have names.
    pub smart_hosts: Arc<SmartHosts>,
    /// Passwords.
    pub secrets: Secrets,
    /// Tokens.
    pub tokens: Tokens,
    /// Hosts that have proved who they are, if that is remembered.
    pub recall: Option<Recall>,
    /// What sessions are counted in, for reports about TLS, if there are any.
    pub tls_reports: Option<Ledger>,
    /// Whether TLSA records of other hosts are heeded.
    pub dane: bool,
    /// Policies of other domains, if they are kept to.
    pub mta_sts: Option<MtaSts>,
    /// Names of sessions.
    pub session_ids: Arc<SessionIds>,
    /// Who listens to sessions.
    pub dialogues: Dialogues,
    /// What is remembered of mail.
    pub trace: Trace,
    /// What is used of limits that virtual servers share.
    pub limits: SharedLimits,
    /// The name of this machine.
    pub hostname: Domain,
    /// Room that must stay free on the spool (`service.min_free`).
    pub min_free: ByteSize,
    /// Where Pickup, Queue, Drop and Badmail are.
    pub mail_root: PathBuf,
    /// Where those of all servers were before.
    pub roots: Roots,
}

/// How the sessions of clients end when a server stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// With 421, as soon as they carry no message; those that do have a few seconds.
    #[default]
    Usual,
    /// By themselves, as long as this takes no longer; then as usual.
    Drain(Duration),
    /// With 421, at once.
    Kill,
}

/// One virtual server.
pub struct VirtualServer {
    name: ServerName,
    counters: Arc<Counters>,
    shared: ArcSwap<Shared>,
    config: ArcSwap<ServerConfig>,
    standing: Mutex<Standing>,
    /// How often it was paused.
    pauses: AtomicU64,
    rooms: ArcSwapOption<Rooms>,
    /// Who knows its recipients.
    directory: ArcSwapOption<Directory>,
    /// How often entries of its lists decided; kept while it is stopped, too.
    tallies: ArcSwap<Tallies>,
    /// What lets mail in and out, while it does; held by whoever starts, stops or changes the server.
    inlets: tokio::sync::Mutex<Option<Inlets>>,
    /// The same for whoever only looks, or ends a session: he waits for nobody, not even for a drain.
    windows: ArcSwapOption<Windows>,
}

/// What the server does, and why not something else.
#[derive(Clone, Debug)]
struct Standing {
    state: ServerState,
    trouble: Option<String>,
    reason: Option<String>,
}

impl fmt::Debug for VirtualServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VirtualServer").field(&self.name).finish()
    }
}

impl VirtualServer {
    /// A stopped server; nothing is opened yet.
    #[must_use]
    pub fn new(name: ServerName, shared: Shared, config: Arc<ServerConfig>) -> Arc<Self> {
        let standing = Standing { state: ServerState::Stopped, trouble: None, reason: None };
        Arc::new(Self {
            name,
            counters: Arc::default(),
            shared: ArcSwap::from_pointee(shared),
            config: ArcSwap::new(config),
            standing: Mutex::new(standing),
            pauses: AtomicU64::new(0),
            rooms: ArcSwapOption::empty(),
            directory: ArcSwapOption::empty(),
            tallies: ArcSwap::default(),
            inlets: tokio::sync::Mutex::default(),
            windows: ArcSwapOption::empty(),
        })
    }

    /// Takes and delivers mail. Nothing happens if it does already.
    ///
    /// # Errors
    ///
    /// [`StartError`]; the server is stopped then and shows why.
    pub async fn start(&self) -> Result<(), StartError> {
        let mut inlets = self.inlets.lock().await;
        if let (Some(open), Some(rooms)) = (&mut *inlets, self.rooms.load_full()) {
            open.resume(&self.name, &self.config(), &rooms.root).await;
        } else {
            self.stand(ServerState::Starting, None, None);
            match self.open().await {
                Ok(open) => {
                    self.windows.store(Some(Arc::new(open.windows())));
                    *inlets = Some(open);
                }
                Err(error) => {
                    self.stand(ServerState::Stopped, Some(error.to_string()), None);
                    return Err(error);
                }
            }
        }
        self.stand(ServerState::Running, None, None);
        Ok(())
    }

    /// The same as [`VirtualServer::start`]: a paused server takes mail again.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn resume(&self) -> Result<(), StartError> {
        self.start().await
    }

    async fn open(&self) -> Result<Inlets, StartError> {
        let (shared, config) = (self.shared.load_full(), self.config.load_full());
        let domains = self.routing(&shared, &config)?;
        let rooms = if let Some(rooms) = self.rooms.load_full() {
            rooms
        } else {
            let (root, roots) = (&shared.mail_root, &shared.roots);
            roots.look_back(&self.name, root, &shared.clock, &shared.hostname).await?;
            let rooms =
                Rooms::open(&self.name, &shared, &config, &domains.table, &self.counters).await?;
            roots.remember(&self.name, root).await;
            let rooms = Arc::new(rooms);
            self.rooms.store(Some(Arc::clone(&rooms)));
            rooms
        };
        let counting = (&self.counters, self.tally(&config));
        Inlets::open(&self.name, &shared, &config, &domains, &rooms, counting).await
    }

    /// Counters of the lists of a configuration that is put in force.
    fn tally(&self, config: &ServerConfig) -> Tallies {
        let tallies = rules::tallies(&self.tallies.load(), config);
        self.tallies.store(Arc::new(tallies.clone()));
        tallies
    }

    /// Takes no new mail; delivery goes on, so that the queue empties.
    pub async fn pause(&self, reason: Option<String>) {
        let mut inlets = self.inlets.lock().await;
        if let Some(open) = &mut *inlets {
            open.pause().await;
            self.pauses.fetch_add(1, Ordering::Relaxed);
            self.stand(ServerState::Paused, None, reason);
        }
    }

    /// Takes and delivers no mail. Sessions hear 421, attempts under way may end.
    pub async fn stop(&self, reason: Option<String>) {
        self.stop_after(reason, Ending::Usual).await;
    }

    /// The same, and how its sessions end.
    pub async fn stop_after(&self, reason: Option<String>, ending: Ending) {
        let mut inlets = self.inlets.lock().await;
        if let Some(open) = inlets.take() {
            self.stand(ServerState::Stopping, None, reason.clone());
            open.windows().end_sessions(ending).await;
            open.close(STOP_GRACE, STOP_PATIENCE).await;
            self.windows.store(None);
        }
        self.stand(ServerState::Stopped, None, reason);
    }

    /// Stops for good and makes everything durable.
    pub async fn close(&self) {
        self.stop(None).await;
        if let Some(rooms) = self.rooms.swap(None) {
            rooms.close().await;
        }
    }

    /// Goes by another configuration from now on. One with other directories needs the server
    /// closed. Sessions keep the settings they began with; only
    /// listeners that changed are bound anew.
    ///
    /// # Errors
    ///
    /// [`StartError`]: what could not be put in force; the rest is.
    pub async fn reconfigure(
        &self,
        shared: Shared,
        config: Arc<ServerConfig>,
    ) -> Result<(), StartError> {
        let before = self.config.swap(Arc::clone(&config));
        self.shared.store(Arc::new(shared));
        match (before.enabled, config.enabled) {
            (false, true) => return self.start().await,
            (true, false) => {
                self.stop(None).await;
                return Ok(());
            }
            _ => {}
        }
        let mut inlets = self.inlets.lock().await;
        let Some(rooms) = self.rooms.load_full() else {
            let was_in_trouble = self.standing().trouble.is_some();
            drop(inlets);
            return if config.enabled && was_in_trouble { self.start().await } else { Ok(()) };
        };
        let shared = self.shared.load_full();
        let domains = self.routing(&shared, &config)?;
        rooms.queue.set_table(Arc::clone(&domains.table));
        rooms.queue.set_min_free(shared.min_free);
        if let Some(open) = &mut *inlets {
            let done = {
                let rooms = (&*rooms, self.tally(&config));
                open.reconfigure(&self.name, &shared, &config, &domains, rooms).await
            };
            if let Err(error) = done {
                self.stand(self.state(), Some(error.to_string()), None);
                return Err(error);
            }
            self.stand(self.state(), None, self.standing().reason);
        } else if config.enabled && self.standing().trouble.is_some() {
            drop(inlets);
            return self.start().await;
        }
        Ok(())
    }

    /// Goes by its configuration anew, because something that it names has changed.
    ///
    /// # Errors
    ///
    /// [`StartError`], as [`VirtualServer::reconfigure`].
    pub async fn refresh(&self) -> Result<(), StartError> {
        self.reconfigure(Shared::clone(&self.shared.load()), self.config()).await
    }

    /// Gives this domain to addresses without one in mail of this machine's programs.
    ///
    /// # Errors
    ///
    /// [`StartError`], as [`VirtualServer::reconfigure`].
    pub async fn take_mail_name(&self, mail_name: Option<Domain>) -> Result<(), StartError> {
        let shared = Shared { mail_name, ..Shared::clone(&self.shared.load()) };
        self.reconfigure(shared, self.config()).await
    }

    /// The domain of addresses without one in mail of this machine's programs, if it is another than the
    /// default domain.
    #[must_use]
    pub fn mail_name(&self) -> Option<Domain> {
        self.shared.load().mail_name.clone()
    }

    fn stand(&self, state: ServerState, trouble: Option<String>, reason: Option<String>) {
        *lock(&self.standing) = Standing { state, trouble, reason };
    }

    fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// What the server does.
    #[must_use]
    pub fn state(&self) -> ServerState {
        lock(&self.standing).state
    }

    /// How often it was paused, so that one pause can be told from the next.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Why it does not run, or not as configured.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.standing().trouble
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        &self.name
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// What it counted.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Its queue; none if it never started.
    #[must_use]
    pub fn queue(&self) -> Option<Queue> {
        self.rooms.load().as_ref().map(|rooms| rooms.queue.clone())
    }

    /// The directory of Pickup, Queue, Drop and Badmail.
    #[must_use]
    pub fn mail_root(&self) -> PathBuf {
        self.shared.load().mail_root.clone()
    }

    /// The directory of its queue; none if it never started.
    #[must_use]
    pub fn queue_directory(&self) -> Option<PathBuf> {
        self.rooms.load().as_ref().map(|rooms| rooms.root.queue.clone())
    }

    /// Its Badmail; none if it never started.
    #[must_use]
    pub fn badmail(&self) -> Option<Badmail> {
        self.rooms.load().as_ref().map(|rooms| rooms.badmail.clone())
    }

    /// Its Pickup directory by the rules in force, whether it is being watched or not; none if the
    /// server never started.
    #[must_use]
    pub fn pickup(&self) -> Option<Pickup> {
        let rooms = self.rooms.load_full()?;
        let (shared, config) = (self.shared.load_full(), self.config.load_full());
        let settings = settings::pickup(self.name.as_str(), &config, &shared, &rooms.root);
        let parts = pickup::Parts {
            queue: rooms.queue.clone(),
            badmail: rooms.badmail.clone(),
            clock: shared.clock.clone(),
            log: shared.log.clone(),
            counters: Arc::clone(&self.counters),
            trace: shared.trace.clone(),
            aliases: shared.aliases.clone(),
            taken: Arc::default(),
            net: shared.net.clone(),
            resolver: shared.resolver.clone(),
        };
        Some(Pickup::new(settings, parts))
    }

    /// Its Pickup directory, with what whoever watches it knows, if it is being watched.
    pub async fn watched_pickup(&self) -> Option<Pickup> {
        let watched = self.inlets.lock().await.as_ref().and_then(Inlets::pickup);
        watched.or_else(|| self.pickup())
    }

    /// Its Drop directory by the rules in force; none if it never started.
    #[must_use]
    pub fn drop_directory(&self) -> Option<DropDirectory> {
        let rooms = self.rooms.load_full()?;
        let (shared, config) = (self.shared.load_full(), self.config.load_full());
        let settings = settings::drop(self.name.as_str(), &config, &shared, &rooms.root);
        Some(DropDirectory::new(settings, shared.clock.clone(), shared.log.clone()))
    }

    /// Whether the server answers within a moment; one that is stopped need not.
    pub async fn is_alive(&self) -> bool {
        match self.queue() {
            Some(queue) => queue.is_alive().await,
            None => true,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
