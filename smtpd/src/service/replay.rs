//! What another configuration would have done to mail of late.
//!
//! The facts are those of the trace, without any message; the judges are those of a session. A
//! client's name is the one that was recorded: nobody is asked again. A certificate that was good is judged by
//! its digest: it is as good where it is listed, and where the issuers are the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::config::ServerName;
use mailroot_common::config::client_certificates::{CertificateMode, ClientCertificates};
use mailroot_common::config::smart_hosts::Pin;
use mailroot_common::control::{Decision, Different, Judgement, Outcome, Replay};
use mailroot_common::units::Timestamp;
use smtpd_core::policy::{Certified, Facts, NameFact};

use super::Service;
use crate::config::Loaded;
use crate::trace::{Fact, Seen, Senders, Traffic};
use crate::virtual_server::{Court, VirtualServer};

/// How many differences are told.
const DIFFERENT_MAX: usize = 100;

type Courts = BTreeMap<ServerName, Court>;
/// The domains of mail of this machine's programs.
type MailNames = BTreeMap<ServerName, Domain>;

impl Service {
    /// What `new` would have decided otherwise than the configuration in force; nothing without a
    /// record.
    pub(super) async fn replay(&self, new: &Arc<Loaded>) -> Option<Replay> {
        if !self.0.trace.is_on() {
            return None;
        }
        let (old, new) = (self.active(), Arc::clone(new));
        let mut search = self.0.trace.search().await;
        let now = self.0.clock.now();
        let named =
            |server: &Arc<VirtualServer>| Some((server.name().clone(), server.mail_name()?));
        let mail_names: MailNames = self.all().iter().filter_map(named).collect();
        let judging = tokio::task::spawn_blocking(move || {
            let knows_senders = [&old, &new].into_iter().any(has_sender_routes);
            let senders = if knows_senders { Senders::Apart } else { Senders::Together };
            compare(
                &courts(&old, &mail_names),
                &courts(&new, &mail_names),
                Traffic::of(&mut search, senders),
                now,
            )
        });
        judging.await.ok()
    }
}

/// Whether the way of mail depends on its sender somewhere.
fn has_sender_routes(loaded: &Arc<Loaded>) -> bool {
    loaded.servers.values().any(|config| !config.delivery.sender_routes.is_empty())
}

/// The judges of the servers that are at work.
fn courts(loaded: &Loaded, mail_names: &MailNames) -> Courts {
    let enabled = loaded.servers.iter().filter(|(_, config)| config.enabled);
    let court = |(name, config): (&ServerName, _)| {
        Some((name.clone(), Court::of(config, mail_names.get(name)).ok()?))
    };
    enabled.filter_map(court).collect()
}

fn compare(old: &Courts, new: &Courts, traffic: Traffic, now: Timestamp) -> Replay {
    let mut groups: HashMap<(Fact, [String; 3]), Different> = HashMap::new();
    for (fact, seen) in traffic.facts {
        let Some((decision, before, after)) = difference(old, new, &fact, &seen, now) else {
            continue;
        };
        let is_way = decision == "route";
        let from = fact.from.clone().filter(|_| is_way);
        let fact = Fact { certificate: None, ..fact };
        let shown = match decision {
            "connect" => Fact { domain: None, user: None, from: None, ..fact },
            "route" => Fact { client: None, name: None, user: None, from: None, ..fact },
            "server" => {
                Fact { client: None, name: None, user: None, domain: None, from: None, ..fact }
            }
            _ => Fact { from: None, ..fact },
        };
        let fresh = || Different {
            server: shown.server.clone(),
            decision: decision.to_owned(),
            client: shown.client.filter(|_| !is_way).map(|client| client.to_string()),
            old: before.clone(),
            new: after.clone(),
            ..Different::default()
        };
        let key = (shown.clone(), [decision.to_owned(), before.clone(), after.clone()]);
        let group = groups.entry(key).or_insert_with(fresh);
        group.count += seen.count;
        if seen.last >= group.last {
            group.last = seen.last;
            group.to = seen.address.filter(|_| shown.domain.is_some());
            group.from = from;
        }
    }
    let mut different: Vec<Different> = groups.into_values().collect();
    different.sort_by(|a, b| (b.count, b.last, &a.to).cmp(&(a.count, a.last, &b.to)));
    let more = different.len().saturating_sub(DIFFERENT_MAX) as u64;
    different.truncate(DIFFERENT_MAX);
    Replay { since: traffic.since, events: traffic.events, different, more }
}

/// What is decided differently first: the decision, how it came out, and how it would.
fn difference(
    old: &Courts,
    new: &Courts,
    fact: &Fact,
    seen: &Seen,
    now: Timestamp,
) -> Option<(&'static str, String, String)> {
    let name = ServerName::parse(&fact.server).ok()?;
    let before = old.get(&name)?;
    let to = seen.address.as_deref().and_then(|to| Mailbox::parse(to).ok());
    let from = fact.from.as_deref().and_then(|from| ReversePath::parse(from).ok());
    let judge = |court: &Court| {
        let facts = facts(fact, court.certificates(), before.certificates());
        court.judge(facts.as_ref(), to.as_ref(), from.as_ref(), now)
    };
    let before = judge(before);
    let Some(after) = new.get(&name).map(judge) else {
        return Some(("server", "at work".to_owned(), "gone, or not enabled".to_owned()));
    };
    let judgements = |of: fn(&Decision) -> &Option<Judgement>| {
        let (before, after) = (of(&before).as_ref()?, of(&after).as_ref()?);
        (before.outcome != after.outcome).then(|| (words(before), words(after)))
    };
    if let Some((before, after)) = judgements(|decision| &decision.connect) {
        return Some(("connect", before, after));
    }
    if !is_allowed(&after.connect) {
        return None;
    }
    if let Some((before, after)) = judgements(|decision| &decision.relay) {
        return Some(("relay", before, after));
    }
    let (before, way) = (before.way?, after.way?);
    let differs = is_allowed(&after.relay) && before.route != way.route;
    differs.then_some(("route", before.hop, way.hop))
}

/// What is known of the client by these keys, where those of `then` were in force.
fn facts(fact: &Fact, keys: &ClientCertificates, then: &ClientCertificates) -> Option<Facts> {
    let client = fact.client?;
    let name = fact.name.as_deref().and_then(|name| Domain::parse(name).ok());
    let name = name.map_or(NameFact::None, |name| NameFact::Names(vec![name]));
    let certificate = fact.certificate.as_deref().and_then(Pin::parse);
    let certificate = certificate.and_then(|digest| certified(&digest, keys, then));
    let authenticated = fact.user.clone();
    Some(Facts { name, authenticated, certificate, ..Facts::of_address(client) })
}

/// What makes a certificate that was good a good one by these keys.
fn certified(
    digest: &Pin,
    keys: &ClientCertificates,
    then: &ClientCertificates,
) -> Option<Certified> {
    let is_listed =
        |keys: &ClientCertificates| keys.pinned.iter().any(|listed| listed.sha256 == *digest);
    if keys.mode == CertificateMode::Off {
        return None;
    }
    if is_listed(keys) {
        return Some(Certified::Pinned);
    }
    let is_signed = keys.trust.is_some() && keys.trust == then.trust && !is_listed(then);
    is_signed.then_some(Certified::Trusted)
}

fn is_allowed(judgement: &Option<Judgement>) -> bool {
    judgement.as_ref().is_none_or(|it| it.outcome == Outcome::Allowed)
}

fn words(judgement: &Judgement) -> String {
    format!("{} by {}", judgement.outcome.as_str(), judgement.rule)
}
