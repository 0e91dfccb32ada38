//! Ends the process when a panic leaves the store.
//!
//! A session that panics ends alone. A store that panics may hold a half-changed index: nothing it
//! says afterwards can be trusted, so the process ends and recovery rebuilds the index from disk.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;

/// Aborts the process if it is dropped while a panic unwinds.
pub(super) struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The panic's message and place were printed when it began.
            std::process::abort();
        }
    }
}

/// Calls the store; a panic in it ends the process.
pub(crate) fn call<T>(verb: impl FnOnce() -> T) -> T {
    let _guard = AbortOnUnwind;
    verb()
}

/// Waits for the store; a panic in it ends the process. A panic of the caller that drops the
/// future half-way does not: it is the caller's alone. It stays where the caller has it, for one that is
/// handed over takes its room twice.
pub(crate) async fn wait<F: Future>(mut verb: Pin<&mut F>) -> F::Output {
    poll_fn(|context| {
        let _guard = AbortOnUnwind;
        verb.as_mut().poll(context)
    })
    .await
}

/// Calls the store on a thread that may block; a panic in it ends the process.
pub(crate) async fn blocking<T: Send + 'static>(
    verb: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(move || call(verb)).await.map_err(io::Error::other)
}
