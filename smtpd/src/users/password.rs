//! Passwords as they are kept: never themselves, only what they are told by.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use mailroot_common::password::{ITERATIONS, Kept, SALT_OCTETS, Verifier, digest};
use zeroize::Zeroizing;

/// Why no password can be kept.
#[derive(Debug, thiserror::Error)]
#[error("the password cannot be kept: {0}")]
pub struct Unkeepable(&'static str);

/// A password, or what somebody else made of one.
pub enum Secret {
    /// Itself.
    Password(Zeroizing<String>),
    /// What it is told by.
    Kept(Kept),
}

/// Neither is told.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// As it is kept. Takes time and memory on purpose for a password.
    pub(super) fn keep(self) -> Result<Kept, Unkeepable> {
        match self {
            Self::Password(password) => keep(&password),
            Self::Kept(kept) => Ok(kept),
        }
    }
}

pub(super) fn keep(password: &str) -> Result<Kept, Unkeepable> {
    Kept::of(password, [&random()?, &random()?])
        .ok_or(Unkeepable("the system has no memory for it"))
}

/// Whether this is the password. Takes as long for a wrong one.
pub(super) fn is(kept: &Kept, password: &str) -> bool {
    let found = kept.argon2id().and_then(|(memory, passes, salt, expected)| {
        let found = digest(password, &salt, memory, passes)?;
        verify_slices_are_equal(&*found, &expected).ok()
    });
    found.is_some()
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
        let kept = keep(&STANDARD_NO_PAD.encode(random::<32>()?))?;
        Ok(Self { kept, key: hmac::Key::new(hmac::HMAC_SHA256, key) })
    }

    /// Takes as long as a look at a user's password.
    pub(super) fn waste_time(&self, password: &str) {
        let _never = is(&self.kept, password);
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
        let kept = keep("correct horse").unwrap();
        assert!(is(&kept, "correct horse"));
        assert!(!is(&kept, "correct horsE") && !is(&kept, ""));
        let text = serde_json::to_string(&kept).unwrap();
        assert!(!text.contains("correct"), "{text}");
        let again: Kept = serde_json::from_str(&text).unwrap();
        assert!(is(&again, "correct horse") && again.verifier() == kept.verifier());
        assert_ne!(keep("correct horse").unwrap(), kept, "salts differ");
        assert!(kept.verifier().is_some());
    }

    #[test]
    fn a_decoy_is_the_same_each_time_and_another_for_each_name() {
        let decoy = Decoy::new(&[1; KEY_OCTETS]).unwrap();
        assert_eq!(decoy.verifier("eve"), decoy.verifier("eve"));
        assert_ne!(decoy.verifier("eve").salt, decoy.verifier("mallory").salt);
        let (real, fake) = (keep("x").unwrap().verifier().unwrap(), decoy.verifier("eve"));
        assert_eq!((real.salt.len(), real.iterations), (fake.salt.len(), fake.iterations));
    }
}
