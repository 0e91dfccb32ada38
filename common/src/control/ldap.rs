//! The directory of a virtual server: a look at it, and the password that it is asked with.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LdapTest {
    /// An address of the server's own domains to look up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Gives a virtual server the password to bind to its directory with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LdapPassword {
    /// The password, which the daemon keeps in a file of its own.
    pub password: String,
    /// The name to bind with, if it is to be another one than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}
