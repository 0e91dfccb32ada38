//! What a certificate says: for whom, by whom, and from when until when.
//!
//! In: its octets (RFC 5280, in DER). Out: [`Facts`] for people and for choosing one by name. Nothing
//! here decides about trust. Files of administrators are read, and what clients show, so that what cannot
//! be understood is nothing at all, never half a certificate.

use std::net::{Ipv4Addr, Ipv6Addr};

use mailroot_common::units::Timestamp;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The names and addresses that it is for, in its order and in small letters.
    pub names: Vec<String>,
    /// The mail addresses that it is for, as they are written.
    pub emails: Vec<String>,
    /// Whose it is: a common name, or else an organisation.
    pub subject: String,
    /// Who signed it: a common name, or else an organisation.
    pub issuer: String,
    /// Whether it signed itself.
    pub self_signed: bool,
    /// From when on it is good.
    pub not_before: Timestamp,
    /// Until when it is good.
    pub not_after: Timestamp,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const OCTETS: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT` of the version and `[3] EXPLICIT` of the extensions.
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;
/// `dNSName` and `iPAddress` of a GeneralName.
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// `rfc822Name` of one.
const EMAIL: u8 = 0x81;
/// 2.5.29.17, 2.5.4.3 and 2.5.4.10.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0A];

impl Facts {
    /// Reads a certificate; nothing if it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut outer = Reader(Reader(der).take(SEQUENCE)?);
        let mut fields = Reader(outer.take(SEQUENCE)?);
        if fields.next_tag() == Some(VERSION) {
            fields.take(VERSION)?;
        }
        fields.any()?;
        fields.take(SEQUENCE)?;
        let issuer = fields.take(SEQUENCE)?;
        let mut validity = Reader(fields.take(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = fields.take(SEQUENCE)?;
        fields.take(SEQUENCE)?;
        let (mut names, mut emails) = (Vec::new(), Vec::new());
        while let Some((tag, content)) = fields.any() {
            if tag == EXTENSIONS {
                (names, emails) = alternative_names(content)?;
            }
        }
        if names.is_empty() {
            names.extend(attribute(subject, COMMON_NAME).map(|name| name.to_ascii_lowercase()));
        }
        Some(Self {
            names,
            emails,
            subject: called(subject).unwrap_or_default(),
            issuer: called(issuer).unwrap_or_default(),
            self_signed: issuer == subject,
            not_before,
            not_after,
        })
    }

    /// Whether it is for a host of this name (RFC 6125: a wildcard stands for one label).
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        let below = host.split_once('.').map(|(_, rest)| rest);
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(rest) => below.is_some_and(|below| below.eq_ignore_ascii_case(rest)),
            None => name.eq_ignore_ascii_case(host),
        })
    }
}

/// What a list of revoked certificates says of itself (RFC 5280 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFacts {
    /// Whose certificates it is about: a common name, or else an organisation.
    pub issuer: String,
    /// The issuer's whole name, to be compared.
    pub issuer_name: Box<[u8]>,
    /// When it was made.
    pub this_update: Timestamp,
    /// When there will be a newer one, if that is said.
    pub next_update: Option<Timestamp>,
}

impl ListFacts {
    /// Reads a list; nothing if it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        const INTEGER: u8 = 0x02;
        let mut outer = Reader(Reader(der).take(SEQUENCE)?);
        let mut fields = Reader(outer.take(SEQUENCE)?);
        if fields.next_tag() == Some(INTEGER) {
            fields.take(INTEGER)?;
        }
        fields.take(SEQUENCE)?;
        let issuer_name = fields.take(SEQUENCE)?;
        let this_update = fields.time()?;
        let is_said = matches!(fields.next_tag(), Some(UTC_TIME | GENERALIZED_TIME));
        Some(Self {
            issuer: called(issuer_name).unwrap_or_default(),
            issuer_name: issuer_name.into(),
            this_update,
            next_update: if is_said { Some(fields.time()?) } else { None },
        })
    }
}

/// By which digest a certificate is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureDigest {
    /// 32 octets.
    Sha256,
    /// 48 octets.
    Sha384,
    /// 64 octets.
    Sha512,
}

/// By which digest a certificate is known where logins are bound to it (RFC 5929 section 4.1): the one of
/// its signature, or SHA-256 where that is SHA-1 or MD5. Nothing for signatures without a digest of their
/// own, for which the standard has no answer.
#[must_use]
pub fn end_point_digest(der: &[u8]) -> Option<SignatureDigest> {
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04];
    let mut outer = Reader(Reader(der).take(SEQUENCE)?);
    outer.take(SEQUENCE)?;
    let algorithm = Reader(outer.take(SEQUENCE)?).take(OBJECT)?;
    match (algorithm.strip_prefix(RSA), algorithm.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Some(SignatureDigest::Sha256),
        (Some([12]), _) | (_, Some([3, 3])) => Some(SignatureDigest::Sha384),
        (Some([13]), _) | (_, Some([3, 4])) => Some(SignatureDigest::Sha512),
        _ => None,
    }
}

/// The names and the mail addresses among the extensions.
fn alternative_names(extensions: &[u8]) -> Option<(Vec<String>, Vec<String>)> {
    let mut list = Reader(Reader(extensions).take(SEQUENCE)?);
    let (mut out, mut emails) = (Vec::new(), Vec::new());
    while let Some((SEQUENCE, extension)) = list.any() {
        let mut extension = Reader(extension);
        if extension.take(OBJECT)? != SUBJECT_ALT_NAME {
            continue;
        }
        // Behind a flag that says whether it is critical, if that is there.
        let value = loop {
            if let (OCTETS, value) = extension.any()? {
                break value;
            }
        };
        let mut names = Reader(Reader(value).take(SEQUENCE)?);
        while let Some((tag, name)) = names.any() {
            match tag {
                DNS_NAME => out.push(std::str::from_utf8(name).ok()?.to_ascii_lowercase()),
                IP_ADDRESS => out.extend(address(name)),
                EMAIL => emails.push(std::str::from_utf8(name).ok()?.to_owned()),
                _ => {}
            }
        }
    }
    Some((out, emails))
}

fn address(octets: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(octets).map(|octets| Ipv4Addr::from(octets).to_string());
    let v6 = || <[u8; 16]>::try_from(octets).map(|octets| Ipv6Addr::from(octets).to_string());
    v4.or_else(|_| v6()).ok()
}

/// How people call whose name it is.
fn called(name: &[u8]) -> Option<String> {
    attribute(name, COMMON_NAME).or_else(|| attribute(name, ORGANISATION))
}

/// A part of a name.
fn attribute(name: &[u8], wanted: &[u8]) -> Option<String> {
    let mut sets = Reader(name);
    while let Some((SET, set)) = sets.any() {
        let mut part = Reader(Reader(set).take(SEQUENCE)?);
        if part.take(OBJECT)? == wanted {
            let (_, text) = part.any()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
    }
    None
}

/// Walks along values of DER.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next_tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value, whatever it is.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81..=0x83 => {
                let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (length.iter().fold(0, |sum, octet| sum << 8 | usize::from(*octet)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The next value, which must be of this kind.
    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.any().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }

    /// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` (RFC 5280 section 4.1.2.5).
    fn time(&mut self) -> Option<Timestamp> {
        let (tag, text) = self.any()?;
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                let century = if year.parse::<u8>().ok()? < 50 { "20" } else { "19" };
                (format!("{century}{year}"), rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (year.to_owned(), rest)
            }
            _ => return None,
        };
        if rest.len() != 10 || !rest.bytes().all(|octet| octet.is_ascii_digit()) {
            return None;
        }
        let part = |at: usize| rest.get(at..at + 2).unwrap_or_default();
        let (month, day, hour, minute, second) = (part(0), part(2), part(4), part(6), part(8));
        Timestamp::parse(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// `openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 3650 -subj
    /// "/O=Example/CN=mx.example.net" -addext
    /// "subjectAltName=DNS:mx.example.net,DNS:*.Example.org,IP:192.0.2.1,IP:2001:db8::1"`
    const PEM: &str = include_str!("certificate.pem");

    fn der() -> Vec<u8> {
        let lines = PEM.lines().filter(|line| !line.starts_with('-'));
        STANDARD.decode(lines.collect::<String>()).unwrap()
    }

    #[test]
    fn a_certificate_of_openssl_is_understood() {
        let facts = Facts::read(&der()).unwrap();
        let names = ["mx.example.net", "*.example.org", "192.0.2.1", "2001:db8::1"];
        assert_eq!(facts.names, names);
        assert_eq!(facts.issuer, "mx.example.net");
        assert_eq!((facts.subject.as_str(), facts.emails.len()), ("mx.example.net", 0));
        assert_eq!(end_point_digest(&der()), Some(SignatureDigest::Sha256));
        assert!(facts.self_signed && facts.not_before < facts.not_after);
        assert_eq!(&facts.not_after.to_string()[..4], "2036");
    }

    #[test]
    fn a_list_of_openssl_is_understood() {
        // openssl ca -gencrl -crl_lastupdate 20200101000000Z -crl_nextupdate 20210101000000Z
        let list = "MIHeMIGEAgEBMAoGCCqGSM49BAMCMC8xEDAOBgNVBAoMB0V4YW1wbGUxGzAZBgNVBAMMEmlzc3Vlci5leGFtcGxlLm5ldBcNMjAwMTAxMDAwMDAwWhcNMjEwMTAxMDAw\
                    MDAwWjAUMBICAQoXDTI1MDEwMTAwMDAwMFqgDjAMMAoGA1UdFAQDAgEBMAoGCCqGSM49BAMCA0kAMEYCIQCwU8mEvDh7XodAmypO39mrntTiXUKdzQx7hDGXgZ6gmQIh\
                    AIUYjE5o0UVEwJIE2PE2NdxE33kGNAEOlOhnfoU2RWyl";
        let list = STANDARD.decode(list).unwrap();
        let facts = ListFacts::read(&list).unwrap();
        assert_eq!(facts.issuer, "issuer.example.net");
        assert_eq!(Some(facts.this_update), Timestamp::parse("2020-01-01T00:00:00Z").ok());
        assert_eq!(facts.next_update, Timestamp::parse("2021-01-01T00:00:00Z").ok());
        assert_eq!((ListFacts::read(&der()), Facts::read(&list)), (None, None));
    }

    #[test]
    fn names_are_compared_as_hosts_are() {
        let facts = Facts::read(&der()).unwrap();
        for host in ["mx.example.net", "MX.example.net.", "a.example.org"] {
            assert!(facts.is_for(host), "{host}");
        }
        for host in ["example.net", "x.mx.example.net", "example.org", "a.b.example.org", ""] {
            assert!(!facts.is_for(host), "{host}");
        }
    }

    proptest! {
        #[test]
        fn damage_is_no_certificate_or_another_but_never_a_panic(
            at in 0_usize..700, octet: u8, cut in 0_usize..700,
        ) {
            let mut der = der();
            let length = der.len();
            der[at % length] = octet;
            let _ = Facts::read(&der);
            let _ = end_point_digest(&der);
            prop_assert!(Facts::read(&der[..cut % length]).is_none());
        }
    }
}
