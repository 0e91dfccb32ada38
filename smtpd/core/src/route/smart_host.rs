//! Smart hosts: the relays an operator names instead of leaving the choice to DNS.
//!
//! In: the text of a configuration key or of a command. Out: a host and perhaps a port. A name is
//! looked up at delivery time; an address goes into square brackets and is never looked up, as in
//! the original. What sets this parser apart from a lenient one: a text that could be read two
//! ways is refused with both readings spelled out, because a relay that silently talks to the
//! wrong host is found out weeks later.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use mailroot_common::address::{AddressError, Domain, Host};
use mailroot_common::config::SmartHostName;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a smart host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmartHostError {
    /// Nothing was written.
    #[error("a smart host is missing: write a name such as relay.example or [192.0.2.1]")]
    Empty,
    /// An address stands without brackets.
    #[error("{text:?} is an address: write it in brackets, as {bracketed}")]
    Bare {
        /// What was written.
        text: String,
        /// How to write it.
        bracketed: String,
    },
    /// An opening bracket has no partner.
    #[error("{0:?} opens a bracket and does not close it: write [192.0.2.1] or [192.0.2.1]:2525")]
    Bracket(String),
    /// Between the brackets stands no address.
    #[error(
        "{0:?} is not an address: write [192.0.2.1] or [IPv6:2001:db8::1]; names have no brackets"
    )]
    Address(String),
    /// After the host stands something else than `:port`.
    #[error("{text:?}: {tail:?} follows the host where only :port may stand")]
    Tail {
        /// What was written.
        text: String,
        /// The part not understood.
        tail: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("{text:?}: {port:?} is not a port from 1 to 65535")]
    Port {
        /// What was written.
        text: String,
        /// The port in it.
        port: String,
    },
    /// The name is not a domain name.
    #[error("{text:?} is not a host name: {source}")]
    Name {
        /// What was written.
        text: String,
        /// What is wrong with it.
        source: AddressError,
    },
}

/// Where mail is handed on by the operator's choice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SmartHost {
    /// One host.
    Host {
        /// A name to look up, or an address to connect to.
        host: Host,
        /// The port; absent is the port of `delivery.connections.port`.
        port: Option<u16>,
    },
    /// One of `smart_hosts`, whatever its hosts, its security and its login are at the time.
    Named(SmartHostName),
}

impl SmartHost {
    /// Reads `smarthost:NAME`, `name`, `name:port`, `[192.0.2.1]`, `[192.0.2.1]:port`, `[IPv6:2001:db8::1]:port`;
    /// the tag `IPv6:` may be left out.
    ///
    /// # Errors
    ///
    /// [`SmartHostError`], saying how the text should look.
    pub fn parse(text: &str) -> Result<Self, SmartHostError> {
        if text.is_empty() {
            return Err(SmartHostError::Empty);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let bracketed = Host::Address(address).to_string();
            return Err(SmartHostError::Bare { text: text.to_owned(), bracketed });
        }
        // No port begins with a letter.
        let named = text.strip_prefix(SmartHostName::PREFIX).and_then(SmartHostName::parse);
        if let Some(name) = named {
            return Ok(Self::Named(name));
        }
        if text.starts_with('[') {
            return Self::parse_address(text);
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(parse_port(text, port)?)),
            None => (text, None),
        };
        if let Ok(address) = name.parse::<IpAddr>() {
            let host = Self::Host { host: Host::Address(address), port };
            return Err(SmartHostError::Bare {
                text: text.to_owned(),
                bracketed: host.to_string(),
            });
        }
        let name = Domain::parse(name)
            .map_err(|source| SmartHostError::Name { text: text.to_owned(), source })?;
        Ok(Self::Host { host: Host::Name(name), port })
    }

    fn parse_address(text: &str) -> Result<Self, SmartHostError> {
        let end = text.find(']').ok_or_else(|| SmartHostError::Bracket(text.to_owned()))?;
        let (literal, tail) = text.split_at(end + 1);
        let untagged = || {
            let inner = literal.trim_start_matches('[').trim_end_matches(']');
            inner.parse::<Ipv6Addr>().ok().map(|address| Host::Address(IpAddr::V6(address)))
        };
        let host = Host::parse(literal)
            .ok()
            .or_else(untagged)
            .ok_or_else(|| SmartHostError::Address(text.to_owned()))?;
        let port = match (tail, tail.strip_prefix(':')) {
            ("", _) => None,
            (_, Some(port)) => Some(parse_port(text, port)?),
            (_, None) => {
                let (text, tail) = (text.to_owned(), tail.to_owned());
                return Err(SmartHostError::Tail { text, tail });
            }
        };
        Ok(Self::Host { host, port })
    }
}

fn parse_port(text: &str, port: &str) -> Result<u16, SmartHostError> {
    // `parse` alone would let a plus sign through.
    Some(port)
        .filter(|port| port.bytes().all(|o| o.is_ascii_digit()))
        .and_then(|port| port.parse::<u16>().ok())
        .filter(|&port| port != 0)
        .ok_or_else(|| SmartHostError::Port { text: text.to_owned(), port: port.to_owned() })
}

/// The form that [`SmartHost::parse`] reads back.
impl fmt::Display for SmartHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host { host, port: Some(port) } => write!(f, "{host}:{port}"),
            Self::Host { host, port: None } => host.fmt(f),
            Self::Named(name) => write!(f, "{}{name}", SmartHostName::PREFIX),
        }
    }
}

impl FromStr for SmartHost {
    type Err = SmartHostError;

    fn from_str(text: &str) -> Result<Self, SmartHostError> {
        Self::parse(text)
    }
}

impl Serialize for SmartHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SmartHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_good_form_is_read_and_written_back() {
        for (text, written) in [
            ("relay.example", "relay.example"),
            ("Relay.Example:587", "relay.example:587"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[192.0.2.1]:2525", "[192.0.2.1]:2525"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("[IPv6:2001:db8::1]:25", "[IPv6:2001:db8::1]:25"),
            ("[::1]:65535", "[IPv6:::1]:65535"),
            ("localhost:1", "localhost:1"),
            ("smarthost:isp", "smarthost:isp"),
            ("smarthost:587", "smarthost:587"),
        ] {
            let host = SmartHost::parse(text).unwrap();
            assert_eq!(host.to_string(), written, "{text}");
            assert_eq!(SmartHost::parse(written), Ok(host), "{text}");
        }
    }

    #[test]
    fn bad_forms_are_refused_with_what_to_write() {
        for (text, words) in [
            ("", "a smart host is missing"),
            ("192.0.2.1", "write it in brackets, as [192.0.2.1]"),
            ("192.0.2.1:25", "as [192.0.2.1]:25"),
            ("2001:db8::1", "as [IPv6:2001:db8::1]"),
            ("[192.0.2.1", "does not close it"),
            ("[relay.example]", "names have no brackets"),
            ("[192.0.2.1]25", "\"25\" follows the host"),
            ("[192.0.2.1]:", "\"\" is not a port"),
            ("relay.example:0", "\"0\" is not a port"),
            ("relay.example:+25", "\"+25\" is not a port"),
            ("relay.example:65536", "\"65536\" is not a port"),
            ("relay.example:smtp", "\"smtp\" is not a port"),
            ("relay..example", "is not a host name"),
            ("relay example", "is not a host name"),
            ("user@relay.example", "is not a host name"),
        ] {
            let error = SmartHost::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
