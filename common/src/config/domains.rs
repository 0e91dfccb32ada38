//! `domains:` - which domains are ours, and which are handled in a way of their own.

use std::fmt;
use std::path::PathBuf;

use super::choice::choice;
use super::delivery::{InDoubt, TlsMode};
use super::diagnostic::Diagnostic;
use super::lane_limits::LaneLimits;
use super::node::{Kind, Node};
use super::section::{Profile, Reader, Section, Setting, section};
use super::smart_hosts::Hop;
use super::value::{Limit, scalar};
use crate::address::Domain;
use crate::net::Network;
use crate::units::{ByteSize, Span};

section! {
    /// One entry as it is written; what fits its type is checked when it is read.
    pub struct DomainKeys {
        /// The domain; for remote ones *.example.net means all domains below example.net.
        name: Option<DomainName> = None, None, shown "required";
        /// default is the one domain that names the server in mail, alias another domain whose
        /// mail goes to the same Drop directory, remote a domain of other hosts.
        r#type: Option<DomainType> = None, None, shown "required";
        /// Remote only: take mail for this domain from anyone.
        relay: bool = false, false;
        /// Remote only: greet its hosts with HELO and use no extension.
        helo_only: bool = false, false;
        /// Remote only: mx, or hosts that take its mail in this order; smarthost:NAME is one of
        /// smart_hosts.
        route: DomainRoute = DomainRoute::Mx, DomainRoute::Mx;
        /// Remote only: what is done with its recipients that are in doubt, if not the same as for
        /// other domains.
        in_doubt: Option<InDoubt> = None, None, shown "delivery.outbound.in_doubt";
        /// Remote only: whether its mail goes under TLS, if not as to other domains. Smart hosts that are
        /// named have their own. Whoever fetches it by ATRN hears 530 without TLS where that is required.
        tls: Option<TlsMode> = None, None, shown "delivery.security.tls";
    }
    sections {
        /// Default only: the Drop directory.
        drop: Drop;
        /// Remote only: mail that waits until a host of the domain asks for it, or fetches it.
        hold: Hold;
        /// Remote only: how much mail goes there at once, and how fast; over all domains that the entry
        /// means.
        limits: LaneLimits;
    }
}

section! {
    /// Mail of a domain that is held until it is asked for.
    pub struct Hold {
        /// What opens the way: off is no holding. With etrn (RFC 1985) mail goes where route says once it is
        /// asked for; with atrn (RFC 2645) a host of the domain logs in and gets it over the connection it
        /// has made, from wherever that is; both is either.
        release: Release = Release::Off, Release::Off;
        /// From where it may be asked for by ETRN; empty is from anywhere, since it goes by the route of the
        /// domain whoever asks.
        etrn_from: Vec<Network> = Vec::new(), Vec::new();
        /// The users who may fetch it by ATRN, or by TURN where general.extensions has that; see
        /// access.basic for their logins.
        atrn_users: Vec<String> = Vec::new(), Vec::new();
        /// A name that ETRN can ask by, as #NAME, for the mail of several domains at once.
        queue: Option<QueueName> = None, None;
        /// How long its mail is kept, instead of delivery.outbound.expire. Nobody is told of a delay.
        keep: Span = Span::days(10), Span::days(10), in Span::hours(1)..=Span::days(365);
    }
}

choice! {
    /// What has held mail of a domain sent.
    pub enum Release {
        /// It is not held.
        Off = "off",
        /// The command ETRN (RFC 1985).
        Etrn = "etrn",
        /// The commands ATRN (RFC 2645) and TURN (RFC 821).
        Atrn = "atrn",
        /// Either.
        Both = "both",
    }
}

impl Release {
    /// Whether ETRN has mail sent.
    #[must_use]
    pub const fn by_etrn(self) -> bool {
        matches!(self, Self::Etrn | Self::Both)
    }

    /// Whether ATRN has mail sent.
    #[must_use]
    pub const fn by_atrn(self) -> bool {
        matches!(self, Self::Atrn | Self::Both)
    }

    /// What people read, such as `ETRN or ATRN`; nothing where mail is not held.
    #[must_use]
    pub const fn commands(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Etrn => Some("ETRN"),
            Self::Atrn => Some("ATRN"),
            Self::Both => Some("ETRN or ATRN"),
        }
    }
}

/// The name of a queue for ETRN: up to 64 letters, digits, dots, dashes and underscores.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QueueName(String);

impl QueueName {
    const OCTETS_MAX: usize = 64;

    /// The name, without the sign in front.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for QueueName {
    type Quantity = u8;

    fn type_name() -> String {
        "name".to_owned()
    }

    fn show(&self) -> String {
        self.0.clone()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "a name")?;
        let good = |octet: u8| octet.is_ascii_alphanumeric() || b"._-".contains(&octet);
        if (1..=Self::OCTETS_MAX).contains(&text.len()) && text.bytes().all(good) {
            return Some(Self(text.to_owned()));
        }
        let title = format!("{text:?} cannot name a queue");
        let diagnostic = reader.error_at("E0315", title, node, "not a name");
        reader.report(diagnostic.help("use letters, digits, dots and dashes; no # in front"));
        None
    }
}

section! {
    /// The directory that mail for our own domains ends in.
    pub struct Drop {
        /// The directory; a relative path lies below the mail root.
        dir: PathBuf = PathBuf::from("Drop"), PathBuf::from("Drop");
        /// How large the directory may become. Beyond it mail waits and is tried again.
        quota: Limit<ByteSize> = Limit::Unlimited, Limit::Unlimited,
            in ByteSize::kib(1)..=ByteSize::gib(1 << 20);
        /// One .eml file for each message, or a maildir.
        format: DropFormat = DropFormat::Eml, DropFormat::Eml;
    }
}

choice! {
    /// How a message lies in Drop.
    pub enum DropFormat {
        /// One file for each message, as in the original.
        Eml = "eml",
        /// A maildir with `tmp`, `new` and `cur`.
        Maildir = "maildir",
    }
}

choice! {
    /// What a domain is to the server.
    pub enum DomainType {
        /// Our own; exactly one.
        Default = "default",
        /// Our own under another name.
        Alias = "alias",
        /// Another's.
        Remote = "remote",
    }
}

/// A domain, or all domains below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DomainName {
    /// This domain.
    Exact(Domain),
    /// All domains below this one, but not it; written `*.example.net`.
    Below(Domain),
}

impl DomainName {
    /// Reads a domain or `*.` and a domain.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(rest) => Domain::parse(rest).ok().map(Self::Below),
            None => Domain::parse(text).ok().map(Self::Exact),
        }
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => domain.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// Where mail for a remote domain goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DomainRoute {
    /// To the hosts found by DNS, also where the server has a smart host.
    Mx,
    /// To these hosts, in this order.
    Hosts(Vec<Hop>),
}

/// A domain of a virtual server.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainEntry {
    /// The domain.
    pub name: DomainName,
    /// What it is to the server.
    pub kind: DomainKind,
}

/// What a domain is to the server, with what belongs to that.
#[derive(Clone, Debug, PartialEq)]
pub enum DomainKind {
    /// Our own; exactly one for each server.
    Default(Drop),
    /// Our own under another name.
    Alias,
    /// Another's.
    Remote {
        /// Take mail for it from anyone.
        relay: bool,
        /// Greet its hosts with HELO.
        helo_only: bool,
        /// Where its mail goes.
        route: DomainRoute,
        /// What is done with recipients in doubt, if not what the server says.
        in_doubt: Option<InDoubt>,
        /// Whether its mail goes under TLS, if not as the server says.
        tls: Option<TlsMode>,
        /// Whether its mail waits to be asked for.
        hold: Hold,
        /// How much mail goes there.
        limits: LaneLimits,
    },
}

impl Setting for DomainName {
    type Quantity = u8;

    fn type_name() -> String {
        "domain name, or *.domain".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = scalar(node, reader, "a domain")?;
        let name = Self::parse(text);
        if name.is_none() {
            let title = format!("{text:?} is not a good domain name");
            let diagnostic = reader.error_at("E0301", title, node, "cannot be read");
            reader.report(
                diagnostic.help("write example.net, or \"*.example.net\" for all domains below it"),
            );
        }
        name
    }
}

impl Setting for DomainRoute {
    type Quantity = u8;

    fn type_name() -> String {
        "mx, or list: host".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::Mx => "mx".to_owned(),
            Self::Hosts(hosts) => hosts.show(),
        }
    }

    fn items(&self) -> Vec<String> {
        match self {
            Self::Mx => Vec::new(),
            Self::Hosts(hosts) => hosts.items(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if node.text() == Some("mx") {
            return Some(Self::Mx);
        }
        let hosts = Vec::<Hop>::read(node, reader)?;
        if hosts.is_empty() {
            let diagnostic = reader.error_at("E0303", "no host is named", node, "an empty list");
            reader.report(diagnostic.help("write mx, or at least one host"));
            return None;
        }
        Some(Self::Hosts(hosts))
    }
}

/// TLS that could never come about, or that would not be what is said.
fn check_tls(keys: &DomainKeys, path: &str, reader: &mut Reader) {
    let span = reader.origins.get(&format!("{path}.tls")).cloned();
    let (Some(tls), Some(span)) = (keys.tls, span) else { return };
    if keys.helo_only && matches!(tls, TlsMode::Required | TlsMode::Verify) {
        let title = "HELO knows no STARTTLS, and this domain's mail is to go under TLS";
        let diagnostic = Diagnostic::error("E0435", title)
            .at(&reader.source, span.clone(), "can never be")
            .help("remove helo_only, or write  tls: off");
        reader.report(diagnostic);
    }
    let is_named = |hop: &Hop| matches!(hop, Hop::SmartHost(_));
    if matches!(&keys.route, DomainRoute::Hosts(hops) if hops.iter().all(is_named)) {
        let title = "a smart host that has a name has its own security";
        let diagnostic = Diagnostic::error("E0436", title)
            .at(&reader.source, span, "does not count for it")
            .help("remove this line, and set tls of the smart host: smtpctl smarthost set");
        reader.report(diagnostic);
    }
}

/// Rules for mail that is not held, or not for this command.
fn check_hold(keys: &DomainKeys, path: &str, reader: &mut Reader) {
    if keys.r#type != Some(DomainType::Remote) {
        return;
    }
    let release = keys.hold.release;
    let span =
        |key: &str, reader: &Reader| reader.origins.get(&format!("{path}.hold.{key}")).cloned();
    for (key, counts, wanted) in [
        ("etrn_from", release.by_etrn(), "etrn"),
        ("queue", release.by_etrn(), "etrn"),
        ("atrn_users", release.by_atrn(), "atrn"),
        ("keep", release != Release::Off, "etrn"),
    ] {
        let Some(span) = span(key, reader).filter(|_| !counts) else { continue };
        let diagnostic = match release {
            Release::Off => {
                let title = "mail of this domain is not held until it is asked for";
                let help = format!("write  release: {wanted}  beside it, or remove it");
                Diagnostic::error("E0437", title)
                    .at(&reader.source, span, "is about held mail")
                    .help(help)
            }
            Release::Etrn | Release::Atrn | Release::Both => {
                let title = format!("{wanted} does not have mail of this domain sent");
                Diagnostic::error("E0360", title)
                    .at(&reader.source, span, "is about that command")
                    .help("write  release: both,  or remove it")
            }
        };
        reader.report(diagnostic);
    }
    if let Some(span) = span("release", reader)
        && release.by_atrn()
        && keys.hold.atrn_users.is_empty()
    {
        let diagnostic = Diagnostic::error("E0361", "nobody may fetch mail of this domain")
            .at(&reader.source, span, "needs a user")
            .help("name who may: atrn_users: NAME; the user is made by smtpctl user add NAME");
        reader.report(diagnostic);
    }
}

impl DomainEntry {
    /// Reads one item of the list.
    pub(crate) fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            let diagnostic =
                reader.error_at("E0105", "a domain has keys of its own", node, "no key: value");
            reader.report(diagnostic.help("write {name: example.org, type: alias}"));
            return None;
        };
        let found = reader.diagnostics.len();
        let mut keys = DomainKeys::defaults(reader.profile);
        keys.read(node, path, reader);
        for key in ["name", "type"] {
            if !reader.origins.contains_key(&format!("{path}.{key}")) {
                let diagnostic =
                    reader.error_at("E0104", format!("this domain has no {key}"), node, "not said");
                reader.report(diagnostic.help("write {name: example.org, type: alias}"));
            }
        }
        check_tls(&keys, path, reader);
        check_hold(&keys, path, reader);
        let (name, kind) = (keys.name?, keys.r#type?);
        let foreign: &[&str] = match kind {
            DomainType::Default => {
                &["relay", "helo_only", "route", "in_doubt", "tls", "hold", "limits"]
            }
            DomainType::Alias => {
                &["drop", "relay", "helo_only", "route", "in_doubt", "tls", "hold", "limits"]
            }
            DomainType::Remote => &["drop"],
        };
        for key in foreign {
            if let Some(span) = reader.origins.get(&format!("{path}.{key}")).cloned() {
                let title = format!("{key} is no setting of a domain of type {}", kind.word());
                let label = format!("belongs to another type than {}", kind.word());
                let diagnostic = Diagnostic::error("E0404", title).at(&reader.source, span, label);
                reader.report(diagnostic.help("remove it, or change the type"));
            }
        }
        if matches!(name, DomainName::Below(_)) && kind != DomainType::Remote {
            let title = "only a remote domain may have a wildcard";
            let span = reader.origins[&format!("{path}.name")].clone();
            let diagnostic = Diagnostic::error("E0405", title).at(
                &reader.source,
                span,
                "names no single domain",
            );
            reader.report(diagnostic.help("name each of your own domains"));
        }
        if reader.diagnostics.len() > found {
            return None;
        }
        let kind = match kind {
            DomainType::Default => DomainKind::Default(keys.drop),
            DomainType::Alias => DomainKind::Alias,
            DomainType::Remote => DomainKind::Remote {
                relay: keys.relay,
                helo_only: keys.helo_only,
                route: keys.route,
                in_doubt: keys.in_doubt,
                tls: keys.tls,
                hold: keys.hold,
                limits: keys.limits,
            },
        };
        Some(Self { name, kind })
    }

    /// The keys of an entry with their values, as they are written.
    pub(crate) fn keys(&self) -> DomainKeys {
        let mut keys = DomainKeys::defaults(Profile::Modern);
        keys.name = Some(self.name.clone());
        keys.r#type = Some(match &self.kind {
            DomainKind::Default(drop) => {
                keys.drop = drop.clone();
                DomainType::Default
            }
            DomainKind::Alias => DomainType::Alias,
            DomainKind::Remote { relay, helo_only, route, in_doubt, tls, hold, limits } => {
                keys.relay = *relay;
                keys.helo_only = *helo_only;
                keys.route = route.clone();
                keys.in_doubt = *in_doubt;
                keys.tls = *tls;
                keys.hold = hold.clone();
                keys.limits = limits.clone();
                DomainType::Remote
            }
        });
        keys
    }
}
