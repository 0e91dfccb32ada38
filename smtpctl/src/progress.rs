//! How far long work has come: one line at a person's terminal, rewritten in place.
//!
//! It stands on standard error and goes when the work ends. Elsewhere nothing is said.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::tool::Tool;

/// How often the line is rewritten.
const EVERY: Duration = Duration::from_millis(100);
/// To the beginning of the line, and everything behind it away (ECMA-48 section 8.3.41).
const CLEAR: &str = "\r\x1b[K";

/// The line.
#[derive(Debug)]
pub(crate) struct Progress {
    is_wanted: bool,
    told: Option<Instant>,
}

impl Progress {
    /// Nothing yet.
    pub(crate) fn new(tool: &Tool) -> Self {
        Self { is_wanted: !tool.global.quiet && io::stderr().is_terminal(), told: None }
    }

    /// Says how far it is, unless that was said a moment ago.
    pub(crate) fn tell(&mut self, words: impl FnOnce() -> String) {
        if self.is_wanted && self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            // Nobody is left to tell if standard error is closed.
            let _ = write!(io::stderr(), "{CLEAR}{}", words());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }
}
