//! How entries are found, and what they mean for mail, by the kind of directory.

use std::sync::Arc;

use mailroot_common::address::{Host, Mailbox};
use mailroot_common::config::HostPort;
use mailroot_common::config::ldap::{AttributeName, Ldap, LdapAttributes, LdapFilter, LdapSchema};

use super::message::Entry;

/// Classes of entries that are groups, also while nobody is in them.
const GROUPS: &[&str] = &[
    "group",
    "groupOfNames",
    "groupOfUniqueNames",
    "groupOfMembers",
    "groupOfUrls",
    "nisMailAlias",
    "distributionList",
    "mgroup",
];
/// The attribute that has the classes.
const CLASS: &str = "objectClass";

/// How a directory is asked and understood.
#[derive(Clone, Debug)]
pub struct Schema {
    filter: Arc<LdapFilter>,
    mail: Vec<Box<str>>,
    forward: Vec<Box<str>>,
    forward_dn: Vec<Box<str>>,
    keep_copy: Vec<Box<str>>,
    mail_host: Vec<Box<str>>,
    members: Vec<Box<str>>,
    member_dns: Vec<Box<str>>,
}

/// Somebody whom mail goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address, which may have an entry or not.
    Address(Mailbox),
    /// An entry, by its distinguished name.
    Entry(Box<str>),
}

/// What an entry means for mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Its distinguished name.
    pub dn: Box<str>,
    /// Its own address.
    pub mail: Option<Mailbox>,
    /// The hosts that have its mailbox; where none is named, or one of them is this server, it is here.
    pub hosts: Vec<Host>,
    /// What becomes of its mail.
    pub kind: Kind,
}

/// What becomes of the mail of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It gets it.
    Mailbox,
    /// Others get it.
    Forward {
        /// Who.
        to: Vec<Target>,
        /// Whether it gets it as well.
        keep: bool,
    },
    /// Its members get it.
    Group(Vec<Target>),
    /// Nobody knows: the entry lies in another directory, which is not asked.
    Elsewhere,
}

impl Meaning {
    /// An entry for which the directory names another one (a referral).
    #[must_use]
    pub fn elsewhere(dn: &str) -> Self {
        Self { dn: dn.into(), mail: None, hosts: Vec::new(), kind: Kind::Elsewhere }
    }

    /// Whom it leads to.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        match &self.kind {
            Kind::Mailbox | Kind::Elsewhere => &[],
            Kind::Forward { to, .. } | Kind::Group(to) => to,
        }
    }
}

/// What is built in for one kind of directory.
struct Known {
    filter: &'static str,
    mail: &'static [&'static str],
    forward: &'static [&'static str],
    forward_dn: &'static [&'static str],
    keep_copy: &'static [&'static str],
    mail_host: &'static [&'static str],
    members: &'static [&'static str],
    member_dns: &'static [&'static str],
}

const fn known(schema: LdapSchema) -> Known {
    match schema {
        LdapSchema::ActiveDirectory => Known {
            filter: "(|(proxyAddresses=smtp:{address})(mail={address}))",
            mail: &["mail"],
            forward: &["targetAddress"],
            forward_dn: &["altRecipient"],
            keep_copy: &["deliverAndRedirect"],
            mail_host: &[],
            members: &[],
            member_dns: &["member"],
        },
        LdapSchema::ExchangeLdap => Known {
            filter: "(|(mail={address})(rfc822Mailbox={address})(otherMailbox=smtp${address}))",
            mail: &["mail", "rfc822Mailbox"],
            forward: &["Target-Address"],
            forward_dn: &["Alt-Recipient"],
            keep_copy: &["Deliver-And-Redirect"],
            mail_host: &[],
            members: &[],
            member_dns: &["member"],
        },
        LdapSchema::SiteServer => Known {
            filter: "(|(mail={address})(mailAlternateAddress={address}))",
            mail: &["mail"],
            forward: &["mailForwardingAddress"],
            forward_dn: &[],
            keep_copy: &[],
            mail_host: &[],
            members: &[],
            member_dns: &["member"],
        },
        LdapSchema::Openldap => Known {
            filter: "(|(mail={address})(mailLocalAddress={address}))",
            mail: &["mail"],
            forward: &["mailRoutingAddress"],
            forward_dn: &[],
            keep_copy: &[],
            mail_host: &["mailHost"],
            members: &["rfc822MailMember"],
            member_dns: &["member", "uniqueMember"],
        },
        LdapSchema::Custom => Known {
            filter: "(mail={address})",
            mail: &["mail"],
            forward: &[],
            forward_dn: &[],
            keep_copy: &[],
            mail_host: &[],
            members: &[],
            member_dns: &[],
        },
    }
}

impl Schema {
    /// The schema of a section.
    #[must_use]
    pub fn of(keys: &Ldap) -> Self {
        let known = known(keys.schema);
        let built_in = || LdapFilter::parse(known.filter).expect("the built-in filters are tested");
        let names = |written: &[AttributeName], known: &[&str]| match written {
            [] => known.iter().map(|&name| name.into()).collect(),
            written => written.iter().map(|name| name.as_str().into()).collect(),
        };
        let LdapAttributes { mail, forward, forward_dn, keep_copy, mail_host, .. } =
            &keys.attributes;
        let LdapAttributes { members, member_dns, .. } = &keys.attributes;
        Self {
            filter: Arc::new(keys.filter.clone().unwrap_or_else(built_in)),
            mail: names(mail, known.mail),
            forward: names(forward, known.forward),
            forward_dn: names(forward_dn, known.forward_dn),
            keep_copy: names(keep_copy, known.keep_copy),
            mail_host: names(mail_host, known.mail_host),
            members: names(members, known.members),
            member_dns: names(member_dns, known.member_dns),
        }
    }

    /// The filter that finds the entry of an address.
    #[must_use]
    pub fn filter(&self, address: &Mailbox) -> LdapFilter {
        self.filter.fill(address)
    }

    /// The attributes that decide what an entry means.
    #[must_use]
    pub fn attributes(&self) -> Vec<&str> {
        let lists = [
            &self.mail,
            &self.forward,
            &self.forward_dn,
            &self.keep_copy,
            &self.mail_host,
            &self.members,
            &self.member_dns,
        ];
        let named = lists.into_iter().flatten().map(|name| &**name);
        std::iter::once(CLASS).chain(named).collect()
    }

    /// What stands where the host of a mailbox should, and is none.
    #[must_use]
    pub fn bad_host(&self, entry: &Entry) -> Option<String> {
        texts(entry, &self.mail_host).into_iter().find(|text| host(text).is_none())
    }

    /// What an entry means.
    #[must_use]
    pub fn meaning(&self, entry: &Entry) -> Meaning {
        let texts = |names: &[Box<str>]| texts(entry, names);
        let addresses = |names: &[Box<str>]| -> Vec<Target> {
            let read = texts(names).into_iter().filter_map(|text| address(&text));
            read.map(Target::Address).collect()
        };
        let entries = |names: &[Box<str>]| -> Vec<Target> {
            texts(names).into_iter().map(|dn| Target::Entry(dn.into())).collect()
        };
        let mut members = addresses(&self.members);
        members.extend(entries(&self.member_dns));
        let mut forward = addresses(&self.forward);
        forward.extend(entries(&self.forward_dn));
        let is_class = |value: &Vec<u8>| {
            GROUPS.iter().any(|class| value.eq_ignore_ascii_case(class.as_bytes()))
        };
        let is_group = !members.is_empty() || values(entry, CLASS).any(is_class);
        let is_true = |text: &String| text.eq_ignore_ascii_case("true") || text == "1";
        let kind = if !forward.is_empty() {
            Kind::Forward { to: forward, keep: texts(&self.keep_copy).iter().any(is_true) }
        } else if is_group {
            Kind::Group(members)
        } else {
            Kind::Mailbox
        };
        let mail = texts(&self.mail).iter().find_map(|text| address(text));
        let hosts = texts(&self.mail_host).iter().filter_map(|text| host(text)).collect();
        Meaning { dn: entry.dn.as_str().into(), mail, hosts, kind }
    }
}

/// The values of attributes that are text.
fn texts(entry: &Entry, names: &[Box<str>]) -> Vec<String> {
    let named = names.iter().flat_map(|name| values(entry, name));
    named.filter_map(|value| String::from_utf8(value.clone()).ok()).collect()
}

/// Reads a host, which is a name or an address. It never names a smart host of ours: a login goes
/// nowhere because a directory says so.
fn host(text: &str) -> Option<Host> {
    let text = text.trim();
    let bare = text.parse().map(Host::Address).ok();
    bare.or_else(|| HostPort::parse(text).filter(|it| it.port.is_none()).map(|it| it.host))
}

/// The values of an attribute, whatever options its name came with.
pub(super) fn values<'e>(entry: &'e Entry, name: &str) -> impl Iterator<Item = &'e Vec<u8>> {
    let is_it = move |found: &str| {
        let plain = found.split(';').next().unwrap_or_default();
        plain.eq_ignore_ascii_case(name)
    };
    let found = entry.attributes.iter().filter(move |(found, _)| is_it(found));
    found.flat_map(|(_, values)| values)
}

/// Reads an address, with or without a word in front that says of what kind it is (`SMTP:`, `smtp$`).
pub(super) fn address(text: &str) -> Option<Mailbox> {
    let text = text.trim();
    let kind = text
        .get(..5)
        .filter(|kind| kind.eq_ignore_ascii_case("smtp:") || kind.eq_ignore_ascii_case("smtp$"));
    Mailbox::parse(text.get(kind.map_or(0, str::len)..)?).ok()
}

/// Where an attribute of an entry goes on that the directory gives in parts, as Active Directory does
/// with more than 1500 members: the name to ask for next. It is `member;range=1500-*` after
/// `member;range=0-1499`.
#[must_use]
pub fn next_range(entry: &Entry) -> Option<String> {
    entry.attributes.iter().find_map(|(name, _)| {
        let (plain, options) = name.split_once(';')?;
        let range = options.strip_prefix("range=")?;
        let (_, last) = range.split_once('-')?;
        let last: u32 = last.parse().ok()?;
        Some(format!("{plain};range={}-*", last.checked_add(1)?))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use mailroot_common::config::Profile;
    use mailroot_common::config::section::Section as _;

    use super::*;

    fn schema(schema: LdapSchema) -> Schema {
        Schema::of(&Ldap { schema, ..Ldap::defaults(Profile::Modern) })
    }

    fn entry(attributes: &[(&str, &[&str])]) -> Entry {
        let values = |values: &[&str]| values.iter().map(|it| it.as_bytes().to_vec()).collect();
        let all = attributes.iter().map(|(name, all)| ((*name).to_owned(), values(all)));
        Entry { dn: "CN=x".to_owned(), attributes: all.collect() }
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    #[test]
    fn every_kind_of_directory_has_a_filter_and_attributes() {
        let ada = mailbox("ada@example.net");
        for (kind, filter, last) in [
            (
                LdapSchema::ActiveDirectory,
                "(|(proxyAddresses=smtp:ada@example.net)(mail=ada@example.net))",
                "member",
            ),
            (
                LdapSchema::ExchangeLdap,
                "(|(mail=ada@example.net)(rfc822Mailbox=ada@example.net)(otherMailbox=smtp$ada@example.net))",
                "member",
            ),
            (
                LdapSchema::SiteServer,
                "(|(mail=ada@example.net)(mailAlternateAddress=ada@example.net))",
                "member",
            ),
            (
                LdapSchema::Openldap,
                "(|(mail=ada@example.net)(mailLocalAddress=ada@example.net))",
                "uniqueMember",
            ),
            (LdapSchema::Custom, "(mail=ada@example.net)", "mail"),
        ] {
            let schema = schema(kind);
            assert_eq!(schema.filter(&ada).to_string(), filter);
            assert_eq!(schema.attributes().last(), Some(&last));
        }
    }

    #[test]
    fn an_entry_is_a_mailbox_a_forward_or_a_group() {
        let ad = schema(LdapSchema::ActiveDirectory);
        let plain =
            ad.meaning(&entry(&[("mail", &["Ada@example.net"]), ("objectclass", &["user"])]));
        assert_eq!(plain.mail, Some(mailbox("Ada@example.net")));
        assert_eq!(plain.kind, Kind::Mailbox);
        let forward = ad.meaning(&entry(&[
            ("targetAddress", &["SMTP:ada@other.example"]),
            ("altRecipient", &["CN=y"]),
            ("deliverAndRedirect", &["TRUE"]),
        ]));
        let to = vec![Target::Address(mailbox("ada@other.example")), Target::Entry("CN=y".into())];
        assert_eq!(forward.kind, Kind::Forward { to, keep: true });
        let empty = ad.meaning(&entry(&[("objectClass", &["top", "Group"])]));
        assert_eq!(empty.kind, Kind::Group(Vec::new()));
        let part = ad.meaning(&entry(&[("member", &[]), ("member;range=0-1", &["CN=a", "CN=b"])]));
        assert_eq!(part.targets().len(), 2);
        let other = schema(LdapSchema::ExchangeLdap);
        let other = other.meaning(&entry(&[("rfc822Mailbox", &["smtp$ada@example.net"])]));
        assert_eq!(other.mail, Some(mailbox("ada@example.net")));
    }

    #[test]
    fn an_entry_names_the_host_of_its_mailbox() {
        let ldap = schema(LdapSchema::Openldap);
        let found = |values: &[&str]| {
            let entry = entry(&[("mail", &["a@x.example"]), ("mailhost", values)]);
            let hosts = ldap.meaning(&entry).hosts.iter().map(ToString::to_string).collect();
            (ldap.bad_host(&entry), hosts)
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(found(&["MX2.x.example"]), (None, names(&["mx2.x.example"])));
        assert_eq!(found(&["[192.0.2.1]", "192.0.2.2"]).1, names(&["[192.0.2.1]", "[192.0.2.2]"]));
        for bad in ["smarthost:isp", "mx2.x.example:25", "mx 2", "", "1.2.3"] {
            let none: (Option<String>, Vec<String>) = (Some(bad.to_owned()), Vec::new());
            assert_eq!(found(&[bad]), none);
        }
        let ad = schema(LdapSchema::ActiveDirectory);
        assert!(ad.meaning(&entry(&[("mailHost", &["mx2.x.example"])])).hosts.is_empty());
    }

    #[test]
    fn attributes_that_are_written_take_the_place_of_the_built_in_ones() {
        let mut keys = Ldap { schema: LdapSchema::Custom, ..Ldap::defaults(Profile::Modern) };
        keys.attributes.mail = vec![AttributeName::parse("address").unwrap()];
        keys.attributes.members = vec![AttributeName::parse("who").unwrap()];
        let schema = Schema::of(&keys);
        assert_eq!(schema.attributes(), ["objectClass", "address", "who"]);
        let found = entry(&[("mail", &["a@x.example"]), ("who", &["b@x.example", "no address"])]);
        let found = schema.meaning(&found);
        assert_eq!(found.mail, None);
        assert_eq!(found.kind, Kind::Group(vec![Target::Address(mailbox("b@x.example"))]));
    }

    #[test]
    fn parts_of_an_attribute_lead_to_the_next() {
        let next = |name: &str| next_range(&entry(&[(name, &["x"])]));
        assert_eq!(next("member;range=0-1499").unwrap(), "member;range=1500-*");
        for last in ["member;range=1500-*", "member", "member;binary", "member;range=0-4294967295"]
        {
            assert_eq!(next(last), None, "{last}");
        }
    }
}
