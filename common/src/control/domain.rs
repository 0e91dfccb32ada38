//! Domains of a virtual server.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::server::Setting;

/// What a domain is to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DomainKind {
    /// The server's own name: mail for it goes to Drop.
    Default,
    /// Another name of the default domain.
    Alias,
    /// A domain somewhere else, with its own rules.
    Remote,
}

impl fmt::Display for DomainKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Alias => "alias",
            Self::Remote => "remote",
        })
    }
}

/// One domain of a virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Domain {
    /// Its name; `*.example` stands for everything below it.
    pub name: String,
    /// What it is.
    pub kind: DomainKind,
    /// The virtual server it belongs to.
    pub server: String,
    /// Whether anyone may send to it through this server; absent for local domains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<bool>,
    /// Where its mail goes, for people and as `--route` takes it: `Drop`, `mx`, or hosts.
    pub route: String,
    /// Whether HELO is used instead of EHLO.
    #[serde(default)]
    pub helo_only: bool,
    /// What is done with its recipients in doubt (`retry`, `hold`, `return`), if that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<String>,
    /// Whether its mail goes under TLS (`off`, `optional`, `required`, `verify`), if that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// Whether its mail waits until it is asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// What has it sent, if it is held: `ETRN`, `ATRN`, `ETRN or ATRN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released_by: Option<String>,
    /// How much mail goes there at once and how fast, in words, if that was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// Messages that wait for it.
    #[serde(default)]
    pub queued: u64,
}

/// One domain with its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainDetail {
    /// What a list says of it.
    #[serde(flatten)]
    pub domain: Domain,
    /// Its settings, by their names within the entry.
    pub settings: Vec<Setting>,
}

/// Asks for a new domain. The configuration file is edited by the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NewDomain {
    /// Another name of the default domain.
    Alias {
        /// Its name.
        name: String,
    },
    /// A domain somewhere else.
    Remote {
        /// Its name, or `*.name` for everything below it.
        name: String,
        /// Whether anyone may send to it through this server.
        #[serde(default)]
        relay: bool,
        /// Whether to use HELO instead of EHLO.
        #[serde(default)]
        helo_only: bool,
        /// Hosts to send to, `host[:port]` or `smarthost:NAME`, in order; by MX if empty.
        #[serde(default)]
        route: Vec<String>,
        /// What is done with its recipients in doubt: `retry`, `hold` or `return`; as for other domains
        /// if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        in_doubt: Option<String>,
        /// Whether its mail goes under TLS: `off`, `optional`, `required` or `verify`; as for other
        /// domains if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tls: Option<String>,
        /// Whether its mail waits until it is asked for with ETRN.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hold: bool,
        /// Addresses or networks that may ask for it; from anywhere if empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        etrn_from: Vec<String>,
        /// Users who may fetch it with ATRN; its mail is held for that as well.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        atrn_users: Vec<String>,
        /// Connections at the same time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        connections: Option<u32>,
        /// Messages in a time, such as `30/min`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<String>,
    },
}

impl NewDomain {
    /// The name asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Alias { name } | Self::Remote { name, .. } => name,
        }
    }
}
