//! Files: the only place that touches a disk.
//!
//! A closed set of two: [`Disk::Real`] is the operating system's, [`Disk::Modelled`] lives in
//! memory, forgets what was not synced when a test cuts the power, tears writes at sector size and
//! fails on request. What must survive is written against the model's rules: contents are safe
//! after a sync of the file, names after a sync of the directory, nothing else is.
//!
//! All calls block. They are short except for syncs and scans; those belong on a thread of their
//! own or into `spawn_blocking`.

pub mod ground;
mod modelled;
pub mod probe;
mod real;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use mailroot_common::units::ByteSize;

pub use self::modelled::{Fault, Modelled};

/// Where files live. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Disk {
    /// The operating system's files.
    Real,
    /// Files in memory that behave as badly as disks may.
    Modelled(Arc<Modelled>),
}

/// An open file. Dropping it closes it; an exclusive lock ends with it.
#[derive(Debug)]
pub enum File {
    /// The operating system's.
    Real(std::fs::File),
    /// In memory.
    Modelled(modelled::Handle),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to be read.
    Read,
    /// An existing file that is not a symbolic link, to be read; it does not wait for a FIFO.
    ReadNoFollow,
    /// An existing file, to be read and written.
    Write,
    /// A file that must not exist yet, to be read and written. Mode 0600.
    CreateNew,
    /// A file that may exist, to be read and written; what is in it stays. Mode 0600.
    Create,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, a socket, a device.
    Other,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is; symbolic links are not followed.
    pub kind: Kind,
    /// Octets.
    pub len: u64,
    /// When its content last changed.
    pub modified: SystemTime,
    /// Names it has (hard links).
    pub links: u64,
    /// Its owner's number.
    pub owner: u32,
    /// Its permission bits.
    pub mode: u32,
}

/// Room on the disk a path lies on, for a process without privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Octets free.
    pub free: ByteSize,
    /// Octets in all.
    pub total: ByteSize,
    /// Files that can still be made, where the file system counts them.
    pub files_free: Option<u64>,
}

/// Passes a call to the arm it is for.
macro_rules! arms {
    ($self:ident, $name:ident($($argument:expr),*)) => {
        match $self {
            Self::Real => real::$name($($argument),*),
            Self::Modelled(model) => model.$name($($argument),*),
        }
    };
}

impl Disk {
    /// Whether the machine has power.
    #[cfg(test)]
    pub(crate) fn is_on(&self) -> bool {
        match self {
            Self::Real => true,
            Self::Modelled(model) => !model.is_off(),
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn open(&self, path: &Path, how: Open) -> io::Result<File> {
        match self {
            Self::Real => real::open(path, how).map(File::Real),
            Self::Modelled(model) => model.open(path, how).map(File::Modelled),
        }
    }

    /// Reads a whole file of at most `max` octets.
    ///
    /// # Errors
    ///
    /// The system's, or [`io::ErrorKind::FileTooLarge`].
    pub fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let len = file.len()?;
        if len > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut octets = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut octets, 0)?;
        Ok(octets)
    }

    /// Replaces a file durably: writes `temporary` in the same directory, syncs it, renames it to
    /// `path`, syncs the directory. After an error the old file stands or, if only the last step
    /// failed, perhaps the new one.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn replace(&self, path: &Path, temporary: &Path, octets: &[u8]) -> io::Result<()> {
        let done = self.write_aside(temporary, octets).and_then(|()| self.rename(temporary, path));
        if done.is_err() {
            // The first error is the one to tell; a temporary file left behind harms nobody.
            self.unlink(temporary).unwrap_or_default();
        }
        done?;
        self.sync_dir(parent(path))
    }

    fn write_aside(&self, temporary: &Path, octets: &[u8]) -> io::Result<()> {
        match self.unlink(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.open(temporary, Open::CreateNew)?;
        file.write_all_at(octets, 0)?;
        file.sync_all()
    }

    /// Gives a file another name, replacing what has it. Durable after [`Disk::sync_dir`] of both
    /// directories.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        arms!(self, rename(from, to))
    }

    /// Takes a file's name away. Durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn unlink(&self, path: &Path) -> io::Result<()> {
        arms!(self, unlink(path))
    }

    /// Gives a file these permission bits.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        arms!(self, set_mode(path, mode))
    }

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sync_dir(&self, path: &Path) -> io::Result<()> {
        arms!(self, sync_dir(path))
    }

    /// Makes a directory (mode 0700) and those above it, unless they exist.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        arms!(self, create_dir_all(path))
    }

    /// The names in a directory, in no order.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        arms!(self, list(path))
    }

    /// What a name stands for; symbolic links are not followed.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        arms!(self, metadata(path))
    }

    /// Room on the disk that `path` lies on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn space(&self, path: &Path) -> io::Result<Space> {
        arms!(self, space(path))
    }
}

/// The directory a path's last name is in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl File {
    /// Reads at most as many octets as `into` has room for, from a place in the file.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::Real(file) => real::read_at(file, into, at),
            Self::Modelled(handle) => handle.read_at(into, at),
        }
    }

    /// Fills `into` from a place in the file.
    ///
    /// # Errors
    ///
    /// The system's, or [`io::ErrorKind::UnexpectedEof`] if the file ends before.
    pub fn read_exact_at(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.read_at(&mut into[done..], at + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Writes all octets to a place in the file.
    ///
    /// # Errors
    ///
    /// The system's; how much was written is then unknown.
    pub fn write_all_at(&self, octets: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => real::write_all_at(file, octets, at),
            Self::Modelled(handle) => handle.write_all_at(octets, at),
        }
    }

    /// Makes the content durable. After an error it is unknown what is; the same sync must not be
    /// tried again, because the second one may say yes without having written anything.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_data(),
            Self::Modelled(handle) => handle.sync(),
        }
    }

    /// Makes content and metadata durable; the same rule holds after an error.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_all(),
            Self::Modelled(handle) => handle.sync(),
        }
    }

    /// How many octets the file has.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => file.metadata().map(|metadata| metadata.len()),
            Self::Modelled(handle) => handle.len(),
        }
    }

    /// Whether the file has no octets.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Cuts the file off at, or extends it with zeros to, a length.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.set_len(len),
            Self::Modelled(handle) => handle.set_len(len),
        }
    }

    /// What is known of the open file, whatever its name stands for by now.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn metadata(&self) -> io::Result<Metadata> {
        match self {
            Self::Real(file) => file.metadata().map(|found| real::translate(&found)),
            Self::Modelled(handle) => handle.metadata(),
        }
    }

    /// Takes the exclusive lock of the file unless another open file has it; returns whether that
    /// worked. The lock ends when the file is closed, also by the death of the process.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn try_lock(&self) -> io::Result<bool> {
        match self {
            Self::Real(file) => real::try_lock(file),
            Self::Modelled(handle) => handle.try_lock(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever stands here holds for both arms.
    fn behaves(disk: &Disk, home: &Path) {
        let (file, other) = (home.join("a"), home.join("b"));
        disk.create_dir_all(home).unwrap();
        let a = disk.open(&file, Open::CreateNew).unwrap();
        a.write_all_at(b"hello", 3).unwrap();
        assert_eq!(disk.read(&file, 100).unwrap(), b"\0\0\0hello");
        assert_eq!(disk.read(&file, 7).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let again = disk.open(&file, Open::CreateNew).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(a.try_lock().unwrap());
        assert!(!disk.open(&file, Open::Write).unwrap().try_lock().unwrap());
        drop(a);
        assert!(disk.open(&file, Open::Write).unwrap().try_lock().unwrap());
        disk.replace(&other, &home.join("t"), b"new").unwrap();
        disk.rename(&file, &other).unwrap();
        assert_eq!(disk.list(home).unwrap(), ["b"]);
        assert_eq!(disk.metadata(&other).unwrap().len, 8);
        assert_eq!(disk.metadata(home).unwrap().kind, Kind::Directory);
        assert_eq!(disk.metadata(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.unlink(&other).unwrap();
        assert_eq!(disk.open(&other, Open::Read).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(disk.space(home).unwrap().free.as_u64() > 0);
    }

    #[test]
    fn both_arms_behave_alike_while_the_power_is_on() {
        let home = tempfile::tempdir().unwrap();
        behaves(&Disk::Real, &home.path().join("x"));
        behaves(&Disk::Modelled(Arc::new(Modelled::new(1))), Path::new("/spool/x"));
    }
}
