//! Asking another host for mail that it holds for us (RFC 1985, RFC 2645).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks for a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EtrnRequest {
    /// The host that holds the mail: `host[:port]` or `smarthost:NAME`.
    pub host: String,
    /// Whose mail: domains, `@domain` with those below it, `#queue`.
    pub nodes: Vec<String>,
    /// Whether the mail is to come over the connection that we make, with a login (ATRN). Then `nodes` are
    /// domains; without any all that is held for us is meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub atrn: bool,
}

/// What the host said about one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EtrnAnswer {
    /// Whose mail was asked for; nothing where it was all that the host holds for us.
    pub node: String,
    /// The host.
    pub host: String,
    /// Whether it sends the mail, or has none.
    pub is_taken: bool,
    /// Its reply, or why it could not be asked.
    pub reply: String,
}
