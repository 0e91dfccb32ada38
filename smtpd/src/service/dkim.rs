//! Keys that mail is signed with: what is known of them, and their changes.

use std::io;

use mailroot_common::address::Domain;
use mailroot_common::config::dkim::{record_name, usual_headers};
use mailroot_common::config::{DkimEntry, Secret, Selector, ServerName};
use mailroot_common::control::{DkimKey, DkimRecord, Edited};

use super::change::Asked;
use super::{Service, ServiceError};
use crate::config::{EditError, Secrets};
use crate::dkim::{KeyKind, SigningKey};

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimSpec {
    /// The domain that is to sign.
    pub domain: Domain,
    /// Its name, or the first free one.
    pub selector: Option<Selector>,
    /// What kind of key.
    pub kind: KeyKind,
}

impl Service {
    /// Those of a virtual server, in the order of its file.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`].
    pub async fn dkim_keys(&self, server: &ServerName) -> Result<Vec<DkimKey>, ServiceError> {
        Ok(self.known(server)?.dkim_keys().await)
    }

    /// What DNS must say of the keys of a domain, and what it says.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NoServer`], or [`EditError::NoDkim`] if the domain has no keys.
    pub async fn dkim_records(
        &self,
        server: &ServerName,
        domain: &Domain,
    ) -> Result<Vec<DkimRecord>, ServiceError> {
        let found = self.known(server)?.dkim_records(Some(domain)).await;
        if found.is_empty() {
            let (server, domain) = (server.clone(), domain.clone());
            return Err(EditError::NoDkim { server, domain, selector: None }.into());
        }
        Ok(found)
    }

    /// Makes a key, keeps it in a file that nobody else can read, and has mail signed with it.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; mail is signed as before.
    pub async fn create_dkim_key(
        &self,
        server: &ServerName,
        spec: DkimSpec,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let secrets = Secrets::in_directory(&self.0.paths.secrets_dir);
        let DkimSpec { domain, selector, kind } = spec;
        let selector = match selector {
            Some(selector) => selector,
            None => self.free_selector(server, &domain, &secrets)?,
        };
        let name = record_name(&selector, &domain);
        let entry = DkimEntry {
            key: Secret::File(name.clone()),
            domain,
            selector,
            subdomains: false,
            headers: usual_headers(),
        };
        // Nothing is made for a change that would be refused.
        let change = self.editor(asked).add_dkim_key(server, &entry)?;
        if asked.terms.dry_run {
            let mut edited = self.make(asked, change).await?.edited;
            // That the key is not there yet is no news.
            edited.warnings.retain(|it| it.code != "W0438" || !it.message.contains(&name));
            return Ok(edited);
        }
        drop(change);
        let path = secrets.directory().join(&name);
        let kept = tokio::task::spawn_blocking(move || {
            let (_, pem) = SigningKey::generate(kind).map_err(io::Error::other)?;
            secrets.keep_new(&name, &pem)
        });
        let kept = kept.await.map_err(io::Error::other).flatten();
        kept.map_err(|source| EditError::Write { path, source })?;
        let change = self.editor(asked).add_dkim_key(server, &entry)?;
        Ok(self.make(asked, change).await?.edited)
    }

    /// Has mail signed with a key no more; the key stays where it is kept.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Edit`]; nothing was changed.
    pub async fn remove_dkim_key(
        &self,
        server: &ServerName,
        domain: &Domain,
        selector: &Selector,
        asked: &Asked,
    ) -> Result<Edited, ServiceError> {
        let edit = self.edit(asked, |editor| editor.remove_dkim_key(server, domain, selector));
        Ok(edit.await?.edited)
    }

    /// The first of mr1, mr2 and so on that no key of the domain has or had.
    fn free_selector(
        &self,
        server: &ServerName,
        domain: &Domain,
        secrets: &Secrets,
    ) -> Result<Selector, ServiceError> {
        let config = self.known(server)?.config();
        let is_free = |selector: &Selector| {
            let name = record_name(selector, domain);
            config.dkim.iter().all(|entry| entry.record_name() != name)
                && !secrets.directory().join(name).exists()
        };
        let mut all = (1_u32..).filter_map(|number| Selector::parse(&format!("mr{number}")));
        Ok(all.find(is_free).expect("numbers do not end"))
    }
}
