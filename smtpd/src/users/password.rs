//! Passwords as they are kept: never themselves, only what they are told by.

use std::num::NonZeroU32;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, pbkdf2, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use mailroot_common::password::{DIGEST_OCTETS, SALT_OCTETS, digest, kept};
use serde::{Deserialize, Serialize};
use smtpd_core::smtp::auth::Verifier;
use zeroize::Zeroizing;

/// Passes of PBKDF2 for SCRAM; RFC 7677 asks for 4096 at least, and clients do them as well.
const ITERATIONS: u32 = 20_000;

/// What a password is told by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Argon2id, in the form of PHC.
    argon2id: String,
    scram: KeptScram,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptScram {
    salt: String,
    iterations: u32,
    stored_key: String,
    server_key: String,
}

/// Why no password can be kept.
#[derive(Debug, thiserror::Error)]
#[error("the password cannot be kept: {0}")]
pub struct Unkeepable(&'static str);

impl Kept {
    /// Takes time and memory on purpose.
    pub(super) fn of(password: &str) -> Result<Self, Unkeepable> {
        let argon2id = kept(password, &random::<SALT_OCTETS>()?)
            .ok_or(Unkeepable("the system has no memory for it"))?;
        let encode = |octets: &[u8]| STANDARD_NO_PAD.encode(octets);
        let salt = random::<SALT_OCTETS>()?;
        let mut salted = Zeroizing::new([0; DIGEST_OCTETS]);
        let iterations = NonZeroU32::new(ITERATIONS).unwrap_or(NonZeroU32::MIN);
        let kind = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(kind, iterations, &salt, password.as_bytes(), &mut *salted);
        let verifier = Verifier::of(&salted, salt.to_vec(), ITERATIONS);
        let scram = KeptScram {
            salt: encode(&verifier.salt),
            iterations: verifier.iterations,
            stored_key: encode(&verifier.stored_key),
            server_key: encode(&verifier.server_key),
        };
        Ok(Self { argon2id, scram })
    }

    /// Whether this is the password. Takes as long for a wrong one.
    pub(super) fn is(&self, password: &str) -> bool {
        let found = self.read().and_then(|(memory, passes, salt, expected)| {
            let found = digest(password, &salt, memory, passes)?;
            verify_slices_are_equal(&*found, &expected).ok()
        });
        found.is_some()
    }

    fn read(&self) -> Option<(u32, u32, Vec<u8>, Vec<u8>)> {
        let mut parts = self.argon2id.strip_prefix("$argon2id$v=19$")?.split('$');
        let mut costs = parts.next()?.split(',');
        let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse().ok();
        let (memory, passes) = (cost("m=")?, cost("t=")?);
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).ok();
        Some((memory, passes, decode(parts.next()?)?, decode(parts.next()?)?))
    }

    /// What SCRAM tells it by.
    pub(super) fn verifier(&self) -> Option<Verifier> {
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).ok();
        let KeptScram { salt, iterations, stored_key, server_key } = &self.scram;
        Some(Verifier {
            salt: decode(salt)?,
            iterations: *iterations,
            stored_key: decode(stored_key)?.try_into().ok()?,
            server_key: decode(server_key)?.try_into().ok()?,
        })
    }
}

pub(super) fn random<const OCTETS: usize>() -> Result<[u8; OCTETS], Unkeepable> {
    let mut octets = [0; OCTETS];
    rand::fill(&mut octets).map_err(|_| Unkeepable("the system has no randomness"))?;
    Ok(octets)
}

/// Octets of the key from which decoys follow.
pub(super) const KEY_OCTETS: usize = 32;

/// What stands for a user who is not there, so that nobody can tell.
#[derive(Debug)]
pub(super) struct Decoy {
    kept: Kept,
    key: hmac::Key,
}

impl Decoy {
    /// One whose verifiers follow from this key.
    pub(super) fn new(key: &[u8; KEY_OCTETS]) -> Result<Self, Unkeepable> {
        let kept = Kept::of(&STANDARD_NO_PAD.encode(random::<32>()?))?;
        Ok(Self { kept, key: hmac::Key::new(hmac::HMAC_SHA256, key) })
    }

    /// Takes as long as a look at a user's password.
    pub(super) fn waste_time(&self, password: &str) {
        let _never = self.kept.is(password);
    }

    /// A verifier that no proof fits, with the same salt each time the same name is asked for.
    pub(super) fn verifier(&self, name: &str) -> Verifier {
        let salt = hmac::sign(&self.key, name.as_bytes());
        let nobody = hmac::sign(&self.key, b"\0");
        let keys: [u8; 32] = nobody.as_ref().try_into().unwrap_or([0; 32]);
        Verifier {
            salt: salt.as_ref().get(..SALT_OCTETS).unwrap_or_default().to_vec(),
            iterations: ITERATIONS,
            stored_key: keys,
            server_key: keys,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_told_from_others_and_is_not_kept_itself() {
        let kept = Kept::of("correct horse").unwrap();
        assert!(kept.is("correct horse"));
        assert!(!kept.is("correct horsE") && !kept.is(""));
        let text = serde_json::to_string(&kept).unwrap();
        assert!(!text.contains("correct"), "{text}");
        let again: Kept = serde_json::from_str(&text).unwrap();
        assert!(again.is("correct horse") && again.verifier() == kept.verifier());
        assert_ne!(Kept::of("correct horse").unwrap(), kept, "salts differ");
        assert!(kept.verifier().is_some());
    }

    #[test]
    fn a_decoy_is_the_same_each_time_and_another_for_each_name() {
        let decoy = Decoy::new(&[1; KEY_OCTETS]).unwrap();
        assert_eq!(decoy.verifier("eve"), decoy.verifier("eve"));
        assert_ne!(decoy.verifier("eve").salt, decoy.verifier("mallory").salt);
        let (real, fake) = (Kept::of("x").unwrap().verifier().unwrap(), decoy.verifier("eve"));
        assert_eq!((real.salt.len(), real.iterations), (fake.salt.len(), fake.iterations));
    }
}
