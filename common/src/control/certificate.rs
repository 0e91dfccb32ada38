//! Certificates that clients are shown. Keys are never told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::Timestamp;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Certificate {
    /// Its name.
    pub name: String,
    /// The names and addresses that it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Who signed it; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whether it signed itself.
    #[serde(default)]
    pub self_signed: bool,
    /// From when on it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Until when it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// How many certificates are shown with it, itself included.
    #[serde(default)]
    pub chain: u64,
    /// Virtual servers that show it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<String>,
    /// The file of the chain.
    pub chain_file: String,
    /// The file of the key.
    pub key_file: String,
    /// When it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// How it stands with the authority that it is asked of; absent if it comes from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeState>,
    /// Why the files, as they lie there, cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// How a certificate stands that is asked of an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcmeState {
    /// The authority's directory.
    pub authority: String,
    /// The names that are asked for.
    pub hosts: Vec<String>,
    /// Whether it is being asked for now.
    #[serde(default)]
    pub asking: bool,
    /// Requests that failed since the last one that did not.
    #[serde(default)]
    pub failures: u32,
    /// When the last of them did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// When it is asked for next.
    pub next: Timestamp,
}

/// Asks for a certificate: texts that the daemon keeps, hosts for one that it makes itself, or for one that
/// it asks of an authority.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewCertificate {
    /// The certificate in PEM, followed by those that vouch for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// Its private key in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Names and addresses of a certificate that signs itself, or names of one that is asked for,
    /// this machine's if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Has it asked of an authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme: Option<AcmeWish>,
}

/// Of whom a certificate is asked. What is not said stays as it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AcmeWish {
    /// Where the authority may write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The authority's directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
}
