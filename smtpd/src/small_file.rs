//! Small files of this machine that are read anew whenever they have changed.
//!
//! In: a path. Out: its text, and a stamp that is another one once the file has changed. Other programs
//! and people write these files, so what is no file, too large or a secret is refused.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

/// The right of everybody to read a file.
const READABLE_BY_ALL: u32 = 0o004;

/// What changes when a file does; nothing of one that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(Option<(u64, u64, u64, i64, i64)>);

impl Stamp {
    /// The file as it is now.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        let of = |it: Metadata| (it.dev(), it.ino(), it.len(), it.ctime(), it.ctime_nsec());
        Self(std::fs::metadata(path).ok().map(of))
    }
}

/// Reads a file that is one, has no more than `octets_max`, and is no secret: what stands in it becomes
/// addresses that senders see, and whoever may write an included file could put a link to another in its
/// place.
///
/// # Errors
///
/// The system's error, or what the file is that it must not be.
pub fn read(path: &Path, octets_max: usize) -> io::Result<String> {
    // Opening a pipe does not wait for its other end.
    let nowhere = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(nowhere.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if found.uid() != 0 && found.mode() & READABLE_BY_ALL == 0 {
        return Err(io::Error::other("it is neither root's nor readable by everybody"));
    }
    let mut octets = Vec::new();
    file.take(octets_max as u64 + 1).read_to_end(&mut octets)?;
    if octets.len() > octets_max {
        return Err(io::Error::other(format!("it has more than {octets_max} octets")));
    }
    // Names beyond ASCII are rare, and a comment in an old encoding is no reason to lose mail.
    Ok(String::from_utf8_lossy(&octets).into_owned())
}
