//! `config fmt`: configuration files in their usual form.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailroot_common::config::{Source, render_all, yaml};
use mailroot_common::control::{Edited, Kind, Problem, path};
use serde::Serialize;

use crate::client::WAIT;
use crate::io_problem;
use crate::output::{Cell, Column, Row};
use crate::terms::{TermOptions, report};
use crate::tool::{Tool, stdout};

#[derive(Debug, clap::Args)]
pub(crate) struct Fmt {
    /// Files to format instead of the installed ones, without the daemon; - for standard input.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Change nothing; tell which files would change, and exit with 10 if any would.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    terms: TermOptions,
}

/// A file that has not its usual form.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Differing {
    file: String,
    lines: u64,
}

impl Row for Differing {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("file", |it| Cell::text(&*it.file)),
        Column::always("lines", |it| Cell::Count(it.lines)),
    ];

    fn id(&self) -> String {
        self.file.clone()
    }
}

pub(crate) async fn run(tool: &mut Tool, args: &Fmt) -> Result<u8, Problem> {
    if !args.files.is_empty() {
        return by_name(tool, args);
    }
    let mut terms = args.terms.clone();
    terms.dry_run |= args.check;
    let path = terms.on(path::CONFIG_FORMAT)?;
    let edited: Edited = tool.daemon().await?.post(&path, &serde_json::json!({}), WAIT).await?;
    if args.check { tell(tool, in_diff(&edited.diff)) } else { report(tool, &edited) }
}

/// Formats files that nobody has in force.
fn by_name(tool: &Tool, args: &Fmt) -> Result<u8, Problem> {
    let terms = &args.terms;
    if terms.message.is_some() || terms.expect_revision.is_some() || terms.trial.is_some() {
        let detail = "--message, --expect-revision and --try are for the installed files";
        return Err(Problem::new("config", Kind::Usage, detail));
    }
    let mut differing = Vec::new();
    for file in &args.files {
        let is_stdin = file.as_os_str() == "-";
        let name = file.display().to_string();
        let old = read(file).map_err(|error| cannot("read", file, &error))?;
        let source = Arc::new(Source { name: name.clone(), text: old });
        let new = yaml::format(&source).map_err(|found| {
            let detail = format!("{name} has errors, and stays as it is");
            Problem::new("config", Kind::ConfigInvalid, detail).items([render_all(&found)])
        })?;
        if args.check || terms.dry_run {
            let lines = different_lines(&source.text, &new);
            differing.extend((lines > 0).then_some(Differing { file: name, lines }));
        } else if is_stdin {
            stdout().write_all(new.as_bytes()).map_err(io_problem)?;
        } else if new != source.text {
            write(file, &new).map_err(|error| cannot("write", file, &error))?;
        }
    }
    if args.check || terms.dry_run { tell(tool, differing) } else { Ok(0) }
}

fn read(file: &Path) -> io::Result<String> {
    if file.as_os_str() != "-" {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    Ok(text)
}

fn cannot(what: &str, file: &Path, error: &io::Error) -> Problem {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::NotPermitted,
        _ => Kind::Failed,
    };
    Problem::new("config", kind, format!("cannot {what} {}: {error}", file.display()))
}

/// Replaces a file whole, or leaves it as it was.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let file = file.canonicalize()?;
    let above = file.parent().unwrap_or_else(|| Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(above)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(fs::metadata(&file)?.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&file)?;
    Ok(())
}

/// Tells which files differ from their usual form.
fn tell(tool: &Tool, differing: Vec<Differing>) -> Result<u8, Problem> {
    let code = if differing.is_empty() { 0 } else { Kind::Found.exit_code() };
    let is_for_people = tool.shape.columns.is_none()
        && matches!(tool.shape.form, crate::output::Form::Table | crate::output::Form::Wide);
    if !is_for_people {
        return tool.print_rows(differing).map(|()| code);
    }
    let mut out = stdout();
    for Differing { file, lines } in &differing {
        let lines = crate::change::counted(*lines, "line");
        let file = crate::output::escape(file);
        writeln!(out, "{file} would be reformatted ({lines})").map_err(io_problem)?;
    }
    Ok(code)
}

/// The files of a diff and how many of their lines it touches.
fn in_diff(diff: &str) -> Vec<Differing> {
    let mut found: Vec<(Differing, [u64; 2])> = Vec::new();
    for line in diff.lines() {
        if let Some(file) = line.strip_prefix("--- ") {
            found.push((Differing { file: file.to_owned(), lines: 0 }, [0, 0]));
        } else if let Some((differing, counts)) = found.last_mut() {
            match line.as_bytes().first() {
                Some(b'-') => counts[0] += 1,
                Some(b'+') if !line.starts_with("+++ ") => counts[1] += 1,
                _ => {}
            }
            differing.lines = counts[0].max(counts[1]);
        }
    }
    found.into_iter().map(|(differing, _)| differing).collect()
}

/// How many lines of a file its usual form has otherwise. Formatting neither joins nor parts lines.
fn different_lines(old: &str, new: &str) -> u64 {
    if old == new {
        return 0;
    }
    let lines = |text: &'_ str| text.split('\n').map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (lines(old), lines(new));
    let full = |lines: &[String]| -> Vec<String> {
        lines.iter().filter(|line| !line.trim().is_empty()).cloned().collect()
    };
    let changed = full(&old).iter().zip(&full(&new)).filter(|(a, b)| a != b).count();
    let empty = old.len().abs_diff(new.len());
    ((changed + empty) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_tells_files_and_lines() {
        let diff = "--- a.yaml\n+++ a.yaml\n@@ -1,2 +1,2 @@\n-a:  1\n-b:  2\n+a: 1\n+b: 2\n c: 3\n--- b.yaml\n+++ b.yaml\n@@ -1 +1 @@\n--   x\n+- x\n";
        let one = |file: &str, lines| Differing { file: file.to_owned(), lines };
        assert_eq!(in_diff(diff), [one("a.yaml", 2), one("b.yaml", 1)]);
        assert_eq!(in_diff(""), []);
    }

    #[test]
    fn lines_that_differ_are_counted() {
        assert_eq!(different_lines("a: 1\n", "a: 1\n"), 0);
        assert_eq!(different_lines("a:  1\n\n\n# x\n", "a: 1\n\n# x\n"), 2);
        assert_eq!(different_lines("a: 1", "a: 1\n"), 1);
    }

    #[test]
    fn a_file_is_replaced_with_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lan.yaml");
        fs::write(&file, "version:  1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        write(&file, "version: 1\n").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "version: 1\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
