//! Reply codes of SMTP and enhanced status codes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a code means for the mail at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// 2xx, 3xx or 2.x.x: done, or go on.
    Success,
    /// 4xx or 4.x.x: try again later.
    Transient,
    /// 5xx or 5.x.x: do not try again.
    Permanent,
}

/// A three-digit SMTP reply code, 200 to 599 (RFC 5321 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct ReplyCode(u16);

/// A number that is not a reply code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a reply code from 200 to 599")]
pub struct ReplyCodeError(pub u16);

impl ReplyCode {
    /// A code known when the program is built.
    ///
    /// # Panics
    ///
    /// Outside 200 to 599; in a constant this fails the build.
    #[must_use]
    pub const fn new(code: u16) -> Self {
        assert!(code >= 200 && code <= 599, "reply codes go from 200 to 599");
        Self(code)
    }

    /// The number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// What the first digit says.
    #[must_use]
    pub const fn class(self) -> Class {
        match self.0 / 100 {
            2 | 3 => Class::Success,
            4 => Class::Transient,
            _ => Class::Permanent,
        }
    }
}

impl TryFrom<u16> for ReplyCode {
    type Error = ReplyCodeError;

    fn try_from(code: u16) -> Result<Self, ReplyCodeError> {
        if (200..=599).contains(&code) { Ok(Self(code)) } else { Err(ReplyCodeError(code)) }
    }
}

impl From<ReplyCode> for u16 {
    fn from(code: ReplyCode) -> Self {
        code.0
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An enhanced status code such as 5.7.1 (RFC 3463 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnhancedCode {
    class: Class,
    subject: u16,
    detail: u16,
}

/// A text that is not an enhanced status code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an enhanced status code such as 5.7.1")]
pub struct EnhancedCodeError(pub String);

impl EnhancedCode {
    /// A code from its parts; subject and detail have at most three digits.
    ///
    /// # Panics
    ///
    /// If a part has more than three digits; in a constant this fails the build.
    #[must_use]
    pub const fn new(class: Class, subject: u16, detail: u16) -> Self {
        assert!(subject <= 999 && detail <= 999, "at most three digits");
        Self { class, subject, detail }
    }

    /// 2.x.y, known when the program is built.
    #[must_use]
    pub const fn success(subject: u16, detail: u16) -> Self {
        Self::new(Class::Success, subject, detail)
    }

    /// 4.x.y, known when the program is built.
    #[must_use]
    pub const fn transient(subject: u16, detail: u16) -> Self {
        Self::new(Class::Transient, subject, detail)
    }

    /// 5.x.y, known when the program is built.
    #[must_use]
    pub const fn permanent(subject: u16, detail: u16) -> Self {
        Self::new(Class::Permanent, subject, detail)
    }

    /// Reads `class.subject.detail`.
    ///
    /// # Errors
    ///
    /// [`EnhancedCodeError`] with the text.
    pub fn parse(text: &str) -> Result<Self, EnhancedCodeError> {
        let bad = || EnhancedCodeError(text.to_owned());
        let mut parts = text.split('.');
        let class = match parts.next() {
            Some("2") => Class::Success,
            Some("4") => Class::Transient,
            Some("5") => Class::Permanent,
            _ => return Err(bad()),
        };
        let mut number = || {
            parts
                .next()
                .filter(|digits| (1..=3).contains(&digits.len()))
                .filter(|digits| digits.bytes().all(|d| d.is_ascii_digit()))
                .and_then(|digits| digits.parse::<u16>().ok())
        };
        let (subject, detail) = number().zip(number()).ok_or_else(bad)?;
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self { class, subject, detail })
    }

    /// The second number: what the code is about.
    #[must_use]
    pub const fn subject(self) -> u16 {
        self.subject
    }

    /// The third number: what happened.
    #[must_use]
    pub const fn detail(self) -> u16 {
        self.detail
    }

    /// What the first number says.
    #[must_use]
    pub const fn class(self) -> Class {
        self.class
    }

    /// The same subject and detail in another class.
    #[must_use]
    pub const fn in_class(self, class: Class) -> Self {
        Self { class, ..self }
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::Success => 2,
            Class::Transient => 4,
            Class::Permanent => 5,
        };
        write!(f, "{class}.{}.{}", self.subject, self.detail)
    }
}

impl FromStr for EnhancedCode {
    type Err = EnhancedCodeError;

    fn from_str(text: &str) -> Result<Self, EnhancedCodeError> {
        Self::parse(text)
    }
}

impl Serialize for EnhancedCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_round_trip_and_bad_ones_are_refused() {
        for good in ["2.0.0", "4.4.7", "5.7.139", "5.999.1"] {
            assert_eq!(EnhancedCode::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", "5", "5.7", "3.0.0", "5.7.1.1", "5.7.1234", "5..1", "5.+7.1", "5.7.x"] {
            assert!(EnhancedCode::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reply_code_class_follows_the_first_digit() {
        let classes = [250, 354, 451, 550].map(|code| ReplyCode::new(code).class());
        assert_eq!(classes, [Class::Success, Class::Success, Class::Transient, Class::Permanent]);
        assert_eq!(ReplyCode::try_from(199), Err(ReplyCodeError(199)));
        assert_eq!(ReplyCode::try_from(600), Err(ReplyCodeError(600)));
    }
}
