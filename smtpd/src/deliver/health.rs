//! How a destination fares: whether it answers, how many connections it gets, and when it is asked
//! again after it did not answer or asked for less.
//!
//! Plain state, kept by a lane for itself and by a site for all its lanes.

use std::time::Duration;

use mailroot_common::units::Span;
use smtpd_core::queue::outcome::Outcome;
use smtpd_core::queue::retry::Schedule;

/// The longest back-off.
const BACK_OFF_MAX: Span = Span::minutes(15);
/// How long a destination that let no more connections in is not asked for more.
const CROWD_BELIEVED: Duration = Duration::from_mins(1);
/// Connections of a destination before it has taken anything.
const WINDOW_AT_FIRST: usize = 5;
/// How long a destination that asked for less is left alone, longer each time in a row.
const SLOWED_WAITS: [Duration; 4] = [
    Duration::from_secs(15),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(15),
];

/// How a destination fares. Moments are in the clock's time.
#[derive(Debug)]
pub(super) struct Health {
    /// The most connections it has let in, and until when that is believed.
    crowd: Option<(usize, Duration)>,
    /// How often in a row it could not be reached.
    failures: u32,
    /// How often in a row it asked for less.
    slowed: u32,
    /// The most connections for now: twice as many after each batch that goes well, half of them when
    /// less is asked for.
    window: usize,
    /// It has asked for less once: from then on one more after each batch.
    is_cautious: bool,
    /// Until when nothing is tried.
    not_before: Duration,
    /// What the last failure came to.
    last: Option<Outcome>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            crowd: None,
            failures: 0,
            slowed: 0,
            window: WINDOW_AT_FIRST,
            is_cautious: false,
            not_before: Duration::ZERO,
            last: None,
        }
    }
}

impl Health {
    /// Whether it could not be reached, or asked for less, when it was tried last.
    pub(super) fn is_troubled(&self) -> bool {
        self.failures > 0 || self.slowed > 0
    }

    /// How often in a row it failed.
    pub(super) fn failures(&self) -> u32 {
        self.failures.max(self.slowed)
    }

    /// Whether nothing is tried now.
    pub(super) fn rests(&self, now: Duration) -> bool {
        now < self.not_before
    }

    /// Until when nothing is tried.
    pub(super) fn not_before(&self) -> Duration {
        self.not_before
    }

    /// How many connections it gets, of those that may be.
    pub(super) fn limit(&self, limit: usize, now: Duration) -> usize {
        let crowd = self.crowd.filter(|(_, until)| now < *until).map(|(most, _)| most);
        crowd.map_or(limit, |most| most.min(limit)).min(self.window)
    }

    /// What the last failure came to.
    pub(super) fn last(&self) -> Option<&Outcome> {
        self.last.as_ref()
    }

    /// What the last failure came to, while it keeps mail waiting.
    pub(super) fn trouble(&self) -> Option<&Outcome> {
        self.last.as_ref().filter(|_| self.is_troubled())
    }

    /// It answers.
    pub(super) fn on_contact(&mut self) {
        self.failures = 0;
    }

    /// It lets no more in than these.
    pub(super) fn on_crowded(&mut self, connections: usize, now: Duration) {
        self.crowd = Some((connections, now + CROWD_BELIEVED));
    }

    /// A batch has gone well.
    pub(super) fn on_progress(&mut self, limit: usize) {
        self.slowed = 0;
        let more = if self.is_cautious { 1 } else { self.window };
        self.window = self.window.saturating_add(more).min(limit.max(1));
    }

    /// It asks for less: fewer connections than the number in use, after a while. What several
    /// hear at the same time is one wish.
    pub(super) fn on_slowed(
        &mut self,
        outcome: Outcome,
        in_use: usize,
        now: Duration,
        random: u64,
    ) {
        if self.rests(now) {
            return;
        }
        let place = usize::try_from(self.slowed).unwrap_or(usize::MAX);
        let wait = *SLOWED_WAITS.get(place).unwrap_or(&SLOWED_WAITS[SLOWED_WAITS.len() - 1]);
        self.slowed = self.slowed.saturating_add(1);
        self.window = (self.window.min(in_use) / 2).max(1);
        self.is_cautious = true;
        self.last = Some(outcome);
        self.not_before = now + wait + jitter(wait, random);
    }

    /// There is no destination: all its mail is returned, and nothing is gained by waiting.
    pub(super) fn on_nowhere(&mut self) {
        self.failures = 0;
        self.last = None;
    }

    /// Not one of its hosts could be talked to. What several find at the same time is one failure.
    pub(super) fn on_unreachable(
        &mut self,
        outcome: Outcome,
        now: Duration,
        schedule: &Schedule,
        random: u64,
    ) {
        if self.rests(now) {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        self.window = WINDOW_AT_FIRST;
        self.last = Some(outcome);
        let wait = schedule.wait(self.failures).as_duration().min(BACK_OFF_MAX.as_duration());
        self.not_before = now + wait + jitter(wait, random);
    }

    /// Whoever tried broke down: it waits as if nobody had answered.
    pub(super) fn on_breakdown(&mut self, outcome: Outcome, now: Duration) {
        // So that the mail can grow too old, should it be the reason.
        self.last = Some(outcome);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + BACK_OFF_MAX.as_duration();
    }

    /// It may be asked at once.
    pub(super) fn forgive(&mut self) {
        self.not_before = Duration::ZERO;
    }
}

/// Up to a tenth more.
fn jitter(wait: Duration, random: u64) -> Duration {
    let thousandths = u32::try_from(random % 100).unwrap_or(0);
    wait * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use mailroot_common::status::EnhancedCode;
    use mailroot_common::units::Timestamp;
    use smtpd_core::queue::outcome::Stage;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn failure() -> Outcome {
        let status = EnhancedCode::transient(4, 5);
        Outcome::local(Timestamp::from_millis(0), Stage::Mail, status, "slow down")
    }

    #[test]
    fn connections_grow_with_success_and_halve_when_less_is_asked_for() {
        let mut health = Health::default();
        assert_eq!(health.limit(20, NOW), WINDOW_AT_FIRST);
        (0..100).for_each(|_| health.on_progress(20));
        assert_eq!(health.limit(100, NOW), 20);
        let mut waits = Vec::new();
        for (later, window) in [(0, 10), (100, 5), (1_000, 2), (10_000, 1), (100_000, 1)] {
            let now = NOW + Duration::from_secs(later);
            health.on_slowed(failure(), 20, now, 0);
            health.on_slowed(failure(), 20, now, 0);
            waits.push((health.not_before() - now).as_secs());
            assert_eq!(health.limit(100, now), window);
        }
        assert_eq!(waits, [15, 60, 300, 900, 900]);
        assert!(health.trouble().is_some());
        health.on_progress(20);
        assert!(health.trouble().is_none());
        assert_eq!(health.limit(100, NOW), 2, "one more at a time");
    }

    #[test]
    fn crowd_is_believed_for_a_while() {
        let mut health = Health::default();
        health.on_crowded(2, NOW);
        assert_eq!(health.limit(20, NOW + Duration::from_secs(59)), 2);
        assert_eq!(health.limit(20, NOW + Duration::from_secs(60)), WINDOW_AT_FIRST);
    }

    #[test]
    fn jitter_adds_less_than_a_tenth() {
        let wait = Duration::from_mins(10);
        for random in [0, 1, 99, u64::MAX] {
            assert!(jitter(wait, random) < wait / 10);
        }
    }
}
