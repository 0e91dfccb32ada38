//! `server set` and its like: changes of a virtual server's file, made by the daemon.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    CloneServer, Edited, FileText, KeyEdit, KeyEdits, Kind, Problem, Rename as NewName, Server,
    path,
};

use crate::client::WAIT;
use crate::complete;
use crate::terms::{TermOptions, report};
use crate::tool::Tool;

/// The largest file that is read; the daemon refuses larger ones.
const FILE_OCTETS_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The virtual server.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    name: String,
    /// KEY=VALUE, or for lists KEY+=ITEM and KEY-=ITEM.
    #[arg(value_name = "KEY=VALUE", required = true)]
    assignments: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Unset {
    /// The virtual server.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    name: String,
    /// The keys.
    #[arg(value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Clone {
    /// The virtual server to copy.
    #[arg(value_name = "SOURCE", add = ArgValueCompleter::new(complete::servers))]
    from: String,
    /// The name of the copy.
    #[arg(value_name = "NAME")]
    to: String,
    /// An address and port the copy listens on; may be given several times.
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    listen: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rename {
    /// The virtual server.
    #[arg(value_name = "OLD", add = ArgValueCompleter::new(complete::servers))]
    from: String,
    /// The name it gets.
    #[arg(value_name = "NEW")]
    to: String,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// The file, NAME.yaml; or - for standard input, and -s for the name.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The virtual server.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    name: String,
    /// Delete also Pickup, Queue, Drop and Badmail.
    #[arg(long)]
    purge_store: bool,
    /// Delete it although mail waits in its queue.
    #[arg(long)]
    discard_queue: bool,
    /// Be content if it does not exist.
    #[arg(long)]
    if_exists: bool,
    /// Do not ask.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    terms: TermOptions,
}

/// Reads `KEY=VALUE`, `KEY+=ITEM` and `KEY-=ITEM`.
pub(crate) fn read_assignments(words: &[String]) -> Result<Vec<KeyEdit>, Problem> {
    words.iter().map(|word| read_assignment(word)).collect()
}

fn read_assignment(word: &str) -> Result<KeyEdit, Problem> {
    let Some((key, value)) = word.split_once('=') else {
        let detail = format!("{word:?} is no assignment");
        return Err(Problem::new("config", Kind::Usage, detail)
            .hint("write KEY=VALUE, or for lists KEY+=ITEM and KEY-=ITEM"));
    };
    let value = value.to_owned();
    Ok(match (key.strip_suffix('+'), key.strip_suffix('-')) {
        (Some(key), _) => KeyEdit::Add { key: key.to_owned(), item: value },
        (_, Some(key)) => KeyEdit::Remove { key: key.to_owned(), item: value },
        _ => KeyEdit::Set { key: key.to_owned(), value },
    })
}

/// Asks for changes of keys and tells what became of them.
pub(crate) async fn edit_keys(
    tool: &mut Tool,
    path: &str,
    edits: Vec<KeyEdit>,
    terms: &TermOptions,
) -> Result<u8, Problem> {
    let body = KeyEdits { edits };
    let edited: Edited = tool.daemon().await?.patch(&terms.on(path)?, &body).await?;
    report(tool, &edited)
}

pub(crate) async fn set(tool: &mut Tool, args: &Set) -> Result<u8, Problem> {
    let edits = read_assignments(&args.assignments)?;
    edit_keys(tool, &path::fill(path::SERVER, &[&args.name]), edits, &args.terms).await
}

pub(crate) async fn unset(tool: &mut Tool, args: &Unset) -> Result<u8, Problem> {
    let edits = args.keys.iter().map(|key| KeyEdit::Unset { key: key.clone() }).collect();
    edit_keys(tool, &path::fill(path::SERVER, &[&args.name]), edits, &args.terms).await
}

pub(crate) async fn copy(tool: &mut Tool, args: &Clone) -> Result<u8, Problem> {
    let path = args.terms.on(&path::fill(path::SERVER_CLONE, &[&args.from]))?;
    let body = CloneServer { to: args.to.clone(), listen: args.listen.clone() };
    let server: Server = tool.daemon().await?.post(&path, &body, WAIT).await?;
    if args.terms.dry_run {
        tool.note(&format!("valid; {} would be created; nothing was changed", args.to));
        return Ok(0);
    }
    let listen = server.listen.join(", ");
    let words =
        format!("created {}, {}, {listen}, mail in {}", args.to, server.state, server.mail_root);
    tool.say_done(&server, &words)?;
    match server.trouble {
        Some(trouble) => {
            Err(Problem::new("server", Kind::Partly, format!("created, but {trouble}")))
        }
        None => Ok(0),
    }
}

pub(crate) async fn rename(tool: &mut Tool, args: &Rename) -> Result<u8, Problem> {
    let path = args.terms.on(&path::fill(path::SERVER_RENAME, &[&args.from]))?;
    let body = NewName { to: args.to.clone() };
    let edited: Edited = tool.daemon().await?.post(&path, &body, WAIT).await?;
    report(tool, &edited)
}

pub(crate) async fn apply(tool: &mut Tool, args: &Apply) -> Result<u8, Problem> {
    let name = match (&tool.global.server, args.file.file_stem()) {
        (Some(name), _) => name.clone(),
        (None, Some(stem)) if args.file != Path::new("-") => stem.to_string_lossy().into_owned(),
        _ => {
            let detail = "which virtual server is it?";
            return Err(Problem::new("server", Kind::Usage, detail).hint("say its name with -s"));
        }
    };
    let body = FileText { text: read_text(&args.file)? };
    let path = args.terms.on(&path::fill(path::SERVER, &[&name]))?;
    let edited: Edited = tool.daemon().await?.put(&path, &body).await?;
    report(tool, &edited)
}

/// Reads a file, or standard input for `-`, of bounded size.
pub(crate) fn read_text(file: &Path) -> Result<String, Problem> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(FILE_OCTETS_MAX * 256).read_to_string(&mut text)
    } else {
        std::fs::File::open(file)
            .and_then(|open| open.take(FILE_OCTETS_MAX * 256).read_to_string(&mut text))
    };
    read.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::PermissionDenied => Kind::NotPermitted,
            _ => Kind::Failed,
        };
        Problem::new("config", kind, format!("cannot read {}: {error}", file.display()))
    })?;
    Ok(text)
}

pub(crate) async fn delete(tool: &mut Tool, args: &Delete) -> Result<u8, Problem> {
    let is_final = args.purge_store || args.discard_queue;
    if is_final && !args.yes && !args.terms.dry_run {
        let what = if args.purge_store { "and all its mail" } else { "and its queue" };
        if !tool.can_ask() {
            let detail = format!("this would delete {} {what}, and nobody can be asked", args.name);
            return Err(Problem::new("server", Kind::Usage, detail)
                .hint("look with --dry-run, then say --yes"));
        }
        if !tool.ask(&format!("delete {} {what}?", args.name))? {
            return Err(Problem::new("server", Kind::Usage, "nothing was changed"));
        }
    }
    let mut path = args.terms.on(&path::fill(path::SERVER, &[&args.name]))?;
    for (word, on) in [("discard_queue", args.discard_queue), ("purge_store", args.purge_store)] {
        if on {
            let sign = if path.contains('?') { '&' } else { '?' };
            path.push_str(&format!("{sign}{word}=true"));
        }
    }
    match tool.daemon().await?.delete::<Edited>(&path).await {
        Ok(edited) => report(tool, &edited),
        Err(problem) if args.if_exists && &*problem.code == "server.not_found" => {
            tool.say_done(&serde_json::json!({ "changed": false }), "unchanged")?;
            Ok(0)
        }
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read() {
        let read = |word: &str| read_assignment(word).map_err(|problem| problem.exit);
        let (key, value) = ("a.b".to_owned(), "c=d".to_owned());
        assert_eq!(read("a.b=c=d"), Ok(KeyEdit::Set { key, value }));
        let (key, item) = ("a.b".to_owned(), "c".to_owned());
        assert_eq!(read("a.b+=c"), Ok(KeyEdit::Add { key, item }));
        let (key, item) = ("a.b".to_owned(), "c".to_owned());
        assert_eq!(read("a.b-=c"), Ok(KeyEdit::Remove { key, item }));
        assert_eq!(read("a.b"), Err(2));
    }
}
