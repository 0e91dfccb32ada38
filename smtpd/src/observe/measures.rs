//! What is measured and does not only grow: how many there are of something, and how long things take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest times of what buckets count, in milliseconds. One more bucket has what took longer.
const BOUNDS: [u64; 12] = [1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// How many there are of something.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less; whoever calls it has counted that one before.
    pub fn take_one(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many there are.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    within: [AtomicU64; BOUNDS.len()],
    longer: AtomicU64,
    micros: AtomicU64,
}

/// What a histogram has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Times, each with how many took no longer.
    pub within: Vec<(Duration, u64)>,
    /// How many there were.
    pub count: u64,
    /// How long all took together.
    pub sum: Duration,
}

impl Histogram {
    /// Something took so long.
    pub fn add(&self, took: Duration) {
        let place = BOUNDS.iter().position(|most| took <= Duration::from_millis(*most));
        let bucket = place.and_then(|place| self.within.get(place)).unwrap_or(&self.longer);
        bucket.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// What it has seen so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mut count = 0;
        let mut up_to = |(most, bucket): (&u64, &AtomicU64)| {
            count += bucket.load(Ordering::Relaxed);
            (Duration::from_millis(*most), count)
        };
        let within = BOUNDS.iter().zip(&self.within).map(&mut up_to).collect();
        let count = count + self.longer.load(Ordering::Relaxed);
        Seen { within, count, sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_no_longer_than_a_bucket_says_is_in_it_and_in_all_behind() {
        let histogram = Histogram::default();
        for millis in [1, 2, 300, 60_000] {
            histogram.add(Duration::from_millis(millis));
        }
        let seen = histogram.seen();
        let within: Vec<u64> = seen.within.iter().map(|(_, count)| *count).collect();
        assert_eq!(within, [1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!((seen.count, seen.sum), (4, Duration::from_millis(60_303)));
    }

    #[test]
    fn a_gauge_goes_up_and_down() {
        let gauge = Gauge::default();
        gauge.add_one();
        gauge.add_one();
        gauge.take_one();
        assert_eq!(gauge.value(), 1);
    }
}
