//! How mail on a route is protected, in words: what the configuration wants, and what the recipient's
//! domain demands.

use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::config::{ServerConfig, SmartHostName};
use smtpd_core::route::dane::Demand;
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::sts::Known;
use smtpd_core::route::table::{NextHop, Route, TlsPolicy};

use super::{Shared, rules, settings};
use crate::resolve::Allowance;

/// How long a look for a policy is waited for; it goes on by itself.
const PATIENCE: Duration = Duration::from_secs(15);
/// The most hosts that are asked for.
const HOSTS_MAX: usize = 5;

/// A line for each part; none for mail that does not leave. Without `look_up` the domain is not asked,
/// and what is known of it counts.
pub(super) async fn protection(
    config: &ServerConfig,
    shared: &Shared,
    route: &Route,
    look_up: bool,
) -> Vec<String> {
    let policy = route.tls.unwrap_or_else(|| rules::tls_policy(config.delivery.security.tls));
    let mut lines = Vec::new();
    let (domain, hosts) = match &route.hop {
        NextHop::Drop => return lines,
        NextHop::Mx(domain) => (Some(domain), &[][..]),
        NextHop::DirectFirst { domain, hosts, .. } => (Some(domain), &hosts[..]),
        NextHop::Hosts(hosts) => (None, &hosts[..]),
        NextHop::Address(_) => (None, &[][..]),
    };
    let is_named = |host: &SmartHost| matches!(host, SmartHost::Named(_));
    if hosts.is_empty() || domain.is_some() || !hosts.iter().all(is_named) {
        lines.push(words(policy).to_owned());
    }
    let named = hosts.iter().filter_map(|host| match host {
        SmartHost::Named(name) => Some(name),
        SmartHost::Host { .. } => None,
    });
    lines.extend(named.filter_map(|name| of_smart_host(shared, name)));
    if let Some(domain) = domain
        && look_up
        && policy != TlsPolicy::Off
    {
        lines.extend(of_hosts(config, shared, domain, policy).await);
    }
    if let (Some(domain), Some(policies)) = (domain, &shared.mta_sts)
        && policy != TlsPolicy::Off
    {
        let known = match look_up {
            true => {
                let rule = settings::addresses(config, Vec::new());
                let asked = tokio::time::timeout(PATIENCE, policies.policy(domain, &rule)).await;
                // What is not known in time is not told.
                asked.ok().and_then(Result::ok).flatten()
            }
            false => policies.known(domain),
        };
        lines.extend(known.as_deref().map(of_policy));
    }
    lines
}

const fn words(policy: TlsPolicy) -> &'static str {
    match policy {
        TlsPolicy::Off => "off",
        TlsPolicy::Optional => "optional: under TLS where the host offers it",
        TlsPolicy::Required => "required: under TLS, with any certificate",
        TlsPolicy::Verify => "verify: under TLS, with a certificate for the host's name",
    }
}

fn of_smart_host(shared: &Shared, name: &SmartHostName) -> Option<String> {
    let keys = shared.smart_hosts.get(name)?;
    let pinned = if keys.pin.is_empty() { "" } else { ", with a key that it is pinned to" };
    Some(format!("{}{name}: {}{pinned}", SmartHostName::PREFIX, keys.tls.word()))
}

/// What the hosts of a domain must prove besides: by their TLSA records, and by what they proved before.
async fn of_hosts(
    config: &ServerConfig,
    shared: &Shared,
    domain: &Domain,
    policy: TlsPolicy,
) -> Vec<String> {
    let allowance = Allowance::default();
    let Ok(found) = shared.resolver.mx(domain, &allowance).await else { return Vec::new() };
    let mut hosts: Vec<Domain> = found.value.into_iter().filter_map(|mx| mx.exchange).collect();
    if hosts.is_empty() {
        hosts.push(domain.clone());
    }
    let mut lines = Vec::new();
    for host in hosts.iter().take(HOSTS_MAX) {
        let until = shared.recall.as_ref().and_then(|recall| recall.until(host));
        if let Some(until) = until.filter(|_| policy < TlsPolicy::Verify) {
            lines.push(format!("remembered: {host} must have a good certificate until {until}"));
        }
        if !found.is_secure || !shared.dane {
            continue;
        }
        let port = config.delivery.connections.port;
        let found = shared.resolver.tlsa(host, port, &allowance).await;
        match found.map(|found| Demand::of(found.records)) {
            Ok(None) => {}
            Ok(Some(Demand::Tls)) => {
                lines.push(format!("DANE: {host}, no TLSA record can be used, TLS is required"));
            }
            Ok(Some(Demand::Proof(usable))) => {
                lines.push(format!("DANE: {host}, {} TLSA records", usable.len()));
            }
            Err(error) => lines.push(format!("DANE: {host} gets no mail: {error}")),
        }
    }
    lines
}

fn of_policy(known: &Known) -> String {
    let hosts: Vec<String> = known.policy.mx.iter().map(ToString::to_string).collect();
    let (mode, until) = (known.policy.mode.as_str(), known.until());
    format!("MTA-STS: {mode} until {until}, hosts {}", hosts.join(" "))
}
