//! The operating system's files.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::Path;
use std::time::SystemTime;

use mailroot_common::units::ByteSize;
use nix::fcntl::OFlag;

use super::{Kind, Metadata, Open, Space};

pub(super) fn open(path: &Path, how: Open) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.read(true).mode(0o600);
    match how {
        Open::Read => {}
        Open::ReadNoFollow => {
            options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        }
        Open::Write => {
            options.write(true);
        }
        Open::CreateNew => {
            options.write(true).create_new(true);
        }
        Open::Create => {
            options.write(true).create(true).truncate(false);
        }
    }
    options.open(path)
}

pub(super) fn read_at(file: &fs::File, into: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(into, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

pub(super) fn write_all_at(file: &fs::File, octets: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(octets, at)
}

pub(super) fn try_lock(file: &fs::File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

pub(super) fn unlink(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

pub(super) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

pub(super) fn create_dir_all(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(super) fn list(path: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}

pub(super) fn metadata(path: &Path) -> io::Result<Metadata> {
    fs::symlink_metadata(path).map(|found| translate(&found))
}

pub(super) fn translate(found: &fs::Metadata) -> Metadata {
    let kind = found.file_type();
    let kind = match kind {
        _ if kind.is_file() => Kind::File,
        _ if kind.is_dir() => Kind::Directory,
        _ if kind.is_symlink() => Kind::Link,
        _ => {
            debug_assert!(
                kind.is_fifo()
                    || kind.is_socket()
                    || kind.is_block_device()
                    || kind.is_char_device()
            );
            Kind::Other
        }
    };
    Metadata {
        kind,
        len: found.len(),
        modified: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        links: found.nlink(),
        owner: found.uid(),
        mode: found.permissions().mode() & 0o7777,
    }
}

pub(super) fn space(path: &Path) -> io::Result<Space> {
    let found = nix::sys::statvfs::statvfs(path)?;
    let unit = found.fragment_size();
    let files = found.files();
    Ok(Space {
        free: ByteSize::bytes(found.blocks_available().saturating_mul(unit)),
        total: ByteSize::bytes(found.blocks().saturating_mul(unit)),
        files_free: (files > 0).then(|| found.files_available()),
    })
}
