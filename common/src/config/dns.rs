//! `dns:` - which resolvers are asked.

use std::net::{IpAddr, SocketAddr};

use super::host::HostPort;
use super::node::Node;
use super::section::{Reader, Setting, section};
use super::value::scalar;
use crate::address::Host;
use crate::units::Span;

section! {
    /// Which resolvers are asked, and for how long.
    pub struct Dns {
        /// Addresses of resolvers, with a port if it is not 53; system means those of
        /// /etc/resolv.conf, now and whenever it changes.
        resolvers: Resolvers = Resolvers::System, Resolvers::System;
        /// How long to wait for an answer before the next resolver is asked.
        timeout: Span = Span::seconds(5), Span::seconds(5),
            in Span::millis(100)..=Span::minutes(1);
    }
}

/// The resolvers to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolvers {
    /// Those of the system.
    System,
    /// These, in this order.
    List(Vec<SocketAddr>),
}

impl Resolvers {
    const PORT: u16 = 53;
}

impl Setting for Resolvers {
    type Quantity = u8;

    fn type_name() -> String {
        "system, or list: address or address:port".to_owned()
    }

    fn show(&self) -> String {
        match self {
            Self::System => "system".to_owned(),
            Self::List(list) => {
                list.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
            }
        }
    }

    fn items(&self) -> Vec<String> {
        match self {
            Self::System => Vec::new(),
            Self::List(list) => list.iter().map(SocketAddr::to_string).collect(),
        }
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if node.text() == Some("system") {
            return Some(Self::System);
        }
        let items = node.items();
        let list: Vec<SocketAddr> =
            items.iter().filter_map(|item| read_resolver(item, reader)).collect();
        if items.is_empty() {
            let diagnostic =
                reader.error_at("E0309", "no resolver is named", node, "an empty list");
            reader.report(diagnostic.help("write system, or the addresses of resolvers"));
        }
        (!items.is_empty() && list.len() == items.len()).then_some(Self::List(list))
    }
}

fn read_resolver(node: &Node, reader: &mut Reader) -> Option<SocketAddr> {
    let text = scalar(node, reader, "an address")?;
    let address = match text.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, Resolvers::PORT)),
        Err(_) => HostPort::parse(text).and_then(|at| match at.host {
            Host::Address(address) => {
                Some(SocketAddr::new(address, at.port.unwrap_or(Resolvers::PORT)))
            }
            Host::Name(_) => None,
        }),
    };
    if address.is_none() {
        let title = format!("{text:?} is not the address of a resolver");
        let diagnostic = reader.error_at("E0309", title, node, "cannot be asked");
        reader.report(diagnostic.help("write 192.0.2.53, 127.0.0.1:5353 or \"[::1]:5353\""));
    }
    address
}
