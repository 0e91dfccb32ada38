//! Rules of `delivery.sender_routes`: whose mail goes another way.

use std::fmt;

use super::domains::DomainRoute;
use super::node::{Kind, Node};
use super::section::{Reader, Setting};
use super::sender_rewrite::read_pattern;
use crate::address::ReversePath;
use crate::control::selector::AddressPattern;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderRoute {
    /// Whose mail.
    pub from: Senders,
    /// Where it goes.
    pub route: DomainRoute,
}

/// Whose mail a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Senders {
    /// Nobody's: reports.
    Nobody,
    /// That of senders whose address fits.
    Pattern(AddressPattern),
}

impl Senders {
    /// Whether this sender is one of them.
    #[must_use]
    pub fn has(&self, sender: &ReversePath) -> bool {
        match (self, sender) {
            (Self::Nobody, ReversePath::Null) => true,
            (Self::Pattern(pattern), ReversePath::Mailbox(mailbox)) => {
                pattern.matches(&mailbox.to_string())
            }
            (Self::Nobody, ReversePath::Mailbox(_)) | (Self::Pattern(_), ReversePath::Null) => {
                false
            }
        }
    }

    /// The text of the configuration.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Nobody => NOBODY,
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

const NOBODY: &str = "<>";

impl fmt::Display for SenderRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An expression may hold what has a meaning in YAML, and so does an address in brackets.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let route = match &self.route {
            DomainRoute::Mx => "mx".to_owned(),
            DomainRoute::Hosts(hosts) => {
                let hosts: Vec<String> = hosts.iter().map(|it| quoted(&it.to_string())).collect();
                format!("[{}]", hosts.join(", "))
            }
        };
        write!(f, "{{from: {}, route: {route}}}", quoted(self.from.as_str()))
    }
}

const HELP: &str = "write {from: \"*@shop.example\", route: smarthost:shop}";

impl Setting for SenderRoute {
    type Quantity = u8;

    fn type_name() -> String {
        "{from: PATTERN, route: mx, or list: host}".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            let title = "a route of senders has keys of its own";
            let diagnostic = reader.error_at("E0105", title, node, "no key: value");
            reader.report(diagnostic.help(HELP));
            return None;
        };
        let (mut from, mut route, mut said) = (None, None, 0);
        for (key, value) in reader.entries(node, "this route", &["from", "route"]) {
            said += 1;
            match key {
                "from" if value.text() == Some(NOBODY) => from = Some(Senders::Nobody),
                "from" => {
                    from = read_pattern(value, reader, ("E0320", HELP)).map(Senders::Pattern);
                }
                _ => route = DomainRoute::read(value, reader),
            }
        }
        if said < 2 {
            let title = "this route of senders lacks from or route";
            let diagnostic = reader.error_at("E0104", title, node, "not said");
            reader.report(diagnostic.help(HELP));
        }
        Some(Self { from: from?, route: route? })
    }
}
