//! What is said to a directory (LDAP, RFC 4511), what its entries mean for mail, and how far groups
//! and forwards are followed.
//!
//! In: octets of answers, addresses to resolve. Out: octets to send, recipients that mail goes to.
//! The protocol is ours and as small as we need it, because a directory that is reached in clear text
//! is a stranger: lengths are bounded before anything is kept, and nothing here recurses over what
//! came.

pub mod ber;
pub mod cache;
pub mod expand;
pub mod health;
pub mod logins;
pub mod message;
pub mod schema;
