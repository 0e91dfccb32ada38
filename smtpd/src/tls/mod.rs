//! TLS: who is trusted, what we show, and the handshake of either side.
//!
//! In: an open connection and what is to be proved about the other side, or what we are to show it.
//! Out: the same connection under TLS, and how it is protected; or why not, in words for people. What
//! hosts have proved is remembered.

mod binding;
mod certificates;
mod client;
mod clients;
mod dane;
pub mod generate;
mod memory;
mod revoked;
mod server;
mod verifier;

pub use binding::end_point;
pub use certificates::{
    Certificate, CertificateError, Certificates, EXPIRES_SOON, Files, News, Place, Standing, Texts,
    until_words,
};
pub use client::{ClientTls, Flaw, Identity, Proof, Secured, TlsError};
pub use clients::{ClientCertificate, Clients, Standing as ClientStanding};
pub use memory::{Memory, Recall, Seen};
pub use server::{Handshake, ServerTls, Wish, spoken};
