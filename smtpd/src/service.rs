//! The service: every virtual server of one configuration, and what changes them.
//!
//! One change at a time: it is checked whole before anything is touched, and each virtual server
//! is told only what concerns it. What fails in one of them shows in its state and in the log; the
//! others never notice.

mod acme;
mod aliases;
mod certificates;
mod change;
mod describe;
mod directory;
mod dkim;
mod error;
mod lifecycle;
mod logging;
mod mail_name;
mod record;
mod relocate;
mod replay;
mod smart_hosts;
mod strays;
mod submit;
mod sweep;
mod tls;
mod tls_reports;
mod tokens;
mod trial;
mod users;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use mailroot_common::address::Domain;
use mailroot_common::config::control::Operator;
use mailroot_common::config::{ServerConfig, ServerName};
use mailroot_common::control::{self, ConfigTrouble};
use mailroot_common::units::Timestamp;
use tokio::sync::mpsc;

pub use self::certificates::CertificateSpec;
pub use self::change::{Asked, DomainSpec, ROLLBACK};
pub use self::dkim::DkimSpec;
pub use self::error::ServiceError;
pub use self::lifecycle::{Goes, Turn};
use self::strays::Stray;
pub use self::submit::SubmitSocket;
use crate::acme::Acme;
use crate::aliases::AliasFile;
use crate::clock::Clock;
use crate::config::{self, Loaded, Note, Paths, Started, Trial};
use crate::deliver::SharedLimits;
use crate::disk::Disk;
use crate::mail_name::MailName;
use crate::mta_sts;
use crate::net::Net;
use crate::oauth;
use crate::observe::{Dialogues, Level, Log, SessionIds, W3c};
use crate::receive::Inquiry;
use crate::resolve::Resolver;
use crate::tls::{Certificates, ClientTls, Memory};
use crate::tls_report::Ledger;
use crate::trace::Trace;
use crate::users::Users;
use crate::virtual_server::{Roots, Shared, VirtualServer};

/// The handle to the service. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    paths: Paths,
    log: Log,
    clock: Clock,
    net: Net,
    started_at: Timestamp,
    /// The configuration in force.
    active: ArcSwap<Loaded>,
    /// What is wrong with the files, while an older state of them is in force.
    degraded: Mutex<Option<String>>,
    servers: Mutex<BTreeMap<ServerName, Arc<VirtualServer>>>,
    session_ids: Arc<SessionIds>,
    dialogues: Dialogues,
    /// Log files for analysers of the original's.
    w3c: W3c,
    trace: Trace,
    limits: SharedLimits,
    /// Tokens of smart hosts.
    tokens: oauth::Cache,
    /// Policies of other domains.
    mta_sts: mta_sts::Cache,
    /// Hosts that have proved who they are.
    memory: Memory,
    /// What other domains are to be told of TLS.
    ledger: Ledger,
    /// Held by whoever tells them.
    telling: tokio::sync::Mutex<()>,
    /// What clients are shown.
    certificates: Certificates,
    /// Those of them that are asked of an authority.
    acme: Acme,
    /// Who may log in.
    users: Users,
    /// Users of this machine who ask about their own mail, and whoever answers them takes the end.
    inquiries: (mpsc::Sender<Inquiry>, Mutex<mpsc::Receiver<Inquiry>>),
    /// Who gets mail for the names of this machine.
    aliases: AliasFile,
    /// The domain of their mail.
    mail_name: MailName,
    /// Where mail of virtual servers lay.
    roots: Roots,
    /// What waits where no virtual server looks.
    strays: Mutex<Vec<Stray>>,
    /// Held by whoever changes something.
    changing: tokio::sync::Mutex<()>,
}

/// The people who may give orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operators {
    /// About everything.
    pub service: Vec<Operator>,
    /// About one virtual server; each has an entry, also without people.
    pub servers: BTreeMap<ServerName, Vec<Operator>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("paths", &self.0.paths).finish_non_exhaustive()
    }
}

/// How many users may wait to be heard about their own mail.
const INQUIRIES_AHEAD: usize = 8;

/// By which means other hosts are found and spoken to.
struct Reach {
    resolver: Resolver,
    tls: ClientTls,
}

impl Service {
    /// Starts every enabled virtual server. One that cannot start is shown with its trouble.
    pub async fn start(paths: Paths, started: Started, log: Log, clock: Clock, net: Net) -> Self {
        let degraded = started.degraded.as_ref().map(ToString::to_string);
        let loaded = Arc::new(started.loaded);
        let session_ids = Arc::new(SessionIds::beginning_at(clock.random()));
        let trace = record::open(&paths, &loaded, &clock, &log);
        let users = Users::open(paths.state.join("users.json"), clock.clone());
        if let Some(trouble) = users.trouble() {
            log.line(Level::Error, "users-unread").text("reason", trouble).send();
        }
        let kept = paths.state.join("oauth");
        let tokens = oauth::Cache::new(&kept, clock.clone(), log.clone());
        let policies = paths.state.join("mta-sts");
        let mta_sts = mta_sts::Cache::open(Disk::Real, policies, clock.clone(), log.clone());
        let hosts = paths.state.join("tls-hosts");
        let memory = Memory::open(Disk::Real, hosts, clock.clone(), log.clone());
        let reports = paths.state.join("tls-reports");
        let ledger = Ledger::open(Disk::Real, reports, clock.clone(), log.clone());
        let acme = Acme::open(&paths.state.join("tls"), clock.clone(), log.clone());
        let aliases = AliasFile::nowhere(log.clone());
        let mail_name = MailName::nowhere(log.clone());
        let (inquiries, asked) = mpsc::channel(INQUIRIES_AHEAD);
        let roots = Roots::open(Disk::Real, paths.state.join("mail-roots.json"), log.clone());
        let service = Self(Arc::new(Inner {
            paths,
            started_at: clock.now(),
            log,
            clock,
            net,
            active: ArcSwap::new(Arc::clone(&loaded)),
            degraded: Mutex::new(degraded),
            servers: Mutex::default(),
            session_ids,
            dialogues: Dialogues::default(),
            w3c: W3c::default(),
            trace,
            limits: SharedLimits::default(),
            tokens,
            mta_sts,
            memory,
            ledger,
            telling: tokio::sync::Mutex::default(),
            certificates: Certificates::default(),
            acme,
            users,
            inquiries: (inquiries, Mutex::new(asked)),
            aliases,
            mail_name,
            roots,
            strays: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        }));
        service.set_record(&loaded);
        service.log_troubles(&loaded);
        service.begin_w3c(&loaded);
        match service.reach(&loaded) {
            Ok(reach) => {
                service.align(&loaded, &reach).await;
            }
            Err(error) => service.complain(&error.to_string()),
        }
        if let Some(trial) = Trial::read(&service.0.paths) {
            service.await_trial(trial);
        }
        service
    }

    /// Makes the virtual servers be what the configuration says: adds, changes, starts, removes.
    /// What could not be done, a line each.
    async fn align(&self, loaded: &Loaded, reach: &Reach) -> Vec<String> {
        self.set_certificates(loaded).await;
        self.0.roots.configure(self.mail_roots(loaded));
        let mut troubles = Vec::new();
        let gone: Vec<Arc<VirtualServer>> = {
            let mut servers = lock(&self.0.servers);
            let names: Vec<ServerName> = servers
                .keys()
                .filter(|name| !loaded.servers.contains_key(*name))
                .cloned()
                .collect();
            names.iter().filter_map(|name| servers.remove(name)).collect()
        };
        for server in gone {
            server.close().await;
            self.0.log.forget_server(server.name().as_str());
        }
        let of_programs = mail_name::submit_server(loaded);
        let mail_name = self.mail_name_by(loaded).await;
        for (name, config) in &loaded.servers {
            self.0.log.set_server(name.as_str(), config.general.logging);
            let mail_name = mail_name.clone().filter(|_| of_programs.as_ref() == Some(name));
            let shared = Shared { mail_name, ..self.shared(loaded, reach, name, config) };
            let known = self.server(name);
            let fresh = known.is_none();
            let server = known.unwrap_or_else(|| {
                let server = VirtualServer::new(name.clone(), shared.clone(), Arc::clone(config));
                lock(&self.0.servers).insert(name.clone(), Arc::clone(&server));
                server
            });
            let done = if fresh && config.enabled {
                server.start().await
            } else {
                server.reconfigure(shared, Arc::clone(config)).await
            };
            if let Err(error) = done {
                let line = self.0.log.line(Level::Error, "server-failed");
                line.word("server", name).text("reason", &error).send();
                troubles.push(format!("{name}: {error}"));
            }
        }
        self.look_for_strays(loaded).await;
        troubles
    }

    fn shared(
        &self,
        loaded: &Loaded,
        reach: &Reach,
        name: &ServerName,
        config: &ServerConfig,
    ) -> Shared {
        Shared {
            clock: self.0.clock.clone(),
            net: self.0.net.clone(),
            log: self.0.log.of_server(name.as_str()),
            resolver: reach.resolver.clone(),
            tls: reach.tls.clone(),
            certificates: self.0.certificates.clone(),
            users: self.0.users.clone(),
            submission: loaded.service.submission.clone(),
            aliases: self.aliases_by(loaded),
            mail_name: None,
            inquiries: self.0.inquiries.0.clone(),
            tls_min_version: loaded.service.tls.min_version,
            smart_hosts: Arc::new(loaded.service.smart_hosts.clone()),
            secrets: self.secrets(),
            tokens: self.tokens_by(reach),
            dane: loaded.service.tls.dane,
            recall: self.recall_by(loaded),
            tls_reports: loaded.service.tls.reports.enabled.then(|| self.0.ledger.clone()),
            mta_sts: loaded.service.tls.mta_sts.then(|| self.policies_by(reach)),
            session_ids: Arc::clone(&self.0.session_ids),
            dialogues: self.0.dialogues.clone(),
            trace: self.0.trace.clone(),
            limits: self.0.limits.clone(),
            hostname: loaded.hostname.clone(),
            min_free: loaded.service.service.min_free,
            mail_root: self.0.paths.mail_root(&loaded.service, name, config),
            roots: self.0.roots.clone(),
        }
    }

    /// Stops every virtual server: sessions hear 421, nothing accepted is lost.
    pub async fn stop(&self) {
        let _one_at_a_time = self.0.changing.lock().await;
        let servers = self.all();
        let closing = servers.iter().map(|server| {
            let server = Arc::clone(server);
            tokio::spawn(async move { server.close().await })
        });
        for task in closing.collect::<Vec<_>>() {
            // A server that failed to stop in order has nothing left that could be lost.
            let _ = task.await;
        }
        self.0.tokens.settle().await;
        self.0.memory.settle().await;
        self.0.ledger.keep().await;
        self.0.trace.close();
        self.0.w3c.close();
    }

    /// Reads the files again and makes them the configuration in force, or changes nothing. The file of
    /// the log is opened anew in either case.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Config`] with everything that is wrong.
    pub async fn reload(&self, actor: &str) -> Result<control::Reloaded, ServiceError> {
        let reloaded = self.read_again(actor).await;
        let unopened = self.reopen_log().await.err().map(|error| error.to_string());
        let mut reloaded = reloaded?;
        reloaded.troubles.extend(unopened);
        Ok(reloaded)
    }

    async fn read_again(&self, actor: &str) -> Result<control::Reloaded, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        match config::load(&self.0.paths) {
            Ok(mut loaded) => {
                self.check_gone(&loaded)?;
                self.try_log(&loaded)?;
                let moves = self.check_moves(&loaded)?;
                let closed = self.close_moving(&loaded).await?;
                let (at, who) = (self.0.clock.now(), actor.to_owned());
                let note = Note { at, who, how: "reload".to_owned(), ..Note::default() };
                loaded.remember(&self.0.paths, note);
                let revision = loaded.revision;
                let warnings = loaded.warnings.iter().chain(&moves);
                let warnings = warnings.map(ConfigTrouble::from).collect();
                let activated = self.activate(loaded, actor, "reload").await;
                let unopened = self.reopen(closed).await;
                let Activated { changes, mut troubles } = activated?;
                troubles.extend(unopened);
                let changed = !changes.is_empty();
                Ok(control::Reloaded { changed, revision, changes, warnings, troubles })
            }
            Err(failed) => {
                let text = failed.to_string();
                self.complain(&text);
                *lock(&self.0.degraded) = Some(text);
                Err(ServiceError::Config(failed))
            }
        }
    }

    /// Puts a checked configuration in force.
    async fn activate(
        &self,
        loaded: Loaded,
        actor: &str,
        via: &str,
    ) -> Result<Activated, ServiceError> {
        let reach = self.reach(&loaded)?;
        let before = self.0.active.load_full();
        let changes = config::changes(&before, &loaded);
        let loaded = Arc::new(loaded);
        self.0.active.store(Arc::clone(&loaded));
        self.set_record(&loaded);
        *lock(&self.0.degraded) = None;
        let mut troubles = self.align(&loaded, &reach).await;
        troubles.extend(self.set_log(&loaded));
        let line = self.0.log.line(Level::Info, "config").word("rev", loaded.revision);
        line.word("actor", actor).text("via", via).text("change", changes.join("; ")).send();
        Ok(Activated { changes, troubles })
    }

    /// One virtual server with its settings.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`].
    pub async fn detail(&self, name: &ServerName) -> Result<control::ServerDetail, ServiceError> {
        let file = self.0.paths.server_file(name).display().to_string();
        Ok(self.known(name)?.detail(file).await)
    }

    /// A virtual server by its name, or that there is none.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`].
    pub fn known(&self, name: &ServerName) -> Result<Arc<VirtualServer>, ServiceError> {
        self.server(name).ok_or_else(|| ServiceError::NoServer(name.clone()))
    }

    /// A virtual server by its name.
    #[must_use]
    pub fn server(&self, name: &ServerName) -> Option<Arc<VirtualServer>> {
        lock(&self.0.servers).get(name).cloned()
    }

    /// All virtual servers, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<VirtualServer>> {
        lock(&self.0.servers).values().cloned().collect()
    }

    /// The configuration in force.
    #[must_use]
    pub fn active(&self) -> Arc<Loaded> {
        self.0.active.load_full()
    }

    /// Who may give orders, as the configuration stands now.
    #[must_use]
    pub fn operators(&self) -> Operators {
        let active = self.active();
        let of_server = |(name, config): (&ServerName, &Arc<ServerConfig>)| {
            (name.clone(), config.security.operators.clone())
        };
        Operators {
            service: active.service.control.operators.clone(),
            servers: active.servers.iter().map(of_server).collect(),
        }
    }

    /// The name of this machine: the default domain of a new server.
    #[must_use]
    pub fn hostname(&self) -> Domain {
        self.active().hostname.clone()
    }

    /// Where files, directories and sockets lie.
    #[must_use]
    pub fn paths(&self) -> &Paths {
        &self.0.paths
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// Who listens to sessions.
    #[must_use]
    pub fn dialogues(&self) -> &Dialogues {
        &self.0.dialogues
    }

    /// What is remembered of mail.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// Time and randomness.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Whether every running virtual server makes progress; asked by the supervisor's watchdog.
    pub async fn is_alive(&self) -> bool {
        for server in self.all() {
            if !server.is_alive().await {
                let line = self.0.log.line(Level::Error, "stuck");
                line.word("server", server.name()).send();
                return false;
            }
        }
        true
    }
}

/// What came into force.
struct Activated {
    /// What changed, a line each.
    changes: Vec<String>,
    /// What could not be put in force, a line each.
    troubles: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
