//! `ldap:` - the directory that knows the recipients of our domains, and where their mail goes.

pub mod filter;
pub mod logins;

use std::fmt;

use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::host::HostPort;
use super::secret::Secret;
use super::section::{Reader, section};
use crate::address::{Domain, Host};
use crate::units::Span;

pub use self::filter::LdapFilter;
use self::logins::LdapLogins;

section! {
    /// The directory that knows the recipients of our domains.
    pub struct Ldap {
        /// Whether recipients of the default domain and its aliases are looked up in a directory, when
        /// a client names them and again when their mail is delivered. The postmaster of these domains
        /// is known without it.
        enabled: bool = false, false;
        /// The directory servers, ldap://HOST or ldaps://HOST, with :PORT if it is not 389 or 636. The
        /// first that answers is asked; one that does not is left alone for a while, and for five minutes
        /// where it, or its Kerberos realm, refuses our name or password: many close an account that is
        /// tried again and again.
        server: Vec<LdapServer> = Vec::new(), Vec::new();
        /// How connections to servers written ldap:// are protected; ldaps:// always comes with a
        /// certificate that is good for the host's name, by the authorities of tls.trust.
        tls: LdapTls = LdapTls::Starttls, LdapTls::Off;
        /// What kind of directory it is: which attributes hold addresses, forwards and members.
        schema: LdapSchema = LdapSchema::ActiveDirectory, LdapSchema::ActiveDirectory;
        /// How we show who we are.
        bind: LdapBind = LdapBind::Anonymous, LdapBind::Anonymous;
        /// The name to bind with: the distinguished name of an entry, or for Active Directory also
        /// user@domain or DOMAIN\user; with gssapi a principal, such as mailroot@CORP.EXAMPLE.
        user: Option<String> = None, None;
        /// Where the password is kept: a file in secrets.d, a credential of systemd, or a variable of
        /// the environment. Never the password itself.
        password: Option<Secret> = None, None;
        /// The domain of a user that is written as a plain name; the bind is then made as user@domain.
        domain: Option<String> = None, None;
        /// The entry below which recipients are looked for, such as DC=example,DC=net: the naming
        /// context.
        base: Option<String> = None, None, shown "required";
        /// The filter that finds the entry of an address, for the schema custom or instead of the
        /// schema's own (RFC 4515). {address}, {local} and {domain} stand for the address and its two
        /// parts, and can become nothing but values, whatever an address has in it.
        filter: Option<LdapFilter> = None, None, shown "of the schema";
        /// What happens to mail for an address that the directory does not know.
        unknown: UnknownRecipient = UnknownRecipient::Refuse, UnknownRecipient::Return;
        /// Names by which the directory means this server where it names the host of a mailbox, besides
        /// delivery.fqdn, the name of the machine, localhost and the domains that are ours.
        own_hosts: Vec<Domain> = Vec::new(), Vec::new();
        /// How long a server may take to let us in, and again for each answer.
        /// At a login a server has five seconds at most, so that another one is asked while the client waits.
        timeout: Span = Span::seconds(5), Span::seconds(5), in Span::millis(100)..=Span::minutes(1);
        /// Connections to directory servers at the same time.
        connections: u16 = 4, 4, in 1..=64;
    }
    sections {
        /// Attributes of entries, where they are others than the schema's.
        attributes: LdapAttributes;
        /// What the directory decides about senders.
        senders: LdapSenders;
        /// How long answers are used again.
        cache: LdapCache;
        /// Bounds of groups.
        groups: LdapGroups;
        /// Users whose passwords the directory judges.
        logins: LdapLogins;
    }
}

section! {
    /// Attributes of entries, where they are others than the schema's.
    pub struct LdapAttributes {
        /// The address of an entry: its mail goes there. The first that has a value counts.
        mail: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
        /// Addresses that the mail of an entry goes to instead.
        forward: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
        /// Distinguished names of entries that it goes to instead.
        forward_dn: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
        /// Whether an entry with a forward gets its mail as well: TRUE.
        keep_copy: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
        /// The host that has the mailbox of an entry, by its name or address: its mail goes there, unless
        /// that is this server. With several values the first counts, unless one is this server.
        mail_host: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
        /// Addresses of the members of a group.
        members: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
        /// Distinguished names of the members of a group.
        member_dns: Vec<AttributeName> = Vec::new(), Vec::new(), shown "of the schema";
    }
}

section! {
    /// What the directory decides about senders.
    pub struct LdapSenders {
        /// What happens to mail that clients send in the name of an address of the default domain or its
        /// aliases which the directory does not know. The postmaster and the names of the file of aliases
        /// are known without it, and programs of this machine are not asked.
        unknown: UnknownSender = UnknownSender::Accept, UnknownSender::Accept;
        /// Whether mail from any address of an entry goes on from the entry's own one, to which reports
        /// go then. From stays as it is. While no directory answers the sender stays as well.
        primary: bool = false, false;
    }
}

section! {
    /// How long answers are used again.
    pub struct LdapCache {
        /// How long it is known what an entry says; 0s asks each time.
        positive: Span = Span::minutes(5), Span::minutes(5), in Span::ZERO..=Span::days(1);
        /// How long it is known that there is no entry.
        negative: Span = Span::minutes(1), Span::minutes(1), in Span::ZERO..=Span::days(1);
        /// Answers kept; a group counts as many as it has members.
        size: u32 = 20_000, 20_000, in 1..=1_000_000;
    }
}

section! {
    /// Bounds of groups.
    pub struct LdapGroups {
        /// The most members of a group, those of groups within it included. Mail to a larger one is
        /// returned.
        members: u32 = 1000, 1000, in 1..=10_000;
        /// How deep groups and forwards may lead into each other.
        depth: u32 = 8, 8, in 1..=32;
    }
}

choice! {
    /// How connections to servers written `ldap://` are protected.
    pub enum LdapTls {
        /// Not at all.
        Off = "off",
        /// By StartTLS, with a certificate that is good for the host's name, or they are not used.
        Starttls = "starttls",
    }
}

choice! {
    /// What kind of directory it is.
    pub enum LdapSchema {
        /// Active Directory: mail, proxyAddresses, targetAddress, altRecipient, member.
        ActiveDirectory = "active-directory",
        /// The directory of Exchange 5.5: mail, rfc822Mailbox, otherMailbox, Target-Address,
        /// Alt-Recipient, member.
        ExchangeLdap = "exchange-ldap",
        /// The Membership Directory of Site Server: mail, mailAlternateAddress,
        /// mailForwardingAddress, member.
        SiteServer = "site-server",
        /// OpenLDAP with the schemas it comes with: mail, mailLocalAddress, mailRoutingAddress, mailHost,
        /// member, uniqueMember, rfc822MailMember.
        Openldap = "openldap",
        /// None of these: filter says how entries are found, attributes what they hold.
        Custom = "custom",
    }
}

choice! {
    /// How we show a directory who we are.
    pub enum LdapBind {
        /// Not at all.
        Anonymous = "anonymous",
        /// With a name and a password.
        Simple = "simple",
        /// By Kerberos, with a ticket for the service ldap of the server's name: that of the principal
        /// in user, or of whom the Kerberos library finds a key or a ticket. With password it is got by
        /// that. Nothing but the bind is protected by it, so that TLS is needed all the same, to which
        /// the bind is bound (tls-server-end-point). Needs a daemon built with its feature gssapi.
        Gssapi = "gssapi",
    }
}

choice! {
    /// What happens to mail for an address that the directory does not know.
    pub enum UnknownRecipient {
        /// A client that names it hears 550 5.1.1, and 451 while no directory answers. What comes
        /// without a client is returned.
        Refuse = "refuse",
        /// It is accepted and then returned to its sender, as the original did.
        Return = "return",
        /// It is put into Drop as if there were no directory.
        Deliver = "deliver",
    }
}

choice! {
    /// What happens to mail from an address of ours that the directory does not know.
    pub enum UnknownSender {
        /// It is accepted.
        Accept = "accept",
        /// The client hears 550 5.1.0, and 451 while no directory answers.
        Refuse = "refuse",
    }
}

/// The most characters of an attribute's name.
const ATTRIBUTE_MAX: usize = 100;

/// The name of an attribute, or its object identifier (RFC 4512 section 1.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttributeName(Box<str>);

impl AttributeName {
    /// Checks a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let octets = text.as_bytes();
        let is_key = |o: &u8| o.is_ascii_alphanumeric() || *o == b'-';
        let is_name =
            octets.first().is_some_and(u8::is_ascii_alphabetic) && octets.iter().all(is_key);
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|o| o.is_ascii_digit());
        let is_identifier = text.contains('.') && text.split('.').all(is_number);
        let fits = octets.len() <= ATTRIBUTE_MAX;
        (fits && (is_name || is_identifier)).then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A directory server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LdapServer {
    /// Its name or address.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Whether TLS begins with the first octet.
    pub is_secure: bool,
}

impl LdapServer {
    /// Reads `ldap://host`, `ldaps://host`, each perhaps with a port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (is_secure, rest) = match (text.strip_prefix("ldaps://"), text.strip_prefix("ldap://"))
        {
            (Some(rest), _) => (true, rest),
            (None, rest) => (false, rest?),
        };
        let HostPort { host, port } = HostPort::parse(rest.strip_suffix('/').unwrap_or(rest))?;
        let port = port.unwrap_or(if is_secure { 636 } else { 389 });
        Some(Self { host, port, is_secure })
    }

    /// Whether it is this machine.
    #[must_use]
    pub fn is_here(&self) -> bool {
        match &self.host {
            Host::Address(address) => address.to_canonical().is_loopback(),
            Host::Name(name) => name.as_str() == "localhost",
        }
    }
}

impl fmt::Display for LdapServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_secure { "ldaps" } else { "ldap" };
        let at = HostPort { host: self.host.clone(), port: Some(self.port) };
        write!(f, "{scheme}://{at}")
    }
}

super::host::parsed_text! {
    LdapServer, "directory server", "E0330", Self::parse,
        "write ldaps://dc1.example.net, or ldap://dc1.example.net:389";
    LdapFilter, "LDAP filter", "E0331", |text: &str| Self::parse(text).ok(),
        "write one as in RFC 4515 that has {address}, or {local} and perhaps {domain}, as a value in it: \
         (mail={address})";
    AttributeName, "name of an attribute", "E0332", Self::parse,
        "write a name such as mail, or an object identifier such as 0.9.2342.19200300.100.1.3";
}

impl Ldap {
    /// The name that a simple bind is made with.
    #[must_use]
    pub fn bind_name(&self) -> Option<String> {
        let user = self.user.as_deref()?;
        Some(match &self.domain {
            Some(domain) if !user.contains(['=', '@', '\\']) => format!("{user}@{domain}"),
            _ => user.to_owned(),
        })
    }

    /// The servers that are talked to in clear text over a network.
    fn in_clear_text(&self) -> impl Iterator<Item = (usize, &LdapServer)> {
        let is_clear = |server: &LdapServer| {
            self.tls == LdapTls::Off && !server.is_secure && !server.is_here()
        };
        self.server.iter().enumerate().filter(move |(_, server)| is_clear(server))
    }
}

/// Checks the section of a server that was read.
pub(super) fn check(ldap: &Ldap, reader: &mut Reader) {
    login(ldap, reader);
    if !ldap.enabled {
        return;
    }
    let needs_filter = ldap.schema == LdapSchema::Custom;
    let missing = [
        ("server", ldap.server.is_empty(), "server: [ldaps://dc1.example.net]"),
        ("base", ldap.base.is_none(), "base: DC=example,DC=net"),
        ("filter", needs_filter && ldap.filter.is_none(), "filter: (mail={address})"),
    ];
    for (key, _, line) in missing.iter().filter(|(_, is_missing, _)| *is_missing) {
        let whole = format!("ldap.{key}");
        if reader.origins.contains_key(&whole) && *key != "server" {
            continue;
        }
        let span = reader.origins.get("ldap.enabled").cloned().unwrap_or(0..0);
        let diagnostic = Diagnostic::error("E0104", format!("{whole} is missing"))
            .at(&reader.source, span, "a directory is asked")
            .help(format!("add  {line}  below ldap"));
        reader.report(diagnostic);
    }
    clear_text(ldap, reader);
}

/// A name and a password go together, and with the bind that uses them.
fn login(ldap: &Ldap, reader: &mut Reader) {
    if ldap.bind == LdapBind::Gssapi {
        return tickets(ldap, reader);
    }
    let is_simple = ldap.bind == LdapBind::Simple;
    for (key, is_absent) in [("user", ldap.user.is_none()), ("password", ldap.password.is_none())] {
        let whole = format!("ldap.{key}");
        let written = reader.origins.get(&whole).cloned();
        let (title, span, label, help) = match (is_simple, is_absent, written) {
            (true, true, None) => {
                let span = reader.origins.get("ldap.bind").cloned().unwrap_or(0..0);
                let help = "smtpctl ldap passwd --user CN=mailroot,DC=example,DC=net  sets both";
                (format!("{whole} is missing"), span, "a bind needs a name and a password", help)
            }
            (false, false, Some(span)) => {
                let help = "add  bind: simple  below ldap, or remove this line";
                (format!("{whole} is set, and the bind is anonymous"), span, "not used", help)
            }
            _ => continue,
        };
        let diagnostic =
            Diagnostic::error("E0334", title).at(&reader.source, span, label).help(help);
        reader.report(diagnostic);
    }
    needless_domain(ldap, reader);
}

/// Whether tickets can be had, and for whom.
fn tickets(ldap: &Ldap, reader: &mut Reader) {
    let at = |key: &str, reader: &Reader| reader.origins.get(key).cloned().unwrap_or(0..0);
    if !cfg!(feature = "gssapi") {
        let title = "the bind is to be by Kerberos, which this build of smtpd cannot";
        let diagnostic = Diagnostic::error("E0335", title)
            .at(&reader.source, at("ldap.bind", reader), "needs the feature gssapi")
            .help("build smtpd with  --features gssapi,  or write  bind: simple");
        reader.report(diagnostic);
    }
    if ldap.server.iter().any(|server| matches!(server.host, Host::Address(_))) {
        let title = "the bind is to be by Kerberos at an address";
        let diagnostic = Diagnostic::error("E0336", title)
            .at(&reader.source, at("ldap.server", reader), "tickets are for hosts with names")
            .help("write the server's name, as the realm knows it");
        reader.report(diagnostic);
    }
    if ldap.password.is_some() && ldap.user.is_none() {
        let title = "ldap.user is missing";
        let diagnostic = Diagnostic::error("E0334", title)
            .at(&reader.source, at("ldap.password", reader), "whose password it is")
            .help("add  user: mailroot@CORP.EXAMPLE,  or remove this line");
        reader.report(diagnostic);
    }
    needless_domain(ldap, reader);
}

fn needless_domain(ldap: &Ldap, reader: &mut Reader) {
    if ldap.domain.is_some() && ldap.bind_name() == ldap.user {
        let span = reader.origins.get("ldap.domain").cloned().unwrap_or(0..0);
        let diagnostic = Diagnostic::error("E0334", "ldap.domain is set, and no user needs it")
            .at(&reader.source, span, "not used")
            .help("write the user as a plain name without @, or remove this line");
        reader.report(diagnostic);
    }
}

/// A password is not sent where others can read it; answers that others could forge are told.
fn clear_text(ldap: &Ldap, reader: &mut Reader) {
    let Some((number, server)) = ldap.in_clear_text().next() else { return };
    let span = reader.origins.get(&format!("ldap.server[{number}]"));
    let span = span.or_else(|| reader.origins.get("ldap.server")).cloned().unwrap_or(0..0);
    let diagnostic = if ldap.bind == LdapBind::Simple {
        let title = format!("the password for {server} would go over the network in clear text");
        Diagnostic::error("E0333", title)
    } else {
        let title = format!("{server} is asked in clear text: answers could be forged");
        Diagnostic::warning("W0450", title)
    };
    let diagnostic = diagnostic.at(&reader.source, span, "not protected");
    reader.report(diagnostic.help("write ldaps://, or  tls: starttls  below ldap"));
}
