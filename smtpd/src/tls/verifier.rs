//! Ways to look at a certificate that ask none of the authorities of the web. Signatures of the
//! handshake are checked in all, so that the other side has the key it shows.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use mailroot_common::config::smart_hosts::Pin;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::dane::Associated;

/// Takes any certificate.
#[derive(Debug)]
pub(super) struct AnyCertificate(Arc<CryptoProvider>);

impl AnyCertificate {
    pub(super) fn new(provider: &Arc<CryptoProvider>) -> Self {
        Self(Arc::clone(provider))
    }
}

/// Takes any certificate with one of these keys.
#[derive(Debug)]
pub(super) struct PinnedKey {
    provider: Arc<CryptoProvider>,
    pins: Vec<Pin>,
}

impl PinnedKey {
    pub(super) fn new(provider: &Arc<CryptoProvider>, pins: Vec<Pin>) -> Self {
        Self { provider: Arc::clone(provider), pins }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let found = digest(&SHA256, parsed.subject_public_key_info().as_ref());
        if self.pins.iter().any(|pin| pin.0 == found.as_ref()) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }
}

/// The parts that all have in common.
macro_rules! without_authority {
    ($Verifier:ty, $provider:expr, $check:expr) => {
        impl ServerCertVerifier for $Verifier {
            fn verify_server_cert(
                &self,
                end_entity: &CertificateDer<'_>,
                intermediates: &[CertificateDer<'_>],
                _server_name: &ServerName<'_>,
                _ocsp_response: &[u8],
                now: UnixTime,
            ) -> Result<ServerCertVerified, Error> {
                $check(self, end_entity, intermediates, now)?;
                Ok(ServerCertVerified::assertion())
            }

            fn verify_tls12_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                let algorithms = &$provider(self).signature_verification_algorithms;
                verify_tls12_signature(message, cert, dss, algorithms)
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, Error> {
                let algorithms = &$provider(self).signature_verification_algorithms;
                verify_tls13_signature(message, cert, dss, algorithms)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                $provider(self).signature_verification_algorithms.supported_schemes()
            }
        }
    };
}

without_authority!(
    AnyCertificate,
    |it: &'_ Self| Arc::clone(&it.0),
    |_: &Self, _: &_, _: &_, _| { Ok::<(), Error>(()) }
);
without_authority!(
    PinnedKey,
    |it: &'_ Self| Arc::clone(&it.provider),
    |it: &Self, der: &_, _: &_, _| it.check(der)
);
without_authority!(
    Associated,
    |it: &'_ Self| Arc::clone(&it.provider),
    |it: &Self, first: &_, others: &_, now| it.check(first, others, now)
);
