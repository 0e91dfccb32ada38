//! Which of several directory servers is asked: the first that is not being left alone.

use std::time::Duration;

/// How long a server is left alone after its first failure; twice as long after each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest that it is.
const MOST: Duration = Duration::from_secs(30);
/// How long it is after it has refused our name and password: many directories close an account after
/// a few of those.
const REFUSED: Duration = Duration::from_mins(5);

/// How the servers fare, by their places in the configuration.
#[derive(Debug)]
pub struct Health(Vec<Standing>);

#[derive(Clone, Debug, Default)]
struct Standing {
    failures: u32,
    until: Duration,
    why: String,
}

impl Health {
    /// So many servers of which nothing bad is known.
    #[must_use]
    pub fn of(count: usize) -> Self {
        Self(vec![Standing::default(); count])
    }

    /// The servers to ask, in this order.
    #[must_use]
    pub fn askable(&self, now: Duration) -> Vec<usize> {
        let all = self.0.iter().enumerate();
        all.filter(|(_, it)| it.until <= now).map(|(place, _)| place).collect()
    }

    /// Why none is asked, if that is so: what the last trouble of the first was.
    #[must_use]
    pub fn trouble(&self) -> &str {
        self.0.first().map_or("no server is configured", |it| &it.why)
    }

    /// A server has failed; says how long it is left alone.
    pub fn failed(&mut self, place: usize, why: &str, refused: bool, now: Duration) -> Duration {
        let Some(it) = self.0.get_mut(place) else { return Duration::ZERO };
        let doubled = FIRST.saturating_mul(1 << it.failures.min(10));
        let span = if refused { REFUSED } else { doubled.min(MOST) };
        it.failures += 1;
        // What failed beside a refusal, or was begun before it, shortens nothing.
        if it.until <= now + span {
            it.until = now + span;
            why.clone_into(&mut it.why);
        }
        it.until - now
    }

    /// For how much longer a server is left alone, and why, if it is.
    #[must_use]
    pub fn rest(&self, place: usize, now: Duration) -> Option<(Duration, &str)> {
        let it = self.0.get(place).filter(|it| it.until > now)?;
        Some((it.until - now, &it.why))
    }

    /// A server answers; says whether that is news.
    pub fn answered(&mut self, place: usize) -> bool {
        let Some(it) = self.0.get_mut(place) else { return false };
        let was_down = it.failures > 0;
        *it = Standing::default();
        was_down
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn a_server_that_fails_is_left_alone_for_longer_each_time() {
        let mut health = Health::of(2);
        let at = Duration::from_secs;
        assert_eq!(health.askable(at(0)), [0, 1]);
        assert_eq!(health.failed(0, "gone", false, at(0)), at(1));
        assert_eq!(health.askable(at(0)), [1]);
        assert_eq!(health.askable(at(1)), [0, 1]);
        assert_eq!(health.failed(0, "gone", false, at(1)), at(2));
        for _ in 0..20 {
            health.failed(0, "gone", false, at(3));
        }
        assert_eq!(health.failed(0, "still gone", false, at(3)), MOST);
        assert_eq!(health.trouble(), "still gone");
        assert!(health.answered(0) && !health.answered(0));
        assert_eq!(health.askable(at(3)), [0, 1]);
        assert_eq!(health.failed(1, "wrong password", true, at(3)), REFUSED);
        assert_eq!(health.failed(1, "gone", false, at(4)), REFUSED - at(1));
        assert_eq!(health.askable(at(100)), [0]);
        assert_eq!(health.rest(1, at(100)), Some((REFUSED - at(97), "wrong password")));
        assert_eq!(health.rest(0, at(100)), None);
    }
}
