//! Accounting: every message carries a tag; what was acknowledged must be somewhere in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;

use crate::message::fields;
use crate::peer::Peer;
use crate::site::Site;

/// The books of one run.
#[derive(Debug, Default)]
pub struct Account {
    acknowledged: Mutex<BTreeSet<String>>,
    unknown: Mutex<BTreeSet<String>>,
}

/// What an account came to.
#[derive(Debug)]
pub struct Balance {
    /// Acknowledged messages.
    pub acknowledged: usize,
    /// Acknowledged, and nowhere.
    pub lost: Vec<String>,
    /// Arrivals beyond the first of each message.
    pub duplicates: usize,
    /// Arrived although nobody was told that they would.
    pub unacknowledged_arrivals: usize,
    /// Arrived although never sent.
    pub strangers: Vec<String>,
}

impl Account {
    /// A message got its 250.
    ///
    /// # Panics
    ///
    /// When a client panicked.
    pub fn acknowledge(&self, tag: &str) {
        self.acknowledged.lock().unwrap().insert(tag.to_owned());
    }

    /// A message was sent, and the connection ended before a reply: both ends are right.
    ///
    /// # Panics
    ///
    /// When a client panicked.
    pub fn leave_open(&self, tag: &str) {
        self.unknown.lock().unwrap().insert(tag.to_owned());
    }

    /// How many messages were acknowledged so far.
    ///
    /// # Panics
    ///
    /// When a client panicked.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Compares the books with what arrived.
    ///
    /// # Panics
    ///
    /// When a client panicked.
    #[must_use]
    pub fn balance(&self, arrived: &[String]) -> Balance {
        let acknowledged = self.acknowledged.lock().unwrap();
        let unknown = self.unknown.lock().unwrap();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for tag in arrived {
            *counts.entry(tag).or_default() += 1;
        }
        Balance {
            acknowledged: acknowledged.len(),
            lost: acknowledged
                .iter()
                .filter(|tag| !counts.contains_key(tag.as_str()))
                .cloned()
                .collect(),
            duplicates: counts.values().map(|count| count - 1).sum(),
            unacknowledged_arrivals: unknown
                .iter()
                .filter(|tag| counts.contains_key(tag.as_str()) && !acknowledged.contains(*tag))
                .count(),
            strangers: counts
                .keys()
                .filter(|&&tag| !acknowledged.contains(tag) && !unknown.contains(tag))
                .map(|&tag| tag.to_owned())
                .collect(),
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged, {} lost, {} duplicates, {} arrived unacknowledged",
            self.acknowledged,
            self.lost.len(),
            self.duplicates,
            self.unacknowledged_arrivals
        )
    }
}

/// The tags of everything in the first server's Drop and at a peer.
#[must_use]
pub fn arrived(site: &Site, peer: &Peer) -> Vec<String> {
    let dropped = site.dropped("default");
    let mut tags: Vec<String> = dropped.iter().map(|stored| tag(&stored.octets)).collect();
    peer.with_received(|received| {
        tags.extend(received.iter().map(|message| tag(&message.octets)));
    });
    tags
}

/// The tags of what is queued for a domain.
#[must_use]
pub fn queued(site: &Site, domain: &str) -> Vec<String> {
    let ids = site.ctl(&["queue", "list", "--domain", domain, "-o", "name"]).ok();
    ids.lines()
        .map(|id| tag(site.ctl(&["queue", "show", id, "--headers"]).ok().as_bytes()))
        .collect()
}

/// The tag of a message, or a word that says it has none.
#[must_use]
pub fn tag(octets: &[u8]) -> String {
    fields(octets, "X-Tag").into_iter().next().unwrap_or_else(|| "untagged".to_owned())
}
