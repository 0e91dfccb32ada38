//! How passwords of users are kept: the daemon makes this form of one, and `smtpctl user hash` prints it.
//!
//! Salts are arguments: nothing here draws randomness.

use std::fmt;
use std::str::FromStr;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Memory in KiB and passes of Argon2id, as OWASP asks for at least.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// Passes of PBKDF2 for SCRAM; RFC 7677 asks for 4096 at least, and clients do them as well.
pub const ITERATIONS: u32 = 20_000;
/// Octets of a digest.
pub const DIGEST_OCTETS: usize = 32;
/// Octets of a salt.
pub const SALT_OCTETS: usize = 16;
/// The most octets of a password itself.
pub const OCTETS_MAX: usize = 1000;
/// How the second word of the form begins.
const SCRAM: &str = "SCRAM-SHA-256$";

/// What a password is told by, without the password.
///
/// Written as two words: Argon2id in the form of PHC, such as `$argon2id$v=19$m=19456,t=2,p=1$SALT$DIGEST`, for
/// passwords that clients show, and that of RFC 5803, `SCRAM-SHA-256$20000:SALT$STORED:SERVER`, for those that they
/// only prove.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// In the form of PHC.
    argon2id: String,
    scram: KeptScram,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptScram {
    salt: String,
    iterations: u32,
    stored_key: String,
    server_key: String,
}

/// What SCRAM-SHA-256 tells a password by (RFC 5802, section 3).
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// What the password was mixed with.
    pub salt: Vec<u8>,
    /// How often.
    pub iterations: u32,
    /// The digest of the client's key.
    pub stored_key: [u8; DIGEST_OCTETS],
    /// The key by which the server proves that it knows it.
    pub server_key: [u8; DIGEST_OCTETS],
}

/// Why a text is not what a password is kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the form of a password that smtpctl user hash prints: {0}")]
pub struct NotKept(&'static str);

impl Kept {
    /// What this password is told by; nothing if the system has no memory for it. Takes time and memory on purpose.
    #[must_use]
    pub fn of(password: &str, salts: [&[u8; SALT_OCTETS]; 2]) -> Option<Self> {
        let [salt, scram] = salts;
        let digest = digest(password, salt, MEMORY_KIB, PASSES)?;
        let argon2id = phc(salt, &*digest);
        let scram = Verifier::of(&salted(password, scram, ITERATIONS), scram.to_vec(), ITERATIONS);
        Some(Self { argon2id, scram: KeptScram::of(&scram) })
    }

    /// Memory in KiB, passes, salt and digest of Argon2id.
    #[must_use]
    pub fn argon2id(&self) -> Option<(u32, u32, Vec<u8>, Vec<u8>)> {
        let mut parts = self.argon2id.strip_prefix("$argon2id$v=19$")?.split('$');
        let mut costs = parts.next()?.split(',');
        let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse().ok();
        let (memory, passes) = (cost("m=")?, cost("t=")?);
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).ok();
        Some((memory, passes, decode(parts.next()?)?, decode(parts.next()?)?))
    }

    /// What SCRAM tells it by.
    #[must_use]
    pub fn verifier(&self) -> Option<Verifier> {
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

/// Nothing of it is told: it is all that a guesser needs.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let padded =
            |text: &String| STANDARD.encode(STANDARD_NO_PAD.decode(text).unwrap_or_default());
        let KeptScram { salt, iterations, stored_key, server_key } = &self.scram;
        let (salt, stored, server) = (padded(salt), padded(stored_key), padded(server_key));
        write!(f, "{} {SCRAM}{iterations}:{salt}${stored}:{server}", self.argon2id)
    }
}

impl FromStr for Kept {
    type Err = NotKept;

    /// Takes the costs that [`Kept::of`] has and no others: a user of another cost could be told from nobody by time.
    fn from_str(text: &str) -> Result<Self, NotKept> {
        let (argon2id, scram) =
            text.split_once(' ').ok_or(NotKept("it is two words with a space between them"))?;
        let (iterations, keys) = scram
            .strip_prefix(SCRAM)
            .and_then(|rest| rest.split_once(':'))
            .ok_or(NotKept("the second word is SCRAM-SHA-256$PASSES:SALT$STORED:SERVER"))?;
        if iterations.parse() != Ok(ITERATIONS) {
            return Err(NotKept("the second word has 20000 passes"));
        }
        let read = || {
            let (salt, keys) = keys.split_once('$')?;
            let (stored, server) = keys.split_once(':')?;
            let decode = |text: &str| STANDARD.decode(text).ok();
            Some(Verifier {
                salt: decode(salt).filter(|salt| salt.len() == SALT_OCTETS)?,
                iterations: ITERATIONS,
                stored_key: decode(stored)?.try_into().ok()?,
                server_key: decode(server)?.try_into().ok()?,
            })
        };
        let verifier = read().ok_or(NotKept(
            "the second word ends in a salt of 16 octets and two keys of 32, in base64",
        ))?;
        let kept = Self { argon2id: argon2id.to_owned(), scram: KeptScram::of(&verifier) };
        match kept.argon2id() {
            Some((MEMORY_KIB, PASSES, salt, digest))
                if salt.len() == SALT_OCTETS
                    && digest.len() == DIGEST_OCTETS
                    && argon2id == phc(&salt, &digest)
                    && kept.to_string() == text =>
            {
                Ok(kept)
            }
            _ => Err(NotKept("the first word is $argon2id$v=19$m=19456,t=2,p=1$SALT$DIGEST")),
        }
    }
}

impl KeptScram {
    fn of(verifier: &Verifier) -> Self {
        let encode = |octets: &[u8]| STANDARD_NO_PAD.encode(octets);
        Self {
            salt: encode(&verifier.salt),
            iterations: verifier.iterations,
            stored_key: encode(&verifier.stored_key),
            server_key: encode(&verifier.server_key),
        }
    }
}

impl Verifier {
    /// That of a password which was [`salted`] with this salt so often.
    #[must_use]
    pub fn of(salted: &[u8; DIGEST_OCTETS], salt: Vec<u8>, iterations: u32) -> Self {
        let client_key = Zeroizing::new(keyed(salted, b"Client Key"));
        let stored_key = Sha256::digest(*client_key).into();
        Self { salt, iterations, stored_key, server_key: keyed(salted, b"Server Key") }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// The form of PHC.
fn phc(salt: &[u8], digest: &[u8]) -> String {
    let (salt, digest) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(digest));
    format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${salt}${digest}")
}

/// Whether a text can be a password: clients can say it in every way there is.
#[must_use]
pub fn is_password(text: &str) -> bool {
    !text.is_empty() && text.len() <= OCTETS_MAX && !text.chars().any(char::is_control)
}

/// PBKDF2 with HMAC-SHA-256. Takes time on purpose.
#[must_use]
pub fn salted(password: &str, salt: &[u8], iterations: u32) -> Zeroizing<[u8; DIGEST_OCTETS]> {
    let mut out = Zeroizing::new([0; DIGEST_OCTETS]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut *out);
    out
}

/// HMAC-SHA-256.
#[must_use]
pub fn keyed(key: &[u8; DIGEST_OCTETS], text: &[u8]) -> [u8; DIGEST_OCTETS] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(text);
            mac.finalize().into_bytes().into()
        }
        // HMAC takes keys of any length.
        Err(_) => [0; DIGEST_OCTETS],
    }
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

    const SALTS: [&[u8; SALT_OCTETS]; 2] = [b"0123456789abcdef", b"fedcba9876543210"];

    #[test]
    fn the_form_names_its_costs_its_salts_and_its_digests() {
        let form = Kept::of("secret", SALTS).unwrap().to_string();
        let (argon2id, scram) = form.split_once(' ').unwrap();
        let parts: Vec<&str> = argon2id.split('$').collect();
        let expected = ["", "argon2id", "v=19", "m=19456,t=2,p=1", "MDEyMzQ1Njc4OWFiY2RlZg"];
        assert_eq!(parts[..5], expected);
        let again = digest("secret", SALTS[0], 19456, 2).unwrap();
        assert_eq!(parts[5], STANDARD_NO_PAD.encode(*again));
        // As hashlib has it for this password, salt and count.
        assert_eq!(scram, SCRAM_OF_SECRET);
        assert_ne!(Kept::of("secret", [SALTS[1], SALTS[0]]).unwrap().to_string(), form);
    }

    const SCRAM_OF_SECRET: &str = "SCRAM-SHA-256$20000:ZmVkY2JhOTg3NjU0MzIxMA==$Q39i/M4jTtixZ+3g3Gx8qauiIL0yjJW6Fzn0axa1c78=:VKq6BRWP6G7wg0yjke+kaWuI1G9beegmrKS+jM70aNs=";

    #[test]
    fn a_form_is_read_as_it_was_written_and_none_of_another_cost() {
        let kept = Kept::of("secret", SALTS).unwrap();
        let form = kept.to_string();
        assert_eq!(form.parse(), Ok(kept));
        let wrong = [
            ("m=19456", "m=8"),
            ("t=2", "t=200"),
            ("t=2", "t=2,x=9"),
            ("m=19456", "m=+19456"),
            ("20000:", "+20000:"),
            ("p=1", "p=2"),
            ("argon2id", "argon2i"),
            ("20000:", "1:"),
            (" SCRAM", "SCRAM"),
            ("SHA-256", "SHA-1"),
            ("MDEyMzQ1Njc4OWFiY2RlZg", "MDEy"),
            ("ZmVkY2JhOTg3NjU0MzIxMA==", "ZmVk"),
            ("==$", "==$$"),
            (" SCRAM", "$x SCRAM"),
        ];
        for (part, other) in wrong {
            let changed = form.replace(part, other);
            assert!(changed != form && changed.parse::<Kept>().is_err(), "{changed}");
        }
        assert!(form.split_once(' ').unwrap().0.parse::<Kept>().is_err());
        assert!(format!("{form} more").parse::<Kept>().is_err());
        assert!("".parse::<Kept>().is_err());
    }

    #[test]
    fn what_no_client_can_say_is_no_password() {
        assert!(is_password("correct horse") && is_password(&"x".repeat(OCTETS_MAX)));
        for bad in ["", "a\tb", "a\nb", &"x".repeat(OCTETS_MAX + 1)] {
            assert!(!is_password(bad), "{bad:?}");
        }
    }

    #[test]
    fn nothing_of_it_is_shown_by_accident() {
        let kept = Kept::of("secret", SALTS).unwrap();
        let shown = format!("{kept:?} {:?}", kept.verifier());
        assert!(!shown.contains('$') && !shown.contains("[1"), "{shown}");
    }
}
