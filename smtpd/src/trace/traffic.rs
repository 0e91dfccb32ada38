//! Who sent to whom lately, as a change of the rules is tried on it.

use std::collections::HashMap;
use std::net::IpAddr;

use mailroot_common::units::Timestamp;
use smtpd_core::trace::event::Event;

use super::search::Search;

/// How many kinds of events are told apart.
const FACTS_MAX: usize = 10_000;
/// How many blocks are read: about two hundred thousand events.
const BLOCKS_MAX: usize = 400;

/// What the rules of a server are asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// The virtual server.
    pub server: String,
    /// The client, unless the message came by another door.
    pub client: Option<IpAddr>,
    /// What DNS called it.
    pub name: Option<String>,
    /// Who had logged in.
    pub user: Option<String>,
    /// SHA-256 of the certificate that it showed, if that was a good one.
    pub certificate: Option<String>,
    /// The domain of the recipient, if one was named.
    pub domain: Option<String>,
    /// The sender, where senders are told apart; empty for the null sender.
    pub from: Option<String>,
}

/// Whether the senders of facts are told apart: there are more facts then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// They matter.
    Apart,
    /// They do not.
    Together,
}

/// How often something was asked, or sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How often.
    pub count: u64,
    /// The last time.
    pub last: Timestamp,
    /// The address of the last time.
    pub address: Option<String>,
}

/// Traffic of late.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// What was asked.
    pub facts: HashMap<Fact, Seen>,
    /// Servers and senders' domains, with the last sender of each.
    pub senders: HashMap<(String, String), Seen>,
    /// The moment of the oldest event.
    pub since: Option<Timestamp>,
    /// How many events there were.
    pub events: u64,
}

impl Traffic {
    /// What the newest events of the record tell.
    #[must_use]
    pub fn of(search: &mut Search, senders: Senders) -> Self {
        let mut traffic = Self::default();
        search.newest(BLOCKS_MAX, |events| {
            let wanted = |event: &&Event<'_>| event.is_beginning() || event.is_refusal();
            events.iter().rev().filter(wanted).all(|event| traffic.add(event, senders))
        });
        traffic
    }

    /// Takes an event; false if there are enough.
    fn add(&mut self, event: &Event<'_>, senders: Senders) -> bool {
        let nobody = [None];
        let named: Vec<Option<&str>> = event.to.iter().copied().map(Some).collect();
        for to in if named.is_empty() { &nobody[..] } else { &named } {
            let fact = Fact {
                server: event.server.to_owned(),
                client: event.client.and_then(|client| client.parse().ok()),
                name: event.name.map(str::to_owned),
                user: event.user.map(str::to_owned),
                certificate: event.certificate.map(str::to_owned),
                domain: to.map(domain_of),
                from: event.from.filter(|_| senders == Senders::Apart).map(str::to_owned),
            };
            if self.facts.len() >= FACTS_MAX && !self.facts.contains_key(&fact) {
                return false;
            }
            let seen = self.facts.entry(fact).or_default();
            seen.count += 1;
            if event.at >= seen.last {
                (seen.last, seen.address) = (event.at, to.map(str::to_owned));
            }
            self.events += 1;
        }
        self.add_sender(event);
        self.since = self.since.into_iter().chain([event.at]).min();
        true
    }

    fn add_sender(&mut self, event: &Event<'_>) {
        let Some(from) = event.from.filter(|from| event.is_beginning() && !from.is_empty()) else {
            return;
        };
        let key = (event.server.to_owned(), domain_of(from));
        if self.senders.len() < FACTS_MAX || self.senders.contains_key(&key) {
            let seen = self.senders.entry(key).or_default();
            seen.count += 1;
            if event.at >= seen.last {
                (seen.last, seen.address) = (event.at, Some(from.to_owned()));
            }
        }
    }
}

/// The domain of an address, in small letters.
fn domain_of(address: &str) -> String {
    address.rsplit_once('@').map_or(address, |it| it.1).to_lowercase()
}
