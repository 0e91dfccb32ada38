//! The name servers of the system, as resolv.conf(5) has them, now and later.
//!
//! A file that names none, or none at all, means the name server on this machine. So a machine whose network is not
//! there yet has a service all the same: mail for local domains and smart hosts with addresses needs no DNS. Whoever
//! asks has the file looked at, at most every few seconds, so that servers which come with the network are asked
//! without anybody's order. A file that names nobody any more leaves those in force that it named last: it is
//! being written, or the network is gone.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::SetupError;

/// Where the system has them.
pub(super) const FILE: &str = "/etc/resolv.conf";
/// What is asked where nobody is named.
const LOCAL: &str = "\nnameserver 127.0.0.1\n";
/// How long a look at the file is good for.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What the file says.
#[derive(Clone, Debug)]
pub(super) struct System {
    pub(super) servers: Vec<NameServerConfig>,
    pub(super) options: ResolverOpts,
}

/// What changes when the file does; nothing of one that is not there.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Follows the file.
#[derive(Debug)]
pub(super) struct Follow(Arc<Followed>);

#[derive(Debug)]
struct Followed {
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked_at: Instant,
    stamp: Stamp,
}

impl Follow {
    /// Reads the file; from then on it is followed.
    pub(super) fn begin(file: &Path) -> Result<(Self, System), SetupError> {
        let stamp = stamp(file);
        let text = read(file).map_err(|error| SetupError(error.to_string()))?;
        let text = if names_one(&text) { text } else { text + LOCAL };
        let state = Mutex::new(State { looked_at: Instant::now(), stamp });
        Ok((Self(Arc::new(Followed { file: file.to_owned(), state })), parse(&text)?))
    }

    /// What the file says, if that may have changed since it was read last, and names somebody.
    pub(super) async fn news(&self) -> Option<System> {
        {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if now.duration_since(state.looked_at) < LOOK_EVERY {
                return None;
            }
            state.looked_at = now;
        }
        let followed = Arc::clone(&self.0);
        spawn_blocking(move || followed.look()).await.ok().flatten()
    }
}

impl Followed {
    fn look(&self) -> Option<System> {
        let stamp = stamp(&self.file);
        let is_known = |state: &State| state.stamp == stamp;
        if is_known(&self.state.lock().unwrap_or_else(PoisonError::into_inner)) {
            return None;
        }
        // One that cannot be read is looked at again.
        let text = read(&self.file).ok()?;
        let said = if names_one(&text) { Some(parse(&text).ok()?) } else { None };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stamp = stamp;
        said
    }
}

fn stamp(file: &Path) -> Stamp {
    let of = |it: Metadata| (it.dev(), it.ino(), it.len(), it.ctime(), it.ctime_nsec());
    std::fs::metadata(file).ok().map(of)
}

fn read(file: &Path) -> io::Result<String> {
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

fn names_one(text: &str) -> bool {
    text.lines().any(|line| line.split_whitespace().next() == Some("nameserver"))
}

fn parse(text: &str) -> Result<System, SetupError> {
    let parsed = parse_resolv_conf(text).map_err(|error| SetupError(error.to_string()))?;
    Ok(System { servers: parsed.0.name_servers().to_vec(), options: parsed.1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(system: &System) -> Vec<String> {
        system.servers.iter().map(|server| server.ip.to_string()).collect()
    }

    #[test]
    fn where_nobody_is_named_the_machine_itself_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let servers = || named(&Follow::begin(&file).unwrap().1);
        assert_eq!(servers(), ["127.0.0.1"], "without a file");
        for (text, expected) in [
            ("", "127.0.0.1"),
            ("# nameserver 192.0.2.1\nsearch example.net", "127.0.0.1"),
            ("search example.net\nnameserver 192.0.2.1\n", "192.0.2.1"),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(servers(), [expected], "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_followed_and_looked_at_now_and_then() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let (follow, _) = Follow::begin(&file).unwrap();
        let write = |text: &str| {
            let next = folder.path().join("next");
            std::fs::write(&next, text).unwrap();
            std::fs::rename(&next, &file).unwrap();
        };
        let later = async || {
            tokio::time::sleep(LOOK_EVERY).await;
            follow.news().await.map(|system| named(&system))
        };
        assert_eq!(later().await, None, "nothing has changed");
        write("nameserver 192.0.2.1\n");
        assert!(follow.news().await.is_none(), "it was looked at just now");
        assert_eq!(later().await.unwrap(), ["192.0.2.1"]);
        assert_eq!(later().await, None, "it is known by now");
        for text in ["", "search example.net\n"] {
            write(text);
            assert_eq!(later().await, None, "{text:?} names nobody");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(later().await, None, "it is gone");
        write("nameserver 192.0.2.2\nnameserver 192.0.2.3\n");
        assert_eq!(later().await.unwrap(), ["192.0.2.2", "192.0.2.3"]);
    }
}
