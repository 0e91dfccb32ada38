//! What the server would decide: the rules of a session and of routing, asked without one.
//!
//! The same code judges here as in a session, so that the answer cannot differ from the deed.

use std::net::IpAddr;
use std::sync::Arc;

use mailroot_common::address::{Domain, Host, Mailbox, ReversePath};
use mailroot_common::config::access::ListEntry;
use mailroot_common::config::client_certificates::ClientCertificates;
use mailroot_common::config::{DomainKind, DomainName, ServerConfig};
use mailroot_common::control::{
    AccessEntry, AccessList, Decision, Judgement, Outcome, SenderOutside, Way,
};
use mailroot_common::units::Timestamp;
use smtpd_core::policy::access::Entry;
use smtpd_core::policy::connect::ConnectPolicy;
use smtpd_core::policy::hits::Hits;
use smtpd_core::policy::relay::{RelayPolicy, RelayRule};
use smtpd_core::policy::{Admitted, Denial, Facts, NameFact, Verdict};
use smtpd_core::route::sender::SenderRuling;
use smtpd_core::route::table::{NextHop, RouteName, Table};
use smtpd_core::smtp::refusal::Refusal;

use super::protection::protection;
use super::{StartError, VirtualServer, rules};
use crate::resolve::{Allowance, Family, Resolver};

/// The most hosts that are told.
const HOSTS_MAX: usize = 20;

impl VirtualServer {
    /// Its list of who may `connect` or `relay`; `None` for any other name.
    #[must_use]
    pub fn access_list(&self, list: &str) -> Option<AccessList> {
        let config = self.config();
        let access = &config.access;
        let (path, policy, entries) = match list {
            "connect" => ("access.connect", access.connect.policy, &access.connect.list),
            "relay" => ("access.relay", access.relay.policy, &access.relay.list),
            _ => return None,
        };
        let judge = Judge { config: &config, list: path, entries };
        let (tallies, now) = (self.tallies.load(), self.shared.load().clock.now());
        let tally = if list == "connect" { &tallies.connect } else { &tallies.relay };
        let entry = |(number, entry): (usize, &ListEntry)| {
            let hits = tally.get(&rules::entry(entry));
            AccessEntry {
                entry: entry.who.to_string(),
                comment: entry.comment.clone(),
                origin: judge.origin(&format!("{path}.list[{number}]")),
                until: entry.until,
                expired: entry.until.is_some_and(|until| until <= now),
                hits: hits.map_or(0, |hits| hits.of_the_day(now)),
                last_used: hits.and_then(Hits::last),
            }
        };
        let policy = policy.word().to_owned();
        Some(AccessList { policy, entries: entries.iter().enumerate().map(entry).collect() })
    }

    /// Where mail from a sender to a recipient goes, as the configuration stands.
    #[must_use]
    pub fn route_of(&self, sender: &ReversePath, recipient: &Mailbox) -> Option<RouteName> {
        Some(self.table(&self.shared.load(), &self.config()).ok()?.route_name(sender, recipient))
    }

    /// What it would decide about a client, a recipient, or both.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the domains contradict each other.
    pub async fn decide(
        &self,
        client: Option<IpAddr>,
        to: Option<&Mailbox>,
        from: Option<&Mailbox>,
        look_up: bool,
    ) -> Result<Decision, StartError> {
        let shared = self.shared.load_full();
        let court = Court::of(&self.config(), shared.mail_name.as_ref())?;
        let now = shared.clock.now();
        let facts = match client {
            Some(client) => Some(court.facts(&shared.resolver, client, now).await),
            None => None,
        };
        let sender = from.cloned().map(ReversePath::Mailbox);
        let sender = sender.as_ref();
        let mut decision = court.judge(facts.as_ref(), to, sender, now);
        let leaves = to.is_some_and(|to| court.hop(to) != NextHop::Drop);
        decision.sender = from.filter(|_| leaves).map(|from| court.outside(from));
        if let (Some(to), Some(way)) = (to, &mut decision.way)
            && look_up
            && let NextHop::Mx(_) | NextHop::DirectFirst { .. } = court.table.route(sender, to).hop
        {
            look_up_hosts(&shared.resolver, to, way).await;
        }
        if let (Some(to), Some(way)) = (to, &mut decision.way) {
            let route = court.table.route(sender, to);
            way.tls = protection(&self.config(), &shared, &route, look_up).await;
            if look_up {
                way.directory = self.directory_says(to, &court.table).await;
            }
        }
        Ok(decision)
    }
}

/// The rules of a virtual server, ready to judge.
#[derive(Debug)]
pub struct Court {
    config: Arc<ServerConfig>,
    connect: ConnectPolicy,
    relay: RelayPolicy,
    table: Table,
}

impl Court {
    /// By a configuration, whether or not it is in force, and the name of this machine in mail.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the domains contradict each other.
    pub fn of(config: &Arc<ServerConfig>, mail_name: Option<&Domain>) -> Result<Self, StartError> {
        let default = rules::default_domain(config).ok_or(StartError::NoDefaultDomain)?;
        Ok(Self {
            connect: rules::connect_policy(config),
            relay: rules::relay_policy(config),
            table: rules::table(config, default, mail_name)?,
            config: Arc::clone(config),
        })
    }

    /// What it decides about a client, a recipient, or both.
    #[must_use]
    pub fn judge(
        &self,
        facts: Option<&Facts>,
        to: Option<&Mailbox>,
        from: Option<&ReversePath>,
        now: Timestamp,
    ) -> Decision {
        Decision {
            connect: facts.map(|facts| self.judge_connect(facts, now)),
            relay: facts.zip(to).map(|(facts, to)| self.judge_relay(facts, to, now)),
            way: to.map(|to| way(&self.config, from, to, &self.table)),
            sender: None,
        }
    }

    /// Under which address a sender is known to other hosts.
    fn outside(&self, from: &Mailbox) -> SenderOutside {
        let rules = rules::senders(&self.config);
        let ruling = rules.ruling(from, &self.table);
        let header = rules.header(from, &self.table).map(|it| it.mailbox);
        let (rule, key) = match ruling.as_ref().map(|(_, ruling)| *ruling) {
            None => ("none".to_owned(), None),
            Some(SenderRuling::Masquerade) => {
                let key = "delivery.masquerade_domain".to_owned();
                (key.clone(), Some(key))
            }
            Some(SenderRuling::Rule(number)) => {
                let pattern = rules.rules[number].from.as_str();
                let key = format!("delivery.sender_rewrite[{number}]");
                (format!("delivery.sender_rewrite {pattern}"), Some(key))
            }
        };
        let origin = key.and_then(|key| self.config.origins.place(&key));
        SenderOutside {
            envelope: ruling.map_or_else(|| from.to_string(), |(mailbox, _)| mailbox.to_string()),
            header: header.unwrap_or_else(|| from.clone()).to_string(),
            rule,
            origin: origin.unwrap_or_else(|| "default".to_owned()),
        }
    }

    /// What it goes by with certificates of clients.
    pub(crate) fn certificates(&self) -> &ClientCertificates {
        &self.config.access.certificates
    }

    /// Where reports to a sender go.
    pub(super) fn hop(&self, to: &Mailbox) -> NextHop {
        self.table.route(Some(&ReversePath::Null), to).hop
    }

    /// What is known of a client; DNS is asked only where a list needs its name.
    async fn facts(&self, resolver: &Resolver, client: IpAddr, now: Timestamp) -> Facts {
        let mut facts = Facts::of_address(client);
        let lists = [&self.connect.list, &self.relay.list];
        if lists.iter().any(|list| list.needs_name_of(client, now)) {
            facts.name = match resolver.names(client).await {
                Ok(names) => NameFact::Names(names),
                Err(error) if error.is_temporary() => NameFact::Unknown,
                Err(_) => NameFact::None,
            };
        }
        facts
    }

    fn judge_connect(&self, facts: &Facts, now: Timestamp) -> Judgement {
        let (config, entries) = (&*self.config, &self.config.access.connect.list);
        let judge = Judge { config, list: "access.connect", entries };
        match self.connect.judge(facts, now) {
            Verdict::Admit(welcome) => match welcome.entry() {
                Some(entry) => judge.allowed(format!("connection list {entry}"), Some(entry)),
                None => judge.allowed("connection list all-except".to_owned(), None),
            },
            Verdict::Defer(denial) => judge.denied(Outcome::Deferred, "connection list", &denial),
            Verdict::Refuse(denial) => judge.denied(Outcome::Refused, "connection list", &denial),
        }
    }

    fn judge_relay(&self, facts: &Facts, to: &Mailbox, now: Timestamp) -> Judgement {
        let (config, entries) = (&*self.config, &self.config.access.relay.list);
        let judge = Judge { config, list: "access.relay", entries };
        match self.relay.judge(facts, to, &self.table, now) {
            Verdict::Admit(admitted) => judge.admitted(&admitted, to),
            Verdict::Defer(denial) => judge.denied(Outcome::Deferred, "relay list", &denial),
            Verdict::Refuse(denial) => judge.denied(Outcome::Refused, "relay list", &denial),
        }
    }
}

/// Finds the line behind a judgement.
struct Judge<'c> {
    config: &'c ServerConfig,
    list: &'static str,
    entries: &'c [ListEntry],
}

impl Judge<'_> {
    /// `file:line` of a key, or `default`.
    fn origin(&self, key: &str) -> String {
        self.config.origins.place(key).unwrap_or_else(|| "default".to_owned())
    }

    fn origin_of(&self, entry: Option<&Entry>) -> String {
        let number = entry.and_then(|entry| {
            self.entries.iter().position(|listed| rules::entry(listed) == *entry)
        });
        match number {
            Some(number) => self.origin(&format!("{}.list[{number}]", self.list)),
            None => self
                .config
                .origins
                .place(&format!("{}.list", self.list))
                .unwrap_or_else(|| self.origin(&format!("{}.policy", self.list))),
        }
    }

    fn allowed(&self, rule: String, entry: Option<&Entry>) -> Judgement {
        Judgement { outcome: Outcome::Allowed, rule, origin: self.origin_of(entry), reply: None }
    }

    fn admitted(&self, admitted: &Admitted, to: &Mailbox) -> Judgement {
        let rule = admitted.rule().to_string();
        match admitted.rule() {
            RelayRule::List(entry) => self.allowed(rule, Some(entry)),
            RelayRule::LocalDomain | RelayRule::RemoteDomain(_) => {
                let origin = domain_of(self.config, to).map_or_else(
                    || "default".to_owned(),
                    |(number, _)| domain_origin(self.config, number),
                );
                Judgement { outcome: Outcome::Allowed, rule, origin, reply: None }
            }
            RelayRule::Authenticated | RelayRule::Certificate(_) | RelayRule::NotExcepted => {
                self.allowed(rule, None)
            }
        }
    }

    fn denied(&self, outcome: Outcome, list: &str, denial: &Denial) -> Judgement {
        let rule = match &denial.entry {
            Some(entry) => format!("{list} {entry}"),
            None if outcome == Outcome::Deferred => format!("{list}: DNS does not name the client"),
            None => format!("{list}: no entry matches"),
        };
        let mut reply = Vec::new();
        Refusal::from(denial.reason).write(&mut reply);
        let reply = String::from_utf8_lossy(&reply).trim_end().to_owned();
        let origin = self.origin_of(denial.entry.as_ref());
        Judgement { outcome, rule, origin, reply: Some(reply) }
    }
}

/// The entry of `domains` that speaks of a recipient, with its number.
fn domain_of<'c>(
    config: &'c ServerConfig,
    to: &Mailbox,
) -> Option<(usize, &'c mailroot_common::config::DomainEntry)> {
    let domain = to.domain()?;
    let covers = |name: &DomainName| match name {
        DomainName::Exact(own) => (own == domain).then_some(usize::MAX),
        DomainName::Below(suffix) => {
            let rest = domain.as_str().strip_suffix(suffix.as_str())?;
            rest.ends_with('.').then(|| suffix.as_str().len())
        }
    };
    let found = config.domains.iter().enumerate();
    let found = found.filter_map(|(number, entry)| Some((covers(&entry.name)?, number, entry)));
    found.max_by_key(|(length, ..)| *length).map(|(_, number, entry)| (number, entry))
}

/// What has mail of a domain sent, if it is held.
fn held_for(kind: &DomainKind) -> Option<&'static str> {
    match kind {
        DomainKind::Remote { hold, .. } => hold.release.commands(),
        DomainKind::Default(_) | DomainKind::Alias => None,
    }
}

fn domain_origin(config: &ServerConfig, number: usize) -> String {
    config.origins.place(&format!("domains[{number}]")).unwrap_or_else(|| "default".to_owned())
}

fn way(config: &ServerConfig, from: Option<&ReversePath>, to: &Mailbox, table: &Table) -> Way {
    let route = table.route(from, to);
    let by_sender = from.zip(to.domain()).and_then(|(it, domain)| table.sender_route(it, domain));
    let found = domain_of(config, to);
    let origin = |key: &str| config.origins.place(key).unwrap_or_else(|| "default".to_owned());
    let (schedules, name) = (rules::schedules(config), route.name());
    let schedule = schedules.on(&name, table.held(&name));
    let hop = match &route.hop {
        NextHop::Drop => "Drop".to_owned(),
        NextHop::Mx(domain) => format!("MX of {domain}"),
        NextHop::Address(address) => format!("[{address}]"),
        NextHop::Hosts(hosts) => {
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        NextHop::DirectFirst { domain, hosts, .. } => {
            let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
            format!("MX of {domain}, then {}", hosts.join(", "))
        }
    };
    let kind = found.map(|(_, entry)| match entry.kind {
        DomainKind::Default(_) => "default",
        DomainKind::Alias => "alias",
        DomainKind::Remote { .. } => "remote",
    });
    let waits: Vec<String> = schedule.retry.iter().map(ToString::to_string).collect();
    Way {
        domain: match found {
            Some((_, entry)) => entry.name.to_string(),
            None => to.domain().map(ToString::to_string).unwrap_or_default(),
        },
        kind: kind.unwrap_or("other").to_owned(),
        origin: match found {
            Some((number, _)) => domain_origin(config, number),
            None => match by_sender {
                Some(number) => origin(&format!("delivery.sender_routes[{number}]")),
                None => origin("delivery.smart_host"),
            },
        },
        route: name.to_string(),
        hop: match found.and_then(|(_, entry)| held_for(&entry.kind)) {
            Some(commands) => format!("held for {commands}, then {hop}"),
            None => hop,
        },
        hosts: Vec::new(),
        dns_error: None,
        tls: Vec::new(),
        directory: None,
        helo_only: route.helo_only,
        retry: waits.join(", "),
        expire: schedule.expire.to_string(),
    }
}

/// Adds the hosts that DNS names for the recipient's domain, each with its addresses.
async fn look_up_hosts(resolver: &Resolver, to: &Mailbox, way: &mut Way) {
    let Host::Name(domain) = to.host() else { return };
    let allowance = Allowance::default();
    let mut records = match resolver.mx(domain, &allowance).await {
        Ok(records) => records.value,
        Err(error) => {
            way.dns_error = Some(error.to_string());
            return;
        }
    };
    records.sort_by_key(|record| record.preference);
    // Without a record the domain itself is its host (RFC 5321 section 5.1).
    let mut hosts: Vec<(String, Domain)> = Vec::new();
    for record in &records {
        match &record.exchange {
            Some(host) => hosts.push((format!("{} {host}", record.preference), host.clone())),
            None => way.dns_error = Some("the domain takes no mail (null MX)".to_owned()),
        }
    }
    if records.is_empty() {
        hosts.push((format!("{domain}"), domain.clone()));
    }
    for (text, host) in hosts.into_iter().take(HOSTS_MAX) {
        let addresses = match resolver.addresses(&host, Family::Any, &allowance).await {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        way.hosts.push(format!("{text} ({addresses})"));
    }
}
