//! The name of this machine in mail: which file says it, and the server that goes by it.
//!
//! In: what the file says now. Out: the virtual server that takes mail of this machine's programs gives that
//! domain to addresses without one. It is looked at before each of their sessions, so that there is no
//! moment in which a change is not known.

use std::path::Path;

use mailroot_common::address::Domain;
use mailroot_common::config::{PathOrOff, ServerName};

use super::Service;
use crate::config::Loaded;
use crate::observe::Level;
use crate::virtual_server::VirtualServer;

/// The virtual server that takes mail of this machine's programs, by a configuration.
pub(super) fn submit_server(loaded: &Loaded) -> Option<ServerName> {
    let names = || loaded.servers.keys();
    match &loaded.service.submission.server {
        Some(name) => names().find(|it| *it == name).cloned(),
        None if names().len() == 1 => names().next().cloned(),
        None => names().find(|name| name.as_str() == "default").cloned(),
    }
}

impl Service {
    /// What the file of a configuration says now.
    pub(super) async fn mail_name_by(&self, loaded: &Loaded) -> Option<Domain> {
        let path = match &loaded.service.service.mailname {
            None => Some(self.0.paths.mail_name.as_path()),
            Some(PathOrOff::Path(path)) => Some(Path::new(path)),
            Some(PathOrOff::Off) => None,
        };
        self.0.mail_name.set(path);
        self.0.mail_name.current().await
    }

    /// Has a server that takes mail of programs go by what the file says now.
    pub(super) async fn follow_mail_name(&self, server: &VirtualServer) {
        if self.0.mail_name.current().await == server.mail_name() {
            return;
        }
        let _one_at_a_time = self.0.changing.lock().await;
        let name = self.0.mail_name.current().await;
        if name == server.mail_name() {
            return;
        }
        let line = self.0.log.line(Level::Info, "mailname-changed");
        line.word("server", server.name()).maybe("name", name.as_ref()).send();
        if let Err(error) = server.take_mail_name(name).await {
            let line = self.0.log.line(Level::Error, "server-failed");
            line.word("server", server.name()).text("reason", error).send();
        }
    }
}
