//! Where log lines are read: a file, from its end backwards, or the journal by `journalctl`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use mailroot_common::control::{Kind, Problem};
use mailroot_common::units::Timestamp;
use serde::Deserialize;

use super::entry::{Entry, Importance};

/// How much of a file is read at once.
const PIECE_OCTETS: u64 = 64 << 10;
/// A longer line is cut: none of ours comes near it.
const LINE_OCTETS_MAX: usize = 256 << 10;
/// How often a file that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Where the log is.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In a file.
    File(PathBuf),
    /// In the journal, as that of a unit.
    Journal(String),
}

/// Where following begins.
pub(super) enum Mark {
    File { file: File, at: u64 },
    Journal { cursor: Option<String>, since: Timestamp },
}

impl Source {
    /// Tells the lines there are, the newest first, until `each` has enough.
    pub(super) fn newest_first(
        &self,
        now: Timestamp,
        each: &mut dyn FnMut(Entry) -> bool,
    ) -> Result<Mark, Problem> {
        match self {
            Self::File(path) => {
                let file = File::open(path).map_err(|error| unread(path, &error))?;
                let at = backwards(&file, each).map_err(|error| unread(path, &error))?;
                Ok(Mark::File { file, at })
            }
            Self::Journal(unit) => {
                let mut cursor = None;
                journal(unit, &["--reverse"], &mut |record| {
                    let entry = record.entry();
                    cursor.get_or_insert(record.cursor);
                    Ok(each(entry))
                })?;
                Ok(Mark::Journal { cursor, since: now })
            }
        }
    }

    /// Tells the lines behind a mark, and those that come, until `each` wants no more.
    pub(super) fn follow(
        &self,
        mark: Mark,
        each: &mut dyn FnMut(Entry) -> Result<bool, Problem>,
    ) -> Result<(), Problem> {
        match (self, mark) {
            (Self::File(path), Mark::File { file, at }) => follow_file(path, file, at, each),
            (Self::Journal(unit), Mark::Journal { cursor, since }) => {
                let begin = match cursor {
                    Some(cursor) => format!("--after-cursor={cursor}"),
                    None => format!("--since=@{}", since.as_millis() / 1_000),
                };
                journal(unit, &["--follow", "--no-tail", &begin], &mut |record| {
                    each(record.entry())
                })
            }
            // A source gives marks of its own kind.
            _ => Ok(()),
        }
    }
}

fn unread(path: &Path, error: &io::Error) -> Problem {
    let detail = format!("cannot read the log {}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => Problem::new("logs", Kind::NotPermitted, detail)
            .hint("use sudo, or have yourself added to the group that may read it"),
        io::ErrorKind::NotFound => Problem::new("logs", Kind::NotFound, detail)
            .hint("if it was moved away: smtpctl logs reopen"),
        _ => Problem::new("logs", Kind::Failed, detail),
    }
}

fn entry_of(octets: &[u8]) -> Entry {
    let octets = octets.strip_suffix(b"\r").unwrap_or(octets);
    Entry::read(&String::from_utf8_lossy(octets))
}

/// Tells the lines of a file from its end on; where its end was.
fn backwards(mut file: &File, each: &mut dyn FnMut(Entry) -> bool) -> io::Result<u64> {
    let end = file.metadata()?.len();
    // What is not ended by LF is being written; whoever follows sees it whole.
    let (mut at, mut rest, mut whole_to) = (end, Vec::new(), None);
    while at > 0 {
        let size = PIECE_OCTETS.min(at);
        at -= size;
        let mut piece = vec![0; usize::try_from(size).unwrap_or_default()];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut piece)?;
        piece.extend_from_slice(&rest);
        let mut upto = piece.len();
        while let Some(place) = piece[..upto].iter().rposition(|&octet| octet == b'\n') {
            let line = &piece[place + 1..upto];
            match whole_to {
                None => whole_to = Some(at + place as u64 + 1),
                Some(_) if !each(entry_of(line)) => return Ok(whole_to.unwrap_or(end)),
                Some(_) => {}
            }
            upto = place;
        }
        piece.truncate(upto.min(LINE_OCTETS_MAX));
        rest = piece;
    }
    if whole_to.is_some() && !rest.is_empty() {
        each(entry_of(&rest));
    }
    Ok(whole_to.unwrap_or(0))
}

/// Tells the lines of a file as they are written, also into one that takes its name.
fn follow_file(
    path: &Path,
    file: File,
    at: u64,
    each: &mut dyn FnMut(Entry) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    let failed = |error: io::Error| unread(path, &error);
    let mut reader = BufReader::new(file);
    reader.seek(SeekFrom::Start(at)).map_err(failed)?;
    let (mut line, mut next) = (Vec::new(), None);
    loop {
        let room = (LINE_OCTETS_MAX + 1).saturating_sub(line.len()) as u64;
        let read = reader.by_ref().take(room).read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() == Some(&b'\n') || line.len() > LINE_OCTETS_MAX {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            if !each(entry_of(text))? {
                return Ok(());
            }
            line.clear();
        } else if read == 0 {
            match next.take() {
                // Nobody writes into the old one any more: what is there now is all of it.
                Some(next) => {
                    reader = BufReader::new(next);
                    line.clear();
                }
                None => {
                    next = successor(path, reader.get_ref()).map_err(failed)?;
                    if next.is_none() {
                        std::thread::sleep(LOOK_EVERY);
                    }
                }
            }
        }
    }
}

/// The file that has taken the name, or this one from its beginning if it was emptied.
fn successor(path: &Path, file: &File) -> io::Result<Option<File>> {
    let own = file.metadata()?;
    let there = match std::fs::metadata(path) {
        Ok(there) => there,
        // It was moved away, and the next is not there yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut own_handle = file;
    // Where whoever moves it makes the next one, the old one is written to until that is opened.
    let is_other = (there.dev(), there.ino()) != (own.dev(), own.ino()) && there.len() > 0;
    if is_other || own.len() < own_handle.stream_position()? {
        return File::open(path).map(Some);
    }
    Ok(None)
}

/// A record of the journal, as `journalctl --output=json` prints it.
#[derive(Deserialize)]
struct Record {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: String,
    #[serde(rename = "PRIORITY", default)]
    priority: Option<String>,
    #[serde(rename = "MESSAGE", default)]
    message: Words,
}

/// Text, or the octets of what is no text.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    Octets(Vec<u8>),
    #[default]
    Nothing,
}

impl Record {
    fn entry(&self) -> Entry {
        let mut entry = match &self.message {
            Words::Text(text) => Entry::read(text),
            Words::Octets(octets) => entry_of(octets),
            Words::Nothing => Entry::read(""),
        };
        let micros = self.micros.parse::<u64>().ok();
        entry.at = micros.map(|micros| Timestamp::from_millis(micros / 1_000)).or(entry.at);
        if let Some(severity) = self.priority.as_ref().and_then(|text| text.parse().ok()) {
            entry.level = Importance::of_severity(severity);
        }
        entry
    }
}

/// A program that ends with whoever reads it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tells what `journalctl` prints until `each` wants no more.
fn journal(
    unit: &str,
    options: &[&str],
    each: &mut dyn FnMut(Record) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    let failed = |detail: String| Problem::new("logs", Kind::Failed, detail);
    let mut command = Command::new("journalctl");
    command.args(["--output=json", "--all", "--no-pager"]).args(options);
    command.arg(format!("--unit={unit}")).stdin(Stdio::null());
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = spawned.map_err(|error| failed(format!("cannot start journalctl: {error}")))?;
    let mut running = Running(child);
    let Some(out) = running.0.stdout.take() else { return Ok(()) };
    let mut told = 0_u64;
    let mut count = |record| {
        told += 1;
        each(record)
    };
    if !records(out, &mut count)? {
        return Ok(());
    }
    let ended = running.0.wait().map_err(|error| failed(format!("journalctl: {error}")))?;
    let mut words = String::new();
    if let Some(errors) = &mut running.0.stderr {
        // Without its words its exit code has to do.
        let _ = errors.take(PIECE_OCTETS).read_to_string(&mut words);
    }
    judge(ended.success(), told, &words).map_err(|kind| {
        let first = words.lines().next().unwrap_or_default();
        let problem = Problem::new("logs", kind, format!("journalctl ended with {ended}: {first}"));
        match kind {
            Kind::NotPermitted => {
                problem.hint("use sudo, or have yourself added to the group systemd-journal")
            }
            _ => problem,
        }
    })
}

/// What is wrong, by what `journalctl` said. It succeeds with nothing to tell and a hint where one may
/// not read what the system's services wrote.
fn judge(has_succeeded: bool, told: u64, words: &str) -> Result<(), Kind> {
    let is_barred = words.contains("permission") || words.contains("not seeing messages from");
    match (has_succeeded, is_barred) {
        (true, true) if told == 0 => Err(Kind::NotPermitted),
        (true, _) => Ok(()),
        (false, true) => Err(Kind::NotPermitted),
        (false, false) => Err(Kind::Failed),
    }
}

/// Whether it was read to its end.
fn records(
    out: ChildStdout,
    each: &mut dyn FnMut(Record) -> Result<bool, Problem>,
) -> Result<bool, Problem> {
    let mut reader = BufReader::new(out);
    let mut line = Vec::new();
    loop {
        line.clear();
        // What --all shows whole has the journal's own bounds.
        let read = reader.read_until(b'\n', &mut line);
        let read = read.map_err(|error| {
            Problem::new("logs", Kind::Failed, format!("cannot read from journalctl: {error}"))
        })?;
        if read == 0 {
            return Ok(true);
        }
        // Lines of its own, such as that it was rotated, are no records.
        if let Ok(record) = serde_json::from_slice::<Record>(&line)
            && !each(record)?
        {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(path: &Path, most: usize) -> (Vec<String>, Mark) {
        let mut found = Vec::new();
        let mark =
            Source::File(path.to_owned()).newest_first(Timestamp::from_millis(0), &mut |it| {
                found.push(it.event.unwrap_or_default());
                found.len() < most
            });
        (found, mark.unwrap())
    }

    #[test]
    fn a_file_is_read_from_its_end_and_followed_over_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut text: String = (0..5_000).map(|number| format!("event=e{number} a=b\n")).collect();
        text.push_str("event=half");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(lines(&path, 2).0, ["e4999", "e4998"]);
        let (all, mark) = lines(&path, usize::MAX);
        assert_eq!((all.len(), all.last().map(String::as_str)), (5_000, Some("e0")));
        let write = |text: &str| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        write(" c=d\nevent=last\n");
        let mut heard = Vec::new();
        Source::File(path.clone())
            .follow(mark, &mut |entry| {
                heard.push(entry.event.unwrap_or_default());
                if heard.len() == 2 {
                    std::fs::rename(&path, dir.path().join("log.1")).unwrap();
                    write("event=fresh\n");
                }
                Ok(heard.len() < 3)
            })
            .unwrap();
        assert_eq!(heard, ["half", "last", "fresh"]);
        let problem = Source::File(dir.path().join("none"))
            .newest_first(Timestamp::from_millis(0), &mut |_| true);
        assert_eq!(problem.err().unwrap().exit, 3);
    }

    #[test]
    fn the_next_file_is_gone_to_when_it_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "event=old\n").unwrap();
        let old = File::open(&path).unwrap();
        assert!(successor(&path, &old).unwrap().is_none());
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert!(successor(&path, &old).unwrap().is_none());
        std::fs::write(&path, "").unwrap();
        assert!(successor(&path, &old).unwrap().is_none());
        std::fs::write(&path, "event=new\n").unwrap();
        assert!(successor(&path, &old).unwrap().is_some());
    }

    #[test]
    fn whoever_may_not_read_the_journal_is_told() {
        let hint = "Hint: You are currently not seeing messages from other users and the system.\n";
        let none = "No journal files were opened due to insufficient permissions.\n";
        for (has_succeeded, told, words, expected) in [
            (true, 0, "", Ok(())),
            (true, 0, hint, Err(Kind::NotPermitted)),
            (true, 0, none, Err(Kind::NotPermitted)),
            (true, 2, hint, Ok(())),
            (false, 0, none, Err(Kind::NotPermitted)),
            (false, 0, "Failed to add match\n", Err(Kind::Failed)),
        ] {
            assert_eq!(judge(has_succeeded, told, words), expected, "{words}");
        }
    }

    #[test]
    fn a_record_of_the_journal_has_its_own_moment_and_importance() {
        let record = |message: &str| {
            let text = format!(
                "{{\"__CURSOR\":\"c\",\"__REALTIME_TIMESTAMP\":\"1763000000123456\",\
                 \"PRIORITY\":\"4\",\"MESSAGE\":{message}}}"
            );
            serde_json::from_str::<Record>(&text).unwrap().entry()
        };
        let entry = record("\"event=reject client=10.1.0.7\"");
        assert_eq!(entry.at, Some(Timestamp::from_millis(1_763_000_000_123)));
        assert_eq!((entry.event.as_deref(), entry.level), (Some("reject"), Importance::Warn));
        assert_eq!(record("[101,118,101,110,116,61,120]").event.as_deref(), Some("x"));
        assert_eq!(record("null").event, None);
    }
}
