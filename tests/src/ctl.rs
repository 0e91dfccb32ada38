//! `smtpctl`, as a person or a script runs it: not on a terminal, output captured.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::program::{self, Finished};

/// A command line of `smtpctl` in the making.
#[derive(Debug)]
pub struct Ctl {
    command: Command,
    input: Vec<u8>,
}

impl Ctl {
    /// `smtpctl --home HOME`.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        let mut command = Command::new(program::ours("smtpctl"));
        command.arg("--home").arg(home);
        for name in ["MAILROOT_HOME", "SMTPCTL_SERVER", "SMTPCTL_PAGER", "NO_COLOR", "PAGER"] {
            command.env_remove(name);
        }
        Self { command, input: Vec::new() }
    }

    /// What it reads from standard input.
    #[must_use]
    pub fn input(mut self, text: &str) -> Self {
        self.input = text.as_bytes().to_vec();
        self
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(mut self, arguments: &[&str]) -> Finished {
        program::run(self.command.args(arguments), &self.input)
    }

    /// Runs it with `-o json`; it must exit 0 and print one JSON value.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    #[must_use]
    pub fn json(self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        let out = self.run(&all).ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{all:?}: {error} in {out}"))
    }
}
