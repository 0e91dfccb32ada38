//! The route table: a recipient's address in, its route out, without DNS.
//!
//! Built once from plain settings whenever the configuration changes, asked for every recipient
//! that is accepted and again at each attempt. The order is the original's: a local domain ends in
//! Drop; else the most specific remote domain decides (its own name, else the longest `*.suffix`);
//! else the route of its sender; else the virtual server's smart host; else MX. Only the text right of
//! the last `@` counts: nothing inside a local part (`user%other`, `other!user`) ever picks a route.
//!
//! Two addresses that travel alike have one [`RouteName`], whatever their domains are called.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use mailroot_common::address::{Domain, Host, Mailbox, ReversePath};
use mailroot_common::config::sender_route::Senders;
use serde::{Deserialize, Serialize};

use super::domain::{Held, Limits, Pattern, RemoteDomain, RemoteRoute};
use super::name::{HELD, LIMITED};
use super::smart_host::SmartHost;

pub use super::name::RouteName;

/// When mail that is tried directly first goes to the smart host instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectFirst {
    /// The smart host is asked at once.
    #[default]
    Never,
    /// Directly first; the smart host only if DNS does not answer or knows no such domain.
    OnDnsFailure,
    /// Directly first; the smart host after any temporary failure.
    OnAnyTemporaryFailure,
}

/// The next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// The Drop directory of this virtual server.
    Drop,
    /// The hosts that DNS names for the domain.
    Mx(Domain),
    /// The address that stands in the recipient's address. A stranger may have chosen it.
    Address(IpAddr),
    /// These hosts of the operator's, the first that takes the mail.
    Hosts(Vec<SmartHost>),
    /// The hosts that DNS names, and the operator's when those fail as the rule says.
    DirectFirst {
        /// The recipient's domain.
        domain: Domain,
        /// The smart hosts.
        hosts: Vec<SmartHost>,
        /// What kind of failure sends mail to them; never [`DirectFirst::Never`].
        rule: DirectFirst,
    },
}

/// Where mail goes next and how it is greeted there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// The next hop.
    pub hop: NextHop,
    /// Whether to greet with HELO and use no extensions.
    pub helo_only: bool,
    /// What is done about TLS, if not what the virtual server does.
    pub tls: Option<TlsPolicy>,
    /// The domain, if its mail waits to be asked for: then it shares its route with no other.
    pub held: Option<Domain>,
    /// The entry whose limits its mail shares with no other.
    pub limited: Option<Pattern>,
}

/// How mail is protected on its way to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsPolicy {
    /// Not at all.
    Off,
    /// Under TLS where the host offers it; its certificate is not checked.
    Optional,
    /// Under TLS or not at all; its certificate is not checked.
    Required,
    /// Under TLS with a certificate that is good for its name, or not at all.
    Verify,
}

impl TlsPolicy {
    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Optional => "optional",
            Self::Required => "required",
            Self::Verify => "verify",
        }
    }
}

impl Route {
    /// The way by one host that an operator named.
    #[must_use]
    pub fn to_host(host: SmartHost) -> Self {
        Self::plain(NextHop::Hosts(vec![host]))
    }

    /// A way without anything special.
    const fn plain(hop: NextHop) -> Self {
        Self { hop, helo_only: false, tls: None, held: None, limited: None }
    }

    /// The canonical text of this route.
    #[must_use]
    pub fn name(&self) -> RouteName {
        let mut text = String::with_capacity(48);
        if let Some(domain) = &self.held {
            let limit = self.limited.as_ref().map(|pattern| format!("{LIMITED}{pattern}"));
            return RouteName(format!("{HELD}{domain}{}", limit.unwrap_or_default()).into());
        }
        let result = match &self.hop {
            NextHop::Drop => text.write_str(RouteName::DROP),
            NextHop::Mx(domain) => write!(text, "mx:{domain}"),
            NextHop::Address(address) => write!(text, "host:{}", Host::Address(*address)),
            NextHop::DirectFirst { domain, .. } => write!(text, "direct:{domain}"),
            NextHop::Hosts(hosts) => hosts.iter().enumerate().try_for_each(|(place, host)| {
                write!(text, "{}{host}", if place == 0 { "host:" } else { "," })
            }),
        };
        result.expect("writing to a string cannot fail");
        if self.helo_only {
            text.push_str(";helo");
        }
        if let Some(tls) = self.tls {
            text.push_str(";tls=");
            text.push_str(tls.as_str());
        }
        if let Some(pattern) = &self.limited {
            let result = write!(text, "{LIMITED}{pattern}");
            result.expect("writing to a string cannot fail");
        }
        RouteName(text.into())
    }
}

/// The settings a table is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The domain of the type `default`.
    pub default_domain: Domain,
    /// The domains of the type `alias`.
    pub alias_domains: Vec<Domain>,
    /// The domains of the type `remote`.
    pub remote_domains: Vec<RemoteDomain>,
    /// The virtual server's smart hosts, in the order they are asked; none is delivery by MX.
    pub smart_hosts: Vec<SmartHost>,
    /// Whether mail for the smart hosts is tried directly first.
    pub direct_first: DirectFirst,
    /// Whose mail goes another way than that, in the order they are looked at.
    pub sender_routes: Vec<SenderRoute>,
}

/// Where mail of some senders goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderRoute {
    /// Whose.
    pub from: Senders,
    /// Where to; never [`RemoteRoute::Inherit`].
    pub route: RemoteRoute,
}

/// Why settings make no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A local domain is listed twice.
    #[error("{0} is listed twice among the local domains: remove one of the entries")]
    LocalTwice(Domain),
    /// A remote domain is listed twice.
    #[error("{0} is listed twice among the remote domains: remove one of the entries")]
    RemoteTwice(Pattern),
    /// A domain is both local and remote.
    #[error("{0} is both a local and a remote domain: remove one of the entries")]
    Both(Domain),
    /// A remote domain is to go to hosts, and none is named.
    #[error("remote domain {0} names no host to send its mail to")]
    NoHost(Pattern),
}

/// What one remote entry says, with the parts of its routes that never change.
#[derive(Debug)]
struct Entry {
    domain: RemoteDomain,
    /// The route and its name, unless they depend on the recipient's domain.
    fixed: Option<(Route, RouteName)>,
}

/// Local domains, remote domains and the server's own way out.
#[derive(Debug)]
pub struct Table {
    settings: Settings,
    local: HashSet<Box<str>>,
    exact: HashMap<Box<str>, Entry>,
    below: HashMap<Box<str>, Entry>,
    drop: RouteName,
    /// The server's smart hosts, if mail goes to them at once.
    smart: Option<(Route, RouteName)>,
    /// The routes of senders that do not depend on the recipient's domain.
    of_senders: Vec<Option<(Route, RouteName)>>,
}

impl Table {
    /// Builds the table.
    ///
    /// # Errors
    ///
    /// [`TableError`] for the first domain that is named twice or leads nowhere.
    pub fn new(settings: Settings) -> Result<Self, TableError> {
        let mut local = HashSet::with_capacity(settings.alias_domains.len() + 1);
        for domain in std::iter::once(&settings.default_domain).chain(&settings.alias_domains) {
            if !local.insert(domain.as_str().into()) {
                return Err(TableError::LocalTwice(domain.clone()));
            }
        }
        let smart = match settings.direct_first {
            DirectFirst::Never if !settings.smart_hosts.is_empty() => {
                Some(named(Route::plain(NextHop::Hosts(settings.smart_hosts.clone()))))
            }
            _ => None,
        };
        let of_senders = settings.sender_routes.iter().map(|rule| match &rule.route {
            RemoteRoute::Hosts(hosts) => Some(named(Route::plain(NextHop::Hosts(hosts.clone())))),
            RemoteRoute::Mx | RemoteRoute::Inherit => None,
        });
        let mut table = Self {
            of_senders: of_senders.collect(),
            local,
            exact: HashMap::new(),
            below: HashMap::new(),
            drop: RouteName::from_text(RouteName::DROP),
            smart,
            settings,
        };
        for domain in table.settings.remote_domains.clone() {
            table.add(domain)?;
        }
        Ok(table)
    }

    fn add(&mut self, domain: RemoteDomain) -> Result<(), TableError> {
        let hop = match &domain.route {
            RemoteRoute::Hosts(hosts) if hosts.is_empty() => {
                return Err(TableError::NoHost(domain.pattern));
            }
            RemoteRoute::Hosts(hosts) => Some(NextHop::Hosts(hosts.clone())),
            RemoteRoute::Inherit => self.smart.as_ref().map(|(route, _)| route.hop.clone()),
            RemoteRoute::Mx => None,
        };
        let (map, key) = match &domain.pattern {
            Pattern::Exact(name) if self.is_local(name) => {
                return Err(TableError::Both(name.clone()));
            }
            Pattern::Exact(name) => (&mut self.exact, name.as_str().into()),
            Pattern::Below(name) => (&mut self.below, name.as_str().into()),
        };
        let pattern = domain.pattern.clone();
        let (helo_only, tls) = (domain.helo_only, domain.tls);
        let limited = (!domain.limits.is_none()).then(|| pattern.clone());
        // The route of mail that waits to be asked for depends on the domain in any case.
        let hop = hop.filter(|_| domain.held.is_none());
        let fixed = hop.map(|hop| named(Route { hop, helo_only, tls, held: None, limited }));
        match map.insert(key, Entry { domain, fixed }) {
            Some(_) => Err(TableError::RemoteTwice(pattern)),
            None => Ok(()),
        }
    }

    /// The settings the table was built from.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The default domain: that of addresses we make up, such as the postmaster's in reports.
    #[must_use]
    pub fn default_domain(&self) -> &Domain {
        &self.settings.default_domain
    }

    /// Whether mail for this domain ends here: it is the default domain or an alias.
    #[must_use]
    pub fn is_local(&self, domain: &Domain) -> bool {
        self.local.contains(domain.as_str())
    }

    /// The entry that speaks of this domain: its own name, else the longest `*.suffix`.
    #[must_use]
    pub fn remote(&self, domain: &Domain) -> Option<&RemoteDomain> {
        self.entry(domain).map(|entry| &entry.domain)
    }

    /// How mail on a route is held until it is asked for, if it is.
    #[must_use]
    pub fn held(&self, route: &RouteName) -> Option<&Held> {
        let domain = Domain::parse(route.held_domain()?).ok()?;
        self.remote(&domain)?.held.as_ref()
    }

    /// The limits that hold on a route, if an entry has some.
    #[must_use]
    pub fn limits(&self, route: &RouteName) -> Option<Limits> {
        let found = match Pattern::parse(route.limited_by()?).ok()? {
            Pattern::Exact(name) => self.exact.get(name.as_str()),
            Pattern::Below(name) => self.below.get(name.as_str()),
        };
        found.map(|entry| entry.domain.limits)
    }

    fn all_held(&self) -> impl Iterator<Item = &Held> {
        self.settings.remote_domains.iter().filter_map(|domain| domain.held.as_ref())
    }

    /// Whether mail of any domain is held until it is asked for by ETRN.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        self.all_held().any(|held| held.by_etrn)
    }

    /// Whether anybody may fetch mail of a domain.
    #[must_use]
    pub fn has_fetchers(&self) -> bool {
        self.all_held().any(|held| !held.fetchers.is_empty())
    }

    fn entry(&self, domain: &Domain) -> Option<&Entry> {
        if let Some(entry) = self.exact.get(domain.as_str()) {
            return Some(entry);
        }
        if self.below.is_empty() {
            return None;
        }
        // Front labels fall off one by one, so the first suffix found is the longest.
        let mut rest = domain.as_str();
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(entry) = self.below.get(suffix) {
                return Some(entry);
            }
            rest = suffix;
        }
        None
    }

    /// The number of the sender's route, if it has one that counts for mail to a domain.
    #[must_use]
    pub fn sender_route(&self, sender: &ReversePath, domain: &Domain) -> Option<usize> {
        if self.of_senders.is_empty() || self.is_local(domain) || self.entry(domain).is_some() {
            return None;
        }
        self.settings.sender_routes.iter().position(|rule| rule.from.has(sender))
    }

    /// The route of mail to this recipient, from a sender or from somebody whom no rule speaks of. An
    /// address literal is its own route.
    #[must_use]
    pub fn route(&self, sender: Option<&ReversePath>, recipient: &Mailbox) -> Route {
        match recipient.host() {
            Host::Address(address) => {
                // IPv4 in IPv6's clothing must not slip past the rules on loopback addresses.
                Route::plain(NextHop::Address(address.to_canonical()))
            }
            Host::Name(domain) => match sender.and_then(|it| self.sender_route(it, domain)) {
                Some(number) => self.route_of_sender(number, domain),
                None => self.route_of(domain),
            },
        }
    }

    fn route_of_sender(&self, number: usize, domain: &Domain) -> Route {
        match &self.of_senders[number] {
            Some((route, _)) => route.clone(),
            None => Route::plain(NextHop::Mx(domain.clone())),
        }
    }

    fn route_of(&self, domain: &Domain) -> Route {
        if self.is_local(domain) {
            return Route::plain(NextHop::Drop);
        }
        match self.entry(domain) {
            Some(Entry { fixed: Some((route, _)), .. }) => route.clone(),
            Some(Entry { domain: entry, .. }) => {
                let hop = match &entry.route {
                    RemoteRoute::Hosts(hosts) => NextHop::Hosts(hosts.clone()),
                    RemoteRoute::Mx => NextHop::Mx(domain.clone()),
                    RemoteRoute::Inherit => match &self.smart {
                        Some((route, _)) => route.hop.clone(),
                        None => self.by_domain(domain),
                    },
                };
                let held = entry.held.is_some().then(|| domain.clone());
                let limited = (!entry.limits.is_none()).then(|| entry.pattern.clone());
                Route { hop, helo_only: entry.helo_only, tls: entry.tls, held, limited }
            }
            None => match &self.smart {
                Some((route, _)) => route.clone(),
                None => Route::plain(self.by_domain(domain)),
            },
        }
    }

    fn by_domain(&self, domain: &Domain) -> NextHop {
        let domain = domain.clone();
        if self.settings.smart_hosts.is_empty() {
            return NextHop::Mx(domain);
        }
        let (hosts, rule) = (self.settings.smart_hosts.clone(), self.settings.direct_first);
        NextHop::DirectFirst { domain, hosts, rule }
    }

    /// The name of [`Table::route`], without building the route where the name is known.
    #[must_use]
    pub fn route_name(&self, sender: &ReversePath, recipient: &Mailbox) -> RouteName {
        let Some(domain) = recipient.domain() else {
            return self.route(Some(sender), recipient).name();
        };
        match self.sender_route(sender, domain) {
            Some(number) => self.name_of_sender(number, domain),
            None => self.name_of(domain),
        }
    }

    fn name_of_sender(&self, number: usize, domain: &Domain) -> RouteName {
        match &self.of_senders[number] {
            Some((_, name)) => name.clone(),
            None => self.route_of_sender(number, domain).name(),
        }
    }

    /// The names of all routes that mail to a domain may lie on, whoever sent it.
    #[must_use]
    pub fn route_names_of(&self, domain: &Domain) -> Vec<RouteName> {
        let mut names = vec![self.name_of(domain)];
        if !self.is_local(domain) && self.entry(domain).is_none() {
            let numbers = 0..self.of_senders.len();
            names.extend(numbers.map(|number| self.name_of_sender(number, domain)));
        }
        names
    }

    fn name_of(&self, domain: &Domain) -> RouteName {
        if self.is_local(domain) {
            return self.drop.clone();
        }
        let fixed = match self.entry(domain) {
            Some(entry) => entry.fixed.as_ref(),
            None => self.smart.as_ref(),
        };
        match fixed {
            Some((_, name)) => name.clone(),
            None => self.route_of(domain).name(),
        }
    }
}

fn named(route: Route) -> (Route, RouteName) {
    let name = route.name();
    (route, name)
}

#[cfg(test)]
mod tests {
    use mailroot_common::config::SmartHostName;
    use mailroot_common::control::selector::AddressPattern;
    use mailroot_common::units::Span;

    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn hosts(texts: &[&str]) -> Vec<SmartHost> {
        texts.iter().map(|text| SmartHost::parse(text).unwrap()).collect()
    }

    fn remote(pattern: &str, route: RemoteRoute) -> RemoteDomain {
        RemoteDomain { route, ..RemoteDomain::plain(Pattern::parse(pattern).unwrap()) }
    }

    fn settings() -> Settings {
        Settings {
            default_domain: domain("example.net"),
            alias_domains: vec![domain("example.org")],
            sender_routes: Vec::new(),
            remote_domains: vec![
                remote("partner.example", RemoteRoute::Mx),
                remote("*.corp.example", RemoteRoute::Hosts(hosts(&["hub.corp.example"]))),
                remote("*.lab.corp.example", RemoteRoute::Hosts(hosts(&["[192.0.2.7]:2525"]))),
                remote("x.lab.corp.example", RemoteRoute::Inherit),
                RemoteDomain {
                    helo_only: true,
                    ..remote(
                        "old.example",
                        RemoteRoute::Hosts(hosts(&["a.example", "b.example:26"])),
                    )
                },
                RemoteDomain { helo_only: true, ..remote("older.example", RemoteRoute::Inherit) },
            ],
            smart_hosts: vec![],
            direct_first: DirectFirst::Never,
        }
    }

    fn check(table: &Table, cases: &[(&str, &str)]) {
        for (address, name) in cases {
            let mailbox = Mailbox::parse(address).unwrap();
            assert_eq!(table.route(None, &mailbox).name().as_str(), *name, "{address}");
            assert_eq!(table.route_name(&ReversePath::Null, &mailbox).as_str(), *name, "{address}");
        }
    }

    #[test]
    fn most_specific_entry_decides_and_mx_is_the_last_resort() {
        let table = Table::new(settings()).unwrap();
        check(
            &table,
            &[
                ("a@example.net", "drop"),
                ("a@EXAMPLE.org", "drop"),
                ("a@sub.example.net", "mx:sub.example.net"),
                ("a@badexample.net", "mx:badexample.net"),
                ("a@partner.example", "mx:partner.example"),
                ("a@corp.example", "mx:corp.example"),
                ("a@x.corp.example", "host:hub.corp.example"),
                ("a@lab.corp.example", "host:hub.corp.example"),
                ("a@y.lab.corp.example", "host:[192.0.2.7]:2525"),
                ("a@z.y.lab.corp.example", "host:[192.0.2.7]:2525"),
                ("a@x.lab.corp.example", "mx:x.lab.corp.example"),
                ("a@y.x.lab.corp.example", "host:[192.0.2.7]:2525"),
                ("a@old.example", "host:a.example,b.example:26;helo"),
                ("a@older.example", "mx:older.example;helo"),
                ("a@[192.0.2.9]", "host:[192.0.2.9]"),
                ("a@[IPv6:2001:db8::9]", "host:[IPv6:2001:db8::9]"),
                ("a@[IPv6:::ffff:127.0.0.1]", "host:[127.0.0.1]"),
                ("a%partner.example@example.net", "drop"),
                ("partner.example!a@example.net", "drop"),
                ("\"a@partner.example\"@example.net", "drop"),
            ],
        );
    }

    #[test]
    fn an_operator_calls_a_route_by_its_domain_or_its_hosts() {
        for (name, expected) in [
            ("drop", "drop"),
            ("mx:a.example", "a.example"),
            ("direct:a.example;helo", "a.example"),
            ("host:a.example,b.example:26;helo", "a.example b.example:26 b.example"),
            ("host:[192.0.2.1]:2525", "[192.0.2.1]:2525 [192.0.2.1]"),
            ("host:[IPv6:2001:db8::9]", "[IPv6:2001:db8::9]"),
        ] {
            let route = RouteName::from_text(name);
            assert_eq!(route.destinations().collect::<Vec<_>>().join(" "), expected);
        }
    }

    #[test]
    fn remote_entry_overrides_the_servers_smart_host() {
        let smart_hosts = hosts(&["isp.example:587"]);
        let table = Table::new(Settings { smart_hosts, ..settings() }).unwrap();
        check(
            &table,
            &[
                ("a@example.net", "drop"),
                ("a@else.example", "host:isp.example:587"),
                ("a@partner.example", "mx:partner.example"),
                ("a@x.corp.example", "host:hub.corp.example"),
                ("a@x.lab.corp.example", "host:isp.example:587"),
                ("a@older.example", "host:isp.example:587;helo"),
                ("a@[192.0.2.9]", "host:[192.0.2.9]"),
            ],
        );
    }

    #[test]
    fn sender_decides_where_no_entry_of_a_domain_does() {
        let to = |text: &str, hosts: &[&str]| SenderRoute {
            from: match text {
                "<>" => Senders::Nobody,
                _ => Senders::Pattern(AddressPattern::parse(text).unwrap()),
            },
            route: RemoteRoute::Hosts(self::hosts(hosts)),
        };
        let settings = Settings {
            smart_hosts: hosts(&["isp.example"]),
            remote_domains: vec![remote("partner.example", RemoteRoute::Mx)],
            sender_routes: vec![
                to("*@shop.example", &["smarthost:shop", "spare.example"]),
                SenderRoute { route: RemoteRoute::Mx, ..to("boss@*", &["x"]) },
                to("<>", &["reports.example"]),
                to("/@shop/", &["never.example"]),
            ],
            ..settings()
        };
        let table = Table::new(settings).unwrap();
        for (from, recipient, name) in [
            ("a@shop.example", "b@else.example", "host:smarthost:shop,spare.example"),
            ("A@SHOP.EXAMPLE", "b@else.example", "host:smarthost:shop,spare.example"),
            ("a@shop.example", "b@partner.example", "mx:partner.example"),
            ("a@shop.example", "b@example.org", "drop"),
            ("a@shop.example", "b@[192.0.2.9]", "host:[192.0.2.9]"),
            ("boss@shop.example", "b@else.example", "host:smarthost:shop,spare.example"),
            ("boss@example.com", "b@else.example", "mx:else.example"),
            ("", "b@else.example", "host:reports.example"),
            ("a@else.example", "b@else.example", "host:isp.example"),
        ] {
            let (from, to) =
                (ReversePath::parse(from).unwrap(), Mailbox::parse(recipient).unwrap());
            assert_eq!(table.route(Some(&from), &to).name().as_str(), name, "{from} {recipient}");
            assert_eq!(table.route_name(&from, &to).as_str(), name);
            let all = to.domain().map(|domain| table.route_names_of(domain));
            assert!(all.is_none_or(|all| all.iter().any(|it| it.as_str() == name)));
        }
    }

    #[test]
    fn mail_that_waits_to_be_asked_for_has_a_route_for_each_domain() {
        let held = Held {
            by_etrn: true,
            asked_from: vec![],
            queue: None,
            fetchers: vec![],
            keep: Span::days(10),
        };
        let held = |domain| RemoteDomain { held: Some(held.clone()), ..domain };
        let hub = RemoteRoute::Hosts(hosts(&["hub.example"]));
        let mut settings = settings();
        settings.remote_domains = vec![
            held(remote("branch.example", RemoteRoute::Mx)),
            held(remote("ship.example", hub.clone())),
            held(remote("*.sea.example", RemoteRoute::Inherit)),
            remote("land.example", hub),
        ];
        settings.smart_hosts = hosts(&["isp.example"]);
        let table = Table::new(settings).unwrap();
        check(
            &table,
            &[
                ("a@branch.example", "etrn:branch.example"),
                ("a@ship.example", "etrn:ship.example"),
                ("a@land.example", "host:hub.example"),
                ("a@x.sea.example", "etrn:x.sea.example"),
                ("a@sea.example", "host:isp.example"),
            ],
        );
        let hop = |address: &str| table.route(None, &Mailbox::parse(address).unwrap()).hop;
        assert_eq!(hop("a@branch.example"), NextHop::Mx(domain("branch.example")));
        assert_eq!(hop("a@ship.example"), NextHop::Hosts(hosts(&["hub.example"])));
        assert_eq!(hop("a@x.sea.example"), NextHop::Hosts(hosts(&["isp.example"])));
        let name = RouteName::from_text("etrn:x.sea.example");
        assert_eq!(name.destinations().collect::<Vec<_>>(), ["x.sea.example"]);
        assert!(table.held(&name).is_some() && table.holds_any());
        assert!(table.held(&RouteName::from_text("mx:branch.example")).is_none());
    }

    #[test]
    fn limits_make_a_route_of_their_own() {
        let limits = Limits { connections: Some(2), ..Limits::default() };
        let mut settings = settings();
        settings.remote_domains = vec![
            RemoteDomain { limits, ..remote("*.slow.example", RemoteRoute::Mx) },
            RemoteDomain { limits, ..remote("slow.example", RemoteRoute::Inherit) },
        ];
        settings.smart_hosts = hosts(&["smarthost:isp", "isp.example"]);
        let table = Table::new(settings).unwrap();
        check(
            &table,
            &[
                ("a@x.slow.example", "mx:x.slow.example;limit=*.slow.example"),
                ("a@slow.example", "host:smarthost:isp,isp.example;limit=slow.example"),
                ("a@fast.example", "host:smarthost:isp,isp.example"),
            ],
        );
        let name = |text: &str| RouteName::from_text(text);
        assert_eq!(table.limits(&name("mx:x.slow.example;limit=*.slow.example")), Some(limits));
        assert_eq!(table.limits(&name("mx:x.slow.example")), None);
        assert_eq!(table.limits(&name("mx:x.gone.example;limit=*.gone.example")), None);
        let isp = name("host:smarthost:isp,isp.example;limit=slow.example").smart_host();
        assert_eq!(isp, SmartHostName::parse("isp"));
        assert_eq!(name("host:isp.example,smarthost:isp").smart_host(), None);
    }

    #[test]
    fn direct_first_keeps_one_route_for_each_domain() {
        let rule = DirectFirst::OnAnyTemporaryFailure;
        let smart_hosts = hosts(&["isp.example"]);
        let settings = Settings { smart_hosts, direct_first: rule, ..settings() };
        let table = Table::new(settings).unwrap();
        check(
            &table,
            &[
                ("a@else.example", "direct:else.example"),
                ("a@partner.example", "mx:partner.example"),
                ("a@x.corp.example", "host:hub.corp.example"),
                ("a@older.example", "direct:older.example;helo"),
            ],
        );
        let hop = table.route(None, &Mailbox::parse("a@else.example").unwrap()).hop;
        let (domain, hosts) = (domain("else.example"), hosts(&["isp.example"]));
        assert_eq!(hop, NextHop::DirectFirst { domain, hosts, rule });
    }

    #[test]
    fn domain_named_twice_makes_no_table() {
        let local = domain("example.org");
        let aliases = vec![local.clone(), domain("example.net")];
        let twice = Settings { alias_domains: aliases, ..settings() };
        assert_eq!(Table::new(twice).unwrap_err(), TableError::LocalTwice(domain("example.net")));

        let mut both = settings();
        both.remote_domains.push(remote("example.org", RemoteRoute::Mx));
        assert_eq!(Table::new(both).unwrap_err(), TableError::Both(local));

        let mut again = settings();
        again.remote_domains.push(remote("*.corp.example", RemoteRoute::Mx));
        let pattern = Pattern::parse("*.corp.example").unwrap();
        assert_eq!(Table::new(again).unwrap_err(), TableError::RemoteTwice(pattern));

        let mut nowhere = settings();
        nowhere.remote_domains.push(remote("n.example", RemoteRoute::Hosts(vec![])));
        let pattern = Pattern::parse("n.example").unwrap();
        assert_eq!(Table::new(nowhere).unwrap_err(), TableError::NoHost(pattern));
    }

    #[test]
    fn local_wins_over_a_wildcard_that_covers_it() {
        let mut settings = settings();
        settings.alias_domains.push(domain("mail.corp.example"));
        let table = Table::new(settings).unwrap();
        check(&table, &[("a@mail.corp.example", "drop")]);
    }
}
