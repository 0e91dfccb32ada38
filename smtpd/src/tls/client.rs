//! The side that calls: connections to other hosts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mailroot_common::address::{Domain, Host};
use mailroot_common::config::smart_hosts::Pin;
use mailroot_common::config::tls::{Tls, TlsVersion, Trust};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use smtpd_core::queue::outcome::{Protection, Verified};
use smtpd_core::route::dane::Association;
use smtpd_core::tls_report::FailureKind;
use tokio_rustls::TlsConnector;

use super::dane::Associated;
use super::verifier::{AnyCertificate, PinnedKey};
use crate::net::Stream;

static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];
/// The largest file of trusted authorities that is read.
const TRUST_OCTETS_MAX: u64 = 16 * 1024 * 1024;

/// What the other side must prove.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// Nothing: whoever answers is taken for the host.
    None,
    /// That somebody we trust knows it by this name.
    Name,
    /// That it has one of these keys.
    Key(&'a [Pin]),
    /// That one of these records speaks of it (RFC 7672); an authority may vouch for one of the names.
    Tlsa(&'a [Association], &'a [Domain]),
}

/// A connection under TLS.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub stream: Stream,
    /// How it is protected. Where no proof was wanted, a certificate that proves the name counts all the
    /// same.
    pub protection: Protection,
    /// What is wrong with the certificate, where no proof was wanted.
    pub flaw: Option<Flaw>,
}

/// What is wrong with the protection of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// What kind of failure it is to those who are told of it.
    pub kind: FailureKind,
    /// What it is, for people.
    pub text: String,
}

impl Flaw {
    fn of(error: &rustls::Error) -> Self {
        Self { kind: kind_of(error), text: words_of(error) }
    }
}

/// Why a connection did not come under TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed, or the certificate is not good.
    #[error("{}", words(.0))]
    Handshake(#[from] io::Error),
    /// Nobody can be trusted, so that nothing can be verified.
    #[error("no certificate can be verified: {0}")]
    Trust(Arc<str>),
    /// Our own certificate cannot be shown.
    #[error("our certificate cannot be used: {0}")]
    Identity(String),
    /// The host's name cannot stand in a certificate.
    #[error("{0} cannot be the name in a certificate")]
    Name(String),
}

impl TlsError {
    /// The same for those who are told of it.
    #[must_use]
    pub fn flaw(&self) -> Flaw {
        let kind = match self {
            Self::Handshake(error) => {
                of_handshake(error).map_or(FailureKind::ValidationFailure, kind_of)
            }
            Self::Trust(_) | Self::Identity(_) | Self::Name(_) => FailureKind::ValidationFailure,
        };
        Flaw { kind, text: self.to_string() }
    }
}

/// What connections to other hosts are made with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientTls {
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
    any: Arc<AnyCertificate>,
    known: Result<Arc<WebPkiServerVerifier>, Arc<str>>,
    unverified: Arc<ClientConfig>,
    verified: Result<Arc<ClientConfig>, Arc<str>>,
}

/// A certificate that we show, with its chain and key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads both from one text of PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::Identity`] with what is missing in it.
    pub fn from_pem(text: &str) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| TlsError::Identity("it has no certificate".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|_| TlsError::Identity("it has no key beside it".to_owned()))?;
        Ok(Self { chain, key })
    }
}

impl ClientTls {
    /// Reads the trusted authorities. If none can be read, connections that need no proof still
    /// work, and the others say why not.
    #[must_use]
    pub fn new(keys: &Tls) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = from_on(keys.min_version);
        let any = Arc::new(AnyCertificate::new(&provider));
        let known = roots(&keys.trust, "tls.trust").and_then(|roots| {
            let builder =
                WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
            builder.build().map_err(|error| error.to_string())
        });
        let known: Result<_, Arc<str>> = known.map_err(Into::into);
        let verified = known.clone().map(|known| Arc::new(client(&provider, versions, known)));
        Self {
            unverified: Arc::new(client(&provider, versions, Arc::clone(&any) as Arc<_>)),
            any,
            known,
            verified,
            provider,
            versions,
        }
    }

    /// The same, where another version is the oldest that is spoken.
    #[must_use]
    pub fn from_version(&self, oldest: TlsVersion) -> Self {
        let (provider, versions) = (&self.provider, from_on(oldest));
        let with = |verifier| Arc::new(client(provider, versions, verifier));
        let (any, known) = (Arc::clone(&self.any), self.known.clone());
        let (unverified, verified) =
            (with(any as Arc<_>), known.map(|known| with(known as Arc<_>)));
        Self { versions, unverified, verified, ..self.clone() }
    }

    /// Why no certificate can be verified, if that is so.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.verified.as_ref().err().map(|why| &**why)
    }

    /// Brings a connection to a host under TLS, and shows it who we are if it asks; the caller bounds
    /// the wait.
    ///
    /// # Errors
    ///
    /// [`TlsError`]; the connection is gone then.
    pub async fn secure(
        &self,
        stream: Stream,
        host: &Host,
        proof: Proof<'_>,
        identity: Option<Identity>,
    ) -> Result<Secured, TlsError> {
        let config = self.config(proof, identity)?;
        let name = match host {
            Host::Name(domain) => ServerName::try_from(domain.as_str().to_owned())
                .map_err(|_| TlsError::Name(domain.to_string()))?,
            Host::Address(address) => ServerName::IpAddress((*address).into()),
        };
        let secured = TlsConnector::from(config).connect(name.clone(), stream).await?;
        let session = secured.get_ref().1;
        let is_new = session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (verified, flaw) = match proof {
            Proof::Name => (Verified::Name, None),
            Proof::Key(_) => (Verified::Pin, None),
            Proof::Tlsa(..) => (Verified::Dane, None),
            Proof::None => match self.judge(session.peer_certificates(), &name) {
                Ok(()) => (Verified::Name, None),
                Err(flaw) => (Verified::No, Some(flaw)),
            },
        };
        let version = if is_new { "TLSv1.3" } else { "TLSv1.2" }.into();
        let protection = Protection { version, verified };
        Ok(Secured { stream: Stream::Tls(Box::new(secured.into())), protection, flaw })
    }

    /// What is wrong with a certificate that was taken without proof; the handshake has shown that the
    /// host has its key.
    fn judge(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
        name: &ServerName<'_>,
    ) -> Result<(), Flaw> {
        let unknown = |text: String| Flaw { kind: FailureKind::ValidationFailure, text };
        let known = self.known.as_ref().map_err(|why| unknown(why.to_string()))?;
        let Some((first, others)) = chain.and_then(<[_]>::split_first) else {
            return Err(unknown("the host shows no certificate".to_owned()));
        };
        let judged = known.verify_server_cert(first, others, name, &[], UnixTime::now());
        judged.map(drop).map_err(|error| Flaw::of(&error))
    }
}

impl ClientTls {
    fn config(
        &self,
        proof: Proof<'_>,
        identity: Option<Identity>,
    ) -> Result<Arc<ClientConfig>, TlsError> {
        let verifier: Arc<dyn ServerCertVerifier> = match (proof, &identity) {
            (Proof::None, None) => return Ok(Arc::clone(&self.unverified)),
            (Proof::Name, None) => return self.verified.clone().map_err(TlsError::Trust),
            (Proof::None, Some(_)) => Arc::clone(&self.any) as Arc<_>,
            (Proof::Name, Some(_)) => self.known.clone().map_err(TlsError::Trust)?,
            (Proof::Key(pins), _) => Arc::new(PinnedKey::new(&self.provider, pins.to_vec())),
            (Proof::Tlsa(associations, names), _) => {
                Arc::new(Associated::new(&self.provider, associations, names))
            }
        };
        let mut config = client(&self.provider, self.versions, verifier);
        if let Some(Identity { chain, key }) = identity {
            let certified = CertifiedKey::from_der(chain, key, &self.provider)
                .map_err(|error| TlsError::Identity(error.to_string()))?;
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        }
        Ok(Arc::new(config))
    }
}

/// A version and those that came after it.
const fn from_on(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match oldest {
        TlsVersion::V12 => BOTH,
        TlsVersion::V13 => NEWEST,
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ServerCertVerifier>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .expect("the provider speaks both versions");
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    // Mail is not the web: there is no protocol to agree on, and old hosts stumble over the list.
    config.alpn_protocols.clear();
    config
}

/// The authorities that a key names; the error says what to do.
pub(super) fn roots(trust: &Trust, key: &str) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = match trust {
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let why =
                    found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
                return Err(format!(
                    "this system trusts nobody{why}: install ca-certificates, or set {key}"
                ));
            }
            found.certs
        }
        Trust::File(path) => read(path, key)?,
    };
    let (taken, _) = store.add_parsable_certificates(found);
    if taken == 0 {
        return Err(format!("{key} holds no certificate that can be used"));
    }
    Ok(store)
}

fn read(path: &PathBuf, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let cannot =
        |error: &dyn std::fmt::Display| format!("{key}: cannot read {}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if size > TRUST_OCTETS_MAX {
        return Err(cannot(&"it is too large to be a list of certificates"));
    }
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| cannot(&error))?;
    certificates.collect::<Result<_, _>>().map_err(|error| cannot(&error))
}

/// What a handshake failed with, if the network did not.
fn of_handshake(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// What kind of failure an error is (RFC 8460 section 4.3).
fn kind_of(error: &rustls::Error) -> FailureKind {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                FailureKind::CertificateExpired
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                FailureKind::CertificateHostMismatch
            }
            _ => FailureKind::CertificateNotTrusted,
        },
        _ => FailureKind::ValidationFailure,
    }
}

/// What went wrong, as an administrator would say it.
fn words(error: &io::Error) -> String {
    match of_handshake(error) {
        Some(inner) => words_of(inner),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the host hung up during the handshake".to_owned()
        }
        None => error.to_string(),
    }
}

fn words_of(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, CertificateError, Error};
    match error {
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the host's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the host's certificate is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the host's certificate is for another name".to_owned()
            }
            // One that only calls itself by the name of somebody we trust is nobody either.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the host's certificate was signed by nobody we trust".to_owned()
            }
            CertificateError::ApplicationVerificationFailure => {
                "the host's key is none of those it is pinned to".to_owned()
            }
            CertificateError::Other(why) => why.0.to_string(),
            other => format!("the host's certificate is not good: {other}"),
        },
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the host speaks no version of TLS that we speak".to_owned()
        }
        Error::AlertReceived(alert) => format!("the host broke off the handshake: {alert:?}"),
        Error::InvalidMessage(_) => "the host does not speak TLS here".to_owned(),
        other => other.to_string(),
    }
}
