//! Changes of smart hosts that have names.

use std::collections::BTreeSet;

use mailroot_common::config::{KeyDoc, ServerConfig, ServerName, ServiceConfig, SmartHostName};
use mailroot_common::control::{KeyEdit, SmartHostWish};

use super::apply::{Change, Editor, find};
use super::assign::{Keys, assign};
use super::edit;
use super::error::EditError;

/// The keys of `mailroot.yaml` with those of each smart host that is there or spoken of.
pub(super) fn docs(service: &ServiceConfig, edits: &[KeyEdit]) -> Vec<KeyDoc> {
    let mut names: BTreeSet<SmartHostName> = service.smart_hosts.keys().cloned().collect();
    for edit in edits {
        let (KeyEdit::Set { key, .. }
        | KeyEdit::Add { key, .. }
        | KeyEdit::Remove { key, .. }
        | KeyEdit::Unset { key }) = edit;
        let name = key.strip_prefix("smart_hosts.").and_then(|rest| rest.split('.').next());
        names.extend(name.and_then(SmartHostName::parse));
    }
    let (named, mut docs): (Vec<KeyDoc>, Vec<KeyDoc>) =
        ServiceConfig::keys().into_iter().partition(|doc| doc.key.starts_with(ALL));
    for name in names {
        let of_name = |doc: &KeyDoc| KeyDoc {
            key: doc.key.replacen(ALL, &format!("smart_hosts.{name}."), 1),
            ..doc.clone()
        };
        docs.extend(named.iter().map(of_name));
    }
    docs
}

/// The keys of which an application has one.
const SECRET: &str = "client_secret";
const CERTIFICATE: &str = "client_certificate";

/// The file of the certificate and key of a smart host's application.
#[must_use]
pub fn client_certificate_file(name: &SmartHostName) -> String {
    format!("{name}.client-certificate")
}

/// The file of the secret of a smart host's application. No smart host has a dot in its name, so that
/// none has this file for its password.
#[must_use]
pub fn client_secret_file(name: &SmartHostName) -> String {
    format!("{name}.client-secret")
}

/// What the keys of every smart host begin with in the manual.
const ALL: &str = "smart_hosts.NAME.";

impl Editor {
    /// Changes keys of a smart host, which is made if it is not there; the password and the
    /// secret of its application, if there are any, are looked for in files of its name, and the virtual server that is named sends by it.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn set_smart_host(
        &self,
        name: &SmartHostName,
        wish: &SmartHostWish,
        server: Option<&ServerName>,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let own = format!("smart_hosts.{name}");
        let effective = open.before.service.effective();
        let keys = Keys::of_item(&ServiceConfig::keys(), &effective, "smart_hosts.NAME", &own);
        let mut edits = wish.edits.clone();
        if wish.password.is_some() {
            let (key, value) = ("auth.password".to_owned(), format!("{{file: {name}}}"));
            edits.push(KeyEdit::Set { key, value });
        }
        let key = |last: &str| format!("auth.oauth.{last}");
        for (is_given, this, file, other) in [
            (wish.client_secret.is_some(), SECRET, client_secret_file(name), CERTIFICATE),
            (wish.client_certificate.is_some(), CERTIFICATE, client_certificate_file(name), SECRET),
        ] {
            if is_given {
                edits.push(KeyEdit::Unset { key: key(other) });
                edits.push(KeyEdit::Set { key: key(this), value: format!("{{file: {file}}}") });
            }
        }
        let mut files = open.before.files.clone();
        let (path, text) = &files.service;
        files.service.1 = self.edit_file(path, text, |text| assign(text, &own, &keys, &edits))?;
        if let Some(server) = server {
            let config = find(&open.before, server)?;
            let keys = Keys::new(ServerConfig::keys(), config.effective());
            let value = format!("{}{name}", SmartHostName::PREFIX);
            let mut edits = vec![KeyEdit::Set { key: "delivery.smart_host".to_owned(), value }];
            edits.extend(
                wish.direct_first
                    .clone()
                    .map(|value| KeyEdit::Set { key: "delivery.direct_first".to_owned(), value }),
            );
            edits.extend(wish.server_edits.iter().cloned());
            let (path, text) = files.servers[server].clone();
            let new = self.edit_file(&path, &text, |text| assign(text, "", &keys, &edits))?;
            files.servers.insert(server.clone(), (path, new));
        }
        self.validate(open, files)
    }

    /// Takes a smart host out of the file.
    ///
    /// # Errors
    ///
    /// [`EditError`], also while somebody sends by it; nothing was changed.
    pub fn remove_smart_host(&self, name: &SmartHostName) -> Result<Change, EditError> {
        let open = self.begin()?;
        if !open.before.service.smart_hosts.contains_key(name) {
            return Err(EditError::NoSmartHost(name.clone()));
        }
        let mut files = open.before.files.clone();
        let (path, text) = &files.service;
        let own = format!("smart_hosts.{name}");
        files.service.1 = self.edit_file(path, text, |text| Ok(edit::unset(text, &own)?))?;
        self.validate(open, files)
    }
}
