//! `config` and `reload`.

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
    let ConfigCommand::Check(check) = command;
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
        format!("active: {}", reloaded.changes.join("; "))
    } else {
        "nothing has changed".to_owned()
    };
    for warning in &reloaded.warnings {
        tool.note(&escape(&format!("{}:{}: {}", warning.file, warning.line, warning.message)));
    }
    tool.say_done(&reloaded, &escape(&words))?;
    Ok(0)
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
