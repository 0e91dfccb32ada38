//! `doctor --fix`: does what is safe to do, and leaves the rest to people.
//!
//! Safe is what loses no mail, changes no decision about mail and undoes nobody's work: to start a virtual
//! server that should run, and to write a file that programs of this machine miss. Nothing is
//! overwritten.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mailroot_common::control::server::VerbRequest;
use mailroot_common::control::{Check, Level, Problem, Server, Setting, Status, path};

use super::local_mail::{ALIASES, MAILNAME, NO_ALIASES, NO_MAILNAME};
use crate::client::WAIT;
use crate::output::escape;
use crate::tool::Tool;

/// What can be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Remedy {
    /// Start a virtual server that should run.
    Start(String),
    /// Write a new file.
    Write(&'static str, String),
}

impl Remedy {
    fn words(&self) -> String {
        match self {
            Self::Start(name) => format!("start the virtual server {name}"),
            Self::Write(file, text) => {
                format!("write {file}: {}", text.lines().collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// What a new file of aliases says; who gets root's mail only a person knows.
const FIRST_ALIASES: &str =
    "# See smtpctl doctor local-mail.\npostmaster: root\n# root: you@example.net\n";

/// Puts right what can be, or says what would be; whether anything was done.
pub(super) async fn fix(tool: &mut Tool, checks: &[Check], dry_run: bool) -> Result<bool, Problem> {
    let remedies = remedies(tool, checks).await?;
    let mut done = false;
    for remedy in &remedies {
        let words = escape(&remedy.words());
        if dry_run {
            tool.note(&format!("would {words}"));
            continue;
        }
        match apply(tool, remedy).await {
            Ok(()) => {
                done = true;
                tool.note(&format!("done: {words}"));
            }
            Err(why) => tool.note(&format!("could not {words}: {}", escape(&why))),
        }
    }
    let is_left = |check: &&Check| check.level != Level::Ok && !is_mended(check, &remedies);
    for check in checks.iter().filter(is_left) {
        let hint = check.hint.as_deref().unwrap_or("no remedy is known");
        tool.note(&escape(&format!("left to you: {}: {}; {hint}", check.topic, check.text)));
    }
    Ok(done)
}

/// Whether one of these is for this finding.
fn is_mended(check: &Check, remedies: &[Remedy]) -> bool {
    remedies.iter().any(|remedy| match remedy {
        Remedy::Start(name) => check.server.as_ref() == Some(name) && check.name == "probe",
        Remedy::Write(ALIASES, _) => check.name == NO_ALIASES,
        Remedy::Write(_, _) => check.name == NO_MAILNAME,
    })
}

async fn remedies(tool: &mut Tool, checks: &[Check]) -> Result<Vec<Remedy>, Problem> {
    let mut remedies = Vec::new();
    let status: Status = tool.daemon().await?.get(path::STATUS).await?;
    let is_meant = |name: &str| tool.global.server.as_deref().is_none_or(|meant| meant == name);
    let stopped = status.warnings.iter().filter(|warning| warning.code == "server.not_running");
    let names = stopped.filter_map(|warning| warning.server.clone());
    remedies.extend(names.filter(|name| is_meant(name)).map(Remedy::Start));
    for check in checks {
        match check.name.as_str() {
            NO_ALIASES => remedies.push(Remedy::Write(ALIASES, FIRST_ALIASES.to_owned())),
            NO_MAILNAME => {
                let settings: Vec<Setting> = tool.daemon().await?.get(path::CONFIG).await?;
                let name = settings.into_iter().find(|setting| setting.key == "service.hostname");
                let name = name.map(|setting| setting.in_force.unwrap_or(setting.value));
                remedies.extend(name.map(|name| Remedy::Write(MAILNAME, format!("{name}\n"))));
            }
            _ => {}
        }
    }
    Ok(remedies)
}

async fn apply(tool: &mut Tool, remedy: &Remedy) -> Result<(), String> {
    match remedy {
        Remedy::Start(name) => {
            let path = path::fill(path::SERVER_VERB, &[name, "start"]);
            let client = tool.daemon().await.map_err(|problem| problem.detail.to_string())?;
            let started = client.post::<Server>(&path, &VerbRequest::default(), WAIT).await;
            started.map(|_| ()).map_err(|problem| problem.detail.to_string())
        }
        Remedy::Write(file, text) => {
            write_new(Path::new(file), text).map_err(|error| error.to_string())
        }
    }
}

/// Writes a file that everybody may read, unless there is one.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_once_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("aliases");
        write_new(&file, FIRST_ALIASES).unwrap();
        assert!(write_new(&file, "other").is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), FIRST_ALIASES);
    }

    #[test]
    fn a_remedy_is_for_its_finding() {
        let check = |name: &str| Check::new(Level::Warn, "local-mail", name, "x");
        let write = Remedy::Write(MAILNAME, "a.example\n".to_owned());
        assert_eq!(write.words(), "write /etc/mailname: a.example");
        assert!(is_mended(&check(NO_MAILNAME), std::slice::from_ref(&write)));
        assert!(!is_mended(&check(NO_ALIASES), &[write]));
        let mut probe = check("probe");
        probe.server = Some("lan".to_owned());
        assert!(is_mended(&probe, &[Remedy::Start("lan".to_owned())]));
    }
}
