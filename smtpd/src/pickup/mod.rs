//! pickup
mod claim;
mod settle;
mod watch;
