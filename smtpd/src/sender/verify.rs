//! Compares a signature with a public key (RFC 6376 section 3.3, RFC 8463 section 3, RFC 8301).

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey,
};
use smtpd_core::message::sign::Algorithm;
use smtpd_core::sender::dkim::{Key, Verified};

/// Whether a signature is of this key. By RSA keys under 1024 bits (RFC 8301 section 3.2) and over 8192
/// nothing is signed.
pub(super) fn verify(key: &Key, digest: &[u8; 32], signature: &[u8]) -> Verified {
    let compared = match key.algorithm {
        Algorithm::Ed25519Sha256 => {
            if key.public.len() != 32 {
                return Verified::BadKey;
            }
            UnparsedPublicKey::new(&ED25519, &key.public).verify(digest, signature)
        }
        Algorithm::RsaSha256 => {
            if PublicKey::from_der(&key.public).is_err() {
                return Verified::BadKey;
            }
            let rsa = &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;
            Digest::import_less_safe(digest, &SHA256).and_then(|digest| {
                UnparsedPublicKey::new(rsa, &key.public).verify_digest(&digest, signature)
            })
        }
    };
    match compared {
        Ok(()) => Verified::Holds,
        Err(_) => Verified::Differs,
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;

    use super::*;
    use crate::dkim::{KeyKind, SigningKey};

    /// The public key as a verifier reads it from the record.
    fn public(key: &SigningKey) -> Key {
        let text = key.record().unwrap();
        let encoded = text.rsplit("p=").next().unwrap();
        let octets = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded);
        Key::new(key.algorithm(), octets.unwrap())
    }

    #[test]
    fn signatures_of_our_own_keys_hold_and_others_do_not() {
        let sum = |text: &[u8]| <[u8; 32]>::try_from(digest(&SHA256, text).as_ref()).unwrap();
        for kind in [KeyKind::Ed25519, KeyKind::rsa(2048).unwrap()] {
            let (key, _) = SigningKey::generate(kind).unwrap();
            let signature = key.sign(b"text").unwrap();
            let key = public(&key);
            assert_eq!(verify(&key, &sum(b"text"), &signature), Verified::Holds, "{kind:?}");
            assert_eq!(verify(&key, &sum(b"other"), &signature), Verified::Differs);
            assert_eq!(verify(&key, &sum(b"text"), &signature[1..]), Verified::Differs);
            let cut = Key::new(key.algorithm, key.public[1..].to_vec());
            assert_eq!(verify(&cut, &sum(b"text"), &signature), Verified::BadKey);
        }
    }
}
