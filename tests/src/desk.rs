//! Where a reader of the manual sits: a shell whose `smtpctl`, `sendmail` and `sudo` belong to the daemons of
//! a test, and whose names, ports and directories are those that the manual speaks of.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::program::{self, Finished};

/// The directories of an installed service, and where a home has them.
const DIRECTORIES: [(&str, &str); 6] = [
    ("/etc/mailroot", "etc"),
    ("/etc/aliases", "etc/aliases"),
    ("/var/spool/mailroot", "spool"),
    ("/var/lib/mailroot", "state"),
    ("/run/mailroot", "run"),
    ("/var/log/mailroot", "logs"),
];

/// A shell of a reader; what it wrote goes when it is dropped.
pub struct Desk {
    place: TempDir,
    machines: Vec<(String, PathBuf)>,
    pairs: Vec<(String, String)>,
}

impl Default for Desk {
    fn default() -> Self {
        Self::new()
    }
}

impl Desk {
    /// A desk without machines.
    ///
    /// # Panics
    ///
    /// When there is no room for its files.
    #[must_use]
    pub fn new() -> Self {
        let place = tempfile::Builder::new().prefix("mailroot-desk-").tempdir().unwrap();
        let programs = place.path().join("bin");
        fs::create_dir_all(&programs).unwrap();
        fs::create_dir_all(place.path().join("work")).unwrap();
        symlink(program::ours("smtpd"), programs.join("smtpd")).unwrap();
        for name in ["smtpctl", "sendmail", "mailq", "newaliases"] {
            symlink(program::ours("smtpctl"), programs.join(name)).unwrap();
        }
        let sudo = programs.join("sudo");
        fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").unwrap();
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755)).unwrap();
        let mut desk = Self { place, machines: Vec::new(), pairs: Vec::new() };
        desk.stands_for("/usr/sbin/sendmail", &programs.join("sendmail").display().to_string());
        desk
    }

    /// A daemon that commands may be for; the first one is meant where none is named.
    pub fn machine(&mut self, name: &str, home: &Path) {
        fs::create_dir_all(home.join("logs")).unwrap();
        self.machines.push((name.to_owned(), home.to_owned()));
    }

    /// What the manual writes so is really called otherwise.
    pub fn stands_for(&mut self, written: &str, real: &str) {
        self.pairs.push((written.to_owned(), real.to_owned()));
    }

    /// Where its commands run.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.place.path().join("work")
    }

    fn home(&self, machine: Option<&str>) -> &Path {
        let found = match machine {
            None => self.machines.first(),
            Some(name) => self.machines.iter().find(|(known, _)| known == name),
        };
        &found.unwrap_or_else(|| panic!("no machine {machine:?}")).1
    }

    /// All pairs with those of a home's directories.
    fn all_pairs(&self, home: &Path) -> Vec<(String, String)> {
        let below = |place: &str| home.join(place).display().to_string();
        let directories = DIRECTORIES.map(|(written, place)| (written.to_owned(), below(place)));
        self.pairs.iter().cloned().chain(directories).collect()
    }

    /// A text of the manual with what things are really called.
    #[must_use]
    pub fn really(&self, machine: Option<&str>, text: &str) -> String {
        let mut pairs = self.all_pairs(self.home(machine));
        pairs.sort_by_key(|(written, _)| std::cmp::Reverse(written.len()));
        replaced(text, &pairs)
    }

    /// What a program printed, with what things are called in the manual.
    #[must_use]
    pub fn as_written(&self, machine: Option<&str>, text: &str) -> String {
        let pairs = self.all_pairs(self.home(machine));
        let mut pairs: Vec<(String, String)> =
            pairs.into_iter().map(|(written, real)| (real, written)).collect();
        pairs.sort_by_key(|(real, _)| std::cmp::Reverse(real.len()));
        replaced(text, &pairs)
    }

    /// Runs lines of a shell; the first one that fails is the last. Both outputs are in the first.
    #[must_use]
    pub fn run(&self, machine: Option<&str>, lines: &str) -> Finished {
        let home = self.home(machine);
        self.shell(home, &self.really(machine, lines), "")
    }

    /// Runs a line where no daemon is, to see whether it can be meant at all.
    ///
    /// # Panics
    ///
    /// When there is no room for the home of nobody.
    #[must_use]
    pub fn run_nowhere(&self, line: &str) -> Finished {
        let nobody = self.place.path().join("nobody");
        fs::create_dir_all(nobody.join("etc")).unwrap();
        self.shell(&nobody, line, "secret\n")
    }

    fn shell(&self, home: &Path, lines: &str, input: &str) -> Finished {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        for name in ["SMTPCTL_SERVER", "SMTPCTL_PAGER", "NO_COLOR", "PAGER"] {
            command.env_remove(name);
        }
        command
            .args(["-eu", "-c", &format!("exec 2>&1\n{lines}")])
            .env("PATH", format!("{}:{path}:/usr/sbin", self.place.path().join("bin").display()))
            .env("MAILROOT_HOME", home)
            .env("HOME", self.place.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .current_dir(self.work());
        program::run(&mut command, input.as_bytes())
    }
}

/// The text with the first of each pair put in the place of the second, in one pass, so that nothing is
/// replaced twice.
fn replaced(text: &str, pairs: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match pairs.iter().find(|(from, _)| rest.starts_with(from.as_str())) {
            Some((from, to)) => {
                out.push_str(to);
                rest = &rest[from.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}
