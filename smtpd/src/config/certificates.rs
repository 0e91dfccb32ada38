//! Certificates that clients are shown: what can be said of their files before anybody asks for them.

use mailroot_common::config::tls::{CertificateKeys, CertificateName};
use mailroot_common::config::{Diagnostic, ServiceConfig};
use mailroot_common::units::Timestamp;

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
