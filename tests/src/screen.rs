//! A terminal with somebody in front of it: programs in tmux, what they show, and what is typed.
//!
//! Each has a tmux server of its own, which ends with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{program, skip, wait};

/// A terminal of 80 columns and 24 lines with a shell in it.
#[derive(Debug)]
pub struct Screen {
    tmux: PathBuf,
    place: TempDir,
}

impl Screen {
    /// Opens one whose shell finds our programs and speaks with the daemon of a home; nothing where
    /// tmux is missing, which is noted as a skip of `subject`.
    ///
    /// # Panics
    ///
    /// When tmux cannot start.
    #[must_use]
    pub fn open(subject: &str, home: &Path) -> Option<Self> {
        let Some(tmux) = program::find("tmux") else {
            skip::note(subject, "tmux is not installed");
            return None;
        };
        let place = tempfile::Builder::new().prefix("screen-").tempdir().unwrap();
        let screen = Self { tmux, place };
        let home = format!("MAILROOT_HOME={}", home.display());
        let size = ["-x", "80", "-y", "24"];
        let environment = ["PS1=$ ", "LC_ALL=C.UTF-8", "TZ=UTC", &home];
        let mut words = vec!["-f", "/dev/null", "new-session", "-d"];
        words.extend(size);
        for variable in environment {
            words.extend(["-e", variable]);
        }
        words.extend(["bash", "--norc", "--noprofile"]);
        let _started = screen.tmux(&words);
        screen.await_text("$");
        Some(screen)
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new(&self.tmux);
        command.arg("-S").arg(self.place.path().join("socket")).args(words);
        // Whatever is asked for, a shell in it gets the path of whoever asked.
        let ours = program::ours("smtpctl");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", ours.parent().unwrap().display()));
        for name in ["TMUX", "NO_COLOR", "SMTPCTL_PAGER", "PAGER", "SMTPCTL_SERVER"] {
            command.env_remove(name);
        }
        program::run(&mut command, b"").ok()
    }

    /// What it shows now, without colours and without blanks at the ends of lines.
    #[must_use]
    pub fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// What it shows now, with the codes of colours.
    #[must_use]
    pub fn painted(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Types text.
    pub fn write(&self, text: &str) {
        let _typed = self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Presses keys by tmux's names, such as `Enter` or `C-c`.
    pub fn press(&self, keys: &[&str]) {
        let mut words = vec!["send-keys"];
        words.extend(keys);
        let _pressed = self.tmux(&words);
    }

    /// Types a line.
    pub fn enter(&self, line: &str) {
        self.write(line);
        self.press(&["Enter"]);
    }

    /// Waits until it shows a text, and returns everything it shows.
    ///
    /// # Panics
    ///
    /// When it does not come to that; the message has what is shown instead.
    #[track_caller]
    pub fn await_text(&self, text: &str) -> String {
        self.await_that(text, |shown| shown.contains(text))
    }

    /// Waits until what it shows is as wanted, and returns it.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    #[track_caller]
    pub fn await_that(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let mut shown = String::new();
        let found = wait::within(wait::PATIENCE, || {
            shown = self.text();
            wanted(&shown).then(|| shown.clone())
        });
        found.unwrap_or_else(|| panic!("waited in vain for {what:?}; the terminal shows\n{shown}"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut command = Command::new(&self.tmux);
        command.arg("-S").arg(self.place.path().join("socket")).arg("kill-server");
        // It may have ended with its shell.
        let _ended = command.output();
    }
}
