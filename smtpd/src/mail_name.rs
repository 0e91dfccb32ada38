//! The name of this machine in mail, read anew whenever its file has changed.
//!
//! In: the file's path. Out: the domain that it names, if it does. Whoever hands in mail on this machine
//! has it looked at, which is one system call. A file that cannot be read, or names no domain, leaves in
//! force what it said last, and that is told to the log once for each state of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mailroot_common::address::Domain;
use tokio::task::spawn_blocking;

use crate::observe::{Level, Log};
use crate::small_file::{Stamp, read};

/// A file with one name is shorter.
const FILE_OCTETS_MAX: usize = 4 << 10;

/// The name. Cheap to clone; clones share what was read.
#[derive(Clone, Debug)]
pub struct MailName(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Log,
    read: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    path: Option<PathBuf>,
    name: Option<Domain>,
    /// The file as it was when it was read.
    stamp: Option<Stamp>,
    /// What was wrong with it then.
    unread: Option<String>,
}

impl MailName {
    /// There is none until a file is named.
    #[must_use]
    pub fn nowhere(log: Log) -> Self {
        Self(Arc::new(Inner { log, read: Mutex::default() }))
    }

    /// It is in this file, which need not be there, or nowhere; that holds for all clones.
    pub fn set(&self, path: Option<&Path>) {
        let mut state = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        if state.path.as_deref() != path {
            *state = State { path: path.map(Path::to_owned), ..State::default() };
        }
    }

    /// What the file says now.
    pub async fn current(&self) -> Option<Domain> {
        let inner = Arc::clone(&self.0);
        // The file may lie on a disk that is slow to answer.
        spawn_blocking(move || inner.current()).await.ok()?
    }
}

impl Inner {
    fn current(&self) -> Option<Domain> {
        let mut state = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let path = state.path.clone()?;
        // The stamp comes first: what changes while it is read is read once more.
        let stamp = Some(Stamp::of(&path));
        if state.stamp == stamp && state.unread.is_none() {
            return state.name.clone();
        }
        state.stamp = stamp;
        match named(&path) {
            Ok(name) => (state.name, state.unread) = (name, None),
            Err(error) => {
                let why = error.to_string();
                if state.unread.as_ref() != Some(&why) {
                    let line = self.log.line(Level::Error, "mailname-unread");
                    line.text("file", path.display()).text("reason", &why).send();
                }
                state.unread = Some(why);
            }
        }
        state.name.clone()
    }
}

/// The name in a file; none if there is no file.
fn named(path: &Path) -> io::Result<Option<Domain>> {
    match read(path, FILE_OCTETS_MAX) {
        Ok(text) => Domain::of_mail_name(&text).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::units::Timestamp;

    use super::*;
    use crate::clock::Clock;
    use crate::observe::Format;

    #[tokio::test]
    async fn a_change_counts_at_once_and_what_is_no_name_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mailname");
        let clock = Clock::simulated(Timestamp::default(), 1);
        let (log, lines) = Log::captured(Format::Logfmt, Level::Info, clock);
        let mail_name = MailName::nowhere(log);
        assert_eq!(mail_name.current().await, None);
        mail_name.set(Some(&path));
        let now = async || mail_name.current().await.map(|name| name.to_string());
        assert_eq!(now().await, None);
        for (text, name) in [
            ("One.test\n", "one.test"),
            ("  two.test \nanything\n", "two.test"),
            ("two words\n", "two.test"),
            ("", "two.test"),
            ("three.test", "three.test"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(now().await.as_deref(), Some(name), "{text:?}");
            assert_eq!(now().await.as_deref(), Some(name), "{text:?}");
        }
        let told = lines.text().matches("event=mailname-unread").count();
        assert_eq!(told, 2, "{}", lines.text());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(now().await, None);
        mail_name.clone().set(None);
        std::fs::write(&path, "four.test\n").unwrap();
        assert_eq!(now().await, None);
    }
}
