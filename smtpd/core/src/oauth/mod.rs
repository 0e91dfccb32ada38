//! Tokens for logins (RFC 6749): what is asked, what the answers mean, how long a token is used, and
//! how it is shown to a host; and what is said of tokens that clients show us.
//!
//! In: answers of a token endpoint as status and octets, and moments. Out: a token with its life, or a
//! refusal with the provider's words and ours beside them. A provider's code is translated by
//! [`words`], because people read these errors when mail has stopped.

pub mod answer;
pub mod introspection;
pub mod jwks;
pub mod jwt;
pub mod life;
pub mod request;
pub mod sasl;
pub mod words;
