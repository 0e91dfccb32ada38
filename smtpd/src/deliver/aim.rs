//! An address to connect to, with all that connections to it have in common: whoever has one to an equal
//! aim has one that is as good.

use std::net::SocketAddr;
use std::sync::Arc;

use mailroot_common::address::Host;
use mailroot_common::config::SmartHostName;
use smtpd_core::queue::outcome::RemoteHost;

use super::limits::Limited;
use super::site::Site;
use super::trust::{Rule, TlsUse};

/// A host's address to try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Target {
    /// The host's name, or its address in brackets.
    pub(super) name: Host,
    pub(super) at: SocketAddr,
    pub(super) helo_only: bool,
    pub(super) tls: TlsUse,
    /// Which rule demands that.
    pub(super) rule: Rule,
    /// Whose security and login count, if it is a host of one that has a name.
    pub(super) smart_host: Option<SmartHostName>,
    /// The limits that hold there.
    pub(super) limited: Option<Limited>,
    /// The site it is one of, if DNS alone says where the mail goes.
    pub(super) site: Option<Arc<Site>>,
}

impl Target {
    /// Whether mail for it could as well take a connection to the other: the same limits, security and
    /// login, at another address.
    pub(super) fn is_akin(&self, other: &Self) -> bool {
        let same = |it: &Self| (it.smart_host.clone(), it.helo_only, it.tls, it.rule.clone());
        let limit = |it: &Self| it.limited.as_ref().map(|limited| Arc::clone(&limited.name));
        self.smart_host.is_some() && same(self) == same(other) && limit(self) == limit(other)
    }

    pub(super) fn host(&self) -> RemoteHost {
        let name = self.name.to_string();
        RemoteHost { name, address: Some(self.at.ip()), port: self.at.port(), tls: None }
    }
}
