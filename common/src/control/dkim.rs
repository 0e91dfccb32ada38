//! Keys that mail is signed with (DKIM), and what DNS says about them. Private keys are never told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One key of a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DkimKey {
    /// The domain that signs.
    pub domain: String,
    /// Which of its keys this is.
    pub selector: String,
    /// The virtual server.
    pub server: String,
    /// `rsa` or `ed25519`; absent if the key cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// The key's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u64>,
    /// Whether it signs for the domains below as well.
    #[serde(default)]
    pub subdomains: bool,
    /// Where the private key is kept, such as `{file: mr1._domainkey.example.net}`.
    pub key_at: String,
    /// Why it cannot sign; mail of the domain waits then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Asks for a new key. The daemon makes it and keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewDkimKey {
    /// The domain that is to sign.
    pub domain: String,
    /// The key's name in DNS; the first of mr1, mr2 and so on that is free if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `rsa`, which it is if absent, or `ed25519`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// The size of an RSA key: 2048, which it is if absent, 3072 or 4096.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u32>,
}

/// The TXT record that publishes a key, and what DNS has in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DkimRecord {
    /// The record's name, without its final dot.
    pub name: String,
    /// The text it must have; absent if the key cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether DNS has it.
    pub state: RecordState,
    /// The texts that DNS has there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
    /// Why it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether DNS has a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordState {
    /// It publishes this key.
    Published,
    /// Another text stands there.
    Different,
    /// There is none.
    Absent,
    /// Nobody could tell.
    Unknown,
}
