//! What the service says about itself: status, warnings, changes between two configurations.

use std::collections::BTreeMap;

use mailroot_common::config::EffectiveKey;
use mailroot_common::control::{self, ServerState, Status, Warning};

use super::{Service, lock};
use crate::config::Loaded;

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
        let warnings = self.warnings(&servers);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.0.started_at,
            now: self.0.clock.now(),
            config_generation: self.generation(),
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

    fn warnings(&self, servers: &[control::Server]) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if let Some(text) = &*lock(&self.0.degraded) {
            warnings.push(Warning {
                code: "config.broken".to_owned(),
                server: None,
                text: format!(
                    "the configuration files have errors; an earlier state of them is in force\n{text}"
                ),
                hint: Some("correct them and run: smtpctl reload".to_owned()),
            });
        }
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
}

/// What differs between two configurations, a line each.
pub(super) fn changes(before: &Loaded, after: &Loaded) -> Vec<String> {
    let mut lines = keys("service", &before.service.effective(), &after.service.effective());
    for (name, server) in &after.servers {
        match before.servers.get(name) {
            None => lines.push(format!("server {name}: added")),
            Some(old) => {
                lines.extend(keys(
                    &format!("server {name}"),
                    &old.effective(),
                    &server.effective(),
                ));
            }
        }
    }
    let gone = before.servers.keys().filter(|name| !after.servers.contains_key(*name));
    lines.extend(gone.map(|name| format!("server {name}: removed")));
    lines
}

fn keys(whose: &str, before: &[EffectiveKey], after: &[EffectiveKey]) -> Vec<String> {
    let old: BTreeMap<&str, &str> =
        before.iter().map(|key| (key.key.as_str(), key.value.as_str())).collect();
    let new: BTreeMap<&str, &str> =
        after.iter().map(|key| (key.key.as_str(), key.value.as_str())).collect();
    let changed = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    changed.map(|(key, _)| key).chain(gone).map(|key| format!("{whose}: {key}")).collect()
}
