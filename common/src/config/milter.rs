//! `messages.milters:` - programs that look at mail before it is accepted.

use std::fmt;
use std::path::PathBuf;

use super::choice::choice;
use super::host::HostPort;
use super::node::{Kind, Node};
use super::section::{Reader, Setting};
use crate::units::Span;

choice! {
    /// What is done with mail that a milter cannot look at.
    pub enum OnFailure {
        /// It is put off (451): nothing comes in unseen.
        Defer = "defer",
        /// It is taken as if the milter were not there.
        Accept = "accept",
    }
}

/// Where a milter listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MilterAddress {
    /// On a host and a port.
    Inet(HostPort),
    /// On a socket of this machine.
    Unix(PathBuf),
}

impl MilterAddress {
    /// Reads `inet:host:port` or `unix:/path`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return path.is_absolute().then_some(Self::Unix(path));
        }
        let at = HostPort::parse(text.strip_prefix("inet:")?)?;
        at.port.is_some().then_some(Self::Inet(at))
    }
}

impl fmt::Display for MilterAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(at) => write!(f, "inet:{at}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A milter, and what holds for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Milter {
    /// Where it listens.
    pub address: MilterAddress,
    /// How long one answer may take.
    pub timeout: Span,
    /// What is done where it gives none.
    pub on_failure: OnFailure,
    /// Whether it is asked about mail of programs of this machine as well.
    pub local: bool,
}

impl Milter {
    /// How long one answer may take unless it is said.
    const TIMEOUT: Span = Span::seconds(30);
    /// The longest that may be said.
    const TIMEOUT_MAX: Span = Span::minutes(10);
    const KEYS: &'static [&'static str] = &["address", "timeout", "on_failure", "local"];

    const fn at(address: MilterAddress) -> Self {
        Self { address, timeout: Self::TIMEOUT, on_failure: OnFailure::Defer, local: false }
    }

    fn read_address(node: &Node, reader: &mut Reader) -> Option<MilterAddress> {
        let found = node.text().and_then(MilterAddress::parse);
        if found.is_none() {
            let title = "this is not the address of a milter";
            let diagnostic = reader.error_at("E0376", title, node, "not such an address");
            reader.report(diagnostic.help("write inet:HOST:PORT or unix:/PATH"));
        }
        found
    }

    fn read_timeout(node: &Node, reader: &mut Reader) -> Option<Span> {
        let timeout = Span::read(node, reader)?;
        let good = (Span::seconds(1)..=Self::TIMEOUT_MAX).contains(&timeout);
        if !good {
            let title = "the timeout of a milter is out of its bounds";
            let diagnostic = reader.error_at("E0204", title, node, "too short or too long");
            reader.report(diagnostic.help("write a value from 1s to 10m"));
        }
        good.then_some(timeout)
    }
}

impl Setting for Milter {
    type Quantity = u8;

    fn type_name() -> String {
        "address or {address, timeout, on_failure, local}".to_owned()
    }

    fn show(&self) -> String {
        let Self { address, timeout, on_failure, local } = self;
        if *self == Self::at(address.clone()) {
            return address.to_string();
        }
        let on_failure = on_failure.word();
        let local = if *local { ", local: true" } else { "" };
        format!("{{address: \"{address}\", timeout: {timeout}, on_failure: {on_failure}{local}}}")
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            return Self::read_address(node, reader).map(Self::at);
        };
        let (mut address, mut named, mut good) = (None, false, true);
        let (mut timeout, mut on_failure, mut local) = (Self::TIMEOUT, OnFailure::Defer, false);
        for (key, value) in reader.entries(node, "this milter", Self::KEYS) {
            match key {
                "timeout" => match Self::read_timeout(value, reader) {
                    Some(found) => timeout = found,
                    None => good = false,
                },
                "on_failure" => match OnFailure::read(value, reader) {
                    Some(found) => on_failure = found,
                    None => good = false,
                },
                "local" => match bool::read(value, reader) {
                    Some(found) => local = found,
                    None => good = false,
                },
                _ => {
                    named = true;
                    address = Self::read_address(value, reader);
                }
            }
        }
        if !named {
            let title = "this milter has no address";
            let diagnostic = reader.error_at("E0104", title, node, "address is missing");
            reader.report(diagnostic.help("write {address: inet:localhost:11332, timeout: 30s}"));
        }
        address.filter(|_| good).map(|address| Self { address, timeout, on_failure, local })
    }
}
