//! The open rooms of a virtual server.
//!
//! [`Rooms`] hold mail and stay open until the daemon ends; [`Inlets`] let mail in and out, and come
//! and go with start and stop.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::config::access::TlsMode;
use mailroot_common::config::general::ListenTls;
use mailroot_common::config::{ServerConfig, ServerName};
use smtpd_core::route::table::Table;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::directory::Domains;
use super::root::MailRoot;
use super::windows::Windows;
use super::{Shared, StartError, settings};
use crate::badmail::Badmail;
use crate::deliver::{self, Deliver};
use crate::drop::DropDirectory;
use crate::observe::Counters;
use crate::pickup::{self, Pickup};
use crate::queue::{self, Queue};
use crate::receive::{self, Receiver, Tallies};
use crate::tls::ServerTls;

/// What holds mail.
#[derive(Debug)]
pub(super) struct Rooms {
    pub(super) root: MailRoot,
    pub(super) queue: Queue,
    pub(super) badmail: Badmail,
    pruning: Task,
}

impl Rooms {
    pub(super) async fn open(
        name: &ServerName,
        shared: &Shared,
        config: &ServerConfig,
        table: &Arc<Table>,
        counters: &Arc<Counters>,
    ) -> Result<Self, StartError> {
        let root = settings::places(&shared.mail_root, config);
        root.prepare()?;
        let queue = Queue::open(
            queue::Settings {
                server: name.to_string(),
                directory: root.queue.clone(),
                segment_size: config.store.segment_size,
                min_free: shared.min_free,
            },
            shared.clock.clone(),
            shared.log.clone(),
            Arc::clone(counters),
            Arc::clone(table),
        )
        .await?;
        let settings = settings::badmail(name.as_str(), config, &root);
        let log = shared.log.clone();
        let badmail = Badmail::new(settings, shared.clock.clone(), log, Arc::clone(counters));
        let pruner = badmail.clone();
        let pruning = Task::start(|stop| async move { pruner.keep_within_bounds(stop).await });
        Ok(Self { root, queue, badmail, pruning })
    }

    pub(super) async fn close(&self) {
        self.pruning.stop().await;
        self.queue.close().await;
    }
}

/// What lets mail in and out.
#[derive(Debug)]
pub(super) struct Inlets {
    pub(super) receiver: Receiver,
    pub(super) deliver: Deliver,
    drop: DropDirectory,
    pickup: Option<Watch>,
    parts: PickupParts,
}

/// A Pickup directory being watched.
#[derive(Debug)]
struct Watch {
    settings: pickup::Settings,
    pickup: Pickup,
    task: Task,
}

/// What it takes to watch a Pickup directory.
#[derive(Clone, Debug)]
struct PickupParts {
    queue: Queue,
    badmail: Badmail,
    shared: Shared,
    counters: Arc<Counters>,
    taken: Arc<pickup::Taken>,
}

impl Inlets {
    pub(super) async fn open(
        name: &ServerName,
        shared: &Shared,
        config: &ServerConfig,
        domains: &Domains,
        rooms: &Rooms,
        (counters, tallies): (&Arc<Counters>, Tallies),
    ) -> Result<Self, StartError> {
        let server: Arc<str> = name.as_str().into();
        let settings = settings::receive(config, shared, domains, tallies);
        if lacks_certificate(config, &settings) {
            return Err(StartError::Certificate);
        }
        let receiver = Receiver::new(
            receive::Parts {
                name: Arc::clone(&server),
                clock: shared.clock.clone(),
                net: shared.net.clone(),
                log: shared.log.clone(),
                counters: Arc::clone(counters),
                queue: rooms.queue.clone(),
                session_ids: Arc::clone(&shared.session_ids),
                dialogues: shared.dialogues.clone(),
                trace: shared.trace.clone(),
                users: shared.users.clone(),
                inquiries: shared.inquiries.clone(),
                aliases: shared.aliases.clone(),
            },
            settings,
        );
        receiver.listen(&config.general.listen).await?;
        let drop = DropDirectory::new(
            settings::drop(name.as_str(), config, shared, &rooms.root),
            shared.clock.clone(),
            shared.log.clone(),
        );
        let ends = (drop.clone(), rooms.badmail.clone());
        let deliver = Deliver::start(
            deliver::Parts {
                server,
                queue: rooms.queue.clone(),
                net: shared.net.clone(),
                clock: shared.clock.clone(),
                log: shared.log.clone(),
                counters: Arc::clone(counters),
                session_ids: Arc::clone(&shared.session_ids),
                dialogues: shared.dialogues.clone(),
                trace: shared.trace.clone(),
                limits: shared.limits.clone(),
            },
            settings::deliver(config, shared, domains, receiver.addresses(), ends),
        );
        let parts = PickupParts {
            queue: rooms.queue.clone(),
            badmail: rooms.badmail.clone(),
            shared: shared.clone(),
            counters: Arc::clone(counters),
            taken: Arc::default(),
        };
        let mut inlets = Self { receiver, deliver, drop, pickup: None, parts };
        inlets.watch_pickup(name, config, &rooms.root).await;
        Ok(inlets)
    }

    async fn watch_pickup(&mut self, name: &ServerName, config: &ServerConfig, root: &MailRoot) {
        let wanted = config
            .store
            .pickup
            .enabled
            .then(|| settings::pickup(name.as_str(), config, &self.parts.shared, root));
        if self.pickup.as_ref().map(|watch| &watch.settings) == wanted.as_ref() {
            return;
        }
        self.rest_pickup().await;
        self.pickup = wanted.map(|settings| {
            let parts = self.parts.clone();
            let parts = pickup::Parts {
                queue: parts.queue,
                badmail: parts.badmail,
                clock: parts.shared.clock,
                log: parts.shared.log,
                counters: parts.counters,
                trace: parts.shared.trace,
                aliases: parts.shared.aliases,
                taken: parts.taken,
                net: parts.shared.net,
                resolver: parts.shared.resolver,
            };
            let pickup = Pickup::new(settings.clone(), parts);
            let running = pickup.clone();
            let task = Task::start(|stop| async move { running.run(stop).await });
            Watch { settings, pickup, task }
        });
    }

    /// For whoever only looks.
    pub(super) fn windows(&self) -> Windows {
        Windows { receiver: self.receiver.clone(), deliver: self.deliver.clone() }
    }

    /// The Pickup directory that is being watched.
    pub(super) fn pickup(&self) -> Option<Pickup> {
        self.pickup.as_ref().map(|watch| watch.pickup.clone())
    }

    async fn rest_pickup(&mut self) {
        if let Some(watch) = self.pickup.take() {
            watch.task.stop().await;
        }
    }

    pub(super) async fn reconfigure(
        &mut self,
        name: &ServerName,
        shared: &Shared,
        config: &ServerConfig,
        domains: &Domains,
        (rooms, tallies): (&Rooms, Tallies),
    ) -> Result<(), StartError> {
        self.parts.shared = shared.clone();
        let settings = settings::receive(config, shared, domains, tallies);
        let is_mute = lacks_certificate(config, &settings);
        self.receiver.set(settings);
        let wanted = settings::drop(name.as_str(), config, shared, &rooms.root);
        if *self.drop.settings() != wanted {
            self.drop = DropDirectory::new(wanted, shared.clock.clone(), shared.log.clone());
        }
        let keys = &config.messages.badmail;
        rooms.badmail.set_bounds(keys.keep.value(), keys.max_size.value());
        let listening = self.receiver.listen(&config.general.listen).await;
        let ends = (self.drop.clone(), rooms.badmail.clone());
        let addresses = self.receiver.addresses();
        self.deliver.reconfigure(settings::deliver(config, shared, domains, addresses, ends));
        if !self.receiver.is_paused() {
            self.watch_pickup(name, config, &rooms.root).await;
        }
        listening?;
        if is_mute { Err(StartError::Certificate) } else { Ok(()) }
    }

    pub(super) async fn pause(&mut self) {
        self.receiver.pause();
        self.rest_pickup().await;
    }

    pub(super) async fn resume(
        &mut self,
        name: &ServerName,
        config: &ServerConfig,
        root: &MailRoot,
    ) {
        self.receiver.resume();
        self.watch_pickup(name, config, root).await;
    }

    pub(super) async fn close(mut self, grace: Duration, patience: Duration) {
        self.rest_pickup().await;
        self.receiver.stop(grace).await;
        self.deliver.stop(patience).await;
    }
}

/// Whether clients must come under TLS and cannot.
fn lacks_certificate(config: &ServerConfig, settings: &receive::Settings) -> bool {
    let implicit = config.general.listen.iter().any(|door| door.tls == ListenTls::Implicit);
    let must = config.access.tls.mode == TlsMode::Required || implicit;
    must && !settings.tls.as_ref().is_some_and(ServerTls::is_ready)
}

/// A task that runs until it is told to stop.
#[derive(Debug)]
struct Task {
    stop: watch::Sender<bool>,
    handle: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Task {
    fn start<F, R>(run: F) -> Self
    where
        F: FnOnce(Stop) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let stop_wanted: Stop = Box::pin(async move {
            let mut stopped = stopped;
            // A sender that is gone means the same.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
        let handle = tokio::spawn(run(stop_wanted));
        Self { stop, handle: tokio::sync::Mutex::new(Some(handle)) }
    }

    async fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(handle) = self.handle.lock().await.take() {
            // A task that panicked has stopped as well.
            let _ = handle.await;
        }
    }
}

/// Is done when a task is to stop.
type Stop = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
