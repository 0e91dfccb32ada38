//! Asking a peer for mail that it holds for us: to send it by itself, or over this connection.

use std::time::Duration;

use mailroot_common::address::Domain;

use super::super::super::etrn::Etrn;
use super::Client;
use super::expect::Expect;

/// RFC 2645 section 5.2.1: the peer may have to look through its queue.
pub(super) const ATRN_PATIENCE: Duration = Duration::from_mins(10);

impl Client {
    /// Asks for mail that the peer holds (RFC 1985); only while [`Client::is_idle`]. The answer comes
    /// as [`Action::Answered`].
    pub fn ask_for(&mut self, mail: &Etrn, now: Duration) {
        debug_assert!(self.is_idle(), "asked only when nothing is under way");
        self.command(Expect::Etrn, now, |out| {
            out.extend_from_slice(format!("ETRN {mail}\r\n").as_bytes());
        });
    }

    /// Asks for the mail of domains over this connection (RFC 2645), or for all that the peer holds for
    /// us; only while [`Client::is_idle`]. The answer comes as [`Action::Answered`]. After a good one we
    /// greet, and this machine is of no further use.
    pub fn ask_to_reverse(&mut self, domains: &[Domain], now: Duration) {
        debug_assert!(self.is_idle(), "asked only when nothing is under way");
        let names: Vec<&str> = domains.iter().map(Domain::as_str).collect();
        let gap = if names.is_empty() { "" } else { " " };
        self.command(Expect::Atrn, now, |out| {
            out.extend_from_slice(format!("ATRN{gap}{}\r\n", names.join(",")).as_bytes());
        });
    }
}
