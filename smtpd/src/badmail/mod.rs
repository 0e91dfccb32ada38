//! Badmail: where a message ends that can be neither delivered nor returned.
//!
//! In: a message and a [`Record`] of what happened. Out: three text files that an operator can read
//! without Mailroot, and the way back into the queue. Envelope and reason are durable before the
//! message, the message before [`Incoming::finish`] returns; only then may its sender forget it.
//!
//! The original never removed anything, the classic full disk. Here age and size are bounded,
//! and the oldest goes first.

mod files;
mod record;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::units::{ByteSize, Span, Timestamp};
use tokio::sync::{Notify, Semaphore};

use crate::clock::Clock;
use crate::directory::Directory;
use crate::observe::{Counters, Level, Log};

pub use self::record::{Concerned, Reason, Record};

/// What the operator decided about a Badmail directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The virtual server's name, for the log.
    pub server: String,
    /// Where it is.
    pub directory: PathBuf,
    /// How long messages stay; for ever if absent.
    pub keep: Option<Span>,
    /// What it may hold; no bound if absent.
    pub max_size: Option<ByteSize>,
}

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    keep: Option<Span>,
    max_size: Option<ByteSize>,
}

/// Why Badmail could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BadmailError {
    /// The directory or a file in it.
    #[error("cannot use the Badmail directory {}: {source}", .path.display())]
    Files {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// There is no such message.
    #[error("no message {0} in Badmail")]
    Unknown(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

/// The handle to one Badmail directory. Cheap to clone.
#[derive(Clone)]
pub struct Badmail(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// How long messages stay and what the directory may hold; changed while it runs.
    bounds: Mutex<Bounds>,
    clock: Clock,
    log: Log,
    counters: Arc<Counters>,
    /// Bounds how many threads wait for the disk on Badmail's behalf.
    writers: Semaphore,
    /// Told when something was added, so that the size bound holds without a walk each time.
    added: Notify,
}

impl fmt::Debug for Badmail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Badmail").field(&self.0.settings.directory).finish()
    }
}

const WRITERS_MAX: usize = 4;
const GATHERED_OCTETS_MAX: usize = 256 * 1024;
const PRUNE_EVERY: Duration = Duration::from_mins(10);
/// The shortest time between two walks through the directory.
const PRUNE_PAUSE: Duration = Duration::from_secs(5);

/// A message in Badmail as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: that of its files.
    pub name: String,
    /// What is known of it; absent if its `.envelope` is missing or spoilt.
    pub record: Option<Record>,
    /// Octets of the message.
    pub size: u64,
    /// When its file was written.
    pub written_at: Timestamp,
}

/// What a removal came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Messages removed.
    pub messages: u64,
    /// Octets freed.
    pub octets: u64,
}

impl Badmail {
    /// A handle; nothing is opened yet.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock, log: Log, counters: Arc<Counters>) -> Self {
        let (writers, added) = (Semaphore::new(WRITERS_MAX), Notify::new());
        let bounds = Mutex::new(Bounds { keep: settings.keep, max_size: settings.max_size });
        Self(Arc::new(Inner { settings, bounds, clock, log, counters, writers, added }))
    }

    /// Where it is.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Goes by other bounds from now on; the directory stays.
    pub fn set_bounds(&self, keep: Option<Span>, max_size: Option<ByteSize>) {
        *self.bounds() = Bounds { keep, max_size };
        self.0.added.notify_one();
    }

    fn bounds(&self) -> MutexGuard<'_, Bounds> {
        self.0.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to keep a message. Dropping the result keeps nothing.
    #[must_use]
    pub fn begin(&self, record: Record) -> Incoming {
        Incoming { badmail: self.clone(), record, octets: Vec::new(), file: None }
    }

    /// Keeps a message that is in memory. Its name is returned.
    ///
    /// # Errors
    ///
    /// [`BadmailError`]: nothing is kept, the caller still has the message.
    pub async fn keep(&self, record: Record, message: Vec<u8>) -> Result<String, BadmailError> {
        Incoming { badmail: self.clone(), record, octets: message, file: None }.finish().await
    }

    /// Messages with names below `after`, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`BadmailError`].
    pub async fn list(
        &self,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Entry>, BadmailError> {
        self.on_disk(move |directory| {
            let names = files::names(directory)?;
            let is_wanted = |name: &&String| after.as_ref().is_none_or(|after| *name < after);
            let entries = names.iter().filter(is_wanted).take(limit);
            Ok(entries.filter_map(|name| entry(directory, name)).collect())
        })
        .await
    }

    /// One message with its reason file.
    ///
    /// # Errors
    ///
    /// [`BadmailError::Unknown`] and others.
    pub async fn show(&self, name: &str) -> Result<(Entry, String), BadmailError> {
        let name = name.to_owned();
        let found = self.on_disk({
            let name = name.clone();
            move |directory| {
                Ok(entry(directory, &name).map(|entry| (entry, files::report(directory, &name))))
            }
        });
        found.await?.ok_or(BadmailError::Unknown(name))
    }

    /// What is needed to put a message back into the queue: what is known of it, and its content.
    /// Once the queue has it, [`Badmail::remove`] it.
    ///
    /// # Errors
    ///
    /// [`BadmailError::Unknown`] and others.
    pub async fn requeue(&self, name: &str) -> Result<(Entry, File), BadmailError> {
        let name = name.to_owned();
        let found = self.on_disk({
            let name = name.clone();
            move |directory| {
                let Some(entry) = entry(directory, &name) else { return Ok(None) };
                let file = directory.read(format!("{name}.eml").as_ref())?;
                Ok(Some((entry, file)))
            }
        });
        found.await?.ok_or(BadmailError::Unknown(name))
    }

    /// Removes a message.
    ///
    /// # Errors
    ///
    /// [`BadmailError::Unknown`] and others.
    pub async fn remove(&self, name: &str) -> Result<Removed, BadmailError> {
        let name = name.to_owned();
        let found = self.on_disk({
            let name = name.clone();
            move |directory| {
                let Some(entry) = entry(directory, &name) else { return Ok(None) };
                files::remove(directory, &name)?;
                Ok(Some(Removed { messages: 1, octets: entry.size }))
            }
        });
        found.await?.ok_or(BadmailError::Unknown(name))
    }

    /// Removes every message that came here before a moment.
    ///
    /// # Errors
    ///
    /// [`BadmailError`].
    pub async fn purge(&self, before: Timestamp) -> Result<Removed, BadmailError> {
        self.on_disk(move |directory| remove_while(directory, |found, _| found.at < before)).await
    }

    /// How many messages and octets there are.
    ///
    /// # Errors
    ///
    /// [`BadmailError`].
    pub async fn totals(&self) -> Result<Removed, BadmailError> {
        self.on_disk(|directory| {
            let found = files::survey(directory)?;
            let octets = found.iter().map(|found| found.size).sum();
            Ok(Removed { messages: found.len() as u64, octets })
        })
        .await
    }

    /// Keeps the directory within its bounds until `stop` is done.
    pub async fn keep_within_bounds(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            if let Err(error) = self.prune().await {
                self.report(&error);
            }
            tokio::select! {
                () = &mut stop => return,
                () = self.0.clock.sleep(PRUNE_EVERY) => {}
                () = self.0.added.notified() => tokio::select! {
                    () = &mut stop => return,
                    () = self.0.clock.sleep(PRUNE_PAUSE) => {}
                },
            }
        }
    }

    /// Removes what is too old, then the oldest until the rest fits, and what crashes left.
    ///
    /// # Errors
    ///
    /// [`BadmailError`].
    pub async fn prune(&self) -> Result<Removed, BadmailError> {
        let now = self.0.clock.now();
        let Bounds { keep, max_size } = *self.bounds();
        let removed = self
            .on_disk(move |directory| {
                files::remove_leftovers(directory, now)?;
                let is_too_old = |at: Timestamp| keep.is_some_and(|keep| at.after(keep) < now);
                let is_too_much =
                    |left: u64| max_size.is_some_and(|max_size| left > max_size.as_u64());
                remove_while(directory, |found, left| is_too_old(found.at) || is_too_much(left))
            })
            .await?;
        if removed.messages > 0 {
            let line = self.0.log.line(Level::Info, "badmail-pruned");
            line.word("server", &self.0.settings.server)
                .word("messages", removed.messages)
                .word("size", removed.octets)
                .send();
        }
        Ok(removed)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BadmailError> {
        let path = self.0.settings.directory.clone();
        let _place = self.0.writers.acquire().await.map_err(|_| BadmailError::Stopping)?;
        let done = tokio::task::spawn_blocking(move || {
            Directory::open(&path)
                .and_then(|directory| work(&directory))
                .map_err(|source| BadmailError::Files { path, source })
        });
        done.await.unwrap_or(Err(BadmailError::Stopping))
    }

    fn report(&self, error: &BadmailError) {
        let line = self.0.log.line(Level::Error, "badmail-failed");
        line.word("server", &self.0.settings.server).word("error", error).send();
    }
}

fn entry(directory: &Directory, name: &str) -> Option<Entry> {
    let facts = directory.facts(format!("{name}.eml").as_ref()).ok()?;
    let record = files::record(directory, name);
    let written_at = Timestamp::from_millis(facts.modified_millis);
    Some(Entry { name: name.to_owned(), record, size: facts.size, written_at })
}

/// Removes messages, oldest first, as long as `is_unwanted` says so of the next one and of the
/// octets that are left with it.
fn remove_while(
    directory: &Directory,
    is_unwanted: impl Fn(&files::Found, u64) -> bool,
) -> io::Result<Removed> {
    let all = files::survey(directory)?;
    let mut left: u64 = all.iter().map(|found| found.size).sum();
    let mut removed = Removed::default();
    for found in &all {
        if !is_unwanted(found, left) {
            break;
        }
        files::remove(directory, &found.name)?;
        left = left.saturating_sub(found.size);
        removed.messages += 1;
        removed.octets += found.size;
    }
    Ok(removed)
}

/// A message on its way into Badmail.
#[derive(Debug)]
pub struct Incoming {
    badmail: Badmail,
    record: Record,
    octets: Vec<u8>,
    /// Set once the message proved too large to be gathered.
    file: Option<File>,
}

impl Incoming {
    /// Takes the next octets of the message.
    ///
    /// # Errors
    ///
    /// [`BadmailError`]; nothing is kept.
    pub async fn append(&mut self, octets: &[u8]) -> Result<(), BadmailError> {
        self.octets.extend_from_slice(octets);
        if self.octets.len() > GATHERED_OCTETS_MAX {
            self.file = Some(self.write_out().await?);
        }
        Ok(())
    }

    async fn write_out(&mut self) -> Result<File, BadmailError> {
        let (octets, file) = (std::mem::take(&mut self.octets), self.file.take());
        let temporary = files::temporary(&self.record.name());
        let write = move |directory: &Directory| {
            let mut file = match file {
                Some(file) => file,
                None => directory.create(&temporary, files::FILE_MODE)?,
            };
            file.write_all(&octets)?;
            Ok(file)
        };
        self.badmail.on_disk(write).await
    }

    /// Makes message, envelope and reason durable. Their name is returned.
    ///
    /// # Errors
    ///
    /// [`BadmailError`]; nothing is kept, and doing it again is safe.
    pub async fn finish(mut self) -> Result<String, BadmailError> {
        let done = match self.write_out().await {
            Err(error) => Err(error),
            Ok(file) => {
                let record = self.record.clone();
                let commit = move |directory: &Directory| files::commit(directory, &record, &file);
                self.badmail.on_disk(commit).await
            }
        };
        done.inspect_err(|error| self.badmail.report(error))?;
        let Inner { log, settings, counters, added, .. } = &*self.badmail.0;
        counters.badmail.add_one();
        added.notify_one();
        let line = log.line(Level::Info, "badmail").word("server", &settings.server);
        line.word("id", self.record.id)
            .word("reason", self.record.reason)
            .maybe("source", self.record.source.as_ref())
            .text("detail", &self.record.detail)
            .send();
        Ok(self.record.name())
    }
}

#[cfg(test)]
mod tests;
