//! The daemon as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::server::Server;
use super::smarthost::SmartHost;
use crate::units::Timestamp;

/// Which daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The daemon's version.
    pub version: String,
    /// [`super::API_VERSION`] of the daemon.
    pub api: u32,
    /// System and processor, such as `linux x86_64`.
    pub platform: String,
}

/// The state of the daemon and of all its virtual servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// The daemon's clock when it answered.
    pub now: Timestamp,
    /// The revision of the configuration in force.
    #[serde(default)]
    pub config_revision: u64,
    /// Whether something needs a person: the sum of [`Status::warnings`].
    pub degraded: bool,
    /// The virtual servers, by name.
    pub servers: Vec<Server>,
    /// The smart hosts that have names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub smart_hosts: Vec<SmartHost>,
    /// What needs a person.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// Limits that were met and other counts, by name.
    #[serde(default)]
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// Something that needs a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// Stable, for programs, such as `server.not_running`.
    pub code: String,
    /// The virtual server concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What is wrong.
    pub text: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Somebody who may give orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OperatorEntry {
    /// A user, or a group with a leading %.
    pub who: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// The virtual server it holds for; absent for the service as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}
