//! A word that the application signs with the key of its certificate, in place of a secret (RFC 7523, and
//! Microsoft's page on certificate credentials): a JWT under PS256, good for a few minutes.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SystemRandom, fill};
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mailroot_common::config::oauth::TokenSource;
use mailroot_common::units::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use serde_json::json;
use zeroize::Zeroizing;

/// How long it is good. A clock may be off by as much in the other direction.
const SECONDS: u64 = 5 * 60;

/// Why nothing can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AssertionError {
    /// The text has no certificate.
    #[error("client_certificate holds no certificate of PEM")]
    NoCertificate,
    /// The text has no key.
    #[error("client_certificate holds no private key of PEM")]
    NoKey,
    /// It is not one that can be used.
    #[error("the key in client_certificate is not an RSA key of 2048 bits or more")]
    Key,
    /// They do not belong together.
    #[error("the key in client_certificate is not that of its certificate")]
    NoPair,
    /// The system gave no randomness.
    #[error("nothing can be signed now")]
    Sign,
}

/// Signs that the application asks the endpoint now.
pub(super) fn assertion(
    pem: &str,
    source: &TokenSource,
    now: Timestamp,
) -> Result<Zeroizing<String>, AssertionError> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| AssertionError::NoCertificate)?;
    let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()) {
        Ok(PrivateKeyDer::Pkcs8(key)) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
        Ok(PrivateKeyDer::Pkcs1(key)) => KeyPair::from_der(key.secret_pkcs1_der()),
        Ok(_) => return Err(AssertionError::Key),
        Err(_) => return Err(AssertionError::NoKey),
    };
    let key = key.map_err(|_| AssertionError::Key)?;
    let parsed =
        ParsedCertificate::try_from(&certificate).map_err(|_| AssertionError::NoCertificate)?;
    // The public key is the end of what the certificate says of it (RFC 5280 section 4.1.2.7).
    if !parsed.subject_public_key_info().ends_with(key.public_key().as_ref()) {
        return Err(AssertionError::NoPair);
    }
    let mut id = [0; 16];
    fill(&mut id).map_err(|_| AssertionError::Sign)?;
    let encode = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let thumbprint = encode(digest(&SHA256, &certificate).as_ref());
    let head = json!({"alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint});
    let seconds = now.as_millis() / 1_000;
    let claims = json!({
        "aud": source.token_endpoint.to_string(),
        "iss": source.client_id,
        "sub": source.client_id,
        "jti": encode(&id),
        "nbf": seconds.saturating_sub(SECONDS),
        "exp": seconds + SECONDS,
    });
    let [head, claims] = [head, claims].map(|part| encode(part.to_string().as_bytes()));
    let mut word = Zeroizing::new(format!("{head}.{claims}"));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), word.as_bytes(), &mut signature)
        .map_err(|_| AssertionError::Sign)?;
    word.push('.');
    word.push_str(&encode(&signature));
    Ok(word)
}
