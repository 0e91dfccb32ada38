//! From a next hop to the hosts to try, one after the other, looked up only when it is their turn.
//!
//! What DNS says is a stranger's word: look-ups and addresses of one attempt are counted and
//! bounded, and an address that is ourselves or forbidden is passed over.

mod look_up;

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mailroot_common::address::{Domain, Host};
use mailroot_common::config::{HostPort, SmartHostName};
use mailroot_common::status::{Class, EnhancedCode};
use mailroot_common::units::Timestamp;
use smtpd_core::queue::outcome::{Outcome, RemoteHost, Stage};
use smtpd_core::route::loopback::{FoundBy, Refused};
use smtpd_core::route::mx::MxHost;
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::{DirectFirst, NextHop, Route, TlsPolicy};
use smtpd_core::smtp::client::Ending;

use super::Settings;
use super::aim::Target;
use super::limits::Limited;
use super::site::{Site, Sites};
use super::strict::TlsWish;
use super::tls_report::{self, Unopened};
use super::trust::{Obstacles, OfDomain, Rule, TlsUse, explain_recalled, recalled};
use crate::resolve::Allowance;

/// What helps where a directory names this server by a name that is not known for one of its own.
const OWN_HOST: &str = "; if the directory means this server, name it in ldap.own_hosts";

/// Addresses tried in one attempt.
const ADDRESSES_MAX: usize = 20;

#[derive(Debug)]
enum Step {
    /// Look up the hosts of a recipient domain.
    Domain(Domain),
    /// Look up the addresses of a host that DNS named.
    Found(MxHost),
    /// An address a recipient's address names.
    Literal(IpAddr),
    /// A host of the operator's.
    Chosen(SmartHost),
    /// A host of the operator's choice whose addresses are to be looked up: after its MX look-up, or
    /// because it has a port.
    ChosenName { name: Domain, port: u16, security: Option<Security> },
    /// An address of the operator's choice.
    ChosenAddress { address: IpAddr, port: u16, security: Option<Security> },
}

/// Who named an address, and how it is called.
#[derive(Clone, Debug)]
enum Named<'a> {
    /// DNS, or the recipient's address.
    ByStranger(TlsUse, Rule),
    /// The operator, perhaps as one of a smart host that has a name.
    ByOperator(Option<&'a Security>),
}

/// The security of a smart host that has a name.
#[derive(Clone, Debug)]
struct Security {
    name: SmartHostName,
    tls: TlsUse,
}

/// Of how many hosts what was said is kept for one attempt.
const SAID_MAX: usize = 5;

/// The hosts of one next hop. Also keeps why none could be used.
#[derive(Debug)]
pub(super) struct Targets {
    steps: VecDeque<Step>,
    ready: VecDeque<Target>,
    fallback: Option<(Vec<SmartHost>, DirectFirst)>,
    helo_only: bool,
    tls: Option<TlsPolicy>,
    /// What the senders of the mail want of its protection.
    pub(super) wish: TlsWish,
    /// What sessions come to is counted for the domain.
    is_counted: bool,
    /// A directory named the host.
    is_by_directory: bool,
    obstacles: Obstacles,
    /// What the recipient's domain demands of its hosts.
    of_domain: Option<OfDomain>,
    /// The limits of the route, where those of a smart host do not hold.
    limited: Option<Limited>,
    sites: Option<Sites>,
    /// The site of the mail, once it was looked up.
    site: Option<Arc<Site>>,
    /// What DNS may still be asked.
    allowance: Allowance,
    given: HashSet<SocketAddr>,
    trouble: Vec<(Ending, Option<RemoteHost>)>,
    /// What was said to hosts with which no session came about, where that is kept.
    said: Vec<(RemoteHost, String)>,
}

impl Targets {
    /// `sites` is where the hosts of a domain share limits and troubles, if they do.
    pub(super) fn new(
        route: &Route,
        limited: Option<Limited>,
        sites: Option<&Sites>,
        wish: TlsWish,
    ) -> Self {
        // Mail that goes elsewhere when its hosts fail does not wait for them.
        let sites = sites.filter(|_| matches!(route.hop, NextHop::Mx(_))).cloned();
        let mut fallback = None;
        let steps = match &route.hop {
            NextHop::Drop => VecDeque::new(),
            NextHop::Mx(domain) => [Step::Domain(domain.clone())].into(),
            NextHop::Address(address) => [Step::Literal(*address)].into(),
            NextHop::Hosts(hosts) => hosts.iter().cloned().map(Step::Chosen).collect(),
            NextHop::DirectFirst { domain, hosts, rule } => {
                fallback = Some((hosts.clone(), *rule));
                [Step::Domain(domain.clone())].into()
            }
        };
        Self {
            steps,
            ready: VecDeque::new(),
            fallback,
            helo_only: route.helo_only,
            tls: route.tls,
            wish,
            is_counted: false,
            is_by_directory: false,
            obstacles: Obstacles::default(),
            of_domain: None,
            limited,
            sites,
            site: None,
            allowance: Allowance::default(),
            given: HashSet::new(),
            trouble: Vec::new(),
            said: Vec::new(),
        }
    }

    /// The same hosts for mail whose sender wants it sent without TLS rather than not at all (RFC 8689):
    /// what their domain demands, their TLSA records and what they proved before do not count. Nothing
    /// where that makes no difference.
    pub(super) fn relaxed(&self, route: &Route, limited: Option<Limited>) -> Option<Self> {
        let may_relax = self.obstacles.by_rule && self.wish == TlsWish::Usual;
        may_relax.then(|| {
            let it = Self::new(route, limited, self.sites.as_ref(), TlsWish::Relaxed);
            it.by_directory(self.is_by_directory)
        })
    }

    /// The same, and whether what sessions come to is counted for the domain.
    pub(super) fn counted(self, is_counted: bool) -> Self {
        Self { is_counted, ..self }
    }

    /// The same, and whether a directory named the host: that it is this server is a slip then, which no
    /// mail is returned for.
    pub(super) fn by_directory(self, is_by_directory: bool) -> Self {
        Self { is_by_directory, ..self }
    }

    /// Whether it is.
    pub(super) const fn is_counted(&self) -> bool {
        self.is_counted
    }

    /// What kept hosts from being used.
    pub(super) const fn obstacles(&self) -> Obstacles {
        self.obstacles
    }

    /// The next address to try.
    pub(super) async fn next(&mut self, settings: &Settings, random: u64) -> Option<Target> {
        loop {
            while let Some(target) = self.ready.pop_front() {
                if self.given.len() < ADDRESSES_MAX && self.given.insert(target.at) {
                    return Some(target);
                }
            }
            match self.steps.pop_front() {
                Some(step) => self.take(step, settings, random).await,
                None => {
                    let (hosts, rule) = self.fallback.take()?;
                    if !self.falls_back(rule) {
                        return None;
                    }
                    self.steps.extend(hosts.into_iter().map(Step::Chosen));
                }
            }
        }
    }

    /// The site of the mail, once it was looked up.
    pub(super) fn site(&self) -> Option<&Arc<Site>> {
        self.site.as_ref()
    }

    /// Marks an address as tried: a connection to it was at hand.
    pub(super) fn mark_given(&mut self, target: &Target) {
        self.given.insert(target.at);
    }

    /// Notes why a host could not be used.
    pub(super) fn note(&mut self, ending: Ending, host: Option<RemoteHost>) {
        self.trouble.push((ending, host));
    }

    /// Notes why a target could not be used, and which rule demanded what it lacks.
    pub(super) fn note_failure(&mut self, settings: &Settings, why: Unopened, target: &Target) {
        tls_report::failed(settings, self, target, &why);
        if let Some(said) = why.said.filter(|_| self.said.len() < SAID_MAX) {
            self.said.push((target.host(), said));
        }
        let mut ending = why.ending;
        self.obstacles.note(ending.stage, &target.rule);
        if let Some(of_domain) = &self.of_domain {
            of_domain.explain(&mut ending, target);
        }
        explain_recalled(&mut ending, target);
        self.wish.judge(&mut ending);
        self.note(ending, Some(target.host()));
    }

    /// What was said to hosts with which no session came about, as far as it is kept.
    pub(super) fn said(&self) -> impl Iterator<Item = (&RemoteHost, &str)> {
        self.said.iter().map(|(host, said)| (host, said.as_str()))
    }

    /// What the recipient's domain demands of its hosts, once they were looked up.
    pub(super) const fn of_domain(&self) -> Option<&OfDomain> {
        self.of_domain.as_ref()
    }

    fn policy(&self, settings: &Settings) -> TlsPolicy {
        self.tls.unwrap_or(settings.tls_policy)
    }

    /// What to say about mail that no host could be asked about: the last "not now" if there is
    /// one, because then not all is lost, else the last refusal.
    pub(super) fn verdict(&self, at: Timestamp) -> Outcome {
        let last = |class: Class| {
            self.trouble.iter().rev().find(|(ending, _)| {
                (ending.status.class() == Class::Permanent) == (class == Class::Permanent)
            })
        };
        let worst = last(Class::Transient).or_else(|| last(Class::Permanent));
        match worst {
            Some((ending, host)) => ending.clone().into_outcome(at, host.clone()),
            None => {
                let text = "no host is known for this mail";
                Outcome::local(at, Stage::Route, EnhancedCode::transient(4, 4), text)
            }
        }
    }

    /// Whether mail that could not be sent directly goes to the smart hosts. A domain that wants no
    /// mail, or leads back to us, is not asked about elsewhere.
    fn falls_back(&self, rule: DirectFirst) -> bool {
        let refused = self.trouble.iter().any(|(ending, _)| ending.stage == Stage::Route);
        let dns = self.given.is_empty()
            && !self.trouble.is_empty()
            && self.trouble.iter().all(|(ending, _)| ending.stage == Stage::Dns);
        match rule {
            DirectFirst::Never => false,
            DirectFirst::OnDnsFailure => dns && !refused,
            DirectFirst::OnAnyTemporaryFailure => !refused,
        }
    }

    async fn take(&mut self, step: Step, settings: &Settings, random: u64) {
        match step {
            // Boxed, so that connections that carry mail hold no room for them.
            Step::Domain(domain) => Box::pin(self.look_up_domain(domain, settings, random)).await,
            Step::Found(host) => Box::pin(self.look_up_host(host, settings)).await,
            Step::Literal(address) => {
                let name = Host::Address(address);
                let tls = self.policy(settings).into();
                let by = Named::ByStranger(tls, Rule::Configured);
                self.add(settings, &name, &[address], settings.port, by);
            }
            Step::Chosen(SmartHost::Named(name)) => self.take_smart_host(&name, settings),
            Step::Chosen(SmartHost::Host { host: Host::Address(address), port }) => {
                let port = port.unwrap_or(settings.port);
                self.steps.push_front(Step::ChosenAddress { address, port, security: None });
            }
            Step::Chosen(SmartHost::Host { host: Host::Name(name), port: Some(port) }) => {
                self.steps.push_front(Step::ChosenName { name, port, security: None });
            }
            Step::Chosen(SmartHost::Host { host: Host::Name(name), port: None }) => {
                self.look_up_chosen(name, settings, random).await;
            }
            Step::ChosenAddress { address, port, security } => {
                let (name, by) = (Host::Address(address), Named::ByOperator(security.as_ref()));
                self.add(settings, &name, &[address], port, by);
            }
            Step::ChosenName { name, port, security } => {
                match self.addresses(&name, settings).await {
                    Ok(found) => {
                        let (name, by) = (Host::Name(name), Named::ByOperator(security.as_ref()));
                        self.add(settings, &name, &found, port, by);
                    }
                    // A slip in the configuration must not bounce all mail.
                    Err(error) => self.note_dns(EnhancedCode::transient(4, 3), &error),
                }
            }
        }
    }

    /// The hosts of a smart host that has a name, as it is now.
    fn take_smart_host(&mut self, name: &SmartHostName, settings: &Settings) {
        let Some(keys) = settings.smart_hosts.get(name) else {
            let text = format!("there is no smart host {name}");
            let status = EnhancedCode::transient(3, 5);
            self.note(Ending::local(Stage::Route, status, text), None);
            return;
        };
        let tls = keys.tls.into();
        for HostPort { host, port } in keys.hosts().into_iter().rev() {
            let port = port.unwrap_or(settings.port);
            let security = Some(Security { name: name.clone(), tls });
            self.steps.push_front(match host {
                Host::Name(name) => Step::ChosenName { name, port, security },
                Host::Address(address) => Step::ChosenAddress { address, port, security },
            });
        }
    }

    /// Adds addresses that may be connected to; says whether one of them is ourselves.
    fn add(
        &mut self,
        settings: &Settings,
        name: &Host,
        addresses: &[IpAddr],
        port: u16,
        by: Named<'_>,
    ) -> bool {
        let usual = || self.policy(settings).into();
        let (found_by, security, tls, rule) = match by {
            Named::ByStranger(tls, rule) => (FoundBy::Mx, None, tls, rule),
            Named::ByOperator(security) => {
                let tls = security.map_or_else(usual, |security| security.tls);
                (FoundBy::Operator, security, tls, Rule::Configured)
            }
        };
        let (tls, rule) = match self.wish {
            TlsWish::Usual => recalled(settings, name, (tls, rule), security.is_some()),
            TlsWish::Relaxed => (tls, rule),
            TlsWish::Strict => (tls.verified(), rule),
        };
        let mut ours = false;
        for &address in addresses {
            match settings.addresses.check(address, port, found_by) {
                Ok(()) => self.ready.push_back(Target {
                    name: name.clone(),
                    at: SocketAddr::new(address, port),
                    helo_only: self.helo_only,
                    tls,
                    rule: rule.clone(),
                    smart_host: security.map(|security| security.name.clone()),
                    limited: match security {
                        Some(security) => settings.limited_smart_host(&security.name),
                        None => self.limited.clone(),
                    },
                    site: self.site.clone(),
                }),
                Err(why) => {
                    ours |= why == Refused::Ourselves;
                    let (status, hint) = match why {
                        Refused::Ourselves if self.is_by_directory => {
                            (EnhancedCode::transient(4, 6), OWN_HOST)
                        }
                        Refused::Ourselves => (EnhancedCode::permanent(4, 6), ""),
                        _ => (EnhancedCode::permanent(4, 4), ""),
                    };
                    let text =
                        format!("{name} [{address}]:{port} is not connected to: {why}{hint}");
                    self.note(Ending::local(Stage::Route, status, text), None);
                }
            }
        }
        ours
    }
}
