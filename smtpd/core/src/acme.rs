//! When a certificate is asked of an authority (ACME, RFC 8555), and when again after a failure.
//!
//! In: what is wanted, what is there, what came of earlier requests, and the moment. Out: the moment of
//! the next request. Authorities count requests and shut out whoever asks too often, so that nothing here
//! asks twice in a short time, whatever the certificates that it gets are like.

use mailroot_common::units::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::certificate::Facts;

/// The wait after the first failure; each further one doubles it.
const FIRST_WAIT: Span = Span::minutes(15);
/// The longest wait after a failure.
const WAIT_MAX: Span = Span::hours(12);
/// The wait after a certificate that was had, however short its life.
const REST: Span = Span::hours(1);
/// The most of an authority's words that is kept.
const WHY_CHARS_MAX: usize = 1_000;

/// What is asked for, and of whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The hosts that the certificate is for.
    pub names: Vec<String>,
    /// The authority's directory.
    pub directory: String,
}

/// What came of requests for one certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// The authority that the certificate which is there was had from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// When it was had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub had: Option<Timestamp>,
    /// Failures since then.
    #[serde(default)]
    pub failures: u32,
    /// The last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Failure>,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Why, in words for people.
    pub why: String,
    /// What was asked for.
    pub wanted: Wanted,
    /// How long the next request waits.
    pub wait: Span,
}

impl Tries {
    /// Notes that a certificate was had.
    pub fn succeed(&mut self, wanted: &Wanted, now: Timestamp) {
        let from = Some(wanted.directory.clone());
        *self = Self { from, had: Some(now), failures: 0, last: None };
    }

    /// Notes a failure. `random` spreads the next requests of many services.
    pub fn fail(&mut self, wanted: &Wanted, why: &str, now: Timestamp, random: u64) {
        // Whoever asks for something else begins anew.
        let same = self.last.as_ref().is_none_or(|last| last.wanted == *wanted);
        self.failures = if same { self.failures.saturating_add(1) } else { 1 };
        self.last = Some(Failure {
            at: now,
            why: why.chars().take(WHY_CHARS_MAX).collect(),
            wanted: wanted.clone(),
            wait: wait(self.failures, random),
        });
    }

    /// When the certificate is to be asked for. `there` is the one that there is.
    #[must_use]
    pub fn next(&self, wanted: &Wanted, there: Option<&Facts>, now: Timestamp) -> Timestamp {
        let is_it = |facts: &&Facts| {
            let same = self.from.as_ref() == Some(&wanted.directory);
            same && wanted.names.iter().all(|name| facts.is_for(name))
        };
        let wished = there.filter(is_it).map_or(Timestamp::from_millis(0), renewal);
        let failed = self.last.as_ref().filter(|last| last.wanted == *wanted);
        // What lies in the future was noted before the clock was set back, and nobody knows how long ago.
        let failed = failed.filter(|last| last.at <= now);
        let after_failure = failed.map(|last| last.at.after(last.wait.min(WAIT_MAX)));
        let is_renewal = there.filter(is_it).is_some();
        let had = self.had.filter(|had| is_renewal && *had <= now);
        let after_success = had.map(|had| had.after(REST));
        wished.max(after_failure.max(after_success).unwrap_or(wished))
    }
}

/// The moment at which two thirds of a certificate's life are over.
#[must_use]
pub fn renewal(facts: &Facts) -> Timestamp {
    let life = facts.not_after.since(facts.not_before).as_millis();
    facts.not_before.after(Span::millis(life / 3 * 2))
}

/// The wait after so many failures: doubled each time within bounds, and up to an eighth less.
fn wait(failures: u32, random: u64) -> Span {
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1)).unwrap_or(u64::MAX);
    let whole = FIRST_WAIT.as_millis().saturating_mul(doubled).min(WAIT_MAX.as_millis());
    Span::millis(whole - random % (whole / 8))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn wanted() -> Wanted {
        Wanted { names: vec!["mx.test".to_owned()], directory: "https://ca.test/dir".to_owned() }
    }

    fn facts(name: &str, not_before: Timestamp, life: Span) -> Facts {
        Facts {
            names: vec![name.to_owned()],
            emails: Vec::new(),
            subject: name.to_owned(),
            issuer: "an authority".to_owned(),
            self_signed: false,
            not_before,
            not_after: not_before.after(life),
        }
    }

    fn had() -> Tries {
        let mut tries = Tries::default();
        tries.succeed(&wanted(), NOW);
        tries
    }

    #[test]
    fn one_is_asked_for_at_once_where_there_is_none_that_will_do() {
        let good = facts("mx.test", NOW, Span::days(90));
        let other = facts("other.test", NOW, Span::days(90));
        assert!(Tries::default().next(&wanted(), None, NOW) <= NOW);
        assert!(
            Tries::default().next(&wanted(), Some(&good), NOW) <= NOW,
            "it is of somebody else"
        );
        assert!(had().next(&wanted(), Some(&other), NOW) <= NOW);
        let elsewhere = Wanted { directory: "https://other.test/dir".to_owned(), ..wanted() };
        assert!(had().next(&elsewhere, Some(&good), NOW) <= NOW);
    }

    #[test]
    fn it_is_renewed_when_two_thirds_of_its_life_are_over() {
        let good = facts("mx.test", NOW, Span::days(90));
        assert_eq!(had().next(&wanted(), Some(&good), NOW), NOW.after(Span::days(60)));
    }

    #[test]
    fn a_certificate_that_is_over_as_it_comes_is_not_asked_for_again_at_once() {
        let over = facts("mx.test", NOW, Span::seconds(1));
        assert_eq!(had().next(&wanted(), Some(&over), NOW), NOW.after(REST));
    }

    #[test]
    fn waits_double_until_their_ceiling_and_another_wish_does_not_wait() {
        let mut tries = Tries::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            tries.fail(&wanted(), "no", NOW, 0);
            waits.push(tries.next(&wanted(), None, NOW).since(NOW).as_millis() / 60_000);
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 720, 720]);
        let other = Wanted { names: vec!["mail.test".to_owned()], ..wanted() };
        assert!(tries.next(&other, None, NOW) <= NOW);
        tries.fail(&other, "no", NOW, 0);
        assert_eq!(tries.failures, 1);
        tries.succeed(&other, NOW);
        assert_eq!((tries.failures, tries.last), (0, None));
    }

    proptest! {
        #[test]
        fn a_failure_is_waited_for_within_bounds_whatever_the_clock_does(
            failures in 0_u32..1000, random: u64, later in 0_u64..4_000_000_000_000,
        ) {
            let mut tries = Tries { failures, ..Tries::default() };
            tries.fail(&wanted(), "no", NOW, random);
            let now = Timestamp::from_millis(later);
            let wait = tries.next(&wanted(), None, now).since(now);
            prop_assert!(wait <= WAIT_MAX);
            let then = now.after(WAIT_MAX);
            prop_assert!(tries.next(&wanted(), None, then) <= then, "it is tried again");
            let over = facts("mx.test", Timestamp::from_millis(0), Span::seconds(1));
            prop_assert!(had().next(&wanted(), Some(&over), then) <= then, "and renewed");
            let first = tries.next(&wanted(), None, NOW).since(NOW);
            prop_assert!(first.as_millis() >= FIRST_WAIT.as_millis() / 8 * 7 - 1);
        }
    }
}
