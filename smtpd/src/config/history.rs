//! What was in force, kept as the octets of the files, newest last.
//!
//! Each state is a directory `NUMBER-REVISION` with the files as they were. It is written under
//! another name, synced and renamed, so that a state is there whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::load::Files;

/// How many states are kept.
const STATES_MAX: usize = 200;

const SERVICE_FILE: &str = "mailroot.yaml";
const SERVERS_DIR: &str = "servers.d";

/// The numbers and directories of the states, oldest first.
fn states(history: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(history).into_iter().flatten().flatten();
    let mut out: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (number, _) = name.split_once('-')?;
            Some((number.parse().ok()?, entry.path()))
        })
        .collect();
    out.sort();
    out
}

/// The service file and the servers' directory of the newest state.
pub(super) fn latest(history: &Path) -> Option<(PathBuf, PathBuf)> {
    let (_, newest) = states(history).pop()?;
    Some((newest.join(SERVICE_FILE), newest.join(SERVERS_DIR)))
}

/// Keeps a state, unless it is the newest one already.
pub(super) fn keep(history: &Path, files: &Files, revision: &str) -> io::Result<()> {
    let states = states(history);
    let newest = states.last();
    if newest.is_some_and(|(_, path)| path.as_os_str().to_string_lossy().ends_with(revision)) {
        return Ok(());
    }
    let number = newest.map_or(1, |(number, _)| number + 1);
    fs::create_dir_all(history)?;
    let draft = history.join(".draft");
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    let servers = draft.join(SERVERS_DIR);
    fs::create_dir_all(&servers)?;
    write(&draft.join(SERVICE_FILE), &files.service.1)?;
    for (name, (_, text)) in &files.servers {
        write(&servers.join(format!("{name}.yaml")), text)?;
    }
    sync_dir(&servers)?;
    sync_dir(&draft)?;
    fs::rename(&draft, history.join(format!("{number:06}-{revision}")))?;
    sync_dir(history)?;
    let surplus = (states.len() + 1).saturating_sub(STATES_MAX);
    for (_, old) in states.iter().take(surplus) {
        fs::remove_dir_all(old)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
