//! The log: where it goes, and how much is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::logging::Addresses;
use crate::units::Timestamp;

/// Where log lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogTarget {
    /// The journal of systemd.
    Journal,
    /// Standard output, which is not the journal.
    Stdout,
    /// A file.
    File,
}

/// The log as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogState {
    /// Where lines go.
    pub target: LogTarget,
    /// The file, where that is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The unit under which the journal has them, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// `logfmt`, `json` or `postfix`.
    pub format: String,
    /// What lines show of addresses: `full`, `hashed` or `domain-only`.
    #[serde(default = "full")]
    pub addresses: String,
    /// The least important lines that are written: `error`, `warn`, `info` or `debug`.
    pub level: String,
    /// What is written besides for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<LogRaised>,
}

fn full() -> String {
    Addresses::Full.word().to_owned()
}

/// More lines for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogRaised {
    /// The least important that are written meanwhile.
    pub level: String,
    /// Until when.
    pub until: Timestamp,
    /// Only those that name a client of this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// Asks for more lines for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogWish {
    /// The least important to be written meanwhile; absent ends what was asked for before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// For how many seconds, up to [`LogWish::SECONDS_MAX`]; [`LogWish::SECONDS`] if absent.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Only lines that name a client of this address or network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

impl LogWish {
    /// Ten minutes.
    pub const SECONDS: u64 = 600;
    /// A day.
    pub const SECONDS_MAX: u64 = 86_400;
}
