//! The control socket, and what a connection to it may cost.
//!
//! In: connections. Out: requests for the router, each with the credentials of its connection.
//! Bounds: connections in all and for each user, octets and fields of a header, time to send one
//! and to wait between requests, time without progress while an answer is taken.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::{Group, chown};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use super::caller::Credentials;
use super::stall::Unstalled;
use crate::observe::{Level, Log};

/// How many connections there may be.
const CONNECTIONS_MAX: usize = 256;
/// How many of them one user may have, so that one cannot keep the others out.
const CONNECTIONS_OF_USER_MAX: usize = 64;
/// How long a client may take for a header, and between two requests.
const HEADER_WAIT: Duration = Duration::from_secs(10);
/// The longest header.
const HEADER_OCTETS_MAX: usize = 80 * 1024;
/// The most fields of a header.
const FIELDS_MAX: usize = 64;
/// How long a client may leave an answer untaken.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The longest path of a socket (sun_path, without the zero at its end), `.new` included.
const SOCKET_PATH_MAX: usize = 107;
/// How long requests may go on after the daemon was asked to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another daemon answers there.
    #[error("another daemon answers at {}: stop it first, or use another --home", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket has its name.
    #[error("{} is in the way and is no socket: move it", .0.display())]
    InTheWay(PathBuf),
    /// The path does not fit into a socket's address.
    #[error("the path {} is too long for a socket: at most 103 octets", .0.display())]
    TooLong(PathBuf),
    /// The system's error.
    #[error("cannot open the control socket {}: {source}", .path.display())]
    System {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The control socket, open. Its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Opens the socket with mode 0660, for a group if it exists. One that a dead daemon left is
    /// replaced.
    pub(super) fn open(path: &Path, group: &str) -> Result<Self, ListenError> {
        let path = path.to_owned();
        let failed = |source| ListenError::System { path: path.clone(), source };
        // The socket gets its name when its owner and mode are right, so that nobody meets it
        // before.
        let mut unready = path.clone().into_os_string();
        unready.push(".new");
        if unready.len() > SOCKET_PATH_MAX {
            return Err(ListenError::TooLong(path));
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        remove_stale(&path)?;
        remove_stale(Path::new(&unready))?;
        let listener = UnixListener::bind(&unready).map_err(failed)?;
        if let Some(group) = Group::from_name(group).ok().flatten() {
            // A daemon that is no member of the group may not give the socket to it; then its own
            // group keeps it, and root can do everything.
            let _ = chown(Path::new(&unready), None, Some(group.gid));
        }
        let mode = std::fs::Permissions::from_mode(0o660);
        std::fs::set_permissions(&unready, mode).map_err(failed)?;
        std::fs::rename(&unready, &path).map_err(failed)?;
        Ok(Self { listener, path })
    }

    /// Serves requests until `stop` turns true; then lets those in progress end.
    pub(super) async fn serve(self, router: Router, log: Log, mut stop: watch::Receiver<bool>) {
        let places = Places::default();
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = connections.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    log.line(Level::Warn, "control-failed").word("error", error).send();
                    // Descriptors have run out: others need time to give some back.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some((credentials, place)) = admit(&stream, &places) else {
                log.line(Level::Warn, "control-full").send();
                continue;
            };
            let router = router.clone().layer(Extension(credentials));
            connections.spawn(converse(stream, router, place, stop.clone()));
        }
        // What has not ended by now is broken off when the set is dropped.
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            log.line(Level::Info, "control-cut").word("connections", connections.len()).send();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A file that is gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that nobody answers on any more.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ListenError::System { path: path.to_owned(), source }),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::InTheWay(path.to_owned()));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ListenError::InUse(path.to_owned()));
    }
    std::fs::remove_file(path)
        .map_err(|source| ListenError::System { path: path.to_owned(), source })
}

fn admit(stream: &UnixStream, places: &Places) -> Option<(Credentials, Place)> {
    let peer = stream.peer_cred().ok()?;
    let credentials = Credentials { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() };
    Some((credentials, places.take(credentials.uid)?))
}

async fn converse(
    stream: UnixStream,
    router: Router,
    place: Place,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .max_buf_size(HEADER_OCTETS_MAX)
        .max_headers(FIELDS_MAX);
    let stream = TokioIo::new(Unstalled::new(stream, STALL_MAX));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    // How a client's connection ends is the client's business.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
    drop(place);
}

/// Waits for the word to stop, or for the end of whoever could say it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|&stop| stop).await;
}

/// The places for connections.
#[derive(Clone, Debug)]
struct Places {
    all: Arc<Semaphore>,
    users: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Default for Places {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(CONNECTIONS_MAX)), users: Arc::default() }
    }
}

/// One place; given back when dropped.
#[derive(Debug)]
struct Place {
    uid: u32,
    users: Arc<Mutex<HashMap<u32, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// A place for a user, if there is one.
    fn take(&self, uid: u32) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let count = users.entry(uid).or_default();
        if *count >= CONNECTIONS_OF_USER_MAX {
            return None;
        }
        *count += 1;
        Some(Place { uid, users: Arc::clone(&self.users), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let listener = Listener::open(&path, "no-such-group").unwrap();
        assert_eq!(mode(&path), 0o660);
        drop(listener);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead daemon leaves its socket");
        let living = Listener::open(&path, "no-such-group").unwrap();
        let error = Listener::open(&path, "no-such-group").unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error}");
        drop(living);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = Listener::open(&path, "no-such-group").unwrap_err();
        assert!(matches!(error, ListenError::InTheWay(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let long = dir.path().join("x".repeat(120));
        let error = Listener::open(&long, "no-such-group").unwrap_err();
        assert!(matches!(error, ListenError::TooLong(_)), "{error}");
    }

    #[test]
    fn one_user_cannot_take_every_place() {
        let places = Places::default();
        let taken: Vec<_> = (0..CONNECTIONS_MAX).map_while(|_| places.take(1_000)).collect();
        assert_eq!(taken.len(), CONNECTIONS_OF_USER_MAX);
        assert!(places.take(1_001).is_some());
        drop(taken);
        assert!(places.take(1_000).is_some(), "places are given back");
        let all: Vec<_> = (0..2_000).map_while(|uid| places.take(uid)).collect();
        assert_eq!(all.len(), CONNECTIONS_MAX);
    }
}
