//! The configuration as a whole: exported as one text, applied again, edited file by file.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use mailroot_common::control::{ConfigFiles, Edited, FileText, Kind, Problem, path};

use crate::doctor::Redactor;
use crate::io_problem;
use crate::output::Form;
use crate::server::change::read_text;
use crate::tar;
use crate::terms::{TermOptions, report};
use crate::tool::{Tool, now, stdout};

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// Write the files as a tar archive into this new file; - for standard output.
    #[arg(long, value_name = "FILE")]
    tar: Option<PathBuf>,
    /// Replace addresses, host names and secrets, the same by the same, so that strangers may read it.
    #[arg(long)]
    redact: bool,
}

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

/// Prints all files as YAML, each as one block of text, so that comments survive; or writes them as
/// they are into an archive.
pub(crate) async fn export(tool: &mut Tool, args: &Export) -> Result<u8, Problem> {
    let mut files: ConfigFiles = tool.daemon().await?.get(path::CONFIG_FILES).await?;
    if args.redact {
        let mut redactor = Redactor::of_machine();
        for text in files.servers.values_mut().chain([&mut files.service]) {
            *text = redactor.yaml(text);
        }
    }
    if let Some(file) = &args.tar {
        let mut out: Box<dyn Write> = match file.to_str() {
            Some("-") => Box::new(stdout()),
            _ => Box::new(File::create_new(file).map_err(|error| {
                let detail = format!("cannot write {}: {error}", file.display());
                Problem::new("output", Kind::Failed, detail)
            })?),
        };
        return archive(&files, &mut out).map(|()| 0).map_err(io_problem);
    }
    if matches!(tool.shape.form, Form::Json | Form::Jsonl) && tool.print_data(&files)? {
        return Ok(0);
    }
    let text = serde_yaml::to_string(&files)
        .map_err(|error| Problem::new("config", Kind::Failed, error.to_string()))?;
    stdout().write_all(text.as_bytes()).map_err(io_problem)?;
    Ok(0)
}

fn archive(files: &ConfigFiles, out: &mut impl Write) -> io::Result<()> {
    let seconds = now().as_millis() / 1_000;
    tar::entry(out, SERVICE_FILE, files.service.as_bytes(), seconds)?;
    for (name, text) in &files.servers {
        tar::entry(out, &format!("{SERVERS}/{name}.yaml"), text.as_bytes(), seconds)?;
    }
    tar::end(out)?;
    out.flush()
}

/// The files of an archive, of ours or made of the directory they lie in.
fn unpack(text: &str) -> Result<ConfigFiles, String> {
    let mut files = ConfigFiles::default();
    let mut is_whole = false;
    for (name, octets) in tar::files(text.as_bytes()).map_err(|error| error.to_string())? {
        let text = String::from_utf8_lossy(octets).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name);
        let server = name.strip_prefix(SERVERS).and_then(|name| name.strip_prefix('/'));
        match server.and_then(|name| name.strip_suffix(".yaml")) {
            Some(server) => {
                files.servers.insert(server.to_owned(), text);
            }
            None if name == SERVICE_FILE => {
                files.service = text;
                is_whole = true;
            }
            None => return Err(format!("{name:?} is no configuration file")),
        }
    }
    if is_whole { Ok(files) } else { Err(format!("it has no {SERVICE_FILE}")) }
}

/// The file of the service, as archives have it.
const SERVICE_FILE: &str = "mailroot.yaml";
/// The directory of the virtual servers' files.
const SERVERS: &str = "servers.d";

pub(crate) async fn apply(tool: &mut Tool, args: &Apply) -> Result<u8, Problem> {
    let text = read_text(&args.file)?;
    let read = if tar::is_archive(text.as_bytes()) {
        unpack(&text)
    } else {
        serde_yaml::from_str(&text).map_err(|error| error.to_string())
    };
    let files = read.map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_the_files_and_nothing_else() {
        let servers = [("lan".to_owned(), "version: 1\n# a\n".to_owned())].into();
        let files = ConfigFiles { service: "version: 1\n".to_owned(), servers, revision: 0 };
        let mut out = Vec::new();
        archive(&files, &mut out).unwrap();
        assert_eq!(unpack(std::str::from_utf8(&out).unwrap()), Ok(files));
        for (name, words) in [("servers.d/a.yaml", "has no mailroot.yaml"), ("x", "no config")] {
            let mut out = Vec::new();
            tar::entry(&mut out, name, b"version: 1\n", 0).unwrap();
            tar::end(&mut out).unwrap();
            let refused = unpack(std::str::from_utf8(&out).unwrap()).unwrap_err();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
