//! Where a secret is kept. The configuration names the place and never holds the secret itself, so
//! that it can be shown, kept in the history, exported and sent to others.

use std::fmt;

use super::diagnostic::Diagnostic;
use super::node::{Kind, Node};
use super::section::{Reader, Setting};

/// The place of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Secret {
    /// A file in the directory `secrets.d` beside the configuration.
    File(String),
    /// A credential that systemd hands to the service (`LoadCredential=`).
    Credential(String),
    /// A variable of the environment.
    Env(String),
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = match self {
            Self::File(name) => ("file", name),
            Self::Credential(name) => ("credential", name),
            Self::Env(name) => ("env", name),
        };
        write!(f, "{{{kind}: {name}}}")
    }
}

const HELP: &str = "write {file: NAME} for a file in secrets.d, {credential: NAME} or {env: NAME}";

impl Setting for Secret {
    type Quantity = u8;

    fn type_name() -> String {
        "{file: NAME}, {credential: NAME} or {env: NAME}".to_owned()
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let Kind::Map(_) = node.kind else {
            // Its line is not shown: it may hold the secret, and errors reach the log.
            let (line, _) = reader.source.position(node.span.start);
            let title =
                format!("{}:{line}: a secret does not belong into this file", reader.source.name);
            reader.report(Diagnostic::error("E0313", title).help(HELP));
            return None;
        };
        let places: Vec<(String, &Node)> = reader
            .entries(node, "this secret", &["file", "credential", "env"])
            .into_iter()
            .map(|(kind, value)| (kind.to_owned(), value))
            .collect();
        let [(kind, value)] = &places[..] else {
            let diagnostic =
                reader.error_at("E0313", "a secret has one place", node, "none or several");
            reader.report(diagnostic.help(HELP));
            return None;
        };
        let name = String::read(value, reader)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if name.is_empty()
            || name.starts_with('.')
            || name.contains('/')
            || !name.chars().all(plain)
        {
            let title = format!("{name:?} cannot name a secret");
            let diagnostic = reader.error_at("E0313", title, value, "not such a name");
            reader.report(diagnostic.help("use letters, digits, dots, - and _; no path"));
            return None;
        }
        Some(match kind.as_str() {
            "file" => Self::File(name),
            "credential" => Self::Credential(name),
            _ => Self::Env(name),
        })
    }
}
