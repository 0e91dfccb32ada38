//! `config` and `reload`.

pub(crate) mod fmt;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod whole;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use mailroot_common::config::{Diagnostic, Parsed, ServerName, parse_server, parse_service};
use mailroot_common::control::{
    ConfigReport, ConfigTrouble, Kind, Problem, Reloaded, Severity, path,
};
use mailroot_common::units::Span;

use crate::client::WAIT;
use crate::io_problem;
use crate::output::{Cell, Column, Form, Row, escape};
use crate::tool::{Tool, stdout};

/// The verbs of `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration files and change nothing.
    Check(Check),
    /// Show keys with their values: of the service, or of a virtual server with -s.
    Show(keys::Show),
    /// Print the value of one key.
    Get(keys::Get),
    /// Give keys of mailroot.yaml other values, or with -s those of a virtual server.
    Set(keys::Set),
    /// Take keys out of the file, so that their defaults are in force.
    Unset(keys::Unset),
    /// Show what differs between two revisions, or a revision and the files as they lie there.
    Diff(history::Diff),
    /// Edit a file with $EDITOR; nothing is changed until it is found good.
    Edit(whole::Edit),
    /// Print all files as one text, or write them as an archive, for "config apply".
    Export(whole::Export),
    /// Replace all files by those of an export, or change nothing.
    Apply(whole::Apply),
    /// Keep the change that is on trial.
    Confirm,
    /// List what was in force, newest first.
    History,
    /// Go back to what was in force at a revision.
    Rollback(history::Rollback),
    /// Give all files their usual form; values, order and comments stay.
    Fmt(fmt::Fmt),
    /// Print a JSON Schema of the files, for editors.
    Schema(keys::Schema),
    /// Refuse edits by smtpctl from now on, and say why.
    Lock(history::Lock),
    /// Welcome edits again.
    Unlock,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Files to check instead of the installed ones; mailroot.yaml by its name, else a server's.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Exit with 10 if there are warnings.
    #[arg(short = 'W', long)]
    warnings: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Reload {
    /// How long to wait for the daemon at most.
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "60s")]
    wait: Option<String>,
}

pub(crate) async fn run(tool: &mut Tool, command: &ConfigCommand) -> Result<u8, Problem> {
    match command {
        ConfigCommand::Check(args) => check(tool, args).await,
        ConfigCommand::Show(args) => keys::show(tool, args).await,
        ConfigCommand::Get(args) => keys::get(tool, args).await,
        ConfigCommand::Set(args) => keys::set(tool, args).await,
        ConfigCommand::Unset(args) => keys::unset(tool, args).await,
        ConfigCommand::Diff(args) => history::diff(tool, args).await,
        ConfigCommand::Edit(args) => whole::edit(tool, args).await,
        ConfigCommand::Export(args) => whole::export(tool, args).await,
        ConfigCommand::Apply(args) => whole::apply(tool, args).await,
        ConfigCommand::Confirm => history::confirm(tool).await,
        ConfigCommand::History => history::list(tool).await,
        ConfigCommand::Rollback(args) => history::roll_back(tool, args).await,
        ConfigCommand::Fmt(args) => fmt::run(tool, args).await,
        ConfigCommand::Schema(args) => keys::schema(args),
        ConfigCommand::Lock(args) => history::lock(tool, args).await,
        ConfigCommand::Unlock => history::unlock(tool).await,
    }
}

async fn check(tool: &mut Tool, check: &Check) -> Result<u8, Problem> {
    let report = if check.files.is_empty() {
        tool.daemon().await?.get(path::CONFIG_CHECK).await.map_err(|problem| {
            let hint = "without the daemon: smtpd --check, or name the files";
            if problem.kind() == Kind::Unavailable { problem.hint(hint) } else { problem }
        })?
    } else {
        check_files(&check.files)?
    };
    print(tool, &report)?;
    let warned = report.troubles.iter().any(|trouble| trouble.severity == Severity::Warning);
    Ok(match (report.valid, check.warnings && warned) {
        (false, _) => Kind::ConfigInvalid.exit_code(),
        (true, true) => Kind::Found.exit_code(),
        (true, false) => 0,
    })
}

/// Checks each file by itself. What concerns several files only the daemon can tell.
fn check_files(files: &[PathBuf]) -> Result<ConfigReport, Problem> {
    let mut diagnostics = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => Kind::NotFound,
                io::ErrorKind::PermissionDenied => Kind::NotPermitted,
                _ => Kind::Failed,
            };
            Problem::new("config", kind, format!("cannot read {name}: {error}"))
        })?;
        diagnostics.extend(if file.file_name() == Some(OsStr::new("mailroot.yaml")) {
            found(parse_service(&text, &name))
        } else {
            let stem = file.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let server = ServerName::parse(stem)
                .map_err(|error| Problem::new("config", Kind::Usage, format!("{name}: {error}")))?;
            found(parse_server(&server, &text, &name))
        });
    }
    let names = files.iter().map(|file| file.display().to_string()).collect();
    Ok(ConfigReport::of(names, &diagnostics))
}

fn found<T>(parsed: Parsed<T>) -> Vec<Diagnostic> {
    parsed.map_or_else(|diagnostics| diagnostics, |(_, warnings)| warnings)
}

fn print(tool: &Tool, report: &ConfigReport) -> Result<(), Problem> {
    if tool.print_data(report)? {
        return Ok(());
    }
    if !matches!(tool.shape.form, Form::Table | Form::Wide) {
        return tool.print_rows(report.troubles.clone());
    }
    let mut out = stdout();
    for trouble in &report.troubles {
        let rendered =
            if trouble.rendered.is_empty() { &trouble.message } else { &trouble.rendered };
        for line in rendered.lines() {
            writeln!(out, "{}", escape(line)).map_err(io_problem)?;
        }
        writeln!(out).map_err(io_problem)?;
    }
    out.flush().map_err(io_problem)?;
    if report.valid {
        tool.note(&format!("valid: {}", report.files.join(", ")));
    }
    Ok(())
}

/// Reads the configuration again, in the daemon.
pub(crate) async fn reload(tool: &mut Tool, args: &Reload) -> Result<u8, Problem> {
    let wait = match &args.wait {
        None => WAIT,
        Some(text) => Span::parse(text)
            .map(Span::as_duration)
            .map_err(|error| Problem::new("config", Kind::Usage, format!("--wait: {error}")))?,
    };
    let reloaded: Reloaded = post_reload(tool, wait).await?;
    let words = if reloaded.changed {
        format!("revision {} active: {}", reloaded.revision, reloaded.changes.join("; "))
    } else {
        "nothing has changed".to_owned()
    };
    for warning in &reloaded.warnings {
        tool.note(&escape(&crate::terms::place(warning)));
    }
    tool.say_done(&reloaded, &escape(&words))?;
    if reloaded.troubles.is_empty() {
        return Ok(0);
    }
    let detail = "read, but not all of it could be put in force";
    Err(Problem::new("config", Kind::Partly, detail).items(&reloaded.troubles))
}

async fn post_reload(tool: &mut Tool, wait: Duration) -> Result<Reloaded, Problem> {
    tool.daemon().await?.post(path::RELOAD, &serde_json::json!({}), wait).await
}

impl Row for ConfigTrouble {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("severity", |it| Cell::text(it.severity.to_string())),
        Column::always("file", |it| Cell::text(&*it.file)),
        Column::always("line", |it| Cell::Count(it.line as u64)),
        Column::always("column", |it| Cell::Count(it.column as u64)),
        Column::always("message", |it| Cell::text(&*it.message)),
        Column::wide("code", |it| Cell::text(&*it.code)),
        Column::wide("hint", |it| Cell::maybe(it.hint.as_deref())),
    ];

    fn id(&self) -> String {
        format!("{}:{}:{}", self.file, self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked_without_a_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (service, server) = (dir.path().join("mailroot.yaml"), dir.path().join("lan.yaml"));
        std::fs::write(&service, "version: 1\n").unwrap();
        std::fs::write(&server, "version: 1\nno_such_key: 1\n").unwrap();
        let report = check_files(std::slice::from_ref(&service)).unwrap();
        assert!(report.valid, "{report:?}");
        let report = check_files(&[service, server.clone()]).unwrap();
        assert!(!report.valid);
        let trouble = report.troubles.iter().find(|it| it.message.contains("no_such_key"));
        assert_eq!(trouble.map(|it| it.line), Some(2), "{report:?}");
        std::fs::remove_file(&server).unwrap();
        assert_eq!(check_files(&[server]).unwrap_err().exit, 3);
    }
}
