//! The configuration as a whole: exported as one text, applied again, edited file by file.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use mailroot_common::control::{ConfigFiles, Edited, FileText, Kind, Problem, path};

use crate::io_problem;
use crate::output::Form;
use crate::server::change::read_text;
use crate::terms::{TermOptions, report};
use crate::tool::{Tool, stdout};

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// The export; - for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Edit {
    /// The virtual server whose file is edited [default: mailroot.yaml].
    #[arg(value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    terms: TermOptions,
}

/// Prints all files as YAML, each as one block of text, so that comments survive.
pub(crate) async fn export(tool: &mut Tool) -> Result<u8, Problem> {
    let files: ConfigFiles = tool.daemon().await?.get(path::CONFIG_FILES).await?;
    if matches!(tool.shape.form, Form::Json | Form::Jsonl) && tool.print_data(&files)? {
        return Ok(0);
    }
    let text = serde_yaml::to_string(&files)
        .map_err(|error| Problem::new("config", Kind::Failed, error.to_string()))?;
    stdout().write_all(text.as_bytes()).map_err(io_problem)?;
    Ok(0)
}

pub(crate) async fn apply(tool: &mut Tool, args: &Apply) -> Result<u8, Problem> {
    let text = read_text(&args.file)?;
    let files: ConfigFiles = serde_yaml::from_str(&text).map_err(|error| {
        let detail = format!("{} is no export of a configuration: {error}", args.file.display());
        Problem::new("config", Kind::Usage, detail).hint("write one with: smtpctl config export")
    })?;
    let path = args.terms.on(path::CONFIG_FILES)?;
    let edited: Edited = tool.daemon().await?.put(&path, &files).await?;
    report(tool, &edited)
}

/// Edits a copy until it is found good, or given up.
pub(crate) async fn edit(tool: &mut Tool, args: &Edit) -> Result<u8, Problem> {
    if !tool.can_ask() {
        return Err(Problem::new("config", Kind::Usage, "an editor needs a terminal")
            .hint("in scripts: smtpctl server set, or smtpctl server apply -f FILE"));
    }
    let mut files: ConfigFiles = tool.daemon().await?.get(path::CONFIG_FILES).await?;
    let old = match &args.name {
        None => files.service.clone(),
        Some(name) => {
            let found = files.servers.get(name).cloned();
            found.ok_or_else(|| crate::server::no_such_server(name))?
        }
    };
    let directory = tempfile::tempdir().map_err(io_problem)?;
    let copy =
        directory.path().join(args.name.as_deref().unwrap_or("mailroot")).with_extension("yaml");
    std::fs::write(&copy, &old).map_err(io_problem)?;
    loop {
        run_editor(&copy)?;
        let new = read_text(&copy)?;
        if new == old {
            tool.note("unchanged");
            return Ok(0);
        }
        let answer: Result<Edited, Problem> = match &args.name {
            Some(name) => {
                let path = args.terms.on(&path::fill(path::SERVER, &[name]))?;
                tool.daemon().await?.put(&path, &FileText { text: new }).await
            }
            None => {
                files.service = new;
                let path = args.terms.on(path::CONFIG_FILES)?;
                tool.daemon().await?.put(&path, &files).await
            }
        };
        match answer {
            Ok(edited) => return report(tool, &edited),
            Err(problem) => {
                for item in &problem.items {
                    tool.note(item);
                }
                tool.note(&format!("error: {problem}"));
                if !tool.ask("edit again?")? {
                    return Err(problem);
                }
            }
        }
    }
}

/// Runs the person's editor on a file.
fn run_editor(file: &std::path::Path) -> Result<(), Problem> {
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.filter(|it| !it.trim().is_empty()).unwrap_or_else(|| "vi".to_owned());
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let ended = Command::new(program).args(words).arg(file).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Problem::new("config", Kind::Failed, format!("{editor} ended with {status}")))
        }
        Err(error) => {
            let detail = format!("cannot run {editor}: {error}");
            Err(Problem::new("config", Kind::Failed, detail).hint("set EDITOR"))
        }
    }
}
