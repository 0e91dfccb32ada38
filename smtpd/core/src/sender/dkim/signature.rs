//! Reads signatures, and puts together what they sign (RFC 6376 sections 3.5 and 3.7).

use std::collections::HashMap;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::address::Domain;
use sha2::{Digest as _, Sha256};

use super::super::tags::Tags;
use super::body::Form;
use crate::message::header::Field;
use crate::message::sign::{Algorithm, relax, relax_parts};

/// Fields that one signature may list; honest ones list some thirty.
const NAMES_MAX: usize = 500;
/// Octets of a signature as it is shown (RFC 6008 section 4).
const MARK_OCTETS: usize = 8;

/// What is wrong with a signature before anything is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fault {
    /// It cannot be read.
    Syntax,
    /// Its algorithm is not good enough, or not known (RFC 8301 section 3.1).
    Algorithm,
}

/// A `DKIM-Signature`, or an `ARC-Message-Signature`, which has the same tags but for two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Signature {
    pub(in super::super) algorithm: Algorithm,
    pub(in super::super) domain: Domain,
    pub(in super::super) selector: Domain,
    /// Whether it speaks for an identity below the domain.
    pub(in super::super) below: bool,
    pub(in super::super) signature: Vec<u8>,
    pub(in super::super) body_digest: Vec<u8>,
    pub(in super::super) body_form: Form,
    header_form: Form,
    /// Octets of the body that are signed; all if it is none.
    pub(in super::super) length: Option<u64>,
    /// The second since 1970 after which it does not count.
    pub(in super::super) expires: Option<u64>,
    names: Vec<String>,
}

/// Who signs and with which key, as far as that can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The domain (`d=`).
    pub domain: Option<Domain>,
    /// The selector (`s=`).
    pub selector: Option<Domain>,
    /// The beginning of the signature (`b=`).
    pub mark: String,
}

impl Label {
    /// Reads it out of the value of a field.
    pub(in super::super) fn of(value: &str) -> Self {
        let Some(tags) = Tags::parse(value) else { return Self::default() };
        let name = |tag| tags.get(tag).and_then(|text| Domain::parse(text).ok());
        let mut mark = tags.dense("b").unwrap_or_default();
        mark.retain(|c| c.is_ascii_alphanumeric() || "+/=".contains(c));
        mark.truncate(MARK_OCTETS);
        Self { domain: name("d"), selector: name("s"), mark }
    }
}

impl Signature {
    /// Reads the value of a `DKIM-Signature` field.
    pub(in super::super) fn parse(value: &str) -> Result<Self, Fault> {
        let tags = Tags::parse(value).ok_or(Fault::Syntax)?;
        if tags.get("v") != Some("1") {
            return Err(Fault::Syntax);
        }
        let mut signature = Self::of_tags(&tags)?;
        if let Some(identity) = tags.get("i") {
            let (_, domain) = identity.rsplit_once('@').ok_or(Fault::Syntax)?;
            let domain = Domain::parse(domain).map_err(|_| Fault::Syntax)?;
            signature.below = domain != signature.domain;
            if signature.below && !domain.is_below(&signature.domain) {
                return Err(Fault::Syntax);
            }
        }
        Ok(signature)
    }

    /// Reads what `DKIM-Signature` and `ARC-Message-Signature` have in common.
    pub(in super::super) fn of_tags(tags: &Tags) -> Result<Self, Fault> {
        let name =
            |tag| tags.get(tag).and_then(|text| Domain::parse(text).ok()).ok_or(Fault::Syntax);
        let octets = |tag| {
            let text = tags.dense(tag).filter(|text| !text.is_empty());
            text.and_then(|text| STANDARD.decode(text).ok()).ok_or(Fault::Syntax)
        };
        let number = |tag| match tags.get(tag) {
            None => Ok(None),
            Some(text) if text.bytes().all(|octet| octet.is_ascii_digit()) => {
                // Twelve digits are beyond the end of time (section 3.5).
                text.parse::<u64>().map(Some).map_err(|_| Fault::Syntax)
            }
            Some(_) => Err(Fault::Syntax),
        };
        let (domain, selector) = (name("d")?, name("s")?);
        let names = tags.get("h").ok_or(Fault::Syntax)?.split(':');
        let names: Vec<String> = names.map(|name| name.trim().to_ascii_lowercase()).collect();
        let (signed_at, expires) = (number("t")?, number("x")?);
        let is_backwards = matches!((signed_at, expires), (Some(from), Some(to)) if to <= from);
        let by_mail = tags.get("q").is_none_or(|q| q.split(':').any(|one| one.trim() == "dns/txt"));
        let good = !names.iter().any(String::is_empty)
            && names.len() <= NAMES_MAX
            && names.iter().any(|name| name == "from")
            && !is_backwards
            && by_mail;
        if !good {
            return Err(Fault::Syntax);
        }
        let (header_form, body_form) = forms(tags.get("c").unwrap_or("simple/simple"))?;
        Ok(Self {
            algorithm: algorithm(tags.get("a").ok_or(Fault::Syntax)?)?,
            domain,
            selector,
            below: false,
            signature: octets("b")?,
            body_digest: octets("bh")?,
            body_form,
            header_form,
            length: number("l")?,
            expires,
            names,
        })
    }

    /// Whether the fields that it signs are all there are of this name, and one more is ruled out.
    pub(in super::super) fn lists(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The digest that is signed: of the fields that are listed, and of the field with the signature
    /// itself but without its value of `b`.
    pub(in super::super) fn digest(&self, header: &Header<'_>, own: &Field<'_>) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut left: HashMap<&str, usize> = HashMap::new();
        let mut relaxed = Vec::new();
        for name in &self.names {
            let Some(places) = header.places.get(name.as_str()) else { continue };
            let left = left.entry(name).or_insert(places.len());
            let Some(next) = left.checked_sub(1) else { continue };
            *left = next;
            let field = &header.fields[places[next]];
            match self.header_form {
                Form::Simple => hash.update(&header.octets[Range::clone(&field.whole)]),
                Form::Relaxed => {
                    relaxed.clear();
                    relax(header.octets, field, &mut relaxed);
                    hash.update(&relaxed);
                }
            }
        }
        let front = &header.octets[own.whole.start..own.value.start];
        let value = unsigned(&header.octets[Range::clone(&own.value)]);
        match self.header_form {
            Form::Simple => {
                hash.update(front);
                hash.update(&value);
            }
            Form::Relaxed => {
                relaxed.clear();
                relax_parts(own.name, &value, &mut relaxed);
                hash.update(&relaxed);
            }
        }
        hash.finalize().into()
    }
}

/// The fields of a header, found by their names.
#[derive(Debug)]
pub(in super::super) struct Header<'a> {
    pub(in super::super) octets: &'a [u8],
    pub(in super::super) fields: Vec<Field<'a>>,
    places: HashMap<String, Vec<usize>>,
}

impl<'a> Header<'a> {
    /// Reads a header.
    pub(in super::super) fn new(octets: &'a [u8]) -> Self {
        let fields: Vec<Field<'a>> = crate::message::header::fields(octets).collect();
        let mut places: HashMap<String, Vec<usize>> = HashMap::new();
        for (place, field) in fields.iter().enumerate() {
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            places.entry(name).or_default().push(place);
        }
        Self { octets, fields, places }
    }

    /// The fields of a name, which is in small letters.
    pub(in super::super) fn all(&self, name: &str) -> impl Iterator<Item = &Field<'a>> {
        let places = self.places.get(name).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|&place| self.fields.get(place))
    }

    /// The value of a field as a text; octets that are none become marks that no tag has.
    pub(in super::super) fn value(&self, field: &Field<'_>) -> String {
        String::from_utf8_lossy(&self.octets[Range::clone(&field.value)]).into_owned()
    }
}

/// A value without that of its tag `b`, blanks around it included.
pub(in super::super) fn unsigned(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for (number, part) in value.split(|&octet| octet == b';').enumerate() {
        if number > 0 {
            out.push(b';');
        }
        let equals = part.iter().position(|&octet| octet == b'=');
        match equals {
            Some(at) if part[..at].trim_ascii() == b"b" => out.extend_from_slice(&part[..=at]),
            Some(_) | None => out.extend_from_slice(part),
        }
    }
    out
}

fn algorithm(word: &str) -> Result<Algorithm, Fault> {
    match word {
        "rsa-sha256" => Ok(Algorithm::RsaSha256),
        "ed25519-sha256" => Ok(Algorithm::Ed25519Sha256),
        _ => Err(Fault::Algorithm),
    }
}

fn forms(text: &str) -> Result<(Form, Form), Fault> {
    let form = |word: &str| match word.trim() {
        "simple" => Ok(Form::Simple),
        "relaxed" => Ok(Form::Relaxed),
        _ => Err(Fault::Syntax),
    };
    match text.split_once('/') {
        Some((header, body)) => Ok((form(header)?, form(body)?)),
        None => Ok((form(text)?, Form::Simple)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "v=1; a=rsa-sha256; d=A.example; s=s._x; h=From : To:from;\r\n bh=AQ ID; b=AQID";

    fn fault(change: (&str, &str)) -> Option<Fault> {
        Signature::parse(&GOOD.replace(change.0, change.1)).err()
    }

    #[test]
    fn signatures_are_read_and_faults_told() {
        let read = Signature::parse(GOOD).unwrap();
        assert_eq!((read.domain.as_str(), read.names.len()), ("a.example", 3));
        assert_eq!(
            (read.header_form, read.body_form, read.below),
            (Form::Simple, Form::Simple, false)
        );
        for (change, expected) in [
            (("v=1", "v=2"), Some(Fault::Syntax)),
            (("rsa-sha256", "rsa-sha1"), Some(Fault::Algorithm)),
            (("From : To:from", "To"), Some(Fault::Syntax)),
            (("From : To:from", "From::To"), Some(Fault::Syntax)),
            (("bh=AQ ID", "bh=*"), Some(Fault::Syntax)),
            (("; b=AQID", ""), Some(Fault::Syntax)),
            (("d=A.example", "d=a..b"), Some(Fault::Syntax)),
            (("v=1", "v=1; t=20; x=10"), Some(Fault::Syntax)),
            (("v=1", "v=1; l=-1"), Some(Fault::Syntax)),
            (("v=1", "v=1; q=carrier/pigeon"), Some(Fault::Syntax)),
            (("v=1", "v=1; c=relaxed"), None),
            (("v=1", "v=1; i=@x.a.example"), None),
            (("v=1", "v=1; i=joe@b.example"), Some(Fault::Syntax)),
            (("v=1", "v=1; c=loose"), Some(Fault::Syntax)),
        ] {
            assert_eq!(fault(change), expected, "{change:?}");
        }
        let many = "from:".repeat(NAMES_MAX + 1);
        assert_eq!(fault(("From : To:from", many.trim_end_matches(':'))), Some(Fault::Syntax));
    }

    #[test]
    fn only_the_value_of_b_is_taken_out() {
        for (value, expected) in [
            (" v=1; b= A\r\n B= ; bh=c", " v=1; b=; bh=c"),
            ("b=A", "b="),
            ("bh=b=x; b =y", "bh=b=x; b ="),
        ] {
            assert_eq!(unsigned(value.as_bytes()), expected.as_bytes());
        }
    }

    #[test]
    fn labels_show_what_can_be_read() {
        let label = Label::of("d=a.example; s=x; b=abc\"d/+efghijkl");
        assert_eq!(
            (label.domain.unwrap().as_str(), label.mark.as_str()),
            ("a.example", "abcd/+ef")
        );
        assert_eq!(Label::of("nonsense"), Label::default());
    }
}
