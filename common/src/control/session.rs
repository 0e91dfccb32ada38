//! SMTP sessions, in both directions.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stats::OutboundLimit;
use crate::id::SessionId;
use crate::units::Timestamp;

/// Who connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A client connected to us.
    In,
    /// We connected to another host.
    Out,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Its id, the same as in the log.
    pub id: SessionId,
    /// The virtual server.
    pub server: String,
    /// Who connected.
    pub direction: Direction,
    /// The other side: `address:port`.
    pub peer: String,
    /// What the other side calls itself, as it was said; or the host we connected to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who is logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The version of TLS it is under, such as `TLSv1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// SHA-256 of the client's certificate, if it has shown a good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What it does: a verb of SMTP, or `idle`.
    pub state: String,
    /// Messages that went through.
    #[serde(default)]
    pub messages: u64,
    /// Octets read and written.
    #[serde(default)]
    pub bytes: u64,
    /// What limits connections to the host that we connected to; only of those we opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<OutboundLimit>,
    /// How many connections count against that limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_used: Option<u64>,
    /// When it began.
    pub since: Timestamp,
}

/// What a line of a dialogue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spoken {
    /// Words of whoever sends mail.
    Client,
    /// Words of whoever takes it.
    Server,
    /// A message, or a part of it, of which only the size is told.
    Body,
    /// The session has ended.
    End,
}

/// A line of the dialogue of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DialogueLine {
    /// When it was said.
    pub at: Timestamp,
    /// The session.
    pub id: SessionId,
    /// The virtual server.
    pub server: String,
    /// Who connected.
    pub direction: Direction,
    /// The other side: `address:port`.
    pub peer: String,
    /// What it is.
    pub what: Spoken,
    /// The words, without what nobody may see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many octets of a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub octets: Option<u64>,
    /// Lines before this one that were lost, because they came faster than they were taken.
    #[serde(default)]
    pub lost: u64,
}
