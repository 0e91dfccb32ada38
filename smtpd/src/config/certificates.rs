//! Certificates that we show and those that we trust: what can be said of their files before anybody asks
//! for them.

use std::path::Path;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::oauth::Endpoint;
use mailroot_common::config::tls::{CertificateKeys, CertificateName, Trust};
use mailroot_common::config::{Diagnostic, ServerConfig, ServiceConfig};
use mailroot_common::units::Timestamp;

use super::apply::{Change, Editor};
use super::edit;
use super::error::EditError;
use super::secret::{SecretError, Secrets};
use super::spec::{flow_list, quoted};
use crate::tls::{Certificate, ClientTls, Clients, EXPIRES_SOON, Files, Identity, until_words};

/// The files of a configured certificate.
#[must_use]
pub fn certificate_files(keys: &CertificateKeys) -> Option<Files> {
    Some(Files { chain: keys.chain.clone()?, key: keys.key.clone()? })
}

/// A warning where nothing that is needed to trust other hosts, or to be trusted by them, can be read.
pub(super) fn check_outbound(
    service: &ServiceConfig,
    secrets: &Secrets,
    out: &mut Vec<Diagnostic>,
) {
    let mut warn = |diagnostic: Diagnostic, key: &str, label: &str| {
        out.push(match service.origins.source() {
            Some(source) => diagnostic.at(source, service.origins.span(key), label),
            None => diagnostic,
        });
    };
    // What the system trusts can change at any time, and reading all of it takes long.
    if service.tls.trust != Trust::System
        && let Some(why) = ClientTls::new(&service.tls).trouble()
    {
        let diagnostic = Diagnostic::warning("W0441", format!("nobody is trusted: {why}"))
            .help("mail for hosts that must prove who they are waits until that is mended");
        warn(diagnostic, "tls.trust", "these authorities");
    }
    for (name, keys) in &service.smart_hosts {
        let Some(place) = &keys.certificate else { continue };
        let found = match secrets.read_lines(place) {
            // Credentials are there only where the service manager starts a program with them.
            Err(SecretError::NoCredentials(_)) => continue,
            Err(error) => Err(error.to_string()),
            Ok(text) => Identity::from_pem(&text).map_err(|error| error.to_string()),
        };
        if let Err(why) = found {
            let title = format!("the certificate for the smart host {name}: {why}");
            let diagnostic = Diagnostic::warning("W0442", title)
                .help("mail for the smart host waits until that is mended");
            warn(diagnostic, &format!("smart_hosts.{name}.certificate"), "kept here");
        }
    }
}

/// A warning for each certificate that cannot be used, or not for long.
pub(super) fn check(service: &ServiceConfig, now: Timestamp, out: &mut Vec<Diagnostic>) {
    for (name, keys) in &service.tls.certificates.0 {
        let Some(files) = certificate_files(keys) else { continue };
        let found = match Certificate::read(&files) {
            Ok(found) if found.facts.not_after > now.after(EXPIRES_SOON) => continue,
            Ok(found) => {
                let title = format!("certificate {name} {}", until_words(&found.facts, now));
                Diagnostic::warning("W0471", title).help("put a new one in the place of its files")
            }
            Err(error) => Diagnostic::warning("W0470", format!("certificate {name}: {error}"))
                .help("until that is mended the old one is shown, or none"),
        };
        out.push(at(found, service, name));
    }
}

/// Warnings for each server whose clients' issuers, or their lists of revoked certificates, are not as
/// they should be.
pub(super) fn check_clients<'s>(
    servers: impl Iterator<Item = &'s ServerConfig>,
    now: Timestamp,
    out: &mut Vec<Diagnostic>,
) {
    for config in servers {
        let keys = &config.access.certificates;
        let Some(clients) = Clients::new(keys) else { continue };
        let at = |diagnostic: Diagnostic, key: &str, label: &str| match config.origins.source() {
            Some(source) => diagnostic.at(source, config.origins.span(key), label),
            None => diagnostic,
        };
        let old = clients.old_lists(now);
        for old in old.iter().flatten() {
            let diagnostic =
                Diagnostic::warning("W0477", old).help("fetch it from its issuer again");
            out.push(at(diagnostic, "access.certificates.crl", "one of these lists"));
        }
        // What the system trusts can change at any time, and reading all of it takes long.
        let trouble = match (old, &keys.trust) {
            (Err(why), _) => Some((why, "access.certificates.crl", "these lists")),
            (Ok(_), None | Some(Trust::System)) => None,
            (Ok(_), Some(_)) => {
                clients.trouble().map(|why| (why, "access.certificates.trust", "these issuers"))
            }
        };
        let Some((why, key, label)) = trouble else { continue };
        let diagnostic =
            Diagnostic::warning("W0475", format!("no issuer vouches for clients: {why}"))
                .help("until that is mended only certificates that are listed are good");
        out.push(at(diagnostic, key, label));
    }
}

fn at(diagnostic: Diagnostic, service: &ServiceConfig, name: &CertificateName) -> Diagnostic {
    match service.origins.source() {
        Some(source) => {
            let span = service.origins.span(&format!("tls.certificates.{name}.chain"));
            diagnostic.at(source, span, "this certificate")
        }
        None => diagnostic,
    }
}

/// A certificate that is to be asked of an authority.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateWish {
    /// The names that it is for.
    pub hosts: Vec<Domain>,
    /// Where the authority may write to, if that is to change.
    pub email: Option<Mailbox>,
    /// The authority's directory, if that is to change.
    pub directory: Option<Endpoint>,
}

impl Editor {
    /// Has a certificate asked for.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn request_certificate(
        &self,
        name: &CertificateName,
        wish: &CertificateWish,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let mut new = open.before.files.clone();
        let (path, text) = &new.service;
        let hosts: Vec<String> = wish.hosts.iter().map(Domain::to_string).collect();
        let own = format!("{{acme: {}}}", flow_list(&hosts));
        let mut edits = vec![(format!("tls.certificates.{name}"), own)];
        let authority = [
            ("email", wish.email.as_ref().map(ToString::to_string)),
            ("directory", wish.directory.as_ref().map(ToString::to_string)),
        ];
        for (key, value) in authority {
            edits.extend(value.map(|value| (format!("tls.acme.{key}"), quoted(&value))));
        }
        new.service.1 = self.edit_file(path, text, |text| {
            let mut text = text.to_owned();
            for (key, value) in &edits {
                text = edit::set(&text, key, value)?;
            }
            Ok(text)
        })?;
        self.validate(open, new)
    }

    /// Names the files of a certificate.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn set_certificate(
        &self,
        name: &CertificateName,
        files: &Files,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let mut new = open.before.files.clone();
        let (path, text) = &new.service;
        let own = format!("tls.certificates.{name}");
        let word = |path: &Path| quoted(&path.display().to_string());
        let value = format!("{{chain: {}, key: {}}}", word(&files.chain), word(&files.key));
        new.service.1 = self.edit_file(path, text, |text| Ok(edit::set(text, &own, &value)?))?;
        self.validate(open, new)
    }

    /// Takes a certificate out of the file.
    ///
    /// # Errors
    ///
    /// [`EditError`], also while somebody shows it; nothing was changed.
    pub fn remove_certificate(&self, name: &CertificateName) -> Result<Change, EditError> {
        let open = self.begin()?;
        if !open.before.service.tls.certificates.0.contains_key(name) {
            return Err(EditError::NoCertificate(name.clone()));
        }
        let mut new = open.before.files.clone();
        let (path, text) = &new.service;
        let own = format!("tls.certificates.{name}");
        new.service.1 = self.edit_file(path, text, |text| Ok(edit::unset(text, &own)?))?;
        self.validate(open, new)
    }
}
