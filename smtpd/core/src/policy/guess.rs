//! Guessers of passwords: how many logins by one name from one client were wrong, and for how long
//! no more are looked at.
//!
//! A name is never closed to everybody: whoever wants to keep a user out would only have to guess
//! wrong in his name.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use super::client::Client;

/// How many names from clients are remembered, and how many clients.
const REMEMBERED_MAX: usize = 10_000;
/// So many times what may be wrong by one name is wrong by any names from one client, until no more
/// are looked at: whoever tries one password with many names is a guesser, too.
const NAMES: u32 = 10;

/// How many logins may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many by one name from one client.
    pub failures: u32,
    /// For so long after the last one no more are looked at; there is no such limit if absent.
    pub ban: Option<Duration>,
}

/// What is remembered of wrong logins. Moments count from any fixed one.
#[derive(Debug, Default)]
pub struct Guesses {
    names: Counts<(String, Client)>,
    clients: Counts<Client>,
}

impl Guesses {
    /// Whether a login by this name from this address is not looked at.
    #[must_use]
    pub fn is_banned(&self, name: &str, client: IpAddr, now: Duration, limit: Limit) -> bool {
        let Some(ban) = limit.ban else { return false };
        let client = Client::of(client);
        self.names.has(&(name.to_owned(), client), limit.failures, now, ban)
            || self.clients.has(&client, of_client(limit), now, ban)
    }

    /// A login was wrong.
    pub fn failed(&mut self, name: &str, client: IpAddr, now: Duration, limit: Limit) {
        let Some(ban) = limit.ban else { return };
        let client = Client::of(client);
        self.names.add((name.to_owned(), client), limit.failures, now, ban);
        self.clients.add(client, of_client(limit), now, ban);
    }

    /// A login that was counted as wrong was good: what was wrong before by its name was a slip. What
    /// was wrong by other names stays.
    pub fn succeeded(&mut self, name: &str, client: IpAddr) {
        let client = Client::of(client);
        self.names.0.remove(&(name.to_owned(), client));
        self.clients.less(&client);
    }

    /// Nobody could say whether a login was wrong that was counted so; it stays counted against the client
    /// where it has told him something about the name.
    pub fn taken_back(&mut self, name: &str, client: IpAddr, has_told: bool) {
        let client = Client::of(client);
        self.names.less(&(name.to_owned(), client));
        if !has_told {
            self.clients.less(&client);
        }
    }
}

fn of_client(limit: Limit) -> u32 {
    limit.failures.saturating_mul(NAMES)
}

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Duration,
}

#[derive(Debug)]
struct Counts<K>(HashMap<K, Wrong>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Counts<K> {
    fn has(&self, key: &K, most: u32, now: Duration, ban: Duration) -> bool {
        let is_over = |it: &Wrong| it.count >= most && now.saturating_sub(it.last) < ban;
        self.0.get(key).is_some_and(is_over)
    }

    fn add(&mut self, key: K, most: u32, now: Duration, ban: Duration) {
        if self.0.len() >= REMEMBERED_MAX && !self.0.contains_key(&key) {
            self.forget(most, now, ban);
        }
        let wrong = self.0.entry(key).or_insert(Wrong { count: 0, last: now });
        if now.saturating_sub(wrong.last) >= ban {
            wrong.count = 0;
        }
        *wrong = Wrong { count: wrong.count.saturating_add(1), last: now };
    }

    fn less(&mut self, key: &K) {
        if let Some(wrong) = self.0.get_mut(key) {
            wrong.count = wrong.count.saturating_sub(1);
        }
    }

    /// Makes room: of what is over, then of who is not shut out, then of who was shut out longest ago.
    /// So nobody gets rid of his ban by guessing on under other names.
    fn forget(&mut self, most: u32, now: Duration, ban: Duration) {
        self.0.retain(|_, it| now.saturating_sub(it.last) < ban);
        let rank = |it: &Wrong| (it.count >= most, it.last);
        let mut ranks: Vec<_> = self.0.values().map(rank).collect();
        if ranks.len() < REMEMBERED_MAX {
            return;
        }
        // A quarter at once, so that it is not looked through for each guess.
        let (_, border, _) = ranks.select_nth_unstable(REMEMBERED_MAX / 4);
        let border = *border;
        self.0.retain(|_, it| rank(it) > border);
    }
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
    fn a_ban_is_not_washed_out_by_guesses_with_other_names() {
        let mut guesses = Guesses::default();
        let eve = "203.0.113.9".parse().unwrap();
        (0..3).for_each(|second| guesses.failed("ada", eve, at(second), LIMIT));
        for number in 0..30_000_u32 {
            let other = IpAddr::from((0xC000_0000 | number).to_be_bytes());
            guesses.failed("bob", other, at(4), LIMIT);
            assert!(guesses.names.0.len() <= REMEMBERED_MAX);
            assert!(guesses.clients.0.len() <= REMEMBERED_MAX);
        }
        assert!(guesses.is_banned("ada", eve, at(5), LIMIT));
    }

    #[test]
    fn who_tries_many_names_is_shut_out_whatever_the_name() {
        let mut guesses = Guesses::default();
        let [eve, ada] = ["203.0.113.9", "192.0.2.1"].map(|text| text.parse().unwrap());
        for number in 0..3 * NAMES {
            let name = format!("user{number}");
            assert!(!guesses.is_banned(&name, eve, at(1), LIMIT));
            guesses.failed(&name, eve, at(1), LIMIT);
            guesses.failed(&name, ada, at(1), LIMIT);
            guesses.succeeded(&name, ada);
        }
        assert!(guesses.is_banned("ada", eve, at(2), LIMIT));
        assert!(!guesses.is_banned("ada", ada, at(2), LIMIT), "good logins are no guesses");
        assert!(!guesses.is_banned("ada", eve, at(101), LIMIT));
        // A good login among them forgives none of the others.
        let mut guesses = Guesses::default();
        for number in 0..3 * NAMES {
            guesses.failed(&format!("user{number}"), eve, at(1), LIMIT);
            guesses.failed("own", eve, at(1), LIMIT);
            guesses.succeeded("own", eve);
        }
        assert!(guesses.is_banned("own", eve, at(2), LIMIT));
    }
}
