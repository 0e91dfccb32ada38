//! TLS: who is trusted, what we show, and the handshake of either side.
//!
//! In: an open connection and what is to be proved about the other side, or what we are to show it.
//! Out: the same connection under TLS, and how it is protected; or why not, in words for people.

mod certificates;
mod client;
pub mod generate;
mod server;
mod verifier;

pub use certificates::{
    Certificate, CertificateError, Certificates, EXPIRES_SOON, Files, News, Standing, Texts,
    until_words,
};
pub use client::{ClientTls, Identity, Proof, TlsError};
pub use server::{ServerTls, Wish};
