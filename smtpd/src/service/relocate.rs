//! Changes that give virtual servers other directories.
//!
//! A queue is never left behind: such a change is refused while mail waits in it, or while nobody
//! can say whether it does. Otherwise the server is closed, the change is made, and the server does
//! again what it did, with the new directories. Files in the old ones stay there.

use std::path::PathBuf;
use std::sync::Arc;

use mailroot_common::config::Diagnostic;
use mailroot_common::control::{ServerState, Verb};

use super::{Service, ServiceError};
use crate::config::Loaded;
use crate::virtual_server::{LeftBehind, Moved, VirtualServer};

/// A server that a configuration moves.
struct Moving {
    server: Arc<VirtualServer>,
    what: Moved,
    from: PathBuf,
    to: PathBuf,
}

/// A server that was closed for a change, and what it did before.
pub(super) struct Closed {
    server: Arc<VirtualServer>,
    was: ServerState,
    enabled: bool,
}

impl Moving {
    /// An error if mail would be left behind.
    fn check(&self) -> Result<(), ServiceError> {
        let left = match (self.what, self.server.left_behind()) {
            (Moved::Drop | Moved::Badmail, _) | (_, LeftBehind::Messages(0)) => return Ok(()),
            (_, LeftBehind::Messages(messages)) => format!("{messages} queued messages"),
            (_, LeftBehind::Unknown) => "a queue that was not opened yet".to_owned(),
        };
        let (server, from) = (self.server.name().clone(), self.from.clone());
        Err(ServiceError::QueueStays { server, left, from })
    }

    /// What stays where it is.
    fn warning(&self) -> Diagnostic {
        let (name, from, to) = (self.server.name(), self.from.display(), self.to.display());
        let (title, help) = match self.what {
            Moved::Root => (
                format!("the mail root of {name} moves from {from} to {to}"),
                "files in Pickup, Drop and Badmail stay in the old one; move them by hand",
            ),
            Moved::Drop => (
                format!("the Drop directory of {name} moves"),
                "messages in the old one stay there; move them by hand",
            ),
            Moved::Badmail => (
                format!("the Badmail directory of {name} moves"),
                "messages in the old one stay there; move them by hand",
            ),
        };
        Diagnostic::warning("W0425", title).help(help)
    }
}

impl Service {
    fn moving(&self, loaded: &Loaded) -> Vec<Moving> {
        let moving = loaded.servers.iter().filter_map(|(name, config)| {
            let server = self.server(name)?;
            let to = self.0.paths.mail_root(&loaded.service, name, config);
            let what = server.moved_by(&to, config)?;
            Some(Moving { from: server.mail_root(), what, to, server })
        });
        moving.collect()
    }

    /// Refuses a configuration that would leave mail behind; what to know of one that does not.
    pub(super) fn check_moves(&self, loaded: &Loaded) -> Result<Vec<Diagnostic>, ServiceError> {
        let moving = self.moving(loaded);
        moving.iter().try_for_each(Moving::check)?;
        Ok(moving.iter().map(Moving::warning).collect())
    }

    /// Closes the servers that a configuration moves. After an error all do what they did before.
    pub(super) async fn close_moving(&self, loaded: &Loaded) -> Result<Vec<Closed>, ServiceError> {
        let mut closed = Vec::new();
        for moving in self.moving(loaded) {
            let server = Arc::clone(&moving.server);
            let (was, enabled) = (server.state(), server.config().enabled);
            server.stop(None).await;
            closed.push(Closed { server, was, enabled });
            // Mail may have come in until the last session ended.
            if let Err(error) = moving.check() {
                self.reopen(closed).await;
                return Err(error);
            }
            moving.server.close().await;
        }
        Ok(closed)
    }

    /// Lets closed servers do what they did before, except where the change itself starts or stops
    /// them; what went wrong, a line each.
    pub(super) async fn reopen(&self, closed: Vec<Closed>) -> Vec<String> {
        let mut troubles = Vec::new();
        for Closed { server, was, enabled } in closed {
            let verbs: &[Verb] = match was {
                ServerState::Running | ServerState::Starting => &[Verb::Start],
                ServerState::Paused => &[Verb::Start, Verb::Pause],
                ServerState::Stopped | ServerState::Stopping => &[],
            };
            if server.config().enabled != enabled {
                continue;
            }
            for verb in verbs {
                if let Err(error) = self.turn(&server, *verb, None).await {
                    troubles.push(error.to_string());
                    break;
                }
            }
        }
        troubles
    }
}
