//! TLS: who is trusted, and the handshake.
//!
//! What hosts have proved is remembered.
//!
//! In: an open connection and what is to be proved about the other side. Out: the same connection
//! under TLS, and how it is protected; or why not, in words for people.

mod client;
mod dane;
mod memory;
mod verifier;

pub use client::{ClientTls, Identity, Proof, Secured, TlsError};
pub use memory::{Memory, Recall, Seen};
