//! `/v1/certificates`: certificates that clients are shown.

use axum::body::Bytes;
use mailroot_common::config::tls::CertificateName;
use mailroot_common::control::{Certificate, Edited, NewCertificate};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::extract::Path;
use super::terms::Wanted;
use crate::service::CertificateSpec;

/// The most names of a certificate that is made here.
const HOSTS_MAX: usize = 100;

/// All of them.
pub(super) async fn list(app: App) -> Answer<Vec<Certificate>> {
    object(app.service.certificates())
}

/// A new one, or another in its place.
pub(super) async fn put(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
    body: Bytes,
) -> Answer<Edited> {
    let name = read_certificate(&name)?;
    let spec = read_spec(read(&body)?)?;
    object(app.service.put_certificate(&name, spec, &asked).await?)
}

/// The end of one.
pub(super) async fn remove(
    app: App,
    Path(name): Path<String>,
    Wanted(asked): Wanted,
) -> Answer<Edited> {
    object(app.service.remove_certificate(&read_certificate(&name)?, &asked).await?)
}

fn read_spec(wish: NewCertificate) -> Result<CertificateSpec, Refused> {
    match (wish.chain, wish.key, wish.hosts) {
        (Some(chain), Some(key), hosts) if hosts.is_empty() => {
            Ok(CertificateSpec::Given { chain, key: key.into() })
        }
        (None, None, hosts) if !hosts.is_empty() && hosts.len() <= HOSTS_MAX => {
            Ok(CertificateSpec::SelfSigned(hosts))
        }
        _ => Err(usage("give a chain and its key, or hosts, and not both")),
    }
}

fn read_certificate(text: &str) -> Result<CertificateName, Refused> {
    CertificateName::parse(text).filter(|name| !name.is_auto()).ok_or_else(|| {
        usage(format!(
            "{text:?} cannot name a certificate: use at most 32 of a-z, 0-9, - and _, not auto"
        ))
    })
}
