//! Hosts that have proved who they are, and reports about TLS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Timestamp;

/// A host that once showed a good certificate for its name, and is not trusted with less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsHost {
    /// Its name.
    pub host: String,
    /// When it first did.
    pub first: Timestamp,
    /// When it last did, within an hour.
    pub last: Timestamp,
    /// When it is forgotten unless it does so again; absent if it does not count as things are, because
    /// `tls.memory` is off or other authorities were trusted then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What is counted of TLS for a domain, and the report that comes of it (RFC 8460).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsReport {
    /// The domain.
    pub domain: String,
    /// Whether it is counted still.
    pub state: TlsReportState,
    /// When counting began.
    pub begins: Timestamp,
    /// When it ended; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Timestamp>,
    /// Connections that were as the domain wants them.
    pub successes: u64,
    /// Connections that were not.
    pub failures: u64,
    /// When it is sent, or tried again; absent while it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Why it could not be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Where a report about TLS stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsReportState {
    /// Connections are counted.
    Counting,
    /// It waits for its moment, or for a destination.
    Due,
}

impl TlsReportState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counting => "counting",
            Self::Due => "due",
        }
    }
}

/// Which reports about TLS are to be sent now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsReportWish {
    /// Those about this domain; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// What became of that wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsReportsBegun {
    /// How many are being sent.
    pub reports: u64,
}
