//! Signs messages (DKIM, RFC 6376): what is covered, and the field that says so.
//!
//! In: the header of a message, the digest of its body in canonical form, who signs. Out: the octets
//! that a private key signs, and with the signature the `DKIM-Signature` field. The key itself and
//! the digests are the caller's affair: nothing here is secret.
//!
//! Signatures are `c=relaxed/simple`: header fields may be folded anew and their blanks changed on the
//! way, the body may not. Bodies in the simple form need no look-ahead over lines, and verifiers do not
//! differ about lines of blanks at the end, as some do in the relaxed one. There is no `l=`, so that
//! nothing can be put behind a signed body, and `From` is listed once more than it occurs, so that none
//! can be put before it (section 5.4.2).

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::address::{Domain, ReversePath};
use mailroot_common::config::Selector;
use mailroot_common::config::dkim::FieldName;
use mailroot_common::units::Timestamp;

use super::address_list;
use super::header::{Field, fields};

mod body;

pub use body::SimpleBody;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// PKCS #1 v1.5 with SHA-256 (RFC 6376 section 3.3.1).
    RsaSha256,
    /// Ed25519 over a SHA-256 digest (RFC 8463 section 3).
    Ed25519Sha256,
}

impl Algorithm {
    /// The word of the tag `a=`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    /// The word of the tag `k=` in DNS.
    #[must_use]
    pub const fn key_type(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa",
            Self::Ed25519Sha256 => "ed25519",
        }
    }
}

/// The domain in whose name a message is sent: that of the first address in `From`, else that of the
/// envelope's sender. Nothing for a message that has no header, which nobody could find a signature in.
#[must_use]
pub fn author_domain(header: &[u8], sender: &ReversePath) -> Option<Domain> {
    fields(header).next()?;
    let from = fields(header).find(|field| field.is("From"));
    let addresses = from.and_then(|field| address_list::parse(&header[field.value]).ok());
    let author = addresses.and_then(|all| all.into_iter().next());
    match author {
        Some(mailbox) => mailbox.domain().cloned(),
        None => sender.mailbox().and_then(|mailbox| mailbox.domain().cloned()),
    }
}

/// The fields of one message that a signature covers, in the order of its tag `h=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered {
    names: Vec<String>,
    /// The fields in relaxed form.
    canonical: Vec<u8>,
}

impl Covered {
    /// Chooses among the fields of a header; several of one name from the last to the first
    /// (section 5.4.2). `From` is always covered, and its absence beyond.
    #[must_use]
    pub fn of(header: &[u8], wanted: &[FieldName]) -> Self {
        Self::among(header, wanted.iter().map(FieldName::as_str))
    }

    /// The same for whoever seals a message: signatures that it bears are covered as well (RFC 8617
    /// section 4.1.2).
    #[must_use]
    pub fn of_sealed(header: &[u8], wanted: &[FieldName]) -> Self {
        Self::among(header, wanted.iter().map(FieldName::as_str).chain([DKIM]))
    }

    fn among<'a>(header: &[u8], wanted: impl Iterator<Item = &'a str>) -> Self {
        let all: Vec<Field<'_>> = fields(header).collect();
        let is_from = |name: &str| name.eq_ignore_ascii_case("From");
        let rest = wanted.filter(|name| !is_from(name));
        let mut covered = Self { names: Vec::new(), canonical: Vec::new() };
        for name in std::iter::once("From").chain(rest) {
            if covered.names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                continue;
            }
            for field in all.iter().rev().filter(|field| field.is(name)) {
                covered.names.push(name.to_owned());
                relax(header, field, &mut covered.canonical);
            }
            if is_from(name) {
                covered.names.push(name.to_owned());
            }
        }
        covered
    }
}

/// Appends a field in relaxed form (section 3.4.2), with its CRLF.
pub(crate) fn relax(octets: &[u8], field: &Field<'_>, out: &mut Vec<u8>) {
    relax_parts(field.name, &octets[Range::clone(&field.value)], out);
    out.extend_from_slice(b"\r\n");
}

/// The same of a name and a value, without CRLF.
pub(crate) fn relax_parts(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend(name.iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let mut gap = false;
    let start = out.len();
    for &octet in value {
        match octet {
            b'\r' | b'\n' => {}
            b' ' | b'\t' => gap = true,
            _ => {
                if gap && out.len() > start {
                    out.push(b' ');
                }
                gap = false;
                out.push(octet);
            }
        }
    }
}

/// Who signs, how, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer<'a> {
    /// The domain.
    pub domain: &'a Domain,
    /// Which of its keys.
    pub selector: &'a Selector,
    /// How.
    pub algorithm: Algorithm,
    /// When; written in seconds.
    pub at: Timestamp,
}

/// A `DKIM-Signature` field, or one of those of ARC that are like it, without its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    name: &'static str,
    /// Up to and with `b=`.
    field: Vec<u8>,
}

/// The names of the fields.
const DKIM: &str = "DKIM-Signature";
const ARC_MESSAGE: &str = "ARC-Message-Signature";
const ARC_SEAL: &str = "ARC-Seal";
/// How long lines are made (RFC 5322 section 2.1.1).
const LINE_OCTETS: usize = 76;

impl Draft {
    /// A `DKIM-Signature` about these fields and a body with this SHA-256.
    #[must_use]
    pub fn new(signer: &Signer<'_>, covered: &Covered, body_digest: &[u8]) -> Self {
        Self::about((DKIM, "v=1"), signer, covered, body_digest)
    }

    /// The same as an `ARC-Message-Signature` of the set with this number (RFC 8617 section 4.1.2).
    #[must_use]
    pub fn of_set(
        number: usize,
        signer: &Signer<'_>,
        covered: &Covered,
        body_digest: &[u8],
    ) -> Self {
        Self::about((ARC_MESSAGE, &format!("i={number}")), signer, covered, body_digest)
    }

    /// An `ARC-Seal` of the set with this number, which says what the sets before came to (RFC 8617
    /// section 4.1.3).
    #[must_use]
    pub fn seal(number: usize, status: &str, signer: &Signer<'_>) -> Self {
        let Signer { domain, selector, algorithm, at } = signer;
        let (word, seconds) = (algorithm.word(), at.as_millis() / 1000);
        let field = format!(
            "{ARC_SEAL}: i={number}; a={word}; t={seconds}; cv={status};\r\n\td={domain};\r\n\t\
             s={selector};\r\n\tb="
        );
        Self { name: ARC_SEAL, field: field.into_bytes() }
    }

    fn about(
        (name, first): (&'static str, &str),
        signer: &Signer<'_>,
        covered: &Covered,
        body_digest: &[u8],
    ) -> Self {
        let Signer { domain, selector, algorithm, at } = signer;
        let seconds = at.as_millis() / 1000;
        let mut text = format!(
            "{name}: {first}; a={}; c=relaxed/simple;\r\n\td={domain};\r\n\ts={selector}; t={seconds};",
            algorithm.word()
        );
        let mut line = String::from("h=");
        for (number, name) in covered.names.iter().enumerate() {
            let mark = if number + 1 == covered.names.len() { ';' } else { ':' };
            if line.len() + name.len() > LINE_OCTETS {
                text.push_str("\r\n\t");
                text.push_str(&line);
                line.clear();
            }
            line.push_str(name);
            line.push(mark);
        }
        text.push_str(&format!("\r\n\t{line}\r\n\tbh={};\r\n\tb=", STANDARD.encode(body_digest)));
        Self { name, field: text.into_bytes() }
    }

    /// What the key signs: the covered fields, and this one without its end (section 3.7).
    #[must_use]
    pub fn to_be_signed(&self, covered: &Covered) -> Vec<u8> {
        self.behind(covered.canonical.clone())
    }

    /// The same behind fields that are in relaxed form already.
    pub(crate) fn behind(&self, mut canonical: Vec<u8>) -> Vec<u8> {
        let value = self.field.get(self.name.len() + 1..).unwrap_or_default();
        relax_parts(self.name.as_bytes(), value, &mut canonical);
        canonical
    }

    /// The whole field with its CRLF.
    #[must_use]
    pub fn finish(self, signature: &[u8]) -> Vec<u8> {
        let mut field = self.field;
        let text = STANDARD.encode(signature);
        for (number, part) in text.as_bytes().chunks(LINE_OCTETS - 4).enumerate() {
            if number > 0 {
                field.extend_from_slice(b"\r\n\t");
            }
            field.extend_from_slice(part);
        }
        field.extend_from_slice(b"\r\n");
        field
    }
}

/// The text of the TXT record that publishes a key (section 3.6.1): `public` is the key's
/// `SubjectPublicKeyInfo` for RSA, its 32 octets for Ed25519 (RFC 8463 section 4).
#[must_use]
pub fn record_text(algorithm: Algorithm, public: &[u8]) -> String {
    format!("v=DKIM1; k={}; p={}", algorithm.key_type(), STANDARD.encode(public))
}

/// Whether two texts of TXT records publish one key: the tags `k` and `p` are the same, blanks and the
/// order of tags do not matter (section 3.6.1).
#[must_use]
pub fn is_same_key(one: &str, other: &str) -> bool {
    let tag = |text: &str, wanted: &str| {
        let tags = text.split(';').filter_map(|tag| tag.split_once('='));
        let found = tags.filter(|(name, _)| name.trim() == wanted).map(|(_, value)| value).next();
        found.map(|value| value.split_whitespace().collect::<String>())
    };
    let key_type = |text| tag(text, "k").unwrap_or_else(|| "rsa".to_owned());
    tag(one, "p").is_some_and(|key| !key.is_empty() && tag(other, "p") == Some(key))
        && key_type(one) == key_type(other)
}

#[cfg(test)]
mod tests;
