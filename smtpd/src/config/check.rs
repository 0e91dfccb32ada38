//! What the files must say together: no address, no mail root and no Drop directory twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailroot_common::config::tls::CertificateName;
use mailroot_common::config::{
    Diagnostic, DomainKind, DomainRoute, Hop, ServerConfig, ServerName, ServiceConfig,
    SmartHostName, closest,
};

use super::paths::Paths;

/// All contradictions between the servers.
pub(super) fn check_together(
    paths: &Paths,
    service: &ServiceConfig,
    servers: &BTreeMap<ServerName, Arc<ServerConfig>>,
) -> Vec<Diagnostic> {
    let mut out = Vec::new();
    addresses(servers, &mut out);
    roots(paths, service, servers, &mut out);
    ends(paths, service, servers, &mut out);
    smart_hosts(service, servers, &mut out);
    certificates(service, servers, &mut out);
    tls_reports(service, servers, &mut out);
    submission(service, servers, &mut out);
    out
}

/// The virtual server that takes mail of this machine's programs must be there.
fn submission(
    service: &ServiceConfig,
    servers: &BTreeMap<ServerName, Arc<ServerConfig>>,
    out: &mut Vec<Diagnostic>,
) {
    let named = service.submission.server.as_ref().filter(|name| !servers.contains_key(*name));
    let (Some(name), Some(source)) = (named, service.origins.source()) else { return };
    let words: Vec<&str> = servers.keys().map(ServerName::as_str).collect();
    let help = match closest(name.as_str(), &words) {
        Some(near) => format!("did you mean {near}?"),
        None => "name one of smtpctl server list, or leave submission.server out".to_owned(),
    };
    let title =
        format!("there is no virtual server {name} to take mail of this machine's programs");
    let span = service.origins.span("submission.server");
    out.push(Diagnostic::error("E0351", title).at(source, span, "not there").help(help));
}

/// Whether the system could not bind both.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    // A socket of all IPv6 addresses takes IPv4 as well on Linux.
    let covers = |wide: std::net::IpAddr, narrow: std::net::IpAddr| {
        wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    one.port() != 0 && one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

fn addresses(servers: &BTreeMap<ServerName, Arc<ServerConfig>>, out: &mut Vec<Diagnostic>) {
    let mut taken: Vec<(SocketAddr, &ServerName, usize)> = Vec::new();
    for (name, config) in servers.iter().filter(|(_, config)| config.enabled) {
        for (number, listen) in config.general.listen.iter().enumerate() {
            let address = &listen.address;
            let earlier =
                taken.iter().find(|(other, owner, _)| *owner != name && collide(*address, *other));
            if let Some((_, owner, other_number)) = earlier {
                let diagnostic = Diagnostic::error("E0412", "address used twice");
                let diagnostic = point(diagnostic, config, number, "already taken", name);
                let label = format!("by server \"{owner}\"");
                out.push(point(diagnostic, &servers[*owner], *other_number, &label, owner));
            } else {
                taken.push((*address, name, number));
            }
        }
    }
}

/// Points at a listener, or says that it is a default.
fn point(
    diagnostic: Diagnostic,
    config: &ServerConfig,
    number: usize,
    label: &str,
    name: &ServerName,
) -> Diagnostic {
    let key = format!("general.listen[{number}]");
    match config.origins.source() {
        Some(source) if config.origins.has(&key) => {
            diagnostic.at(source, config.origins.span(&key), label)
        }
        _ => {
            let address = config.general.listen[number].address;
            diagnostic.note(format!(
                "server \"{name}\" does not set general.listen; {address} is its default"
            ))
        }
    }
}

fn roots(
    paths: &Paths,
    service: &ServiceConfig,
    servers: &BTreeMap<ServerName, Arc<ServerConfig>>,
    out: &mut Vec<Diagnostic>,
) {
    let mut seen: Vec<(PathBuf, &ServerName)> = Vec::new();
    for (name, config) in servers {
        let root = plain(&paths.mail_root(service, name, config));
        let near =
            seen.iter().find(|(other, _)| root.starts_with(other) || other.starts_with(&root));
        if let Some((other, owner)) = near {
            let title =
                format!("the mail roots of \"{owner}\" and \"{name}\" lie within each other");
            let mut diagnostic = Diagnostic::error("E0423", title)
                .help("give each server a directory of its own, or leave store.root out")
                .note(format!("they are {} and {}", other.display(), root.display()));
            for (at, label) in [(name, "this root"), (*owner, "and this one")] {
                let origins = &servers[at].origins;
                if let Some(source) = origins.source().filter(|_| origins.has("store.root")) {
                    diagnostic = diagnostic.at(source, origins.span("store.root"), label);
                }
            }
            out.push(diagnostic);
        }
        seen.push((root, name));
    }
}

/// Drop and Badmail must not be where mail comes in or waits, nor where each other is: it would be sent
/// again and again, or be purged.
fn ends(
    paths: &Paths,
    service: &ServiceConfig,
    servers: &BTreeMap<ServerName, Arc<ServerConfig>>,
    out: &mut Vec<Diagnostic>,
) {
    let inner: Vec<(PathBuf, &ServerName, &str)> = servers
        .iter()
        .flat_map(|(name, config)| {
            let root = paths.mail_root(service, name, config);
            let badmail = (plain(&root.join(&config.messages.badmail.dir)), name, BADMAIL_DIR);
            let on_its_way = ["Pickup", "Queue"].map(|part| (plain(&root.join(part)), name, ""));
            on_its_way.into_iter().chain([badmail])
        })
        .collect();
    for (name, config) in servers {
        let root = paths.mail_root(service, name, config);
        let drops = config.domains.iter().enumerate().filter_map(|(number, entry)| {
            let DomainKind::Default(drop) = &entry.kind else { return None };
            Some(("Drop", format!("domains[{number}].drop.dir"), &drop.dir))
        });
        let badmail = ("Badmail", BADMAIL_DIR.to_owned(), &config.messages.badmail.dir);
        for (what, key, dir) in drops.chain([badmail]) {
            let dir = plain(&root.join(dir));
            let clash = inner.iter().find(|(other, owner, owns)| {
                (dir.starts_with(other) || other.starts_with(&dir))
                    && !(*owner == name && *owns == key)
            });
            let Some((other, owner, _)) = clash else { continue };
            let title = format!("{what} may not be {}", other.display());
            let short = key.rsplit('.').take(2).collect::<Vec<_>>();
            let short = format!("{}.{}", short[1], short[0]);
            let mut diagnostic = Diagnostic::error("E0424", title)
                .help(format!("name another directory, or leave {short} out"))
                .note(format!("server \"{owner}\" keeps mail there"));
            if let Some(source) = config.origins.source() {
                diagnostic = diagnostic.at(source, config.origins.span(&key), "in use");
            }
            out.push(diagnostic);
        }
    }
}

const BADMAIL_DIR: &str = "messages.badmail.dir";

/// A smart host that is named must be there.
fn smart_hosts(
    service: &ServiceConfig,
    servers: &BTreeMap<ServerName, Arc<ServerConfig>>,
    out: &mut Vec<Diagnostic>,
) {
    let known: Vec<&str> = service.smart_hosts.keys().map(SmartHostName::as_str).collect();
    let help = |name: &SmartHostName| match closest(name.as_str(), &known) {
        Some(near) => format!("did you mean smarthost:{near}?"),
        None => format!("add it:  smtpctl smarthost set HOST:PORT --name {name}"),
    };
    for config in servers.values() {
        let routes = config.domains.iter().enumerate().filter_map(|(number, entry)| {
            let DomainKind::Remote { route: DomainRoute::Hosts(hops), .. } = &entry.kind else {
                return None;
            };
            Some((format!("domains[{number}].route"), hops))
        });
        let rules = config.delivery.sender_routes.iter().enumerate();
        let of_senders = rules.filter_map(|(number, rule)| match &rule.route {
            DomainRoute::Hosts(hops) => Some((format!("delivery.sender_routes[{number}]"), hops)),
            DomainRoute::Mx => None,
        });
        let own = ("delivery.smart_host".to_owned(), &config.delivery.smart_host);
        for (key, hops) in routes.chain(of_senders).chain([own]) {
            for (number, hop) in hops.iter().enumerate() {
                let Hop::SmartHost(name) = hop else { continue };
                let Some(source) = config.origins.source() else { continue };
                if service.smart_hosts.contains_key(name) {
                    continue;
                }
                let item = format!("{key}[{number}]");
                let span =
                    config.origins.span(if config.origins.has(&item) { &item } else { &key });
                let title = format!("there is no smart host {name}");
                let diagnostic =
                    Diagnostic::error("E0431", title).at(source, span, "not in smart_hosts");
                out.push(diagnostic.help(help(name)));
            }
        }
    }
}

/// A certificate that is named must be there.
fn certificates(
    service: &ServiceConfig,
    servers: &BTreeMap<ServerName, Arc<ServerConfig>>,
    out: &mut Vec<Diagnostic>,
) {
    let known = &service.tls.certificates.0;
    let words: Vec<&str> = known.keys().map(CertificateName::as_str).chain(["auto"]).collect();
    for config in servers.values() {
        let Some(source) = config.origins.source() else { continue };
        for (number, name) in config.access.tls.certificate.iter().enumerate() {
            if name.is_auto() || known.contains_key(name) {
                continue;
            }
            let (key, item) =
                ("access.tls.certificate", format!("access.tls.certificate[{number}]"));
            let span = config.origins.span(if config.origins.has(&item) { &item } else { key });
            let help = match closest(name.as_str(), &words) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("add it:  smtpctl cert install {name} --chain FILE --key FILE"),
            };
            let title = format!("there is no certificate {name}");
            let diagnostic =
                Diagnostic::error("E0391", title).at(source, span, "not in tls.certificates");
            out.push(diagnostic.help(help));
        }
    }
}

/// Reports need somebody who answers for them, and a virtual server to leave by.
fn tls_reports(
    service: &ServiceConfig,
    servers: &BTreeMap<ServerName, Arc<ServerConfig>>,
    out: &mut Vec<Diagnostic>,
) {
    let (keys, origins) = (&service.tls.reports, &service.origins);
    let Some(source) = origins.source() else { return };
    if keys.enabled && keys.contact.is_none() {
        let span = origins.span("tls.reports.enabled");
        let diagnostic = Diagnostic::error("E0104", "tls.reports.contact is missing")
            .at(source, span, "who answers for reports?")
            .help("add  contact: NAME@DOMAIN  below tls.reports");
        out.push(diagnostic);
    }
    if let Some(name) = keys.server.as_ref().filter(|name| !servers.contains_key(*name)) {
        let names: Vec<&str> = servers.keys().map(ServerName::as_str).collect();
        let span = origins.span("tls.reports.server");
        let diagnostic = Diagnostic::error("E0373", format!("there is no virtual server {name}"))
            .at(source, span, "not in servers.d");
        out.push(match closest(name.as_str(), &names) {
            Some(near) => diagnostic.help(format!("did you mean {near}?")),
            None => diagnostic.help("smtpctl server list names them"),
        });
    }
}

/// A path without `.` and doubled slashes; `..` is refused where paths are read.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}
