//! The lock that an administrator puts on the configuration of a host that is managed elsewhere.

use std::io;

use super::first_start::draft;
use super::paths::Paths;

/// The longest reason, in octets.
const REASON_MAX: u64 = 4096;

/// Why edits are refused here; `None` if they are not. A lock that cannot be read counts as one.
#[must_use]
pub fn read(paths: &Paths) -> Option<String> {
    match paths.disk.read(&paths.seal(), REASON_MAX) {
        Ok(octets) => Some(String::from_utf8_lossy(&octets).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("its lock cannot be read: {error}")),
    }
}

/// Locks, or unlocks without a reason. Durable when it returns.
///
/// # Errors
///
/// The system's.
pub fn write(paths: &Paths, reason: Option<&str>) -> io::Result<()> {
    let (disk, path) = (&paths.disk, paths.seal());
    disk.create_dir_all(&paths.state)?;
    match reason {
        Some(reason) => disk.replace(&path, &draft(&path), reason.as_bytes()),
        None => match disk.unlink(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.and_then(|()| disk.sync_dir(&paths.state)),
        },
    }
}
