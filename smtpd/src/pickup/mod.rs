//! The Pickup directory: applications put messages there as files, Mailroot sends them.
//!
//! In: files that are complete: moved in, or at rest for a while. Out: queued messages, or entries
//! of Badmail with line and reason. A file is claimed by a rename before it is read ([`claim`]),
//! read as `smtpd_core::message::pickup` says, committed to the queue, and only then removed. What
//! is not an ordinary file with one name that we may read is left where it is, listed, and logged
//! once.
//!
//! Whoever may write here may send anywhere and name any sender; so nothing here is trusted but
//! that right, and no name, link or device in the directory makes us wait, follow or fail.

mod claim;
mod enter;
mod filter;
mod read;
mod settle;
mod watch;
mod watcher;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailroot_common::address::Domain;
use mailroot_common::config::milter::Milter;
use mailroot_common::control::PickupCheck;
use mailroot_common::id::QueueId;
use mailroot_common::units::{ByteSize, Span};
use smtpd_core::message::import::Rules;
use tokio::sync::watch::Sender;

use crate::aliases::AliasFile;
use crate::badmail::Badmail;
use crate::clock::Clock;
use crate::directory::{Directory, FileFacts};
use crate::net::Net;
use crate::observe::{Counters, Log};
use crate::queue::Queue;
use crate::resolve::Resolver;
use crate::trace::Trace;

/// What the operator decided about a Pickup directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The virtual server's name, for the log.
    pub server: String,
    /// Our name, which stands in the trace field.
    pub fqdn: String,
    /// Where it is.
    pub directory: PathBuf,
    /// How often it is searched.
    pub poll: Span,
    /// How long a file must rest that was not moved in.
    pub settle: Span,
    /// How files are read.
    pub rules: Rules,
    /// The domains whose mail ends here, the default one first.
    pub local_domains: Vec<Domain>,
    /// Who looks at files before they are mail.
    pub milters: Vec<Milter>,
    /// How long a file may be put off by them.
    pub patience: Span,
}

/// The handle to one Pickup directory. Cheap to clone.
#[derive(Clone)]
pub struct Pickup(Arc<Inner>);

struct Inner {
    settings: Settings,
    queue: Queue,
    badmail: Badmail,
    clock: Clock,
    log: Log,
    counters: Arc<Counters>,
    trace: Trace,
    aliases: AliasFile,
    refused: Mutex<HashMap<OsString, Left>>,
    taken: Arc<Taken>,
    net: Net,
    resolver: Resolver,
    /// Whether nobody waits for milters any more.
    stopping: Sender<bool>,
}

/// Claims that are in the queue or in Badmail and whose files could not be removed. Whoever watches a
/// directory next must know of them, or their mail would be sent again.
#[derive(Debug, Default)]
pub struct Taken(Mutex<Vec<(Arc<Directory>, OsString)>>);

/// A file that is left where it is.
struct Left {
    /// As it was; once it changes it is looked at again. Absent if that would say nothing.
    facts: Option<FileFacts>,
    why: String,
}

/// What a Pickup directory works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where mail goes.
    pub queue: Queue,
    /// Where files go that are no mail.
    pub badmail: Badmail,
    /// Time.
    pub clock: Clock,
    /// The log.
    pub log: Log,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What is remembered of mail.
    pub trace: Trace,
    /// Who gets mail for the names of this machine.
    pub aliases: AliasFile,
    /// Claims that an earlier watch could not remove.
    pub taken: Arc<Taken>,
    /// The network, on which milters are.
    pub net: Net,
    /// Finds those that have names.
    pub resolver: Resolver,
}

/// Why a file did not become a message.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It is none.
    #[error("{0}")]
    Bad(String),
    /// It may be one; the queue or the disk would not.
    #[error("{0}")]
    Stuck(String),
}

impl fmt::Debug for Pickup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pickup").field(&self.0.settings.directory).finish()
    }
}

/// A file in Pickup as `pickup list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name, printable.
    pub name: String,
    /// Octets.
    pub size: u64,
    /// Its owner.
    pub uid: u32,
    /// When its content last changed, in milliseconds since 1970.
    pub modified_millis: u64,
    /// What it waits for.
    pub state: State,
}

/// What a file in Pickup waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has a name that people use while they write.
    BeingWritten,
    /// To be taken soon.
    Waiting,
    /// It is ours and not yet in the queue.
    Claimed,
    /// It is left where it is, for this reason.
    Left(String),
}

impl Waiting {
    fn new(name: String, facts: &FileFacts, state: State) -> Self {
        let FileFacts { size, uid, modified_millis, .. } = *facts;
        Self { name, size, uid, modified_millis, state }
    }
}

impl Pickup {
    /// A handle; nothing is opened yet.
    #[must_use]
    pub fn new(settings: Settings, parts: Parts) -> Self {
        let Parts { queue, badmail, clock, log, counters, trace, aliases, taken, net, resolver } =
            parts;
        let refused = Mutex::default();
        Self(Arc::new(Inner {
            settings,
            queue,
            badmail,
            clock,
            log,
            counters,
            trace,
            aliases,
            refused,
            taken,
            net,
            resolver,
            stopping: Sender::new(false),
        }))
    }

    /// Takes files until `stop` is done; files in hand are finished first, but for those that milters look
    /// at: they stay claims.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        watcher::Watcher::new(Arc::clone(&self.0)).run(stop).await;
    }

    /// The largest file that is taken.
    #[must_use]
    pub fn size_max(&self) -> ByteSize {
        self.0.settings.rules.size_max
    }

    /// Makes an open file a queued message, by the rules of this directory; its id and its octets
    /// in the queue. `shown` is what the file is called.
    ///
    /// # Errors
    ///
    /// [`AdoptError`]; nothing is in the queue then, nor in Badmail.
    pub async fn adopt(
        &self,
        file: std::fs::File,
        shown: &str,
    ) -> Result<(QueueId, u64), AdoptError> {
        enter::adopt(&self.0, file, shown).await
    }

    /// Reads an open file by the rules of this directory, and changes nothing; `name` is what it is called.
    /// Routes are not told.
    ///
    /// # Errors
    ///
    /// [`AdoptError`], with what is wrong with it.
    pub async fn check(&self, file: std::fs::File, name: &str) -> Result<PickupCheck, AdoptError> {
        enter::check(&self.0, file, name).await
    }

    /// What lies in the directory, in the order of names, at most `limit` files.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub async fn list(&self, limit: usize) -> io::Result<Vec<Waiting>> {
        let inner = Arc::clone(&self.0);
        enter::blocking(move || inner.list(limit)).await
    }
}

impl Inner {
    fn list(&self, limit: usize) -> io::Result<Vec<Waiting>> {
        let pickup = Directory::open(&self.settings.directory)?;
        let mut found = names(&pickup)?;
        found.truncate(limit);
        let refused = lock(&self.refused);
        let mut waiting = Vec::new();
        for name in found {
            // What vanished in the meantime does not wait.
            let Ok(facts) = pickup.facts(&name) else { continue };
            if name == claim::CLAIMED {
                continue;
            }
            let state = match refused.get(&name) {
                Some(left) => State::Left(left.why.clone()),
                None if claim::is_ignored(&name) => State::BeingWritten,
                None => State::Waiting,
            };
            waiting.push(Waiting::new(enter::shown(&name), &facts, state));
        }
        drop(refused);
        let claimed = pickup.private(claim::CLAIMED)?;
        for name in names(&claimed)?.into_iter().take(limit.saturating_sub(waiting.len())) {
            let Ok(facts) = claimed.facts(&name) else { continue };
            let name = enter::shown(&claim::original_name(&name));
            waiting.push(Waiting::new(name, &facts, State::Claimed));
        }
        Ok(waiting)
    }
}

fn names(directory: &Directory) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    directory.each_name(|name| {
        names.push(name);
        true
    })?;
    names.sort_unstable();
    Ok(names)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
