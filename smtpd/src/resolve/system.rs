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
    /// That of a file that could not be used, once it was told.
    unusable: Option<Stamp>,
}

impl Follow {
    /// Reads the file; from then on it is followed.
    pub(super) fn begin(file: &Path) -> Result<(Self, System), SetupError> {
        let stamp = stamp(file);
        let text = read(file).map_err(|error| SetupError(error.to_string()))?;
        let text = if names_one(&text) { text } else { text + LOCAL };
        let state = Mutex::new(State { looked_at: Instant::now(), stamp, unusable: None });
        Ok((Self(Arc::new(Followed { file: file.to_owned(), state })), parse(&text)?))
    }

    /// What is made of what the file says, if that may have changed since it was last used, and names somebody.
    /// It is made where waiting for files holds nobody up.
    ///
    /// # Errors
    ///
    /// [`SetupError`], once for a file that cannot be used. It is looked at again nevertheless.
    pub(super) async fn news<T: Send + 'static>(
        &self,
        make: impl FnOnce(System) -> Result<T, SetupError> + Send + 'static,
    ) -> Result<Option<T>, SetupError> {
        {
            let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if now.duration_since(state.looked_at) < LOOK_EVERY {
                return Ok(None);
            }
            state.looked_at = now;
        }
        let followed = Arc::clone(&self.0);
        let looked = spawn_blocking(move || followed.look(make)).await;
        looked.map_err(|error| SetupError(error.to_string())).flatten()
    }
}

impl Followed {
    fn look<T>(
        &self,
        make: impl FnOnce(System) -> Result<T, SetupError>,
    ) -> Result<Option<T>, SetupError> {
        let stamp = stamp(&self.file);
        let is_known = |state: &State| state.stamp == stamp;
        if is_known(&self.state.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(None);
        }
        let text = read(&self.file).map_err(|error| SetupError(error.to_string()));
        let made = text.and_then(|text| match names_one(&text) {
            true => parse(&text).and_then(make).map(Some),
            false => Ok(None),
        });
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(made) => {
                (state.stamp, state.unusable) = (stamp, None);
                Ok(made)
            }
            Err(error) => match state.unusable.replace(stamp) == Some(stamp) {
                true => Ok(None),
                false => Err(error),
            },
        }
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
            follow.news(Ok).await.unwrap().map(|system| named(&system))
        };
        assert_eq!(later().await, None, "nothing has changed");
        write("nameserver 192.0.2.1\n");
        assert!(follow.news(Ok).await.unwrap().is_none(), "it was looked at just now");
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

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_used_is_told_once_and_tried_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let (follow, _) = Follow::begin(&file).unwrap();
        let later = async |is_possible: bool| {
            tokio::time::sleep(LOOK_EVERY).await;
            let make = move |system: System| match is_possible {
                true => Ok(named(&system)),
                false => Err(SetupError("no".to_owned())),
            };
            follow.news(make).await
        };
        std::fs::write(&file, "nameserver 192.0.2.one\n").unwrap();
        assert!(later(true).await.is_err(), "it names nobody");
        assert_eq!(later(true).await.unwrap(), None, "it was told");
        std::fs::write(&file, "nameserver 192.0.2.1 # another\n").unwrap();
        assert!(later(false).await.is_err(), "nobody can be asked");
        assert_eq!(later(false).await.unwrap(), None, "it was told");
        assert_eq!(later(true).await.unwrap().unwrap(), ["192.0.2.1"], "it is not given up");
        assert_eq!(later(true).await.unwrap(), None, "it is known by now");
    }
}
