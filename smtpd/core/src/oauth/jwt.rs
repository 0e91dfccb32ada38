//! Tokens that say by themselves whose they are (JWT, RFC 7519, in the compact form of RFC 7515): taken
//! apart, and what they say judged as RFC 8725 and RFC 9068 want it. Whether the signature is good is told
//! by who has the keys.
//!
//! The algorithm is one of those that the configuration lists, whatever the token says; none of them
//! makes a secret of what everybody knows.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mailroot_common::config::client_tokens::TokenAlgorithm;
use mailroot_common::units::{Span, Timestamp};
use serde_json::{Map, Value};

use super::introspection::{Owner, USER_OCTETS_MAX, Wanted, is_access, moment, text};

/// The longest name of a key.
const KEY_OCTETS_MAX: usize = 256;
/// The longest signature: that of an RSA key of 8192 bits.
const SIGNATURE_OCTETS_MAX: usize = 1024;

/// Why a token is no good, for the log. The client hears the same of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is none in this form.
    #[error("it is no signed token (JWT)")]
    Shape,
    /// It is signed by an algorithm that is not listed, or not at all.
    #[error("it is not signed by an algorithm that access.tokens.algorithms lists")]
    Algorithm,
    /// It wants something understood that is not.
    #[error("its header wants something understood that is not (crit)")]
    Critical,
    /// It is a token for something else, or one that whoever shows it must prove to own.
    #[error("it is no token for access that is good for whoever shows it")]
    Kind,
    /// The provider has no such key.
    #[error("the provider shows no key that it could be signed by")]
    UnknownKey,
    /// The signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// It does not end.
    #[error("it does not say when it ends (exp)")]
    Endless,
    /// It is over.
    #[error("it is over (exp)")]
    Over,
    /// It has not begun.
    #[error("it has not begun (nbf, iat)")]
    Early,
    /// Somebody else gave it.
    #[error("somebody else gave it (iss)")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for somebody else (aud)")]
    Audience,
    /// It is good for something else.
    #[error("it is good for something else (scope, scp)")]
    Scope,
    /// It does not say whose it is.
    #[error("it does not say whose it is (access.tokens.user)")]
    Nobody,
}

/// A token that was taken apart; nothing of it is known to be true.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed<'t> {
    /// How it is signed.
    pub algorithm: TokenAlgorithm,
    /// By which key, if it says so.
    pub key: Option<String>,
    /// What is signed.
    pub said: &'t str,
    /// The signature.
    pub signature: Vec<u8>,
    claims: Map<String, Value>,
}

impl<'t> Signed<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    ///
    /// [`Flaw`].
    pub fn read(token: &'t str, allowed: &[TokenAlgorithm]) -> Result<Self, Flaw> {
        let (said, signature) = token.rsplit_once('.').ok_or(Flaw::Shape)?;
        let (header, claims) = said.split_once('.').ok_or(Flaw::Shape)?;
        let (header, claims) = (object(header)?, object(claims)?);
        let named = text(&header, "alg").ok_or(Flaw::Algorithm)?;
        let algorithm = allowed.iter().find(|it| it.word() == named).ok_or(Flaw::Algorithm)?;
        if header.contains_key("crit") {
            return Err(Flaw::Critical);
        }
        if !is_for_access(&header, &claims) {
            return Err(Flaw::Kind);
        }
        let key = match header.get("kid") {
            None => None,
            Some(Value::String(key)) if key.len() <= KEY_OCTETS_MAX => Some(key.clone()),
            Some(_) => return Err(Flaw::Shape),
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Flaw::Shape)?;
        match signature.len() {
            1..=SIGNATURE_OCTETS_MAX => {
                Ok(Self { algorithm: *algorithm, key, said, signature, claims })
            }
            _ => Err(Flaw::Signature),
        }
    }

    /// Whose it is. Only to be asked of a token whose signature is good. By `leeway` the provider's clock may
    /// differ from ours.
    ///
    /// # Errors
    ///
    /// [`Flaw`].
    pub fn owner(&self, wanted: &Wanted, now: Timestamp, leeway: Span) -> Result<Owner, Flaw> {
        let said = &self.claims;
        let end = moment(said, "exp").ok_or(Flaw::Endless)?;
        if end.after(leeway) <= now {
            return Err(Flaw::Over);
        }
        let is_early = |name| moment(said, name).is_some_and(|begin| begin > now.after(leeway));
        if is_early("nbf") || is_early("iat") {
            return Err(Flaw::Early);
        }
        if !wanted.is_from(said) {
            return Err(Flaw::Issuer);
        }
        if !wanted.is_for(said) {
            return Err(Flaw::Audience);
        }
        let is_in = |scope: &str| ["scope", "scp"].iter().any(|name| has_word(said, name, scope));
        if !wanted.scope.as_deref().is_none_or(is_in) {
            return Err(Flaw::Scope);
        }
        match text(said, &wanted.user) {
            Some(user) if !user.is_empty() && user.len() <= USER_OCTETS_MAX => {
                Ok(Owner { user: user.to_owned(), until: Some(end) })
            }
            _ => Err(Flaw::Nobody),
        }
    }
}

/// Whether it is shown for access by whoever has it: no token of identity or for renewal, no other document in
/// this form, and none that is bound to a key (RFC 7800), since nobody here is asked for that key.
fn is_for_access(header: &Map<String, Value>, claims: &Map<String, Value>) -> bool {
    let kind = match header.get("typ") {
        None => true,
        Some(Value::String(kind)) => {
            let kind = kind.to_ascii_lowercase();
            let plain = kind.strip_prefix("application/").unwrap_or(&kind);
            matches!(plain, "jwt" | "at+jwt")
        }
        Some(_) => false,
    };
    let is_identity = text(claims, "typ").is_some_and(|kind| kind.eq_ignore_ascii_case("id"));
    kind && !is_identity && is_access(claims) && !claims.contains_key("cnf")
}

/// Whether a member has a word: a text of words, or a list of them.
fn has_word(said: &Map<String, Value>, name: &str, wanted: &str) -> bool {
    match said.get(name) {
        Some(Value::String(words)) => words.split(' ').any(|word| word == wanted),
        Some(Value::Array(words)) => words.iter().any(|word| word.as_str() == Some(wanted)),
        _ => false,
    }
}

fn object(part: &str) -> Result<Map<String, Value>, Flaw> {
    let octets = URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Shape)?;
    match serde_json::from_slice(&octets) {
        Ok(Value::Object(object)) => Ok(object),
        _ => Err(Flaw::Shape),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const LEEWAY: Span = Span::seconds(60);

    fn token(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    fn good() -> Value {
        json!({
            "iss": "https://login.test", "aud": ["web", "smtp"], "scope": "read send", "sub": "ada",
            "exp": 1_800_000_060, "nbf": 1_800_000_000, "iat": 1_800_000_000,
        })
    }

    fn read(header: &Value, claims: &Value) -> Result<String, Flaw> {
        let wanted = Wanted {
            issuer: Some("https://login.test".to_owned()),
            audience: vec!["mail".to_owned(), "smtp".to_owned()],
            scope: Some("send".to_owned()),
            user: "sub".to_owned(),
        };
        let token = token(header, claims);
        let signed = Signed::read(&token, &[TokenAlgorithm::Rs256, TokenAlgorithm::Es256])?;
        assert!(token.starts_with(signed.said) && signed.signature == b"sig");
        signed.owner(&wanted, NOW, LEEWAY).map(|owner| owner.user)
    }

    #[test]
    fn the_algorithm_is_one_of_ours_whatever_the_token_says() {
        let kinds = [json!("JWT"), json!("at+jwt"), json!("application/AT+JWT")];
        for typ in kinds {
            let header = json!({"alg": "RS256", "kid": "a", "typ": typ});
            assert_eq!(read(&header, &good()), Ok("ada".to_owned()), "{header}");
        }
        for (header, flaw) in [
            (json!({}), Flaw::Algorithm),
            (json!({"alg": "none"}), Flaw::Algorithm),
            (json!({"alg": "None"}), Flaw::Algorithm),
            (json!({"alg": "HS256"}), Flaw::Algorithm),
            (json!({"alg": "rs256"}), Flaw::Algorithm),
            (json!({"alg": "EdDSA"}), Flaw::Algorithm),
            (json!({"alg": ["RS256"]}), Flaw::Algorithm),
            (json!({"alg": "RS256", "crit": ["exp"], "exp": 1}), Flaw::Critical),
            (json!({"alg": "RS256", "kid": 7}), Flaw::Shape),
            (json!({"alg": "RS256", "kid": "k".repeat(257)}), Flaw::Shape),
            (json!({"alg": "RS256", "typ": "dpop+jwt"}), Flaw::Kind),
            (json!({"alg": "RS256", "typ": "logout+jwt"}), Flaw::Kind),
            (json!({"alg": "RS256", "typ": null}), Flaw::Kind),
        ] {
            assert_eq!(read(&header, &good()), Err(flaw), "{header}");
        }
    }

    #[test]
    fn what_it_says_must_be_for_us_and_for_now() {
        let header = json!({"alg": "ES256"});
        for (name, value, flaw) in [
            ("exp", json!(null), Flaw::Endless),
            ("exp", json!("soon"), Flaw::Over),
            ("exp", json!(1_799_999_940), Flaw::Over),
            ("nbf", json!(1_800_000_061), Flaw::Early),
            ("iat", json!(1_800_000_061), Flaw::Early),
            ("iss", json!("https://login.test/"), Flaw::Issuer),
            ("iss", json!(null), Flaw::Issuer),
            ("aud", json!("web"), Flaw::Audience),
            ("aud", json!(null), Flaw::Audience),
            ("scope", json!("sender"), Flaw::Scope),
            ("sub", json!(""), Flaw::Nobody),
            ("sub", json!(7), Flaw::Nobody),
            ("typ", json!("Refresh"), Flaw::Kind),
            ("typ", json!("ID"), Flaw::Kind),
            ("cnf", json!({"jkt": "x"}), Flaw::Kind),
        ] {
            let mut said = good();
            said[name] = value;
            assert_eq!(read(&header, &said), Err(flaw), "{said}");
        }
        for (name, value) in [
            ("exp", json!(1_799_999_941)),
            ("nbf", json!(1_800_000_060)),
            ("nbf", json!(null)),
            ("aud", json!("mail")),
            ("scope", json!(["read", "send"])),
            ("typ", json!("Bearer")),
        ] {
            let mut said = good();
            said[name] = value;
            assert_eq!(read(&header, &said), Ok("ada".to_owned()), "{said}");
        }
        let mut said = good();
        said["scope"] = json!(null);
        said["scp"] = json!("send");
        assert_eq!(read(&header, &said), Ok("ada".to_owned()));
    }

    #[test]
    fn what_has_another_form_is_no_token() {
        let whole = token(&json!({"alg": "RS256"}), &good());
        let read = |text: &str| Signed::read(text, &[TokenAlgorithm::Rs256]).map(|_| ());
        assert_eq!(read(&whole), Ok(()));
        let unsigned = whole.strip_suffix("c2ln").unwrap();
        assert_eq!(read(unsigned), Err(Flaw::Signature));
        let long = format!("{unsigned}{}", URL_SAFE_NO_PAD.encode([1; 1025]));
        assert_eq!(read(&long), Err(Flaw::Signature));
        let padded = format!("{whole}=");
        let five = format!("{whole}.{whole}");
        for text in ["", ".", "..", "a.b", "e30.e30", "W10.W10.c2ln", &padded, &five, &whole[1..]] {
            assert_eq!(read(text), Err(Flaw::Shape), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in any::<String>(), octets in any::<Vec<u8>>()) {
            let _ = Signed::read(&text, TokenAlgorithm::ALL);
            let part = URL_SAFE_NO_PAD.encode(&octets);
            let _ = Signed::read(&format!("eyJhbGciOiJSUzI1NiJ9.{part}.{part}"), TokenAlgorithm::ALL);
        }
    }
}
