//! How passwords of users are kept: the daemon makes this form of one, and `smtpctl user hash` prints it.
//!
//! Salts are arguments: nothing here draws randomness.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroizing;

/// Memory in KiB and passes of Argon2id, as OWASP asks for at least.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Octets of a digest.
pub const DIGEST_OCTETS: usize = 32;
/// Octets of a salt.
pub const SALT_OCTETS: usize = 16;

/// The form of PHC, such as `$argon2id$v=19$m=19456,t=2,p=1$SALT$DIGEST`; nothing if the system has no memory
/// for it. Takes time and memory on purpose.
#[must_use]
pub fn kept(password: &str, salt: &[u8; SALT_OCTETS]) -> Option<String> {
    let digest = digest(password, salt, MEMORY_KIB, PASSES)?;
    let encode = |octets: &[u8]| STANDARD_NO_PAD.encode(octets);
    let (salt, digest) = (encode(salt), encode(&*digest));
    Some(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${salt}${digest}"))
}

/// The digest of Argon2id with so much memory in KiB and so many passes.
#[must_use]
pub fn digest(
    password: &str,
    salt: &[u8],
    memory: u32,
    passes: u32,
) -> Option<Zeroizing<[u8; DIGEST_OCTETS]>> {
    let params = Params::new(memory, passes, 1, Some(DIGEST_OCTETS)).ok()?;
    let mut out = Zeroizing::new([0; DIGEST_OCTETS]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password.as_bytes(), salt, &mut *out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_names_its_costs_its_salt_and_its_digest() {
        let form = kept("secret", b"0123456789abcdef").unwrap();
        let parts: Vec<&str> = form.split('$').collect();
        assert_eq!(
            parts[..5],
            ["", "argon2id", "v=19", "m=19456,t=2,p=1", "MDEyMzQ1Njc4OWFiY2RlZg"]
        );
        let again = digest("secret", b"0123456789abcdef", 19456, 2).unwrap();
        assert_eq!(parts[5], STANDARD_NO_PAD.encode(*again));
        assert_ne!(kept("secret", b"0123456789abcdeg").unwrap(), form);
    }
}
