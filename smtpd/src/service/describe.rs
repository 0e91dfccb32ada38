//! What the service says about itself: status, warnings, changes between two configurations.

use std::collections::BTreeMap;
use std::sync::Arc;

use mailroot_common::config::SmartHostName;
use mailroot_common::control::{self, ServerState, SmartHost, SmartHostState, Status, Warning};

use super::strays::Stray;
use super::{Service, certificates, lock};
use crate::config;
use crate::virtual_server::VirtualServer;

/// A warning for each server that does not run as it should.
fn troubles(servers: &[control::Server]) -> impl Iterator<Item = Warning> {
    servers.iter().filter_map(|server| {
        Some(Warning {
            code: "server.not_running".to_owned(),
            server: Some(server.name.clone()),
            text: server.trouble.clone()?,
            hint: Some(format!("then run: smtpctl server start {}", server.name)),
        })
    })
}

/// A warning for a server that runs and takes no new mail, because of its disk.
fn unready(server: &VirtualServer) -> Option<Warning> {
    let trouble = server.queue()?.ready().err()?;
    Some(Warning {
        code: "storage.unready".to_owned(),
        server: Some(server.name().to_string()),
        text: format!("new mail is refused: {trouble}"),
        hint: Some(format!("look with: smtpctl doctor storage -s {}", server.name())),
    })
}

/// A warning about a smart host that is down.
fn down(host: &SmartHost) -> Option<Warning> {
    (host.state == SmartHostState::Down).then(|| Warning {
        code: "smarthost.down".to_owned(),
        server: None,
        text: format!(
            "mail for the smart host {} waits: {}",
            host.name,
            host.last.as_deref().unwrap_or("it is left alone for a while")
        ),
        hint: Some(format!("look with: smtpctl smarthost test {}", host.name)),
    })
}

impl Service {
    /// The state of the daemon and of these virtual servers; with what concerns no single one where
    /// the `whole` is wanted.
    pub async fn status(&self, of: &[Arc<VirtualServer>], whole: bool) -> Status {
        let mut servers = Vec::new();
        let mut counters = BTreeMap::new();
        for server in of {
            servers.push(server.describe().await);
            for (name, value) in server.counters().list() {
                *counters.entry(name.to_owned()).or_insert(0) += value;
            }
        }
        let (mut warnings, mut smart_hosts) = (Vec::new(), Vec::new());
        if whole {
            counters.extend(self.0.trace.counters().map(|(name, value)| (name.to_owned(), value)));
            warnings = self.config_warnings().await;
            smart_hosts = self.smart_hosts();
            warnings.extend(smart_hosts.iter().filter_map(down));
            warnings.extend(self.lapsing_rights());
        }
        warnings.extend(troubles(&servers));
        warnings.extend(of.iter().filter_map(|server| unready(server)));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.0.started_at,
            now: self.0.clock.now(),
            config_revision: self.active().revision,
            degraded: !warnings.is_empty(),
            servers,
            smart_hosts,
            warnings,
            counters,
        }
    }

    /// A warning for each right to ask for tokens that is about to lapse.
    fn lapsing_rights(&self) -> Vec<Warning> {
        let loaded = self.active();
        let warning = |name: &SmartHostName| Warning {
            code: "smarthost.right".to_owned(),
            server: None,
            text: self.lapsing_right(name).unwrap_or_default(),
            hint: Some(format!("a person signs in anew: smtpctl smarthost login {name}")),
        };
        let lapsing = |name: &&SmartHostName| self.lapsing_right(name).is_some();
        loaded.service.smart_hosts.keys().filter(lapsing).map(warning).collect()
    }

    /// Why every virtual server that should run does not, a line each; nothing if one of them runs
    /// or none should.
    #[must_use]
    pub fn did_not_start(&self) -> Option<String> {
        let servers = self.all();
        let troubles: Option<Vec<String>> = servers
            .iter()
            .filter(|server| server.config().enabled)
            .map(|server| server.trouble().map(|trouble| format!("{}: {trouble}", server.name())))
            .collect();
        troubles.filter(|troubles| !troubles.is_empty()).map(|troubles| troubles.join("\n"))
    }

    /// Checks the files as they lie there; what runs goes on.
    #[must_use]
    pub fn check_config(&self) -> control::ConfigReport {
        match config::load(&self.0.paths) {
            Ok(loaded) => {
                let files = loaded.files().map(|(path, _)| path.display().to_string()).collect();
                control::ConfigReport::of(files, &loaded.warnings)
            }
            Err(failed) => {
                let active = self.active();
                let files = active.files().map(|(path, _)| path.display().to_string()).collect();
                control::ConfigReport::of(files, &failed.diagnostics)
            }
        }
    }

    /// One line for the supervisor's status.
    #[must_use]
    pub fn summary(&self) -> String {
        let servers = self.all();
        let running = servers.iter().filter(|server| server.state() == ServerState::Running);
        format!("{} of {} virtual servers running", running.count(), servers.len())
    }

    /// What is odd about the configuration files.
    async fn config_warnings(&self) -> Vec<Warning> {
        let warning = |code: &str, text: String, hint: &str| Warning {
            code: code.to_owned(),
            server: None,
            text,
            hint: Some(hint.to_owned()),
        };
        let mut warnings = Vec::new();
        if let Some(text) = &*lock(&self.0.degraded) {
            let text = format!(
                "the configuration files have errors; an earlier state of them is in force\n{text}"
            );
            warnings.push(warning("config.broken", text, "correct them and run: smtpctl reload"));
        } else {
            let (active, paths) = (self.active(), self.0.paths.clone());
            let same = tokio::task::spawn_blocking(move || active.is_what_lies_there(&paths));
            if !same.await.unwrap_or(true) {
                let text = "the configuration files were edited and not loaded".to_owned();
                let hint = "look with: smtpctl config diff; load with: smtpctl reload";
                warnings.push(warning("config.edited", text, hint));
            }
        }
        let now = self.0.clock.now();
        for text in
            self.0.certificates.list().iter().filter_map(|it| certificates::warning(it, now))
        {
            warnings.push(warning("tls.certificate", text, "look with: smtpctl doctor tls"));
        }
        if let Some(trouble) = self.0.users.trouble() {
            let text = format!("nobody can log in, the users cannot be read: {trouble}");
            warnings.push(warning("user.unread", text, "put a good file there and start anew"));
        }
        warnings.extend(lock(&self.0.strays).iter().map(Stray::warning));
        if let Some((revision, until)) = self.on_trial() {
            let text = format!("revision {revision} is on trial until {until}");
            warnings.push(warning("config.trial", text, "keep it with: smtpctl config confirm"));
        }
        warnings
    }
}
