//! What the Mailroot daemon (`smtpd`) and its control tool (`smtpctl`) agree on.
//!
//! Names, addresses, units, the configuration and the bodies of the control interface live here.
//! Nothing in this crate does input or output: texts and values go in, values and texts come out.
//! A change here is a change of contract between programs, and shows as one.

pub mod address;
pub mod aliases;
pub mod codes;
pub mod config;
pub mod control;
pub mod id;
pub mod message;
pub mod net;
pub mod password;
pub mod rate;
pub mod shell;
pub mod status;
pub mod units;
