//! The rules of mail, apart from all input and output.
//!
//! Nothing here reads a clock, a file, a socket or a source of randomness, and the manifest names
//! no crate that could: octets, facts, moments and random numbers come in as arguments, and what
//! is to be done comes out as values. So every rule can be tested with a made-up clock.
//!
//! [`smtp`] holds the grammar and both session machines, [`message`] what is read from and written
//! into mail, [`policy`] who may do what, [`route`] where mail goes, [`queue`] what becomes of it,
//! [`storage`] what a file system and its disk are good for, [`trace`] what is remembered of mail,
//! [`sender`] whether mail is from whom it says, [`certificate`] for whom a certificate is and until when,
//! [`acme`] when one is asked of an authority, [`oauth`] how tokens for logins are asked for and used,
//! [`ldap`] what a directory says about recipients, [`tls_report`] what domains are told of the TLS that
//! mail to them met, and [`w3c`] what analysers of the original's log files read.

pub mod acme;
pub mod certificate;
pub mod ldap;
pub mod message;
pub mod milter;
pub mod oauth;
pub mod policy;
pub mod queue;
pub mod route;
pub mod sender;
pub mod smtp;
pub mod storage;
pub mod tls_report;
pub mod trace;
pub mod w3c;
