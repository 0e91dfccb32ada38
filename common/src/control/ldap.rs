//! A look at the directory of a virtual server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LdapTest {
    /// An address of the server's own domains to look up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}
