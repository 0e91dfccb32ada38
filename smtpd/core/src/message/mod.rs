//! What Mailroot reads from a message and writes into one.

pub mod drop;
pub mod dsn;
pub mod header;
pub mod pickup;
pub mod received;
