//! The only place that reads time or randomness.
//!
//! Two arms: the machine's clocks, and a simulated clock that follows Tokio's virtual time, so
//! that days of retries pass in a test within milliseconds and a seed repeats a run exactly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mailroot_common::units::Timestamp;
use tokio::time::Instant;

/// Time and randomness. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    Real { start: std::time::Instant },
    Simulated { wall_at_start: Timestamp, start: Instant, random: Mutex<fastrand::Rng> },
}

impl Clock {
    /// The machine's clocks and its randomness.
    #[must_use]
    pub fn real() -> Self {
        Self(Arc::new(Source::Real { start: std::time::Instant::now() }))
    }

    /// A clock that starts at `wall` and moves with Tokio's time; randomness comes from `seed`.
    #[must_use]
    pub fn simulated(wall: Timestamp, seed: u64) -> Self {
        Self(Arc::new(Source::Simulated {
            wall_at_start: wall,
            start: Instant::now(),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        }))
    }

    /// The moment, by the wall clock. It may jump when somebody sets the clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::Real { .. } => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
            Source::Simulated { wall_at_start, start, .. } => {
                let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                Timestamp::from_millis(wall_at_start.as_millis().saturating_add(millis))
            }
        }
    }

    /// Time since this clock was made. It never jumps; deadlines count by it.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &*self.0 {
            Source::Real { start } => start.elapsed(),
            Source::Simulated { start, .. } => start.elapsed(),
        }
    }

    /// A random number, good for jitter and choice, not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        match &*self.0 {
            Source::Real { .. } => fastrand::u64(..),
            Source::Simulated { random, .. } => {
                random.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
            }
        }
    }

    /// Waits on a Tokio runtime.
    pub async fn sleep(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn simulated_days_pass_at_once_and_seeds_repeat() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000), 7);
        clock.sleep(Duration::from_hours(48)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1_000 + 48 * 3_600_000));
        assert_eq!(clock.elapsed(), Duration::from_hours(48));
        let twin = Clock::simulated(Timestamp::from_millis(1_000), 7);
        assert_eq!(clock.random(), twin.random());
    }
}
