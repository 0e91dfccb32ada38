//! How a message is read: its header, and the addresses in it.

pub mod address_list;
pub mod header;
