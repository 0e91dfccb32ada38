//! `smart_hosts:` - hosts that take mail for others, each under a name, with its security and login.
//!
//! Credentials belong to a smart host and to nothing else, so that they can go only to the host
//! they were configured for. A virtual server or a remote domain names it `smarthost:NAME`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::host::HostPort;
use super::lane_limits::LaneLimits;
use super::node::{Kind, Node};
use super::oauth::{self, OauthKeys};
use super::secret::Secret;
use super::section::{EffectiveKey, KeyDoc, Origins, Profile, Reader, Section, section};
use super::tls::TlsVersion;
use crate::address::Host;
use crate::rate::Rate;

section! {
    /// A host that takes mail for others.
    pub struct SmartHostKeys {
        /// A provider whose host, port and TLS are known; the other keys can differ from it.
        preset: Option<Preset> = None, None;
        /// The host's name, or its address in brackets. A name is looked up for addresses only.
        host: Option<Host> = None, None, shown "required, or the preset's";
        /// The port that it takes mail on.
        port: Option<u16> = None, None, in 1..=65535,
            shown "587 with a preset, 465 with tls: implicit, else delivery.connections.port";
        /// Whether mail goes to it under TLS, and whether its certificate is checked.
        tls: SmartHostTls = SmartHostTls::Verify, SmartHostTls::Verify;
        /// The oldest version of TLS that is spoken there.
        min_version: Option<TlsVersion> = None, None, shown "tls.min_version";
        /// SHA-256 of the public key that its certificate must have, 64 hexadecimal digits; several
        /// while keys change. Then nothing else about the certificate counts.
        pin: Vec<Pin> = Vec::new(), Vec::new();
        /// Where a certificate that we show there and its key are kept, both in one text of PEM, the
        /// chain in its order. Then tls is required, verify or implicit.
        certificate: Option<Secret> = None, None;
        /// Hosts that are tried when it cannot be reached, with the same security and login.
        backup: Vec<HostPort> = Vec::new(), Vec::new();
    }
    sections {
        /// How we log in there.
        auth: SmartHostAuth;
        /// How much mail goes there at once, and how fast.
        limits: LaneLimits;
    }
}

section! {
    /// How we log in at a smart host.
    pub struct SmartHostAuth {
        /// Whether a login is made. If one is set and the host does not offer any, mail waits.
        method: AuthMethod = AuthMethod::None, AuthMethod::None;
        /// The name to log in with; by the method integrated a principal, such as relay@EXAMPLE.NET.
        user: Option<String> = None, None;
        /// Where the password is kept: a file in secrets.d, a credential of systemd, or a variable of
        /// the environment. Never the password itself.
        password: Option<Secret> = None, None;
        /// What may be used, in this order of preference.
        mechanisms: Vec<Mechanism> = Mechanism::ALL.to_vec(), vec![Mechanism::Login];
        /// Whether the login is made under TLS only. A token goes in clear text to this machine at most.
        require_tls: bool = true, true;
        /// The mailbox to log in as by a token.
        mailbox: Option<String> = None, None;
    }
    sections {
        /// How the token is had.
        oauth: OauthKeys;
    }
}

choice! {
    /// How mail to a smart host is protected.
    pub enum SmartHostTls {
        /// It goes in clear text.
        Off = "off",
        /// Under TLS where the host offers it; certificates are not checked.
        Optional = "optional",
        /// Under TLS or not at all; certificates are not checked.
        Required = "required",
        /// Under TLS with a certificate that is good for the host's name, or not at all.
        Verify = "verify",
        /// As verify, and from the first octet on, without STARTTLS.
        Implicit = "implicit",
    }
}

choice! {
    /// How a login is made.
    pub enum AuthMethod {
        /// Not at all.
        None = "none",
        /// With a name and a password.
        Basic = "basic",
        /// With a ticket of Kerberos (GSSAPI): by the password of user, or if none is set by a key or
        /// a cache that the Kerberos library finds. Needs a daemon built with its feature gssapi.
        Integrated = "integrated",
        /// With a token of OAuth, in the form that Google and Microsoft speak.
        Xoauth2 = "xoauth2",
        /// With a token of OAuth, in the form of RFC 7628.
        Oauthbearer = "oauthbearer",
    }
}

impl SmartHostAuth {
    /// The name that the login is made with: a user's, or a mailbox.
    #[must_use]
    pub fn login_name(&self) -> Option<&str> {
        let name = if self.method.wants_token() { &self.mailbox } else { &self.user };
        name.as_deref()
    }
}

impl AuthMethod {
    /// Whether the login is made with a token.
    #[must_use]
    pub const fn wants_token(self) -> bool {
        matches!(self, Self::Xoauth2 | Self::Oauthbearer)
    }
}

choice! {
    /// A mechanism of SASL for a name and a password.
    pub enum Mechanism {
        /// RFC 7677.
        ScramSha256 = "SCRAM-SHA-256",
        /// RFC 5802.
        ScramSha1 = "SCRAM-SHA-1",
        /// RFC 2195.
        CramMd5 = "CRAM-MD5",
        /// RFC 4616.
        Plain = "PLAIN",
        /// As the original did.
        Login = "LOGIN",
    }
}

choice! {
    /// A provider whose host is known.
    pub enum Preset {
        /// Microsoft 365, with a token for a mailbox.
        M365 = "m365",
        /// Google Workspace, by our address.
        GoogleRelay = "google-relay",
        /// Gmail, with an app password or a token.
        Gmail = "gmail",
        /// SendGrid; the user is `apikey`.
        SendGrid = "sendgrid",
        /// Mailgun.
        Mailgun = "mailgun",
        /// Postmark.
        Postmark = "postmark",
    }
}

impl Preset {
    /// Its host; all of them take mail on port 587 with STARTTLS.
    #[must_use]
    pub const fn host(self) -> &'static str {
        match self {
            Self::M365 => "smtp.office365.com",
            Self::GoogleRelay => "smtp-relay.gmail.com",
            Self::Gmail => "smtp.gmail.com",
            Self::SendGrid => "smtp.sendgrid.net",
            Self::Mailgun => "smtp.mailgun.org",
            Self::Postmark => "smtp.postmarkapp.com",
        }
    }
}

impl Preset {
    /// What the provider takes, as far as it says so.
    #[must_use]
    pub const fn limits(self) -> LaneLimits {
        match self {
            Self::M365 => LaneLimits {
                connections: Some(3),
                rate: Some(Rate::per_minute(30)),
                recipients: Some(500),
            },
            Self::Gmail | Self::GoogleRelay => {
                LaneLimits { connections: Some(10), rate: None, recipients: Some(100) }
            }
            Self::SendGrid | Self::Mailgun | Self::Postmark => {
                LaneLimits { connections: Some(10), rate: None, recipients: None }
            }
        }
    }
}

/// The port of message submission (RFC 6409).
const SUBMISSION: u16 = 587;
/// The port of submission under TLS from the first octet (RFC 8314).
const SUBMISSIONS: u16 = 465;

impl SmartHostKeys {
    /// The hosts to try, in order. A port is absent where the virtual server's own counts.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostPort> {
        let known = self.preset.and_then(|preset| Host::parse(preset.host()).ok());
        let port = match (self.port, self.tls, self.preset) {
            (Some(port), ..) => Some(port),
            (None, SmartHostTls::Implicit, _) => Some(SUBMISSIONS),
            (None, _, Some(_)) => Some(SUBMISSION),
            (None, _, None) => None,
        };
        let own = self.host.clone().or(known).map(|host| HostPort { host, port });
        own.into_iter().chain(self.backup.iter().cloned()).collect()
    }
}

impl SmartHostKeys {
    /// How much mail goes there: what is said here, else what the preset knows.
    #[must_use]
    pub fn lane_limits(&self) -> LaneLimits {
        match self.preset {
            Some(preset) => self.limits.or(&preset.limits()),
            None => self.limits.clone(),
        }
    }
}

/// Whether a text is of `a-z`, `0-9`, `-` and `_`, begins with a letter and has at most `max` octets.
pub(super) fn is_plain_name(text: &str, max: usize) -> bool {
    let octets = text.as_bytes();
    let is_plain = |o: &u8| o.is_ascii_lowercase() || o.is_ascii_digit() || b"-_".contains(o);
    octets.len() <= max
        && octets.first().is_some_and(u8::is_ascii_lowercase)
        && octets.iter().all(is_plain)
}

/// The name of a smart host: `a-z`, `0-9`, `-` and `_`, beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SmartHostName(Box<str>);

impl SmartHostName {
    /// What stands before a name wherever a host could stand as well.
    pub const PREFIX: &'static str = "smarthost:";

    /// Longest name, in octets.
    pub const OCTETS_MAX: usize = 32;

    /// Checks a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_plain_name(text, Self::OCTETS_MAX).then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SmartHostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where mail is handed on: a host, or a smart host by its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Hop {
    /// A host.
    Host(HostPort),
    /// One of `smart_hosts`.
    SmartHost(SmartHostName),
}

impl Hop {
    /// Reads a host as [`HostPort`] does, or `smarthost:NAME`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = text.strip_prefix(SmartHostName::PREFIX).and_then(SmartHostName::parse);
        named.map(Self::SmartHost).or_else(|| HostPort::parse(text).map(Self::Host))
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => host.fmt(f),
            Self::SmartHost(name) => write!(f, "{}{name}", SmartHostName::PREFIX),
        }
    }
}

/// SHA-256 of a public key as it stands in a certificate (`SubjectPublicKeyInfo`, RFC 7469), or of a whole
/// certificate where that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// Reads 64 digits of base 16, with colons between them or without.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|c| *c != ':')
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let octets: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        (digits.len() == 64).then_some(())?;
        octets.try_into().ok().map(Self)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

super::host::parsed_text! {
    Host, "host name", "E0303", |text: &str| HostPort::parse(text)
        .filter(|at| at.port.is_none()).map(|at| at.host),
        "write a name such as smtp.example.net, or an address in brackets; the port has a key of its own";
    Hop, "host or smarthost:NAME", "E0303", Self::parse,
        "write host, host:port, [192.0.2.1]:25, or smarthost:NAME for one of smart_hosts";
    Pin, "public key's SHA-256", "E0312", Self::parse,
        "write 64 hexadecimal digits, as smtpctl smarthost test shows them";
}

/// The smart hosts of a service, by name.
pub type SmartHosts = BTreeMap<SmartHostName, SmartHostKeys>;

/// The path of the section.
pub(crate) const PATH: &str = "smart_hosts";

/// The keys of each, with `NAME` in the place of its name.
pub(crate) fn describe(out: &mut Vec<KeyDoc>) {
    SmartHostKeys::describe("smart_hosts.NAME", out);
}

/// The keys of all of them.
pub(crate) fn list(hosts: &SmartHosts, origins: &Origins, out: &mut Vec<EffectiveKey>) {
    for (name, keys) in hosts {
        keys.list(&format!("{PATH}.{name}"), Profile::Modern, origins, out);
    }
}

/// Reads the section.
pub(crate) fn read(node: &Node, reader: &mut Reader) -> SmartHosts {
    let mut out = SmartHosts::new();
    let Kind::Map(pairs) = &node.kind else {
        if !node.is_empty() {
            let diagnostic =
                reader.error_at("E0105", "smart_hosts has names of its own", node, "no name: keys");
            reader.report(diagnostic.help("write  isp: {host: smtp.example.net}  below it"));
        }
        return out;
    };
    for (key, value) in pairs {
        let Some(name) = SmartHostName::parse(&key.text) else {
            let title = format!("{:?} cannot name a smart host", key.text);
            let diagnostic = Diagnostic::error("E0432", title)
                .at(&reader.source, key.span.clone(), "not such a name")
                .help("use at most 32 of a-z, 0-9, - and _, beginning with a letter");
            reader.report(diagnostic);
            continue;
        };
        let path = format!("{PATH}.{name}");
        let mut keys = SmartHostKeys::defaults(Profile::Modern);
        reader.remember(&path, value);
        keys.read(value, &path, reader);
        check(&keys, &path, value, reader);
        out.insert(name, keys);
    }
    out
}

/// Whether tickets can be had, and for whom.
fn check_tickets(keys: &SmartHostKeys, path: &str, span: Range<usize>, reader: &mut Reader) {
    if !cfg!(feature = "gssapi") {
        let title = format!("{path} is to log in by Kerberos, which this build cannot");
        let diagnostic = Diagnostic::error("E0370", title)
            .at(&reader.source, span.clone(), "needs the feature gssapi")
            .help("build smtpd with  --features gssapi,  or choose another method");
        reader.report(diagnostic);
    }
    let is_named = |at: &HostPort| matches!(at.host, Host::Name(_));
    if !keys.hosts().iter().all(is_named) {
        let title = format!("{path} is to log in by Kerberos at an address");
        let diagnostic = Diagnostic::error("E0371", title)
            .at(&reader.source, span, "tickets are for hosts with names")
            .help("write the names of host and backup, as the realm knows them");
        reader.report(diagnostic);
    }
}

fn check(keys: &SmartHostKeys, path: &str, node: &Node, reader: &mut Reader) {
    let at = |key: &str, reader: &Reader| {
        reader.origins.get(&format!("{path}.{key}")).cloned().unwrap_or_else(|| node.span.clone())
    };
    if keys.host.is_none()
        && keys.preset.is_none()
        && !reader.origins.contains_key(&format!("{path}.host"))
    {
        let diagnostic =
            reader.error_at("E0104", format!("{path} has no host"), node, "which host?");
        reader.report(diagnostic.help("add  host: smtp.example.net  or a preset"));
    }
    let auth = &keys.auth;
    let wants_login = auth.method != AuthMethod::None;
    for (key, absent) in
        [("auth.user", auth.user.is_none()), ("auth.password", auth.password.is_none())]
    {
        let by_ticket = auth.method == AuthMethod::Integrated && key == "auth.user";
        let wanted = (auth.method == AuthMethod::Basic || by_ticket) && absent;
        if wanted && !reader.origins.contains_key(&format!("{path}.{key}")) {
            let span = at("auth.method", reader);
            let diagnostic = Diagnostic::error("E0104", format!("{path}.{key} is missing"))
                .at(&reader.source, span, "a login needs a name and a password")
                .help("add  user: NAME  and  password: {file: NAME}  below auth");
            reader.report(diagnostic);
        }
    }
    if !wants_login && (auth.user.is_some() || auth.password.is_some()) {
        let title = format!("{path} has a name or a password, and no login is made");
        let span = at(if auth.user.is_some() { "auth.user" } else { "auth.password" }, reader);
        let diagnostic = Diagnostic::error("E0433", title)
            .at(&reader.source, span, "not used")
            .help("add  method: basic  below auth, or remove this line");
        reader.report(diagnostic);
    }
    if auth.method == AuthMethod::Integrated {
        check_tickets(keys, path, at("auth.method", reader), reader);
    }
    oauth::check(keys, path, node, reader);
    if wants_login && keys.tls == SmartHostTls::Off && auth.require_tls {
        let title = format!("{path} is to log in under TLS only, and has no TLS");
        let diagnostic = Diagnostic::error("E0433", title)
            .at(&reader.source, at("tls", reader), "never under TLS")
            .help("write  tls: verify;  to log in in clear text, require_tls: false below auth");
        reader.report(diagnostic);
    }
    let may_be_clear = matches!(keys.tls, SmartHostTls::Off | SmartHostTls::Optional);
    if keys.certificate.is_some() && may_be_clear {
        let title = format!("{path} is to know us by a certificate, and TLS is not sure there");
        let diagnostic = Diagnostic::error("E0440", title)
            .at(&reader.source, at("certificate", reader), "not shown in clear text")
            .help("write  tls: verify, or required  for a host without a good certificate");
        reader.report(diagnostic);
    }
    if keys.min_version.is_some() && keys.tls == SmartHostTls::Off {
        let title = format!("{path} has an oldest version of TLS, and no TLS");
        let diagnostic = Diagnostic::error("E0445", title)
            .at(&reader.source, at("min_version", reader), "never under TLS")
            .help("remove it, or write  tls: verify");
        reader.report(diagnostic);
    }
    if auth.mechanisms.is_empty() {
        let diagnostic = Diagnostic::error("E0434", format!("{path}.auth.mechanisms names none"))
            .at(&reader.source, at("auth.mechanisms", reader), "an empty list")
            .help("name at least one, or remove the line");
        reader.report(diagnostic);
    }
}
