//! `sendmail`, `mailq` and `smtpctl` as other programs of the machine run them, by name and as anybody.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{self, Finished};
use crate::site::Site;

/// The names of the links.
const NAMES: [&str; 5] = ["sendmail", "mailq", "newaliases", "sendmail.mailroot", "mailq.mailroot"];

/// A folder with the programs under their names, for the daemon of one home.
#[derive(Debug)]
pub struct Caller {
    folder: tempfile::TempDir,
    home: PathBuf,
    uid: Option<u32>,
}

impl Caller {
    /// Programs for the daemon of a site, run as the test itself.
    ///
    /// # Panics
    ///
    /// When files cannot be made.
    #[must_use]
    pub fn of(site: &Site) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(program::ours("smtpctl"), folder.path().join("smtpctl")).unwrap();
        for name in NAMES {
            symlink("smtpctl", folder.path().join(name)).unwrap();
        }
        Self { folder, home: site.home().to_owned(), uid: None }
    }

    /// The same programs, run as this user, without groups and without a way to more rights. Only root
    /// can do that.
    ///
    /// # Panics
    ///
    /// When the home cannot be opened to that user.
    #[must_use]
    pub fn as_uid(mut self, uid: u32) -> Self {
        // What lies in it keeps its modes.
        fs::set_permissions(&self.home, fs::Permissions::from_mode(0o755)).unwrap();
        self.uid = Some(uid);
        self
    }

    /// Where a program is.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command that runs a program, ours or the system's, as the user.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.uid {
            None => Command::new(program),
            Some(uid) => {
                let mut command = Command::new("setpriv");
                command.args([&format!("--reuid={uid}"), &format!("--regid={uid}")]);
                command.args(["--clear-groups", "--no-new-privs", "--"]).arg(program);
                command
            }
        };
        command.env("MAILROOT_HOME", &self.home).current_dir("/");
        command
    }

    /// Runs one of the programs to its end.
    #[must_use]
    pub fn run(&self, name: &str, words: &[&str], input: &str) -> Finished {
        program::run(self.command(self.path(name)).args(words), input.as_bytes())
    }

    /// A folder for files of the caller.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
