//! XCLIENT: a named host tells for whom it speaks, as Postfix's `XCLIENT_README` has it.
//!
//! In: the argument of the command. Out: a [`Told`], or which refusal it earns. Values are in xtext
//! (RFC 3461 section 4), so that no octet of theirs ends the line or the value. Who may say it, and what
//! is believed of it, is not decided here.

use std::net::IpAddr;

use super::command::parse_hello;
use super::refusal::Refusal;
use super::xtext::from_xtext;

/// What is told of a client. What is not told stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its address; nobody's where the host does not know it.
    pub address: Option<Option<IpAddr>>,
    /// Its port; zero where the host does not know it.
    pub port: Option<u16>,
    /// What it calls itself: it has greeted the host, and need not greet us.
    pub hello: Option<String>,
    /// Whether it speaks ESMTP.
    pub is_esmtp: bool,
}

/// What may be told, as the reply to EHLO lists it.
pub const ATTRIBUTES: &str = "NAME ADDR PORT PROTO HELO";

/// Words for what the host does not know, for good or at this moment.
const UNKNOWN: [&str; 2] = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];
/// The longest name of a host (RFC 1035).
const NAME_OCTETS_MAX: usize = 255;

impl Told {
    /// Reads `NAME=VALUE NAME=VALUE ...`, each name once.
    ///
    /// # Errors
    ///
    /// [`Refusal::ArgumentMissing`], [`Refusal::DuplicateParameter`], [`Refusal::UnknownParameter`] for a
    /// name that is not offered, LOGIN among them, and [`Refusal::BadParameter`].
    pub fn parse(argument: &str) -> Result<Self, Refusal> {
        let mut told = Self { is_esmtp: true, ..Self::default() };
        let mut seen: Vec<String> = Vec::new();
        for part in argument.split(' ').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or(Refusal::BadParameter)?;
            let name = name.to_ascii_uppercase();
            if seen.contains(&name) {
                return Err(Refusal::DuplicateParameter);
            }
            let text = from_xtext(value).filter(|text| !text.is_empty());
            let text = text.ok_or(Refusal::BadParameter)?;
            let is_known = !UNKNOWN.iter().any(|word| word.eq_ignore_ascii_case(&text));
            told.take(&name, Some(&*text).filter(|_| is_known))?;
            seen.push(name);
        }
        if seen.is_empty() { Err(Refusal::ArgumentMissing) } else { Ok(told) }
    }

    fn take(&mut self, name: &str, value: Option<&str>) -> Result<(), Refusal> {
        let bad = Refusal::BadParameter;
        match (name, value) {
            ("ADDR", value) => self.address = Some(value.map(address).transpose()?),
            ("PORT", value) => {
                let port = value.map_or(Ok(0), |port| port.parse().map_err(|_| bad))?;
                self.port = Some(port);
            }
            // Whoever has an address can be called what he likes: names are looked up here.
            ("NAME", Some(name)) if name.len() > NAME_OCTETS_MAX => return Err(bad),
            ("NAME", _) | ("HELO", None) => {}
            ("HELO", Some(name)) => {
                self.hello = Some(parse_hello(name).map_err(|_| bad)?.to_owned());
            }
            ("PROTO", Some(word)) if word.eq_ignore_ascii_case("SMTP") => self.is_esmtp = false,
            ("PROTO", Some(word)) if word.eq_ignore_ascii_case("ESMTP") => self.is_esmtp = true,
            ("PROTO", None) => {}
            ("PROTO", Some(_)) => return Err(bad),
            _ => return Err(Refusal::UnknownParameter),
        }
        Ok(())
    }
}

/// `192.0.2.1` or `IPV6:2001:db8::1`.
fn address(text: &str) -> Result<IpAddr, Refusal> {
    let found = match text.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("IPV6:") => rest.parse().map(IpAddr::V6).ok(),
        _ => text.parse().map(IpAddr::V4).ok(),
    };
    found.map(|address| address.to_canonical()).ok_or(Refusal::BadParameter)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    #[test]
    fn what_a_named_host_tells_is_read() {
        let told =
            Told::parse("NAME=mx.client.test ADDR=192.0.2.7 PORT=4711 PROTO=SMTP HELO=a.test");
        let expected = Told {
            address: Some(Some("192.0.2.7".parse().unwrap())),
            port: Some(4711),
            hello: Some("a.test".to_owned()),
            is_esmtp: false,
        };
        assert_eq!(told, Ok(expected));
        let address = |text: &str| Told::parse(text).unwrap().address;
        let is = |text: &str| Some(Some(text.parse().unwrap()));
        assert_eq!(address("addr=IPV6:2001:db8::7"), is("2001:db8::7"));
        assert_eq!(address("ADDR=ipv6:2001:db8::7"), is("2001:db8::7"));
        assert_eq!(address("ADDR=IPV6:::ffff:192.0.2.7"), is("192.0.2.7"));
        assert_eq!(address("ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE]"), Some(None));
        assert_eq!(address("ADDR=[tempunavail]"), Some(None));
        assert_eq!(address("NAME=[UNAVAILABLE] HELO=[UNAVAILABLE]"), None);
        assert_eq!(Told::parse("HELO=+5B192.0.2.1+5D").unwrap().hello.unwrap(), "[192.0.2.1]");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bad = Refusal::BadParameter;
        for (text, refusal) in [
            ("", Refusal::ArgumentMissing),
            ("  ", Refusal::ArgumentMissing),
            ("ADDR", bad),
            ("ADDR=", bad),
            ("ADDR=192.0.2.7 ADDR=192.0.2.8", Refusal::DuplicateParameter),
            ("addr=192.0.2.7 ADDR=192.0.2.7", Refusal::DuplicateParameter),
            ("ADDR=2001:db8::7", bad),
            ("ADDR=IPV6:192.0.2.7", bad),
            ("ADDR=192.0.2", bad),
            ("ADDR=192.0.2.7/32", bad),
            ("PORT=65536", bad),
            ("PORT=-1", bad),
            ("PROTO=LMTP", bad),
            ("HELO=a+20b", bad),
            ("HELO=a+0D+0AMAIL", bad),
            ("HELO=a+0", bad),
            ("HELO=a+zz", bad),
            ("HELO=a+0d", bad),
            ("HELO=a;b", bad),
            ("HELO=\u{fc}", bad),
            ("LOGIN=ada", Refusal::UnknownParameter),
            ("ADDR=192.0.2.7 LOGIN=ada", Refusal::UnknownParameter),
            ("DESTADDR=192.0.2.7", Refusal::UnknownParameter),
            ("=x", Refusal::UnknownParameter),
        ] {
            assert_eq!(Told::parse(text), Err(refusal), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_words_do_harm(text in any::<String>()) {
            let _ = Told::parse(&text);
            let _ = from_xtext(&text);
        }
    }
}
