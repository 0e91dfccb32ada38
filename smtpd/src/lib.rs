//! The Mailroot daemon: everything that touches sockets, files, clocks and processes.
//!
//! What can be decided is decided in `smtpd-core`; the rooms of this crate carry it out. A room
//! imports only rooms below it, in the order of `ARCHITECTURE.md`, which a test enforces.

pub mod acme;
pub mod aliases;
pub mod args;
pub mod badmail;
pub mod clock;
pub mod config;
pub mod control;
pub mod deliver;
pub mod directory;
pub mod disk;
pub mod dkim;
pub mod drop;
pub mod filter;
pub mod https;
#[cfg(feature = "gssapi")]
pub mod kerberos;
pub mod ldap;
pub mod local;
pub mod mail_name;
pub mod milter;
pub mod mta_sts;
pub mod net;
pub mod oauth;
pub mod observe;
pub mod pickup;
pub mod process;
pub mod queue;
pub mod receive;
pub mod resolve;
pub mod sender;
pub mod service;
pub mod small_file;
pub mod store;
pub mod tls;
pub mod tls_report;
pub mod trace;
pub mod users;
pub mod virtual_server;
