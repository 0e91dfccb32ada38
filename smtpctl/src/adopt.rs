//! `queue adopt`: files as `queue export` writes them, put into the queue.
//!
//! The daemon reads them as it reads files of a Pickup directory. A file is removed once its
//! message is durable in the queue.

use std::fs;
use std::path::{Path, PathBuf};

use mailroot_common::control::{Adopted, Changed, Kind, Problem, path};

use crate::change::counted;
use crate::progress::Progress;
use crate::tool::Tool;

#[derive(Debug, clap::Args)]
pub(crate) struct Adopt {
    /// The directory; files whose names end in .eml are taken.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Leave the files where they are.
    #[arg(long)]
    keep: bool,
    /// Print what would be taken, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(tool: &mut Tool, args: Adopt) -> Result<u8, Problem> {
    let files = files(&args.directory)?;
    if files.is_empty() {
        let detail = format!("no file in {} ends in .eml", args.directory.display());
        return Err(Problem::new("file", Kind::NotFound, detail));
    }
    if args.dry_run {
        let count = counted(files.len() as u64, "file");
        tool.note(&format!("would adopt {count}; nothing was changed"));
        return Ok(0);
    }
    let mut changed = Changed::default();
    let mut progress = Progress::new(tool);
    for (number, file) in files.iter().enumerate() {
        progress.tell(|| format!("{number} of {} adopted", counted(files.len() as u64, "file")));
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match adopt(tool, file, &name, args.keep).await {
            Ok(adopted) => changed.add(&adopted.id, adopted.size),
            Err(problem) if problem.code.starts_with("daemon.") => return Err(problem),
            Err(problem) => changed.add_failure(&name, &problem),
        }
    }
    drop(progress);
    let words = format!("{} put into the queue", counted(changed.changed, "message"));
    tool.say_done(&changed, &words)?;
    if changed.failures() == 0 {
        return Ok(0);
    }
    let items = changed.failed.iter().map(|failure| format!("{}: {}", failure.id, failure.detail));
    let kind = if changed.changed == 0 { Kind::Failed } else { Kind::Partly };
    let left = counted(changed.failures(), "file");
    Err(Problem::new("file", kind, format!("{left} could not be adopted")).items(items))
}

/// The files to take, in the order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: std::io::Error| {
        let detail = format!("cannot read {}: {error}", directory.display());
        Problem::new("file", Kind::Failed, detail)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !is_hidden && path.extension().is_some_and(|end| end == "eml") && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

async fn adopt(tool: &mut Tool, file: &Path, name: &str, keep: bool) -> Result<Adopted, Problem> {
    let failed = |what: &str, error: &std::io::Error| {
        Problem::new("file", Kind::Failed, format!("cannot {what} it: {error}"))
    };
    let octets = fs::read(file).map_err(|error| failed("read", &error))?;
    let mut query = format!("{}?name=", path::QUEUE_ADOPT);
    path::encode(name, &mut query);
    if let Some(server) = &tool.global.server {
        query.push_str("&server=");
        path::encode(server, &mut query);
    }
    let adopted = tool.daemon().await?.post_octets(&query, octets).await?;
    if !keep {
        let removed = fs::remove_file(file);
        removed.map_err(|error| failed("remove", &error).hint("its message is in the queue"))?;
    }
    Ok(adopted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_in_order_and_others_left() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b.eml", "a.eml", ".c.eml.part", ".d.eml", "readme.txt"] {
            fs::write(directory.path().join(name), "x").unwrap();
        }
        let found = files(directory.path()).unwrap();
        let names: Vec<_> = found.iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["a.eml", "b.eml"]);
        assert!(files(&directory.path().join("none")).is_err());
    }
}
