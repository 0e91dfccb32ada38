//! The three files of each message in Badmail: `NAME.eml`, `NAME.envelope`, `NAME.reason`.
//!
//! A message is there when its `.eml` is: that one is renamed into place last and removed first.
//! Everything here blocks.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};

use mailroot_common::units::Timestamp;

use super::record::Record;
use crate::directory::{Directory, FileKind};

/// Operators, the directory's group, read; nobody else does.
pub(super) const FILE_MODE: u32 = 0o640;
/// No envelope or reason file that we wrote is larger.
const TEXT_OCTETS_MAX: u64 = 8 << 20;
/// What a crash left half-written may be removed after this long, in milliseconds.
const LEFTOVER_MILLIS: u64 = 3_600_000;

/// The name a message has while it is written; it does not end in `.eml`.
pub(super) fn temporary(name: &str) -> String {
    format!(".{name}.tmp")
}

/// Puts the message that was written under its temporary name, and what is known of it, into
/// place, durably.
pub(super) fn commit(directory: &Directory, record: &Record, message: &File) -> io::Result<()> {
    let name = record.name();
    message.sync_all()?;
    let json = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
    for (ending, text) in [("envelope", &json[..]), ("reason", record.report().as_bytes())] {
        let temporary = format!(".{name}.{ending}");
        let mut file = directory.create(&temporary, FILE_MODE)?;
        file.write_all(text)?;
        file.sync_all()?;
        let last = format!("{name}.{ending}");
        directory.replace(OsStr::new(&temporary), directory, OsStr::new(&last))?;
    }
    let last = format!("{name}.eml");
    directory.replace(OsStr::new(&temporary(&name)), directory, OsStr::new(&last))?;
    directory.sync()
}

/// A message that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    /// Octets of its three files.
    pub(super) size: u64,
    pub(super) at: Timestamp,
}

/// Every message with the octets of its files, oldest first.
pub(super) fn survey(directory: &Directory) -> io::Result<Vec<Found>> {
    let mut sizes: HashMap<String, u64> = HashMap::new();
    let mut found = Vec::new();
    directory.each_name(|file| {
        let Some((name, ending)) = file.to_str().and_then(|file| file.rsplit_once('.')) else {
            return true;
        };
        let is_ours = !name.starts_with('.') && matches!(ending, "eml" | "envelope" | "reason");
        // What vanished in the meantime is not there.
        if is_ours
            && let Ok(facts) = directory.facts(&file)
            && facts.kind == FileKind::Regular
        {
            *sizes.entry(name.to_owned()).or_default() += facts.size;
            if ending == "eml" {
                found.push((name.to_owned(), Timestamp::from_millis(facts.modified_millis)));
            }
        }
        true
    })?;
    let with_size = |(name, at): (String, Timestamp)| {
        let size = sizes.get(&name).copied().unwrap_or(0);
        Found { name, size, at }
    };
    let mut found: Vec<Found> = found.into_iter().map(with_size).collect();
    found.sort_unstable_by(|a, b| (a.at, &a.name).cmp(&(b.at, &b.name)));
    Ok(found)
}

/// The names of all messages, newest id first.
pub(super) fn names(directory: &Directory) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    directory.each_name(|file| {
        let name = file.to_str().and_then(|file| file.strip_suffix(".eml"));
        names.extend(name.filter(|name| !name.starts_with('.')).map(str::to_owned));
        true
    })?;
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

/// What is known of a message; `None` if its `.envelope` is missing or not ours.
pub(super) fn record(directory: &Directory, name: &str) -> Option<Record> {
    serde_json::from_slice(&text(directory, name, "envelope").ok()?).ok()
}

/// The `.reason` file.
pub(super) fn report(directory: &Directory, name: &str) -> String {
    let octets = text(directory, name, "reason").unwrap_or_default();
    String::from_utf8_lossy(&octets).into_owned()
}

fn text(directory: &Directory, name: &str, ending: &str) -> io::Result<Vec<u8>> {
    let file = directory.read(OsStr::new(&format!("{name}.{ending}")))?;
    let mut octets = Vec::new();
    file.take(TEXT_OCTETS_MAX).read_to_end(&mut octets)?;
    Ok(octets)
}

/// Removes a message: from here on it is not there, whatever happens to the other two files.
pub(super) fn remove(directory: &Directory, name: &str) -> io::Result<()> {
    for ending in ["eml", "reason", "envelope"] {
        directory.remove(OsStr::new(&format!("{name}.{ending}")))?;
    }
    Ok(())
}

/// Removes what a crash left: dot-files, and envelopes and reasons without their message.
pub(super) fn remove_leftovers(directory: &Directory, now: Timestamp) -> io::Result<()> {
    let mut leftovers = Vec::new();
    directory.each_name(|file| {
        let Some((name, ending)) = file.to_str().and_then(|file| file.rsplit_once('.')) else {
            return true;
        };
        let is_part = name.starts_with('.') && matches!(ending, "tmp" | "envelope" | "reason");
        let is_alone = matches!(ending, "envelope" | "reason")
            && directory.facts(OsStr::new(&format!("{name}.eml"))).is_err();
        if (is_part || is_alone)
            && let Ok(facts) = directory.facts(&file)
            && facts.kind == FileKind::Regular
            && now.as_millis().saturating_sub(facts.changed_millis) > LEFTOVER_MILLIS
        {
            leftovers.push(file);
        }
        true
    })?;
    leftovers.iter().try_for_each(|file| directory.remove(file))
}
