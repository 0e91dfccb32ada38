//! How mail on a route is protected, in words: what the configuration wants, and what the recipient's
//! domain demands.

use mailroot_common::config::{ServerConfig, SmartHostName};
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::sts::Known;
use smtpd_core::route::table::{NextHop, Route, TlsPolicy};

use super::{Shared, rules, settings};

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
    if let (Some(domain), Some(policies)) = (domain, &shared.mta_sts)
        && policy != TlsPolicy::Off
    {
        let known = match look_up {
            true => policies.policy(domain, &settings::addresses(config, Vec::new())).await,
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

fn of_policy(known: &Known) -> String {
    let hosts: Vec<String> = known.policy.mx.iter().map(ToString::to_string).collect();
    let (mode, until) = (known.policy.mode.as_str(), known.until());
    format!("MTA-STS: {mode} until {until}, hosts {}", hosts.join(" "))
}
