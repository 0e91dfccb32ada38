//! Logins: what a client says behind base64, to every mechanism, in clear text and under TLS. Nobody is logged in
//! whom the house has not judged well, names and passwords keep their bounds, and a proof is good exactly where
//! a client of its own has made it with the password.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use libfuzzer_sys::fuzz_target;
use mailroot_common::password::Verifier;
use mailroot_fuzz::{Choices, split};
use sha2::{Digest, Sha256};
use smtpd_core::smtp::auth::{
    Channel, Claim, Exchange, Mechanism, NAME_OCTETS_MAX, PASSWORD_OCTETS_MAX, RESPONSE_OCTETS_MAX,
    Step,
};

/// No exchange takes more.
const WORDS_MAX: usize = 6;
/// A password after it was mixed with a salt.
const SALTED: [u8; 32] = [7; 32];
const EXPORTER: [u8; 32] = [9; 32];

fuzz_target!(|input: &[u8]| {
    let (octets, mut choices) = split(input);
    let mechanism = Mechanism::ALL[choices.below(Mechanism::ALL.len())];
    let mut run =
        Run { exchange: begin(mechanism, &mut choices), first: Vec::new(), proved: false };
    for said in octets.split(|octet| *octet == b'\n').take(WORDS_MAX) {
        if run.first.is_empty() {
            run.first = said.to_vec();
        }
        let step = run.exchange.on_response(said);
        if !run.goes_on(mechanism, said, step, &mut choices) {
            return;
        }
    }
});

fn begin(mechanism: Mechanism, choices: &mut Choices<'_>) -> Exchange {
    let known = choices.octet() % 2 == 0;
    let channel = Channel {
        is_users: choices.octet() % 2 == 0,
        exporter: known.then_some(EXPORTER),
        end_point: known.then(|| vec![3; 32]),
        is_offered: choices.octet() % 2 == 1,
    };
    Exchange::new(mechanism, channel)
}

struct Run {
    exchange: Exchange,
    /// The client's first word.
    first: Vec<u8>,
    /// The client has proved that it knows the password.
    proved: bool,
}

impl Run {
    /// Does what a house does; whether there is more to be said.
    fn goes_on(
        &mut self,
        mechanism: Mechanism,
        said: &[u8],
        step: Step,
        choices: &mut Choices<'_>,
    ) -> bool {
        match step {
            Step::Challenge(words) => {
                assert_eq!((mechanism, &words[..]), (Mechanism::Login, &b"Password:"[..]));
                true
            }
            Step::Judge(claim) => {
                check(mechanism, said, &claim);
                self.judge(claim, choices)
            }
            Step::Done => panic!("nobody has judged"),
            Step::Refused => {
                assert!(self.exchange.is_refused());
                false
            }
            Step::Malformed => {
                if mechanism == Mechanism::Plain {
                    assert!(plain(said).is_none(), "{said:?}");
                }
                false
            }
            Step::Unbound => {
                let scram = [Mechanism::ScramSha256, Mechanism::ScramSha256Plus];
                assert!(scram.contains(&mechanism));
                false
            }
        }
    }

    fn judge(&mut self, claim: Claim, choices: &mut Choices<'_>) -> bool {
        match claim {
            Claim::Verifier { .. } => {
                let verifier = Verifier::of(&SALTED, b"salt".to_vec(), 4096);
                let Step::Challenge(words) = self.exchange.on_verifier(verifier, "fresh") else {
                    panic!("a verifier is answered with a challenge");
                };
                let words = String::from_utf8(words).expect("text");
                assert!(words.ends_with("fresh,s=c2FsdA==,i=4096"), "{words}");
                if choices.octet() % 2 == 0 { true } else { self.prove(&words, choices) }
            }
            Claim::Proof { good, .. } => {
                assert!(!good, "chance has no password");
                assert_eq!(self.exchange.on_refusal(), None);
                false
            }
            Claim::Agreed { .. } => {
                assert!(self.proved, "nothing was proved");
                assert_eq!(self.exchange.on_admission(), Step::Done);
                false
            }
            Claim::Token { .. } if choices.octet() % 2 == 0 => {
                assert_eq!(self.exchange.on_words(b"x".to_vec()), Step::Challenge(b"x".to_vec()));
                true
            }
            Claim::Password { .. } | Claim::External { .. } | Claim::Token { .. } => {
                assert_eq!(self.exchange.on_admission(), Step::Done);
                false
            }
            Claim::Bearer { .. } => {
                assert!(self.exchange.on_refusal().is_some() && self.exchange.is_refused());
                true
            }
        }
    }

    /// Plays a client that has the password on from the first word that was taken, or spoils one octet of what it
    /// says; whether it may agree to the last word.
    fn prove(&mut self, server_first: &str, choices: &mut Choices<'_>) -> bool {
        let first = std::str::from_utf8(&self.first).expect("it was taken");
        let (flag, rest) = first.split_once(',').expect("it was taken");
        let (authzid, bare) = rest.split_once(',').expect("it was taken");
        let data = match flag {
            "p=tls-exporter" => &EXPORTER[..],
            "p=tls-server-end-point" => &[3; 32][..],
            _ => &[],
        };
        let binding = [format!("{flag},{authzid},").as_bytes(), data].concat();
        let nonce = server_first.split(',').next().expect("a nonce");
        let without = format!("c={},{nonce}", STANDARD.encode(binding));
        let client_key = keyed(&SALTED, b"Client Key");
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        let signed = keyed(&stored_key, format!("{bare},{server_first},{without}").as_bytes());
        let mut proof: [u8; 32] = std::array::from_fn(|at| client_key[at] ^ signed[at]);
        let spoilt = choices.octet();
        proof[0] ^= spoilt;
        let last = format!("{without},p={}", STANDARD.encode(proof));
        match self.exchange.on_response(last.as_bytes()) {
            Step::Judge(Claim::Proof { good, .. }) => {
                assert_eq!(good, spoilt == 0, "{last}");
                self.proved = good;
                good && matches!(self.exchange.on_admission(), Step::Challenge(_))
            }
            other => panic!("{other:?} to {last}"),
        }
    }
}

fn keyed(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The name and the password of `[authzid] NUL authcid NUL password`, by the places of the NULs.
fn plain(said: &[u8]) -> Option<(&str, &str)> {
    let mut places = memchr::memchr_iter(0, said);
    let (one, two) = (places.next()?, places.next()?);
    let user = std::str::from_utf8(&said[one + 1..two]).ok()?;
    let password = std::str::from_utf8(&said[two + 1..]).ok()?;
    let good = places.next().is_none()
        && (one == 0 || said[..one] == *user.as_bytes())
        && is_name(user)
        && !password.is_empty()
        && password.len() <= PASSWORD_OCTETS_MAX;
    good.then_some((user, password))
}

fn is_name(text: &str) -> bool {
    let control = |octet: char| octet.is_control();
    !text.is_empty() && text.len() <= NAME_OCTETS_MAX && !text.contains(control)
}

fn check(mechanism: Mechanism, said: &[u8], claim: &Claim) {
    let may_be_nobody =
        matches!(claim, Claim::External { .. } | Claim::Bearer { .. } | Claim::Token { .. });
    assert!(is_name(claim.user()) || may_be_nobody && claim.user().is_empty());
    match claim {
        Claim::Password { user, password } if mechanism == Mechanism::Plain => {
            assert_eq!(plain(said), Some((user.as_str(), password.as_str())));
        }
        Claim::Password { password, .. } => {
            assert_eq!((mechanism, password.as_bytes()), (Mechanism::Login, said));
        }
        Claim::Bearer { token, .. } => {
            assert!(mechanism.is_bearer() && !token.is_empty());
            assert!(
                token.len() < RESPONSE_OCTETS_MAX && token.bytes().all(|it| it.is_ascii_graphic())
            );
        }
        Claim::External { .. } => assert_eq!(mechanism, Mechanism::External),
        Claim::Token { .. } => assert_eq!(mechanism, Mechanism::Gssapi),
        Claim::Verifier { .. } | Claim::Proof { .. } | Claim::Agreed { .. } => {
            let plus = mechanism == Mechanism::ScramSha256Plus;
            assert!(plus || mechanism == Mechanism::ScramSha256);
        }
    }
}
