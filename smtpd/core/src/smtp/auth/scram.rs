//! SCRAM-SHA-256 on the side that is logged in to (RFC 5802, RFC 7677), without channel binding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::{Claim, Step, name};

/// By what a proof is told, without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// What the password was mixed with.
    pub salt: Vec<u8>,
    /// How often.
    pub iterations: u32,
    /// The digest of the client's key.
    pub stored_key: [u8; 32],
    /// The key by which we prove that we know it.
    pub server_key: [u8; 32],
}

impl Verifier {
    /// Makes one of a salted password: PBKDF2 with HMAC-SHA-256, of 32 octets.
    #[must_use]
    pub fn of(salted: &[u8; 32], salt: Vec<u8>, iterations: u32) -> Self {
        let client_key = keyed(salted, b"Client Key");
        let server_key = keyed(salted, b"Server Key");
        Self { salt, iterations, stored_key: Sha256::digest(client_key).into(), server_key }
    }
}

fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(text);
            mac.finalize().into_bytes().into()
        }
        // HMAC takes keys of any length.
        Err(_) => [0; 32],
    }
}

/// The longest word of a client that is taken for its nonce.
const NONCE_OCTETS_MAX: usize = 256;

pub(super) struct Scram {
    user: String,
    /// The GS2 header in base64, which must come again.
    binding: String,
    client_first: String,
    client_nonce: String,
    stage: Stage,
}

enum Stage {
    /// The house is asked for the verifier.
    Asking,
    /// Our first word was said.
    Challenged { verifier: Verifier, nonce: String, server_first: String },
    /// The house judges; this would be our last word.
    Proved { signature: Vec<u8> },
    /// Our last word was said.
    Signed,
}

impl Scram {
    /// `n,[a=authzid],n=user,r=nonce`
    pub(super) fn begin(said: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(said).ok()?;
        let (flag, rest) = text.split_once(',')?;
        let (authzid, bare) = rest.split_once(',')?;
        // "y" is said by a client that could bind to the channel and was not offered it: so it is.
        if !matches!(flag, "n" | "y") {
            return None;
        }
        let mut parts = bare.split(',');
        let user = unescaped(parts.next()?.strip_prefix("n=")?)?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        let is_other = match authzid.strip_prefix("a=").map(unescaped) {
            Some(other) => other.as_deref() != Some(&*user),
            None => !authzid.is_empty(),
        };
        let printable = |text: &str| text.bytes().all(|o| (b'!'..=b'~').contains(&o) && o != b',');
        if is_other || nonce.is_empty() || nonce.len() > NONCE_OCTETS_MAX || !printable(nonce) {
            return None;
        }
        Some(Self {
            user: name(user.as_bytes())?,
            binding: STANDARD.encode(format!("{flag},{authzid},")),
            client_first: bare.to_owned(),
            client_nonce: nonce.to_owned(),
            stage: Stage::Asking,
        })
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn on_verifier(&mut self, verifier: Verifier, nonce: &str) -> Vec<u8> {
        let nonce = format!("{}{nonce}", self.client_nonce);
        let salt = STANDARD.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let challenge = server_first.clone().into_bytes();
        self.stage = Stage::Challenged { verifier, nonce, server_first };
        challenge
    }

    pub(super) fn on_response(&mut self, said: &[u8]) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Asking) {
            Stage::Challenged { verifier, nonce, server_first } => {
                match self.prove(said, &verifier, &nonce, &server_first) {
                    Some((good, signature)) => {
                        self.stage = Stage::Proved { signature };
                        Step::Judge(Claim::Proof { user: self.user.clone(), good })
                    }
                    None => Step::Malformed,
                }
            }
            // The client agrees to our last word by saying nothing.
            Stage::Signed if said.is_empty() => {
                Step::Judge(Claim::Agreed { user: self.user.clone() })
            }
            Stage::Asking | Stage::Proved { .. } | Stage::Signed => Step::Malformed,
        }
    }

    /// `c=binding,r=nonce,p=proof`: whether the proof is good, and our signature.
    fn prove(
        &self,
        said: &[u8],
        verifier: &Verifier,
        nonce: &str,
        server_first: &str,
    ) -> Option<(bool, Vec<u8>)> {
        let text = std::str::from_utf8(said).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let proof: [u8; 32] = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let mut parts = without_proof.split(',');
        let binding = parts.next()?.strip_prefix("c=")?;
        if binding != self.binding || parts.next()?.strip_prefix("r=")? != nonce {
            return None;
        }
        let message = format!("{},{server_first},{without_proof}", self.client_first);
        let signature = keyed(&verifier.stored_key, message.as_bytes());
        let client_key: [u8; 32] = std::array::from_fn(|at| proof[at] ^ signature[at]);
        let found = Sha256::digest(client_key);
        // All octets are looked at, whichever differ.
        let differs = found.iter().zip(&verifier.stored_key).fold(0, |sum, (a, b)| sum | (a ^ b));
        let ours = keyed(&verifier.server_key, message.as_bytes());
        Some((differs == 0, format!("v={}", STANDARD.encode(ours)).into_bytes()))
    }

    /// Our last word, once.
    pub(super) fn signature(&mut self) -> Option<Vec<u8>> {
        match std::mem::replace(&mut self.stage, Stage::Signed) {
            Stage::Proved { signature } => Some(signature),
            Stage::Asking | Stage::Challenged { .. } | Stage::Signed => None,
        }
    }
}

/// A name in which `=2C` stands for a comma and `=3D` for an equals sign.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, behind)) = rest.split_once('=') {
        out.push_str(plain);
        out.push(match behind.get(..2)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        rest = behind.get(2..)?;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::{Exchange, Mechanism};

    /// PBKDF2 of one block (RFC 8018 section 5.2).
    fn salted(password: &str, salt: &[u8], iterations: u32) -> [u8; 32] {
        let mut last = keyed(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
        let mut sum = last;
        for _ in 1..iterations {
            last = keyed(password.as_bytes(), &last);
            sum.iter_mut().zip(last).for_each(|(sum, last)| *sum ^= last);
        }
        sum
    }

    fn verifier() -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::of(&salted("pencil", &salt, 4096), salt, 4096)
    }

    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn challenged() -> Exchange {
        let mut exchange = Exchange::new(Mechanism::ScramSha256);
        let claim = Claim::Verifier { user: "user".to_owned() };
        assert_eq!(exchange.on_response(FIRST), Step::Judge(claim));
        let Step::Challenge(first) = exchange.on_verifier(verifier(), NONCE) else { panic!() };
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(String::from_utf8(first).unwrap(), expected);
        exchange
    }

    #[test]
    fn the_example_of_rfc_7677_is_followed() {
        let mut exchange = challenged();
        let good = Claim::Proof { user: "user".to_owned(), good: true };
        assert_eq!(exchange.on_response(FINAL.as_bytes()), Step::Judge(good));
        let last = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_vec();
        assert_eq!(exchange.on_admission(), Step::Challenge(last));
        let agreed = Claim::Agreed { user: "user".to_owned() };
        assert_eq!(exchange.on_response(b""), Step::Judge(agreed), "not before it was taken");
        assert_eq!(exchange.on_admission(), Step::Done);
    }

    #[test]
    fn a_wrong_proof_is_told_and_a_broken_one_refused() {
        let wrong = FINAL.replace("p=dHzb", "p=eHzb");
        let claim = Claim::Proof { user: "user".to_owned(), good: false };
        assert_eq!(challenged().on_response(wrong.as_bytes()), Step::Judge(claim));
        for broken in [
            FINAL.replace("c=biws", "c=eSws"),
            FINAL.replace("r=rO", "r=xO"),
            FINAL.replace(",p=", ",q="),
            FINAL.replace("dVQ=", ""),
            String::new(),
        ] {
            assert_eq!(challenged().on_response(broken.as_bytes()), Step::Malformed, "{broken}");
        }
    }

    #[test]
    fn beginnings_that_make_no_sense_are_refused() {
        for bad in [
            "p=tls-unique,,n=user,r=x",
            "n,a=other,n=user,r=x",
            "n,,n=,r=x",
            "n,,n=us=er,r=x",
            "n,,m=ext,n=user,r=x",
            "n,,n=user,r=",
            "n,,n=user",
            "n",
            "",
        ] {
            assert!(Scram::begin(bad.as_bytes()).is_none(), "{bad}");
        }
        let odd = Scram::begin(b"y,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=x").unwrap();
        assert_eq!(odd.user(), "a,b=c");
    }
}
