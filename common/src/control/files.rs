//! The two directories that others share with us: Drop, where mail is taken from, and Pickup, where
//! it is put.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::{Mailbox, ReversePath};
use crate::units::Timestamp;

/// One message in Drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropEntry {
    /// The message's id, with `-` and a number where one message was filed in parts.
    pub id: String,
    /// The virtual server.
    pub server: String,
    /// The file's whole path.
    pub file: String,
    /// When it was written.
    pub at: Timestamp,
    /// Octets.
    pub size: u64,
    /// The envelope's sender as the file says; empty for the null path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The envelope's recipients as the file says.
    #[serde(default)]
    pub to: Vec<String>,
}

/// One file in Pickup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PickupEntry {
    /// Its name, printable.
    pub name: String,
    /// The virtual server.
    pub server: String,
    /// Octets.
    pub size: u64,
    /// The owner's number.
    pub uid: u32,
    /// When its content last changed.
    pub at: Timestamp,
    /// `waiting`, `being_written`, `claimed` or `left`.
    pub state: String,
    /// Why it is left where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What would become of a file in Pickup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PickupCheck {
    /// Its name as it was given.
    pub name: String,
    /// Who would send it.
    pub from: ReversePath,
    /// Who would get it, and by which route.
    pub to: Vec<PickupRecipient>,
    /// Where the recipients stand: `X-Receiver` or `header`.
    pub envelope: String,
    /// What would be added or is noteworthy, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A recipient of a file in Pickup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PickupRecipient {
    /// The address.
    pub address: Mailbox,
    /// Its route, such as `mx:example.com` or `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}
