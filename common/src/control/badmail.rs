//! Messages that could be neither delivered nor returned.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Change;
use crate::units::Timestamp;

/// One message in Badmail as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BadmailEntry {
    /// Its id: the name of its files.
    pub id: String,
    /// The virtual server.
    pub server: String,
    /// When it came there.
    pub at: Timestamp,
    /// Octets of the message.
    pub size: u64,
    /// The envelope's sender; absent if it had none, empty for the null path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The envelope's recipients concerned.
    pub to: Vec<String>,
    /// Stable, for programs, such as `ndr-of-dsn` or `bad-pickup-file`.
    pub reason: String,
    /// What happened, in the remote's words where there are any.
    pub detail: String,
}

/// One message in Badmail with everything known of it but its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BadmailMessage {
    /// What a list says of it.
    #[serde(flatten)]
    pub entry: BadmailEntry,
    /// The message's file.
    pub file: String,
    /// Where it came from, such as `Pickup/report.eml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The reason file, whole.
    #[serde(default)]
    pub report: String,
}

/// Asks to put messages back into the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requeue {
    /// Which messages.
    #[serde(flatten)]
    pub change: Change,
    /// Recipients instead of those of the envelope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// The sender instead of that of the envelope; empty for the null path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}
