//! Private keys that mail is signed with: read, made, and put to use (RFC 6376, RFC 8463).
//!
//! In: a key in PEM as PKCS#8. Out: signatures, and the text that DNS is to publish. RSA keys under
//! 2048 bits are refused: RFC 8301 section 3.2 has verifiers take them for nothing before long.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use smtpd_core::message::sign::{Algorithm, record_text};
use zeroize::Zeroizing;

/// Why a key cannot be used. Never says what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another form, or none.
    #[error(
        "it is not a private key in PEM as PKCS#8 (BEGIN PRIVATE KEY); \
         openssl pkcs8 -topk8 -nocrypt converts others"
    )]
    Form,
    /// Another kind, or a small or damaged key.
    #[error("it is neither an RSA key of 2048 to 8192 bits nor an Ed25519 key")]
    Kind,
    /// The library failed.
    #[error("it cannot be used")]
    Failed,
}

/// What kind of key to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA of this size.
    Rsa(KeySize),
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// RSA with so many bits; nothing for a size that is not made here.
    #[must_use]
    pub fn rsa(bits: u32) -> Option<Self> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => return None,
        };
        Some(Self::Rsa(size))
    }
}

/// A private key, ready to sign.
pub enum SigningKey {
    /// RSA.
    Rsa(rsa::KeyPair),
    /// Ed25519.
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.algorithm()).finish()
    }
}

impl SigningKey {
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// [`KeyError`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Form)?;
        let der = der.secret_pkcs8_der();
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(key));
        }
        rsa::KeyPair::from_pkcs8(der).map(Self::Rsa).map_err(|_| KeyError::Kind)
    }

    /// Makes a new key, and its PEM. An RSA key takes up to some seconds.
    ///
    /// # Errors
    ///
    /// [`KeyError::Failed`].
    pub fn generate(kind: KeyKind) -> Result<(Self, Zeroizing<String>), KeyError> {
        let failed = |_| KeyError::Failed;
        Ok(match kind {
            KeyKind::Rsa(size) => {
                let key = rsa::KeyPair::generate(size).map_err(failed)?;
                let der: Pkcs8V1Der<'_> = key.as_der().map_err(failed)?;
                let pem = pem(der.as_ref());
                (Self::Rsa(key), pem)
            }
            KeyKind::Ed25519 => {
                let key = Ed25519KeyPair::generate().map_err(failed)?;
                let der = key.to_pkcs8v1().map_err(failed)?;
                let pem = pem(der.as_ref());
                (Self::Ed25519(key), pem)
            }
        })
    }

    /// How it signs.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(_) => Algorithm::RsaSha256,
            Self::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Its size in bits.
    #[must_use]
    pub fn bits(&self) -> usize {
        match self {
            Self::Rsa(key) => key.public_modulus_len() * 8,
            Self::Ed25519(_) => 256,
        }
    }

    /// The text of the TXT record that publishes it.
    ///
    /// # Errors
    ///
    /// [`KeyError::Failed`].
    pub fn record(&self) -> Result<String, KeyError> {
        Ok(match self {
            Self::Rsa(key) => {
                let der: PublicKeyX509Der<'_> =
                    key.public_key().as_der().map_err(|_| KeyError::Failed)?;
                record_text(self.algorithm(), der.as_ref())
            }
            Self::Ed25519(key) => record_text(self.algorithm(), key.public_key().as_ref()),
        })
    }

    /// Signs these octets: RSA over their SHA-256 as the scheme has it, Ed25519 over the 32 octets of it
    /// (RFC 8463 section 3).
    ///
    /// # Errors
    ///
    /// [`KeyError::Failed`].
    pub fn sign(&self, octets: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), octets, &mut signature)
                    .map_err(|_| KeyError::Failed)?;
                Ok(signature)
            }
            Self::Ed25519(key) => Ok(key.sign(digest(&SHA256, octets).as_ref()).as_ref().to_vec()),
        }
    }
}

/// The PEM of a key (RFC 7468 section 10).
fn pem(der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    // All of the room at once: a text that grows leaves copies of itself behind.
    let mut out = Zeroizing::new(String::with_capacity(text.len() + text.len() / 64 + 80));
    out.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = behind;
    }
    out.push_str("-----END PRIVATE KEY-----\n");
    out
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;

    /// RFC 8463 appendix A.1, as PKCS#8 (RFC 8410 section 7).
    fn brisbane() -> SigningKey {
        let seed = STANDARD.decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
        let head = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        SigningKey::from_pem(&pem(&[&head[..], &seed].concat())).unwrap()
    }

    #[test]
    fn the_example_of_the_standard() {
        let key = brisbane();
        let record = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        assert_eq!(key.record().unwrap(), record);
        // RFC 8463 appendix A.3 in relaxed form.
        let signed = "from:Joe SixPack <joe@football.example.com>\r\n\
            to:Suzie Q <suzie@shopping.example.net>\r\n\
            subject:Is dinner ready?\r\n\
            date:Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
            message-id:<20030712040037.46341.5F8J@football.example.com>\r\n\
            dkim-signature:v=1; a=ed25519-sha256; c=relaxed/relaxed; d=football.example.com; \
            i=@football.example.com; q=dns/txt; s=brisbane; t=1528637909; \
            h=from : to : subject : date : message-id : from : subject : date; \
            bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=; b=";
        let signature = STANDARD.encode(key.sign(signed.as_bytes()).unwrap());
        let expected = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\
                        Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==";
        assert_eq!(signature, expected);
    }

    fn verify(
        algorithm: &'static dyn VerificationAlgorithm,
        public: &[u8],
        message: &[u8],
        signature: &[u8],
    ) {
        UnparsedPublicKey::new(algorithm, public).verify(message, signature).unwrap();
    }

    #[test]
    fn keys_that_are_made_are_read_back_and_sign() {
        for (kind, bits) in [(KeyKind::Ed25519, 256), (KeyKind::rsa(2048).unwrap(), 2048)] {
            let (made, pem) = SigningKey::generate(kind).unwrap();
            assert!(pem.lines().all(|line| line.len() <= 64), "lines are of the usual length");
            let read = SigningKey::from_pem(&pem).unwrap();
            assert_eq!((made.record(), made.bits()), (read.record(), bits));
            let signature = read.sign(b"octets").unwrap();
            let record = read.record().unwrap();
            let public = STANDARD.decode(record.split_once("p=").unwrap().1).unwrap();
            match read.algorithm() {
                Algorithm::RsaSha256 => {
                    verify(&RSA_PKCS1_2048_8192_SHA256, &public, b"octets", &signature);
                }
                Algorithm::Ed25519Sha256 => {
                    let digest = digest(&SHA256, b"octets");
                    verify(&ED25519, &public, digest.as_ref(), &signature);
                }
            }
        }
    }

    #[test]
    fn what_is_no_such_key_is_refused_and_not_quoted() {
        for (text, error) in [
            ("", KeyError::Form),
            ("secret words", KeyError::Form),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
                KeyError::Form,
            ),
            (&pem(b"damaged"), KeyError::Kind),
        ] {
            assert_eq!(SigningKey::from_pem(text).unwrap_err(), error, "{text}");
        }
        assert_eq!(KeyKind::rsa(1024), None);
        assert!(!format!("{:?}", brisbane()).contains("nWGx"));
    }
}
