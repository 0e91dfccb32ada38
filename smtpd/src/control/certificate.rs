//! `/v1/certificates`: certificates that clients are shown.

use axum::body::Bytes;
use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::oauth::Endpoint;
use mailroot_common::config::tls::CertificateName;
use mailroot_common::control::{AcmeWish, Certificate, Edited, NewCertificate};

use super::App;
use super::answer::{Answer, Refused, object, read, usage};
use super::extract::Path;
use super::terms::Wanted;
use crate::config::CertificateWish;
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
    let mut wish: NewCertificate = read(&body)?;
    if let Some(acme) = wish.acme.take() {
        let mut wish = read_wish(&wish, &acme)?;
        if wish.hosts.is_empty() {
            wish.hosts.push(app.service.hostname());
        }
        return object(app.service.request_certificate(&name, &wish, &asked).await?);
    }
    object(app.service.put_certificate(&name, read_spec(wish)?, &asked).await?)
}

/// Asks for one anew, whether it is due or not.
pub(super) async fn renew(app: App, Path(name): Path<String>) -> Answer<Certificate> {
    object(app.service.renew_certificate(&read_certificate(&name)?)?)
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

fn read_wish(wish: &NewCertificate, acme: &AcmeWish) -> Result<CertificateWish, Refused> {
    if wish.chain.is_some() || wish.key.is_some() {
        return Err(usage("a certificate that is asked for has no files"));
    }
    let host = |text: &String| {
        Domain::parse(text).map_err(|error| usage(format!("{text:?} is no host: {error}")))
    };
    let hosts: Result<Vec<Domain>, Refused> = wish.hosts.iter().map(host).collect();
    let email = acme.email.as_ref().map(|text| {
        Mailbox::parse(text).map_err(|error| usage(format!("{text:?} is no address: {error}")))
    });
    let directory = acme.directory.as_ref().map(|text| {
        let hint = "write https://host/path";
        Endpoint::parse(text).ok_or_else(|| usage(format!("{text:?} is no directory: {hint}")))
    });
    Ok(CertificateWish {
        hosts: hosts?,
        email: email.transpose()?,
        directory: directory.transpose()?,
    })
}

fn read_certificate(text: &str) -> Result<CertificateName, Refused> {
    CertificateName::parse(text).filter(|name| !name.is_auto()).ok_or_else(|| {
        usage(format!(
            "{text:?} cannot name a certificate: use at most 32 of a-z, 0-9, - and _, not auto"
        ))
    })
}
