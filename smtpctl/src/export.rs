//! `queue export`: messages that wait, as files that a Pickup directory takes.
//!
//! Each file begins with `X-Sender` and `X-Receiver` for those who still wait, and with
//! `X-Mailroot-Previous-Id`. A file is there whole or not at all: it is written under another name,
//! synced and renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mailroot_common::control::{
    Change, Changed, Kind, Problem, QueueEntry, QueueMessage, QueueVerb, path,
};

use crate::change::{ChangeOptions, Deed, LISTED_MAX, change, counted, parts, with_query};
use crate::client::WAIT;
use crate::io_problem;
use crate::output::human_size;
use crate::progress::Progress;
use crate::select::QueueSelection;
use crate::tar;
use crate::tool::{Tool, stdout};

/// How many messages one request removes.
const REMOVED_AT_ONCE: usize = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    aim: Aim,
    /// Remove the messages when all that was chosen is written.
    #[arg(long, help_heading = "Options")]
    remove: bool,
    #[command(flatten)]
    selection: QueueSelection,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Aim {
    /// One file for each message into this directory.
    #[arg(long, value_name = "DIR", help_heading = "Options")]
    dir: Option<PathBuf>,
    /// All of them into this new file, in the form mboxrd.
    #[arg(long, value_name = "FILE", help_heading = "Options")]
    mbox: Option<PathBuf>,
    /// All of them as a tar archive into this new file; - for standard output.
    #[arg(long, value_name = "FILE", help_heading = "Options")]
    tar: Option<PathBuf>,
}

pub(crate) async fn run(tool: &mut Tool, args: Export) -> Result<u8, Problem> {
    let selector = args.selection.selector(tool.global.server.as_deref())?;
    if selector.is_empty() || args.options.dry_run {
        let deed = Deed {
            list: path::QUEUE,
            path: String::new(),
            verb: "export",
            done: "exported",
            noun: "message",
            is_final: false,
        };
        let body =
            |selector, if_exists| Change { selector, reason: None, if_exists, ..Change::default() };
        return change::<QueueEntry, _>(tool, &deed, &args.options, selector, body).await;
    }
    let mut chosen: Vec<String> = Vec::new();
    for part in parts(selector, LISTED_MAX) {
        let take = |row: QueueEntry| {
            chosen.push(row.id.to_string());
            Ok(true)
        };
        tool.daemon().await?.lines(&with_query(path::QUEUE, &part), take).await?;
    }
    if chosen.is_empty() {
        return Err(Problem::new("message", Kind::NotFound, "no message matches"));
    }
    if args.remove && !args.options.yes && chosen.len() > 1 {
        let question = format!("export and remove {}", counted(chosen.len() as u64, "message"));
        if !tool.can_ask() {
            let detail = format!("this would {question}, and nobody can be asked");
            return Err(Problem::new("message", Kind::Usage, detail)
                .hint("look with --dry-run, then say --yes"));
        }
        if !tool.ask(&format!("{question}?"))? {
            return Err(Problem::new("message", Kind::Usage, "nothing was changed"));
        }
    }
    let mut changed = Changed::default();
    let mut target = Target::open(&args.aim)?;
    let mut progress = Progress::new(tool);
    for (number, id) in chosen.iter().enumerate() {
        progress
            .tell(|| format!("{number} of {} exported", counted(chosen.len() as u64, "message")));
        let written = match fetch(tool, id).await {
            Ok((message, octets)) => target.write(&message, &octets).map(|()| octets.len()),
            Err(problem) => Err(problem),
        };
        match written {
            Ok(size) => changed.add(id, size as u64),
            Err(problem) if problem.code.starts_with("output.") => return Err(problem),
            Err(problem) if problem.exit == Kind::NotFound.exit_code() => changed.add_gone(),
            Err(problem) => changed.add_failure(id, &problem),
        }
    }
    drop(progress);
    let to_standard_output = target.is_standard_output();
    target.finish()?;
    if args.remove {
        remove(tool, &changed.ids).await?;
    }
    let done = if args.remove { "exported and removed" } else { "exported" };
    report(tool, &changed, done, to_standard_output)
}

/// Says what was done. Standard output that carries messages carries no words.
pub(crate) fn report(
    tool: &Tool,
    changed: &Changed,
    done: &str,
    piped: bool,
) -> Result<u8, Problem> {
    let count = counted(changed.changed, "message");
    let words = format!("{count} ({}) {done}", human_size(changed.bytes));
    if piped {
        tool.note(&words);
    } else {
        tool.say_done(changed, &words)?;
    }
    if changed.failures() == 0 {
        return Ok(0);
    }
    let items = changed.failed.iter().map(|failure| format!("{}: {}", failure.id, failure.detail));
    let kind = if changed.changed == 0 { Kind::Failed } else { Kind::Partly };
    let left = counted(changed.failures(), "message");
    Err(Problem::new("message", kind, format!("{left} could not be exported")).items(items))
}

/// A message and its octets with the envelope in front.
async fn fetch(tool: &mut Tool, id: &str) -> Result<(QueueMessage, Vec<u8>), Problem> {
    let message: QueueMessage =
        tool.daemon().await?.get(&path::fill(path::QUEUE_MESSAGE, &[id])).await?;
    let mut octets = front(&message).into_bytes();
    let take = |piece: &[u8]| {
        octets.extend_from_slice(piece);
        Ok(())
    };
    let content = path::fill(path::QUEUE_CONTENT, &[id]);
    tool.daemon().await?.octets(&content, take).await?;
    Ok((message, octets))
}

/// The fields that tell a Pickup directory the envelope, and what the message was.
fn front(message: &QueueMessage) -> String {
    let entry = &message.entry;
    let from = entry.from.to_string();
    let mut text = format!("X-Sender: {}\r\n", if from.is_empty() { "<>" } else { &from });
    for to in &entry.to {
        text.push_str(&format!("X-Receiver: {to}\r\n"));
    }
    text.push_str(&format!("X-Mailroot-Previous-Id: {}\r\n", entry.id));
    text
}

async fn remove(tool: &mut Tool, ids: &[String]) -> Result<(), Problem> {
    let path = path::fill(path::QUEUE_VERB, &[QueueVerb::Remove.as_str()]);
    for ids in ids.chunks(REMOVED_AT_ONCE) {
        let selector =
            mailroot_common::control::Selector { ids: ids.to_vec(), ..Default::default() };
        let reason = Some("exported".to_owned());
        let change = Change { selector, reason, if_exists: true, ..Change::default() };
        let _done: Changed = tool.daemon().await?.post(&path, &change, WAIT).await?;
    }
    Ok(())
}

/// Where messages are written.
pub(crate) enum Target {
    Directory(PathBuf),
    Mbox(File),
    Tar(Box<dyn Write>, Option<File>),
}

impl Target {
    fn open(aim: &Aim) -> Result<Self, Problem> {
        match (&aim.dir, &aim.mbox, &aim.tar) {
            (Some(directory), _, _) => Self::directory(directory),
            (_, Some(path), _) => Ok(Self::Mbox(new_file(path)?)),
            (_, _, Some(path)) if path == Path::new("-") => Ok(Self::Tar(Box::new(stdout()), None)),
            (_, _, Some(path)) => {
                let file = new_file(path)?;
                let again = file.try_clone().map_err(|error| cannot_write(path, &error))?;
                Ok(Self::Tar(Box::new(io::BufWriter::new(file)), Some(again)))
            }
            _ => Err(Problem::new("client", Kind::Usage, "say where to: --dir, --mbox or --tar")),
        }
    }

    /// A directory, made if it is not there.
    pub(crate) fn directory(path: &Path) -> Result<Self, Problem> {
        fs::create_dir_all(path).map_err(|error| cannot_write(path, &error))?;
        Ok(Self::Directory(path.to_owned()))
    }

    /// Writes a file of its own, where the target is a directory.
    pub(crate) fn write_file(&self, name: &str, octets: &[u8]) -> Result<(), Problem> {
        let Self::Directory(directory) = self else { return Ok(()) };
        let path = directory.join(name);
        write_whole(directory, name, octets).map_err(|error| cannot_write(&path, &error))
    }

    const fn is_standard_output(&self) -> bool {
        matches!(self, Self::Tar(_, None))
    }

    fn write(&mut self, message: &QueueMessage, octets: &[u8]) -> Result<(), Problem> {
        let name = format!("{}.eml", message.entry.id);
        match self {
            Self::Directory(_) => self.write_file(&name, octets),
            Self::Mbox(file) => {
                let from = message.entry.from.to_string();
                let from = if from.is_empty() { "MAILER-DAEMON" } else { &from };
                let text = mbox_entry(from, &message.entry.accepted_at.to_string(), octets);
                file.write_all(&text).map_err(io_problem)
            }
            Self::Tar(out, _) => {
                let seconds = message.entry.accepted_at.as_millis() / 1_000;
                tar::entry(out, &name, octets, seconds).map_err(io_problem)
            }
        }
    }

    /// Makes all of it durable.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self {
            Self::Directory(directory) => {
                let synced = File::open(&directory).and_then(|opened| opened.sync_all());
                synced.map_err(|error| cannot_write(&directory, &error))
            }
            Self::Mbox(file) => file.sync_all().map_err(io_problem),
            Self::Tar(mut out, file) => {
                tar::end(&mut out).and_then(|()| out.flush()).map_err(io_problem)?;
                file.map_or(Ok(()), |file| file.sync_all().map_err(io_problem))
            }
        }
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Problem {
    let detail = format!("cannot write {}: {error}", path.display());
    let mut problem = Problem::new("output", Kind::Failed, detail);
    if error.kind() == io::ErrorKind::AlreadyExists {
        problem = problem.hint("it is there already, and nothing is replaced");
    }
    problem
}

/// A file only its owner can read; it must not be there yet.
fn new_file(path: &Path) -> Result<File, Problem> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| cannot_write(path, &error))
}

/// Writes a file under another name, syncs it and gives it its own. Nothing is replaced.
fn write_whole(directory: &Path, name: &str, octets: &[u8]) -> io::Result<()> {
    let (draft, path) = (directory.join(format!(".{name}.part")), directory.join(name));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(octets)?;
    file.sync_all()?;
    // A link, unlike a rename, replaces nothing.
    let linked = fs::hard_link(&draft, &path);
    fs::remove_file(&draft)?;
    linked
}

/// One message of an mbox file: line ends LF, lines that could begin another one quoted.
fn mbox_entry(from: &str, at: &str, octets: &[u8]) -> Vec<u8> {
    let mut text = format!("From {from} {at}\n").into_bytes();
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let quoted = line.iter().position(|&octet| octet != b'>').unwrap_or(line.len());
        if line[quoted..].starts_with(b"From ") {
            text.push(b'>');
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mbox_quotes_what_could_begin_a_message() {
        let text =
            mbox_entry("a@b.example", "now", b"S: x\r\n\r\nFrom me\r\n>From you\r\nFromm\r\n");
        let expected = "From a@b.example now\nS: x\n\n>From me\n>>From you\nFromm\n\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_file_is_written_whole_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        write_whole(directory.path(), "a.eml", b"one").unwrap();
        let again = write_whole(directory.path(), "a.eml", b"two").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(directory.path().join("a.eml")).unwrap(), b"one");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no draft is left");
    }
}
