//! `smtpctl` in the hands of somebody who is neither root nor the daemon's user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{self, Finished};
use crate::site::Site;

/// The user `nobody` of every Linux.
pub const UID_NOBODY: u32 = 65534;

/// `smtpctl` as nobody runs it, from a place where nobody may read it.
#[derive(Debug)]
pub struct Stranger {
    folder: tempfile::TempDir,
    home: PathBuf,
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Stranger {
    /// Makes a copy of the tool. Only root can run it as somebody else.
    ///
    /// # Panics
    ///
    /// When files cannot be made.
    #[must_use]
    pub fn of(site: &Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), 0o755);
        fs::copy(program::ours("smtpctl"), folder.path().join("smtpctl")).unwrap();
        Self { folder, home: site.home().to_owned() }
    }

    /// Lets everybody open the control socket of the running daemon, as members of the operators'
    /// group may.
    ///
    /// # Panics
    ///
    /// When permissions cannot be changed.
    #[must_use]
    pub fn at_the_socket(self) -> Self {
        open(&self.home, 0o755);
        open(&self.home.join("run"), 0o755);
        open(&self.home.join("run/control.sock"), 0o666);
        self
    }

    /// Runs a command line to its end.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Finished {
        let mut command = Command::new(self.folder.path().join("smtpctl"));
        command.arg("--home").arg(&self.home).args(words).env_remove("MAILROOT_HOME");
        program::run(command.current_dir("/").uid(UID_NOBODY).gid(UID_NOBODY), b"")
    }
}
