//! Users who may log in to send mail. Passwords are never told.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Timestamp;

/// The longest name of a user, in octets.
const NAME_OCTETS_MAX: usize = 64;

/// Whether somebody can have this name.
#[must_use]
pub fn is_user_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    !name.is_empty() && name.len() <= NAME_OCTETS_MAX && name.chars().all(plain)
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// The name to log in with.
    pub name: String,
    /// Whether logins are taken.
    pub enabled: bool,
    /// Patterns of the addresses that mail may be sent as; all if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub send_as: Vec<String>,
    /// How many recipients he may send to in a span, as `500/d`; as many as he likes if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
    /// When the password was set.
    pub password_since: Timestamp,
    /// The last login since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_login: Option<Timestamp>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_client: Option<IpAddr>,
    /// Logins in this name that were refused since the daemon started.
    #[serde(default)]
    pub failed: u64,
}

/// Asks for a new user.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewUser {
    /// The name to log in with: at most 64 of a-z, 0-9 and `._@+-`.
    pub name: String,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What the password is told by, as `smtpctl user hash` prints it, in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Patterns of the addresses that mail may be sent as; all if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub send_as: Vec<String>,
    /// How many recipients he may send to in a span, as `500/d`; as many as he likes if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

/// Asks for other settings of a user.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserWish {
    /// Another password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// What another password is told by, as `smtpctl user hash` prints it, in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Whether logins are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Other patterns, instead of those there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_as: Option<Vec<String>>,
    /// Another quota, as `500/d`, or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<String>,
}

/// What became of a change of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserChanged {
    /// The user after it, or as it was before it was taken away.
    pub user: User,
    /// Sessions of the user that were ended by it.
    pub sessions_ended: u64,
}

/// Asks whether this is a user's password.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordQuestion {
    /// The password.
    pub password: String,
}

/// Whether a login would be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordAnswer {
    /// Whether it is so.
    pub good: bool,
    /// Why not: `bad-password`, `unknown-user` or `disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
