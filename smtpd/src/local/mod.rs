//! Callers on this machine: the sockets they come by, who they are, and how many there may be.
//!
//! In: connections to Unix sockets. Out: what the kernel says of the process at the other end, and
//! what the user database says of its user. Nobody can claim to be somebody else here, which is what
//! the roles of the control interface and the submit socket rest on.

mod people;
mod places;
mod socket;

pub use self::people::{Credentials, Known, People};
pub use self::places::{Place, Places};
pub use self::socket::{ListenError, Listener, Socket};
