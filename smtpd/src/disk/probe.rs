//! Measures how long a disk takes to make something durable, the way the store does it.
//!
//! In: a directory and how long it may take. Out: the time of each sync. The files it measures with
//! are small, fixed in number and removed at the end, whatever happens but the end of the process;
//! then the next measurement removes them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use smtpd_core::storage::speed::Measured;

use super::{Disk, File, Open};
use crate::clock::Clock;

/// One write of the store, at least.
const PAGE: usize = 4096;
/// Pages that are written over; with those that are appended, the probe stays below a mebibyte.
const PAGES: u64 = 16;
/// How often each way is tried, at most.
const TRIES_MAX: u64 = 200;
/// The least that makes a median.
const TRIES_MIN: u64 = 3;

/// The most room that measuring takes.
pub const OCTETS_MAX: u64 = (PAGES + TRIES_MAX + 1) * PAGE as u64;

/// The files of one measurement; gone when dropped.
struct Probe<'a> {
    disk: &'a Disk,
    directory: &'a Path,
    file: PathBuf,
    new: PathBuf,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        // The one that is not there cannot be removed; what a disk refuses now, the next one tries.
        for path in [&self.file, &self.new] {
            self.disk.unlink(path).unwrap_or_default();
        }
    }
}

/// Measures in `directory` for about `span`; at least a few syncs of each way, however long those
/// take.
///
/// # Errors
///
/// The system's.
pub fn measure(
    disk: &Disk,
    clock: &Clock,
    directory: &Path,
    span: Duration,
) -> io::Result<Measured> {
    let (file, new) = (directory.join("probe"), directory.join("probe-new"));
    let probe = Probe { disk, directory, file, new };
    probe.clear()?;
    let file = disk.open(&probe.file, Open::CreateNew)?;
    for page in 0..PAGES {
        write(&file, page, 0)?;
    }
    file.sync_all()?;
    disk.sync_dir(directory)?;
    let share = span / 3;
    let overwrite = time(clock, share, |round| {
        write(&file, round % PAGES, round)?;
        file.sync_data()
    })?;
    let append = time(clock, share, |round| {
        write(&file, PAGES + round, round)?;
        file.sync_data()
    })?;
    let create = time(clock, share, |round| probe.create(round))?;
    Ok(Measured { overwrite, append, create })
}

impl Probe<'_> {
    /// Removes what a process that ended in the middle has left.
    fn clear(&self) -> io::Result<()> {
        for path in [&self.file, &self.new] {
            match self.disk.unlink(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a file durable with its name. The one before is removed first, which costs little as
    /// long as nobody syncs it.
    fn create(&self, round: u64) -> io::Result<()> {
        if round > 0 {
            self.disk.unlink(&self.new)?;
        }
        let file = self.disk.open(&self.new, Open::CreateNew)?;
        write(&file, 0, round)?;
        file.sync_all()?;
        self.disk.sync_dir(self.directory)
    }
}

/// Writes a page that differs from the one before, so that none can be left out.
fn write(file: &File, page: u64, round: u64) -> io::Result<()> {
    let octets = (round + 1).to_le_bytes().repeat(PAGE / 8);
    file.write_all_at(&octets, page * PAGE as u64)
}

fn time(
    clock: &Clock,
    span: Duration,
    mut once: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<Vec<Duration>> {
    let begun = clock.elapsed();
    let mut times = Vec::new();
    let mut before = begun;
    for round in 0..TRIES_MAX {
        if round >= TRIES_MIN && before.saturating_sub(begun) >= span {
            break;
        }
        once(round)?;
        let now = clock.elapsed();
        times.push(now.saturating_sub(before));
        before = now;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Fault, Modelled};

    const SPAN: Duration = Duration::from_millis(300);

    #[test]
    fn every_way_is_measured_and_nothing_is_left() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("probe"), "left by a process that was killed").unwrap();
        let measured = measure(&Disk::Real, &Clock::real(), home.path(), SPAN).unwrap();
        for times in [&measured.overwrite, &measured.append, &measured.create] {
            assert!((TRIES_MIN..=TRIES_MAX).contains(&(times.len() as u64)));
        }
        assert!(Disk::Real.list(home.path()).unwrap().is_empty());
    }

    #[test]
    fn a_disk_that_refuses_ends_it_and_keeps_no_file() {
        for after in 1..30 {
            let model = Arc::new(Modelled::new(after));
            let (disk, home) = (Disk::Modelled(Arc::clone(&model)), Path::new("/q"));
            disk.create_dir_all(home).unwrap();
            model.plan(after, Fault::Error(io::ErrorKind::Other));
            // Whether the fault meets anything depends on its place; what is left must not.
            let _measured = measure(&disk, &Clock::real(), home, Duration::ZERO);
            assert!(disk.list(home).unwrap().len() <= 1, "fault {after}");
        }
    }
}
