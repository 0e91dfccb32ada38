//! What a virtual server has in hand: sessions of clients, and lanes of mail on its way out.

use mailroot_common::id::SessionId;
use smtpd_core::route::table::RouteName;
use tokio::net::UnixStream;

use super::VirtualServer;
use crate::deliver::LaneView;
use crate::local::Place;
use crate::receive::LocalUser;

impl VirtualServer {
    /// Attends to a user of this machine, who hands in mail or asks about his own, until he goes. The
    /// connection is closed without a word while the server is stopped.
    pub async fn attend(&self, stream: UnixStream, user: LocalUser, place: Place) {
        let receiver = self.inlets.lock().await.as_ref().map(|open| open.receiver.clone());
        if let Some(receiver) = receiver {
            receiver.receive_local(stream, user, place).await;
        }
    }

    /// Ends a session of a client with 421; false if there is none of this name.
    pub async fn kill_session(&self, id: SessionId) -> bool {
        self.inlets.lock().await.as_ref().is_some_and(|open| open.receiver.kill(id))
    }

    /// Ends the sessions of a user in the same way; how many there were.
    pub async fn kill_sessions_of(&self, user: &str) -> u64 {
        let inlets = self.inlets.lock().await;
        inlets.as_ref().map_or(0, |open| open.receiver.kill_sessions_of(user))
    }

    /// Ends the back-off of routes, so that their due mail is tried at once.
    pub async fn flush(&self, routes: &[RouteName]) {
        if let Some(open) = &*self.inlets.lock().await {
            for route in routes {
                open.deliver.flush(Some(route));
            }
        }
    }

    /// Goes by the orders of its queue as they are now.
    pub async fn heed_orders(&self) {
        if let Some(open) = &*self.inlets.lock().await {
            open.deliver.look_again();
        }
    }

    /// The lanes with mail under way or backing off.
    pub async fn lanes(&self) -> Vec<LaneView> {
        self.inlets.lock().await.as_ref().map(|open| open.deliver.lanes()).unwrap_or_default()
    }
}
