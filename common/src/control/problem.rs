//! What is answered when something is wrong (RFC 9457), and what the tool's exit code makes of it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What sort of thing is wrong. Each has one HTTP status and one exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It was tried and did not work.
    Failed,
    /// The request makes no sense.
    Usage,
    /// There is no such object, or nothing matched.
    NotFound,
    /// The caller may not do that.
    NotPermitted,
    /// The daemon, or the part asked for, does not run.
    Unavailable,
    /// The configuration that would result is not valid.
    ConfigInvalid,
    /// It exists already, is in use, or changed meanwhile.
    Conflict,
    /// Some of it was done.
    Partly,
    /// It took too long.
    TimedOut,
    /// A check found something.
    Found,
}

/// Kind, its word in codes, HTTP status, exit code, title.
const KINDS: [(Kind, &str, u16, u8, &str); 10] = [
    (Kind::Failed, "failed", 500, 1, "It did not work"),
    (Kind::Usage, "usage", 400, 2, "The request makes no sense"),
    (Kind::NotFound, "not_found", 404, 3, "There is no such object"),
    (Kind::NotPermitted, "not_permitted", 403, 4, "Not permitted"),
    (Kind::Unavailable, "unavailable", 503, 5, "Not running"),
    (Kind::ConfigInvalid, "config_invalid", 422, 6, "The configuration is not valid"),
    (Kind::Conflict, "conflict", 409, 7, "It conflicts with what is there"),
    (Kind::Partly, "partly", 207, 8, "Partly done"),
    (Kind::TimedOut, "timed_out", 504, 9, "It took too long"),
    (Kind::Found, "found", 200, 10, "Problems were found"),
];

impl Kind {
    fn row(self) -> &'static (Self, &'static str, u16, u8, &'static str) {
        let row = KINDS.iter().find(|row| row.0 == self);
        row.expect("every kind has a row: a test counts them")
    }

    /// The last word of a code, such as `not_found`.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status it is answered with.
    #[must_use]
    pub fn status(self) -> u16 {
        self.row().2
    }

    /// The exit code of `smtpctl`.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        self.row().3
    }

    /// A few words that do not depend on the case at hand.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.row().4
    }

    /// The kind an HTTP status stands for, for answers that carry no [`Problem`].
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            400 | 405 | 413 | 414 | 415 | 431 => Self::Usage,
            401 | 403 => Self::NotPermitted,
            404 => Self::NotFound,
            408 | 504 => Self::TimedOut,
            409 | 412 => Self::Conflict,
            422 => Self::ConfigInvalid,
            503 => Self::Unavailable,
            _ => Self::Failed,
        }
    }
}

/// What is wrong, for programs (`code`) and for people (`detail`, `hint`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// A URI that names the code (RFC 9457 section 3.1.1).
    #[serde(rename = "type")]
    pub type_uri: Box<str>,
    /// `noun.word`, stable: what a program looks at.
    pub code: Box<str>,
    /// The kind's few words.
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// The exit code of `smtpctl`.
    pub exit: u8,
    /// What is wrong in this case, without a full stop.
    pub detail: Box<str>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// Further lines: candidates of an ambiguous id, errors of a configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

impl Problem {
    /// A problem of this kind with an object of this noun; its code is `noun.kind`.
    #[must_use]
    pub fn new(noun: &str, kind: Kind, detail: impl Into<Box<str>>) -> Self {
        let code = format!("{noun}.{}", kind.word());
        Self {
            type_uri: format!("urn:mailroot:problem:{code}").into(),
            code: code.into(),
            title: kind.title().into(),
            status: kind.status(),
            exit: kind.exit_code(),
            detail: detail.into(),
            hint: None,
            items: Vec::new(),
        }
    }

    /// Names it more closely than its kind does: the code becomes `noun.word`.
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        let noun = self.code.split('.').next().unwrap_or_default();
        self.code = format!("{noun}.{word}").into();
        self.type_uri = format!("urn:mailroot:problem:{}", self.code).into();
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Box<str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds further lines.
    #[must_use]
    pub fn items<T: fmt::Display>(mut self, items: impl IntoIterator<Item = T>) -> Self {
        self.items = items.into_iter().map(|item| item.to_string()).collect();
        self
    }

    /// The kind its exit code stands for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let row = KINDS.iter().find(|row| row.3 == self.exit);
        row.map_or_else(|| Kind::of_status(self.status), |row| row.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_status_and_exit_code() {
        for (place, row) in KINDS.iter().enumerate() {
            assert_eq!(usize::from(row.0.exit_code()), place + 1);
            assert_eq!(KINDS.iter().filter(|other| other.2 == row.2).count(), 1, "{}", row.1);
            assert_eq!(Problem::new("queue", row.0, "x").kind(), row.0);
        }
        assert_eq!(Kind::Found as usize + 1, KINDS.len());
    }

    #[test]
    fn statuses_of_plain_http_become_kinds() {
        for (status, exit) in [(400, 2), (403, 4), (404, 3), (413, 2), (500, 1), (503, 5)] {
            assert_eq!(Kind::of_status(status).exit_code(), exit, "{status}");
        }
    }

    #[test]
    fn a_code_can_be_closer_than_its_kind() {
        let problem = Problem::new("server", Kind::Conflict, "x").word("exists");
        assert_eq!((&*problem.code, problem.exit), ("server.exists", 7));
        assert_eq!(&*problem.type_uri, "urn:mailroot:problem:server.exists");
    }

    #[test]
    fn a_problem_is_an_rfc_9457_body() {
        let problem = Problem::new("queue", Kind::NotFound, "no message 6FZK").hint("list them");
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            text,
            r#"{"type":"urn:mailroot:problem:queue.not_found","code":"queue.not_found","title":"There is no such object","status":404,"exit":3,"detail":"no message 6FZK","hint":"list them"}"#
        );
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }
}
