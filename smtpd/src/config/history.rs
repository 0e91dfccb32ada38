//! What was in force, kept as the texts of the files, newest last.
//!
//! Each state is one file `NUMBER-REVISION.json`, put in place whole or not at all, so that none
//! is ever half there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mailroot_common::config::ServerName;
use serde::{Deserialize, Serialize};

use super::load::Files;
use super::paths::Paths;
use crate::disk::Disk;

/// How many states are kept.
const STATES_MAX: usize = 200;

/// The largest state: every file at its largest, with room for what JSON adds.
const STATE_OCTETS_MAX: u64 = 1 << 30;

/// A state as it is kept.
#[derive(Serialize, Deserialize)]
struct State {
    service: String,
    servers: BTreeMap<ServerName, String>,
}

/// The numbers and files of the states, oldest first.
fn states(disk: &Disk, history: &Path) -> Vec<(u64, PathBuf)> {
    let names = disk.list(history).unwrap_or_default();
    let mut out: Vec<(u64, PathBuf)> = names
        .iter()
        .filter_map(|name| {
            let (number, _) = name.to_str()?.strip_suffix(".json")?.split_once('-')?;
            Some((number.parse().ok()?, history.join(name)))
        })
        .collect();
    out.sort();
    out
}

/// The newest state that can be read.
pub(super) fn latest(paths: &Paths) -> Option<Files> {
    states(&paths.disk, &paths.history()).iter().rev().find_map(|(_, path)| {
        let octets = paths.disk.read(path, STATE_OCTETS_MAX).ok()?;
        let state: State = serde_json::from_slice(&octets).ok()?;
        let server = |(name, text): (ServerName, String)| {
            let file = paths.server_file(&name);
            (name, (file, text))
        };
        Some(Files {
            service: (paths.service_file.clone(), state.service),
            servers: state.servers.into_iter().map(server).collect(),
        })
    })
}

/// Keeps a state, unless it is the newest one already.
pub(super) fn keep(paths: &Paths, files: &Files, revision: &str) -> io::Result<()> {
    let (disk, history) = (&paths.disk, paths.history());
    let states = states(disk, &history);
    let newest = states.last();
    let suffix = format!("-{revision}.json");
    if newest.is_some_and(|(_, path)| path.as_os_str().to_string_lossy().ends_with(&suffix)) {
        return Ok(());
    }
    let number = newest.map_or(1, |(number, _)| number + 1);
    let text = |(name, (_, text)): (&ServerName, &(PathBuf, String))| (name.clone(), text.clone());
    let state = State {
        service: files.service.1.clone(),
        servers: files.servers.iter().map(text).collect(),
    };
    let octets = serde_json::to_vec(&state).map_err(io::Error::other)?;
    disk.create_dir_all(&history)?;
    disk.replace(&history.join(format!("{number:06}{suffix}")), &history.join(".draft"), &octets)?;
    let surplus = (states.len() + 1).saturating_sub(STATES_MAX);
    for (_, old) in states.iter().take(surplus) {
        disk.unlink(old)?;
    }
    Ok(())
}
