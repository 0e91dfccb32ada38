//! Who may connect, relay and how much: facts in, a verdict out.

pub mod connect;
pub mod limit;
pub mod relay;
