//! Certificates by the word of DNS (DANE, RFC 7671): what TLSA records speak of, and nothing else, is
//! trusted.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use mailroot_common::address::Domain;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use smtpd_core::route::dane::{Association, Matching, Selector, Usage};

/// Takes certificates that one of these records speaks of.
#[derive(Debug)]
pub(super) struct Associated {
    pub(super) provider: Arc<CryptoProvider>,
    associations: Vec<Association>,
    /// The names that a certificate may be for, where an authority vouches.
    names: Vec<ServerName<'static>>,
}

/// No record speaks of it.
#[derive(Debug, thiserror::Error)]
#[error("the host's certificate is none of those that its TLSA records speak of")]
struct NotAssociated;

impl Associated {
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        associations: &[Association],
        names: &[Domain],
    ) -> Self {
        let name = |name: &Domain| ServerName::try_from(name.as_str().to_owned()).ok();
        Self {
            provider: Arc::clone(provider),
            associations: associations.to_vec(),
            names: names.iter().filter_map(name).collect(),
        }
    }

    /// Whether one of the records speaks of the certificate, or of an authority that vouches for it.
    pub(super) fn check(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let by_itself = self.of(Usage::Host).any(|association| speaks_of(association, first));
        if by_itself {
            // Neither its name nor its time counts (RFC 7672 section 3.1.1).
            return Ok(());
        }
        let mut anchors = RootCertStore::empty();
        for association in self.of(Usage::Authority) {
            let shown = others.iter().filter(|it| speaks_of(association, it)).cloned();
            // A whole certificate in a record need not be shown as well.
            let told = (association.selector, association.matching);
            let told = (told == (Selector::Certificate, Matching::Whole))
                .then(|| CertificateDer::from_slice(&association.data));
            for anchor in shown.chain(told) {
                // One that cannot be read vouches for nothing.
                let _unreadable = anchors.add(anchor.into_owned());
            }
        }
        if anchors.is_empty() {
            let why = OtherError(Arc::new(NotAssociated));
            return Err(CertificateError::Other(why).into());
        }
        self.vouched(anchors, (first, others), now)
    }

    /// Whether the authorities vouch for the certificate under one of the names.
    fn vouched(
        &self,
        anchors: RootCertStore,
        (first, others): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
    ) -> Result<(), Error> {
        let provider = Arc::clone(&self.provider);
        let builder = WebPkiServerVerifier::builder_with_provider(anchors.into(), provider);
        let known = builder.build().map_err(|error| Error::General(error.to_string()))?;
        let mut verdict = Err(CertificateError::NotValidForName.into());
        for name in &self.names {
            verdict = known.verify_server_cert(first, others, name, &[], now).map(drop);
            if verdict.is_ok() {
                break;
            }
        }
        verdict
    }

    fn of(&self, usage: Usage) -> impl Iterator<Item = &Association> {
        self.associations.iter().filter(move |association| association.usage == usage)
    }
}

fn speaks_of(association: &Association, certificate: &CertificateDer<'_>) -> bool {
    let told = |octets: &[u8]| match association.matching {
        Matching::Whole => association.data == octets,
        Matching::Sha256 => association.data == digest(&SHA256, octets).as_ref(),
        Matching::Sha512 => association.data == digest(&SHA512, octets).as_ref(),
    };
    match association.selector {
        Selector::Certificate => told(certificate),
        Selector::Key => ParsedCertificate::try_from(certificate)
            .is_ok_and(|parsed| told(parsed.subject_public_key_info().as_ref())),
    }
}
