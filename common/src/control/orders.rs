//! What an operator wants of whole destinations, and of mail that is not there yet.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::Selector;
use crate::id::QueueId;
use crate::units::Timestamp;

/// A destination that takes no new attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DestinationPause {
    /// The virtual server; empty where it is known from elsewhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Pattern with `*` and `?` for the domain or the host that mail goes to; the word `drop` for Drop,
    /// which no other pattern fits.
    pub destination: String,
    /// The operator.
    pub by: String,
    /// The reason given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Messages that wait for it now.
    #[serde(default)]
    pub messages: u64,
}

impl DestinationPause {
    /// Who paused it and why, for people.
    #[must_use]
    pub fn words(&self) -> String {
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("destination paused by {}{reason}", self.by)
    }
}

/// A rule that holds mail from the moment it is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FutureHold {
    /// Its id.
    pub id: QueueId,
    /// The virtual server; empty where it is known from elsewhere.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// Which mail: `from`, `to`, `domain` and `client` count.
    pub selector: Selector,
    /// The operator.
    pub by: String,
    /// The reason given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// When it ends by itself; what it held stays held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Everything that is in force, of all virtual servers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Orders {
    /// Paused destinations.
    #[serde(default)]
    pub pauses: Vec<DestinationPause>,
    /// Rules that hold mail yet to come.
    #[serde(default)]
    pub holds: Vec<FutureHold>,
}

/// Asks to pause a destination, or to end its pause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PauseRequest {
    /// The pattern; to resume also one that fits those of pauses.
    pub destination: String,
    /// The virtual server; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// A span such as `1h` after which it ends by itself.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// To resume: only the pause with this very pattern.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exactly: bool,
}

/// Asks to hold mail yet to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FutureHoldRequest {
    /// Which mail: at least one of `from`, `to`, `domain` and `client`, and no other condition but
    /// `server`.
    pub selector: Selector,
    /// A span such as `1h` after which the rule ends by itself.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Asks to end rules that hold mail yet to come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FutureReleaseRequest {
    /// Their ids, or beginnings of them.
    pub ids: Vec<String>,
    /// The virtual server; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}
