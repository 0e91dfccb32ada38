//! Rules of `delivery.sender_rewrite`: which senders leave under another address.

use std::fmt;

use super::node::{Kind, Node};
use super::section::{Reader, Setting};
use super::value::scalar;
use crate::address::Mailbox;
use crate::control::selector::AddressPattern;

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderRule {
    /// Whose mail.
    pub from: AddressPattern,
    /// The address that it leaves under.
    pub to: Mailbox,
}

impl fmt::Display for SenderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = self.from.as_str();
        // An expression may hold what has a meaning in YAML.
        let pattern = serde_json::Value::from(pattern);
        write!(f, "{{from: {pattern}, to: {}}}", serde_json::Value::from(self.to.to_string()))
    }
}

const HELP: &str = "write {from: \"*@scanners.example\", to: scanner@example.net}";

impl Setting for SenderRule {
    type Quantity = u8;

    fn type_name() -> String {
        "{from: PATTERN, to: ADDRESS}".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            let title = "a rule for senders has keys of its own";
            let diagnostic = reader.error_at("E0105", title, node, "no key: value");
            reader.report(diagnostic.help(HELP));
            return None;
        };
        let (mut from, mut to, mut said) = (None, None, 0);
        for (key, value) in reader.entries(node, "this rule", &["from", "to"]) {
            said += 1;
            match key {
                "from" => from = read_pattern(value, reader, ("E0319", HELP)),
                _ => to = Mailbox::read(value, reader),
            }
        }
        if said < 2 {
            let diagnostic =
                reader.error_at("E0104", "this rule lacks from or to", node, "not said");
            reader.report(diagnostic.help(HELP));
        }
        let (from, to) = (from?, to?);
        if !to.is_ascii() {
            let title = format!("{to} has letters that not every host takes");
            let diagnostic = reader.error_at("E0319", title, node, "beyond ASCII");
            reader.report(diagnostic.help("write an address in plain letters"));
            return None;
        }
        Some(Self { from, to })
    }
}

/// A pattern of senders; the error has the code and the help of who wants it.
pub(super) fn read_pattern(
    node: &Node,
    reader: &mut Reader,
    (code, help): (&'static str, &'static str),
) -> Option<AddressPattern> {
    let text = scalar(node, reader, "a pattern of addresses")?;
    match AddressPattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let title = format!("{text:?} is no pattern of senders: {error}");
            let diagnostic = reader.error_at(code, title, node, "cannot be read");
            reader.report(diagnostic.help(help));
            None
        }
    }
}
