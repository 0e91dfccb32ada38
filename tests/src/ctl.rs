//! `smtpctl`, as a person or a script runs it: not on a terminal, output captured.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

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

    /// Starts it; what it prints is read as it comes.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[must_use]
    #[allow(clippy::unwrap_used, reason = "tests")]
    pub fn follow(mut self, arguments: &[&str]) -> Following {
        let command = self.command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, out) = (Arc::new(Mutex::default()), child.stdout.take().unwrap());
        let read: Arc<Mutex<Vec<String>>> = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                read.lock().unwrap().push(line);
            }
        });
        Following { child, lines, reader: Some(reader) }
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

/// A run of `smtpctl` that goes on. It ends when this is dropped.
#[derive(Debug)]
pub struct Following {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Following {
    /// The lines so far.
    ///
    /// # Panics
    ///
    /// When the reader did.
    #[must_use]
    #[allow(clippy::unwrap_used, reason = "tests")]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for its end by itself; all lines.
    ///
    /// # Panics
    ///
    /// When it cannot be waited for.
    #[must_use]
    #[allow(clippy::unwrap_used, reason = "tests")]
    pub fn finish(mut self) -> (i32, Vec<String>) {
        let status = crate::wait::until("the end of smtpctl", || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        (status.code().unwrap_or(-1), self.lines())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
