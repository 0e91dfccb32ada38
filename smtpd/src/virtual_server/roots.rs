//! Which mail root each virtual server had, kept beyond the daemon's end, so that no queue gets out of sight.
//!
//! A change that would leave queued mail behind is refused while the daemon runs (see [`super::moved`]).
//! Files can be edited while it does not: so a mail root is written down when it is opened, and one that
//! a server had before is looked into before the server opens another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::config::{Profile, ServerConfig, ServerName};
use mailroot_common::units::ByteSize;
use smtpd_core::route::table::{self, DirectFirst, Table};

use super::{StartError, lock};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::observe::{Level, Log};
use crate::queue::{self, Queue};

/// The largest file that is read: some thousand servers.
const FILE_OCTETS_MAX: u64 = 1 << 20;
/// How often a queue that is being read is asked whether all of it is known.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The mail roots that virtual servers had. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    file: PathBuf,
    log: Log,
    known: Mutex<BTreeMap<String, PathBuf>>,
    configured: Mutex<BTreeSet<PathBuf>>,
}

impl Roots {
    /// Those that were written down in this file. One that cannot be understood is told and counts
    /// as empty. Blocks.
    #[must_use]
    pub fn open(disk: Disk, file: PathBuf, log: Log) -> Self {
        let read = match disk.read(&file, FILE_OCTETS_MAX) {
            Ok(octets) => serde_json::from_slice(&octets).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error.to_string()),
        };
        let known = read.unwrap_or_else(|error| {
            let line = log.line(Level::Error, "mail-roots-unread").word("file", file.display());
            line.text("reason", error).send();
            BTreeMap::new()
        });
        let (known, configured) = (Mutex::new(known), Mutex::default());
        Self(Arc::new(Inner { disk, file, log, known, configured }))
    }

    /// Takes note of the mail roots that the configuration in force gives to servers: whatever lies in
    /// them is in sight.
    pub fn configure(&self, roots: BTreeSet<PathBuf>) {
        *lock(&self.0.configured) = roots;
    }

    /// Servers with the mail roots that they had and that no server has by the configuration in force.
    #[must_use]
    pub fn out_of_sight(&self) -> Vec<(String, PathBuf)> {
        let configured = lock(&self.0.configured).clone();
        let known = lock(&self.0.known).clone();
        known.into_iter().filter(|(_, root)| !configured.contains(root)).collect()
    }

    /// Notes where a server's mail lies from now on. It lies there also if that cannot be written down,
    /// which is told.
    pub(super) async fn remember(&self, name: &ServerName, root: &Path) {
        let before = lock(&self.0.known).insert(name.to_string(), root.to_owned());
        if before.as_deref() != Some(root) {
            self.write().await;
        }
    }

    /// Thinks no more of where a server's mail lay.
    pub async fn forget(&self, name: &str) {
        if lock(&self.0.known).remove(name).is_some() {
            self.write().await;
        }
    }

    async fn write(&self) {
        let inner = Arc::clone(&self.0);
        let written = tokio::task::spawn_blocking(move || {
            let known = lock(&inner.known).clone();
            let octets = serde_json::to_vec(&known).map_err(io::Error::other)?;
            let above = inner.file.parent().unwrap_or_else(|| Path::new("."));
            inner.disk.create_dir_all(above)?;
            inner.disk.replace(&inner.file, &inner.file.with_extension("draft"), &octets)
        });
        if let Err(error) = written.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            let line = self.0.log.line(Level::Error, "mail-roots-unwritten");
            line.word("file", self.0.file.display()).word("error", error).send();
        }
    }

    /// An error if mail waits in a mail root that this server had before and that no server has now.
    pub(super) async fn look_back(
        &self,
        name: &ServerName,
        to: &Path,
        clock: &Clock,
        hostname: &Domain,
    ) -> Result<(), StartError> {
        let all = self.out_of_sight();
        let before = all.into_iter().find(|(server, _)| server == name.as_str());
        let Some((_, from)) = before.filter(|(_, root)| root != to) else { return Ok(()) };
        let to = to.to_owned();
        match waiting_in(&from, clock, hostname).await {
            Ok(0) => Ok(()),
            Ok(messages) => Err(StartError::LeftBehind { messages, from, to }),
            Err(source) => Err(StartError::Unseen { from, to, source }),
        }
    }
}

/// How many messages wait in the queue of a mail root that nobody has open; what is damaged there counts as
/// well.
///
/// # Errors
///
/// The queue's, where it cannot be opened.
pub async fn waiting_in(
    root: &Path,
    clock: &Clock,
    hostname: &Domain,
) -> Result<u64, queue::OpenError> {
    let directory = root.join("Queue");
    if !has_segments(&directory) {
        return Ok(0);
    }
    let table = Table::new(table::Settings {
        default_domain: hostname.clone(),
        alias_domains: Vec::new(),
        remote_domains: Vec::new(),
        smart_hosts: Vec::new(),
        direct_first: DirectFirst::Never,
        sender_routes: Vec::new(),
    })
    .expect("a table with one domain contradicts nothing");
    let settings = queue::Settings {
        server: "none".to_owned(),
        directory,
        segment_size: ServerConfig::defaults(Profile::Modern).store.segment_size,
        min_free: ByteSize::bytes(0),
    };
    let (log, counters) = (Log::quiet(), Arc::default());
    let queue = Queue::open(settings, clock.clone(), log, counters, Arc::new(table)).await?;
    let mut counts = queue.counts();
    while counts.recovering {
        clock.sleep(ASK_AGAIN).await;
        counts = queue.counts();
    }
    queue.close().await;
    Ok(counts.messages + counts.damaged)
}

/// Whether there is a queue in this directory at all.
pub(super) fn has_segments(directory: &Path) -> bool {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names = files.map(|file| file.file_name());
    names.any(|name| name.to_string_lossy().starts_with("segment-"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn roots(file: &Path) -> Roots {
        Roots::open(Disk::Real, file.to_owned(), Log::quiet())
    }

    #[tokio::test]
    async fn what_was_written_down_is_known_after_a_restart_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/mail-roots.json");
        let name = ServerName::parse("lan").unwrap();
        let root = Path::new("/srv/mail/lan");
        roots(&file).remember(&name, root).await;
        let again = roots(&file);
        assert_eq!(again.out_of_sight(), [("lan".to_owned(), root.to_owned())]);
        again.configure([root.to_owned()].into());
        assert_eq!(again.out_of_sight(), []);
        again.forget("lan").await;
        assert_eq!(roots(&file).out_of_sight(), []);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(roots(&file).out_of_sight(), []);
    }

    #[tokio::test]
    async fn a_directory_without_a_queue_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, host) = (Clock::real(), Domain::parse("a.example").unwrap());
        assert_eq!(waiting_in(dir.path(), &clock, &host).await.ok(), Some(0));
    }
}
