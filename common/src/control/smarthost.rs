//! Smart hosts that have names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::KeyEdit;

/// One of them. Passwords are never told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SmartHost {
    /// Its name; others write `smarthost:NAME`.
    pub name: String,
    /// Its hosts in order, each with its port where it has one of its own.
    pub hosts: Vec<String>,
    /// `off`, `optional`, `required`, `verify` or `implicit`.
    pub tls: String,
    /// How a login is made: `none` or `basic`.
    pub auth: String,
    /// With which name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the password is kept, such as `{file: isp}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_at: Option<String>,
    /// Virtual servers and, as `SERVER/DOMAIN`, remote domains that send by it.
    #[serde(default)]
    pub used_by: Vec<String>,
}

/// Asks for a smart host, or for other settings of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SmartHostWish {
    /// Changes of its keys, by their names within it, such as `host` or `auth.user`.
    #[serde(default)]
    pub edits: Vec<KeyEdit>,
    /// A password, which the daemon keeps in a file of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The virtual server that is to send all its mail for other domains by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When that server tries the recipient's own hosts first, as `delivery.direct_first` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_first: Option<String>,
}

/// Asks for a call of a smart host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SmartHostCall {
    /// The virtual server that calls; one that uses it if absent, else the first that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}
