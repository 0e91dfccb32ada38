//! Hosts that have proved who they are, as operators see them.

use mailroot_common::address::Domain;
use mailroot_common::config::section::Setting as _;
use mailroot_common::control::TlsHost;

use super::Service;
use crate::config::Loaded;
use crate::tls::{Recall, Seen};

impl Service {
    /// What is remembered of hosts, by a configuration that wants it.
    pub(super) fn recall_by(&self, loaded: &Loaded) -> Option<Recall> {
        let keys = &loaded.service.tls;
        keys.memory.then(|| Recall::new(self.0.memory.clone(), &keys.trust.show(), keys.memory_for))
    }

    /// All of them, by name.
    #[must_use]
    pub fn tls_hosts(&self) -> Vec<TlsHost> {
        let recall = self.recall_by(&self.active());
        let hosts = self.0.memory.list().into_iter();
        hosts.map(|(host, seen)| shown(&host, &seen, recall.as_ref())).collect()
    }

    /// Forgets one, durably; nothing if it is not remembered.
    ///
    /// # Errors
    ///
    /// The system's: it is forgotten until the daemon ends.
    pub async fn forget_tls_host(&self, host: &Domain) -> std::io::Result<Option<TlsHost>> {
        let recall = self.recall_by(&self.active());
        let until = recall.and_then(|recall| recall.until(host));
        let forgotten = self.0.memory.forget(host).await?;
        Ok(forgotten.map(|seen| TlsHost { until, ..shown(host, &seen, None) }))
    }
}

fn shown(host: &Domain, seen: &Seen, recall: Option<&Recall>) -> TlsHost {
    let until = recall.and_then(|recall| recall.until(host));
    TlsHost { host: host.to_string(), first: seen.first, last: seen.last, until }
}
