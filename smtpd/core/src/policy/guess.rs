//! Guessers of passwords: how many logins by one name from one network were wrong, and for how long
//! no more are looked at.
//!
//! A name is never closed to everybody: whoever wants to keep a user out would only have to guess
//! wrong in his name.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// How many names and networks are remembered; then the oldest are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// How many logins may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many by one name from one network.
    pub failures: u32,
    /// For so long after the last one no more are looked at; there is no such limit if absent.
    pub ban: Option<Duration>,
}

/// What is remembered of wrong logins. Moments count from any fixed one.
#[derive(Debug, Default)]
pub struct Guesses(HashMap<(String, IpAddr), Wrong>);

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Duration,
}

impl Guesses {
    /// Whether a login by this name from this address is not looked at.
    #[must_use]
    pub fn is_banned(&self, name: &str, client: IpAddr, now: Duration, limit: Limit) -> bool {
        let Some(ban) = limit.ban else { return false };
        self.0.get(&key(name, client)).is_some_and(|wrong| {
            wrong.count >= limit.failures && now.saturating_sub(wrong.last) < ban
        })
    }

    /// A login was wrong.
    pub fn failed(&mut self, name: &str, client: IpAddr, now: Duration, limit: Limit) {
        let Some(ban) = limit.ban else { return };
        if self.0.len() >= REMEMBERED_MAX {
            self.forget(now, ban);
        }
        let wrong = self.0.entry(key(name, client)).or_insert(Wrong { count: 0, last: now });
        if now.saturating_sub(wrong.last) >= ban {
            wrong.count = 0;
        }
        *wrong = Wrong { count: wrong.count.saturating_add(1), last: now };
    }

    /// A login was good: what was wrong before was a slip.
    pub fn succeeded(&mut self, name: &str, client: IpAddr) {
        self.0.remove(&key(name, client));
    }

    fn forget(&mut self, now: Duration, ban: Duration) {
        self.0.retain(|_, wrong| now.saturating_sub(wrong.last) < ban);
        if self.0.len() >= REMEMBERED_MAX {
            let mut moments: Vec<Duration> = self.0.values().map(|wrong| wrong.last).collect();
            moments.sort_unstable();
            let middle = moments.get(moments.len() / 2).copied().unwrap_or_default();
            self.0.retain(|_, wrong| wrong.last > middle);
        }
    }
}

/// One owner has a whole /64 of IPv6 at least.
fn key(name: &str, client: IpAddr) -> (String, IpAddr) {
    let network = match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    };
    (name.to_owned(), network)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { failures: 3, ban: Some(Duration::from_secs(100)) };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_guesser_is_shut_out_for_a_while_and_nobody_else() {
        let mut guesses = Guesses::default();
        let [eve, ada] = ["203.0.113.9", "192.0.2.1"].map(|text| text.parse().unwrap());
        for second in 0..3 {
            assert!(!guesses.is_banned("ada", eve, at(second), LIMIT));
            guesses.failed("ada", eve, at(second), LIMIT);
        }
        assert!(guesses.is_banned("ada", eve, at(3), LIMIT));
        assert!(!guesses.is_banned("ada", ada, at(3), LIMIT));
        assert!(!guesses.is_banned("bob", eve, at(3), LIMIT));
        assert!(!guesses.is_banned("ada", eve, at(3), Limit { ban: None, ..LIMIT }));
        assert!(guesses.is_banned("ada", eve, at(101), LIMIT));
        assert!(!guesses.is_banned("ada", eve, at(102), LIMIT));
        guesses.failed("ada", eve, at(102), LIMIT);
        assert!(!guesses.is_banned("ada", eve, at(103), LIMIT), "the count begins anew");
    }

    #[test]
    fn a_good_login_forgives_slips_and_a_network_is_one_client() {
        let mut guesses = Guesses::default();
        let [one, other] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        for _ in 0..2 {
            guesses.failed("ada", one, at(0), LIMIT);
        }
        guesses.failed("ada", other, at(0), LIMIT);
        assert!(guesses.is_banned("ada", one, at(1), LIMIT));
        guesses.succeeded("ada", other);
        assert!(!guesses.is_banned("ada", one, at(1), LIMIT));
    }

    #[test]
    fn no_number_of_guesses_fills_the_memory() {
        let mut guesses = Guesses::default();
        let client = "192.0.2.1".parse().unwrap();
        for number in 0..3 * REMEMBERED_MAX as u64 {
            guesses.failed(&number.to_string(), client, Duration::from_millis(number), LIMIT);
            assert!(guesses.0.len() <= REMEMBERED_MAX);
        }
    }
}
