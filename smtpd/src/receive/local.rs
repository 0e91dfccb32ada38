//! Sessions of users of this machine, who come by the submit socket.
//!
//! They speak SMTP as everybody does, through the same machine, so that every rule, limit and promise
//! exists once. What differs is who they are: the kernel says so, and they may send to anybody.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mailroot_common::address::ReversePath;
use smtpd_core::policy::Facts;
use smtpd_core::policy::access::List;
use smtpd_core::policy::relay::{RelayCertificates, RelayPolicy};
use smtpd_core::policy::submission::SenderPolicy;
use smtpd_core::route::table::Table;
use smtpd_core::smtp::refusal::Refusal;
use tokio::net::UnixStream;

use super::message::Client;
use super::registry::Live;
use super::visit::{self, Visit};
use super::{Receiver, listener};
use crate::local::{Credentials, Place};
use crate::net::Stream;

/// Where a user of this machine comes from, for rules that look at addresses.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUser {
    /// What the kernel says.
    pub credentials: Credentials,
    /// The login name, or the number of a user without one.
    pub name: String,
}

/// A user who asks about his own mail: the rest of his connection is not SMTP.
#[derive(Debug)]
pub struct Inquiry {
    /// The connection.
    pub stream: UnixStream,
    /// Who asks.
    pub credentials: Credentials,
}

/// What the configuration says about them.
#[derive(Clone, Debug)]
pub struct LocalRules {
    /// Which senders they may give.
    pub senders: SenderPolicy,
    /// Whether the Received field names them.
    pub names_user: bool,
    relay: RelayPolicy,
}

impl LocalRules {
    /// Users of this machine may send to anybody.
    #[must_use]
    pub fn new(senders: SenderPolicy, names_user: bool) -> Self {
        let relay = RelayPolicy {
            list: List::default(),
            authenticated: true,
            certificates: RelayCertificates::None,
            anonymous: false,
        };
        Self { senders, names_user, relay }
    }

    /// What their recipients are judged by.
    pub(super) const fn relay(&self) -> &RelayPolicy {
        &self.relay
    }
}

impl LocalUser {
    /// What policy knows of them.
    pub(super) fn facts(&self) -> Facts {
        Facts { authenticated: Some(self.name.clone()), ..Facts::of_address(HERE) }
    }

    /// Whether they may give this sender. Root could be anybody anyway.
    pub(super) fn may_send_as(
        &self,
        sender: &ReversePath,
        rules: &LocalRules,
        table: &Table,
    ) -> bool {
        self.credentials.is_ours() || rules.senders.allows(sender, &self.name, table)
    }
}

impl Client<'_> {
    /// The number of the user of this machine.
    pub(super) fn uid(&self) -> Option<u32> {
        self.local.as_ref().map(|local| local.credentials.uid)
    }

    /// Who has logged in, or is known without that.
    pub(super) fn user_name(&self) -> Option<&str> {
        let local = self.local.as_ref().map(|local| &*local.name);
        local.or_else(|| self.user.as_ref().map(|user| &*user.name))
    }
}

impl Receiver {
    /// Lets a user of this machine in as a session of its own, or turns him away.
    pub async fn receive_local(&self, stream: UnixStream, user: LocalUser, place: Place) {
        let inner = &self.0;
        inner.parts.counters.connections.add_one();
        let (mut stream, client) = (Stream::Unix(stream), SocketAddr::new(HERE, 0));
        if inner.paused.load(Ordering::Relaxed) || inner.stopped.load(Ordering::Relaxed) {
            listener::turn_away(inner, &mut stream, client, Refusal::Stopping, true).await;
            return;
        }
        let id = inner.parts.session_ids.next();
        let live = Arc::new(Live::new(id, client, inner.parts.clock.now()));
        live.show_user(Some(&user.name));
        let settings = inner.settings.load_full();
        let visit = Visit::of_local(Arc::clone(inner), live, Arc::new(user), place);
        visit::attend(visit, stream, settings).await;
    }
}
