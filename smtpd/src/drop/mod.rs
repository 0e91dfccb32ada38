//! The Drop directory: where mail for local domains ends.
//!
//! In: a message and the recipients that end here. Out: one file, with the lines of
//! `smtpd_core::message::drop` in front of the message. The file appears whole or not at all: it is
//! written under a dot-name, synced, renamed, and its directory is synced before the delivery
//! counts. Its name is the message's id, so a delivery done again after a crash replaces it.
//!
//! Programs take files away at any time, the operator may put another file system, a link or
//! nothing where the directory was: it is opened anew for each batch, never through a link, and any
//! trouble is "not now" for the mail at hand.

mod list;
mod usage;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::{ByteSize, Timestamp};
use smtpd_core::message::drop::{stem, write_prefix};
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::outcome::{Outcome, Stage};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::observe::{Level, Log};
use crate::queue::BodyReader;

pub use self::list::Dropped;
use self::writer::{Content, Job, Writer};

/// How mail is filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `ID.eml` in the directory itself, as the original.
    Eml,
    /// A Maildir: written in `tmp`, then moved into `new`.
    Maildir,
}

/// What the operator decided about one Drop directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The virtual server's name, for the log.
    pub server: String,
    /// Where it is.
    pub directory: PathBuf,
    /// How mail is filed in it.
    pub format: Format,
    /// What it may hold; no bound if absent.
    pub quota: Option<ByteSize>,
    /// Our name, which stands in the names of Maildir files.
    pub host: String,
}

/// Why a message could not be filed. All of it may pass.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DropError {
    /// The directory is missing, is a link, or may not be entered.
    #[error("cannot open the Drop directory {}: {source}; it must be a directory, not a link", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The quota is spent.
    #[error(
        "{} holds {used} of {quota}: take files out, or raise the quota of the domain", .path.display()
    )]
    Quota {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        used: ByteSize,
        /// What it may hold.
        quota: ByteSize,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The message could not be read from the queue.
    #[error("cannot read the message from the queue: {0}")]
    Body(#[source] Arc<io::Error>),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

impl DropError {
    /// What the attempt came to. Senders read it: it says nothing about our disk's paths.
    #[must_use]
    pub fn outcome(&self, at: Timestamp) -> Outcome {
        let (status, text) = match self {
            Self::Directory { .. } => (EnhancedCode::transient(3, 5), "Drop directory is missing"),
            Self::Quota { .. } => (EnhancedCode::transient(2, 2), "Drop directory quota exceeded"),
            Self::Write { source, .. } if is_full(source) => {
                (EnhancedCode::transient(3, 1), "disk of the Drop directory is full")
            }
            Self::Write { .. } => {
                (EnhancedCode::transient(3, 0), "Drop directory cannot be written")
            }
            Self::Body(_) => (EnhancedCode::transient(3, 0), "message cannot be read"),
            Self::Stopping => (EnhancedCode::transient(3, 2), "system is stopping"),
        };
        Outcome::local(at, Stage::Drop, status, text)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The handle to one Drop directory. Cheap to clone.
#[derive(Clone)]
pub struct DropDirectory(Arc<Inner>);

struct Inner {
    settings: Settings,
    log: Log,
    writer: Arc<Writer>,
}

impl fmt::Debug for DropDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DropDirectory").field(&self.0.settings.directory).finish()
    }
}

/// Messages up to this size are gathered in memory and written in one go.
const GATHERED_OCTETS_MAX: usize = 256 * 1024;

impl DropDirectory {
    /// A handle; nothing is opened yet.
    #[must_use]
    pub fn new(settings: Settings, clock: Clock, log: Log) -> Self {
        let writer = Arc::new(Writer::new(settings.clone(), clock));
        Self(Arc::new(Inner { settings, log, writer }))
    }

    /// Where it is.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Files a message for the recipients at these places of its envelope. The file's name is
    /// returned; it is durable.
    ///
    /// # Errors
    ///
    /// [`DropError`]; the delivery has failed, and doing it again is safe.
    pub async fn deliver(
        &self,
        id: QueueId,
        envelope: &Envelope,
        recipients: &[usize],
        mut body: BodyReader,
    ) -> Result<String, DropError> {
        let unreadable = |error| DropError::Body(Arc::new(error));
        if body.size() == 0 {
            // Every message has our Received field at least: this one was removed meanwhile.
            return Err(unreadable(io::ErrorKind::NotFound.into()));
        }
        let mut incoming = self.begin(id, envelope, recipients, body.size());
        while let Some(piece) = body.next().await.map_err(unreadable)? {
            incoming.append(piece).await?;
        }
        incoming.finish().await
    }

    /// Begins a file for the recipients at these places of the envelope; `size` is the message's
    /// length in octets. Dropping the result leaves nothing that counts.
    #[must_use]
    pub fn begin(
        &self,
        id: QueueId,
        envelope: &Envelope,
        recipients: &[usize],
        size: u64,
    ) -> Incoming {
        let expected = usize::try_from(size).unwrap_or(GATHERED_OCTETS_MAX);
        let mut octets = Vec::with_capacity(expected.min(GATHERED_OCTETS_MAX) + 1024);
        write_prefix(&mut octets, envelope, recipients);
        let stem = stem(id, recipients);
        let name = match self.0.settings.format {
            Format::Eml => format!("{stem}.eml"),
            // The moment, the unique part and the host, as Maildir wants; the same in a redo.
            Format::Maildir => {
                let seconds = envelope.accepted_at.as_millis() / 1000;
                format!("{seconds}.{stem}.{}", self.0.settings.host)
            }
        };
        let expected = size.saturating_add(octets.len() as u64);
        let temporary = format!(".{stem}.tmp");
        Incoming { drop: self.clone(), temporary, name, expected, octets, file: None }
    }
}

/// A message on its way into the directory.
#[derive(Debug)]
pub struct Incoming {
    drop: DropDirectory,
    temporary: String,
    name: String,
    /// The length the file will have.
    expected: u64,
    octets: Vec<u8>,
    /// Set once the message proved too large to be gathered.
    file: Option<writer::Partial>,
}

impl Incoming {
    /// Takes the next octets of the message.
    ///
    /// # Errors
    ///
    /// [`DropError`]; the delivery has failed.
    pub async fn append(&mut self, octets: &[u8]) -> Result<(), DropError> {
        self.octets.extend_from_slice(octets);
        if self.octets.len() <= GATHERED_OCTETS_MAX {
            return Ok(());
        }
        let octets = std::mem::take(&mut self.octets);
        let (writer, partial) = (Arc::clone(&self.drop.0.writer), self.file.take());
        let (temporary, expected) = (self.temporary.clone(), self.expected);
        let written = tokio::task::spawn_blocking(move || {
            let mut partial = match partial {
                Some(partial) => partial,
                None => writer.begin(&temporary, expected)?,
            };
            writer.append(&mut partial, &octets)?;
            Ok((partial, octets))
        });
        let result = written.await.unwrap_or(Err(DropError::Stopping));
        let (partial, mut octets) = result.inspect_err(|error| self.drop.report(error))?;
        octets.clear();
        (self.file, self.octets) = (Some(partial), octets);
        Ok(())
    }

    /// Makes the file durable and visible. Its name is returned.
    ///
    /// # Errors
    ///
    /// [`DropError`]; the delivery has failed, and doing it again is safe.
    pub async fn finish(self) -> Result<String, DropError> {
        let (answer, wait) = oneshot::channel();
        let content = match self.file {
            None => Content::Octets(self.octets),
            Some(partial) => Content::Partial(partial, self.octets),
        };
        let name = self.name.clone();
        let job = Job { temporary: self.temporary, name: self.name, content, answer };
        if let Some(writer) = self.drop.0.writer.enqueue(job) {
            // Detached: it ends by itself when nothing waits any more.
            drop(tokio::task::spawn_blocking(move || writer.write_until_idle()));
        }
        let result = wait.await.unwrap_or(Err(DropError::Stopping));
        result.inspect_err(|error| self.drop.report(error))?;
        Ok(name)
    }
}

impl DropDirectory {
    fn report(&self, error: &DropError) {
        let line = self.0.log.line(Level::Warn, "drop-failed");
        line.word("server", &self.0.settings.server).word("error", error).send();
    }
}

#[cfg(test)]
mod tests;
