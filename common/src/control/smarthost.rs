//! Smart hosts that have names.

use crate::units::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::edit::KeyEdit;
use super::stats::OutboundLimit;

/// One of them. Passwords are never told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SmartHost {
    /// Its name; others write `smarthost:NAME`.
    pub name: String,
    /// Its hosts in order, each with its port where it has one of its own.
    pub hosts: Vec<String>,
    /// `off`, `optional`, `required`, `verify` or `implicit`.
    pub tls: String,
    /// How a login is made: `none`, `basic`, `xoauth2` or `oauthbearer`.
    pub auth: String,
    /// With which name: a user's, or a mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the password is kept, such as `{file: isp}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_at: Option<String>,
    /// When the token at hand ends; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_until: Option<Timestamp>,
    /// Virtual servers and, as `SERVER/DOMAIN` or `SERVER from PATTERN`, remote domains and senders whose
    /// mail goes by it.
    #[serde(default)]
    pub used_by: Vec<String>,
    /// How it fares, by what mail met there.
    #[serde(default)]
    pub state: SmartHostState,
    /// Connections to it now, over all virtual servers.
    #[serde(default)]
    pub connections: u64,
    /// What limits the mail that goes by it, over all virtual servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<OutboundLimit>,
    /// When it last took mail, since the virtual server that sent it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivery_at: Option<Timestamp>,
    /// When it is tried again, if it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// What it last failed with, if it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// How a smart host fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SmartHostState {
    /// No mail went by it since its virtual server began.
    #[default]
    Unused,
    /// It takes mail, or nothing speaks against it.
    Up,
    /// It was called and mail waits: it does not answer, asks for less, or does not let us in.
    Down,
}

impl SmartHostState {
    /// The word that people see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
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
    /// The secret of the application that asks for tokens, which the daemon keeps likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// The certificate and key of the application, as PEM, which the daemon keeps likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// The right to ask for tokens that a person gave elsewhere, which the daemon keeps likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The virtual server that is to send all its mail for other domains by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What else is changed in that server's file, at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub server_edits: Vec<KeyEdit>,
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
    /// Whether a new token is asked for, though the one at hand may be good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub new_token: bool,
}

/// A code with which a person signs in (RFC 8628).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceCode {
    /// What the person writes.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// How long the code is good, in seconds.
    pub good_for: u64,
    /// How long to wait before the question whether it was used, in seconds.
    pub wait: u64,
}

/// Whether a person has signed in with the code that was asked for last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceState {
    /// Whether it is so.
    pub signed_in: bool,
    /// How long to wait before the next question, in seconds.
    pub wait: u64,
    /// When the token ends that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_until: Option<Timestamp>,
}
