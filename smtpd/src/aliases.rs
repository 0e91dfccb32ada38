//! The file of aliases, read anew whenever it has changed.
//!
//! In: its path. Out: what it says now. It is looked at, not watched: mail for a local domain asks, and a
//! look is one system call for each file. A file that cannot be read leaves in force what it said last,
//! and what is wrong in it is told to the log once for each state of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mailroot_common::aliases::{Aliases, FILE_OCTETS_MAX, INCLUDES_MAX};
use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Recipient;
use smtpd_core::route::alias::{Followed, Locals, TooMany, expand};

use tokio::task::spawn_blocking;

use crate::observe::{Level, Log};
use crate::small_file::{Stamp, read};

/// How many faults of one state of the file are told.
const FAULTS_TOLD: usize = 20;

/// The aliases of this machine. Cheap to clone; clones share what was read.
#[derive(Clone, Debug)]
pub struct AliasFile(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    log: Log,
    read: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where they are, if anybody has one.
    path: Option<PathBuf>,
    aliases: Arc<Aliases>,
    /// The file and those it includes, as they were when they were read.
    stamps: Vec<(PathBuf, Stamp)>,
    /// What could not be read, as the log was told; it is tried again for each message.
    unread: Vec<String>,
}

impl AliasFile {
    /// Nobody has an alias, ever.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Nobody has an alias until a file is named.
    #[must_use]
    pub fn nowhere(log: Log) -> Self {
        Self(Some(Arc::new(Inner { log, read: Mutex::default() })))
    }

    /// They are in this file, which need not be there, or nowhere; that holds for all clones.
    pub fn set(&self, path: Option<&Path>) {
        let Some(inner) = &self.0 else { return };
        let mut state = inner.read.lock().unwrap_or_else(PoisonError::into_inner);
        if state.path.as_deref() != path {
            *state = State { path: path.map(Path::to_owned), ..State::default() };
        }
    }

    /// The recipients of a message with everybody behind their aliases, which the log is told.
    ///
    /// # Errors
    ///
    /// An alias leads to too many, which the log is told too.
    pub async fn follow(
        &self,
        recipients: Vec<Recipient>,
        locals: Locals<'_>,
        (server, id): (&str, QueueId),
    ) -> Result<Vec<Recipient>, TooMany> {
        let Some(inner) = &self.0 else { return Ok(recipients) };
        if !recipients.iter().any(|recipient| locals.cover(&recipient.mailbox)) {
            return Ok(recipients);
        }
        let Some(aliases) = self.current().await else { return Ok(recipients) };
        let line = |level| inner.log.line(level, "alias").word("server", server).word("id", id);
        let told = |error: &TooMany| line(Level::Error).word("error", error).send();
        let (recipients, followed) = expand(recipients, locals, &aliases).inspect_err(told)?;
        for Followed { named, count } in followed {
            let level = if count == 0 { Level::Warn } else { Level::Info };
            line(level).word("to", format_args!("<{named}>")).word("nrcpt", count).send();
        }
        Ok(recipients)
    }

    /// What they are now; nothing where there are none at all.
    pub async fn current(&self) -> Option<Arc<Aliases>> {
        let inner = self.0.clone()?;
        // The file may lie on a disk that is slow to answer.
        spawn_blocking(move || inner.current()).await.ok()?
    }
}

impl Inner {
    fn current(&self) -> Option<Arc<Aliases>> {
        let mut state = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let path = state.path.clone()?;
        let is_same = |(path, stamp): &(PathBuf, Stamp)| Stamp::of(path) == *stamp;
        let is_good = state.unread.is_empty() && !state.stamps.is_empty();
        if !is_good || !state.stamps.iter().all(is_same) {
            self.read_again(&path, &mut state);
        }
        Some(Arc::clone(&state.aliases))
    }

    fn read_again(&self, path: &Path, state: &mut State) {
        // The stamp comes first: what changes while it is read is read once more.
        let mut stamps = vec![(path.to_owned(), Stamp::of(path))];
        let text = match read(path, FILE_OCTETS_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Ok(text) => text,
            Err(error) => {
                let told = vec![error.to_string()];
                if state.unread != told {
                    let line = self.log.line(Level::Error, "aliases-unread");
                    line.text("file", path.display()).text("reason", error).send();
                }
                (state.stamps, state.unread) = (stamps, told);
                return;
            }
        };
        let mut aliases = Aliases::parse(&text);
        let included: Vec<(PathBuf, usize)> =
            aliases.include_paths().map(|(path, line)| (path.to_owned(), line)).collect();
        let mut unread = Vec::new();
        for (number, (path, line)) in included.into_iter().enumerate() {
            if number >= INCLUDES_MAX {
                let why = format!("more than {INCLUDES_MAX} files of addresses");
                aliases.include(&path, line, Err(why));
                continue;
            }
            stamps.push((path.clone(), Stamp::of(&path)));
            match read(&path, FILE_OCTETS_MAX) {
                Ok(text) => aliases.include(&path, line, Ok(text)),
                Err(error) => {
                    unread.push(format!("{}: {error}", path.display()));
                    aliases.include_unread(&path, line, error.to_string(), &state.aliases);
                }
            }
        }
        let is_new = unread.is_empty() || state.unread != unread;
        let faults = if is_new { aliases.faults() } else { Vec::new() };
        let fault = |line: usize| {
            let told = self.log.line(Level::Warn, "alias-fault");
            told.text("file", path.display()).word("line", line)
        };
        for it in faults.iter().take(FAULTS_TOLD) {
            fault(it.line).text("reason", &it.what).send();
        }
        if let Some(next) = faults.get(FAULTS_TOLD) {
            let more = faults.len() - FAULTS_TOLD;
            let words = format!("this one and {} more: newaliases names them", more - 1);
            fault(next.line).text("reason", words).send();
        }
        *state = State { path: state.path.take(), aliases: Arc::new(aliases), stamps, unread };
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::address::LocalPart;
    use mailroot_common::units::Timestamp;

    use super::*;
    use crate::clock::Clock;
    use crate::observe::Format;

    #[tokio::test]
    async fn a_change_counts_at_once_and_a_file_that_cannot_be_read_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, list) = (dir.path().join("aliases"), dir.path().join("list"));
        let clock = Clock::simulated(Timestamp::default(), 1);
        let (log, lines) = Log::captured(Format::Logfmt, Level::Info, clock);
        let file = AliasFile::nowhere(log);
        assert!(file.current().await.is_none());
        file.set(Some(&path));
        let root = LocalPart::parse("root").unwrap();
        let behind_root = async || {
            let found = file.current().await.unwrap().resolve(&root, |_| false);
            found.map(|it| it.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(behind_root().await, None);
        std::fs::write(&path, "root: a@x.test\n").unwrap();
        assert_eq!(behind_root().await.unwrap(), ["a@x.test"]);
        std::fs::write(&path, format!("root: :include:{}, |cmd\n", list.display())).unwrap();
        std::fs::write(&list, "b@x.test\n").unwrap();
        assert_eq!(behind_root().await.unwrap(), ["b@x.test"]);
        assert!(lines.text().contains("event=alias-fault"), "{}", lines.text());
        std::fs::write(&list, "b@x.test\nc@x.test\n").unwrap();
        assert_eq!(behind_root().await.unwrap(), ["b@x.test", "c@x.test"]);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(behind_root().await.unwrap(), ["b@x.test", "c@x.test"]);
        assert!(lines.text().contains("event=aliases-unread"), "{}", lines.text());
        file.clone().set(None);
        assert!(file.current().await.is_none() && AliasFile::off().current().await.is_none());
    }
}
