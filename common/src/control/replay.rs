//! What a change of the configuration would have done to mail of late.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Timestamp;

/// Recent traffic judged by the configuration in force and by another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replay {
    /// The moment of the oldest event that was judged; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Messages to one recipient, and clients that were turned away, that were judged.
    pub events: u64,
    /// What comes out differently, the most frequent first.
    pub different: Vec<Different>,
    /// How many more there are than are listed.
    #[serde(default)]
    pub more: u64,
}

/// Events that come out differently in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Different {
    /// The virtual server.
    pub server: String,
    /// What is decided differently: `connect`, `relay`, `route`, or `server` where that is gone or not
    /// enabled.
    pub decision: String,
    /// The client, unless it is the way of mail that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A recipient, if it matters; others at its domain count too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// A sender, where the way of mail differs and some server has routes of senders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// How it comes out now.
    pub old: String,
    /// How it would.
    pub new: String,
    /// How often that was asked.
    pub count: u64,
    /// When it was asked last.
    pub last: Timestamp,
}
