//! `access:` - who may connect and who may relay.

use std::fmt;

use super::backends::{Backend, PamService};
use super::choice::choice;
use super::client_certificates::ClientCertificates;
use super::client_tokens::ClientTokens;
use super::diagnostic::Diagnostic;
use super::node::{Kind, Node};
use super::section::{Reader, Setting, section};
use super::tls::{CertificateName, TlsVersion};
use super::value::{Wait, scalar};
use crate::address::Domain;
use crate::net::{Network, NetworkError};
use crate::rate::Rate;
use crate::units::{Span, Timestamp};

section! {
    /// Who may connect, and who may send mail onward.
    pub struct Access {
        /// Look up the name of each client by its address and compare it with what it said in
        /// HELO. A difference is marked in the Received field; it never refuses mail.
        reverse_dns: bool = false, false;
        /// Take mail from clients that have not logged in. Without it mail from the Internet stays
        /// out.
        anonymous: bool = true, true;
        /// Balancers: addresses and networks that tell the client's address ahead of its words, by the
        /// PROXY protocol (version 1 or 2). From these a connection without that is closed. None of
        /// their own addresses counts for a client, nor does one that they do not tell.
        proxy_from: Vec<Network> = Vec::new(), Vec::new();
        /// Hosts that may tell for whom they speak, by XCLIENT as Postfix knows it: addresses and networks.
        /// NAME, ADDR, PORT, PROTO and HELO are taken; the client is judged by its address, its name is looked
        /// up here, and LOGIN is refused: nobody is logged in by another's word. Connections are
        /// counted for the host itself, those of a quota for the client. Such a host may tell again at any
        /// time but within a message: it must not pass on its clients' own commands without looking at
        /// them, or each of them may name any address as its own.
        xclient_from: Vec<Network> = Vec::new(), Vec::new();
    }
    sections {
        /// Logins with a name and a password.
        basic: Basic;
        /// Logins with a ticket of Kerberos.
        integrated: Integrated;
        /// What clients prove by certificates.
        certificates: ClientCertificates;
        /// Logins with a token that somebody else gave.
        tokens: ClientTokens;
        /// What becomes of logins that are wrong.
        auth_failures: AuthFailures;
        /// How clients come under TLS.
        tls: AccessTls;
        /// Which clients may open a session.
        connect: Connect;
        /// Which clients may send mail to domains that are not ours.
        relay: Relay;
        /// How much one client may send in a span that has not logged in. Users have quotas of their
        /// own.
        quota: Quota;
    }
}

section! {
    /// How much one client may send in a span. A client is one address, or 64 bits of IPv6. All of it
    /// may be used at once, and comes back evenly over the span; what is over it hears that it should
    /// come again.
    pub struct Quota {
        /// Connections, such as 30/m.
        connections: Option<Rate> = None, None;
        /// Messages, such as 100/h.
        messages: Option<Rate> = None, None;
        /// Recipients, of all its messages together.
        recipients: Option<Rate> = None, None;
    }
}

section! {
    /// How clients come under TLS.
    pub struct AccessTls {
        /// Whether clients come under TLS: never, where they ask for it, or before they may send. The
        /// original calls the last one a secure channel.
        mode: TlsMode = TlsMode::Optional, TlsMode::Off;
        /// The certificates that are shown: names of tls.certificates, or auto for one that the
        /// service makes for itself. Of several a client gets the one for the name that it asks
        /// for, else the first.
        certificate: Vec<CertificateName> =
            vec![CertificateName::auto()], vec![CertificateName::auto()];
        /// The oldest version of TLS that clients may speak.
        min_version: Option<TlsVersion> = None, None, shown "tls.min_version";
    }
}

choice! {
    /// Whether clients come under TLS.
    pub enum TlsMode {
        /// Never.
        Off = "off",
        /// Where they ask for it.
        Optional = "optional",
        /// Before they may send mail.
        Required = "required",
    }
}

section! {
    /// Which clients may open a session.
    pub struct Connect {
        /// Whether the list names those who may, or those who may not.
        policy: Policy = Policy::AllExcept, Policy::AllExcept;
        /// Addresses, networks and domains. A domain needs a look-up for every connection. An
        /// entry with `until` counts until that moment.
        list: Vec<ListEntry> = Vec::new(), Vec::new();
    }
}

section! {
    /// Which clients may send mail to domains that are not ours.
    pub struct Relay {
        /// Whether the list names those who may, or those who may not.
        policy: Policy = Policy::Only, Policy::Only;
        /// Addresses, networks and domains. An entry with `until` counts until that moment.
        list: Vec<ListEntry> = ListEntry::loopback(), Vec::new();
        /// Allows a list that lets every host of the world relay. Without it such a configuration
        /// is refused.
        i_want_an_open_relay: bool = false, false;
        /// Let clients that have logged in send to any domain, regardless of the list.
        authenticated: bool = true, true;
        /// Let clients send to any domain that have shown a good certificate, without a login and
        /// regardless of the list: nobody, those of access.certificates.pinned, or all that
        /// access.certificates.trust vouches for as well. As whom a user may send holds for logins only.
        certificates: RelayCertificates = RelayCertificates::None, RelayCertificates::None;
    }
}

choice! {
    /// Whose certificate is enough to relay.
    pub enum RelayCertificates {
        /// Nobody's.
        None = "none",
        /// Those that are listed.
        Pinned = "pinned",
        /// Those that a trusted issuer vouches for as well.
        Trusted = "trusted",
    }
}

section! {
    /// Logins with a name and a password.
    pub struct Basic {
        /// Whether logins are taken.
        enabled: bool = false, false;
        /// Who judges passwords, in the order in which they are asked: the users that smtpctl user add makes,
        /// the directory (ldap), this machine's PAM (pam, last). The first that knows the name decides; PAM knows
        /// every name. One that gives no answer has clients come again. With others than users SCRAM is not
        /// offered, and the answer to a wrong password comes on a whole second. For pam the daemon must be
        /// built with its feature pam.
        backends: Vec<Backend> = vec![Backend::Users], vec![Backend::Users];
        /// By which rules PAM judges: a file in /etc/pam.d, whose auth and account count. They run as the
        /// service's own user, who may not read the passwords of /etc/shadow: pam_unix says nothing to him,
        /// modules that ask others do, such as pam_sss, pam_winbind and pam_ldap. One whom smtpctl user
        /// add made by that name may do what is said there; any other may send, as whom he likes.
        pam_service: PamService = PamService::usual(), PamService::usual();
        /// Whether they are taken under TLS alone. In clear text everybody on the way reads the
        /// password.
        require_tls: bool = true, false;
        /// By what a client may log in, in the order in which that is offered. SCRAM-SHA-256-PLUS is
        /// SCRAM-SHA-256 bound to the connection under TLS (tls-exporter, tls-server-end-point), so that
        /// nobody in between can pass it on; where it is offered, a client that could use it and says
        /// that it was not offered it is refused.
        mechanisms: Vec<LoginMechanism> =
            vec![LoginMechanism::ScramSha256, LoginMechanism::Plain, LoginMechanism::Login],
            vec![LoginMechanism::Login];
        /// A domain that users may write with their names, as NAME@domain or domain\NAME.
        domain: Option<String> = None, None;
    }
}

section! {
    /// Logins with a ticket of Kerberos (GSSAPI), which the original calls integrated Windows
    /// authentication. The Kerberos library finds the service's key where its own configuration says,
    /// or the variable KRB5_KTNAME. They are taken under TLS alone wherever basic.require_tls says so
    /// of passwords. Needs a daemon built with its feature gssapi.
    pub struct Integrated {
        /// Whether tickets are taken.
        enabled: bool = false, false;
        /// Whose tickets: the realms, as they are written there, mostly in capitals. The user is
        /// NAME@realm in small letters, or NAME where the realm is basic.domain. One whom smtpctl user
        /// add made by that name may do what is said there; any other may send, as whom he likes.
        /// Principals that could be no user, such as those of machines and services, are refused.
        realms: Vec<String> = Vec::new(), Vec::new();
    }
}

impl Access {
    /// How clients may send, in words of the original's dialog.
    pub fn ways(&self) -> impl Iterator<Item = &'static str> {
        let ways = [
            (self.anonymous, "anonymous"),
            (self.basic.enabled, "basic"),
            (self.integrated.enabled, "integrated"),
        ];
        ways.into_iter().filter_map(|(is_open, word)| is_open.then_some(word))
    }

    /// By what a client may log in with a password, in the order in which that is offered.
    pub fn passwords(&self) -> impl Iterator<Item = LoginMechanism> {
        let is_ours = Backend::are_ours(&self.basic.backends);
        let is_said = move |word: &LoginMechanism| match word {
            LoginMechanism::Plain | LoginMechanism::Login => true,
            LoginMechanism::ScramSha256 | LoginMechanism::ScramSha256Plus => is_ours,
        };
        let wanted = self.basic.mechanisms.iter().copied().filter(|_| self.basic.enabled);
        wanted.filter(is_said)
    }

    /// Whether clients may log in at all.
    #[must_use]
    pub fn takes_logins(&self) -> bool {
        self.first_login().is_some()
    }

    /// The first key that has logins taken.
    pub(super) fn first_login(&self) -> Option<&'static str> {
        let keys = [
            ("access.basic.enabled", self.basic.enabled),
            ("access.integrated.enabled", self.integrated.enabled),
            ("access.certificates.login", self.certificates.login),
            ("access.tokens.enabled", self.tokens.enabled),
        ];
        keys.into_iter().find(|(_, is_on)| *is_on).map(|(key, _)| key)
    }
}

/// Whether somebody could name any address as his own.
pub(super) fn check_tellers(access: &Access, reader: &mut Reader) {
    let balancers = ("E0380", "access.proxy_from", &access.proxy_from);
    let hosts = ("E0386", "access.xclient_from", &access.xclient_from);
    for (code, key, networks) in [balancers, hosts] {
        if !Network::are_everything(networks) {
            continue;
        }
        let wide = networks.iter().position(Network::is_everything);
        let own = wide.and_then(|at| reader.origins.get(&format!("{key}[{at}]")));
        let Some(span) = own.or_else(|| reader.origins.get(key)).cloned() else { continue };
        let (title, help) = match code {
            "E0380" => {
                ("everybody would be taken for a balancer", "name the balancers' own addresses")
            }
            _ => ("everybody could tell for whom he speaks", "name the hosts' own addresses"),
        };
        let diagnostic = Diagnostic::error(code, title)
            .at(&reader.source, span, "whoever comes could name any address as the client's")
            .help(help);
        reader.report(diagnostic);
    }
}

/// Whether tickets can be judged, and whose.
pub(super) fn check_tickets(keys: &Integrated, reader: &mut Reader) {
    if let Some(span) = reader.origins.get("access.integrated.realms").cloned() {
        let is_none = |realm: &&String| {
            let is_odd = |c: char| "@/[],\"".contains(c) || c.is_whitespace() || c.is_control();
            realm.is_empty() || realm.contains(is_odd)
        };
        if let Some(realm) = keys.realms.iter().find(is_none) {
            let title = format!("{realm:?} is no realm");
            let diagnostic = Diagnostic::error("E0399", title)
                .at(&reader.source, span, "no realm is called so")
                .help("write it as the realm does, such as CORP.EXAMPLE");
            reader.report(diagnostic);
        }
    }
    let Some(span) = reader.origins.get("access.integrated.enabled").cloned() else { return };
    if !keys.enabled {
        return;
    }
    if !cfg!(feature = "gssapi") {
        let title = "clients are to log in by Kerberos, which this build cannot";
        let diagnostic = Diagnostic::error("E0397", title)
            .at(&reader.source, span.clone(), "needs the feature gssapi")
            .help("build smtpd with  --features gssapi,  or write  enabled: false");
        reader.report(diagnostic);
    }
    if keys.realms.is_empty() {
        let diagnostic = Diagnostic::error("E0398", "tickets of no realm are good")
            .at(&reader.source, span, "whose tickets are taken is not said")
            .help("write  realms: [CORP.EXAMPLE]  below access.integrated");
        reader.report(diagnostic);
    }
}

choice! {
    /// A mechanism by which clients log in.
    pub enum LoginMechanism {
        /// RFC 7677, bound to the connection under TLS.
        ScramSha256Plus = "SCRAM-SHA-256-PLUS",
        /// RFC 7677; the password itself is never sent.
        ScramSha256 = "SCRAM-SHA-256",
        /// RFC 4616.
        Plain = "PLAIN",
        /// As the original did; printers need it.
        Login = "LOGIN",
    }
}

section! {
    /// What becomes of logins that are wrong.
    pub struct AuthFailures {
        /// How many of one session, and of one name from one address, before no more are looked at;
        /// and ten times as many by any names from one address.
        max: u32 = 5, 5, in 1..=1000;
        /// How long a client waits for the answer that its login is wrong.
        delay: Span = Span::seconds(2), Span::seconds(0), in Span::seconds(0)..=Span::minutes(1);
        /// For how long no logins of a name from an address are looked at once there were too many.
        ban: Wait = Wait::After(Span::minutes(15)), Wait::Never,
            in Span::seconds(1)..=Span::days(30);
    }
}

choice! {
    /// How a list is meant.
    pub enum Policy {
        /// Only those on the list below.
        Only = "only",
        /// All except those on the list below.
        AllExcept = "all-except",
    }
}

/// Whom an entry of a list means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Who {
    /// An address or a network.
    Network(Network),
    /// A host by its name, found by reverse look-up.
    Name(Domain),
    /// Every host below a domain, written `*.example.net`.
    Below(Domain),
}

/// An entry of an access list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListEntry {
    /// Whom it means.
    pub who: Who,
    /// What the administrator said about it.
    pub comment: Option<String>,
    /// From then on it counts as if it were not there.
    pub until: Option<Timestamp>,
}

impl ListEntry {
    fn loopback() -> Vec<Self> {
        ["127.0.0.0/8", "::1"]
            .iter()
            .map(|text| Self {
                who: Who::Network(Network::parse(text).expect("both texts are networks")),
                comment: None,
                until: None,
            })
            .collect()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(f),
            Self::Name(domain) => domain.fmt(f),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

impl Setting for ListEntry {
    type Quantity = u8;

    fn type_name() -> String {
        "network or domain, or {net, comment, until}".to_owned()
    }

    fn show(&self) -> String {
        self.who.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            return Some(Self { who: read_who(node, reader)?, comment: None, until: None });
        };
        let (mut who, mut comment, mut until, mut named) = (None, None, None, false);
        for (key, value) in reader.entries(node, "this entry", &["net", "comment", "until"]) {
            match key {
                "net" => {
                    named = true;
                    who = read_who(value, reader);
                }
                "until" => until = Some(read_until(value, reader)?),
                _ => comment = String::read(value, reader),
            }
        }
        if !named {
            let diagnostic =
                reader.error_at("E0104", "this entry names nobody", node, "net is missing");
            reader.report(diagnostic.help("write {net: 192.0.2.0/24, comment: ...}"));
        }
        Some(Self { who: who?, comment, until })
    }
}

fn read_until(node: &Node, reader: &mut Reader) -> Option<Timestamp> {
    let text = scalar(node, reader, "a moment")?;
    let moment = Timestamp::parse(text).ok();
    if moment.is_none() {
        let title = format!("{text:?} is not a moment");
        let diagnostic = reader.error_at("E0207", title, node, "cannot be read");
        reader.report(diagnostic.help("write date, time and zone, such as 2026-11-26T09:30:00Z"));
    }
    moment
}

fn read_who(node: &Node, reader: &mut Reader) -> Option<Who> {
    let text = scalar(node, reader, "a network or a domain")?;
    if let Some(below) = text.strip_prefix("*.").and_then(|rest| Domain::parse(rest).ok()) {
        return Some(Who::Below(below));
    }
    if let Ok(name) = Domain::parse(text)
        && !name.reads_like_an_address()
    {
        return Some(Who::Name(name));
    }
    match Network::parse(text) {
        Ok(network) => Some(Who::Network(network)),
        Err(NetworkError::HostBits { text, network, host }) => {
            let title = format!("{text} has host bits set");
            let diagnostic = reader.error_at("E0305", title, node, "address or network?");
            reader
                .report(diagnostic.help(format!(
                    "did you mean the network {network} or the single host {host}?"
                )));
            None
        }
        Err(NetworkError::Shape(text)) => {
            let title = format!("{text:?} is neither a network nor a domain");
            let diagnostic = reader.error_at("E0307", title, node, "cannot be read");
            reader.report(diagnostic.help(
                "write 192.0.2.1, 192.0.2.0/24, 2001:db8::/32, host.example.net or \"*.example.net\"",
            ));
            None
        }
    }
}
