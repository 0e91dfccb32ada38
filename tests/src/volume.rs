//! A file system of a test's own: made, mounted, cut off from power, filled, mounted again.
//!
//! In: a kind of file system and the directory it is mounted over. Out: what a daemon on it finds after a
//! cut. A cut is the file system's own shutdown call, which `xfs_io` makes: from that moment nothing more
//! reaches the disk, as if the power were gone. Mounts are made in a mount namespace of the test's thread,
//! and loop devices let go by themselves, so nothing stays behind, however a test ends.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::program::{self, Finished};
use crate::{skip, wait};

/// Kinds of file systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ext4 on a loop device.
    Ext4,
    /// XFS on a loop device; at least 300 MiB.
    Xfs,
    /// In memory; it cannot be cut.
    Tmpfs,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// What a cut leaves of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What no sync had brought to the disk is lost, names and content.
    JournalLost,
    /// Names are kept, content that no sync had brought to the disk is lost.
    JournalKept,
}

/// A mounted file system; unmounted and gone when dropped.
///
/// Programs started before the first one is made do not see it.
#[derive(Debug)]
pub struct Volume {
    kind: Kind,
    options: String,
    at: PathBuf,
    image: TempDir,
}

/// Sizes of loop devices, in MiB: sparse, so that only what is written takes room.
const ROOMY: u64 = 1024;

const FILLER: &str = "filler";
const NAMES_MAX: usize = 100_000;

impl Volume {
    /// Whether this machine and user can have volumes of this kind, and whether `programs` are there; notes
    /// a skip if not.
    #[must_use]
    pub fn possible(subject: &str, kind: Kind, programs: &[&str]) -> bool {
        let absent = programs.iter().find(|name| program::find(name).is_none());
        let trial = match absent {
            _ if !skip::root() => Err("needs root".to_owned()),
            Some(name) => Err(format!("{name} is not installed")),
            None => {
                let at = tempfile::tempdir().unwrap();
                Self::try_new(kind, ROOMY, &[], at.path()).map(drop)
            }
        };
        trial.inspect_err(|reason| skip::note(subject, reason)).is_ok()
    }

    /// A fresh file system with much room, mounted over `at`, which is made if need be.
    ///
    /// # Panics
    ///
    /// When that fails; see [`Self::possible`].
    #[must_use]
    #[track_caller]
    pub fn roomy(kind: Kind, at: &Path) -> Self {
        Self::try_new(kind, ROOMY, &[], at).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A fresh ext4 of this many MiB, made with further words for `mkfs.ext4`.
    ///
    /// # Panics
    ///
    /// When that fails; see [`Self::possible`].
    #[must_use]
    #[track_caller]
    pub fn small(mebibytes: u64, words: &[&str], at: &Path) -> Self {
        Self::try_new(Kind::Ext4, mebibytes, words, at).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_new(kind: Kind, mebibytes: u64, words: &[&str], at: &Path) -> Result<Self, String> {
        isolate()?;
        fs::create_dir_all(at).map_err(|error| format!("{}: {error}", at.display()))?;
        let image = tempfile::Builder::new().prefix("mailroot-volume-").tempdir().unwrap();
        let options = match kind {
            // The journal is not written by the clock while a test runs: only syncs count.
            Kind::Ext4 => "loop,commit=300".to_owned(),
            Kind::Xfs => "loop".to_owned(),
            Kind::Tmpfs => format!("size={mebibytes}m"),
        };
        let volume = Self { kind, options, at: at.to_owned(), image };
        if kind != Kind::Tmpfs {
            let image = volume.image();
            let made = File::create(&image).and_then(|file| file.set_len(mebibytes << 20));
            made.map_err(|error| format!("{}: {error}", image.display()))?;
            let quiet: &[&str] = if kind == Kind::Ext4 { &["-q", "-F"] } else { &["-q", "-f"] };
            let mut mkfs = command(&format!("mkfs.{}", kind.name()));
            let made = program::run(mkfs.args(quiet).args(words).arg(&image), b"");
            done(&made)?;
        }
        volume.try_mount()?;
        Ok(volume)
    }

    fn image(&self) -> PathBuf {
        self.image.path().join("image")
    }

    fn try_mount(&self) -> Result<(), String> {
        let mut mount = command("mount");
        mount.args(["-t", self.kind.name(), "-o", &self.options]);
        let what = if self.kind == Kind::Tmpfs { "tmpfs".into() } else { self.image() };
        done(&program::run(mount.arg(what).arg(&self.at), b""))
    }

    /// Cuts the power. What runs on the volume goes on, and every access to the disk fails.
    ///
    /// # Panics
    ///
    /// When the file system refuses.
    #[track_caller]
    pub fn cut(&self, cut: Cut) {
        let order = if cut == Cut::JournalLost { "shutdown" } else { "shutdown -f" };
        program::run(command("xfs_io").args(["-x", "-c", order]).arg(&self.at), b"").ok();
    }

    /// Unmounts it, as soon as nothing uses it any more, and mounts it again, as a start after a cut does.
    ///
    /// # Panics
    ///
    /// When it stays in use, or cannot be mounted.
    #[track_caller]
    pub fn restart(&self) {
        wait::until("a volume that can be unmounted", || {
            (program::run(command("umount").arg(&self.at), b"").code == 0).then_some(())
        });
        self.try_mount().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Lets the file system find itself damaged, as after an error of the disk: it takes no more writes.
    ///
    /// # Panics
    ///
    /// When the system refuses.
    #[track_caller]
    pub fn abort(&self) {
        program::run(command("mount").args(["-o", "remount,abort"]).arg(&self.at), b"").ok();
    }

    /// Fills it with a file until no more than this many octets are free.
    ///
    /// # Panics
    ///
    /// When something else than room is missing.
    #[track_caller]
    pub fn fill(&self, leave: u64) {
        let path = self.at.join(FILLER);
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        for piece in [1 << 20, 64 << 10, 4096, 512] {
            let octets = vec![b'f'; piece];
            while self.free() >= leave + piece as u64 {
                match file.write(&octets).and_then(|_| file.sync_all()) {
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    written => written.unwrap(),
                }
            }
        }
    }

    /// Fills it with files until no other can be made.
    ///
    /// # Panics
    ///
    /// When something else than room is missing.
    #[track_caller]
    pub fn fill_names(&self) {
        let folder = self.at.join(FILLER);
        fs::create_dir(&folder).unwrap();
        for number in 0..NAMES_MAX {
            match File::create(folder.join(number.to_string())) {
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                made => drop(made.unwrap()),
            }
        }
        panic!("{NAMES_MAX} files did not fill {}", self.at.display());
    }

    /// Removes what it was filled with.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[track_caller]
    pub fn make_room(&self) {
        let path = self.at.join(FILLER);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }

    fn free(&self) -> u64 {
        let found = statvfs(&self.at).unwrap();
        found.blocks_available() * found.fragment_size()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a daemon that a failed test left running may still use it. Where even that fails, the
        // end of the thread and its namespace unmounts.
        let _unmounted = command("umount").arg("-l").arg(&self.at).output();
    }
}

fn command(name: &str) -> Command {
    Command::new(program::find(name).unwrap_or_else(|| name.into()))
}

fn done(finished: &Finished) -> Result<(), String> {
    if finished.code == 0 { Ok(()) } else { Err(finished.to_string()) }
}

thread_local! {
    static ISOLATED: Cell<bool> = const { Cell::new(false) };
}

/// Gives this thread, and what it starts, mounts of its own: nobody else sees them, and they end with it.
fn isolate() -> Result<(), String> {
    if ISOLATED.get() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| format!("cannot have own mounts: {errno}"))?;
    done(&program::run(command("mount").args(["--make-rprivate", "/"]), b""))?;
    ISOLATED.set(true);
    Ok(())
}
