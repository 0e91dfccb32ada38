//! The only place that reads time or randomness.
//!
//! Two arms: the machine's clocks, and a simulated clock that follows Tokio's virtual time, so
//! that days of retries pass in a test within milliseconds and a seed repeats a run exactly.
//!
//! The wall clock jumps when somebody sets it. Mail must not be given up, or forgotten, because of
//! that: each look at the wall clock compares it with one that cannot be set and goes on while the
//! machine sleeps, and [`Past`] tells how moments that were noted before a jump read now. What
//! happened while the service was down is not known: then the wall clock is believed, except where
//! it would have something noted in the future.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mailroot_common::units::{Span, Timestamp};
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// What the wall clock may gain or lose between two looks before it counts as a jump. Time servers
/// correct less than that by small steps, and nothing that mail waits for is as short.
const JUMP_MIN_MILLIS: u64 = 5 * 60 * 1000;
/// Jumps remembered. A clock that is set more often than that is beyond help.
const JUMPS_MAX: usize = 64;
/// How close together the clocks must be read before a jump is believed.
const LOOK_MAX_MILLIS: i64 = 1000;

/// Time and randomness. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Source,
    /// By how much the wall clock was ahead of the steady one at the last look, in milliseconds.
    ahead: AtomicI64,
    jumps: Mutex<Jumps>,
}

#[derive(Debug)]
enum Source {
    Real {
        start: std::time::Instant,
    },
    Simulated {
        wall_at_start: Timestamp,
        start: Instant,
        /// How far somebody has set the wall clock off, in milliseconds.
        set_off: AtomicI64,
        random: Mutex<fastrand::Rng>,
    },
}

#[derive(Clone, Debug, Default)]
struct Jumps {
    list: Arc<Vec<Jump>>,
    /// All that ever were.
    count: usize,
}

/// A jump of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// What the clock would have shown.
    pub before: Timestamp,
    /// What it showed instead.
    pub after: Timestamp,
}

impl Jump {
    /// How far it went back; nothing if it went forward.
    #[must_use]
    pub fn back(&self) -> Span {
        self.before.since(self.after)
    }
}

/// Seconds with milliseconds, with a sign.
impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.after < self.before { '-' } else { '+' };
        let millis = self.before.as_millis().abs_diff(self.after.as_millis());
        write!(f, "{sign}{}.{:03}", millis / 1000, millis % 1000)
    }
}

/// One look at both clocks, in milliseconds.
struct Look {
    wall: i64,
    steady: i64,
}

impl Look {
    const fn ahead(&self) -> i64 {
        self.wall.saturating_sub(self.steady)
    }
}

impl Clock {
    /// The machine's clocks and its randomness.
    #[must_use]
    pub fn real() -> Self {
        Self::over(Source::Real { start: std::time::Instant::now() })
    }

    /// A clock that starts at `wall` and moves with Tokio's time; randomness comes from `seed`.
    #[must_use]
    pub fn simulated(wall: Timestamp, seed: u64) -> Self {
        Self::over(Source::Simulated {
            wall_at_start: wall,
            start: Instant::now(),
            set_off: AtomicI64::new(0),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        })
    }

    fn over(source: Source) -> Self {
        let ahead = AtomicI64::new(source.look().ahead());
        Self(Arc::new(Inner { source, ahead, jumps: Mutex::default() }))
    }

    /// The moment, by the wall clock. It may jump when somebody sets the clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let known = self.0.ahead.load(Ordering::Acquire);
        let look = self.0.source.look();
        if look.ahead().abs_diff(known) >= JUMP_MIN_MILLIS {
            self.note_jump();
        } else if look.ahead() != known {
            // Who comes second has nothing to add: least of all to a jump noted meanwhile.
            self.0
                .ahead
                .compare_exchange(known, look.ahead(), Ordering::AcqRel, Ordering::Relaxed)
                .unwrap_or_default();
        }
        timestamp(look.wall)
    }

    fn note_jump(&self) {
        let mut jumps = self.0.jumps.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.0.ahead.load(Ordering::Acquire);
        let look = self.0.source.look();
        let took = self.0.source.look().steady.saturating_sub(look.steady);
        let by = look.ahead().saturating_sub(known);
        // If we were stopped between the two clocks it may be no jump: the next look will tell.
        if by.unsigned_abs() < JUMP_MIN_MILLIS || took > LOOK_MAX_MILLIS {
            return;
        }
        let before = timestamp(look.wall.saturating_sub(by));
        let list = Arc::make_mut(&mut jumps.list);
        if list.len() == JUMPS_MAX {
            list.remove(0);
        }
        list.push(Jump { before, after: timestamp(look.wall) });
        jumps.count += 1;
        self.0.ahead.store(look.ahead(), Ordering::Release);
    }

    /// How moments of the past read now.
    #[must_use]
    pub fn past(&self) -> Past {
        let now = self.now();
        let jumps = self.0.jumps.lock().unwrap_or_else(PoisonError::into_inner);
        Past { now, jumps: Arc::clone(&jumps.list) }
    }

    /// How often the wall clock has jumped.
    #[must_use]
    pub fn jumps(&self) -> usize {
        let _look = self.now();
        self.0.jumps.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// The jumps after so many of them, as far as they are remembered.
    #[must_use]
    pub fn jumps_after(&self, seen: usize) -> Vec<Jump> {
        let jumps = self.0.jumps.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = jumps.count - jumps.list.len();
        jumps.list.iter().skip(seen.saturating_sub(forgotten)).copied().collect()
    }

    /// Time since this clock was made. It never jumps; deadlines count by it.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0.source {
            Source::Real { start } => start.elapsed(),
            Source::Simulated { start, .. } => start.elapsed(),
        }
    }

    /// A random number, good for jitter and choice, not for secrets.
    #[must_use]
    pub fn random(&self) -> u64 {
        match &self.0.source {
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

    /// Sets a simulated wall clock off by so much.
    #[cfg(test)]
    pub(crate) fn jump_by(&self, by: i64) {
        let Source::Simulated { set_off, .. } = &self.0.source else {
            panic!("the machine's clock is not ours to set");
        };
        set_off.fetch_add(by, Ordering::AcqRel);
    }
}

impl Source {
    fn look(&self) -> Look {
        match self {
            Self::Real { start } => {
                // It counts the time the machine sleeps, so that waking up is no jump.
                let steady = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
                let steady = steady.unwrap_or_else(|_| start.elapsed());
                let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Look { wall: millis(wall), steady: millis(steady) }
            }
            Self::Simulated { wall_at_start, start, set_off, .. } => {
                let steady = millis(start.elapsed());
                let begun = i64::try_from(wall_at_start.as_millis()).unwrap_or(i64::MAX);
                let set_off = set_off.load(Ordering::Acquire);
                Look { wall: begun.saturating_add(steady).saturating_add(set_off), steady }
            }
        }
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// The past as it went: the moment now and the jumps of the wall clock.
#[derive(Clone, Debug)]
pub struct Past {
    /// The moment this was asked for.
    pub now: Timestamp,
    jumps: Arc<Vec<Jump>>,
}

impl Past {
    /// How long ago a noted moment is.
    ///
    /// A clock that was set back shows some moments twice; such a one is taken for the later of
    /// the two, so that nothing ever seems older than it is. Mail so lives longer by at most what
    /// the clock was set back.
    #[must_use]
    pub fn since(&self, noted: Timestamp) -> Span {
        let (mut now, mut passed) = (self.now, Span::default());
        for jump in self.jumps.iter().rev() {
            if jump.after <= noted && noted <= now {
                break;
            }
            passed = Span::millis(passed.as_millis() + now.since(jump.after).as_millis());
            now = jump.before;
        }
        Span::millis(passed.as_millis() + now.since(noted).as_millis())
    }

    /// What a clock that is set as it is now would have shown when a moment was noted. Never in
    /// the future.
    #[must_use]
    pub fn as_of_now(&self, noted: Timestamp) -> Timestamp {
        let passed = self.since(noted).as_millis();
        Timestamp::from_millis(self.now.as_millis().saturating_sub(passed))
    }

    /// When something is to happen that was to happen at `due` by the clock as it was at `noted`.
    #[must_use]
    pub fn due(&self, noted: Timestamp, due: Timestamp) -> Timestamp {
        self.as_of_now(noted).after(due.since(noted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_763_000_000_000);
    const DAY: i64 = 86_400_000;

    fn clock() -> Clock {
        Clock::simulated(START, 1)
    }

    #[tokio::test(start_paused = true)]
    async fn simulated_days_pass_at_once_and_seeds_repeat() {
        let clock = Clock::simulated(Timestamp::from_millis(1_000), 7);
        clock.sleep(Duration::from_hours(48)).await;
        assert_eq!(clock.now(), Timestamp::from_millis(1_000 + 48 * 3_600_000));
        assert_eq!(clock.elapsed(), Duration::from_hours(48));
        assert_eq!(clock.jumps(), 0);
        let twin = Clock::simulated(Timestamp::from_millis(1_000), 7);
        assert_eq!(clock.random(), twin.random());
    }

    #[test]
    fn the_machines_clock_has_not_jumped_when_it_is_asked_twice() {
        let clock = Clock::real();
        let first = clock.now();
        assert!(clock.past().since(first) < Span::hours(1));
        assert_eq!(clock.jumps(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_is_noted_once_with_its_size_and_small_steps_are_none() {
        let clock = clock();
        for by in [60_000, -60_000, 200_000, 200_000] {
            clock.jump_by(by);
            let _look = clock.now();
        }
        assert_eq!(clock.jumps(), 0);
        clock.jump_by(DAY + 1);
        assert_eq!((clock.jumps(), clock.jumps()), (1, 1));
        clock.jump_by(-2 * DAY);
        assert_eq!(clock.jumps(), 2);
        let jumps: Vec<String> = clock.jumps_after(0).iter().map(Jump::to_string).collect();
        assert_eq!(jumps, ["+86400.001", "-172800.000"]);
        assert_eq!(clock.jumps_after(1).len(), 1);
        assert_eq!(clock.jumps_after(2), []);
        for _ in 0..100 {
            clock.jump_by(DAY);
            let _look = clock.now();
        }
        assert_eq!((clock.jumps(), clock.jumps_after(0).len()), (102, JUMPS_MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_noted_before_a_jump_is_as_old_as_it_is() {
        for by in [DAY, -DAY, 3650 * DAY, -3650 * DAY] {
            let clock = clock();
            let old = clock.now();
            clock.sleep(Duration::from_hours(48)).await;
            let young = clock.now();
            clock.sleep(Duration::from_hours(1)).await;
            clock.jump_by(by);
            let new = clock.now();
            clock.sleep(Duration::from_hours(2)).await;
            let past = clock.past();
            let ages = [old, young, new].map(|noted| past.since(noted));
            assert_eq!(ages, [51, 3, 2].map(Span::hours), "{by}");
            let wait = Span::hours(4);
            let due = past.due(young, young.after(wait));
            assert_eq!(due, past.now.after(Span::hours(1)), "{by}: three of four have passed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_the_clock_showed_twice_is_taken_for_the_later_one() {
        let clock = clock();
        let noted = clock.now();
        clock.sleep(Duration::from_hours(1)).await;
        clock.jump_by(-2 * 3_600_000);
        assert_eq!(clock.jumps(), 1);
        clock.sleep(Duration::from_hours(3)).await;
        assert_eq!(clock.past().since(noted), Span::hours(2), "not four, and never more");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_noted_in_the_future_by_a_life_before_was_noted_now() {
        let past = clock().past();
        let noted = START.after(Span::days(1));
        assert_eq!(past.since(noted), Span::default());
        assert_eq!(past.due(noted, noted.after(Span::hours(1))), START.after(Span::hours(1)));
    }
}
