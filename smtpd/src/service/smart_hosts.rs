//! Smart hosts that have names: what is known of them, and their changes.

use std::sync::Arc;

use mailroot_common::config::smart_hosts::SmartHostKeys;
use mailroot_common::config::{DomainKind, DomainRoute, Hop, ServerName, SmartHostName};
use mailroot_common::control::{
    Edited, OutboundLimit, ServerState, SmartHost, SmartHostState, SmartHostWish,
};

use super::change::Asked;
use super::{Service, ServiceError};
use crate::config::{EditError, client_certificate_file, client_secret_file};
use crate::deliver::{LaneState, LaneView};
use crate::virtual_server::VirtualServer;

/// How a smart host fares, by the lanes that go there.
fn fares<'l>(lanes: impl Iterator<Item = &'l LaneView>) -> SmartHost {
    let lanes: Vec<&LaneView> = lanes.collect();
    let rest = |lane: &&LaneView| match lane.state {
        LaneState::BackingOff { until, .. } => Some(until),
        LaneState::Idle | LaneState::Active => None,
    };
    let next_attempt_at = lanes.iter().map(rest).collect::<Option<Vec<_>>>();
    let next_attempt_at = next_attempt_at.and_then(|all| all.into_iter().min());
    let last = lanes.iter().find_map(|lane| lane.last.as_ref()).map(|last| last.text.to_string());
    SmartHost {
        state: match next_attempt_at {
            Some(_) => SmartHostState::Down,
            None if lanes.is_empty() => SmartHostState::Unused,
            None => SmartHostState::Up,
        },
        last_delivery_at: lanes.iter().filter_map(|lane| lane.taken_at).max(),
        connections: lanes.iter().map(|lane| lane.workers as u64).sum(),
        // Where a server has learned to send it less than may be, that is what people ask about.
        limit: lanes
            .iter()
            .filter_map(|lane| lane.limit.clone())
            .min_by_key(|limit| (limit.rests_until.is_none(), limit.connections)),
        last: last.filter(|_| next_attempt_at.is_some()),
        next_attempt_at,
        ..SmartHost::default()
    }
}

impl Service {
    /// All of them, by name.
    pub fn smart_hosts(&self) -> Vec<SmartHost> {
        let loaded = self.active();
        let mut lanes = Vec::new();
        if !loaded.service.smart_hosts.is_empty() {
            for server in self.all() {
                lanes.extend(server.lanes());
            }
        }
        let describe = |(name, keys): (&SmartHostName, &SmartHostKeys)| {
            let users = self.users_of(name);
            let found =
                fares(lanes.iter().filter(|it| it.route.smart_host().as_ref() == Some(name)));
            let limit = found.limit.clone().or_else(|| self.limit_by(name, &users));
            SmartHost {
                name: name.to_string(),
                hosts: keys.hosts().iter().map(ToString::to_string).collect(),
                tls: keys.tls.word().to_owned(),
                auth: keys.auth.method.word().to_owned(),
                user: keys.auth.login_name().map(str::to_owned),
                password_at: keys.auth.password.as_ref().map(ToString::to_string),
                token_until: self.token_until(name, keys),
                used_by: users.into_iter().map(|(_, words)| words).collect(),
                limit,
                ..found
            }
        };
        loaded.service.smart_hosts.iter().map(describe).collect()
    }

    /// What may leave for it before anything has: by who sends there, else by any virtual server that runs.
    fn limit_by(
        &self,
        wanted: &SmartHostName,
        users: &[(ServerName, String)],
    ) -> Option<OutboundLimit> {
        let servers = self.all();
        let sends = |server: &&Arc<VirtualServer>| users.iter().any(|(it, _)| it == server.name());
        let asked = |server: &Arc<VirtualServer>| server.allowed_by(wanted);
        let by_user = servers.iter().filter(sends).find_map(asked);
        by_user.or_else(|| servers.iter().find_map(asked))
    }

    /// Who sends by it: virtual servers, each also for a domain that does.
    fn users_of(&self, wanted: &SmartHostName) -> Vec<(ServerName, String)> {
        let loaded = self.active();
        let names_it = |hops: &[Hop]| {
            hops.iter().any(|hop| matches!(hop, Hop::SmartHost(name) if name == wanted))
        };
        let mut out = Vec::new();
        for (server, config) in &loaded.servers {
            if names_it(&config.delivery.smart_host) {
                out.push((server.clone(), server.to_string()));
            }
            for rule in &config.delivery.sender_routes {
                if let DomainRoute::Hosts(hops) = &rule.route
                    && names_it(hops)
                {
                    out.push((server.clone(), format!("{server} from {}", rule.from.as_str())));
                }
            }
            for entry in &config.domains {
                if let DomainKind::Remote { route: DomainRoute::Hosts(hops), .. } = &entry.kind
                    && names_it(hops)
                {
                    out.push((server.clone(), format!("{server}/{}", entry.name)));
                }
            }
        }
        out
    }

    /// Makes a smart host or changes one, keeps its secrets, and has a virtual server use it: all of
    /// it, or nothing. A right to ask for tokens is kept when the change is made.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn set_smart_host(
        &self,
        name: &SmartHostName,
        wish: &SmartHostWish,
        server: Option<&ServerName>,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let change = self.editor(asked).set_smart_host(name, wish, server)?;
        if !asked.terms.dry_run {
            let secret_file = client_secret_file(name);
            self.keep_secret(name.as_str(), wish.password.as_deref())?;
            self.keep_secret(&secret_file, wish.client_secret.as_deref())?;
            self.keep_certificate(name, wish.client_certificate.as_deref())?;
        }
        let edited = self.make(asked, change).await?.edited;
        if let Some(right) = wish.refresh_token.as_deref().filter(|_| !asked.terms.dry_run) {
            let source = self.token_source(name)?;
            let path = self.0.paths.state.join("oauth").join(name.as_str());
            let kept = self.0.tokens.adopt(name, &source, right).await;
            kept.map_err(|source| EditError::Write { path, source })?;
        }
        Ok(edited)
    }

    fn keep_certificate(&self, name: &SmartHostName, pem: Option<&str>) -> Result<(), EditError> {
        let (secrets, file) = (self.secrets(), client_certificate_file(name));
        let kept = pem.map_or(Ok(()), |pem| secrets.keep_text(&file, pem));
        kept.map_err(|source| EditError::Write { path: secrets.directory().join(&file), source })
    }

    /// Keeps a secret, if there is one, in a file of this name.
    pub(super) fn keep_secret(&self, file: &str, text: Option<&str>) -> Result<(), EditError> {
        let secrets = self.secrets();
        let kept = text.map_or(Ok(()), |text| secrets.keep(file, text));
        kept.map_err(|source| EditError::Write { path: secrets.directory().join(file), source })
    }

    /// Takes a smart host away, its token, and the right to ask for more; its secrets stay where they are.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn remove_smart_host(
        &self,
        name: &SmartHostName,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let mut edited = self.edit(asked, |editor| editor.remove_smart_host(name)).await?.edited;
        if !asked.terms.dry_run
            && let Err(error) = self.0.tokens.forget(name).await
        {
            let path = self.0.paths.state.join("oauth").join(name.as_str());
            edited.troubles.push(format!("cannot remove {}: {error}", path.display()));
        }
        Ok(edited)
    }

    /// The virtual server that calls a smart host: the one asked for, else one that uses it, else
    /// any that runs.
    ///
    /// # Errors
    ///
    /// There is no such server, or no such smart host.
    pub fn caller_of(
        &self,
        name: &SmartHostName,
        server: Option<&ServerName>,
    ) -> Result<Arc<VirtualServer>, ServiceError> {
        if !self.active().service.smart_hosts.contains_key(name) {
            return Err(EditError::NoSmartHost(name.clone()).into());
        }
        if let Some(server) = server {
            return self.known(server);
        }
        let runs = |server: &Arc<VirtualServer>| server.state() != ServerState::Stopped;
        let all = self.all();
        let user = self.users_of(name).into_iter().find_map(|(user, _)| {
            all.iter().find(|server| *server.name() == user && runs(server)).cloned()
        });
        let found = user.or_else(|| all.iter().find(|server| runs(server)).cloned());
        found.or_else(|| all.first().cloned()).ok_or(ServiceError::NobodyToCall)
    }
}
