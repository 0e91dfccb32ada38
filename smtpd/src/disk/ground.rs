//! What a directory lies on: its mount and its block device, as the kernel tells.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use smtpd_core::storage::mount::{Device, Mount, mount_of};

/// The most of the table of mounts that is read; tens of thousands of lines.
const TABLE_OCTETS_MAX: u64 = 8 << 20;

/// What a directory lies on, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// Its mount.
    pub mount: Option<Mount>,
    /// The block device below it; none for what lies in memory or on another host.
    pub device: Option<Device>,
}

/// Looks at what a directory lies on.
///
/// # Errors
///
/// The system's, where the directory or the table of mounts cannot be read.
pub fn ground(directory: &Path) -> io::Result<Ground> {
    let directory = std::fs::canonicalize(directory)?;
    let table = read(Path::new("/proc/self/mountinfo"), TABLE_OCTETS_MAX)?;
    let mount = mount_of(&table, &directory.to_string_lossy());
    let device = mount.as_ref().and_then(device);
    Ok(Ground { mount, device })
}

/// The device of a mount. Some file systems count on numbers of their own, and only their source
/// names the device.
fn device(mount: &Mount) -> Option<Device> {
    let number = if mount.device.starts_with("0:") {
        let found = std::fs::metadata(&mount.source).ok()?;
        let number = found.rdev();
        found.file_type().is_block_device().then(|| (major(number), minor(number)))?
    } else {
        let (major, minor) = mount.device.split_once(':')?;
        (major.parse().ok()?, minor.parse().ok()?)
    };
    let folder = format!("/sys/dev/block/{}:{}", number.0, number.1);
    let folder = std::fs::canonicalize(folder).ok()?;
    // A partition has no queue of its own but that of the disk it is a part of.
    let disk = [Some(&*folder), folder.parent()].into_iter().flatten();
    let disk: PathBuf = disk.map(Path::to_owned).find(|path| path.join("queue").is_dir())?;
    let word = |name: &str| {
        let text = read(&disk.join("queue").join(name), 100).ok()?;
        Some(text.trim().to_owned())
    };
    Some(Device {
        name: disk.file_name()?.to_string_lossy().into_owned(),
        write_cache: word("write_cache"),
        fua: word("fua").map(|fua| fua == "1"),
    })
}

/// Files of the kernel have no length before they are read.
fn read(path: &Path, max: u64) -> io::Result<String> {
    let mut octets = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directory_lies_on_a_mount() {
        let home = tempfile::tempdir().unwrap();
        let ground = ground(home.path()).unwrap();
        let mount = ground.mount.unwrap();
        assert!(home.path().canonicalize().unwrap().starts_with(&mount.point), "{mount:?}");
        let kernel = super::ground(Path::new("/proc")).unwrap();
        assert_eq!(kernel.device, None);
        assert!(super::ground(&home.path().join("absent")).is_err());
    }
}
