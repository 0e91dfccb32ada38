//! What `doctor` looks at, and what it found.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How well something is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Ok,
    /// Something to know of, and perhaps to change.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// How well it is.
    pub level: Level,
    /// The topic, such as `storage`.
    pub topic: String,
    /// Which check of the topic, stable: what a program looks at.
    pub name: String,
    /// The virtual server it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// What was found.
    pub text: String,
    /// What it means, or what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// What was measured, by name; the last word is the unit. Spans are seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

impl Check {
    /// A check of a topic.
    #[must_use]
    pub fn new(level: Level, topic: &str, name: &str, text: impl Into<String>) -> Self {
        Self {
            level,
            topic: topic.to_owned(),
            name: name.to_owned(),
            server: None,
            text: text.into(),
            hint: None,
            figures: BTreeMap::new(),
        }
    }

    /// Says what it means, or what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a figure.
    #[must_use]
    pub fn figure(mut self, name: &str, value: f64) -> Self {
        self.figures.insert(name.to_owned(), value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_told_in_words_that_programs_rely_on() {
        let check = Check::new(Level::Warn, "storage", "barriers", "off").figure("a_seconds", 0.5);
        assert_eq!(
            serde_json::to_string(&check).unwrap(),
            r#"{"level":"warn","topic":"storage","name":"barriers","text":"off","figures":{"a_seconds":0.5}}"#
        );
        assert!(Level::Fail > Level::Warn && Level::Warn > Level::Ok);
    }
}
