//! Following an address through the directory: who gets its mail in the end.
//!
//! Nobody is looked up twice for one address, so that loops end; members and depth are bounded. What
//! is asked next is told one by one; the answers come from wherever they are known. Who lies in another
//! directory keeps nobody else from getting the mail. Whose mailbox another host has gets the mail by that
//! host, and is followed no further here: what it does with a group or a name is its own business.

use std::collections::{HashSet, VecDeque};
use std::fmt;

use mailroot_common::address::{Domain, Host, Mailbox};

use super::schema::{Kind, Meaning, Target};

/// Bounds of groups and forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most members, those of groups within included (`ldap.groups.members`).
    pub members: u32,
    /// How deep they may lead into each other (`ldap.groups.depth`).
    pub depth: u32,
}

/// Why mail to an address has no recipient, though the directory knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// More members than may be.
    #[error("its group has more than {0} members (ldap.groups.members)")]
    TooMany(u32),
    /// Too many groups or forwards within each other.
    #[error("its groups or forwards are more than {0} deep (ldap.groups.depth)")]
    TooDeep(u32),
    /// It leads nowhere but to itself.
    #[error("its groups or forwards lead in a circle and to nobody")]
    Circle,
    /// A group without members that have an address.
    #[error("its group has no members with an address")]
    Nobody,
}

/// What is ours.
#[derive(Clone, Copy)]
pub struct Ours<'a> {
    /// Whether the directory knows the addresses of a domain.
    pub is_local: &'a (dyn Fn(&Domain) -> bool + Sync),
    /// Whether a host is this server.
    pub is_here: &'a (dyn Fn(&Host) -> bool + Sync),
}

impl fmt::Debug for Ours<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ours").finish_non_exhaustive()
    }
}

/// Somebody who gets the mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The address.
    pub mailbox: Mailbox,
    /// The host that has the mailbox, if the directory names another one than this server.
    pub via: Option<Host>,
    /// Whether the directory was asked about it; one in a domain of ours that it does not know was,
    /// in vain, and is asked about once more when its turn comes.
    pub is_known: bool,
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mailbox.fmt(f)?;
        self.via.as_ref().map_or(Ok(()), |host| write!(f, " by {host}"))
    }
}

/// Who gets the mail of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The directory does not know it.
    Unknown,
    /// The address itself.
    Here,
    /// Others, or the address under its other name.
    To {
        /// Whom; at least one, each once.
        recipients: Vec<Recipient>,
        /// The entry that says so.
        dn: Box<str>,
        /// Whether it is a group.
        is_group: bool,
        /// Entries that would get it as well and lie in another directory.
        missing: Vec<Box<str>>,
    },
    /// Nobody can.
    Flawed(Flaw),
}

/// An address on its way through the directory.
#[derive(Debug)]
pub struct Expansion {
    address: Mailbox,
    bounds: Bounds,
    waiting: VecDeque<(Target, u32)>,
    asked: Option<(Target, u32)>,
    seen: HashSet<Box<str>>,
    count: u32,
    found: Vec<Recipient>,
    /// The addresses of those.
    names: HashSet<Box<str>>,
    missing: Vec<Box<str>>,
    first: Option<(Box<str>, bool)>,
    met_again: bool,
    flaw: Option<Flaw>,
}

/// How addresses are compared: the directory does not tell large letters from small ones.
#[must_use]
pub fn key(address: &Mailbox) -> Box<str> {
    address.to_string().to_lowercase().into()
}

impl Expansion {
    /// Begins with an address of a domain of ours.
    #[must_use]
    pub fn new(address: &Mailbox, bounds: Bounds) -> Self {
        Self {
            address: address.clone(),
            bounds,
            waiting: VecDeque::from([(Target::Address(address.clone()), 0)]),
            asked: None,
            seen: HashSet::from([key(address)]),
            count: 0,
            found: Vec::new(),
            names: HashSet::new(),
            missing: Vec::new(),
            first: None,
            met_again: false,
            flaw: None,
        }
    }

    /// Whom to look up next; nothing at the end. [`Expansion::answer`] takes what was found; as long as
    /// it was not told, the same is asked again.
    pub fn ask(&mut self) -> Option<Target> {
        if self.flaw.is_some() {
            return None;
        }
        self.asked = self.asked.take().or_else(|| self.waiting.pop_front());
        self.asked.as_ref().map(|(target, _)| target.clone())
    }

    /// What the directory says of whom was asked about.
    pub fn answer(&mut self, found: Option<&Meaning>, ours: Ours<'_>) {
        let Some((target, depth)) = self.asked.take() else { return };
        let Some(found) = found else {
            if let (Target::Address(mailbox), 1..) = (target, depth) {
                self.add(Recipient { mailbox, via: None, is_known: false });
            }
            return;
        };
        if found.kind == Kind::Elsewhere {
            self.missing.push(found.dn.clone());
            return;
        }
        let is_here = found.hosts.iter().any(|host| (ours.is_here)(host));
        let via = found.hosts.first().filter(|_| !is_here);
        let is_group = matches!(found.kind, Kind::Group(_)) && via.is_none();
        self.first.get_or_insert_with(|| (found.dn.clone(), is_group));
        // What was found by an address is found again by its name, and the other way round.
        let is_again = !self.seen.insert(dn_key(&found.dn));
        if is_again && matches!(target, Target::Address(_)) {
            self.met_again = true;
            return;
        }
        let own = match (&found.mail, target) {
            (Some(mail), _) => Some(mail.clone()),
            (None, Target::Address(address)) => Some(address),
            (None, Target::Entry(_)) => None,
        };
        let (targets, keeps) = match &found.kind {
            Kind::Mailbox | Kind::Elsewhere => (&[][..], true),
            Kind::Forward { to, keep } => (&to[..], *keep),
            Kind::Group(_) if via.is_some() => (&[][..], true),
            Kind::Group(members) => (&members[..], false),
        };
        if let (true, Some(mailbox)) = (keeps, own) {
            self.add(Recipient { mailbox, via: via.cloned(), is_known: true });
        }
        for target in targets {
            self.follow(target, depth + 1, ours, via);
        }
    }

    fn add(&mut self, recipient: Recipient) {
        if self.names.insert(key(&recipient.mailbox)) {
            self.found.push(recipient);
        }
    }

    fn follow(&mut self, target: &Target, depth: u32, ours: Ours<'_>, via: Option<&Host>) {
        let name = match target {
            Target::Address(address) => key(address),
            Target::Entry(dn) => dn_key(dn),
        };
        // Another host that has the mailbox gets it by the address under which it is known here, too.
        let is_by_host = via.is_some() && matches!(target, Target::Address(_));
        if !self.seen.insert(name) && !is_by_host {
            self.met_again = true;
            return;
        }
        self.count += 1;
        if self.count > self.bounds.members {
            self.flaw = Some(Flaw::TooMany(self.bounds.members));
        } else if depth > self.bounds.depth {
            self.flaw = Some(Flaw::TooDeep(self.bounds.depth));
        }
        match target {
            Target::Address(address)
                if via.is_some() || !address.domain().is_some_and(ours.is_local) =>
            {
                let mailbox = address.clone();
                self.add(Recipient { mailbox, via: via.cloned(), is_known: true });
            }
            _ if self.flaw.is_none() => self.waiting.push_back((target.clone(), depth)),
            _ => {}
        }
    }

    /// An entry that the mail depends on and that lies in another directory, if nobody else gets it.
    #[must_use]
    pub fn only_elsewhere(&self) -> Option<&str> {
        self.missing
            .first()
            .filter(|_| self.found.is_empty() && self.flaw.is_none())
            .map(|dn| &**dn)
    }

    /// What came of it.
    #[must_use]
    pub fn end(self) -> Resolution {
        let Some((dn, is_group)) = self.first else { return Resolution::Unknown };
        if let Some(flaw) = self.flaw {
            return Resolution::Flawed(flaw);
        }
        match &self.found[..] {
            [] if self.met_again => Resolution::Flawed(Flaw::Circle),
            [] => Resolution::Flawed(Flaw::Nobody),
            [one]
                if one.is_known
                    && one.via.is_none()
                    && key(&one.mailbox) == key(&self.address)
                    && self.missing.is_empty() =>
            {
                Resolution::Here
            }
            _ => {
                let (recipients, missing) = (self.found, self.missing);
                Resolution::To { recipients, dn, is_group, missing }
            }
        }
    }
}

/// How distinguished names are compared: good enough to see one again that is written as before. Two
/// spellings of one name cost a further look-up, and no more.
fn dn_key(dn: &str) -> Box<str> {
    // No address has a NUL in it, so that no name is taken for one.
    format!("\0{}", dn.to_lowercase()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::collections::HashMap;

    use super::*;

    const BOUNDS: Bounds = Bounds { members: 10, depth: 3 };

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    /// A directory: names of entries, each with its address and where it leads, as `group`, `forward`
    /// or `keep` and targets; one with an `@` is an address.
    struct Book(HashMap<&'static str, Meaning>);

    impl Book {
        fn new(entries: &[(&'static str, &str, &str)]) -> Self {
            let target = |word: &str| match word.contains('@') {
                true => Target::Address(mailbox(word)),
                false => Target::Entry(word.into()),
            };
            let meaning = |(dn, mail, leads): &(&'static str, &str, &str)| {
                let (kind, rest) = leads.split_once(' ').unwrap_or((leads, ""));
                let to: Vec<Target> = rest.split_whitespace().map(target).collect();
                let kind = match kind {
                    "group" => Kind::Group(to),
                    "forward" => Kind::Forward { to, keep: false },
                    "keep" => Kind::Forward { to, keep: true },
                    "elsewhere" => Kind::Elsewhere,
                    _ => Kind::Mailbox,
                };
                let (mail, host) = mail.split_once(" at ").unwrap_or((mail, ""));
                let mail = (!mail.is_empty()).then(|| mailbox(mail));
                let hosts = host.split_whitespace().map(|it| Host::parse(it).unwrap()).collect();
                (*dn, Meaning { dn: (*dn).into(), mail, hosts, kind })
            };
            Self(entries.iter().map(meaning).collect())
        }

        fn find(&self, target: &Target) -> Option<&Meaning> {
            match target {
                Target::Entry(dn) => self.0.get(&**dn),
                Target::Address(address) => {
                    // Every entry also has the address NAME@alias.example.
                    let alias = |dn: &str| mailbox(&format!("{dn}@alias.example"));
                    self.0.values().find(|it| {
                        it.mail.as_ref().is_some_and(|mail| key(mail) == key(address))
                            || key(&alias(&it.dn)) == key(address)
                    })
                }
            }
        }

        fn resolve(&self, address: &str) -> (Resolution, usize) {
            let mut expansion = Expansion::new(&mailbox(address), BOUNDS);
            let mut asked = 0;
            let is_local = |domain: &Domain| domain.as_str() != "far.example";
            let is_here = |host: &Host| host.to_string() == "mx.here.example";
            let ours = Ours { is_local: &is_local, is_here: &is_here };
            while let Some(target) = expansion.ask() {
                asked += 1;
                expansion.answer(self.find(&target), ours);
            }
            (expansion.end(), asked)
        }

        fn goes_to(&self, address: &str) -> String {
            match self.resolve(address).0 {
                Resolution::To { recipients, is_group, missing, .. } => {
                    let word =
                        |it: &Recipient| format!("{it}{}", if it.is_known { "" } else { "?" });
                    let mut all: Vec<String> = recipients.iter().map(word).collect();
                    all.extend(missing.iter().map(|dn| format!("!{dn}")));
                    format!("{}{}", if is_group { "group " } else { "" }, all.join(" "))
                }
                Resolution::Here => "here".to_owned(),
                Resolution::Unknown => "unknown".to_owned(),
                Resolution::Flawed(flaw) => format!("{flaw:?}"),
            }
        }
    }

    #[test]
    fn addresses_lead_to_mailboxes_forwards_and_members() {
        let book = Book::new(&[
            ("ada", "Ada@here.example", ""),
            ("bob", "bob@here.example", "forward bob@far.example"),
            ("eve", "eve@here.example", "keep bob ada@here.example"),
            ("all", "all@here.example", "group ada bob nobody@here.example gone"),
            ("nameless", "", ""),
            ("more", "more@here.example", "group all all nameless far@far.example"),
        ]);
        for (address, to) in [
            ("ada@here.example", "here"),
            ("ADA@here.example", "here"),
            ("ada@alias.example", "Ada@here.example"),
            ("nameless@alias.example", "here"),
            ("nobody@here.example", "unknown"),
            ("bob@here.example", "bob@far.example"),
            ("eve@here.example", "eve@here.example bob@far.example Ada@here.example"),
            ("all@here.example", "group nobody@here.example? Ada@here.example bob@far.example"),
            (
                "more@here.example",
                "group far@far.example nobody@here.example? Ada@here.example bob@far.example",
            ),
        ] {
            let mut found: Vec<String> =
                book.goes_to(address).split(' ').map(str::to_owned).collect();
            let mut wanted: Vec<&str> = to.split(' ').collect();
            found.sort();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{address}");
        }
    }

    #[test]
    fn mail_goes_by_the_host_of_the_mailbox_unless_that_is_this_one() {
        let book = Book::new(&[
            ("ada", "ada@here.example at mx2.here.example", ""),
            ("own", "own@here.example at mx2.here.example mx.here.example", ""),
            (
                "bob",
                "bob@here.example at mx2.here.example mx3.here.example",
                "keep ada@here.example",
            ),
            ("list", "list@here.example at mx2.here.example", "group ada own"),
            ("all", "all@here.example", "group ada own bob list"),
            ("far", "far@here.example at mx2.here.example", "forward x@far.example"),
            ("eve", "eve@here.example at mx2.here.example", "forward eve@here.example"),
        ]);
        let by = "by mx2.here.example";
        for (address, to) in [
            ("ada@alias.example", format!("ada@here.example {by}")),
            ("ada@here.example", format!("ada@here.example {by}")),
            ("own@here.example", "here".to_owned()),
            ("bob@here.example", format!("bob@here.example {by} ada@here.example {by}")),
            ("list@here.example", format!("list@here.example {by}")),
            ("far@here.example", format!("x@far.example {by}")),
            ("eve@here.example", format!("eve@here.example {by}")),
            ("eve@alias.example", format!("eve@here.example {by}")),
            (
                "all@here.example",
                format!(
                    "group ada@here.example {by} own@here.example bob@here.example {by} \
                     list@here.example {by}"
                ),
            ),
        ] {
            assert_eq!(book.goes_to(address), to, "{address}");
        }
    }

    #[test]
    fn circles_end() {
        let book = Book::new(&[
            ("a", "a@here.example", "forward b@here.example"),
            ("b", "b@here.example", "forward a@alias.example"),
            ("g", "g@here.example", "group h g"),
            ("h", "h@here.example", "group g x"),
            ("x", "x@here.example", ""),
            ("self", "self@here.example", "forward self@here.example"),
            ("void", "void@here.example", "group"),
        ]);
        for (address, to) in [
            ("a@here.example", "Circle"),
            ("g@here.example", "group x@here.example"),
            ("self@here.example", "Circle"),
            ("void@here.example", "Nobody"),
        ] {
            assert_eq!(book.goes_to(address), to, "{address}");
            assert!(book.resolve(address).1 <= 4);
        }
    }

    #[test]
    fn who_lies_in_another_directory_keeps_nobody_else_from_the_mail() {
        let book = Book::new(&[
            ("ada", "ada@here.example", ""),
            ("far", "", "elsewhere"),
            ("off", "", "elsewhere"),
            ("all", "all@here.example", "group far ada off"),
            ("none", "none@here.example", "group far off"),
            ("bob", "bob@here.example", "keep far"),
        ]);
        assert_eq!(book.goes_to("all@here.example"), "group ada@here.example !far !off");
        assert_eq!(book.goes_to("bob@here.example"), "bob@here.example !far");
        let mut expansion = Expansion::new(&mailbox("none@here.example"), BOUNDS);
        while let Some(target) = expansion.ask() {
            // An answer that did not come is asked for again.
            assert_eq!(expansion.ask(), Some(target.clone()));
            let ours = Ours { is_local: &|_| true, is_here: &|_| true };
            expansion.answer(book.find(&target), ours);
        }
        assert_eq!(expansion.only_elsewhere(), Some("far"));
    }

    #[test]
    fn groups_are_bounded() {
        let many: Vec<String> = (0..11).map(|n| format!("m{n}@far.example")).collect();
        let (most, over) =
            (format!("group {}", many[..10].join(" ")), format!("group {}", many.join(" ")));
        let book = Book::new(&[
            ("most", "most@here.example", &most),
            ("over", "over@here.example", &over),
            ("d0", "d0@here.example", "forward d1"),
            ("d1", "", "forward d2"),
            ("d2", "", "forward d3"),
            ("d3", "", "forward d4@far.example"),
            ("e1", "e1@here.example", "forward d2"),
        ]);
        assert_eq!(book.goes_to("over@here.example"), "TooMany(10)");
        assert!(book.goes_to("most@here.example").starts_with("group m0@far.example "));
        assert_eq!(book.goes_to("d0@here.example"), "TooDeep(3)");
        assert_eq!(book.goes_to("e1@here.example"), "d4@far.example");
    }
}
