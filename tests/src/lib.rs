//! The harness of the black-box tests: a daemon in a directory, real peers, accounting.
//!
//! In: configurations and dialogues. Out: what the real programs said, wrote and logged. Nothing here
//! knows the insides of the programs; they are started from the target folder this crate was built in.
//! Everything listens on loopback, on ports and addresses that parallel tests cannot share, and waits by
//! looking again until a deadline, never by sleeping for a fixed time.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a harness reports by panicking: there is nobody above a test to hand an error to"
)]

pub mod account;
pub mod bearer;
pub mod caller;
pub mod certificates;
pub mod ctl;
pub mod desk;
pub mod dkim;
pub mod dns;
pub mod dnssec;
pub mod dovecot;
pub mod exim;
pub mod faketime;
pub mod gateway;
pub mod guide;
pub mod haproxy;
pub mod injection;
pub mod kdc;
pub mod load;
pub mod manual;
pub mod mdoc;
pub mod message;
pub mod milter;
pub mod names;
pub mod nodemailer;
pub mod opensmtpd;
pub mod pebble;
pub mod peer;
pub mod policy_host;
pub mod ports;
pub mod postfix;
pub mod program;
pub mod provider;
pub mod screen;
pub mod secure;
pub mod setup;
pub mod sink;
pub mod site;
pub mod skip;
pub mod slapd;
pub mod spf;
pub mod stranger;
pub mod swaks;
pub mod talk;
pub mod testssl;
pub mod transcript;
pub mod volume;
pub mod wait;
pub mod whereabouts;
