//! What Mailroot reads from a message and writes into one.

pub mod address_list;
pub mod drop;
pub mod dsn;
pub mod header;
pub mod line_ends;
pub mod pickup;
pub mod received;
pub mod rewrite;
pub mod sign;
