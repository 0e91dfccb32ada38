//! The directory of the record: files named by the hour and a number, which only grow.
//!
//! A file is never opened for writing again after the daemon that made it is gone, so that what a
//! crash tears stands at the end of a file. The oldest are removed, whole.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use mailroot_common::units::{ByteSize, Span, Timestamp};

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// The ending of names.
const ENDING: &str = ".trace";
/// The characters of a moment's RFC 3339 form that name its hour.
const HOUR_CHARS: usize = 13;
/// How many files one hour may have.
const NUMBERS: u32 = 10_000;
/// The record is divided into about so many files at least, so that little goes at once.
const FILES: u64 = 32;

/// The directory of the record.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

/// A file as it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// The hour of its name.
    hour: String,
}

/// How large one file becomes where the record may take this much.
pub(super) fn file_octets_max(max_size: ByteSize) -> u64 {
    (max_size.as_u64() / FILES).clamp(64 << 10, 64 << 20)
}

/// The hour of a moment, as names have it.
pub(super) fn hour(at: Timestamp) -> String {
    at.to_string().chars().take(HOUR_CHARS).collect()
}

/// Whether a file's name has an hour before that of a moment.
pub(super) fn is_begun_before(path: &Path, at: Timestamp) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.get(..HOUR_CHARS).is_some_and(|begun| *begun < *hour(at))
}

impl Directory {
    pub(super) fn prepare(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        let found = fs::metadata(path)?.permissions().mode() & 0o777;
        if found != DIRECTORY_MODE {
            fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE))?;
        }
        Ok(Self(path.to_owned()))
    }

    /// Makes a new file of an hour.
    pub(super) fn create(&self, hour: &str) -> io::Result<(PathBuf, File)> {
        let of_hour = self.list()?.into_iter().filter(|found| found.hour == hour);
        let taken = of_hour.filter_map(|found| number(&found.path)).max();
        let first = taken.map_or(0, |number| number + 1);
        if first >= NUMBERS {
            return Err(io::Error::other("this hour has too many files"));
        }
        let path = self.0.join(format!("{hour}-{first:04}{ENDING}"));
        let file = OpenOptions::new().create_new(true).append(true).mode(FILE_MODE).open(&path)?;
        Ok((path, file))
    }

    /// The files, the oldest first.
    pub(super) fn list(&self) -> io::Result<Vec<Found>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let is_ours = name.ends_with(ENDING) && name.is_char_boundary(HOUR_CHARS);
            // What vanished in the meantime is not there.
            let Ok(facts) = entry.metadata() else { continue };
            if is_ours && facts.is_file() && number(&path).is_some() {
                all.push(Found { size: facts.len(), hour: name[..HOUR_CHARS].to_owned(), path });
            }
        }
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Removes what is too old, then the oldest until the rest and one more file fit. Returns how
    /// many files went.
    pub(super) fn prune(&self, keep: Span, max_size: ByteSize, now: Timestamp) -> io::Result<u64> {
        let all = self.list()?;
        let oldest = Timestamp::from_millis(
            now.as_millis().saturating_sub(keep.as_millis()).saturating_sub(3_600_000),
        );
        let oldest = hour(oldest);
        let most = max_size.as_u64().saturating_sub(file_octets_max(max_size));
        let mut left: u64 = all.iter().map(|found| found.size).sum();
        let mut removed = 0;
        for found in all {
            if found.hour > oldest && left <= most {
                break;
            }
            fs::remove_file(&found.path)?;
            left -= found.size;
            removed += 1;
        }
        Ok(removed)
    }
}

/// The number in the name of a file.
fn number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?;
    name.get(HOUR_CHARS..)?.strip_prefix('-')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_763_003_600_000);

    fn at(hours_ago: u64) -> String {
        hour(Timestamp::from_millis(NOW.as_millis() - hours_ago * 3_600_000))
    }

    #[test]
    fn files_are_private_and_stand_in_the_order_of_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/trace");
        let directory = Directory::prepare(&path).unwrap();
        let names = [at(0), at(2), at(2), at(1)];
        let made: Vec<_> = names.iter().map(|hour| directory.create(hour).unwrap().0).collect();
        fs::write(path.join("other"), b"x").unwrap();
        let listed: Vec<_> = directory.list().unwrap().into_iter().map(|it| it.path).collect();
        assert_eq!(listed, [&made[1], &made[2], &made[3], &made[0]].map(Clone::clone));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&made[0])), (0o700, 0o600));
        assert!(made[0].to_string_lossy().ends_with("2025-11-13T03-0000.trace"), "{made:?}");
    }

    #[test]
    fn age_and_size_bound_the_record_and_the_oldest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::prepare(dir.path()).unwrap();
        for hours in [100, 30, 20, 10, 0] {
            directory.create(&at(hours)).unwrap().1.write_all(&[0; 400 << 10]).unwrap();
        }
        let left = || directory.list().unwrap().len();
        let mib = ByteSize::mib;
        assert_eq!(directory.prune(Span::hours(200), mib(10), NOW).unwrap(), 0);
        assert_eq!(directory.prune(Span::hours(40), mib(10), NOW).unwrap(), 1);
        assert_eq!((directory.prune(Span::hours(40), mib(1), NOW).unwrap(), left()), (2, 2));
        assert_eq!(directory.list().unwrap()[0].hour, at(10));
    }
}
