//! Changes of the list of keys that mail is signed with.

use mailroot_common::address::Domain;
use mailroot_common::config::{DkimEntry, Selector, ServerName};

use super::apply::{Change, Editor, find};
use super::edit;
use super::error::EditError;
use super::spec::quoted;

impl Editor {
    /// Adds the entry of a key.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn add_dkim_key(
        &self,
        server: &ServerName,
        entry: &DkimEntry,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let config = find(&open.before, server)?;
        if config.dkim.iter().any(|other| other.record_name() == entry.record_name()) {
            return Err(EditError::DkimExists(entry.record_name()));
        }
        let item = format!(
            "{{domain: {}, selector: {}, key: {}}}",
            quoted(entry.domain.as_str()),
            quoted(entry.selector.as_str()),
            entry.key
        );
        self.change(open, server, |text| match edit::get(text, "dkim")? {
            Some(_) => Ok(edit::push(text, "dkim", &item)?),
            None => Ok(edit::set(text, "dkim", &format!("[{item}]"))?),
        })
    }

    /// Takes the entry of a key out; the key stays where it is kept.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn remove_dkim_key(
        &self,
        server: &ServerName,
        domain: &Domain,
        selector: &Selector,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let config = find(&open.before, server)?;
        let is_it = |entry: &DkimEntry| entry.domain == *domain && entry.selector == *selector;
        let number = config.dkim.iter().position(is_it).ok_or_else(|| EditError::NoDkim {
            server: server.clone(),
            domain: domain.clone(),
            selector: Some(selector.clone()),
        })?;
        let is_last = config.dkim.len() == 1;
        self.change(open, server, |text| match is_last {
            true => Ok(edit::unset(text, "dkim")?),
            false => Ok(edit::remove_item(text, "dkim", number)?),
        })
    }
}
