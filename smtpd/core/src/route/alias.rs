//! Who gets mail for a local recipient: one recipient becomes those behind its alias.
//!
//! In: recipients as they were accepted. Out: the recipients of the envelope, before it is made durable,
//! so that each has a life of its own from its first moment and none can be lost between two records.
//! Whoever is behind an alias that cannot be followed keeps his mail under the name that was written.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use mailroot_common::address::{Domain, Host, Mailbox};
use mailroot_common::aliases::{Aliases, EXPANDED_MAX, Resolved};

use crate::queue::envelope::Recipient;

/// A recipient whose mail goes to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Whom the sender named.
    pub named: Mailbox,
    /// How many get the mail; none if the alias leads nowhere, and then the name itself gets it.
    pub count: usize,
}

/// More addresses are behind a name than one alias may stand for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {EXPANDED_MAX} addresses are behind the alias <{named}>")]
pub struct TooMany {
    /// Whom the sender named.
    pub named: Mailbox,
}

/// The domains whose names may have aliases.
#[derive(Clone, Copy)]
pub struct Locals<'a> {
    /// The one that names without a domain get.
    pub default: &'a Domain,
    /// Whether a domain is one of them.
    pub is_local: &'a (dyn Fn(&Domain) -> bool + Sync),
}

impl Locals<'_> {
    /// Whether an address could have an alias.
    #[must_use]
    pub fn cover(&self, mailbox: &Mailbox) -> bool {
        mailbox.domain().is_some_and(|domain| (self.is_local)(domain))
    }
}

/// The recipients with everybody behind their aliases, each address once, and which aliases were
/// followed. What the sender wants of reports holds for each, and each report names whom he named
/// (RFC 3461 sections 4.2 and 5.2.7). However often an alias is named, it is followed once.
///
/// # Errors
///
/// One of them leads to too many: nobody is left out, so nobody gets the message.
pub fn expand(
    recipients: Vec<Recipient>,
    locals: Locals<'_>,
    aliases: &Aliases,
) -> Result<(Vec<Recipient>, Vec<Followed>), TooMany> {
    let own = |mailbox: &Mailbox| locals.cover(mailbox);
    let (mut found, mut followed) = (Found::default(), Vec::new());
    // How many are behind an alias, by its name in the file.
    let mut known: HashMap<&str, usize> = HashMap::new();
    for recipient in recipients {
        let alias = match locals.cover(&recipient.mailbox) {
            true => aliases.find(recipient.mailbox.local()),
            false => None,
        };
        let Some(alias) = alias else {
            found.add(recipient);
            continue;
        };
        let named = recipient.mailbox.clone();
        if let Some(&count) = known.get(alias.name.as_str()) {
            followed.push(Followed { named, count });
            if count == 0 {
                found.add(recipient);
            }
            continue;
        }
        let Resolved { names, addresses, is_cut } =
            aliases.resolve(recipient.mailbox.local(), own).unwrap_or_default();
        if is_cut {
            return Err(TooMany { named });
        }
        let count = names.len() + addresses.len();
        known.insert(&alias.name, count);
        followed.push(Followed { named, count });
        if count == 0 {
            found.add(recipient);
            continue;
        }
        let orcpt = recipient.orcpt.clone().or_else(|| original(&recipient.mailbox));
        let host = || Host::Name(locals.default.clone());
        let names = names.into_iter().map(|name| Mailbox::new(name, host()));
        for mailbox in names.chain(addresses) {
            let (notify, orcpt) = (recipient.notify, orcpt.clone());
            let plain = Recipient::plain(mailbox);
            found.add(Recipient { notify, orcpt, forwarded: true, ..plain });
        }
    }
    Ok((found.recipients, followed))
}

/// Recipients: two ways to one address are one.
#[derive(Default)]
struct Found {
    recipients: Vec<Recipient>,
    known: HashSet<Mailbox>,
}

impl Found {
    fn add(&mut self, recipient: Recipient) {
        if self.known.insert(recipient.mailbox.clone()) {
            self.recipients.push(recipient);
        }
    }
}

/// `rfc822;` with the address in xtext (RFC 3461 section 4); nothing where it is beyond ASCII, which
/// needs another type.
fn original(mailbox: &Mailbox) -> Option<String> {
    if !mailbox.is_ascii() {
        return None;
    }
    let mut text = "rfc822;".to_owned();
    for octet in mailbox.to_string().bytes() {
        match octet {
            b'+' | b'=' | 0..=32 | 127.. => {
                let written = write!(text, "+{octet:02X}");
                debug_assert!(written.is_ok(), "writing into a String cannot fail");
            }
            _ => text.push(char::from(octet)),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::envelope::Notify;

    fn expanded(recipients: Vec<Recipient>, aliases: &Aliases) -> (Vec<Recipient>, Vec<Followed>) {
        let default = Domain::parse("ours.test").unwrap();
        let is_local = |domain: &Domain| ["ours.test", "also.test"].contains(&domain.as_str());
        expand(recipients, Locals { default: &default, is_local: &is_local }, aliases).unwrap()
    }

    fn recipient(address: &str) -> Recipient {
        Recipient::plain(Mailbox::parse(address).unwrap())
    }

    #[test]
    fn one_recipient_becomes_those_behind_its_alias() {
        let aliases = Aliases::parse(
            "root: ops@far.test, anna\nlist: a@far.test, b@also.test, root\nb: c@far.test\nx: y\ny: x\n",
        );
        for (named, expected) in [
            (vec!["root@ours.test"], "anna@ours.test ops@far.test"),
            (vec!["ROOT@also.test"], "anna@ours.test ops@far.test"),
            (vec!["root@far.test"], "root@far.test"),
            (vec!["list@ours.test"], "anna@ours.test a@far.test c@far.test ops@far.test"),
            (vec!["ops@far.test", "root@ours.test"], "ops@far.test anna@ours.test"),
            (vec!["x@ours.test"], "x@ours.test"),
            (vec!["x@ours.test", "X@also.test"], "x@ours.test X@also.test"),
            (vec!["other@ours.test"], "other@ours.test"),
        ] {
            let recipients = named.iter().map(|address| recipient(address)).collect();
            let (found, _) = expanded(recipients, &aliases);
            let found: Vec<String> = found.iter().map(|it| it.mailbox.to_string()).collect();
            assert_eq!(found.join(" "), expected, "{named:?}");
        }
    }

    #[test]
    fn an_alias_that_leads_to_too_many_lets_nobody_be_left_out() {
        let most: Vec<String> = (0..EXPANDED_MAX).map(|n| format!("u{n}@far.test")).collect();
        let full = Aliases::parse(&format!("all: {}, u7@far.test\n", most.join(", ")));
        let (found, _) = expanded(vec![recipient("all@ours.test")], &full);
        assert_eq!(found.len(), EXPANDED_MAX);
        let many: Vec<String> = (0..=EXPANDED_MAX).map(|n| format!("u{n}@far.test")).collect();
        let aliases = Aliases::parse(&format!("all: {}\n", many.join(", ")));
        let default = Domain::parse("ours.test").unwrap();
        let locals = Locals { default: &default, is_local: &|_| true };
        let told = expand(vec![recipient("all@ours.test")], locals, &aliases).unwrap_err();
        assert_eq!(
            told.to_string(),
            "more than 1000 addresses are behind the alias <all@ours.test>"
        );
    }

    #[test]
    fn however_it_is_spelled_an_alias_is_followed_once_and_marked() {
        let aliases = Aliases::parse("list: a@far.test, anna\n");
        let named = ["list@ours.test", "LIST@also.test", "anna@ours.test"].map(recipient);
        let (found, followed) = expanded(named.to_vec(), &aliases);
        assert_eq!(followed.iter().map(|it| it.count).collect::<Vec<_>>(), [2, 2]);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|it| it.forwarded));
    }

    #[test]
    fn wishes_for_reports_go_with_everybody_and_name_whom_the_sender_named() {
        let aliases = Aliases::parse("\"a+b\": one@far.test, two@far.test\n");
        let said = Recipient { notify: Some(Notify::NEVER), ..recipient("a+b@ours.test") };
        let (found, followed) = expanded(vec![said.clone()], &aliases);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|it| it.notify == Some(Notify::NEVER)));
        assert!(found.iter().all(|it| it.orcpt.as_deref() == Some("rfc822;a+2Bb@ours.test")));
        assert_eq!(followed, [Followed { named: said.mailbox.clone(), count: 2 }]);
        let said = Recipient { orcpt: Some("rfc822;first@far.test".to_owned()), ..said };
        let (found, _) = expanded(vec![said], &aliases);
        assert_eq!(found[0].orcpt.as_deref(), Some("rfc822;first@far.test"));
    }
}
