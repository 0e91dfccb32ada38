//! Changes of the configuration that operators ask for: edited, checked, written, put in force.

use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::config::{DomainName, ServerName};
use mailroot_common::control;

use super::{Service, ServiceError};
use crate::config::{Change, EditError, Editor, Loaded, RemoteDomainSpec, ServerSpec};
use crate::virtual_server::VirtualServer;

/// A domain to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainSpec {
    /// Another name of the default domain.
    Alias(Domain),
    /// A domain of other hosts.
    Remote(RemoteDomainSpec),
}

impl Service {
    async fn edit(
        &self,
        actor: &str,
        edit: impl FnOnce(&Editor) -> Result<Change, EditError>,
    ) -> Result<(), ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let loaded = edit(&Editor::new(self.0.paths.clone()))?.apply()?;
        self.activate(loaded, actor, "smtpctl").await?;
        Ok(())
    }

    /// Writes the file of a new virtual server and starts it, unless it is not enabled. A trial
    /// checks everything and changes nothing.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn create_server(
        &self,
        name: &ServerName,
        spec: &ServerSpec,
        actor: &str,
        is_trial: bool,
    ) -> Result<control::Server, ServiceError> {
        if is_trial {
            let change = Editor::new(self.0.paths.clone()).create_server(name, spec)?;
            let server = self.planned(name, &change.loaded)?;
            return Ok(server.describe().await);
        }
        self.edit(actor, |editor| editor.create_server(name, spec)).await?;
        Ok(self.known(name)?.describe().await)
    }

    /// A server as a configuration would have it, not opened and not listed.
    fn planned(
        &self,
        name: &ServerName,
        loaded: &Loaded,
    ) -> Result<Arc<VirtualServer>, ServiceError> {
        let no_server = || ServiceError::NoServer(name.clone());
        let config = loaded.servers.get(name).ok_or_else(no_server)?;
        let resolver = self.resolver(loaded)?;
        let shared = self.shared(loaded, &resolver, name, config);
        Ok(VirtualServer::new(name.clone(), shared, Arc::clone(config)))
    }

    /// The domains of a virtual server, in the order of its file.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`].
    pub fn domains(&self, server: &ServerName) -> Result<Vec<control::Domain>, ServiceError> {
        Ok(self.known(server)?.domains())
    }

    /// Adds a domain: another name of the default domain, or one of others with rules of its own.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn add_domain(
        &self,
        server: &ServerName,
        spec: DomainSpec,
        actor: &str,
    ) -> Result<control::Domain, ServiceError> {
        let name = match &spec {
            DomainSpec::Alias(domain) => DomainName::Exact(domain.clone()),
            DomainSpec::Remote(remote) => remote.name.clone(),
        };
        self.edit(actor, |editor| match &spec {
            DomainSpec::Alias(domain) => editor.add_alias_domain(server, domain),
            DomainSpec::Remote(remote) => editor.add_remote_domain(server, remote),
        })
        .await?;
        self.domain(server, &name)
    }

    /// Removes an alias or remote domain; says what it was.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn remove_domain(
        &self,
        server: &ServerName,
        domain: &DomainName,
        actor: &str,
    ) -> Result<control::Domain, ServiceError> {
        let was = self.domain(server, domain);
        self.edit(actor, |editor| editor.remove_domain(server, domain)).await?;
        was
    }

    fn domain(
        &self,
        server: &ServerName,
        domain: &DomainName,
    ) -> Result<control::Domain, ServiceError> {
        let name = domain.to_string();
        let unknown = || EditError::NoDomain { server: server.clone(), domain: domain.clone() };
        let found = self.domains(server)?.into_iter().find(|domain| domain.name == name);
        Ok(found.ok_or_else(unknown)?)
    }
}
