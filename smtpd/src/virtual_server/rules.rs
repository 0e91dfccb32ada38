//! From the configuration to the rules of `smtpd-core`.
//!
//! The configuration says what an administrator wrote; the rules take what they need of it, so
//! that they can be tested without a file. This is the only place where one becomes the other.

use mailroot_common::address::Domain;
use mailroot_common::config::access::{self, ListEntry, Policy, Who};
use mailroot_common::config::domains::{Hold, Release};
use mailroot_common::config::{
    DomainEntry, DomainKind, DomainName, DomainRoute, Hop, HostPort, Limit, Profile, ServerConfig,
    delivery, sender_route, submission,
};
use mailroot_common::units::Span;
use smtpd_core::policy::access::{Entry, Line, List, Mode};
use smtpd_core::policy::connect::ConnectPolicy;
use smtpd_core::policy::hits::Tally;
use smtpd_core::policy::limit::ConnectionLimits;
use smtpd_core::policy::relay::{RelayCertificates, RelayPolicy};
use smtpd_core::policy::submission::SenderPolicy;
use smtpd_core::queue::dispose::InDoubtPolicy;
use smtpd_core::queue::retry::{Quick, Schedule, Schedules};
use smtpd_core::route::domain::{Held, Limits, Pattern, RemoteDomain, RemoteRoute};
use smtpd_core::route::sender::SenderRules;
use smtpd_core::route::smart_host::SmartHost;
use smtpd_core::route::table::{self, DirectFirst, SenderRoute, Table, TableError, TlsPolicy};

use crate::receive::Tallies;

/// The wait of profile `iis6` before the list of waits begins (`GlitchRetrySeconds`).
const QUICK_WAIT: Span = Span::seconds(60);
/// How much chance adds to a wait, so that mail deferred together does not come back together.
const JITTER_PERCENT: u8 = 10;

/// The route table; mail to the name of this machine in mail ends here as well, unless the
/// configuration has an entry for it.
///
/// # Errors
///
/// [`TableError`] if domains contradict each other; the check of the configuration finds these
/// first, with their places.
pub(super) fn table(
    config: &ServerConfig,
    default: &Domain,
    mail_name: Option<&Domain>,
) -> Result<Table, TableError> {
    let exact = |entry: &DomainEntry| match &entry.name {
        DomainName::Exact(domain) => Some(domain.clone()),
        DomainName::Below(_) => None,
    };
    let aliases = config.domains.iter().filter(|entry| matches!(entry.kind, DomainKind::Alias));
    let is_entry =
        |name: &&Domain| config.domains.iter().any(|it| exact(it).as_ref() == Some(*name));
    let mail_name = mail_name.filter(|name| !is_entry(name)).cloned();
    Table::new(table::Settings {
        default_domain: default.clone(),
        alias_domains: aliases.filter_map(exact).chain(mail_name).collect(),
        remote_domains: config.domains.iter().filter_map(remote_domain).collect(),
        smart_hosts: smart_hosts(&config.delivery.smart_host),
        direct_first: match config.delivery.direct_first {
            delivery::DirectFirst::Never => DirectFirst::Never,
            delivery::DirectFirst::OnDnsFailure => DirectFirst::OnDnsFailure,
            delivery::DirectFirst::OnAnyTemporaryFailure => DirectFirst::OnAnyTemporaryFailure,
        },
        sender_routes: config.delivery.sender_routes.iter().map(sender_route).collect(),
    })
}

fn sender_route(rule: &sender_route::SenderRoute) -> SenderRoute {
    SenderRoute { from: rule.from.clone(), route: remote_route(&rule.route) }
}

fn remote_route(route: &DomainRoute) -> RemoteRoute {
    match route {
        DomainRoute::Mx => RemoteRoute::Mx,
        DomainRoute::Hosts(hosts) => RemoteRoute::Hosts(smart_hosts(hosts)),
    }
}

/// Under which addresses senders are known to other hosts.
pub(super) fn senders(config: &ServerConfig) -> SenderRules {
    let delivery = &config.delivery;
    SenderRules {
        rules: delivery.sender_rewrite.clone(),
        masquerade: delivery.masquerade_domain.clone(),
        masquerade_header: delivery.masquerade_header,
    }
}

/// The domain of the type `default`; a checked configuration has exactly one.
pub(super) fn default_domain(config: &ServerConfig) -> Option<&Domain> {
    config.domains.iter().find_map(|entry| match (&entry.kind, &entry.name) {
        (DomainKind::Default(_), DomainName::Exact(domain)) => Some(domain),
        _ => None,
    })
}

/// The domains whose mail ends here, the default one first.
pub(super) fn local_domains(config: &ServerConfig) -> Vec<Domain> {
    let of_kind = |entry: &DomainEntry| match (&entry.kind, &entry.name) {
        (DomainKind::Alias, DomainName::Exact(domain)) => Some(domain.clone()),
        _ => None,
    };
    let aliases = config.domains.iter().filter_map(of_kind);
    default_domain(config).cloned().into_iter().chain(aliases).collect()
}

fn remote_domain(entry: &DomainEntry) -> Option<RemoteDomain> {
    let DomainKind::Remote { relay, helo_only, route, in_doubt, tls, hold, limits } = &entry.kind
    else {
        return None;
    };
    Some(RemoteDomain {
        pattern: match &entry.name {
            DomainName::Exact(domain) => Pattern::Exact(domain.clone()),
            DomainName::Below(domain) => Pattern::Below(domain.clone()),
        },
        relay: *relay,
        helo_only: *helo_only,
        route: remote_route(route),
        in_doubt: in_doubt.map(self::in_doubt),
        tls: tls.map(tls_policy),
        held: held(hold),
        limits: Limits {
            connections: limits.connections,
            rate: limits.rate,
            recipients: limits.recipients,
        },
    })
}

/// How mail of a domain waits until it is asked for.
fn held(hold: &Hold) -> Option<Held> {
    (hold.release != Release::Off).then(|| Held {
        by_etrn: hold.release.by_etrn(),
        asked_from: hold.etrn_from.clone(),
        queue: hold.queue.as_ref().map(|queue| queue.as_str().to_owned()),
        fetchers: hold.atrn_users.clone(),
        keep: hold.keep,
    })
}

/// Which senders users of this machine may give.
pub(super) const fn sender_policy(written: submission::SenderPolicy) -> SenderPolicy {
    match written {
        submission::SenderPolicy::Any => SenderPolicy::Any,
        submission::SenderPolicy::OwnDomain => SenderPolicy::OwnDomain,
        submission::SenderPolicy::LoginName => SenderPolicy::LoginName,
    }
}

/// What is done with recipients that may or may not have a message.
pub(super) const fn in_doubt(written: delivery::InDoubt) -> InDoubtPolicy {
    match written {
        delivery::InDoubt::Retry => InDoubtPolicy::Retry,
        delivery::InDoubt::Hold => InDoubtPolicy::Hold,
        delivery::InDoubt::Return => InDoubtPolicy::Return,
    }
}

/// How mail is protected.
pub(super) const fn tls_policy(written: delivery::TlsMode) -> TlsPolicy {
    match written {
        delivery::TlsMode::Off => TlsPolicy::Off,
        delivery::TlsMode::Optional => TlsPolicy::Optional,
        delivery::TlsMode::Required => TlsPolicy::Required,
        delivery::TlsMode::Verify => TlsPolicy::Verify,
    }
}

/// Hosts of the operator's choice.
pub(super) fn smart_hosts(hops: &[Hop]) -> Vec<SmartHost> {
    let smart_host = |hop: &Hop| match hop {
        Hop::Host(HostPort { host, port }) => SmartHost::Host { host: host.clone(), port: *port },
        Hop::SmartHost(name) => SmartHost::Named(name.clone()),
    };
    hops.iter().map(smart_host).collect()
}

/// Who may connect.
pub(super) fn connect_policy(config: &ServerConfig) -> ConnectPolicy {
    let connect = &config.access.connect;
    ConnectPolicy { list: list(connect.policy, &connect.list) }
}

/// Who may relay.
pub(super) fn relay_policy(config: &ServerConfig) -> RelayPolicy {
    let relay = &config.access.relay;
    RelayPolicy {
        list: list(relay.policy, &relay.list),
        authenticated: relay.authenticated,
        certificates: match relay.certificates {
            access::RelayCertificates::None => RelayCertificates::None,
            access::RelayCertificates::Pinned => RelayCertificates::Pinned,
            access::RelayCertificates::Trusted => RelayCertificates::Trusted,
        },
        anonymous: config.access.anonymous,
    }
}

fn list(policy: Policy, entries: &[ListEntry]) -> List {
    let mode = match policy {
        Policy::Only => Mode::Only,
        Policy::AllExcept => Mode::AllExcept,
    };
    let line = |written: &ListEntry| Line { entry: entry(written), until: written.until };
    List { mode, lines: entries.iter().map(line).collect() }
}

/// An entry of a list.
pub(super) fn entry(entry: &ListEntry) -> Entry {
    match &entry.who {
        Who::Network(network) => Entry::Network(*network),
        Who::Name(domain) => Entry::Name(Pattern::Exact(domain.clone())),
        Who::Below(domain) => Entry::Name(Pattern::Below(domain.clone())),
    }
}

/// Counters of both lists; those of entries that stay go on.
pub(super) fn tallies(before: &Tallies, config: &ServerConfig) -> Tallies {
    let following = |tally: &Tally, list: &[ListEntry]| tally.following(list.iter().map(entry));
    Tallies {
        connect: following(&before.connect, &config.access.connect.list),
        relay: following(&before.relay, &config.access.relay.list),
    }
}

/// How many sessions there may be.
pub(super) fn connection_limits(config: &ServerConfig) -> ConnectionLimits {
    ConnectionLimits {
        total: config.general.max_connections.value(),
        per_client: config.general.max_connections_per_client.value(),
    }
}

/// When mail is tried again and given up.
pub(super) fn schedules(config: &ServerConfig) -> Schedules {
    let (outbound, local) = (&config.delivery.outbound, &config.delivery.local);
    let quick = (config.profile == Profile::Iis6 && outbound.quick_retries > 0)
        .then_some(Quick { count: outbound.quick_retries, wait: QUICK_WAIT });
    Schedules {
        outbound: Schedule {
            retry: outbound.retry.clone(),
            quick,
            delay_notice: outbound.delay_notice.value(),
            expire: outbound.expire,
            jitter_percent: JITTER_PERCENT,
        },
        local: Schedule {
            retry: local.retry.clone(),
            quick: None,
            delay_notice: local.delay_notice.value(),
            expire: local.expire,
            jitter_percent: JITTER_PERCENT,
        },
    }
}

/// A limit of octets as a number; `unlimited` is the largest.
pub(super) fn octets(limit: Limit<mailroot_common::units::ByteSize>) -> u64 {
    limit.value().map_or(u64::MAX, mailroot_common::units::ByteSize::as_u64)
}
