//! How long a token is used: a new one is asked for before the old one ends, so that a provider that is
//! out of order for a while keeps no mail waiting.

use std::time::Duration;

use mailroot_common::units::{Span, Timestamp};

/// What a token without a span is trusted for.
const UNSAID: Duration = Duration::from_mins(5);
/// The longest span that is believed.
const LONGEST: Duration = Duration::from_hours(24);

/// When a token was given and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it was given.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

/// What is to be done before a token is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Good,
    /// Ask for a new one; while there is none, this one will do.
    Ageing,
    /// Ask for a new one.
    Over,
}

impl Life {
    /// That of a token that was asked for at this moment.
    #[must_use]
    pub fn new(asked_at: Timestamp, span: Option<Duration>) -> Self {
        let span = span.unwrap_or(UNSAID).min(LONGEST);
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let until = Timestamp::from_millis(asked_at.as_millis().saturating_add(span));
        Self { since: asked_at, until }
    }

    /// How it stands. Five sixths of its life it is good. A clock that was set back beyond its
    /// beginning ends it, since nobody knows then how old it is.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        let (since, until, now) = (self.since.as_millis(), self.until.as_millis(), now.as_millis());
        let ageing = until.saturating_sub(until.saturating_sub(since) / 6);
        if now >= until || now < since {
            Standing::Over
        } else if now >= ageing {
            Standing::Ageing
        } else {
            Standing::Good
        }
    }
}

/// How long a right to ask for tokens is good that nobody uses: the least that a large provider grants.
pub const RIGHT_LAPSES: Span = Span::days(90);
/// After which it is used without mail, and after which that has failed for so long that people are to know.
const RIGHT_DUE: Span = Span::days(30);
const RIGHT_LAPSING: Span = Span::days(45);

/// How a right to ask for tokens stands that a person gave by signing in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RightStanding {
    /// It was used lately.
    Fresh,
    /// It is to be used, so that it does not lapse.
    Due,
    /// The same, and nobody could use it for long.
    Lapsing,
}

/// How it stands if it was last used then; it is not known of one that was kept by an older daemon.
#[must_use]
pub fn right_standing(used: Option<Timestamp>, now: Timestamp) -> RightStanding {
    match used.map(|used| now.since(used)) {
        Some(span) if span < RIGHT_DUE => RightStanding::Fresh,
        Some(span) if span >= RIGHT_LAPSING => RightStanding::Lapsing,
        Some(_) | None => RightStanding::Due,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_is_used_long_before_it_lapses() {
        let at = |days: u64| Timestamp::from_millis(0).after(Span::days(days));
        for (days, expected) in [
            (0, RightStanding::Fresh),
            (29, RightStanding::Fresh),
            (30, RightStanding::Due),
            (45, RightStanding::Lapsing),
            (900, RightStanding::Lapsing),
        ] {
            assert_eq!(right_standing(Some(at(0)), at(days)), expected, "{days}");
        }
        assert_eq!(right_standing(None, at(0)), RightStanding::Due);
        assert_eq!(right_standing(Some(at(9)), at(0)), RightStanding::Fresh);
    }

    #[test]
    fn a_token_ages_in_the_last_sixth_of_its_life() {
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let life = Life::new(at(0), Some(Duration::from_hours(1)));
        for (seconds, expected) in [
            (0, Standing::Good),
            (2_999, Standing::Good),
            (3_000, Standing::Ageing),
            (3_599, Standing::Ageing),
            (3_600, Standing::Over),
        ] {
            assert_eq!(life.standing(at(seconds)), expected, "{seconds}");
        }
        assert_eq!(life.standing(Timestamp::from_millis(999_999)), Standing::Over);
        assert_eq!(Life::new(at(0), None).until, at(300));
        assert_eq!(Life::new(at(0), Some(Duration::MAX)).until, at(86_400));
    }
}
