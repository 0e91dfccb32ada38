//! Changes of the configuration: what is asked for, on which terms, and what became of it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::ConfigTrouble;
use super::path::encode;
use super::replay::Replay;
use crate::units::Timestamp;

/// A change of one key, in the words of a person: `50MiB`, `15m, 30m`, `{net: 10.0.0.0/8}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum KeyEdit {
    /// Gives the key a value.
    Set {
        /// The whole key, such as `messages.max_size`.
        key: String,
        /// The value; the items of a list are separated by commas.
        value: String,
    },
    /// Adds an item to a list. One that is there already stays once.
    Add {
        /// The whole key.
        key: String,
        /// The item.
        item: String,
    },
    /// Takes an item out of a list.
    Remove {
        /// The whole key.
        key: String,
        /// The item.
        item: String,
    },
    /// Takes the key out of the file, so that its default is in force.
    Unset {
        /// The whole key.
        key: String,
    },
}

/// Asks for changes of keys, made together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyEdits {
    /// The changes, in order.
    pub edits: Vec<KeyEdit>,
}

/// The whole text of a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileText {
    /// The text.
    pub text: String,
}

/// A new name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rename {
    /// The name to have from now on.
    pub to: String,
}

/// Asks for a copy of a virtual server: its file, with other listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloneServer {
    /// The name of the copy.
    pub to: String,
    /// The addresses the copy listens on.
    pub listen: Vec<String>,
}

/// The terms of a change; they stand in the query of every request that changes the
/// configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terms {
    /// Check everything, say what would change, also for mail of late, and change nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Refuse unless this revision is the newest. `If-Match` says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<u64>,
    /// Seconds after which the change is taken back unless it was confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<u64>,
}

impl Terms {
    /// The longest message, in octets.
    pub const MESSAGE_MAX: usize = 500;
    /// The longest trial, in seconds.
    pub const TRIAL_MAX: u64 = 24 * 60 * 60;

    /// Them as a query, with its question mark; empty if nothing is said.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut out = String::new();
        let mut pair = |name: &str, value: &str| {
            let sign = if out.is_empty() { '?' } else { '&' };
            let done = write!(out, "{sign}{name}=");
            debug_assert!(done.is_ok(), "writing into a String cannot fail");
            encode(value, &mut out);
        };
        if self.dry_run {
            pair("dry_run", "true");
        }
        if let Some(message) = &self.message {
            pair("message", message);
        }
        if let Some(expect) = self.expect {
            pair("expect", &expect.to_string());
        }
        if let Some(trial) = self.trial {
            pair("trial", &trial.to_string());
        }
        out
    }
}

/// What became of a change of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Edited {
    /// Whether anything changed, or would.
    pub changed: bool,
    /// Whether nothing was written because that was asked for.
    #[serde(default)]
    pub dry_run: bool,
    /// The revision in force now.
    pub revision: u64,
    /// What changed, a line each, such as `default: messages.max_size 35MiB -> 50MiB`.
    #[serde(default)]
    pub changes: Vec<String>,
    /// The lines of the files that changed, in the form of `diff -u`.
    #[serde(default)]
    pub diff: String,
    /// When the change will be taken back unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_at: Option<Timestamp>,
    /// After a dry run: how mail of late would have fared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
    /// What is odd, though accepted, and what is left to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<ConfigTrouble>,
    /// What could not be put in force, though it stands in the files now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// A state of the configuration as the history keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// Its number; the next one is larger.
    pub revision: u64,
    /// When it came into force; the epoch for states kept by an older daemon.
    #[serde(default)]
    pub at: Timestamp,
    /// Who made it.
    #[serde(default)]
    pub who: String,
    /// By which way: `start`, `reload`, `smtpctl`, `rollback`, `trial over`, or `file edit` where a
    /// person's own change was found before another.
    #[serde(default)]
    pub how: String,
    /// What changed against the one before, a line each.
    #[serde(default)]
    pub changes: Vec<String>,
    /// What the person said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The differences between two revisions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigDiff {
    /// What differs, a line each.
    pub changes: Vec<String>,
    /// The lines that differ, in the form of `diff -u`.
    pub diff: String,
}

/// The texts of all files of a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigFiles {
    /// Which revision they are.
    #[serde(default)]
    pub revision: u64,
    /// `mailroot.yaml`.
    pub service: String,
    /// The virtual servers' files, by name.
    pub servers: std::collections::BTreeMap<String, String>,
}

/// Why nobody may edit the configuration here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seal {
    /// The words that refused people are told; absent if edits are welcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_stand_in_a_query() {
        assert_eq!(Terms::default().to_query(), "");
        let terms = Terms {
            dry_run: true,
            message: Some("a b&c".to_owned()),
            expect: Some(43),
            trial: Some(120),
        };
        assert_eq!(terms.to_query(), "?dry_run=true&message=a%20b%26c&expect=43&trial=120");
    }

    #[test]
    fn an_edit_names_what_is_done() {
        let text = r#"{"op":"add","key":"general.listen","item":"10.1.0.6:25"}"#;
        let edit: KeyEdit = serde_json::from_str(text).unwrap();
        let KeyEdit::Add { key, item } = &edit else { panic!("{edit:?}") };
        assert_eq!((key.as_str(), item.as_str()), ("general.listen", "10.1.0.6:25"));
        assert_eq!(serde_json::to_string(&edit).unwrap(), text);
    }
}
