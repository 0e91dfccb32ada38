//! A server seen by whoever only looks, ends a session or has mail tried: he waits for nobody, while the
//! server is started, changed or drained.

use mailroot_common::config::SmartHostName;
use mailroot_common::control::OutboundLimit;
use mailroot_common::id::SessionId;
use smtpd_core::route::table::RouteName;
use tokio::net::UnixStream;

use super::{Ending, VirtualServer};
use crate::deliver::{Deliver, LaneView};
use crate::local::Place;
use crate::receive::{LocalUser, Receiver};

/// The two sides of a server that lets mail in and out.
pub(super) struct Windows {
    pub(super) receiver: Receiver,
    pub(super) deliver: Deliver,
}

impl Windows {
    pub(super) async fn end_sessions(&self, ending: Ending) {
        match ending {
            Ending::Usual => {}
            Ending::Drain(most) => self.receiver.drain(most).await,
            Ending::Kill => self.receiver.kill_all().await,
        }
    }
}

impl VirtualServer {
    /// Ends its sessions, or waits for them; the server itself goes on.
    pub async fn end_sessions(&self, ending: Ending) {
        if let Some(open) = self.windows.load_full() {
            open.end_sessions(ending).await;
        }
    }

    /// Attends to a user of this machine, who hands in mail or asks about his own, until he goes. The
    /// connection is closed without a word while the server is stopped.
    pub async fn attend(&self, stream: UnixStream, user: LocalUser, place: Place) {
        let receiver = self.windows.load().as_ref().map(|open| open.receiver.clone());
        if let Some(receiver) = receiver {
            receiver.receive_local(stream, user, place).await;
        }
    }

    /// Ends a session of a client with 421; false if there is none of this name.
    #[must_use]
    pub fn kill_session(&self, id: SessionId) -> bool {
        self.windows.load().as_ref().is_some_and(|open| open.receiver.kill(id))
    }

    /// Ends the sessions of a user in the same way; how many there were.
    #[must_use]
    pub fn kill_sessions_of(&self, user: &str) -> u64 {
        self.windows.load().as_ref().map_or(0, |open| open.receiver.kill_sessions_of(user))
    }

    /// Ends the back-off of routes, so that their due mail is tried at once.
    pub fn flush(&self, routes: &[RouteName]) {
        if let Some(open) = &*self.windows.load() {
            for route in routes {
                open.deliver.flush(Some(route));
            }
        }
    }

    /// Goes by the orders of its queue as they are now.
    pub fn heed_orders(&self) {
        if let Some(open) = &*self.windows.load() {
            open.deliver.look_again();
        }
    }

    /// The lanes with mail under way or backing off.
    #[must_use]
    pub fn lanes(&self) -> Vec<LaneView> {
        self.windows.load().as_ref().map(|open| open.deliver.lanes()).unwrap_or_default()
    }

    /// What may leave for a smart host that nothing was learned of.
    #[must_use]
    pub fn allowed_by(&self, name: &SmartHostName) -> Option<OutboundLimit> {
        self.windows.load().as_ref().map(|open| open.deliver.allowed_by(name))
    }
}
