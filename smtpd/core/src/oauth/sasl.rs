//! A token shown to a host: XOAUTH2, as Google and Microsoft describe it, and OAUTHBEARER (RFC 7628).
//!
//! A host that refuses a token answers 334 with JSON in place of a challenge, and refuses in earnest
//! only when it was told to go on: with nothing, or in OAUTHBEARER with one octet 1.

use mailroot_common::config::smart_hosts::AuthMethod;
use serde_json::Value;

/// The most of a host's status that is told, in characters.
const STATUS_CHARS_MAX: usize = 300;

/// The form in which a token is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// That of Google and Microsoft.
    Xoauth2,
    /// RFC 7628.
    OauthBearer,
}

impl Form {
    /// That of a method, if it shows tokens.
    #[must_use]
    pub const fn of(method: AuthMethod) -> Option<Self> {
        match method {
            AuthMethod::None | AuthMethod::Basic | AuthMethod::Integrated => None,
            AuthMethod::Xoauth2 => Some(Self::Xoauth2),
            AuthMethod::Oauthbearer => Some(Self::OauthBearer),
        }
    }

    /// The name of the mechanism.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Xoauth2 => "XOAUTH2",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// What is said first.
    #[must_use]
    pub fn first(self, mailbox: &str, host: &str, port: u16, token: &str) -> Vec<u8> {
        let said = match self {
            Self::Xoauth2 => format!("user={mailbox}\u{1}auth=Bearer {token}\u{1}\u{1}"),
            Self::OauthBearer => {
                // A name of SASL (RFC 5801 section 4).
                let name = mailbox.replace('=', "=3D").replace(',', "=2C");
                format!(
                    "n,a={name},\u{1}host={host}\u{1}port={port}\u{1}auth=Bearer {token}\u{1}\u{1}"
                )
            }
        };
        said.into_bytes()
    }

    /// What is answered to a refusal, so that the host ends the exchange.
    #[must_use]
    pub const fn farewell(self) -> &'static [u8] {
        match self {
            Self::Xoauth2 => b"",
            Self::OauthBearer => b"\x01",
        }
    }
}

/// A host's status in words: `status 401, schemes bearer`. What is no JSON is told as it is.
#[must_use]
pub fn status_words(challenge: &[u8]) -> String {
    let words = match serde_json::from_slice(challenge) {
        Ok(Value::Object(members)) => {
            let one = |(name, value): (&String, &Value)| match value {
                Value::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            };
            members.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        _ => String::from_utf8_lossy(challenge).into_owned(),
    };
    let visible = words.chars().map(|c| if c.is_control() { '?' } else { c });
    visible.take(STATUS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_descriptions() {
        assert_eq!(
            Form::Xoauth2.first("someuser@example.com", "h", 587, "ya29.vF9dft4qmTc2Nvb3RlckBh"),
            b"user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2Nvb3RlckBh\x01\x01"
        );
        assert_eq!(
            Form::OauthBearer.first("user@example.com", "server.example.com", 587, "vF9dft4q=="),
            b"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01auth=Bearer vF9dft4q==\x01\x01"
        );
        let odd = Form::OauthBearer.first("a,b=c@d.example", "h", 1, "t");
        assert!(odd.starts_with(b"n,a=a=2Cb=3Dc@d.example,\x01"));
        assert_eq!(
            (Form::Xoauth2.farewell(), Form::OauthBearer.farewell()),
            (&b""[..], &b"\x01"[..])
        );
    }

    #[test]
    fn a_status_is_told_in_words_whatever_it_is() {
        let said = br#"{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}"#;
        assert_eq!(
            status_words(said),
            "schemes bearer, scope https://mail.google.com/, status 401"
        );
        assert_eq!(status_words(br#"{"status":400}"#), "status 400");
        assert_eq!(status_words(b"no\r\nway"), "no??way");
        assert_eq!(status_words(&b"x".repeat(9_000)).len(), STATUS_CHARS_MAX);
    }
}
