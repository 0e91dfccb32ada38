//! An open directory, and files in it by name.
//!
//! Pickup, Drop and Badmail are directories that other people can write to or replace. So nothing
//! in them is opened by path: the directory itself is opened without following a link, every file
//! is reached from that handle by a name without a slash, links are never followed, and opening
//! never waits (a FIFO would). All calls block; rooms make them off the reactor.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, fsync, geteuid, unlinkat};

/// An open directory.
#[derive(Debug)]
pub struct Directory {
    handle: OwnedFd,
    path: PathBuf,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFacts {
    /// What kind of thing it is.
    pub kind: FileKind,
    /// Length in octets.
    pub size: u64,
    /// How many names it has.
    pub links: u64,
    /// Device and number: which file it is, whatever it is called.
    pub identity: (u64, u64),
    /// Owner.
    pub uid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Last change of content, in milliseconds since 1970. Anybody who owns the file can set it.
    pub modified_millis: u64,
    /// Last change of content, name, owner or mode, in milliseconds since 1970, by the kernel.
    pub changed_millis: u64,
}

/// Kinds of directory entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An ordinary file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// FIFO, socket or device.
    Special,
}

impl FileKind {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "file",
            Self::Directory => "directory",
            Self::Link => "symbolic link",
            Self::Special => "FIFO, socket or device",
        }
    }
}

impl FileFacts {
    /// The facts of an open file.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from_stat(&fstat(file)?))
    }

    fn from_stat(stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => FileKind::Regular,
            SFlag::S_IFDIR => FileKind::Directory,
            SFlag::S_IFLNK => FileKind::Link,
            _ => FileKind::Special,
        };
        let millis = |seconds: i64, nanos: i64| {
            u64::try_from(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000))
                .unwrap_or(0)
        };
        Self {
            kind,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            links: stat.st_nlink,
            identity: (stat.st_dev, stat.st_ino),
            uid: stat.st_uid,
            mode: stat.st_mode & 0o7777,
            modified_millis: millis(stat.st_mtime, stat.st_mtime_nsec),
            changed_millis: millis(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

impl Directory {
    /// Opens a directory; its last name must not be a link.
    ///
    /// # Errors
    ///
    /// The system's error; [`io::ErrorKind::NotADirectory`] also for a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let handle = nix::fcntl::open(path, Self::FLAGS, Mode::empty())?;
        Ok(Self { handle, path: path.to_owned() })
    }

    const FLAGS: OFlag =
        OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

    /// Opens a directory below this one that belongs to us alone, making it if need be.
    ///
    /// # Errors
    ///
    /// The system's error; [`io::ErrorKind::PermissionDenied`] if somebody else owns or may write
    /// what has this name.
    pub fn private(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.handle, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let handle = openat(&self.handle, name, Self::FLAGS, Mode::empty())?;
        let stat = fstat(&handle)?;
        if Uid::from_raw(stat.st_uid) != geteuid() || stat.st_mode & 0o022 != 0 {
            let path = self.path.join(name);
            let text = format!("{} is not ours alone: remove it", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Self { handle, path: self.path.join(name) })
    }

    /// Opens a directory below this one that others may read, making it if need be.
    ///
    /// # Errors
    ///
    /// The system's error; [`io::ErrorKind::NotADirectory`] also for a link.
    pub fn shared(&self, name: &str) -> io::Result<Self> {
        let is_new = match mkdirat(&self.handle, name, Mode::S_IRWXU) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(errno) => return Err(errno.into()),
        };
        let handle = openat(&self.handle, name, Self::FLAGS, Mode::empty())?;
        if is_new {
            fchmod(&handle, Mode::from_bits_truncate(0o2750))?;
        }
        Ok(Self { handle, path: self.path.join(name) })
    }

    /// The path it was opened by, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which directory it is, whatever it is called.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        Ok(FileFacts::from_stat(&fstat(&self.handle)?).identity)
    }

    /// Makes a file for writing, with exactly these permission bits. A file of that name, left from
    /// an earlier try, is removed first; nothing is ever written into a file that exists.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn create(&self, name: &str, mode: u32) -> io::Result<File> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = || openat(&self.handle, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let handle = match open() {
            Err(Errno::EEXIST) => {
                unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir)?;
                open()?
            }
            other => other?,
        };
        // The process's mask must not decide who may read the file.
        fchmod(&handle, Mode::from_bits_truncate(mode))?;
        Ok(File::from(handle))
    }

    /// Opens a file for reading, without following a link and without waiting.
    ///
    /// # Errors
    ///
    /// The system's error; `ELOOP` for a link, `ENXIO` for a socket.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.handle, plain(name)?, flags, Mode::empty())?))
    }

    /// What has this name, without opening or following it.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn facts(&self, name: &OsStr) -> io::Result<FileFacts> {
        let stat = fstatat(&self.handle, plain(name)?, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Ok(FileFacts::from_stat(&stat))
    }

    /// Renames a file, replacing what has the new name.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn replace(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.handle, plain(name)?, &to.handle, plain(new_name)?)?)
    }

    /// Renames a file; what has the new name already stays.
    ///
    /// # Errors
    ///
    /// The system's error; [`io::ErrorKind::AlreadyExists`] if the new name is taken.
    pub fn rename(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> io::Result<()> {
        let (name, new_name) = (plain(name)?, plain(new_name)?);
        let flags = RenameFlags::RENAME_NOREPLACE;
        Ok(renameat2(&self.handle, name, &to.handle, new_name, flags)?)
    }

    /// Removes a file; that it is gone already is fine.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.handle, plain(name)?, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes names written so far survive loss of power.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.handle)?)
    }

    /// Calls `each` with every name, in no order, until it returns `false`.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn each_name(&self, mut each: impl FnMut(OsString) -> bool) -> io::Result<()> {
        // A handle of its own: two listings at once must not share one position.
        let handle = openat(self.handle.as_fd(), ".", Self::FLAGS, Mode::empty())?;
        let mut dir = Dir::from_fd(handle)?;
        for entry in dir.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !each(OsStr::from_bytes(name).to_owned()) {
                break;
            }
        }
        Ok(())
    }
}

/// A name that stays in its directory.
fn plain(name: &OsStr) -> io::Result<&OsStr> {
    let octets = name.as_bytes();
    if octets.is_empty() || octets == b"." || octets == b".." || octets.contains(&b'/') {
        let text = format!("{} is not the name of a file", name.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(directory: &Directory) -> Vec<OsString> {
        let mut names = Vec::new();
        directory
            .each_name(|name| {
                names.push(name);
                true
            })
            .unwrap();
        names.sort();
        names
    }

    #[test]
    fn a_link_is_not_taken_for_a_directory() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        std::fs::create_dir(&real).unwrap();
        symlink(&real, root.path().join("link")).unwrap();
        assert!(Directory::open(&real).is_ok());
        assert!(Directory::open(&root.path().join("link")).is_err());
        assert!(Directory::open(&root.path().join("none")).is_err());
    }

    #[test]
    fn files_are_made_new_with_their_mode_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        std::fs::write(&outside, "secret").unwrap();
        let path = root.path().join("dir");
        std::fs::create_dir(&path).unwrap();
        symlink(&outside, path.join("link")).unwrap();
        let directory = Directory::open(&path).unwrap();

        assert!(directory.read(OsStr::new("link")).is_err());
        assert_eq!(directory.facts(OsStr::new("link")).unwrap().kind, FileKind::Link);
        directory.create("link", 0o640).unwrap().write_all(b"new").unwrap();

        assert_eq!(std::fs::read(&outside).unwrap(), b"secret");
        assert_eq!(std::fs::read(path.join("link")).unwrap(), b"new");
        let mode = std::fs::metadata(path.join("link")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
    }

    #[test]
    fn names_with_slashes_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        for name in ["", ".", "..", "../x", "a/b"] {
            assert!(directory.remove(OsStr::new(name)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn renaming_keeps_what_is_there_and_replacing_does_not() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        for name in ["a", "b"] {
            directory.create(name, 0o600).unwrap().write_all(name.as_bytes()).unwrap();
        }
        let (a, b) = (OsStr::new("a"), OsStr::new("b"));
        let error = directory.rename(a, &directory, b).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        directory.replace(a, &directory, b).unwrap();
        directory.sync().unwrap();
        assert_eq!(names(&directory), ["b"]);
        assert_eq!(std::fs::read(root.path().join("b")).unwrap(), b"a");
    }

    #[test]
    fn private_directory_must_be_ours_alone() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        assert!(directory.private(".ours").is_ok());
        assert!(directory.private(".ours").is_ok());
        std::fs::set_permissions(root.path().join(".ours"), PermissionsExt::from_mode(0o777))
            .unwrap();
        assert!(directory.private(".ours").unwrap_err().to_string().contains("not ours alone"));
        symlink("/tmp", root.path().join(".link")).unwrap();
        assert!(directory.private(".link").is_err());
    }
}
