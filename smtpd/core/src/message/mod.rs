//! What Mailroot reads from a message and writes into one.

pub mod drop;
pub mod dsn;
pub mod received;
pub mod rewrite;
pub mod sign;

pub use mailroot_common::message::{address_list, header, import, line_ends, pickup};
