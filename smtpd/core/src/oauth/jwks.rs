//! Keys by which a provider signs its tokens (JWK sets, RFC 7517): which of them may have signed a token, and
//! when the provider is asked for them again.
//!
//! Whoever shows a token chooses the name of the key in it. An unknown name is looked up at the provider, but
//! for all clients together not more often than once a minute.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mailroot_common::config::client_tokens::TokenAlgorithm;
use serde_json::{Map, Value};

/// The most keys of a set that are looked at.
const KEYS_MAX: usize = 100;
/// Octets of RSA keys of 2048 and 8192 bits.
const MODULUS_OCTETS: std::ops::RangeInclusive<usize> = 256..=1024;
/// The longest exponent of an RSA key.
const EXPONENT_OCTETS_MAX: usize = 8;
/// How long keys are used without another question.
const FRESH: Duration = Duration::from_hours(1);
/// How long they are used while the provider gives no answer.
const USABLE: Duration = Duration::from_hours(6);
/// How long after one question there is no other.
const AGAIN: Duration = Duration::from_mins(1);

/// A key of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    id: Option<Box<str>>,
    algorithm: Option<Box<str>>,
    /// The key itself.
    pub material: Material,
}

/// What a signature is verified by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// RSA.
    Rsa {
        /// The modulus, big-endian.
        modulus: Vec<u8>,
        /// The exponent, big-endian.
        exponent: Vec<u8>,
    },
    /// A point on P-256, uncompressed (SEC 1 section 2.3.3).
    P256(Vec<u8>),
    /// A point on P-384, uncompressed.
    P384(Vec<u8>),
    /// Ed25519 (RFC 8037).
    Ed25519(Vec<u8>),
}

/// The answer has no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer has no keys that tokens could be verified by")]
pub struct NoKeys;

/// The keys of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads what a provider answers. Keys that are not known to be good for this are passed over.
    ///
    /// # Errors
    ///
    /// [`NoKeys`].
    pub fn read(body: &[u8]) -> Result<Self, NoKeys> {
        let Ok(Value::Object(set)) = serde_json::from_slice(body) else { return Err(NoKeys) };
        let Some(Value::Array(all)) = set.get("keys") else { return Err(NoKeys) };
        let objects = all.iter().take(KEYS_MAX).filter_map(Value::as_object);
        let keys: Vec<Key> = objects.filter_map(key).collect();
        if keys.is_empty() { Err(NoKeys) } else { Ok(Self(keys)) }
    }

    /// The key of this name that may sign so; without a name the only one that may.
    #[must_use]
    pub fn find(&self, id: Option<&str>, algorithm: TokenAlgorithm) -> Option<&Key> {
        let mut fitting = self.0.iter().filter(|key| key.fits(algorithm));
        match id {
            Some(_) => fitting.find(|key| key.id.as_deref() == id),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

impl Key {
    fn fits(&self, algorithm: TokenAlgorithm) -> bool {
        use TokenAlgorithm as Algorithm;

        let is_kind = match algorithm {
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => matches!(self.material, Material::Rsa { .. }),
            Algorithm::Es256 => matches!(self.material, Material::P256(_)),
            Algorithm::Es384 => matches!(self.material, Material::P384(_)),
            Algorithm::EdDsa => matches!(self.material, Material::Ed25519(_)),
        };
        is_kind && self.algorithm.as_deref().is_none_or(|named| named == algorithm.word())
    }
}

/// A key that may sign; nothing of one that is for something else, secret, or of an unknown kind.
fn key(said: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| said.get(name).and_then(Value::as_str);
    let octets = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if said.contains_key("use") && text("use") != Some("sig") {
        return None;
    }
    if let Some(uses) = said.get("key_ops")
        && !uses.as_array()?.iter().any(|it| it == "verify")
    {
        return None;
    }
    let coordinate = |name: &str, size: usize| octets(name).filter(|it| it.len() == size);
    let point = |size: usize| {
        let (x, y) = (coordinate("x", size)?, coordinate("y", size)?);
        Some([&[4][..], &x, &y].concat())
    };
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let modulus = octets("n").filter(|it| MODULUS_OCTETS.contains(&it.len()))?;
            let exponent =
                octets("e").filter(|it| (1..=EXPONENT_OCTETS_MAX).contains(&it.len()))?;
            Material::Rsa { modulus, exponent }
        }
        ("EC", Some("P-256")) => Material::P256(point(32)?),
        ("EC", Some("P-384")) => Material::P384(point(48)?),
        ("OKP", Some("Ed25519")) => Material::Ed25519(coordinate("x", 32)?),
        _ => return None,
    };
    Some(Key { id: text("kid").map(Into::into), algorithm: text("alg").map(Into::into), material })
}

/// Keys as they are kept. Moments count from any fixed one.
#[derive(Debug, Default)]
pub struct Ring {
    keys: Option<(KeySet, Duration)>,
    asked: Option<Duration>,
    /// Why the last question had no answer.
    trouble: Option<String>,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// This is it.
    Found(Key),
    /// The provider is to be asked.
    Ask,
    /// The provider has no such key.
    Unknown,
    /// Nobody knows: the provider gives no answer.
    Unsaid(String),
}

impl Ring {
    /// Looks for a key.
    #[must_use]
    pub fn look(&self, id: Option<&str>, algorithm: TokenAlgorithm, now: Duration) -> Look {
        let may_ask = self.asked.is_none_or(|asked| now.saturating_sub(asked) >= AGAIN);
        let known = self.keys.as_ref().filter(|(_, at)| now.saturating_sub(*at) < USABLE);
        if let Some((keys, at)) = known
            && let Some(key) = keys.find(id, algorithm)
            && (now.saturating_sub(*at) < FRESH || !may_ask)
        {
            return Look::Found(key.clone());
        }
        match &self.trouble {
            _ if may_ask => Look::Ask,
            Some(trouble) => Look::Unsaid(trouble.clone()),
            None => Look::Unknown,
        }
    }

    /// The provider has answered with keys.
    pub fn answered(&mut self, keys: KeySet, now: Duration) {
        *self = Self { keys: Some((keys, now)), asked: Some(now), trouble: None };
    }

    /// It has not.
    pub fn failed(&mut self, trouble: String, now: Duration) {
        (self.asked, self.trouble) = (Some(now), Some(trouble));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::json;

    use super::*;

    fn encoded(octet: u8, count: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![octet; count])
    }

    fn rsa(id: &str) -> Value {
        json!({"kty": "RSA", "kid": id, "n": encoded(0xff, 256), "e": "AQAB"})
    }

    fn set(keys: &[Value]) -> Result<KeySet, NoKeys> {
        KeySet::read(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn a_key_is_found_by_its_name_and_only_for_what_it_is() {
        let (x, y) = (encoded(1, 32), encoded(2, 32));
        let keys = set(&[
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": x}),
            json!({"kty": "EC", "crv": "P-256", "kid": "a", "x": x, "y": y, "use": "sig"}),
            rsa("b"),
            json!({"kty": "RSA", "kid": "c", "n": encoded(1, 512), "e": "AQAB", "alg": "PS256"}),
        ])
        .unwrap();
        let found = |id, algorithm| keys.find(id, algorithm).map(|key| key.material.clone());
        let point = [&[4][..], &[1; 32], &[2; 32]].concat();
        assert_eq!(found(Some("a"), TokenAlgorithm::Es256), Some(Material::P256(point)));
        assert_eq!(found(Some("a"), TokenAlgorithm::EdDsa), Some(Material::Ed25519(vec![1; 32])));
        assert_eq!(found(Some("a"), TokenAlgorithm::Rs256), None);
        assert_eq!(found(Some("a"), TokenAlgorithm::Es384), None);
        assert!(found(Some("b"), TokenAlgorithm::Ps512).is_some());
        assert!(found(Some("c"), TokenAlgorithm::Ps256).is_some());
        assert_eq!(found(Some("c"), TokenAlgorithm::Rs256), None, "it is for something else");
        assert_eq!(found(Some("d"), TokenAlgorithm::Rs256), None);
        // Without a name the only one that fits is meant.
        assert!(found(None, TokenAlgorithm::Es256).is_some());
        assert!(found(None, TokenAlgorithm::Rs256).is_some(), "b");
        assert_eq!(found(None, TokenAlgorithm::Ps256), None, "b or c");
    }

    #[test]
    fn keys_for_something_else_are_passed_over() {
        let with = |name: &str, value: Value| {
            let mut key = rsa("a");
            key[name] = value;
            key
        };
        for key in [
            with("use", json!("enc")),
            with("use", json!(7)),
            with("key_ops", json!(["encrypt"])),
            with("key_ops", json!("verify")),
            with("kty", json!("oct")),
            with("kty", json!(null)),
            with("n", json!(encoded(1, 128))),
            with("n", json!(encoded(1, 1025))),
            with("n", json!("*")),
            with("e", json!("")),
            json!({"kty": "oct", "kid": "a", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-256", "x": encoded(1, 31), "y": encoded(1, 32)}),
            json!({"kty": "EC", "crv": "P-521", "x": encoded(1, 66), "y": encoded(1, 66)}),
            json!({"kty": "OKP", "crv": "X25519", "x": encoded(1, 32)}),
            json!("a"),
        ] {
            assert_eq!(set(std::slice::from_ref(&key)), Err(NoKeys), "{key}");
            assert!(set(&[key, rsa("b")]).is_ok());
        }
        assert!(set(&[with("key_ops", json!(["verify"]))]).is_ok());
        let many: Vec<_> = (0..=KEYS_MAX).map(|number| rsa(&number.to_string())).collect();
        let keys = set(&many).unwrap();
        assert!(keys.find(Some("99"), TokenAlgorithm::Rs256).is_some());
        assert!(keys.find(Some("100"), TokenAlgorithm::Rs256).is_none());
        for body in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": []}"#, "<html>"] {
            assert_eq!(KeySet::read(body.as_bytes()), Err(NoKeys), "{body}");
        }
    }

    #[test]
    fn the_provider_is_asked_seldom_and_its_silence_is_no_answer() {
        let at = Duration::from_secs;
        let look = |ring: &Ring, id, second| ring.look(Some(id), TokenAlgorithm::Rs256, at(second));
        let is_found = |ring: &Ring, id, second| matches!(look(ring, id, second), Look::Found(_));
        let mut ring = Ring::default();
        assert_eq!(look(&ring, "a", 0), Look::Ask);
        ring.failed("silence".to_owned(), at(0));
        assert_eq!(look(&ring, "a", 59), Look::Unsaid("silence".to_owned()));
        assert_eq!(look(&ring, "a", 60), Look::Ask);
        ring.answered(set(&[rsa("a")]).unwrap(), at(60));
        assert!(is_found(&ring, "a", 60));
        // Whoever makes up a name has it looked up once a minute.
        assert_eq!(look(&ring, "b", 61), Look::Unknown);
        assert_eq!(look(&ring, "b", 120), Look::Ask);
        ring.failed("silence".to_owned(), at(120));
        assert_eq!(look(&ring, "b", 121), Look::Unsaid("silence".to_owned()));
        assert!(is_found(&ring, "a", 121), "what is known stays known");
        // After an hour the provider is asked anew, and for some hours more it may be silent.
        assert_eq!(look(&ring, "a", 60 + 3600), Look::Ask);
        ring.failed("silence".to_owned(), at(3660));
        assert!(is_found(&ring, "a", 3661));
        assert_eq!(look(&ring, "a", 60 + 6 * 3600), Look::Ask);
        ring.failed("silence".to_owned(), at(21_660));
        assert_eq!(look(&ring, "a", 21_661), Look::Unsaid("silence".to_owned()));
        // A key that was taken back is good no more.
        ring.answered(set(&[rsa("b")]).unwrap(), at(30_000));
        assert_eq!(look(&ring, "a", 30_001), Look::Unknown);
        assert!(is_found(&ring, "b", 30_001));
    }

    proptest! {
        #[test]
        fn no_octets_do_harm(body in any::<Vec<u8>>()) {
            let _ = KeySet::read(&body);
        }
    }
}
