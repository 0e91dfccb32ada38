//! Waiting for something to become true: look, pause shortly, look again, until a deadline.
//!
//! The only file of the tests that may sleep.

use std::time::{Duration, Instant};

/// How long anything may take before a test fails. Generous: a slow machine is not a fault.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `look` finds something, and returns it.
///
/// # Panics
///
/// When nothing was found within [`PATIENCE`]; `what` says what was looked for.
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, look)
        .unwrap_or_else(|| panic!("waited {} s in vain: {what}", PATIENCE.as_secs()))
}

/// Looks until `look` finds something or `patience` is over.
pub fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(PAUSE);
    }
}
