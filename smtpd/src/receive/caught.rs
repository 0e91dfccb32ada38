//! Runs a future so that its panic ends there and not with the task around it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The inner future panicked; its state is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panicked;

/// See the module. The future is boxed once for each session.
pub(super) struct Caught<F>(Pin<Box<F>>);

impl<F: Future> Caught<F> {
    pub(super) fn new(future: F) -> Self {
        Self(Box::pin(future))
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.0.as_mut();
        // What the future shares with others are atomics, and locks that survive poisoning.
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_value_and_other_results_pass() {
        assert_eq!(Caught::new(async { 7 }).await, Ok(7));
        let thrown = Caught::new(async {
            tokio::task::yield_now().await;
            panic!("thrown by the test")
        });
        assert_eq!(thrown.await, Err::<(), _>(Panicked));
    }
}
