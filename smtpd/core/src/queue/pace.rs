//! How fast mail may go somewhere: so many messages in a span, evenly spread.
//!
//! In: moments, and how many messages are about to leave. Out: how many of them may. It is the
//! generic cell rate algorithm: one moment is kept, by which the messages let through so far would
//! have left at the even pace; short bursts run ahead of it by at most [`BURST`].

use std::time::Duration;

use mailroot_common::rate::Rate;

/// How far a burst runs ahead of the even pace.
const BURST: Duration = Duration::from_secs(10);

/// What has gone by a rate so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When what was let through would have left at the even pace, in the caller's time.
    paid_until: Duration,
}

impl Pace {
    /// Lets up to `wanted` messages through; the error says how long to wait for the next one.
    ///
    /// # Errors
    ///
    /// The wait, if not one may go now.
    pub fn take(&mut self, rate: Rate, wanted: usize, now: Duration) -> Result<usize, Duration> {
        self.take_ahead(rate, BURST, wanted, now)
    }

    /// The same with bursts that may run ahead of the even pace by so much.
    ///
    /// # Errors
    ///
    /// The wait, if not one may go now.
    pub fn take_ahead(
        &mut self,
        rate: Rate,
        ahead: Duration,
        wanted: usize,
        now: Duration,
    ) -> Result<usize, Duration> {
        let step = rate.step();
        if step.is_zero() {
            return Ok(wanted);
        }
        let paid = self.paid_until.max(now);
        // A rate slower than the burst still lets one message through at a time.
        let horizon = now + ahead.max(step);
        let room = horizon.saturating_sub(paid);
        let free = usize::try_from(room.as_nanos() / step.as_nanos()).unwrap_or(usize::MAX);
        let taken = free.min(wanted);
        if taken == 0 {
            return Err(step.saturating_sub(room));
        }
        self.paid_until = paid + step * u32::try_from(taken).unwrap_or(u32::MAX);
        Ok(taken)
    }

    /// When what was let through would have left at the even pace, in the caller's time.
    #[must_use]
    pub const fn paid_until(self) -> Duration {
        self.paid_until
    }

    /// The same as far as it counts by another rate: as many messages were let through.
    #[must_use]
    pub fn at_rate(self, old: Rate, new: Rate, now: Duration) -> Self {
        let ahead = self.paid_until.saturating_sub(now);
        let messages = ahead.as_nanos().div_ceil(old.step().as_nanos().max(1));
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        Self { paid_until: now + new.step().saturating_mul(messages) }
    }

    /// Gives back what was taken and did not leave.
    pub fn give_back(&mut self, rate: Rate, unused: usize) {
        let unused = u32::try_from(unused).unwrap_or(u32::MAX);
        self.paid_until = self.paid_until.saturating_sub(rate.step().saturating_mul(unused));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    const HALF_A_MINUTE: Rate = Rate::per_minute(30);

    #[test]
    fn mail_is_spread_evenly_after_a_short_burst() {
        let mut pace = Pace::default();
        let start = Duration::from_secs(100);
        assert_eq!(pace.take(HALF_A_MINUTE, 100, start), Ok(5), "ten seconds ahead");
        assert_eq!(pace.take(HALF_A_MINUTE, 100, start), Err(Duration::from_secs(2)));
        let later = start + Duration::from_secs(3);
        assert_eq!(pace.take(HALF_A_MINUTE, 100, later), Ok(1));
        assert_eq!(pace.take(HALF_A_MINUTE, 100, later), Err(Duration::from_secs(1)));
        pace.give_back(HALF_A_MINUTE, 1);
        assert_eq!(pace.take(HALF_A_MINUTE, 1, later), Ok(1));
        let next_day = start + Duration::from_hours(24);
        assert_eq!(pace.take(HALF_A_MINUTE, 100, next_day), Ok(5), "rest is not saved up");
    }

    #[test]
    fn one_a_day_is_one_a_day() {
        let (mut pace, rate) = (Pace::default(), Rate::parse("1/d").unwrap());
        assert_eq!(pace.take(rate, 10, Duration::ZERO), Ok(1));
        assert_eq!(pace.take(rate, 10, Duration::from_secs(1)), Err(Duration::from_secs(86_399)));
        assert_eq!(pace.take(rate, 10, Duration::from_secs(86_400)), Ok(1));
    }

    proptest! {
        /// Over any time no more leaves than the rate and one burst.
        #[test]
        fn no_more_leaves_than_the_rate_allows(
            messages in 1_u32..1_000,
            asks in proptest::collection::vec((0_u64..30_000, 1_usize..50), 1..200),
        ) {
            let rate = Rate::per_minute(messages);
            let (mut pace, mut now, mut left) = (Pace::default(), Duration::ZERO, 0_u64);
            for (wait, wanted) in asks {
                now += Duration::from_millis(wait);
                left += pace.take(rate, wanted, now).map_or(0, |taken| taken as u64);
            }
            let ahead = now + BURST.max(rate.step());
            let most = ahead.as_nanos() / rate.step().as_nanos() + 1;
            prop_assert!(u128::from(left) <= most, "{left} of {most}");
        }
    }
}
