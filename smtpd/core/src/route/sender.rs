//! Under which address a sender is known to other hosts.
//!
//! In: an address as it stands in an envelope or in `From`. Out: the address in its place, and by which
//! rule. Each address is looked at once, as it was written: what came out goes through no further rule,
//! so that no two rules can chase each other.

use mailroot_common::address::{Domain, Host, Mailbox, ReversePath};
use mailroot_common::config::sender_rewrite::SenderRule;

use super::table::Table;
use crate::message::rewrite::Replacement;

/// The rules of a virtual server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SenderRules {
    /// The first that fits counts.
    pub rules: Vec<SenderRule>,
    /// Takes the place of our own domains where no rule fits.
    pub masquerade: Option<Domain>,
    /// The masquerade counts for `From` as well.
    pub masquerade_header: bool,
}

/// What decides about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderRuling {
    /// The rule with this number.
    Rule(usize),
    /// The masquerade.
    Masquerade,
}

impl SenderRules {
    /// The envelope's sender as other hosts see it; nobody stays nobody.
    #[must_use]
    pub fn envelope(&self, sender: &ReversePath, table: &Table) -> ReversePath {
        let found = sender.mailbox().and_then(|mailbox| self.ruling(mailbox, table));
        found.map_or_else(|| sender.clone(), |(mailbox, _)| ReversePath::Mailbox(mailbox))
    }

    /// Whether `From` of any message could change.
    #[must_use]
    pub fn touches_header(&self) -> bool {
        !self.rules.is_empty() || (self.masquerade_header && self.masquerade.is_some())
    }

    /// What stands in the place of an address in `From`. Answers to a rewritten one go to the old; those
    /// to a masqueraded one to the masquerade, which is what it is for.
    #[must_use]
    pub fn header(&self, author: &Mailbox, table: &Table) -> Option<Replacement> {
        let (mailbox, ruling) = self.ruling(author, table)?;
        match ruling {
            SenderRuling::Rule(_) => Some(Replacement { mailbox, keeps_answers: true }),
            SenderRuling::Masquerade if self.masquerade_header => {
                Some(Replacement { mailbox, keeps_answers: false })
            }
            SenderRuling::Masquerade => None,
        }
    }

    /// The address in the place of this one, and what decides; nothing if it stays.
    #[must_use]
    pub fn ruling(&self, mailbox: &Mailbox, table: &Table) -> Option<(Mailbox, SenderRuling)> {
        let text = mailbox.to_string();
        let rule = self.rules.iter().position(|rule| rule.from.matches(&text));
        if let Some(number) = rule {
            return Some((self.rules[number].to.clone(), SenderRuling::Rule(number)));
        }
        let mask = self.masquerade.as_ref()?;
        let ours = mailbox.domain().is_some_and(|domain| table.is_local(domain) && domain != mask);
        let masked = || Mailbox::new(mailbox.local().clone(), Host::Name(mask.clone()));
        ours.then(|| (masked(), SenderRuling::Masquerade))
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::control::selector::AddressPattern;

    use super::*;
    use crate::route::table::{DirectFirst, Settings};

    fn table() -> Table {
        Table::new(Settings {
            default_domain: Domain::parse("ours.test").unwrap(),
            alias_domains: Vec::new(),
            sender_routes: Vec::new(),
            remote_domains: Vec::new(),
            smart_hosts: Vec::new(),
            direct_first: DirectFirst::Never,
        })
        .unwrap()
    }

    fn rules(header: bool) -> SenderRules {
        let rule = |from: &str, to: &str| SenderRule {
            from: AddressPattern::parse(from).unwrap(),
            to: Mailbox::parse(to).unwrap(),
        };
        SenderRules {
            rules: vec![
                rule("*@scan.test", "scanner@ours.test"),
                rule("/^scanner@/", "loop@scan.test"),
            ],
            masquerade: Some(Domain::parse("public.test").unwrap()),
            masquerade_header: header,
        }
    }

    #[test]
    fn the_first_rule_counts_once_and_the_masquerade_where_none_fits() {
        for (sender, expected) in [
            ("A@Scan.test", "scanner@ours.test"),
            ("scanner@ours.test", "loop@scan.test"),
            ("app@ours.test", "app@public.test"),
            ("app@other.test", "app@other.test"),
            ("app@[192.0.2.1]", "app@[192.0.2.1]"),
            ("<>", ""),
        ] {
            let sender = ReversePath::parse(sender).unwrap();
            let outside = rules(false).envelope(&sender, &table());
            assert_eq!(outside.to_string(), expected, "{sender}");
        }
    }

    #[test]
    fn the_header_is_masqueraded_only_where_that_is_wanted() {
        let author = |text: &str, header| {
            let found = rules(header).header(&Mailbox::parse(text).unwrap(), &table());
            found.map(|it| (it.mailbox.to_string(), it.keeps_answers))
        };
        assert_eq!(author("app@ours.test", false), None);
        assert_eq!(author("app@ours.test", true), Some(("app@public.test".to_owned(), false)));
        assert_eq!(author("a@scan.test", false), Some(("scanner@ours.test".to_owned(), true)));
        assert!(!SenderRules::default().touches_header());
        let masked = SenderRules { rules: Vec::new(), ..rules(false) };
        assert!(!masked.touches_header());
    }
}
