//! Hosts that have proved who they are.

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
