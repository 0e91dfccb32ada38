//! What is read from the front of a message: fields, addresses, files of Pickup.
//!
//! Both programs read it, so that `smtpctl` can tell without a daemon what would become of a file.

pub mod address_list;
pub mod header;
pub mod import;
pub mod line_ends;
pub mod pickup;
