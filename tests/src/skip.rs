//! Skips: said aloud, written down, and compared by `.ci/run` with the list of those that are allowed.

use std::fs::OpenOptions;
use std::io::Write;

/// Notes that a test, or a part of one, did not run. The runner reads the file that
/// `MAILROOT_SKIPS` names.
pub fn note(subject: &str, reason: &str) {
    eprintln!("SKIP {subject}: {reason}");
    let Some(path) = std::env::var_os("MAILROOT_SKIPS") else { return };
    let line = format!("{subject}: {reason}\n");
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(line.as_bytes()));
    assert!(written.is_ok(), "cannot write {}", path.display());
}

/// Whether the long suites were asked for (`tests/run.sh --full`).
#[must_use]
pub fn full() -> bool {
    std::env::var_os("MAILROOT_FULL").is_some()
}

/// Whether we are root; some peers can only be started by root.
#[must_use]
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}
