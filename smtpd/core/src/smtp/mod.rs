//! The protocol: grammar, replies and the machines of both sides (RFC 5321 and its extensions).

pub mod auth;
pub mod body;
pub mod client;
pub mod command;
pub mod dialogue;
pub mod etrn;
pub mod extension;
pub mod line;
pub mod refusal;
pub mod reply;
pub mod server;
pub mod xclient;
pub(crate) mod xtext;
