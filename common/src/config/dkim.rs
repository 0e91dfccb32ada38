//! `dkim:` - the keys that mail of our domains is signed with on its way out (RFC 6376).
//!
//! An entry names the place of a private key and never holds it. What is signed is said here too, so
//! that the configuration shows all of it.

use std::fmt;

use super::diagnostic::Diagnostic;
use super::host::parsed_text;
use super::node::{Kind, Node};
use super::root::item;
use super::secret::Secret;
use super::section::{Profile, Reader, Section, section};
use crate::address::Domain;

section! {
    /// One key as it is written.
    pub struct DkimKeys {
        /// The domain that signs: mail with this domain in From, or without an address there but with
        /// this domain in its envelope sender. Several entries of one domain all sign.
        domain: Option<Domain> = None, None, shown "required";
        /// The name of the key below _domainkey of the domain in DNS.
        selector: Option<Selector> = None, None, shown "required";
        /// Where the private key is kept, in PEM as PKCS#8, RSA of at least 2048 bits or Ed25519: a file
        /// in secrets.d, a credential of systemd, or a variable of the environment. Never the key itself.
        key: Option<Secret> = None, None, shown "required";
        /// Sign mail of all domains below this one as well, where they have no entry of their own.
        subdomains: bool = false, false;
        /// The header fields that are signed where a message has them; From always is, with the mark that
        /// there is no further one.
        headers: Vec<FieldName> = usual_headers(), usual_headers();
    }
}

/// RFC 6376 section 5.4.1, with those that say how the body is to be read.
const USUAL: [&str; 23] = [
    "From",
    "Subject",
    "Date",
    "To",
    "Cc",
    "Reply-To",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-ID",
    "Content-Description",
    "In-Reply-To",
    "References",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

/// Fields that others change or add on the way, or that speak of the way (RFC 6376 section 5.4.1).
const FLEETING: [&str; 9] = [
    "Received",
    "Return-Path",
    "Delivered-To",
    "DKIM-Signature",
    "Authentication-Results",
    "ARC-Seal",
    "ARC-Message-Signature",
    "ARC-Authentication-Results",
    "Received-SPF",
];

/// The fields that are signed unless the configuration says otherwise.
#[must_use]
pub fn usual_headers() -> Vec<FieldName> {
    USUAL.iter().map(|&name| FieldName(name.into())).collect()
}

/// The name of a key below `_domainkey` of its domain (RFC 6376 section 3.1), in small letters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(Box<str>);

impl Selector {
    /// Reads labels of letters, digits and hyphens, joined by dots.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.is_ascii() && !text.contains('_');
        let labels = Domain::parse(text).ok().filter(|_| plain)?;
        Some(Self(labels.as_str().into()))
    }

    /// The selector.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a header field that may be signed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldName(Box<str>);

impl FieldName {
    /// Reads a name (RFC 5322 section 3.6.8) of a field that nobody changes on the way.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let good = !text.is_empty()
            && text.len() <= 64
            && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
            && !FLEETING.iter().any(|fleeting| fleeting.eq_ignore_ascii_case(text));
        good.then(|| Self(text.into()))
    }

    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

parsed_text! {
    Selector, "selector", "E0317", Self::parse,
        "use letters, digits and hyphens, such as mr1";
    FieldName, "header field to be signed", "E0318", Self::parse,
        "write a name such as Subject; Received, DKIM-Signature and other fields of the way are never signed";
}

/// A key that mail is signed with.
#[derive(Clone, Debug, PartialEq)]
pub struct DkimEntry {
    /// The domain that signs.
    pub domain: Domain,
    /// Which of its keys this is.
    pub selector: Selector,
    /// Where the private key is kept.
    pub key: Secret,
    /// Sign for the domains below as well.
    pub subdomains: bool,
    /// The fields that are signed.
    pub headers: Vec<FieldName>,
}

impl DkimEntry {
    /// The name of the TXT record with the public key (RFC 6376 section 3.6.2.1), without its final dot.
    #[must_use]
    pub fn record_name(&self) -> String {
        record_name(&self.selector, &self.domain)
    }

    pub(crate) fn keys(&self) -> DkimKeys {
        DkimKeys {
            domain: Some(self.domain.clone()),
            selector: Some(self.selector.clone()),
            key: Some(self.key.clone()),
            subdomains: self.subdomains,
            headers: self.headers.clone(),
        }
    }

    fn read(node: &Node, path: &str, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            let title = "a key of DKIM has keys of its own";
            let diagnostic = reader.error_at("E0105", title, node, "no key: value");
            reader.report(diagnostic.help(HELP));
            return None;
        };
        let mut keys = DkimKeys::defaults(Profile::Modern);
        keys.read(node, path, reader);
        for key in ["domain", "selector", "key"] {
            if !reader.origins.contains_key(&format!("{path}.{key}")) {
                let title = format!("this key of DKIM has no {key}");
                let diagnostic = reader.error_at("E0104", title, node, "not said");
                reader.report(diagnostic.help(HELP));
            }
        }
        let DkimKeys { domain, selector, key, subdomains, headers } = keys;
        let entry = Self { domain: domain?, selector: selector?, key: key?, subdomains, headers };
        if entry.record_name().len() > NAME_OCTETS_MAX {
            let title = format!("{} is too long for DNS", entry.record_name());
            let diagnostic = reader.error_at("E0317", title, node, "more than 253 octets");
            reader.report(diagnostic.help("choose a shorter selector"));
            return None;
        }
        Some(entry)
    }
}

/// The name of the TXT record of a key, without its final dot.
#[must_use]
pub fn record_name(selector: &Selector, domain: &Domain) -> String {
    format!("{selector}._domainkey.{domain}")
}

/// The longest name DNS knows, without its final dot (RFC 1035 section 2.3.4).
const NAME_OCTETS_MAX: usize = 253;

const HELP: &str = "write {domain: example.net, selector: mr1, key: {file: NAME}}; \
                    smtpctl dkim create makes a key and its entry";

/// Reads the list.
pub(crate) fn read(node: &Node, reader: &mut Reader) -> Vec<DkimEntry> {
    let items: &[Node] = match &node.kind {
        Kind::List(items) => items,
        Kind::Map(_) => std::slice::from_ref(node),
        Kind::Scalar { .. } if node.is_empty() => &[],
        Kind::Scalar { .. } => {
            let diagnostic =
                reader.error_at("E0106", "a list of keys belongs here", node, "not a list");
            reader.report(diagnostic.help(HELP));
            return Vec::new();
        }
    };
    let mut out: Vec<DkimEntry> = Vec::new();
    for (number, node) in items.iter().enumerate() {
        let path = item("dkim", number);
        let Some(entry) = DkimEntry::read(node, &path, reader) else { continue };
        let twin = |other: &&DkimEntry| other.record_name() == entry.record_name();
        if out.iter().any(|other| twin(&other)) {
            let title = format!("the selector {} of {} stands twice", entry.selector, entry.domain);
            let diagnostic = Diagnostic::error("E0439", title)
                .at(&reader.source, node.span.clone(), "second time")
                .help("give each key of a domain a selector of its own");
            reader.report(diagnostic);
        }
        out.push(entry);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ServerName, parse_server, render_all};

    fn parse(dkim: &str) -> Result<Vec<DkimEntry>, String> {
        let text =
            format!("version: 1\ndomains: [{{name: a.example, type: default}}]\ndkim:\n{dkim}");
        let name = ServerName::parse("default").unwrap();
        parse_server(&name, &text, "default.yaml")
            .map(|(config, _)| config.dkim)
            .map_err(|found| render_all(&found))
    }

    #[test]
    fn keys_are_read_with_their_places() {
        let text = "  - {domain: A.example, selector: MR1, key: {file: k}}\n  \
                    - {domain: a.example, selector: 2026.b, key: {credential: c}, subdomains: true, headers: [From, X-A]}\n";
        let read = parse(text).unwrap();
        assert_eq!(read[0].record_name(), "mr1._domainkey.a.example");
        assert_eq!(read[0].headers.len(), USUAL.len());
        assert_eq!(read[1].key, Secret::Credential("c".to_owned()));
        assert!(read[1].subdomains && !read[0].subdomains);
        assert_eq!(read[1].headers[1].as_str(), "X-A");
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (line, code) in [
            ("  - {domain: a.example, selector: mr1}\n", "E0104"),
            ("  - {domain: a.example, selector: a_b, key: {file: k}}\n", "E0317"),
            (
                "  - {domain: a.example, selector: s, key: {file: k}, headers: [received]}\n",
                "E0318",
            ),
            ("  - {domain: a.example, selector: s, key: \"-----BEGIN\"}\n", "E0313"),
            ("  - a.example\n", "E0105"),
            ("  word\n", "E0106"),
            (
                "  - {domain: a.example, selector: s, key: {file: k}}\n  \
                 - {domain: A.example, selector: S, key: {file: l}}\n",
                "E0439",
            ),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.contains(code), "{line}: {said}");
        }
    }
}
