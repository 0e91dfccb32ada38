//! What was in force, kept as the texts of the files, newest last.
//!
//! Each state is one file `NUMBER-FINGERPRINT.json`, put in place whole or not at all, so that
//! none is ever half there. The number is the revision that people speak of.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use mailroot_common::config::ServerName;
use mailroot_common::control::{ConfigFiles, Revision};
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::files::Files;
use super::paths::Paths;

/// How many states are kept.
const STATES_MAX: usize = 200;

/// The largest state: every file at its largest, with room for what JSON adds.
const STATE_OCTETS_MAX: u64 = 1 << 30;

/// Who made a state, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    #[serde(default)]
    pub at: Timestamp,
    /// Who.
    #[serde(default)]
    pub who: String,
    /// By which way, as [`Revision::how`] says.
    #[serde(default)]
    pub how: String,
    /// What changed against the state before.
    #[serde(default)]
    pub changes: Vec<String>,
    /// What the person said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A state as it is kept.
#[derive(Serialize, Deserialize)]
struct State {
    service: String,
    servers: BTreeMap<ServerName, String>,
    #[serde(default)]
    note: Note,
}

/// A kept state: its number, its fingerprint, its file.
struct Kept {
    number: u64,
    fingerprint: String,
    path: PathBuf,
}

/// The kept states, oldest first.
fn kept(paths: &Paths) -> Vec<Kept> {
    let history = paths.history();
    let names = paths.disk.list(&history).unwrap_or_default();
    let mut out: Vec<Kept> = names
        .iter()
        .filter_map(|name| {
            let (number, fingerprint) = name.to_str()?.strip_suffix(".json")?.split_once('-')?;
            Some(Kept {
                number: number.parse().ok()?,
                fingerprint: fingerprint.to_owned(),
                path: history.join(name),
            })
        })
        .collect();
    out.sort_by_key(|kept| kept.number);
    out
}

fn read(paths: &Paths, kept: &Kept) -> Option<State> {
    let octets = paths.disk.read(&kept.path, STATE_OCTETS_MAX).ok()?;
    serde_json::from_slice(&octets).ok()
}

fn files(paths: &Paths, state: State) -> Files {
    let server = |(name, text): (ServerName, String)| {
        let file = paths.server_file(&name);
        (name, (file, text))
    };
    Files {
        service: (paths.service_file.clone(), state.service),
        servers: state.servers.into_iter().map(server).collect(),
    }
}

/// The number of the newest state; 0 if there is none.
pub(super) fn newest(paths: &Paths) -> u64 {
    kept(paths).last().map_or(0, |kept| kept.number)
}

/// The newest state that can be read.
pub(super) fn latest(paths: &Paths) -> Option<(u64, Files)> {
    kept(paths).iter().rev().find_map(|kept| Some((kept.number, files(paths, read(paths, kept)?))))
}

/// The state with this number.
pub(super) fn state(paths: &Paths, number: u64) -> Option<Files> {
    let all = kept(paths);
    let found = all.iter().find(|kept| kept.number == number)?;
    Some(files(paths, read(paths, found)?))
}

/// The texts of the state with this number.
#[must_use]
pub fn texts(paths: &Paths, number: u64) -> Option<ConfigFiles> {
    state(paths, number).map(|files| files.texts(number))
}

/// The states, newest first, at most `limit`.
#[must_use]
pub fn revisions(paths: &Paths, limit: usize) -> Vec<Revision> {
    let revision = |kept: &Kept| {
        let Note { at, who, how, changes, message } = read(paths, kept)?.note;
        Some(Revision { revision: kept.number, at, who, how, changes, message })
    };
    kept(paths).iter().rev().filter_map(revision).take(limit).collect()
}

/// Keeps a state, unless it is the newest one already; its number.
pub(super) fn keep(paths: &Paths, state: &Files, note: Note) -> io::Result<u64> {
    let (disk, history) = (&paths.disk, paths.history());
    let (states, fingerprint) = (kept(paths), state.fingerprint());
    if let Some(newest) = states.last().filter(|newest| newest.fingerprint == fingerprint) {
        return Ok(newest.number);
    }
    let number = states.last().map_or(1, |newest| newest.number + 1);
    let text = |(name, (_, text)): (&ServerName, &(PathBuf, String))| (name.clone(), text.clone());
    let service = state.service.1.clone();
    let servers = state.servers.iter().map(text).collect();
    let octets = serde_json::to_vec(&State { service, servers, note }).map_err(io::Error::other)?;
    disk.create_dir_all(&history)?;
    let name = format!("{number:06}-{fingerprint}.json");
    disk.replace(&history.join(name), &history.join(".draft"), &octets)?;
    let surplus = (states.len() + 1).saturating_sub(STATES_MAX);
    for old in states.iter().take(surplus) {
        disk.unlink(&old.path)?;
    }
    Ok(number)
}
