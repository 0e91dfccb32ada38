//! What the service says about itself: status, warnings, changes between two configurations.

use std::collections::BTreeMap;

use mailroot_common::control::{self, ServerState, Status, Warning};

use super::{Service, lock};

impl Service {
    /// The state of the daemon and of all its virtual servers.
    pub async fn status(&self) -> Status {
        let mut servers = Vec::new();
        let mut counters = BTreeMap::new();
        for server in self.all() {
            servers.push(server.describe().await);
            for (name, value) in server.counters().list() {
                *counters.entry(name.to_owned()).or_insert(0) += value;
            }
        }
        counters.extend(self.0.trace.counters().map(|(name, value)| (name.to_owned(), value)));
        let warnings = self.warnings(&servers).await;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.0.started_at,
            now: self.0.clock.now(),
            config_revision: self.active().revision,
            degraded: !warnings.is_empty(),
            servers,
            warnings,
            counters,
        }
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

    /// One line for the supervisor's status.
    #[must_use]
    pub fn summary(&self) -> String {
        let servers = self.all();
        let running = servers.iter().filter(|server| server.state() == ServerState::Running);
        format!("{} of {} virtual servers running", running.count(), servers.len())
    }

    async fn warnings(&self, servers: &[control::Server]) -> Vec<Warning> {
        let mut warnings = self.config_warnings().await;
        for server in servers {
            if let Some(trouble) = &server.trouble {
                warnings.push(Warning {
                    code: "server.not_running".to_owned(),
                    server: Some(server.name.clone()),
                    text: trouble.clone(),
                    hint: Some(format!("then run: smtpctl server start {}", server.name)),
                });
            }
        }
        warnings
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
        if let Some((revision, until)) = self.on_trial() {
            let text = format!("revision {revision} is on trial until {until}");
            warnings.push(warning("config.trial", text, "keep it with: smtpctl config confirm"));
        }
        warnings
    }
}
