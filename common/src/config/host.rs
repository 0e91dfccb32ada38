//! Hosts, addresses and mail addresses as they are written in a file.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::address::{Domain, Host, Mailbox};

/// A host to hand mail to: a name or an address, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name, looked up when needed, or an address.
    pub host: Host,
    /// The port; absent means `delivery.connections.port`.
    pub port: Option<u16>,
}

impl HostPort {
    /// Reads `host`, `host:port`, `192.0.2.1:port`, `[192.0.2.1]:port` or `[2001:db8::1]:port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, tail) = rest.split_once(']')?;
                let inner = inner.strip_prefix("IPv6:").unwrap_or(inner);
                (
                    Host::Address(inner.parse().ok()?),
                    tail.strip_prefix(':').or_else(|| empty(tail))?,
                )
            }
            None => {
                let (name, port) = text.split_once(':').unwrap_or((text, ""));
                if text.ends_with(':') {
                    return None;
                }
                let host = match name.parse::<IpAddr>() {
                    Ok(address) => Host::Address(address),
                    Err(_) if looks_like_address(name) => return None,
                    Err(_) => Host::Name(Domain::parse(name).ok()?),
                };
                (host, port)
            }
        };
        if text.ends_with(':') {
            return None;
        }
        let port = if port.is_empty() { None } else { Some(parse_port(port).filter(|&p| p > 0)?) };
        Some(Self { host, port })
    }
}

/// `Some("")` for an empty text.
fn empty(text: &str) -> Option<&str> {
    text.is_empty().then_some(text)
}

/// A last label of digits only cannot be a name (RFC 1123 section 2.1).
fn looks_like_address(name: &str) -> bool {
    name.rsplit('.').next().is_some_and(|label| label.bytes().all(|octet| octet.is_ascii_digit()))
}

/// A decimal port without sign or leading zero.
fn parse_port(text: &str) -> Option<u16> {
    let good =
        text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if good { text.parse().ok() } else { None }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => name.fmt(f)?,
            Host::Address(address) => write!(f, "[{address}]")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Types that are one text with a grammar of their own.
macro_rules! parsed_text {
    ($($ty:ty, $name:literal, $code:literal, $parse:expr, $help:literal;)*) => {$(
        impl $crate::config::section::Setting for $ty {
            type Quantity = u8;

            fn type_name() -> String {
                $name.to_owned()
            }

            fn show(&self) -> String {
                self.to_string()
            }

            fn read(node: &$crate::config::node::Node, reader: &mut $crate::config::section::Reader) -> Option<Self> {
                let text = $crate::config::value::scalar(node, reader, concat!("a ", $name))?;
                let value: Option<Self> = $parse(text);
                if value.is_none() {
                    let title = format!("{text:?} is not a good {}", $name);
                    let diagnostic = reader.error_at($code, title, node, "cannot be read");
                    reader.report(diagnostic.help($help));
                }
                value
            }
        }
    )*};
}

pub(super) use parsed_text;

parsed_text! {
    Domain, "domain name", "E0301", |text| Self::parse(text).ok(),
        "write a name such as example.net";
    Mailbox, "mail address", "E0302", |text| Self::parse(text).ok(),
        "write an address such as postmaster@example.net";
    HostPort, "host", "E0303", Self::parse,
        "write host, host:port, [192.0.2.1] or [2001:db8::1]:587";
    IpAddr, "address", "E0304", |text: &str| text.parse().ok(),
        "write an address such as 192.0.2.1 or 2001:db8::1";
    SocketAddr, "address with port", "E0306", parse_socket,
        "write an address and a port, such as 127.0.0.1:25 or \"[::1]:25\"; 0.0.0.0 means all addresses";
}

/// An address and a decimal port; the standard library would take `025`.
fn parse_socket(text: &str) -> Option<SocketAddr> {
    let (_, port) = text.rsplit_once(':')?;
    parse_port(port)?;
    text.parse().ok()
}
