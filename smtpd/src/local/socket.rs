//! Sockets with a name in the file system, opened by us or by the service manager.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, chown, geteuid};
use tokio::net::{UnixListener, UnixStream};

/// The longest path of a socket (sun_path, without the zero at its end), `.new` included.
const SOCKET_PATH_MAX: usize = 107;

/// Why a socket could not be opened.
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
    #[error("cannot open the socket {}: {source}", .path.display())]
    System {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a socket is opened.
#[derive(Clone, Copy, Debug)]
pub struct Socket<'a> {
    /// Where.
    pub path: &'a Path,
    /// The mode of its file.
    pub mode: u32,
    /// The group of its file, where that exists.
    pub group: Option<&'a str>,
}

/// A socket that takes connections. A file that we made goes when this is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: Option<PathBuf>,
}

impl Listener {
    /// Opens a socket. One that a dead daemon left is replaced.
    ///
    /// # Errors
    ///
    /// [`ListenError`], saying what to do.
    pub fn open(socket: Socket<'_>) -> Result<Self, ListenError> {
        let path = socket.path.to_owned();
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
            if socket.mode & 0o007 != 0 {
                let_pass(parent).map_err(failed)?;
            }
        }
        remove_stale(&path)?;
        remove_stale(Path::new(&unready))?;
        let listener = UnixListener::bind(&unready).map_err(failed)?;
        if let Some(group) = socket.group.and_then(|name| Group::from_name(name).ok().flatten()) {
            // A daemon that is no member of the group may not give the socket to it; then its own
            // group keeps it, and root can do everything.
            let _ = chown(Path::new(&unready), None, Some(group.gid));
        }
        let mode = std::fs::Permissions::from_mode(socket.mode);
        std::fs::set_permissions(&unready, mode).map_err(failed)?;
        std::fs::rename(&unready, &path).map_err(failed)?;
        Ok(Self { listener, path: Some(path) })
    }

    /// Takes a socket over that the service manager opened under this name (`FileDescriptorName=`);
    /// none if it opened none. To be asked once for each name: the descriptor is ours from then on.
    ///
    /// # Errors
    ///
    /// The system's error, if what was given is no socket that listens.
    pub fn inherited(name: &str) -> io::Result<Option<Self>> {
        let Ok(mut given) = sd_notify::listen_fds_with_names() else { return Ok(None) };
        let Some((descriptor, _)) = given.find(|(_, given)| given == name) else { return Ok(None) };
        let listener = std::os::unix::net::UnixListener::from(adopt(descriptor));
        listener.set_nonblocking(true)?;
        Ok(Some(Self { listener: UnixListener::from_std(listener)?, path: None }))
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// The system's error; running out of descriptors is one, so the caller must not spin.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A file that is gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[expect(unsafe_code, reason = "a descriptor that was passed on has no safe door")]
fn adopt(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the service manager opened the descriptor for this process before it began
    // (sd_listen_fds(3)), and nothing else in it uses or closes it.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Lets everybody reach what lies in a directory of ours.
fn let_pass(directory: &Path) -> io::Result<()> {
    let found = std::fs::metadata(directory)?;
    let mode = found.permissions().mode();
    if mode & 0o001 == 0 && found.uid() == geteuid().as_raw() {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode | 0o011))?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<Listener, ListenError> {
        Listener::open(Socket { path, mode: 0o660, group: Some("no-such-group") })
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let listener = open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(listener);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a dead daemon leaves its socket");
        let living = open(&path).unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error}");
        drop(living);
    }

    #[tokio::test]
    async fn what_is_no_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = open(&path).unwrap_err();
        assert!(matches!(error, ListenError::InTheWay(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let long = dir.path().join("x".repeat(120));
        let error = open(&long).unwrap_err();
        assert!(matches!(error, ListenError::TooLong(_)), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_inherited_where_nobody_passed_anything() {
        assert!(Listener::inherited("submit").unwrap().is_none());
    }
}
