//! What one virtual server's keys must say together.
//!
//! Each check points at the values that contradict each other. It stays silent about keys that
//! could not be read: their own error says enough.

use std::collections::HashMap;
use std::ops::Range;

use super::access::{ListEntry, Policy, TlsMode, Who, check_tellers, check_tickets};
use super::backends;
use super::client_certificates;
use super::client_tokens;
use super::diagnostic::Diagnostic;
use super::domains::{DomainEntry, DomainName};
use super::general::{Extension, ListenTls};
use super::ldap;
use super::name::ServerName;
use super::node::{Kind, Node};
use super::section::{Profile, Reader};
use super::senders;
use super::server::ServerConfig;
use super::smart_hosts::Hop;
use super::value::Limit;
use crate::address::Host;
use crate::net::Network;

/// Checks a server that was read.
pub(super) fn check(config: &ServerConfig, server: &ServerName, node: &Node, reader: &mut Reader) {
    domains(config, node, reader);
    open_relay(config, server, reader);
    names_in_lists(config, reader);
    sizes(config, reader);
    schedules(config, reader);
    delivery(config, reader);
    general(config, reader);
    senders::check(config, reader);
    fetchers(config, reader);
    ldap::check(&config.ldap, reader);
}

/// The keys and values of the entries as they were written, read or not.
fn domain_values<'n>(node: &'n Node, wanted: &str) -> Vec<(usize, &'n Node)> {
    let Kind::Map(pairs) = &node.kind else { return Vec::new() };
    let entries = pairs.iter().find(|(key, _)| key.text == "domains");
    let items = entries.map_or(&[][..], |(_, value)| value.items());
    let mut out = Vec::new();
    for (number, item) in items.iter().enumerate() {
        if let Kind::Map(pairs) = &item.kind {
            out.extend(
                pairs.iter().filter(|(key, _)| key.text == wanted).map(|(_, v)| (number, v)),
            );
        }
    }
    out
}

fn domains(config: &ServerConfig, node: &Node, reader: &mut Reader) {
    let mut seen: HashMap<String, Range<usize>> = HashMap::new();
    for (_, value) in domain_values(node, "name") {
        let Some(name) = value.text().and_then(DomainName::parse) else { continue };
        if let Some(first) = seen.get(&name.to_string()) {
            let diagnostic = Diagnostic::error("E0401", format!("the domain {name} stands twice"))
                .at(&reader.source, value.span.clone(), "second time")
                .at(&reader.source, first.clone(), "first time")
                .help("remove one of them");
            reader.report(diagnostic);
        } else {
            seen.insert(name.to_string(), value.span.clone());
        }
    }
    let types = domain_values(node, "type");
    let defaults: Vec<_> =
        types.iter().filter(|(_, value)| value.text() == Some("default")).collect();
    if let [first, second, ..] = defaults[..] {
        let diagnostic = Diagnostic::error("E0402", "a server has one default domain")
            .at(&reader.source, second.1.span.clone(), "the second one")
            .at(&reader.source, first.1.span.clone(), "the first one")
            .help("make the others aliases:  type: alias");
        reader.report(diagnostic);
    }
    if defaults.is_empty() && all_typed(node) {
        let span = reader.origins.get("domains").cloned().unwrap_or(0..0);
        let label = if config.domains.is_empty() { "no domains" } else { "none of these" };
        let diagnostic = Diagnostic::error("E0403", "the server has no default domain")
            .at(&reader.source, span, label)
            .help("add  - {name: example.net, type: default}  to domains");
        reader.report(diagnostic);
    }
}

/// Whether every entry says what it is; one that does not may have been meant as the default.
fn all_typed(node: &Node) -> bool {
    let Kind::Map(pairs) = &node.kind else { return true };
    let Some((_, list)) = pairs.iter().find(|(key, _)| key.text == "domains") else { return true };
    let known = |node: &Node| matches!(node.text(), Some("default" | "alias" | "remote"));
    list.items().iter().all(|item| match &item.kind {
        Kind::Map(keys) => keys.iter().any(|(key, value)| key.text == "type" && known(value)),
        Kind::Scalar { .. } | Kind::List(_) => false,
    })
}

/// Finds a server that the world can reach and that relays for the world.
fn open_relay(config: &ServerConfig, server: &ServerName, reader: &mut Reader) {
    let relay = &config.access.relay;
    let listen = &config.general.listen;
    let Some(listener) = listen.iter().position(|at| !at.address.ip().is_loopback()) else {
        return;
    };
    let culprit = match relay.policy {
        Policy::Only => everyone(&relay.list).map(|at| format!("access.relay.list[{at}]")),
        Policy::AllExcept => Some("access.relay.policy".to_owned()),
    };
    let culprit = culprit.or_else(|| {
        let anybody = client_certificates::anybody_may_relay(&config.access);
        anybody.then(|| "access.relay.certificates".to_owned())
    });
    let Some(culprit) = culprit else { return };
    let Some(at) = reader.origins.get(&culprit).cloned() else { return };
    let title = format!("this makes \"{server}\" an open relay");
    let listen = reader.origins.get(&format!("general.listen[{listener}]")).cloned();
    let make = |diagnostic: Diagnostic, reader: &Reader, label: &str| {
        let diagnostic = diagnostic.at(&reader.source, at.clone(), label);
        match &listen {
            Some(span) => diagnostic.at(&reader.source, span.clone(), "reachable from other hosts"),
            None => diagnostic.note("the default of general.listen is reachable from other hosts"),
        }
    };
    let by_certificate = culprit == "access.relay.certificates";
    let label = match relay.policy {
        _ if by_certificate => "everyone may relay who has a certificate of any public authority",
        Policy::Only => "everyone may relay, without login",
        Policy::AllExcept => "everyone else may relay, without login",
    };
    let diagnostic = if relay.i_want_an_open_relay {
        make(Diagnostic::warning("W0310", title), reader, label)
            .help("remove i_want_an_open_relay unless everyone shall send through this server")
    } else {
        let help = match relay.policy {
            _ if by_certificate => "name the file of your own issuer as access.certificates.trust",
            Policy::Only => "list your own networks and remove this entry",
            Policy::AllExcept => "write  policy: only  and list your own networks",
        };
        make(Diagnostic::error("E0310", title), reader, label)
            .help(help)
            .note("to insist, add  i_want_an_open_relay: true  to access.relay")
    };
    reader.report(diagnostic);
}

/// The entry that lets everyone in, or else the widest of several that together do.
fn everyone(list: &[ListEntry]) -> Option<usize> {
    let networks: Vec<(usize, Network)> = list
        .iter()
        .enumerate()
        .filter_map(|(number, entry)| match entry.who {
            Who::Network(network) => Some((number, network)),
            Who::Name(_) | Who::Below(_) => None,
        })
        .collect();
    let all: Vec<Network> = networks.iter().map(|(_, network)| *network).collect();
    if !Network::are_everything(&all) {
        return None;
    }
    let single = networks.iter().find(|(_, network)| network.is_everything());
    single
        .or_else(|| networks.iter().min_by_key(|(_, network)| network.prefix()))
        .map(|(at, _)| *at)
}

/// A name in a list means a look-up for each connection.
fn names_in_lists(config: &ServerConfig, reader: &mut Reader) {
    for (path, list) in [
        ("access.connect.list", &config.access.connect.list),
        ("access.relay.list", &config.access.relay.list),
    ] {
        let named = list.iter().position(|entry| !matches!(entry.who, Who::Network(_)));
        let Some(number) = named else { continue };
        let Some(span) = reader.origins.get(&format!("{path}[{number}]")).cloned() else {
            continue;
        };
        let title = format!("a name in {path} costs a DNS look-up for every connection");
        let diagnostic = Diagnostic::warning("W0311", title)
            .at(&reader.source, span, "looked up by address")
            .help("list the network instead, if you know it");
        reader.report(diagnostic);
    }
}

fn sizes(config: &ServerConfig, reader: &mut Reader) {
    let messages = &config.messages;
    if let Limit::At(session) = messages.max_session_size
        && messages.max_size.value().is_none_or(|message| message > session)
    {
        let title = "one session could not send the largest message";
        let label = format!("less than max_size, which is {}", shown(messages.max_size));
        contradiction(
            reader,
            "E0406",
            title,
            "messages.max_session_size",
            "messages.max_size",
            &label,
            "raise max_session_size, or lower max_size",
        );
    }
    let connections = &config.delivery.connections;
    if let (Limit::At(all), Limit::At(domain)) = (connections.max, connections.per_domain)
        && domain > all
    {
        let title = "one domain may have more connections than there are";
        let label = format!("more than connections.max, which is {all}");
        contradiction(
            reader,
            "E0407",
            title,
            "delivery.connections.per_domain",
            "delivery.connections.max",
            &label,
            "lower per_domain, or raise max",
        );
    }
}

fn shown(limit: Limit<crate::units::ByteSize>) -> String {
    limit.value().map_or_else(|| "unlimited".to_owned(), |size| size.to_string())
}

/// Reports two keys that do not fit; points at the one that was written, rather the first.
fn contradiction(
    reader: &mut Reader,
    code: &'static str,
    title: &str,
    first: &str,
    second: &str,
    label: &str,
    help: &str,
) {
    let places = [first, second].map(|key| reader.origins.get(key).cloned());
    let mut diagnostic = Diagnostic::error(code, title);
    match places {
        [Some(at), Some(other)] => {
            diagnostic = diagnostic.at(&reader.source, at, label).at(
                &reader.source,
                other,
                "does not fit with this",
            );
        }
        [Some(at), None] => diagnostic = diagnostic.at(&reader.source, at, label),
        [None, Some(at)] => {
            let label = format!("does not fit with the default of {first}");
            diagnostic = diagnostic.at(&reader.source, at, label);
        }
        [None, None] => return,
    }
    reader.report(diagnostic.help(help));
}

fn schedules(config: &ServerConfig, reader: &mut Reader) {
    let (outbound, local) = (&config.delivery.outbound, &config.delivery.local);
    for (path, retry, notice, expire) in [
        ("delivery.outbound", &outbound.retry, outbound.delay_notice, outbound.expire),
        ("delivery.local", &local.retry, local.delay_notice, local.expire),
    ] {
        let at = |key: &str| reader.origins.get(&format!("{path}.{key}")).cloned();
        if retry.is_empty()
            && let Some(span) = at("retry")
        {
            let diagnostic = Diagnostic::error("E0408", format!("{path}.retry has no wait"))
                .at(&reader.source, span, "an empty list")
                .help("write at least one, such as 15m");
            reader.report(diagnostic);
            continue;
        }
        if notice.value().is_some_and(|notice| notice >= expire)
            && let Some(span) = at("delay_notice").or_else(|| at("expire"))
        {
            let title = format!("{path} gives up before a delay notice would be sent");
            let diagnostic = Diagnostic::warning("W0409", title)
                .at(&reader.source, span, format!("expire is {expire}"))
                .help("write  delay_notice: never, or let expire be longer");
            reader.report(diagnostic);
        }
    }
    if config.profile == Profile::Modern
        && let Some(span) = reader.origins.get("delivery.outbound.quick_retries").cloned()
    {
        let diagnostic = Diagnostic::error("E0410", "quick_retries exists in profile iis6 only")
            .at(&reader.source, span, "not in profile modern")
            .help(
                "begin delivery.outbound.retry with short waits instead, such as [1m, 1m, 1m, 15m]",
            );
        reader.report(diagnostic);
    }
}

fn delivery(config: &ServerConfig, reader: &mut Reader) {
    let delivery = &config.delivery;
    if delivery.direct_first != super::delivery::DirectFirst::Never
        && delivery.smart_host.is_empty()
        && let Some(span) = reader.origins.get("delivery.direct_first").cloned()
    {
        let diagnostic = Diagnostic::error("E0411", "direct_first needs a smart host")
            .at(&reader.source, span, "and then to which host?")
            .help("add  smart_host: relay.example.net  or remove this line");
        reader.report(diagnostic);
    }
    if delivery.masquerade_header
        && delivery.masquerade_domain.is_none()
        && let Some(span) = reader.origins.get("delivery.masquerade_header").cloned()
    {
        let diagnostic = Diagnostic::error("E0417", "masquerade_header needs masquerade_domain")
            .at(&reader.source, span, "and which domain?")
            .help("add  masquerade_domain: example.net  or remove this line");
        reader.report(diagnostic);
    }
    for (number, pair) in delivery.source.iter().enumerate() {
        let twin = delivery.source[..number].iter().any(|other| other.is_ipv4() == pair.is_ipv4());
        if twin
            && let Some(span) = reader.origins.get(&format!("delivery.source[{number}]")).cloned()
        {
            let diagnostic =
                Diagnostic::error("E0413", "one source address of each family is enough")
                    .at(&reader.source, span, "a second one of its family")
                    .help("remove it");
            reader.report(diagnostic);
        }
    }
    for (number, host) in delivery.smart_host.iter().enumerate() {
        let Hop::Host(host) = host else { continue };
        let own = config.general.listen.iter().any(|listen| {
            matches!(host.host, Host::Address(address) if listen.address.ip() == address)
                && host.port.unwrap_or(delivery.connections.port) == listen.address.port()
        });
        if own
            && let Some(span) =
                reader.origins.get(&format!("delivery.smart_host[{number}]")).cloned()
        {
            let diagnostic = Diagnostic::error("E0414", "the smart host is this server itself")
                .at(&reader.source, span, "listens here itself")
                .help("write the address of another host");
            reader.report(diagnostic);
        }
    }
}

fn general(config: &ServerConfig, reader: &mut Reader) {
    let general = &config.general;
    for (number, listen) in general.listen.iter().enumerate() {
        let address = listen.address;
        let twin = general.listen[..number].iter().position(|other| other.address == address);
        let Some(twin) = twin.filter(|_| address.port() != 0) else { continue };
        let at = |number| reader.origins.get(&format!("general.listen[{number}]")).cloned();
        if let (Some(second), Some(first)) = (at(number), at(twin)) {
            let diagnostic = Diagnostic::error("E0412", "address used twice")
                .at(&reader.source, second, "already taken")
                .at(&reader.source, first, "by this line")
                .help("remove one of them");
            reader.report(diagnostic);
        }
    }
    tls(config, reader);
    check_tickets(&config.access.integrated, reader);
    check_tellers(&config.access, reader);
    client_certificates::check(&config.access, reader);
    client_tokens::check(&config.access, reader);
    backends::check(config, reader);
    if general.listen.is_empty()
        && let Some(span) = reader.origins.get("general.listen").cloned()
    {
        let diagnostic = Diagnostic::warning("W0415", "the server listens nowhere")
            .at(&reader.source, span, "an empty list")
            .help("mail comes in through Pickup and local submission only");
        reader.report(diagnostic);
    }
    let has = |extension| general.extensions.contains(&extension);
    if has(Extension::BinaryMime)
        && !has(Extension::Chunking)
        && let Some(span) = reader.origins.get("general.extensions").cloned()
    {
        let diagnostic = Diagnostic::error("E0416", "BINARYMIME needs CHUNKING (RFC 3030)")
            .at(&reader.source, span, "CHUNKING is missing")
            .help("add CHUNKING, or remove BINARYMIME");
        reader.report(diagnostic);
    }
}

/// Whoever fetches mail logs in first.
fn fetchers(config: &ServerConfig, reader: &mut Reader) {
    if config.access.takes_logins() {
        return;
    }
    for number in 0..config.domains.len() {
        let key = format!("domains[{number}].hold.atrn_users");
        let Some(span) = reader.origins.get(&key).cloned() else { continue };
        let title = "mail is fetched by whoever has logged in, and this server takes no logins";
        let diagnostic = Diagnostic::warning("W0460", title)
            .at(&reader.source, span, "cannot log in")
            .help("write  enabled: true  below access.basic");
        reader.report(diagnostic);
    }
}

fn tls(config: &ServerConfig, reader: &mut Reader) {
    let tls = &config.access.tls;
    let mut listeners = config.general.listen.iter();
    let implicit = listeners.position(|listen| listen.tls == ListenTls::Implicit);
    if let Some(number) = implicit.filter(|_| tls.mode == TlsMode::Off)
        && let Some(span) = reader.origins.get(&format!("general.listen[{number}]")).cloned()
    {
        let title = "a listener speaks nothing but TLS, and the server has none";
        let mut diagnostic = Diagnostic::error("E0392", title).at(
            &reader.source,
            span,
            "TLS from the first octet on",
        );
        if let Some(mode) = reader.origins.get("access.tls.mode").cloned() {
            diagnostic = diagnostic.at(&reader.source, mode, "no TLS");
        }
        reader.report(diagnostic.help("write  mode: optional  below access.tls"));
    }
    let basic = &config.access.basic;
    if config.access.takes_logins() && basic.require_tls && tls.mode == TlsMode::Off {
        let title = "logins are taken under TLS alone, and the server has no TLS";
        contradiction(
            reader,
            "E0394",
            title,
            "access.tls.mode",
            config.access.first_login().unwrap_or("access.basic.enabled"),
            "never under TLS",
            "write  mode: optional  below access.tls; to insist, require_tls: false below basic",
        );
    }
    if basic.enabled
        && !basic.require_tls
        && let Some(span) = reader.origins.get("access.basic.require_tls").cloned()
    {
        let diagnostic = Diagnostic::warning("W0472", "passwords may come in clear text")
            .at(&reader.source, span, "anybody on the way can read them")
            .help("remove this line, unless a device cannot do otherwise and has a network of its own");
        reader.report(diagnostic);
    }
    if basic.mechanisms.is_empty()
        && let Some(span) = reader.origins.get("access.basic.mechanisms").cloned()
    {
        let diagnostic = Diagnostic::error("E0395", "access.basic.mechanisms names none")
            .at(&reader.source, span, "an empty list")
            .help("name at least one, or write  enabled: false");
        reader.report(diagnostic);
    }
    if !config.access.anonymous
        && !config.access.takes_logins()
        && let Some(span) = reader.origins.get("access.anonymous").cloned()
    {
        let diagnostic = Diagnostic::error("E0396", "nobody could send mail to this server")
            .at(&reader.source, span, "not without a login, and no login is taken")
            .help("write  enabled: true  below access.basic");
        reader.report(diagnostic);
    }
    if tls.certificate.is_empty()
        && let Some(span) = reader.origins.get("access.tls.certificate").cloned()
    {
        let diagnostic = Diagnostic::error("E0393", "access.tls.certificate names none")
            .at(&reader.source, span, "an empty list")
            .help(
                "name at least one, or remove the line to have one that the service makes itself",
            );
        reader.report(diagnostic);
    }
}

/// Where a domain of a server stands, for the checks between servers.
impl DomainEntry {
    /// Whether mail for it ends here.
    #[must_use]
    pub fn is_local(&self) -> bool {
        use super::domains::DomainKind;
        match self.kind {
            DomainKind::Default(_) | DomainKind::Alias => true,
            DomainKind::Remote { .. } => false,
        }
    }
}
