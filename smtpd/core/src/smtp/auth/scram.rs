//! SCRAM-SHA-256 on the side that is logged in to (RFC 5802, RFC 7677), bound to the connection or not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroot_common::password::{Verifier, keyed};
use sha2::{Digest, Sha256};

use super::{Channel, Claim, Step, name};

/// The longest word of a client that is taken for its nonce.
const NONCE_OCTETS_MAX: usize = 256;

pub(super) struct Scram {
    user: String,
    /// The GS2 header and what the channel says, in base64: it must come again.
    binding: String,
    /// Whether the channel says something.
    is_bound: bool,
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

/// What a first word comes to.
pub(super) enum Begun {
    Scram(Box<Scram>),
    Malformed,
    /// The client was kept from binding its login to the connection, or bound it in a way that is not known.
    Unbound,
}

impl Scram {
    /// `p=binding|n|y,[a=authzid],n=user,r=nonce`
    pub(super) fn begin(said: &[u8], channel: &Channel, is_bound: bool) -> Begun {
        let text = std::str::from_utf8(said).unwrap_or_default();
        let Some((flag, rest)) = text.split_once(',') else { return Begun::Malformed };
        let data = match (flag, flag.strip_prefix("p="), is_bound) {
            ("n", ..) if !is_bound => Some(&[][..]),
            // A client says "y" that could have bound its login and was not offered to. Where it was, somebody
            // has taken that out of our words (RFC 5802 section 6).
            ("y", ..) if !is_bound => (!channel.is_offered).then_some(&[][..]),
            (_, Some(name), true) => channel.named(name),
            _ => return Begun::Malformed,
        };
        let Some(data) = data else { return Begun::Unbound };
        match Self::read(flag, rest, data) {
            Some(scram) => Begun::Scram(Box::new(Self { is_bound, ..scram })),
            None => Begun::Malformed,
        }
    }

    fn read(flag: &str, rest: &str, data: &[u8]) -> Option<Self> {
        let (authzid, bare) = rest.split_once(',')?;
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
            binding: STANDARD.encode([format!("{flag},{authzid},").as_bytes(), data].concat()),
            is_bound: false,
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
                if self.is_bound && !self.is_bound_here(said) {
                    return Step::Unbound;
                }
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

    /// Whether the client's last word is bound to this connection, as far as it can be read.
    fn is_bound_here(&self, said: &[u8]) -> bool {
        let text = std::str::from_utf8(said).unwrap_or_default();
        let binding = text.split(',').next().and_then(|part| part.strip_prefix("c="));
        binding.is_none_or(|binding| binding == self.binding)
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
pub(super) fn unescaped(text: &str) -> Option<String> {
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
    use mailroot_common::password::salted;

    use super::*;
    use crate::smtp::auth::{Exchange, Mechanism};

    fn verifier() -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::of(&salted("pencil", &salt, 4096), salt, 4096)
    }

    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn challenged() -> Exchange {
        let mut exchange = Exchange::new(Mechanism::ScramSha256, Channel::default());
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
            let begun = Scram::begin(bad.as_bytes(), &Channel::default(), false);
            assert!(matches!(begun, Begun::Malformed), "{bad}");
        }
        let odd = b"y,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=x";
        let Begun::Scram(odd) = Scram::begin(odd, &Channel::default(), false) else { panic!() };
        assert_eq!(odd.user(), "a,b=c");
    }

    fn channel() -> Channel {
        Channel {
            exporter: Some([5; 32]),
            end_point: Some(vec![6; 48]),
            is_offered: true,
            is_users: false,
        }
    }

    fn over(channel: Channel, mechanism: Mechanism, first: &str) -> Step {
        Exchange::new(mechanism, channel).on_response(first.as_bytes())
    }

    /// The last word of a client that knows the password and takes the channel for `data`.
    fn bound_final(flag: &str, data: &[u8], first: &str) -> String {
        let binding = STANDARD.encode([format!("{flag},,").as_bytes(), data].concat());
        let without_proof = format!("c={binding},r=abc{NONCE}");
        let message = format!("n=user,r=abc,{first},{without_proof}");
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let key = keyed(&salted("pencil", &salt, 4096), b"Client Key");
        let stored: [u8; 32] = Sha256::digest(key).into();
        let signature = keyed(&stored, message.as_bytes());
        let proof: [u8; 32] = std::array::from_fn(|at| key[at] ^ signature[at]);
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }

    #[test]
    fn a_login_is_bound_to_the_connection_it_is_made_on() {
        let asked = Step::Judge(Claim::Verifier { user: "user".to_owned() });
        for (name, data) in [("tls-exporter", vec![5; 32]), ("tls-server-end-point", vec![6; 48])] {
            let flag = format!("p={name}");
            let begin = || {
                let mut exchange = Exchange::new(Mechanism::ScramSha256Plus, channel());
                let first = format!("{flag},,n=user,r=abc");
                assert_eq!(exchange.on_response(first.as_bytes()), asked);
                let Step::Challenge(first) = exchange.on_verifier(verifier(), NONCE) else {
                    panic!()
                };
                (exchange, String::from_utf8(first).unwrap())
            };
            let (mut exchange, first) = begin();
            let last = bound_final(&flag, &data, &first);
            let good = Claim::Proof { user: "user".to_owned(), good: true };
            assert_eq!(exchange.on_response(last.as_bytes()), Step::Judge(good));
            for other in [&[9; 32][..], &[], &data[1..]] {
                let (mut exchange, first) = begin();
                let last = bound_final(&flag, other, &first);
                assert_eq!(exchange.on_response(last.as_bytes()), Step::Unbound, "{other:?}");
            }
            let (mut exchange, first) = begin();
            let last = bound_final("n", &[], &first);
            assert_eq!(exchange.on_response(last.as_bytes()), Step::Unbound);
        }
    }

    #[test]
    fn whoever_was_kept_from_binding_his_login_is_refused() {
        let plain = Mechanism::ScramSha256;
        let plus = Mechanism::ScramSha256Plus;
        let asked = || Step::Judge(Claim::Verifier { user: "user".to_owned() });
        let unoffered = Channel { is_offered: false, ..channel() };
        let only_exporter = Channel { end_point: None, ..channel() };
        for (channel, mechanism, flag, step) in [
            (channel(), plain, "n", asked()),
            (channel(), plain, "y", Step::Unbound),
            (unoffered, plain, "y", asked()),
            (channel(), plain, "p=tls-exporter", Step::Malformed),
            (channel(), plus, "n", Step::Malformed),
            (channel(), plus, "y", Step::Malformed),
            (channel(), plus, "p=tls-unique", Step::Unbound),
            (channel(), plus, "p=", Step::Unbound),
            (only_exporter.clone(), plus, "p=tls-server-end-point", Step::Unbound),
            (only_exporter, plus, "p=tls-exporter", asked()),
        ] {
            let found = over(channel, mechanism, &format!("{flag},,n=user,r=abc"));
            assert_eq!(found, step, "{mechanism:?} {flag}");
        }
    }
}
