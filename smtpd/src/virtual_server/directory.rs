//! The domains of a server, and the directory that knows their recipients.

use std::sync::Arc;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::ServerConfig;
use mailroot_common::control::{Check, Level};
use smtpd_core::route::table::Table;

use super::settings::host;
use super::{Shared, StartError, VirtualServer, rules};
use crate::ldap::{Directory, Means};

/// Which domains are ours, and who knows their recipients.
#[derive(Clone, Debug)]
pub(super) struct Domains {
    pub(super) table: Arc<Table>,
    pub(super) directory: Option<Directory>,
}

impl VirtualServer {
    pub(super) fn table(
        &self,
        shared: &Shared,
        config: &ServerConfig,
    ) -> Result<Arc<Table>, StartError> {
        let default = rules::default_domain(config).ok_or(StartError::NoDefaultDomain)?;
        Ok(Arc::new(rules::table(config, default, shared.mail_name.as_ref())?))
    }

    /// The domains as they are put in force. A directory whose keys are as before goes on, with its
    /// connections and what it has learned.
    pub(super) fn routing(
        &self,
        shared: &Shared,
        config: &ServerConfig,
    ) -> Result<Domains, StartError> {
        let table = self.table(shared, config)?;
        let directory = config.ldap.enabled.then(|| {
            let means = self.means(shared, config);
            match self.directory.load_full() {
                Some(known) if *known.keys() == config.ldap => {
                    known.adopt(means);
                    (*known).clone()
                }
                _ => Directory::new(config.ldap.clone(), means),
            }
        });
        self.directory.store(directory.clone().map(Arc::new));
        Ok(Domains { table, directory })
    }

    fn means(&self, shared: &Shared, config: &ServerConfig) -> Means {
        Means {
            server: self.name.as_str().into(),
            own_names: vec![host(config, shared).clone(), shared.hostname.clone()],
            clock: shared.clock.clone(),
            net: shared.net.clone(),
            resolver: shared.resolver.clone(),
            tls: shared.tls.clone(),
            secrets: shared.secrets.clone(),
            log: shared.log.clone(),
            counters: Arc::clone(&self.counters),
        }
    }

    /// Calls the directory servers, and resolves an address if one is given; also while the directory
    /// is not enabled yet.
    pub async fn test_directory(&self, address: Option<&Mailbox>) -> Vec<Check> {
        let (config, shared) = (self.config(), self.shared.load_full());
        if config.ldap.server.is_empty() {
            let check = Check::new(Level::Warn, "ldap", "server", "no directory server is named");
            let hint = "smtpctl ldap set server=ldaps://dc1.example.net base=DC=example,DC=net";
            return vec![check.hint(hint)];
        }
        let directory = self.directory_of(&shared, &config);
        let table = self.table(&shared, &config).ok();
        let is_local =
            move |domain: &Domain| table.as_ref().is_some_and(|table| table.is_local(domain));
        let mut checks = directory.test(address, &is_local).await;
        for check in &mut checks {
            check.server = Some(self.name().to_string());
        }
        checks
    }

    /// The one that is asked by these settings, or one that would be.
    fn directory_of(&self, shared: &Shared, config: &ServerConfig) -> Directory {
        let known = self.directory.load_full().filter(|known| *known.keys() == config.ldap);
        match known {
            Some(known) => (*known).clone(),
            None => Directory::new(config.ldap.clone(), self.means(shared, config)),
        }
    }

    /// Leaves no server of the directory alone any more, since the password is another one.
    pub fn ask_directory_anew(&self) {
        if let Some(directory) = self.directory.load_full() {
            directory.ask_anew();
        }
    }

    /// What is found about the directory, if one is asked.
    pub(super) async fn check_directory(&self) -> Vec<Check> {
        let (config, shared) = (self.config(), self.shared.load_full());
        match config.ldap.enabled {
            true => self.directory_of(&shared, &config).probe().await,
            false => Vec::new(),
        }
    }

    /// What the directory says of a recipient, in words; nothing if it is not asked about it.
    pub(super) async fn directory_says(&self, to: &Mailbox, table: &Table) -> Option<String> {
        let directory = self.directory.load_full()?;
        if !to.domain().is_some_and(|domain| table.is_local(domain)) {
            return None;
        }
        Some(directory.describe(to, &|domain| table.is_local(domain)).await)
    }
}
