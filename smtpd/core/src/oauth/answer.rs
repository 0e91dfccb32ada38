//! Answers of a token endpoint (RFC 6749 section 5, RFC 8628 section 3), read with suspicion: they are
//! JSON of a stranger, and some providers write numbers as texts and other names than the standard's.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::words::{self, Meaning};

/// The longest token, in octets: it must fit a line of AUTH (RFC 4954 section 4).
const TOKEN_OCTETS_MAX: usize = 8 * 1024;
/// The most that is told of a provider's description, in characters.
const DESCRIPTION_CHARS_MAX: usize = 400;
/// How often a person's code is asked about where the provider does not say (RFC 8628 section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest life of a person's code, and the longest wait between two questions about it.
const CODE_LIFE_MAX: Duration = Duration::from_hours(1);
const INTERVAL_MAX: Duration = Duration::from_mins(1);

/// A token, as it was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Granted {
    /// The token.
    pub access_token: String,
    /// How long it is good, if that was said.
    pub span: Option<Duration>,
    /// The right to ask for the next, where it was given or replaced.
    pub refresh_token: Option<String>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted").field("span", &self.span).finish_non_exhaustive()
    }
}

/// A code for a person.
#[derive(Clone, PartialEq, Eq)]
pub struct Code {
    /// What the endpoint knows it by.
    pub device_code: String,
    /// What the person writes.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// How long it is good.
    pub span: Duration,
    /// How often the endpoint may be asked about it.
    pub interval: Duration,
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code")
            .field("verification_uri", &self.verification_uri)
            .finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The person has not signed in yet.
    Pending,
    /// Nor is it to be asked so often.
    SlowDown,
    /// The provider refuses.
    Refused {
        /// Its word, such as `invalid_client`.
        error: String,
        /// Its description; printable and cut.
        description: String,
        /// What that means, where it is known.
        meaning: Option<&'static Meaning>,
    },
    /// The answer is none.
    Unreadable {
        /// The status of HTTP.
        status: u16,
        /// What is wrong with it.
        why: String,
    },
}

/// What it is and what to do, then the provider's own words.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending | Self::SlowDown => f.write_str("the person has not signed in yet"),
            Self::Refused { error, description, meaning } => {
                if let Some(Meaning { cause, cure, .. }) = meaning {
                    write!(f, "{cause}; {cure} ")?;
                }
                write!(f, "({error}: {description})")
            }
            Self::Unreadable { status, why } => {
                write!(f, "the answer cannot be understood: HTTP {status}, {why}")
            }
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<Value>,
    refresh_token: Option<String>,
    device_code: Option<String>,
    user_code: Option<String>,
    #[serde(alias = "verification_url")]
    verification_uri: Option<String>,
    interval: Option<Value>,
    error: Option<String>,
    /// Google's name for it where codes for people are asked for too often.
    error_code: Option<Value>,
    error_description: Option<String>,
}

impl Raw {
    fn read(status: u16, body: &[u8]) -> Result<Self, Refusal> {
        let raw: Self = serde_json::from_slice(body).map_err(|_| Refusal::Unreadable {
            status,
            why: "which is not the JSON of a token endpoint".to_owned(),
        })?;
        let code = raw.error_code.as_ref().and_then(Value::as_str);
        match raw.error.as_deref().or(code) {
            None if (200..300).contains(&status) => Ok(raw),
            None => {
                let why = "which names no error".to_owned();
                Err(Refusal::Unreadable { status, why })
            }
            Some(error) => Err(raw.refusal(error)),
        }
    }

    fn refusal(&self, error: &str) -> Refusal {
        match error {
            "authorization_pending" => return Refusal::Pending,
            "slow_down" => return Refusal::SlowDown,
            _ => {}
        }
        let description = printable(self.error_description.as_deref().unwrap_or_default());
        let meaning = words::of_provider(error, &description);
        Refusal::Refused { error: printable(error), description, meaning }
    }
}

/// One line of visible characters, cut.
fn printable(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(DESCRIPTION_CHARS_MAX).collect()
}

/// Seconds, as a number or as a text.
fn seconds(value: Option<&Value>) -> Option<Duration> {
    let seconds = match value? {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// Only such a token can be sent: nothing in it could end a field or a line.
fn is_sendable(token: &str) -> bool {
    (1..=TOKEN_OCTETS_MAX).contains(&token.len()) && token.bytes().all(|o| o.is_ascii_graphic())
}

/// Reads the answer to a request for a token.
///
/// # Errors
///
/// [`Refusal`].
pub fn token(status: u16, body: &[u8]) -> Result<Granted, Refusal> {
    let raw = Raw::read(status, body)?;
    let unreadable = |why: &str| Refusal::Unreadable { status, why: why.to_owned() };
    let kind = raw.token_type.unwrap_or_default();
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("bearer") {
        return Err(unreadable("with a token of another kind than Bearer"));
    }
    let access_token = raw.access_token.filter(|token| is_sendable(token));
    let refresh_token = raw.refresh_token.filter(|token| is_sendable(token));
    Ok(Granted {
        access_token: access_token.ok_or_else(|| unreadable("without a token that can be used"))?,
        span: seconds(raw.expires_in.as_ref()),
        refresh_token,
    })
}

/// Reads the answer to a request for a code.
///
/// # Errors
///
/// [`Refusal`].
pub fn code(status: u16, body: &[u8]) -> Result<Code, Refusal> {
    let raw = Raw::read(status, body)?;
    let unreadable = || Refusal::Unreadable { status, why: "without a code".to_owned() };
    let text = |text: Option<String>| text.map(|text| printable(&text)).filter(|it| !it.is_empty());
    Ok(Code {
        device_code: raw.device_code.filter(|code| is_sendable(code)).ok_or_else(unreadable)?,
        user_code: text(raw.user_code).ok_or_else(unreadable)?,
        verification_uri: text(raw.verification_uri).ok_or_else(unreadable)?,
        span: seconds(raw.expires_in.as_ref()).unwrap_or(CODE_LIFE_MAX).min(CODE_LIFE_MAX),
        interval: seconds(raw.interval.as_ref()).unwrap_or(INTERVAL).min(INTERVAL_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_answers_of_several_providers() {
        let microsoft = br#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"eyJ0.x-y_z"}"#;
        let granted = token(200, microsoft).unwrap();
        assert_eq!(granted.access_token, "eyJ0.x-y_z");
        assert_eq!(granted.span, Some(Duration::from_secs(3599)));
        assert!(!format!("{granted:?}").contains("eyJ0"), "no token in debug output");
        let rotated =
            br#"{"access_token":"a","token_type":"bearer","expires_in":"60","refresh_token":"r2"}"#;
        let granted = token(200, rotated).unwrap();
        assert_eq!(
            (granted.span, granted.refresh_token.as_deref()),
            (Some(Duration::from_mins(1)), Some("r2"))
        );
    }

    #[test]
    fn refusals_tell_what_to_do_and_keep_the_providers_words() {
        let said = br#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the value.\r\nTrace ID: 1","error_codes":[7000215]}"#;
        let told = token(401, said).unwrap_err().to_string();
        assert!(told.contains("the client secret is wrong"), "{told}");
        assert!(told.ends_with("(invalid_client: AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the value.)"), "{told}");
        let google = br#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#;
        let told = token(400, google).unwrap_err().to_string();
        assert!(told.contains("smtpctl smarthost login"), "{told}");
        let ended = br#"{"error":"invalid_grant","error_description":"reauth related error (invalid_rapt)","error_subtype":"invalid_rapt"}"#;
        let told = token(400, ended).unwrap_err().to_string();
        assert!(told.contains("has sign-ins end"), "{told}");
        let often = code(403, br#"{"error_code":"rate_limit_exceeded"}"#).unwrap_err().to_string();
        assert!(often.contains("too often"), "{often}");
        let unknown = token(400, br#"{"error":"odd\u0007","error_description":"x"}"#).unwrap_err();
        assert_eq!(unknown.to_string(), "(odd: x)");
    }

    #[test]
    fn what_is_no_answer_is_told_as_such() {
        for (status, body) in [
            (502, &b"<html>Bad gateway</html>"[..]),
            (200, b"{}"),
            (200, br#"{"access_token":"a b"}"#),
            (200, br#"{"access_token":"a\r\nQUIT"}"#),
            (200, br#"{"access_token":"a","token_type":"mac"}"#),
            (500, br#"{"access_token":"a"}"#),
            (200, b"[1]"),
        ] {
            let refusal = token(status, body).unwrap_err();
            assert!(matches!(refusal, Refusal::Unreadable { .. }), "{refusal:?}");
            assert!(refusal.to_string().contains(&status.to_string()));
        }
    }

    #[test]
    fn codes_for_people() {
        let said = br#"{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://microsoft.com/devicelogin","expires_in":900,"interval":5,"message":"m"}"#;
        let found = code(200, said).unwrap();
        assert_eq!(
            (&*found.user_code, found.span.as_secs(), found.interval.as_secs()),
            ("WDJB-MJHT", 900, 5)
        );
        let google = br#"{"device_code":"d","user_code":"u","verification_url":"https://g.example","expires_in":99999}"#;
        let found = code(200, google).unwrap();
        assert_eq!((found.span, found.interval), (CODE_LIFE_MAX, INTERVAL));
        for (error, expected) in
            [("authorization_pending", Refusal::Pending), ("slow_down", Refusal::SlowDown)]
        {
            let body = format!("{{\"error\":\"{error}\"}}");
            assert_eq!(token(400, body.as_bytes()).unwrap_err(), expected);
        }
    }
}
