//! What an endpoint says of a token that a client has shown (RFC 7662), read with suspicion.
//!
//! Three things can be said: whose it is, that it is no good here, and nothing that can be understood.
//! The last one must never be taken for one of the others.

use mailroot_common::control::path::encode;
use mailroot_common::units::{Span, Timestamp};
use serde_json::{Map, Value};

/// What a token must be to be good here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who must have given it; anybody if there is none.
    pub issuer: Option<String>,
    /// For whom it must be: one of these, or anybody if there is none.
    pub audience: Vec<String>,
    /// A word of what it must be good for.
    pub scope: Option<String>,
    /// Which member of the answer names the user.
    pub user: String,
}

/// Whose a good token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user, as the endpoint names him.
    pub user: String,
    /// When the token ends, if that is said.
    pub until: Option<Timestamp>,
}

/// Why an answer cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no object of JSON that says whether the token is active.
    #[error("the answer does not say whether the token is active")]
    Shape,
    /// It does not say whose the token is.
    #[error("the answer does not say whose the token is: it has no {0}")]
    Nobody(String),
}

/// The longest name of a user that is read.
pub(super) const USER_OCTETS_MAX: usize = 255;
/// By how much the endpoint's clock may be ahead of ours.
const AHEAD: Span = Span::minutes(1);

/// The form that asks about a token. It holds secrets: it is not to be kept or logged.
#[must_use]
pub fn form(token: &str, client_id: Option<&str>, client_secret: Option<&str>) -> String {
    let mut out = "token_type_hint=access_token".to_owned();
    let fields =
        [("token", Some(token)), ("client_id", client_id), ("client_secret", client_secret)];
    for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        out.push('&');
        out.push_str(name);
        out.push('=');
        encode(value, &mut out);
    }
    out
}

impl Wanted {
    /// Reads an answer: whose the token is, or nothing if it is not good here.
    ///
    /// # Errors
    ///
    /// [`Unreadable`]; then nothing is known of the token.
    pub fn read(&self, body: &[u8], now: Timestamp) -> Result<Option<Owner>, Unreadable> {
        let Ok(Value::Object(said)) = serde_json::from_slice(body) else {
            return Err(Unreadable::Shape);
        };
        let Some(Value::Bool(is_active)) = said.get("active") else {
            return Err(Unreadable::Shape);
        };
        let until = moment(&said, "exp");
        let is_over = until.is_some_and(|until| until <= now);
        let is_early = moment(&said, "nbf").is_some_and(|begin| begin > now.after(AHEAD));
        if !is_active || is_over || is_early || !is_access(&said) || !self.is_for_us(&said) {
            return Ok(None);
        }
        match text(&said, &self.user) {
            Some(user) if !user.is_empty() && user.len() <= USER_OCTETS_MAX => {
                Ok(Some(Owner { user: user.to_owned(), until }))
            }
            _ => Err(Unreadable::Nobody(self.user.clone())),
        }
    }

    fn is_for_us(&self, said: &Map<String, Value>) -> bool {
        let words = || text(said, "scope").unwrap_or_default().split(' ');
        let scope = self.scope.as_deref().is_none_or(|wanted| words().any(|word| word == wanted));
        self.is_from(said) && self.is_for(said) && scope
    }

    /// Whether it was given by whom it must be.
    pub(super) fn is_from(&self, said: &Map<String, Value>) -> bool {
        self.issuer.as_deref().is_none_or(|issuer| text(said, "iss") == Some(issuer))
    }

    /// Whether it is for whom it must be.
    pub(super) fn is_for(&self, said: &Map<String, Value>) -> bool {
        let named = |value: &Value| {
            value.as_str().is_some_and(|it| self.audience.iter().any(|own| own == it))
        };
        let is_named = match said.get("aud") {
            Some(Value::Array(all)) => all.iter().any(named),
            Some(one) => named(one),
            None => false,
        };
        self.audience.is_empty() || is_named
    }
}

/// Whether it is a token that is shown for access, and not one that others are asked for by.
pub(super) fn is_access(said: &Map<String, Value>) -> bool {
    ["token_type", "typ"].iter().all(|name| {
        let kind = text(said, name);
        kind.is_none_or(|kind| !kind.to_ascii_lowercase().starts_with("refresh"))
    })
}

pub(super) fn text<'a>(said: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    said.get(name)?.as_str()
}

/// A moment in seconds since 1970, which some write as a text or with a fraction. What is there and cannot be
/// read is long past for an end, and never comes for a beginning.
pub(super) fn moment(said: &Map<String, Value>, name: &str) -> Option<Timestamp> {
    let value = said.get(name).filter(|value| !value.is_null())?;
    let seconds = match value {
        Value::Number(number) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let unread = if name == "exp" { 0 } else { u64::MAX / 1_000 };
    Some(Timestamp::from_millis(seconds.unwrap_or(unread).saturating_mul(1_000)))
}

fn whole(seconds: f64) -> Option<u64> {
    let text = format!("{:.0}", seconds.trunc());
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn wanted() -> Wanted {
        Wanted {
            issuer: Some("https://login.test".to_owned()),
            audience: vec!["mail".to_owned(), "smtp".to_owned()],
            scope: Some("send".to_owned()),
            user: "username".to_owned(),
        }
    }

    fn good() -> Value {
        json!({
            "active": true, "iss": "https://login.test", "aud": ["web", "smtp"], "scope": "read send",
            "username": "ada", "exp": 1_800_000_060, "nbf": 1_800_000_000, "token_type": "Bearer",
        })
    }

    fn read(value: &Value) -> Result<Option<String>, Unreadable> {
        let owner = wanted().read(value.to_string().as_bytes(), NOW)?;
        Ok(owner.map(|owner| owner.user))
    }

    #[test]
    fn a_good_token_is_its_users() {
        let owner = wanted().read(good().to_string().as_bytes(), NOW).unwrap().unwrap();
        let until = Some(Timestamp::from_millis(1_800_000_060_000));
        assert_eq!(owner, Owner { user: "ada".to_owned(), until });
        for (name, value) in [
            ("aud", json!("mail")),
            ("exp", json!("1800000060")),
            ("exp", json!(1_800_000_060.5)),
            ("exp", json!(null)),
            ("nbf", json!(1_800_000_050)),
            ("scope", json!("send")),
        ] {
            let mut said = good();
            said[name] = value;
            assert_eq!(read(&said), Ok(Some("ada".to_owned())), "{said}");
        }
        let any =
            Wanted { issuer: None, audience: Vec::new(), scope: None, user: "sub".to_owned() };
        let owner = any.read(br#"{"active": true, "sub": "7"}"#, NOW).unwrap().unwrap();
        assert_eq!(owner, Owner { user: "7".to_owned(), until: None });
    }

    #[test]
    fn a_token_for_somebody_else_or_of_another_time_is_no_good() {
        for (name, value) in [
            ("active", json!(false)),
            ("iss", json!("https://login.test/")),
            ("iss", json!(null)),
            ("aud", json!("web")),
            ("aud", json!([])),
            ("aud", json!(["mail2", 7])),
            ("aud", json!(null)),
            ("scope", json!("sender resend")),
            ("scope", json!(["send"])),
            ("exp", json!(1_800_000_000)),
            ("exp", json!("soon")),
            ("exp", json!([])),
            ("exp", json!(-1)),
            ("nbf", json!(1_800_000_061)),
            ("nbf", json!("soon")),
            ("token_type", json!("refresh_token")),
            ("typ", json!("Refresh")),
        ] {
            let mut said = good();
            said[name] = value;
            assert_eq!(read(&said), Ok(None), "{said}");
        }
    }

    #[test]
    fn what_is_no_answer_is_no_verdict() {
        for body in
            ["", "null", "true", "[]", "{}", r#"{"active": "true"}"#, r#"{"active": 1}"#, "<html>"]
        {
            assert_eq!(wanted().read(body.as_bytes(), NOW), Err(Unreadable::Shape), "{body}");
        }
        for user in [json!(null), json!(7), json!(""), json!("x".repeat(256))] {
            let mut said = good();
            said["username"] = user;
            assert!(matches!(read(&said), Err(Unreadable::Nobody(_))), "{said}");
        }
    }

    #[test]
    fn a_question_hides_nothing_and_breaks_out_of_nothing() {
        assert_eq!(form("t&x=y", None, None), "token_type_hint=access_token&token=t%26x%3Dy");
        let whole = form("t", Some("id"), Some("a b"));
        assert_eq!(whole, "token_type_hint=access_token&token=t&client_id=id&client_secret=a%20b");
    }

    proptest! {
        #[test]
        fn no_octets_do_harm(body in any::<Vec<u8>>()) {
            let _ = wanted().read(&body, NOW);
        }
    }
}
