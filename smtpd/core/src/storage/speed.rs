//! Syncs: how long they took, whether that can be believed, and how much mail it allows.

use std::time::Duration;

use mailroot_common::control::doctor::{Check, Level};

use super::TOPIC;

/// How often each way of making something durable was tried, and how long each try took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// A page written over octets that are there, then synced: what a commit is.
    pub overwrite: Vec<Duration>,
    /// A page written behind the end of a file, then synced.
    pub append: Vec<Duration>,
    /// A new file of one page, synced, and its directory synced.
    pub create: Vec<Duration>,
}

/// The figures of one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// How many there were.
    pub count: usize,
    /// All of them divided by their number.
    pub mean: Duration,
    /// Half took no longer.
    pub median: Duration,
    /// Of a hundred, one took longer.
    pub p99: Duration,
}

impl Latency {
    /// The figures; none if nothing was measured.
    #[must_use]
    pub fn of(samples: &[Duration]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1);
        let count = sorted.len();
        let total: Duration = sorted.iter().sum();
        let mean = total.checked_div(u32::try_from(count).ok()?)?;
        Some(Self { count, mean, median: *at(50)?, p99: *at(99)? })
    }
}

/// How many sessions the second estimate is for.
const SESSIONS: u32 = 20;
/// No device that holds its word syncs in less than this.
const BELIEVABLE_MIN: Duration = Duration::from_micros(20);
/// Longer syncs are felt by whoever sends.
const BEARABLE_MAX: Duration = Duration::from_millis(100);

/// Messages per second that can be made durable, as far as the disk goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// By one session.
    pub one: f64,
    /// By twenty sessions at once.
    pub twenty: f64,
}

/// Estimates from the mean of an overwrite, since the store writes over segments made before.
///
/// One session waits for one sync per message. Of several, those who come while a sync runs share
/// the next one: each waits for the rest of one sync and for one of its own, so that at worst half
/// of them gather during each.
#[must_use]
pub fn estimate(overwrite: &Latency) -> Rates {
    let seconds = overwrite.mean.as_secs_f64().max(1e-9);
    Rates { one: 1.0 / seconds, twenty: f64::from(SESSIONS / 2) / seconds }
}

/// What is to be known of the measured syncs.
#[must_use]
pub fn judge(measured: &Measured, is_on_block_device: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, what, samples) in [
        ("overwrite", "4 KiB written over and synced", &measured.overwrite),
        ("append", "4 KiB appended and synced", &measured.append),
        ("create", "a new file, synced with its directory", &measured.create),
    ] {
        if let Some(latency) = Latency::of(samples) {
            checks.push(tell(name, what, &latency));
        }
    }
    let Some(overwrite) = Latency::of(&measured.overwrite) else { return checks };
    let rates = estimate(&overwrite);
    let text = format!(
        "the disk allows about {} messages per second from one session, {} from twenty at once",
        round(rates.one),
        round(rates.twenty)
    );
    let rate = Check::new(Level::Ok, TOPIC, "rate", text)
        .hint(
            "estimated: one session waits for one sync per message; of twenty, ten share each. \
             Processor and network may allow less",
        )
        .figure("one_session_per_second", rates.one.round())
        .figure("twenty_sessions_per_second", rates.twenty.round());
    checks.push(rate);
    checks.extend(doubt(&overwrite, is_on_block_device));
    checks
}

fn tell(name: &str, what: &str, latency: &Latency) -> Check {
    let Latency { count, mean, median, p99 } = *latency;
    let text = format!("{what}: median {}, p99 {}, {count} times", span(median), span(p99));
    let count = u32::try_from(count).map_or(f64::INFINITY, f64::from);
    Check::new(Level::Ok, TOPIC, name, text)
        .figure("count", count)
        .figure("mean_seconds", mean.as_secs_f64())
        .figure("median_seconds", median.as_secs_f64())
        .figure("p99_seconds", p99.as_secs_f64())
}

fn doubt(overwrite: &Latency, is_on_block_device: bool) -> Option<Check> {
    let Latency { mean, median, .. } = *overwrite;
    if is_on_block_device && median < BELIEVABLE_MIN {
        let text = format!("{} is faster than a disk can be", span(median));
        let hint = "a write cache answers: harmless if a battery keeps it, else mail that was answered \
                    with 250 is lost with the power";
        return Some(Check::new(Level::Warn, TOPIC, "too_fast", text).hint(hint));
    }
    if mean > BEARABLE_MAX {
        let text =
            format!("a sync takes {} on average, and every message waits for one", span(mean));
        let hint = "the disk is slow or busy; put the mail root on a disk of its own, or on flash";
        return Some(Check::new(Level::Warn, TOPIC, "slow", text).hint(hint));
    }
    None
}

/// Two or three digits, in a unit for people.
fn span(span: Duration) -> String {
    let (value, unit) = match span.as_secs_f64() {
        seconds if seconds < 1e-3 => (seconds * 1e6, "µs"),
        seconds if seconds < 1.0 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// Two digits that count, since an estimate has no more.
fn round(rate: f64) -> String {
    if rate < 10.0 {
        return format!("{rate:.1}");
    }
    let unit = 10_f64.powf(rate.log10().floor() - 1.0);
    format!("{:.0}", (rate / unit).round() * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(all: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        all.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn latencies_are_ranked_whatever_their_order_and_number() {
        assert_eq!(Latency::of(&[]), None);
        let one = Latency::of(&micros([7])).unwrap();
        assert_eq!((one.count, one.median, one.p99), (1, one.mean, one.mean));
        let all = Latency::of(&micros((1..=200).rev())).unwrap();
        assert_eq!(all.median, Duration::from_micros(100));
        assert_eq!(all.p99, Duration::from_micros(198));
        assert_eq!(all.mean, Duration::from_nanos(100_500));
        let three = Latency::of(&micros([3, 1, 2])).unwrap();
        assert_eq!((three.median, three.p99), (Duration::from_micros(2), Duration::from_micros(3)));
    }

    #[test]
    fn one_sync_carries_half_of_the_sessions_at_least() {
        let rates = estimate(&Latency::of(&micros([2_000; 10])).unwrap());
        assert!((rates.one - 500.0).abs() < 1e-6, "{rates:?}");
        assert!((rates.twenty - 5_000.0).abs() < 1e-6, "{rates:?}");
        let zero = estimate(&Latency::of(&micros([0])).unwrap());
        assert!(zero.one.is_finite() && zero.twenty.is_finite());
    }

    #[test]
    fn syncs_that_cannot_be_and_syncs_that_cannot_be_borne_are_told() {
        let names = |overwrite: u64, on_device: bool| {
            let overwrite = micros([overwrite; 20]);
            let measured = Measured { overwrite, ..Measured::default() };
            let checks = judge(&measured, on_device);
            checks.into_iter().map(|check| check.name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(1_000, true), "overwrite rate");
        assert_eq!(names(5, true), "overwrite rate too_fast");
        assert_eq!(names(5, false), "overwrite rate");
        assert_eq!(names(300_000, true), "overwrite rate slow");
        assert_eq!(judge(&Measured::default(), true), []);
    }

    #[test]
    fn figures_are_rounded_for_people_only() {
        assert_eq!(span(Duration::from_micros(3)), "3.0 µs");
        assert_eq!(span(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(span(Duration::from_millis(45)), "45 ms");
        assert_eq!(span(Duration::from_secs(2)), "2.0 s");
        assert_eq!(
            (round(3.44), round(4_567.0), round(99.6)),
            ("3.4".into(), "4600".into(), "100".into())
        );
    }
}
