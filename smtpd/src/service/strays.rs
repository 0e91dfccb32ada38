//! Queues that no virtual server has any more: looked for, and told until somebody takes care of them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mailroot_common::control::Warning;

use super::{Service, ServiceError, lock};
use crate::config::Loaded;
use crate::observe::Level;
use crate::virtual_server::{LeftBehind, waiting_in};

/// Mail that waits where no virtual server looks.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    /// Whose it was.
    server: String,
    /// The mail root.
    root: PathBuf,
    /// What waits there, in words.
    what: String,
}

impl Stray {
    /// How `status` tells it.
    pub(super) fn warning(&self) -> Warning {
        let Self { server, root, .. } = self;
        Warning {
            code: "queue.left_behind".to_owned(),
            server: None,
            text: self.text(),
            hint: Some(format!(
                "put the file of {server} back, or run: smtpctl server create {server} --root {}",
                root.display()
            )),
        }
    }

    fn text(&self) -> String {
        let queue = self.root.join("Queue");
        format!(
            "{} in {}, which was the queue of {}, and no virtual server has it",
            self.what,
            queue.display(),
            self.server
        )
    }
}

impl Service {
    /// The mail roots that a configuration gives to its servers.
    pub(super) fn mail_roots(&self, loaded: &Loaded) -> BTreeSet<PathBuf> {
        let servers = loaded.servers.iter();
        let root = |(name, config)| self.0.paths.mail_root(&loaded.service, name, config);
        servers.map(|(name, config)| root((name, config.as_ref()))).collect()
    }

    /// Refuses a configuration without a server whose queue holds mail, unless another gets its mail
    /// root.
    pub(super) fn check_gone(&self, loaded: &Loaded) -> Result<(), ServiceError> {
        let roots = self.mail_roots(loaded);
        for server in self.all() {
            let from = server.mail_root();
            if loaded.servers.contains_key(server.name()) || roots.contains(&from) {
                continue;
            }
            let left = match server.left_behind() {
                LeftBehind::Messages(0) => continue,
                LeftBehind::Messages(messages) => format!("{messages} queued messages"),
                LeftBehind::Unknown => "a queue that was not opened yet".to_owned(),
            };
            return Err(ServiceError::QueueStays { server: server.name().clone(), left, from });
        }
        Ok(())
    }

    /// Looks into mail roots that servers had and that none has now. What is empty is forgotten, what
    /// is not is told.
    pub(super) async fn look_for_strays(&self, loaded: &Loaded) {
        let mut found = Vec::new();
        for (server, root) in self.0.roots.out_of_sight() {
            // An enabled server of that name looked there itself, and did not start if mail waits.
            let named = loaded.servers.iter().find(|(name, _)| name.as_str() == server);
            if named.is_some_and(|(_, config)| config.enabled) {
                continue;
            }
            let what = match waiting_in(&root, &self.0.clock, &loaded.hostname).await {
                Ok(0) => {
                    self.0.roots.forget(&server).await;
                    continue;
                }
                Ok(messages) => format!("{messages} messages wait"),
                Err(error) => format!("perhaps mail waits (it cannot be opened: {error})"),
            };
            let stray = Stray { server, root, what };
            self.0.log.line(Level::Error, "queue-left-behind").text("reason", stray.text()).send();
            found.push(stray);
        }
        *lock(&self.0.strays) = found;
    }
}
