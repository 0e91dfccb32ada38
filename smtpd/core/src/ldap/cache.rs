//! What is known of a directory for a while: entries, and that there is none.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::schema::Meaning;

/// How long what counts, and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How long it is known what an entry says (`ldap.cache.positive`).
    pub positive: Duration,
    /// How long it is known that there is none (`ldap.cache.negative`).
    pub negative: Duration,
    /// Answers kept; an entry counts once more for everybody whom it leads to (`ldap.cache.size`).
    pub size: usize,
}

/// Answers by what was asked. Times are of one clock that never goes back.
#[derive(Debug)]
pub struct Cache<K> {
    rules: Rules,
    known: HashMap<K, (Duration, Option<Arc<Meaning>>)>,
    weight: usize,
}

fn weight(found: Option<&Arc<Meaning>>) -> usize {
    1 + found.map_or(0, |meaning| meaning.targets().len())
}

impl<K: Eq + Hash> Cache<K> {
    /// One that knows nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, known: HashMap::new(), weight: 0 }
    }

    /// What is known, if it is: an entry, or that there is none.
    #[must_use]
    pub fn get(&self, key: &K, now: Duration) -> Option<Option<Arc<Meaning>>> {
        self.known.get(key).filter(|(until, _)| now < *until).map(|(_, found)| found.clone())
    }

    /// Keeps an answer for its time. Where there is no room for it, first what is over goes, then
    /// everything: it is only a question away.
    pub fn put(&mut self, key: K, found: Option<Arc<Meaning>>, now: Duration) {
        let span = if found.is_some() { self.rules.positive } else { self.rules.negative };
        let heavy = weight(found.as_ref());
        if let Some((_, old)) = self.known.remove(&key) {
            self.weight -= weight(old.as_ref());
        }
        if span.is_zero() || heavy > self.rules.size {
            return;
        }
        if self.weight + heavy > self.rules.size {
            self.known.retain(|_, (until, _)| now < *until);
            self.weight = self.known.values().map(|(_, found)| weight(found.as_ref())).sum();
        }
        if self.weight + heavy > self.rules.size {
            self.known.clear();
            self.weight = 0;
        }
        self.weight += heavy;
        self.known.insert(key, (now + span, found));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::super::schema::{Kind, Target};
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn cache(size: usize) -> Cache<u32> {
        Cache::new(Rules { positive: at(10), negative: at(2), size })
    }

    fn group(members: usize) -> Option<Arc<Meaning>> {
        let members = vec![Target::Entry("CN=x".into()); members];
        Some(Arc::new(Meaning {
            dn: "CN=g".into(),
            mail: None,
            hosts: Vec::new(),
            kind: Kind::Group(members),
        }))
    }

    #[test]
    fn answers_are_known_for_their_time() {
        let mut cache = cache(100);
        cache.put(1, group(0), at(0));
        cache.put(2, None, at(0));
        assert_eq!(cache.get(&1, at(9)), Some(group(0)));
        assert_eq!(cache.get(&2, at(1)), Some(None));
        assert_eq!(
            (cache.get(&1, at(10)), cache.get(&2, at(2)), cache.get(&3, at(0))),
            (None, None, None)
        );
        let mut none = Cache::new(Rules { positive: at(0), negative: at(0), size: 9 });
        none.put(1, None, at(0));
        assert_eq!(none.get(&1, at(0)), None);
        let mut no_entries = Cache::new(Rules { positive: at(0), negative: at(2), size: 9 });
        no_entries.put(1, None, at(0));
        no_entries.put(1, group(0), at(1));
        assert_eq!(no_entries.get(&1, at(1)), None, "what is news is not hidden by what was known");
    }

    #[test]
    fn there_is_never_more_than_there_is_room_for() {
        let mut cache = cache(10);
        cache.put(1, group(20), at(0));
        assert_eq!(cache.get(&1, at(0)), None, "it alone is too large");
        cache.put(1, group(4), at(0));
        cache.put(1, group(4), at(0));
        cache.put(2, group(4), at(0));
        assert_eq!(cache.weight, 10, "the same counts once");
        cache.put(3, None, at(1));
        assert!(cache.get(&1, at(1)).is_none() && cache.get(&3, at(1)).is_some());
        cache.put(4, group(9), at(3));
        assert!(cache.get(&4, at(3)).is_some());
        assert_eq!(cache.weight, 10, "what was over made room");
    }
}
