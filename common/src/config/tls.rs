//! `tls:` - what all virtual servers share about TLS.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::acme::Acme;
use super::choice::choice;
use super::diagnostic::Diagnostic;
use super::name::ServerName;
use super::node::{Kind, Node};
use super::section::{
    EffectiveKey, KeyDoc, Origins, Profile, Reader, Section, Setting, join, section,
};
use super::smart_hosts::is_plain_name;
use crate::address::{Domain, Mailbox};
use crate::units::Span;

section! {
    /// Which certificates are trusted, and which versions are spoken.
    pub struct Tls {
        /// Who may vouch for the certificates of other hosts: the authorities this system trusts, or
        /// those of a PEM file.
        trust: Trust = Trust::System, Trust::System;
        /// The oldest version of TLS that is spoken.
        min_version: TlsVersion = TlsVersion::V12, TlsVersion::V12;
        /// Keep to the policies that domains publish for mail to them (MTA-STS, RFC 8461): where one is
        /// enforced, mail goes under TLS to the hosts that it names, each with a certificate for its
        /// name, and waits otherwise. Only mail that goes by MX is concerned, and only where
        /// delivery.security.tls, or tls of the domain, is not off.
        mta_sts: bool = true, true;
        /// Trust certificates by the word of DNS (DANE, RFC 7672): a host with signed TLSA records gets
        /// mail under TLS only, and only with a certificate that they speak of. It takes a validating
        /// resolver on this machine, such as unbound; doctor dns tells whether there is one. It goes
        /// before mta_sts, and concerns the same mail.
        dane: bool = true, true;
        /// Remember hosts that showed a good certificate for their name. Where delivery.security.tls, or
        /// tls of the domain, is optional or required, one that is remembered gets mail under TLS only, and
        /// only with a good certificate: whoever is in the way can neither take TLS off nor show another.
        /// A smart host with a tls of its own is concerned only where that is optional. smtpctl tls lists the hosts and forgets one whose
        /// certificate is not to be mended. Servers of the profile iis6 are not concerned, because
        /// their delivery.security.tls is off.
        memory: bool = true, true;
        /// How long a host is remembered after it last showed a good certificate.
        memory_for: Span = Span::days(30), Span::days(30), in Span::hours(1)..=Span::days(366);
    }
    sections {
        /// Reports to other domains about the TLS that mail to them met.
        reports: TlsReports;
        /// Certificates that are asked of an authority.
        acme: Acme;
        /// Certificates that we show, each under a name.
        certificates: Certificates;
    }
}

section! {
    /// Reports about TLS (TLS-RPT, RFC 8460): once a day (UTC) each domain that asks for them by a record
    /// _smtp._tls in DNS is told how many connections came to its hosts as it wants, and which did not and
    /// why. Only mail that goes by MX is counted. They go by mail, signed with the key of the contact's
    /// domain if there is one (dkim), as most domains want it, or to the web.
    pub struct TlsReports {
        /// Count, and send reports. It takes contact.
        enabled: bool = false, false;
        /// Who reports, in words.
        organization: Option<String> = None, None, shown "this machine's full name";
        /// The address that reports come from, and that answers questions about them.
        contact: Option<Mailbox> = None, None, shown "required if enabled";
        /// The virtual server that they leave by.
        server: Option<ServerName> = None, None, shown "default, else the first";
    }
}

section! {
    /// A certificate that we show, and its key.
    pub struct CertificateKeys {
        /// The file of the certificate in PEM, followed by those that vouch for it. It is looked at
        /// again when it changes.
        chain: Option<PathBuf> = None, None, shown "required, without acme";
        /// The file of its private key in PEM, which nobody but the service may read.
        key: Option<PathBuf> = None, None, shown "required, without acme";
        /// The names that it is for, where it is asked of the authority of tls.acme instead. The service keeps
        /// it; until it is there, and if it never is, auto stands in for it.
        acme: Vec<Domain> = Vec::new(), Vec::new();
    }
}

/// The certificates that have names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Certificates(pub BTreeMap<CertificateName, CertificateKeys>);

impl Section for Certificates {
    const ABOUT: &'static [&'static str] = &[];
    const KEYS: &'static [&'static str] = &[];

    fn defaults(_profile: Profile) -> Self {
        Self::default()
    }

    fn read(&mut self, node: &Node, path: &str, reader: &mut Reader) {
        let Kind::Map(pairs) = &node.kind else {
            if !node.is_empty() {
                let title = format!("{path} has names of its own");
                let diagnostic = reader.error_at("E0105", title, node, "no name: keys");
                reader.report(diagnostic.help("write  relay1: {chain: ..., key: ...}  below it"));
            }
            return;
        };
        for (key, value) in pairs {
            let name = CertificateName::parse(&key.text).filter(|name| !name.is_auto());
            let Some(name) = name else {
                let title = format!("{:?} cannot name a certificate", key.text);
                let diagnostic = Diagnostic::error("E0390", title)
                    .at(&reader.source, key.span.clone(), "not such a name")
                    .help("use at most 32 of a-z, 0-9, - and _, beginning with a letter; not auto");
                reader.report(diagnostic);
                continue;
            };
            let own = join(path, name.as_str());
            let mut keys = CertificateKeys::defaults(Profile::Modern);
            reader.remember(&own, value);
            keys.read(value, &own, reader);
            check(&keys, &own, value, reader);
            self.0.insert(name, keys);
        }
    }

    fn describe(path: &str, out: &mut Vec<KeyDoc>) {
        CertificateKeys::describe(&join(path, "NAME"), out);
    }

    fn list(&self, path: &str, profile: Profile, origins: &Origins, out: &mut Vec<EffectiveKey>) {
        for (name, keys) in &self.0 {
            keys.list(&join(path, name.as_str()), profile, origins, out);
        }
    }
}

/// The most names of a certificate that is asked for; authorities take no more.
const NAMES_MAX: usize = 100;

fn check(keys: &CertificateKeys, path: &str, node: &Node, reader: &mut Reader) {
    let own = join(path, "acme");
    if let Some(span) = reader.origins.get(&own).cloned() {
        check_names(keys, &own, span, reader);
        return;
    }
    check_files(keys, path, node, reader);
}

/// A certificate that is asked for: for some names, and not from files.
fn check_names(keys: &CertificateKeys, own: &str, span: Range<usize>, reader: &mut Reader) {
    let at = |reader: &Reader, code, title, label: &str| {
        Diagnostic::error(code, title).at(&reader.source, span.clone(), label)
    };
    if keys.chain.is_some() || keys.key.is_some() {
        let title = format!("{own}: the certificate lies in files as well");
        let diagnostic = at(reader, "E0374", title, "asked for");
        reader.report(diagnostic.help("remove chain and key, or remove acme"));
    }
    // What stands there and is no name was told already.
    let is_told = keys.acme.is_empty() && reader.origins.contains_key(&format!("{own}[0]"));
    let names = keys.acme.len();
    if !is_told && (names == 0 || names > NAMES_MAX) {
        let title = format!("{own} has {names} names");
        let diagnostic = at(reader, "E0374", title, "for whom?");
        reader.report(diagnostic.help(format!("name 1 to {NAMES_MAX} hosts")));
    }
}

fn check_files(keys: &CertificateKeys, path: &str, node: &Node, reader: &mut Reader) {
    for (key, file) in [("chain", &keys.chain), ("key", &keys.key)] {
        let whole = join(path, key);
        match file {
            None if !reader.origins.contains_key(&whole) => {
                let title = format!("{whole} is missing");
                let diagnostic = reader.error_at("E0104", title, node, "which file?");
                reader.report(diagnostic.help(
                    "name the files of the certificate and of its key, or ask for one: acme",
                ));
            }
            Some(file) if file.is_relative() => {
                let span = reader.origins.get(&whole).cloned().unwrap_or_default();
                let diagnostic =
                    Diagnostic::error("E0210", format!("{whole} must be a whole path"))
                        .at(&reader.source, span, "does not begin with /")
                        .help("write the path from / on");
                reader.report(diagnostic);
            }
            _ => {}
        }
    }
}

/// The name of a certificate: `a-z`, `0-9`, `-` and `_`, beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateName(Box<str>);

impl CertificateName {
    /// Longest name, in octets.
    pub const OCTETS_MAX: usize = 32;
    /// The certificate that the service makes for itself.
    const AUTO: &'static str = "auto";

    /// Checks a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_plain_name(text, Self::OCTETS_MAX).then(|| Self(text.into()))
    }

    /// The certificate that the service makes for itself, signed by nobody else.
    #[must_use]
    pub fn auto() -> Self {
        Self(Self::AUTO.into())
    }

    /// Whether it is that one.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        &*self.0 == Self::AUTO
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

super::host::parsed_text! {
    CertificateName, "certificate's name", "E0390", Self::parse,
        "write auto, or the name of one of tls.certificates";
}

choice! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// RFC 5246.
        V12 = "1.2",
        /// RFC 8446.
        V13 = "1.3",
    }
}

/// Who may vouch for certificates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The authorities that this system trusts.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

impl Setting for Trust {
    type Quantity = u8;

    fn type_name() -> String {
        "system or path".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::File(path) => path.show(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if node.text() == Some("system") {
            return Some(Self::System);
        }
        PathBuf::read(node, reader).map(Self::File)
    }
}
