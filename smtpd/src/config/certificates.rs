//! Certificates that clients are shown: what can be said of their files before anybody asks for them.

use std::path::Path;

use mailroot_common::config::tls::{CertificateKeys, CertificateName};
use mailroot_common::config::{Diagnostic, ServiceConfig};
use mailroot_common::units::Timestamp;

use super::apply::{Change, Editor};
use super::edit;
use super::error::EditError;
use super::spec::quoted;
use crate::tls::{Certificate, EXPIRES_SOON, Files, until_words};

/// The files of a configured certificate.
#[must_use]
pub fn certificate_files(keys: &CertificateKeys) -> Option<Files> {
    Some(Files { chain: keys.chain.clone()?, key: keys.key.clone()? })
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

fn at(diagnostic: Diagnostic, service: &ServiceConfig, name: &CertificateName) -> Diagnostic {
    match service.origins.source() {
        Some(source) => {
            let span = service.origins.span(&format!("tls.certificates.{name}.chain"));
            diagnostic.at(source, span, "this certificate")
        }
        None => diagnostic,
    }
}

impl Editor {
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
