//! The configuration: its keys, their types, defaults and bounds, and how a file is read.
//!
//! In: the text of `mailroot.yaml` or of `servers.d/NAME.yaml`. Out: typed, checked values, or
//! every error of the text with its place. One file of this folder is one section of the files; a
//! section is one table (see [`section`]) from which everything else about it follows.

pub mod access;
pub mod acme;
pub mod backends;
pub mod client_certificates;
pub mod client_tokens;
pub mod control;
pub mod delivery;
pub mod diagnostic;
pub mod dialogs;
pub mod dkim;
pub mod dns;
pub mod domains;
pub mod general;
pub mod lane_limits;
pub mod ldap;
pub mod limits;
pub mod logging;
pub mod messages;
pub mod milter;
pub mod node;
pub mod oauth;
pub mod place;
pub mod schema;
pub mod secret;
pub mod section;
pub mod security;
pub mod sender_rewrite;
pub mod sender_route;
pub mod senders;
mod server;
pub mod service;
pub mod smart_hosts;
pub mod store;
pub mod submission;
pub mod tls;
pub mod trace;
pub mod value;
pub mod yaml;

mod check;
mod choice;
mod host;
mod name;
mod root;

pub use diagnostic::{Diagnostic, Severity, Source, render_all};
pub use dkim::{DkimEntry, Selector};
pub use domains::{DomainEntry, DomainKind, DomainName, DomainRoute};
pub use host::HostPort;
pub use name::{ServerName, ServerNameError};
pub use place::PathOrOff;
pub use root::{Parsed, ServiceConfig, parse_service};
pub use secret::Secret;
pub use section::{EffectiveKey, KeyDoc, Origins, Profile, closest};
pub use server::{ServerConfig, parse_server};
pub use smart_hosts::{Hop, SmartHostName};
pub use value::{Auto, Limit, Wait};

#[cfg(test)]
mod tests;
