//! How the entry of a user is found who wants to log in, and what it says about him.

use mailroot_common::address::Mailbox;
use mailroot_common::config::ldap::logins::LoginSenders;
use mailroot_common::config::ldap::{
    AttributeName, Ldap, LdapFilter, LdapSchema, filter::LoginFilter,
};
use mailroot_common::control::user::is_user_name;

use super::message::{Ended, Entry, code};
use super::schema::{address, values};

/// The most addresses of a user that are kept.
const ADDRESSES_MAX: usize = 1000;

/// How users are found and understood.
#[derive(Clone, Debug)]
pub struct Logins {
    filter: LoginFilter,
    name: Box<str>,
    addresses: Vec<Box<str>>,
    senders: LoginSenders,
}

/// What is built in for one kind of directory: the filter, the attribute that holds the name of a user, and
/// those that hold addresses. By an address, which many a user may write himself, nobody is found.
const fn known(schema: LdapSchema) -> (&'static str, &'static str, &'static [&'static str]) {
    match schema {
        LdapSchema::ActiveDirectory => (
            "(&(objectClass=user)(|(sAMAccountName={user})(userPrincipalName={user})))",
            "sAMAccountName",
            &["mail", "proxyAddresses"],
        ),
        LdapSchema::ExchangeLdap => {
            ("(uid={user})", "uid", &["mail", "rfc822Mailbox", "otherMailbox"])
        }
        LdapSchema::SiteServer => ("(cn={user})", "cn", &["mail", "mailAlternateAddress"]),
        LdapSchema::Openldap => ("(uid={user})", "uid", &["mail", "mailLocalAddress"]),
        LdapSchema::Custom => ("(uid={user})", "uid", &["mail"]),
    }
}

/// What a bind as a user says of his password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is right.
    Right,
    /// It is wrong, or he may not log in.
    Wrong,
    /// Nothing: the directory cannot or will not judge it now.
    Unknown,
}

/// What the end of a bind says. Only answers about this name and this password are a "no": everything
/// else may be the directory's own trouble.
#[must_use]
pub const fn verdict(ended: &Ended) -> Verdict {
    match ended.code {
        code::SUCCESS => Verdict::Right,
        code::CONSTRAINT
        | code::NO_SUCH_OBJECT
        | code::INAPPROPRIATE
        | code::INVALID_CREDENTIALS
        | code::UNWILLING => Verdict::Wrong,
        _ => Verdict::Unknown,
    }
}

impl Logins {
    /// Those of a section.
    #[must_use]
    pub fn of(keys: &Ldap) -> Self {
        let (filter, name, addresses) = known(keys.schema);
        let built_in = || LoginFilter::parse(filter).expect("the built-in filters are tested");
        Self {
            filter: keys.logins.filter.clone().unwrap_or_else(built_in),
            name: keys.logins.name.as_ref().map_or(name, AttributeName::as_str).into(),
            addresses: match &*keys.logins.addresses {
                [] => addresses.iter().map(|&name| name.into()).collect(),
                written => written.iter().map(|name| name.as_str().into()).collect(),
            },
            senders: keys.logins.send_as,
        }
    }

    /// The filter that finds the entry of a user.
    #[must_use]
    pub fn filter(&self, name: &str) -> LdapFilter {
        self.filter.fill(name)
    }

    /// The attributes that are wanted of it.
    #[must_use]
    pub fn attributes(&self) -> Vec<&str> {
        std::iter::once(&self.name).chain(&self.addresses).map(|name| &**name).collect()
    }

    /// The attribute that has the name of a user.
    #[must_use]
    pub fn name_attribute(&self) -> &str {
        &self.name
    }

    /// By which name a user is known, however he was found; nothing if his entry has none that could be.
    #[must_use]
    pub fn name(&self, entry: &Entry) -> Option<String> {
        let texts = values(entry, &self.name).filter_map(|value| std::str::from_utf8(value).ok());
        texts.into_iter().find(|text| is_user_name(text)).map(str::to_lowercase)
    }

    /// As whom a user may send; as anybody if there is no list.
    #[must_use]
    pub fn senders(&self, entry: &Entry) -> Option<Vec<Mailbox>> {
        let named = self.addresses.iter().flat_map(|name| values(entry, name));
        let texts = named.filter_map(|value| std::str::from_utf8(value).ok());
        let own = || texts.filter_map(address).take(ADDRESSES_MAX).collect();
        (self.senders == LoginSenders::Own).then(own)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use mailroot_common::config::Profile;
    use mailroot_common::config::section::Section as _;

    use super::*;

    fn logins(change: impl FnOnce(&mut Ldap)) -> Logins {
        let mut keys = Ldap::defaults(Profile::Modern);
        change(&mut keys);
        Logins::of(&keys)
    }

    #[test]
    fn every_kind_of_directory_finds_users_by_name_and_by_nothing_else() {
        for schema in LdapSchema::ALL {
            let logins = logins(|keys| keys.schema = *schema);
            let filter = logins.filter("a*)(uid=*").to_string();
            assert!(filter.contains("=a\\2a\\29\\28uid=\\2a)"), "{filter}");
            assert!(logins.attributes().contains(&"mail"));
            assert!(logins.attributes().contains(&logins.name_attribute()));
            assert!(!filter.contains("mail"), "who may write his address takes no name by it");
        }
        let written = LoginFilter::parse("(&(cn={user})(memberOf=CN=scan))").unwrap();
        let logins = logins(|keys| keys.logins.filter = Some(written));
        assert_eq!(logins.filter("ada").to_string(), "(&(cn=ada)(memberOf=CN=scan))");
    }

    #[test]
    fn a_user_sends_with_the_addresses_of_his_entry() {
        let attributes = [
            ("mail", vec!["Ada@example.net"]),
            (
                "ProxyAddresses",
                vec!["SMTP:ada@example.net", "smtp:a@example.net", "x500:/o=x/cn=a"],
            ),
            ("proxyAddresses;x-old", vec!["sip:sip@example.net", "smtp:none"]),
            ("targetAddress", vec!["SMTP:ada@elsewhere.example"]),
        ];
        let octets = |values: Vec<&str>| values.iter().map(|it| it.as_bytes().to_vec()).collect();
        let attributes =
            attributes.into_iter().map(|(name, values)| (name.to_owned(), octets(values)));
        let entry = Entry { dn: "CN=x".to_owned(), attributes: attributes.collect() };
        let text = |found: Option<Vec<Mailbox>>| {
            found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        let own = logins(|_| {}).senders(&entry);
        assert_eq!(text(own).unwrap(), "Ada@example.net ada@example.net a@example.net");
        // Nobody's addresses are no permission to use everybody's.
        assert_eq!(logins(|_| {}).senders(&Entry::default()), Some(Vec::new()));
        let any = logins(|keys| keys.logins.send_as = LoginSenders::Any);
        assert_eq!(any.senders(&entry), None);
    }

    #[test]
    fn a_user_has_one_name_however_he_was_found() {
        let entry = |name: &str, all: &[&str]| Entry {
            dn: "CN=x".to_owned(),
            attributes: vec![(
                name.to_owned(),
                all.iter().map(|it| it.as_bytes().to_vec()).collect(),
            )],
        };
        let windows = logins(|keys| keys.schema = LdapSchema::ActiveDirectory);
        assert_eq!(windows.name(&entry("samaccountname", &["Ada"])).as_deref(), Some("ada"));
        assert_eq!(windows.name(&entry("uid", &["ada"])), None);
        assert_eq!(
            windows.name(&entry("sAMAccountName", &["", "a b\n", "ada"])).as_deref(),
            Some("ada")
        );
        let written = AttributeName::parse("employeeNumber");
        let written = logins(|keys| keys.logins.name = written);
        assert_eq!(written.name(&entry("employeeNumber", &["17"])).as_deref(), Some("17"));
        assert_eq!(written.name(&entry("uid", &["ada"])), None);
    }

    #[test]
    fn only_an_answer_about_the_password_is_a_no() {
        for code in 0..=90 {
            let expected = match code {
                0 => Verdict::Right,
                19 | 32 | 48 | 49 | 53 => Verdict::Wrong,
                _ => Verdict::Unknown,
            };
            assert_eq!(verdict(&Ended { code, words: String::new() }), expected, "{code}");
        }
    }
}
