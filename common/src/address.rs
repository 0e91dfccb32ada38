//! Mail addresses: domains, local parts, mailboxes and the reverse-path.
//!
//! Every type has one way in, `parse`, which checks the grammar of RFC 5321 section 4.1.2 (and of
//! RFC 6531 section 3.3 for addresses beyond ASCII); a value is free to use later. What the relay
//! decision compares and what goes out on the wire are the same text, so that no spelling can mean
//! one thing to the door and another to the next hop.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@` separates a local part from a domain.
    #[error("{0:?} has no domain: write name@domain")]
    NoDomain(String),
    /// The local part breaks the grammar or its limit of 64 octets.
    #[error("{0:?} is not a local part (RFC 5321 section 4.1.2)")]
    LocalPart(String),
    /// The domain is empty or longer than 255 octets.
    #[error("a domain has 1 to {max} octets, this one has {octets}", max = Domain::OCTETS_MAX)]
    DomainLength {
        /// Length found, in octets.
        octets: usize,
    },
    /// A label of the domain breaks the grammar.
    #[error("{label:?} is not a label of a domain name")]
    Label {
        /// The label at fault.
        label: String,
    },
    /// A text in square brackets is not an address literal.
    #[error("{0:?} is not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]")]
    Literal(String),
}

/// A mail domain in the one spelling Mailroot compares: lower-case A-labels joined by dots.
///
/// Never empty, never longer than [`Domain::OCTETS_MAX`], no trailing dot. An address literal
/// such as `[192.0.2.1]` is not a domain; see [`Host`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

impl Domain {
    /// RFC 5321 section 4.5.3.1.2.
    pub const OCTETS_MAX: usize = 255;
    /// RFC 1035 section 2.3.4.
    const LABEL_OCTETS_MAX: usize = 63;

    /// Reads a domain; U-labels become A-labels (RFC 5891), capitals become small.
    ///
    /// # Errors
    ///
    /// [`AddressError::DomainLength`] or [`AddressError::Label`], naming what is at fault.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text.len() > Self::OCTETS_MAX {
            return Err(AddressError::DomainLength { octets: text.len() });
        }
        if text.is_ascii() {
            return Self::from_ascii(text);
        }
        let ascii = idna::domain_to_ascii_strict(text)
            .map_err(|_| AddressError::Label { label: text.to_owned() })?;
        if ascii.is_empty() || ascii.len() > Self::OCTETS_MAX {
            return Err(AddressError::DomainLength { octets: ascii.len() });
        }
        Self::from_ascii(&ascii)
    }

    /// Reads what /etc/mailname holds: a domain on its first line.
    ///
    /// # Errors
    ///
    /// As [`Domain::parse`].
    pub fn of_mail_name(text: &str) -> Result<Self, AddressError> {
        Self::parse(text.lines().next().unwrap_or_default().trim())
    }

    fn from_ascii(text: &str) -> Result<Self, AddressError> {
        if let Some(bad) = text.split('.').find(|label| !is_label(label)) {
            return Err(AddressError::Label { label: bad.to_owned() });
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The A-label spelling, as it goes out on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is digits and dots only and so reads like an address, however it was written:
    /// full-width digits, for example, are spelt as ASCII ones.
    #[must_use]
    pub fn reads_like_an_address(&self) -> bool {
        self.0.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.')
    }

    /// Whether this is `parent` or one of its sub-domains' names below it, by whole labels.
    #[must_use]
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(&*parent.0).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
    }
}

/// Letters, digits and hyphens, no hyphen at an end; underscore is let through because internal
/// hosts carry it.
fn is_label(label: &str) -> bool {
    let octets = label.as_bytes();
    !octets.is_empty()
        && octets.len() <= Domain::LABEL_OCTETS_MAX
        && octets.iter().all(|o| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'_'))
        && octets.first() != Some(&b'-')
        && octets.last() != Some(&b'-')
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands to the right of `@`: a domain or an address literal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A domain name.
    Name(Domain),
    /// An address literal, written in square brackets.
    Address(IpAddr),
}

impl Host {
    /// Reads a domain, or an address literal of RFC 5321 section 4.1.3.
    ///
    /// # Errors
    ///
    /// [`AddressError::Literal`] for a bad text in brackets, else those of [`Domain::parse`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let Some(inner) = text.strip_prefix('[') else {
            return Domain::parse(text).map(Self::Name);
        };
        let bad = || AddressError::Literal(text.to_owned());
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        let address = match inner.get(..5) {
            Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => {
                inner[5..].parse::<Ipv6Addr>().map(IpAddr::V6)
            }
            _ => inner.parse::<Ipv4Addr>().map(IpAddr::V4),
        };
        address.map(Self::Address).map_err(|_| bad())
    }

    /// The domain, unless this is an address literal.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        match self {
            Self::Name(domain) => Some(domain),
            Self::Address(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(domain) => domain.fmt(f),
            Self::Address(IpAddr::V4(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[IPv6:{address}]"),
        }
    }
}

/// The part of an address to the left of `@`, exactly as it was written on the wire.
///
/// A quoted string keeps its quotes: they are part of the spelling that goes out again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPart(Box<str>);

impl LocalPart {
    /// RFC 5321 section 4.5.3.1.1.
    pub const OCTETS_MAX: usize = 64;

    /// Reads a dot-string or a quoted string; characters beyond ASCII are let through here and
    /// reported by [`Mailbox::is_ascii`].
    ///
    /// # Errors
    ///
    /// [`AddressError::LocalPart`] with the text.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let good = !text.is_empty()
            && text.len() <= Self::OCTETS_MAX
            && (is_dot_string(text) || is_quoted_string(text));
        if good { Ok(Self(text.into())) } else { Err(AddressError::LocalPart(text.to_owned())) }
    }

    /// The spelling of the wire, quotes included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The characters meant: without quotes and escapes.
    #[must_use]
    pub fn unquoted(&self) -> String {
        let Some(inner) = self.0.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
            return self.0.to_string();
        };
        let mut out = String::with_capacity(inner.len());
        let mut escaped = false;
        for c in inner.chars() {
            if c == '\\' && !escaped {
                escaped = true;
            } else {
                escaped = false;
                out.push(c);
            }
        }
        out
    }
}

fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 section 3.2.3, with RFC 6531's characters beyond ASCII; no control or separator ones.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || "!#$%&'*+-/=?^_`{|}~".contains(c)
        || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
}

fn is_quoted_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return false;
    };
    let mut escaped = false;
    for c in inner.chars() {
        let allowed = if c.is_ascii() { (' '..='~').contains(&c) } else { !c.is_control() };
        if !allowed || (c == '"' && !escaped) {
            return false;
        }
        escaped = c == '\\' && !escaped;
    }
    !escaped && text.len() >= 2
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A complete mail address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    local: LocalPart,
    host: Host,
}

impl Mailbox {
    /// Puts the two halves together.
    #[must_use]
    pub fn new(local: LocalPart, host: Host) -> Self {
        Self { local, host }
    }

    /// Reads `local@domain`, without angle brackets. The last `@` outside quotes divides.
    ///
    /// # Errors
    ///
    /// [`AddressError`], naming the half at fault.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, host) =
            text.rsplit_once('@').ok_or_else(|| AddressError::NoDomain(text.to_owned()))?;
        Ok(Self { local: LocalPart::parse(local)?, host: Host::parse(host)? })
    }

    /// The part before `@`.
    #[must_use]
    pub fn local(&self) -> &LocalPart {
        &self.local
    }

    /// The part after `@`.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The domain, unless the address has a literal instead.
    #[must_use]
    pub fn domain(&self) -> Option<&Domain> {
        self.host.domain()
    }

    /// Whether a peer without SMTPUTF8 can be given this address (a domain always can).
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.local.0.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local, self.host)
    }
}

/// Where reports about a message go: a mailbox, or nowhere (`<>`, for reports themselves).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum ReversePath {
    /// `<>`: nobody is to be told.
    #[default]
    Null,
    /// The sender.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// Reads an address, or nothing for the null path; no angle brackets but `<>` itself.
    ///
    /// # Errors
    ///
    /// Those of [`Mailbox::parse`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text == "<>" {
            return Ok(Self::Null);
        }
        Mailbox::parse(text).map(Self::Mailbox)
    }

    /// The mailbox, unless the path is null.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// Whether reports about this message may not be sent.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// Without angle brackets; the null path is the empty text.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(mailbox) => mailbox.fmt(f),
        }
    }
}

/// Serialises a type as its `Display` text and reads it back with `parse`.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = AddressError;

            fn from_str(text: &str) -> Result<Self, AddressError> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Domain, Host, LocalPart, Mailbox, ReversePath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_is_compared_in_one_spelling() {
        assert_eq!(Domain::parse("Example.ORG").unwrap().as_str(), "example.org");
        assert_eq!(Domain::parse("bücher.example").unwrap().as_str(), "xn--bcher-kva.example");
        let root = Domain::parse("example.org").unwrap();
        assert!(Domain::parse("a.example.org").unwrap().is_below(&root));
        assert!(!Domain::parse("badexample.org").unwrap().is_below(&root));
        assert!(!root.is_below(&root));
    }

    #[test]
    fn bad_domains_are_refused() {
        for bad in ["", ".", "a..b", "a.", ".a", "-a.b", "a-.b", "a b", "a/b", "a\0b", "a。b。."]
        {
            assert!(Domain::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Domain::parse(&"a.".repeat(128)).is_err());
        assert!(Domain::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn mailbox_keeps_the_spelling_of_the_wire() {
        for text in [
            "a@b.example",
            "A.b+c@b.example",
            "\"a b\"@b.example",
            "\"a@b\"@x.example",
            "\"a\\\"b\"@x.example",
            "a@[127.0.0.1]",
            "a@[IPv6:::1]",
            "grüße@b.example",
        ] {
            assert_eq!(Mailbox::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_mailboxes_are_refused() {
        for bad in [
            "a",
            "@b",
            "a@",
            "a b@c",
            "a@b@c",
            ".a@b",
            "a.@b",
            "a..b@c",
            "\"a@b",
            "a\"b@c",
            "\"a\"b\"@c",
            "a@[1.2.3]",
            "a@[ipv6:xyz]",
            "a\r\n@b",
            "<a@b>",
            "a,b@c",
            "\"a\\\"@c",
            "a@b>",
        ] {
            assert!(Mailbox::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Mailbox::parse(&format!("{}@b", "a".repeat(65))).is_err());
    }

    #[test]
    fn unquoting_removes_quotes_and_escapes_only() {
        assert_eq!(LocalPart::parse("\"a\\\"b\\\\ c\"").unwrap().unquoted(), "a\"b\\ c");
        assert_eq!(LocalPart::parse("plain").unwrap().unquoted(), "plain");
    }

    #[test]
    fn null_path_is_the_empty_text() {
        assert_eq!(ReversePath::parse("").unwrap(), ReversePath::Null);
        assert_eq!(ReversePath::parse("<>").unwrap(), ReversePath::Null);
        assert_eq!(ReversePath::Null.to_string(), "");
        assert_eq!(serde_json::to_string(&ReversePath::Null).unwrap(), "\"\"");
    }
}
