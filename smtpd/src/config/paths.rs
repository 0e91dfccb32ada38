//! Where everything lies: under the system's directories, or all under one.
//!
//! These paths are a contract: scripts rely on them.

use std::io;
use std::path::{Path, PathBuf};

use mailroot_common::config::{ServerConfig, ServerName, ServiceConfig};

use crate::disk::Disk;

/// The places of files, directories and sockets, and the disk that the configuration lies on.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `mailroot.yaml`.
    pub service_file: PathBuf,
    /// The directory of `NAME.yaml`.
    pub servers_dir: PathBuf,
    /// The directory of passwords and other secrets.
    pub secrets_dir: PathBuf,
    /// The parent of every server's mail root, unless `service.store` says otherwise.
    pub spool: PathBuf,
    /// What the daemon remembers: history, trace.
    pub state: PathBuf,
    /// The control socket, unless `control.socket` says otherwise.
    pub control_socket: PathBuf,
    /// The socket of `sendmail`.
    pub submit_socket: PathBuf,
    /// The file of aliases, unless `service.aliases` says otherwise.
    pub aliases: PathBuf,
    /// The file with the name of this machine in mail, unless `service.mailname` says otherwise.
    pub mail_name: PathBuf,
    /// The directory given with `--home`.
    pub home: Option<PathBuf>,
    pub(super) disk: Disk,
}

impl Paths {
    /// Those of the system, or all below `home`.
    ///
    /// # Errors
    ///
    /// The system's error where a relative `home` cannot be made whole, because the current
    /// directory is gone.
    pub fn new(home: Option<&Path>) -> io::Result<Self> {
        match home {
            None => Ok(Self::system()),
            Some(home) => Ok(Self::below(&std::path::absolute(home)?)),
        }
    }

    /// Those of an installed package.
    #[must_use]
    pub fn system() -> Self {
        Self {
            service_file: "/etc/mailroot/mailroot.yaml".into(),
            servers_dir: "/etc/mailroot/servers.d".into(),
            secrets_dir: "/etc/mailroot/secrets.d".into(),
            spool: "/var/spool/mailroot".into(),
            state: "/var/lib/mailroot".into(),
            control_socket: "/run/mailroot/control.sock".into(),
            submit_socket: "/run/mailroot/submit.sock".into(),
            aliases: "/etc/aliases".into(),
            mail_name: "/etc/mailname".into(),
            home: None,
            disk: Disk::Real,
        }
    }

    fn below(home: &Path) -> Self {
        Self {
            service_file: home.join("etc/mailroot.yaml"),
            servers_dir: home.join("etc/servers.d"),
            secrets_dir: home.join("etc/secrets.d"),
            spool: home.join("spool"),
            state: home.join("state"),
            control_socket: home.join("run/control.sock"),
            submit_socket: home.join("run/submit.sock"),
            aliases: home.join("etc/aliases"),
            mail_name: home.join("etc/mailname"),
            home: Some(home.to_owned()),
            disk: Disk::Real,
        }
    }

    /// The same places on another disk.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    /// The file of a virtual server.
    #[must_use]
    pub fn server_file(&self, server: &ServerName) -> PathBuf {
        self.servers_dir.join(format!("{server}.yaml"))
    }

    /// The mail root of a virtual server: Pickup, Queue, Drop and Badmail are below it.
    #[must_use]
    pub fn mail_root(
        &self,
        service: &ServiceConfig,
        server: &ServerName,
        config: &ServerConfig,
    ) -> PathBuf {
        let spool = service.service.store.as_ref().unwrap_or(&self.spool);
        spool.join(config.store.root.as_deref().unwrap_or_else(|| Path::new(server.as_str())))
    }

    pub(super) fn history(&self) -> PathBuf {
        self.state.join("history")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.state.join("config.lock")
    }

    pub(super) fn pending(&self) -> PathBuf {
        self.state.join("config.pending")
    }

    pub(super) fn seal(&self) -> PathBuf {
        self.state.join("config.sealed")
    }

    pub(super) fn trial(&self) -> PathBuf {
        self.state.join("config.trial")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailroot_common::config::Profile;

    #[test]
    fn a_home_has_everything_below_it() {
        let paths = Paths::new(Some(Path::new("/srv/try"))).unwrap();
        assert_eq!(paths.service_file, Path::new("/srv/try/etc/mailroot.yaml"));
        assert_eq!(paths.control_socket, Path::new("/srv/try/run/control.sock"));
        let name = ServerName::parse("default").unwrap();
        assert_eq!(paths.server_file(&name), Path::new("/srv/try/etc/servers.d/default.yaml"));
        let (service, mut server) =
            (ServiceConfig::default(), ServerConfig::defaults(Profile::Modern));
        let root = |server: &ServerConfig| paths.mail_root(&service, &name, server);
        assert_eq!(root(&server), Path::new("/srv/try/spool/default"));
        server.store.root = Some("lan".into());
        assert_eq!(root(&server), Path::new("/srv/try/spool/lan"));
        server.store.root = Some("/mail".into());
        assert_eq!(root(&server), Path::new("/mail"));
    }

    #[test]
    fn a_relative_home_is_made_whole() {
        let paths = Paths::new(Some(Path::new("try"))).unwrap();
        assert!(paths.spool.is_absolute());
    }
}
