//! Certificates by the word of DNS (DANE, RFC 7671): what TLSA records speak of, and nothing else, is
//! trusted.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use mailroot_common::address::Domain;
use mailroot_common::units::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use smtpd_core::certificate::Facts;
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
        let is_authority = self.of(Usage::Authority).any(|it| speaks_of(it, first));
        if is_authority {
            // It vouches for itself, but not for another name nor for ever (RFC 7671 section 5.2).
            return self.vouches_for_itself(first, now);
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

    /// Whether the host's own certificate, of which a record speaks as of an authority, is for one of the
    /// names now. There is no signature to look at: the handshake shows that the host has its key.
    fn vouches_for_itself(&self, first: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let facts = Facts::read(first).ok_or(CertificateError::BadEncoding)?;
        let now = Timestamp::from_millis(now.as_secs().saturating_mul(1_000));
        if now > facts.not_after {
            return Err(CertificateError::Expired.into());
        }
        if now < facts.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        let parsed = ParsedCertificate::try_from(first)?;
        let is_for = self.names.iter().any(|name| verify_server_name(&parsed, name).is_ok());
        if is_for { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use smtpd_core::route::dane::{Demand, Tlsa};

    use super::*;

    const NOW: UnixTime = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));

    /// A certificate of its own, which calls itself an authority or not.
    fn own(name: &str, is_ca: bool) -> (CertificateDer<'static>, CertificateParams, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        (params.self_signed(&key).unwrap().der().clone(), params, key)
    }

    fn told(usage: u8, certificate: &CertificateDer<'_>) -> Vec<Association> {
        let data = digest(&SHA256, certificate).as_ref().to_vec();
        match Demand::of(vec![Tlsa { usage, selector: 0, matching: 1, data }]) {
            Some(Demand::Proof(associations)) => associations,
            other => panic!("{other:?}"),
        }
    }

    fn check(
        associations: &[Association],
        chain: &[CertificateDer<'_>],
        names: &[&str],
        now: UnixTime,
    ) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let names: Vec<Domain> = names.iter().map(|name| Domain::parse(name).unwrap()).collect();
        let (first, others) = chain.split_first().unwrap();
        Associated::new(&provider, associations, &names).check(first, others, now)
    }

    #[test]
    fn a_certificate_that_signed_itself_may_be_the_authority_for_its_own_name() {
        for is_ca in [false, true] {
            let (certificate, ..) = own("mx.a.test", is_ca);
            let (associations, chain) = (told(2, &certificate), [certificate.clone()]);
            let names = ["b.test", "mx.a.test"];
            assert_eq!(check(&associations, &chain, &names, NOW), Ok(()), "{is_ca}");
            let other = check(&associations, &chain, &["mx.b.test"], NOW);
            assert_eq!(other, Err(CertificateError::NotValidForName.into()));
            let later = UnixTime::since_unix_epoch(std::time::Duration::from_secs(99_000_000_000));
            let expired = check(&associations, &chain, &names, later);
            assert_eq!(expired, Err(CertificateError::Expired.into()));
            let (stranger, ..) = own("mx.a.test", is_ca);
            assert!(check(&associations, &[stranger], &names, NOW).is_err());
        }
    }

    #[test]
    fn an_authority_that_signed_itself_and_is_shown_vouches_for_the_host() {
        let (authority, params, key) = own("authority.test", true);
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["mx.a.test".to_owned()]).unwrap();
        let host = params.signed_by(&key, &issuer).unwrap().der().clone();
        let associations = told(2, &authority);
        let chain = [host.clone(), authority.clone()];
        assert_eq!(check(&associations, &chain, &["mx.a.test"], NOW), Ok(()));
        assert!(check(&associations, &chain, &["mx.b.test"], NOW).is_err());
        // Only its digest is known: it must be shown.
        assert!(check(&associations, &[host], &["mx.a.test"], NOW).is_err());
        let (stranger, ..) = own("mx.a.test", false);
        assert!(check(&associations, &[stranger, authority], &["mx.a.test"], NOW).is_err());
    }
}
