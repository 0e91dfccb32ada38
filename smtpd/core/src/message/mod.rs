//! What Mailroot reads from a message and writes into one.

pub use mailroot_common::message::{address_list, header};

pub mod drop;
pub mod dsn;
pub mod line_ends;
pub mod pickup;
pub mod received;
pub mod rewrite;
pub mod sign;
