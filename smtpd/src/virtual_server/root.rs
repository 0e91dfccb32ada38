//! The mail root of a virtual server: its directories, made when missing, checked when there.
//!
//! Whoever can write into `Queue` can forge mail that was "accepted", and whoever can replace one of
//! the directories by a link can make the daemon write elsewhere. So each must be a real directory
//! of our own, and only Pickup may be written by others.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// The directories of one virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailRoot {
    /// The mail root itself.
    pub root: PathBuf,
    /// Applications put messages here.
    pub pickup: PathBuf,
    /// The log of the store.
    pub queue: PathBuf,
    /// Mail for our own domains ends here.
    pub drop: PathBuf,
    /// Mail that can be neither delivered nor returned ends here.
    pub badmail: PathBuf,
}

/// Why a mail root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A directory could not be made or looked at.
    #[error("cannot make or read the directory {}: create it for the daemon's user, or allow it to", .path.display())]
    Make {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something else has the name of a directory.
    #[error("{} is no directory but a link or a file: move it away", .0.display())]
    NoDirectory(PathBuf),
    /// The directory belongs to another user.
    #[error("{} belongs to uid {owner}, the daemon runs as uid {we}: chown it", .path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The daemon's user.
        we: u32,
    },
    /// Others may write where only the daemon may.
    #[error("{} may be written by others (mode {mode:04o}): chmod go-w it", .path.display())]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Who may write into a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writers {
    /// The daemon alone.
    Daemon,
    /// Whoever its mode says.
    Others,
}

impl MailRoot {
    /// The places below `root`; `drop` and `badmail` are taken as they are if absolute.
    #[must_use]
    pub fn at(root: &Path, drop: &Path, badmail: &Path) -> Self {
        Self {
            pickup: root.join("Pickup"),
            queue: root.join("Queue"),
            drop: root.join(drop),
            badmail: root.join(badmail),
            root: root.to_owned(),
        }
    }

    /// Makes what is missing and checks what is there.
    ///
    /// # Errors
    ///
    /// [`RootError`], naming the directory and what to do.
    pub fn prepare(&self) -> Result<(), RootError> {
        prepare(&self.root, 0o755, Writers::Daemon)?;
        prepare(&self.pickup, 0o770, Writers::Others)?;
        prepare(&self.queue, 0o700, Writers::Daemon)?;
        prepare(&self.drop, 0o750, Writers::Daemon)?;
        prepare(&self.badmail, 0o750, Writers::Daemon)
    }
}

fn prepare(path: &Path, mode: u32, writers: Writers) -> Result<(), RootError> {
    let failed = |source| RootError::Make { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) => check(path, &found, writers),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, mode).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Makes a directory and those above it, and their names durable: mail in a directory whose own
/// name is lost with the power is lost as well.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|one| !one.exists()).collect();
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    for made in missing {
        let above = made.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

fn check(path: &Path, found: &Metadata, writers: Writers) -> Result<(), RootError> {
    if !found.is_dir() {
        return Err(RootError::NoDirectory(path.to_owned()));
    }
    let we = geteuid().as_raw();
    let path = path.to_owned();
    if found.uid() != we {
        return Err(RootError::Owner { path, owner: found.uid(), we });
    }
    let mode = found.mode() & 0o7777;
    if writers == Writers::Daemon && mode & 0o022 != 0 {
        return Err(RootError::Writable { path, mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn missing_directories_are_made_with_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        let root =
            MailRoot::at(&dir.path().join("default"), Path::new("Drop"), Path::new("Badmail"));
        root.prepare().unwrap();
        root.prepare().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o077;
        assert_eq!(mode(&root.queue), 0);
        assert_eq!(mode(&root.drop) & 0o027, 0, "no others, and no group may write");
    }

    #[test]
    fn links_and_directories_others_may_write_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root =
            MailRoot::at(&dir.path().join("default"), Path::new("Drop"), Path::new("Badmail"));
        root.prepare().unwrap();
        std::fs::set_permissions(&root.queue, std::fs::Permissions::from_mode(0o770)).unwrap();
        let error = root.prepare().unwrap_err();
        assert!(
            matches!(&error, RootError::Writable { path, .. } if *path == root.queue),
            "{error}"
        );
        std::fs::remove_dir(&root.queue).unwrap();
        symlink("/tmp", &root.queue).unwrap();
        assert!(matches!(root.prepare().unwrap_err(), RootError::NoDirectory(_)));
    }
}
