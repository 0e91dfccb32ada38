//! Reads records of SPF (RFC 7208 sections 4.5, 4.6 and 5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::macros::Template;

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// How many bits of an address count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

/// What a client is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(Template),
    A(Option<Template>, Bits),
    Mx(Option<Template>, Bits),
    Ptr(Option<Template>),
    Network(IpNet),
    Exists(Template),
}

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) directives: Vec<(Qualifier, Mechanism)>,
    pub(super) redirect: Option<Template>,
}

/// Whether a text is a record of SPF, well formed or not.
pub(super) fn is_record(text: &str) -> bool {
    let version = text.get(..6).unwrap_or_default();
    version.eq_ignore_ascii_case("v=spf1") && matches!(text.as_bytes().get(6), None | Some(b' '))
}

impl Record {
    /// Reads a record; nothing if any of it breaks the grammar.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut record = Self::default();
        let mut explained = false;
        for term in text.get(6..)?.split(' ').filter(|term| !term.is_empty()) {
            if !term.bytes().all(|octet| octet.is_ascii_graphic()) {
                return None;
            }
            let end = term.find([':', '/', '=']).unwrap_or(term.len());
            if term.as_bytes().get(end) != Some(&b'=') {
                record.directives.push(directive(term)?);
                continue;
            }
            let (name, value) = (&term[..end], &term[end + 1..]);
            if name.eq_ignore_ascii_case("redirect") {
                if record.redirect.replace(Template::domain(value)?).is_some() {
                    return None;
                }
            } else if name.eq_ignore_ascii_case("exp") {
                Template::domain(value)?;
                if std::mem::replace(&mut explained, true) {
                    return None;
                }
            } else {
                let good = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
                let begins = name.starts_with(|c: char| c.is_ascii_alphabetic());
                if !begins || !name.bytes().all(good) {
                    return None;
                }
                Template::text(value)?;
            }
        }
        Some(record)
    }
}

fn directive(term: &str) -> Option<(Qualifier, Mechanism)> {
    let (qualifier, term) = match term.as_bytes().first()? {
        b'+' => (Qualifier::Pass, &term[1..]),
        b'-' => (Qualifier::Fail, &term[1..]),
        b'~' => (Qualifier::SoftFail, &term[1..]),
        b'?' => (Qualifier::Neutral, &term[1..]),
        _ => (Qualifier::Pass, term),
    };
    let end = term.find([':', '/']).unwrap_or(term.len());
    let (name, rest) = term.split_at(end);
    let value = rest.strip_prefix(':');
    let mechanism = match &*name.to_ascii_lowercase() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(Template::domain(value?)?),
        "exists" => Mechanism::Exists(Template::domain(value?)?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(Template::domain(value?)?)),
        "a" => aimed(rest).map(|(target, bits)| Mechanism::A(target, bits))?,
        "mx" => aimed(rest).map(|(target, bits)| Mechanism::Mx(target, bits))?,
        "ip4" => network(value?, true)?,
        "ip6" => network(value?, false)?,
        _ => return None,
    };
    Some((qualifier, mechanism))
}

/// What stands behind `a` and `mx`: `[:domain][/bits][//bits]`.
fn aimed(rest: &str) -> Option<(Option<Template>, Bits)> {
    let mut bits = Bits { v4: 32, v6: 128 };
    let mut rest = rest;
    if let Some((front, last)) = rest.rsplit_once("//")
        && let Some(found) = length(last, 128)
    {
        bits.v6 = found;
        rest = front;
    }
    if let Some((front, last)) = rest.rsplit_once('/')
        && let Some(found) = length(last, 32)
    {
        bits.v4 = found;
        rest = front;
    }
    match rest.strip_prefix(':') {
        Some(target) => Some((Some(Template::domain(target)?), bits)),
        None => rest.is_empty().then_some((None, bits)),
    }
}

/// A number of bits, without zeros in front.
fn length(text: &str, most: u8) -> Option<u8> {
    let plain = text == "0" || !text.starts_with('0');
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    let number = (plain && digits).then(|| text.parse::<u8>().ok()).flatten();
    number.filter(|&number| number <= most)
}

fn network(text: &str, v4: bool) -> Option<Mechanism> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let (address, most) = match v4 {
        true => (IpAddr::V4(address.parse::<Ipv4Addr>().ok()?), 32),
        false => (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), 128),
    };
    let bits = bits.map_or(Some(most), |bits| length(bits, most))?;
    IpNet::new(address, bits).ok().map(|net| Mechanism::Network(net.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(terms: &str) -> bool {
        Record::parse(&format!("v=spf1 {terms}")).is_some()
    }

    #[test]
    fn records_are_told_from_other_texts() {
        for text in ["v=spf1", "V=SPF1 -all", "v=spf1 "] {
            assert!(is_record(text), "{text}");
        }
        for text in ["v=spf10", "v=spf1\t-all", "spf1", "v=spf", " v=spf1", "v=spf2.0/mfrom"] {
            assert!(!is_record(text), "{text}");
        }
    }

    #[test]
    fn terms_follow_the_grammar() {
        for good in [
            "",
            "a mx -all",
            "A:Mail.Example.org/24//64 ~ALL",
            "mx//48 ?all",
            "mx/0",
            "a:%{d2}",
            "a:%{d1r/}.example.org/24",
            "ip4:192.0.2.0/24 ip6:2001:db8::/32 ip6:::1",
            "include:_spf.example.org redirect=other.example.org",
            "exists:%{ir}.%{v}._spf.%{d2} exp=e.example.org",
            "ptr ptr:example.org",
            "x-new=%{s}%%%_%- moo=",
            "include:example.org.",
        ] {
            assert!(reads(good), "{good}");
        }
        for bad in [
            "all:x",
            "all/8",
            "include",
            "include:",
            "include:localhost",
            "include:example.123",
            "include:example.-a",
            "exists",
            "ptr:",
            "a:",
            "a/33",
            "a/024",
            "a//129",
            "a:example.org/24/24",
            "ip4:192.0.2",
            "ip4:192.0.2.1/33",
            "ip4:2001:db8::1",
            "ip6:192.0.2.1",
            "ip4",
            "moo",
            "-",
            "redirect=a.b redirect=a.b",
            "exp=a.b exp=a.b",
            "1x=y",
            "include:%{x}.example.org",
            "include:%{c}.example.org",
            "include:%{d.example.org",
            "include:%a.example.org",
            "include:%{d0}.example.org",
            "redirect=",
            "a\u{e9}",
        ] {
            assert!(!reads(bad), "{bad}");
        }
    }
}
