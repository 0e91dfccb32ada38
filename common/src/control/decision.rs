//! What a virtual server would decide, and because of which line of its file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Timestamp;

/// Asks what would be decided. What is not said is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Question {
    /// The address of a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The address of a recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The address of a sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether DNS is asked which hosts take the recipient's mail.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub look_up: bool,
}

/// How a rule judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Yes.
    Allowed,
    /// Not now: a fact could not be had.
    Deferred,
    /// Not ever, as the configuration stands.
    Refused,
}

impl Outcome {
    /// The word for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Deferred => "deferred",
            Self::Refused => "refused",
        }
    }
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Judgement {
    /// How.
    pub outcome: Outcome,
    /// The rule, such as `relay list 10.0.0.0/8`.
    pub rule: String,
    /// `file:line` of what decided, or `default`.
    pub origin: String,
    /// What the client is told, if it is not a yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
}

/// Where mail would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Way {
    /// The domain that speaks of the recipient, such as `*.corp.example`; the recipient's own where
    /// none does.
    pub domain: String,
    /// What that domain is: `default`, `alias`, `remote`, or `other` if none speaks of it.
    pub kind: String,
    /// `file:line` of what decided, or `default`.
    pub origin: String,
    /// The route, as `queue summary --by destination` groups by.
    pub route: String,
    /// The route in words, such as `Drop`, `MX of example.net` or `hub.example:25`.
    pub hop: String,
    /// The hosts that DNS names, in their order, each with its addresses, if that was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Why DNS gave none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_error: Option<String>,
    /// How the mail is protected: what the configuration wants, then what the recipient's domain demands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<String>,
    /// What the directory says of the recipient, if one is asked about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Whether HELO is used instead of EHLO.
    #[serde(default)]
    pub helo_only: bool,
    /// The waits between attempts, such as `1m, 5m, 15m`.
    pub retry: String,
    /// When it is given up.
    pub expire: String,
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// Whether the client may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Judgement>,
    /// Whether it may send to the recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Judgement>,
    /// Where the mail would go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Under which address its sender would be known there, if it goes to another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<SenderOutside>,
}

/// Under which address a sender is known to other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SenderOutside {
    /// In MAIL FROM.
    pub envelope: String,
    /// In the From header, where the address stands there.
    pub header: String,
    /// What decides, such as `delivery.masquerade_domain`; `none` if the address stays.
    pub rule: String,
    /// `file:line` of what decided, or `default`.
    pub origin: String,
}

/// A list of clients: who may connect, or who may relay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessList {
    /// `only` those on the list, or `all-except` those on it.
    pub policy: String,
    /// The entries in their order.
    pub entries: Vec<AccessEntry>,
}

/// An entry of an [`AccessList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccessEntry {
    /// An address, a network, a host's name, or `*.domain`.
    pub entry: String,
    /// What the administrator said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// `file:line`, or `default`.
    pub origin: String,
    /// When it ends, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Whether it has ended and counts no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    /// How often it decided within a day, counted by the hour since the daemon began.
    #[serde(default)]
    pub hits: u64,
    /// When it last decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}
