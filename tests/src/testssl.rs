//! What others say of a server's TLS: `testssl.sh`, which looks for what is known to be weak.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::program;

/// Why it may not be there.
pub const ABSENT: &str = "testssl.sh is not installed";

/// All of it takes some minutes.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// With the first octet.
    Implicit,
    /// After STARTTLS.
    Starttls,
}

/// One thing that it has to say.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is about.
    pub id: String,
    /// How bad it is, in its own word.
    pub severity: String,
    /// What was found.
    pub words: String,
}

impl Finding {
    /// Whether it is worse than low. A warning says what the program could not look at, with the `openssl` that it
    /// has.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        !matches!(self.severity.as_str(), "OK" | "INFO" | "LOW" | "DEBUG" | "WARN")
    }
}

/// Looks at a server whose certificate is for `name` and signed by the one in `trust`; `checks` are options that
/// say what is looked at, none for everything. Without the program there is nothing.
///
/// # Panics
///
/// When it does not come to an end, or says nothing.
#[must_use]
pub fn look(
    address: SocketAddr,
    door: Door,
    (name, trust): (&str, &Path),
    checks: &[&str],
) -> Option<Vec<Finding>> {
    let testssl = program::find("testssl")?;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("found.json");
    let mut command = Command::new(testssl);
    command.args(["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none"]);
    command.args(["--connect-timeout", "20", "--openssl-timeout", "20"]);
    command.arg("--jsonfile").arg(&file).arg("--add-ca").arg(trust).args(checks);
    if door == Door::Starttls {
        command.args(["--starttls", "smtp"]);
    }
    command.arg("--ip").arg(address.ip().to_string()).arg(format!("{name}:{}", address.port()));
    let done = program::run_within(PATIENCE, command.current_dir(place.path()), b"");
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}\n{done}"));
    let found: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}\n{text}\n{done}");
    });
    assert!(found.len() > 10, "it has said too little: {done}");
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    let finding = |one: &Value| Finding {
        id: text(one, "id"),
        severity: text(one, "severity"),
        words: text(one, "finding"),
    };
    Some(found.iter().map(finding).collect())
}
