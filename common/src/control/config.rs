//! The configuration as the control interface speaks of it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Diagnostic, Severity as Level};

/// How bad a trouble is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It works, but probably not as meant.
    Warning,
    /// The configuration is refused.
    Error,
}

impl ConfigReport {
    /// The report on these files, valid unless there is an error.
    #[must_use]
    pub fn of(files: Vec<String>, diagnostics: &[Diagnostic]) -> Self {
        let troubles: Vec<_> = diagnostics.iter().map(ConfigTrouble::from).collect();
        let valid = troubles.iter().all(|trouble| trouble.severity != Severity::Error);
        Self { valid, files, troubles }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One thing that is wrong or odd in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigTrouble {
    /// How bad it is.
    pub severity: Severity,
    /// A stable code, such as `E0107`.
    #[serde(default)]
    pub code: String,
    /// The file.
    pub file: String,
    /// The line, from 1; 0 if it concerns the whole file.
    pub line: usize,
    /// The column, from 1; 0 if it concerns the whole line.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// All of it for people: message, lines of the file, carets, hint.
    #[serde(default)]
    pub rendered: String,
}

impl From<&Diagnostic> for ConfigTrouble {
    fn from(diagnostic: &Diagnostic) -> Self {
        let place = diagnostic.place();
        Self {
            severity: match diagnostic.severity {
                Level::Error => Severity::Error,
                Level::Warning => Severity::Warning,
            },
            code: diagnostic.code.to_owned(),
            line: place.as_ref().map_or(0, |place| place.line),
            column: place.as_ref().map_or(0, |place| place.column),
            file: place.map(|place| place.file).unwrap_or_default(),
            message: diagnostic.title.clone(),
            hint: diagnostic.helps.first().cloned(),
            rendered: diagnostic.render(),
        }
    }
}

/// What a check of the configuration files found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigReport {
    /// Whether it would be accepted.
    pub valid: bool,
    /// The files read.
    pub files: Vec<String>,
    /// Errors and warnings of all files.
    #[serde(default)]
    pub troubles: Vec<ConfigTrouble>,
}

/// What reading the configuration again changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// Whether anything changed.
    pub changed: bool,
    /// The revision in force now.
    #[serde(default)]
    pub revision: u64,
    /// What changed, a line each, such as `server default: messages.max_size`.
    #[serde(default)]
    pub changes: Vec<String>,
    /// What is odd, though accepted.
    #[serde(default)]
    pub warnings: Vec<ConfigTrouble>,
    /// What could not be put in force, though it stands in the files now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}
