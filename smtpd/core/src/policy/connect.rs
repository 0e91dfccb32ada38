//! Who may connect at all: the connection list.

use mailroot_common::units::Timestamp;

use super::access::{Entry, List, Listed, Mode};
use super::{Denial, Facts, Reason, Verdict};

/// Proof that the connection list let a client in.
#[derive(Debug, PartialEq, Eq)]
pub struct Welcome(Option<Entry>);

impl Welcome {
    /// The entry of the list that let it in, if one did.
    #[must_use]
    pub fn entry(&self) -> Option<&Entry> {
        self.0.as_ref()
    }
}

/// The connection list of one virtual server; by default everybody may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectPolicy {
    /// Who may connect.
    pub list: List,
}

impl Default for ConnectPolicy {
    fn default() -> Self {
        Self { list: List::everybody() }
    }
}

impl ConnectPolicy {
    /// Judges a client before it is greeted. Ask again when deny lists change: a session that is
    /// refused now may have begun when it was not.
    pub fn judge(&self, facts: &Facts, now: Timestamp) -> Verdict<Welcome> {
        let denial = |reason, entry| Denial { reason, entry };
        match (self.list.mode, self.list.find(facts, now)) {
            (Mode::Only, Listed::By(entry)) => Verdict::Admit(Welcome(Some(entry.clone()))),
            (Mode::AllExcept, Listed::No) => Verdict::Admit(Welcome(None)),
            (Mode::Only, Listed::No) => Verdict::Refuse(denial(Reason::AccessDenied, None)),
            (Mode::AllExcept, Listed::By(entry)) => {
                Verdict::Refuse(denial(Reason::AccessDenied, Some(entry.clone())))
            }
            (_, Listed::Unknown) => Verdict::Defer(denial(Reason::NameUnknown, None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::address::Domain;

    use super::*;
    use crate::policy::NameFact;

    const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

    #[test]
    fn both_modes_follow_the_table() {
        let (only, except) = (Mode::Only, Mode::AllExcept);
        let named = || NameFact::Names(vec![Domain::parse("a.corp.example").unwrap()]);
        for (mode, entries, client, name, answer) in [
            (only, vec![], "192.0.2.1", NameFact::None, "refuse"),
            (only, vec!["192.0.2.1"], "192.0.2.1", NameFact::None, "admit"),
            (only, vec!["192.0.2.1"], "::ffff:192.0.2.1", NameFact::None, "admit"),
            (only, vec!["192.0.2.1"], "192.0.2.2", NameFact::None, "refuse"),
            (only, vec!["0.0.0.0/0"], "::1", NameFact::None, "refuse"),
            (only, vec!["*.corp.example"], "192.0.2.1", named(), "admit"),
            (only, vec!["*.corp.example"], "192.0.2.1", NameFact::Unknown, "defer"),
            (only, vec!["*.corp.example", "192.0.2.1"], "192.0.2.1", NameFact::Unknown, "admit"),
            (except, vec![], "192.0.2.1", NameFact::Unknown, "admit"),
            (except, vec!["192.0.2.0/24"], "192.0.2.1", NameFact::None, "refuse"),
            (except, vec!["192.0.2.0/24"], "::ffff:192.0.2.1", NameFact::None, "refuse"),
            (except, vec!["192.0.2.0/24"], "192.0.3.1", NameFact::None, "admit"),
            (except, vec![".corp.example"], "192.0.2.1", named(), "refuse"),
            (except, vec![".corp.example"], "192.0.2.1", NameFact::None, "admit"),
            (except, vec![".corp.example"], "192.0.2.1", NameFact::Unknown, "defer"),
        ] {
            let lines = entries.iter().map(|e| Entry::parse(e).unwrap().into()).collect();
            let policy = ConnectPolicy { list: List { mode, lines } };
            let facts = Facts { name, ..Facts::of_address(client.parse().unwrap()) };
            let said = match policy.judge(&facts, NOW) {
                Verdict::Admit(_) => "admit",
                Verdict::Defer(Denial { reason: Reason::NameUnknown, .. }) => "defer",
                Verdict::Refuse(Denial { reason: Reason::AccessDenied, .. }) => "refuse",
                other => panic!("{other:?}"),
            };
            assert_eq!(said, answer, "{policy:?} {facts:?}");
        }
    }

    #[test]
    fn refusal_names_the_entry_that_decided() {
        let entry = Entry::parse("192.0.2.0/24").unwrap();
        let list = List { mode: Mode::AllExcept, lines: vec![entry.clone().into()] };
        let facts = Facts::of_address("192.0.2.9".parse().unwrap());
        let denial = Denial { reason: Reason::AccessDenied, entry: Some(entry) };
        assert_eq!(ConnectPolicy { list }.judge(&facts, NOW), Verdict::Refuse(denial));
    }
}
