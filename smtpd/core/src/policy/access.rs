//! Lists of clients: "only the list below" and "all except the list below".
//!
//! An entry is an address, a network, or a DNS name. A name is compared with the client's verified
//! names: `mail.example` with the name itself, `*.example` (or `.example`) with every name below
//! it by whole labels. Entries with names cost a look-up for each connection, so the list says
//! whether it has any.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use mailroot_common::net::{Network, NetworkError};
use mailroot_common::units::Timestamp;

use super::{Facts, NameFact};
use crate::route::domain::{Pattern, PatternError};

/// Why a text is not an entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// It looks like an address or a network and is none.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// It looks like a name and is none.
    #[error(transparent)]
    Name(#[from] PatternError),
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// An address or a network.
    Network(Network),
    /// Clients whose verified name is this.
    Name(Pattern),
}

impl Entry {
    /// Reads `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`, `mail.example`, `*.example` or
    /// `.example`.
    ///
    /// # Errors
    ///
    /// [`EntryError`]. A text of digits, dots, colons and slashes is never taken for a name.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        let like_address = text.contains([':', '/'])
            || (!text.is_empty() && text.bytes().all(|o| o.is_ascii_digit() || o == b'.'));
        if like_address {
            return Ok(Self::Network(Network::parse(text)?));
        }
        let pattern = match text.strip_prefix('.') {
            Some(suffix) => Pattern::parse(&format!("*.{suffix}"))?,
            None => Pattern::parse(text)?,
        };
        match &pattern {
            Pattern::Exact(name) if name.reads_like_an_address() => {
                Err(NetworkError::Shape(text.to_owned()).into())
            }
            _ => Ok(Self::Name(pattern)),
        }
    }
}

/// The form that [`Entry::parse`] reads back.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Name(pattern) => pattern.fmt(f),
        }
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        Self::parse(text)
    }
}

/// A line of a list: an entry, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whom it means.
    pub entry: Entry,
    /// From then on the line counts as if it were not there.
    pub until: Option<Timestamp>,
}

/// A line that stays.
impl From<Entry> for Line {
    fn from(entry: Entry) -> Self {
        Self { entry, until: None }
    }
}

impl Line {
    fn counts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// Whom a list means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Only those on it.
    #[default]
    Only,
    /// All except those on it.
    AllExcept,
}

/// A list and how it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// How it is meant.
    pub mode: Mode,
    /// Who is on it.
    pub lines: Vec<Line>,
}

/// Whether a client is on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed<'a> {
    /// It is, by this entry.
    By(&'a Entry),
    /// It is not.
    No,
    /// An entry asks for its name, and DNS did not answer.
    Unknown,
}

impl List {
    /// A list that means everybody.
    #[must_use]
    pub const fn everybody() -> Self {
        Self { mode: Mode::AllExcept, lines: Vec::new() }
    }

    /// Whether the client's name has to be looked up before it can be judged.
    #[must_use]
    pub fn asks_for_names(&self, now: Timestamp) -> bool {
        self.entries(now).any(|entry| matches!(entry, Entry::Name(_)))
    }

    /// The entries that count at a moment.
    fn entries(&self, now: Timestamp) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter(move |line| line.counts(now)).map(|line| &line.entry)
    }

    /// Whether a name look-up can change what the list says of this client: it has names in it and
    /// no network decides already.
    #[must_use]
    pub fn needs_name_of(&self, client: IpAddr, now: Timestamp) -> bool {
        self.asks_for_names(now) && self.by_address(client, now).is_none()
    }

    fn by_address(&self, client: IpAddr, now: Timestamp) -> Option<&Entry> {
        let on = |entry: &&Entry| matches!(entry, Entry::Network(net) if net.contains(client));
        self.entries(now).find(on)
    }

    /// Whether the client is on the list. Addresses are compared first, so that DNS is never
    /// trusted with a question that an address answers.
    #[must_use]
    pub fn find(&self, facts: &Facts, now: Timestamp) -> Listed<'_> {
        if let Some(entry) = self.by_address(facts.client, now) {
            return Listed::By(entry);
        }
        let names = match &facts.name {
            NameFact::Names(names) => names,
            NameFact::Unknown if self.asks_for_names(now) => return Listed::Unknown,
            NameFact::Unknown | NameFact::None => return Listed::No,
        };
        let on = |entry: &&Entry| match entry {
            Entry::Name(pattern) => names.iter().any(|name| pattern.covers(name)),
            Entry::Network(_) => false,
        };
        self.entries(now).find(on).map_or(Listed::No, Listed::By)
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::address::Domain;

    use super::*;

    #[test]
    fn entries_are_read_and_written_back() {
        for (text, written) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("Mail.Example", "mail.example"),
            ("*.example", "*.example"),
            (".example", "*.example"),
        ] {
            assert_eq!(Entry::parse(text).unwrap().to_string(), written, "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_entry() {
        for bad in
            ["10.0.0.0/255.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "10.1", "1.2.3.4.5", "::g", "."]
        {
            assert!(matches!(Entry::parse(bad), Err(EntryError::Network(_))), "{bad}");
        }
        for bad in ["1\u{34f}", "\u{ff11}\u{ff12}\u{ff17}.0.0.1"] {
            let found = Entry::parse(bad);
            assert!(matches!(found, Err(EntryError::Network(_))), "{bad}: spelt as digits alone");
        }
        for bad in ["", "*", ".-", "*x.example", "a b", "-"] {
            assert!(matches!(Entry::parse(bad), Err(EntryError::Name(_))), "{bad}");
        }
    }

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    fn facts(client: &str, name: NameFact) -> Facts {
        Facts { name, ..Facts::of_address(client.parse().unwrap()) }
    }

    fn names(names: &[&str]) -> NameFact {
        NameFact::Names(names.iter().map(|name| Domain::parse(name).unwrap()).collect())
    }

    #[test]
    fn client_is_found_by_address_or_verified_name() {
        let entries = ["10.0.0.0/8", "mail.example", "*.corp.example"];
        let lines = entries.map(|text| Entry::parse(text).unwrap().into()).to_vec();
        let list = List { mode: Mode::Only, lines };
        let by = |text: &str| Some(text.to_owned());
        for (client, name, found) in [
            ("10.1.2.3", NameFact::Unknown, by("10.0.0.0/8")),
            ("::ffff:10.1.2.3", NameFact::None, by("10.0.0.0/8")),
            ("11.1.2.3", NameFact::None, None),
            ("11.1.2.3", names(&["mail.example"]), by("mail.example")),
            ("11.1.2.3", names(&["x.mail.example"]), None),
            ("11.1.2.3", names(&["other.example", "a.corp.example"]), by("*.corp.example")),
            ("11.1.2.3", names(&["corp.example"]), None),
            ("11.1.2.3", names(&["badcorp.example"]), None),
            ("2001:db8::1", names(&[]), None),
        ] {
            let facts = facts(client, name);
            let entry = match list.find(&facts, NOW) {
                Listed::By(entry) => Some(entry.to_string()),
                Listed::No => None,
                Listed::Unknown => by("unknown"),
            };
            assert_eq!(entry, found, "{facts:?}");
        }
        assert_eq!(list.find(&facts("11.1.2.3", NameFact::Unknown), NOW), Listed::Unknown);
        assert!(list.needs_name_of("11.1.2.3".parse().unwrap(), NOW));
        assert!(!list.needs_name_of("10.1.2.3".parse().unwrap(), NOW));
    }

    #[test]
    fn silent_dns_does_not_matter_to_a_list_without_names() {
        let line = Entry::parse("10.0.0.0/8").unwrap().into();
        let list = List { mode: Mode::Only, lines: vec![line] };
        assert_eq!(list.find(&facts("11.1.2.3", NameFact::Unknown), NOW), Listed::No);
    }

    #[test]
    fn a_line_that_has_ended_counts_as_if_it_were_not_there() {
        let line = |text: &str, until| Line { entry: Entry::parse(text).unwrap(), until };
        let lines = vec![line("10.0.0.0/8", Some(NOW)), line("*.corp.example", Some(NOW))];
        let list = List { mode: Mode::AllExcept, lines };
        let before = Timestamp::from_millis(NOW.as_millis() - 1);
        let client = facts("10.1.2.3", NameFact::Unknown);
        assert!(matches!(list.find(&client, before), Listed::By(_)));
        assert_eq!(list.find(&client, NOW), Listed::No);
        assert!(list.asks_for_names(before) && !list.asks_for_names(NOW));
    }
}
