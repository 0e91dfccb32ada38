//! A change of one or several files, made whole also where power is lost in between.
//!
//! One file is replaced by a rename. For several, what is to be written is first written down and
//! synced (`config.pending`); a start that finds it finishes the work before it reads anything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use mailroot_common::config::ServerName;
use serde::{Deserialize, Serialize};

use super::files::Files;
use super::first_start::draft;
use super::paths::Paths;
use crate::disk::{Disk, Open};

/// Permissions of a new file: the package's.
const MODE: u32 = 0o660;
/// The largest note of what is to be written.
const PENDING_OCTETS_MAX: u64 = 1 << 30;

/// What is to be written. A server without a text is to go.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Pending {
    service: Option<String>,
    servers: BTreeMap<ServerName, Option<String>>,
    /// Mail roots that get another name with it.
    #[serde(default)]
    moves: Vec<Move>,
}

/// A directory and the name it gets.
pub(super) type Move = (PathBuf, PathBuf);

/// Why a change was not written, and where.
#[derive(Debug)]
pub(super) struct WriteError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Makes the files be `after`, of which `before` lies there, and moves directories. Durable when it
/// returns. After an error either nothing has changed, or the next start finishes the change.
pub(super) fn write(
    paths: &Paths,
    before: &Files,
    after: &Files,
    moves: Vec<Move>,
) -> Result<(), WriteError> {
    let pending = Pending { moves, ..Pending::between(before, after) };
    let steps =
        usize::from(pending.service.is_some()) + pending.servers.len() + pending.moves.len();
    if steps > 1 {
        let path = paths.pending();
        let octets = serde_json::to_vec(&pending).map_err(io::Error::other);
        octets
            .and_then(|octets| paths.disk.replace(&path, &draft(&path), &octets))
            .map_err(|source| WriteError { path, source })?;
    }
    pending.carry_out(paths)?;
    if steps > 1 { forget(paths) } else { Ok(()) }
}

/// Finishes a change that was broken off.
pub(super) fn finish(paths: &Paths) -> io::Result<()> {
    let octets = match paths.disk.read(&paths.pending(), PENDING_OCTETS_MAX) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let pending: Pending = serde_json::from_slice(&octets).map_err(io::Error::other)?;
    let done = pending.carry_out(paths).and_then(|()| forget(paths));
    done.map_err(|WriteError { path, source }| {
        io::Error::new(source.kind(), format!("{}: {source}", path.display()))
    })
}

fn forget(paths: &Paths) -> Result<(), WriteError> {
    let path = paths.pending();
    let gone = paths.disk.unlink(&path).and_then(|()| paths.disk.sync_dir(&paths.state));
    gone.map_err(|source| WriteError { path, source })
}

impl Pending {
    fn between(before: &Files, after: &Files) -> Self {
        let mut servers = BTreeMap::new();
        for (name, (_, text)) in &after.servers {
            if before.servers.get(name).is_none_or(|(_, old)| old != text) {
                servers.insert(name.clone(), Some(text.clone()));
            }
        }
        let gone = before.servers.keys().filter(|name| !after.servers.contains_key(*name));
        servers.extend(gone.map(|name| (name.clone(), None)));
        let service = (before.service.1 != after.service.1).then(|| after.service.1.clone());
        Self { service, servers, moves: Vec::new() }
    }

    /// Writes what is new before it removes what is old.
    fn carry_out(&self, paths: &Paths) -> Result<(), WriteError> {
        let disk = &paths.disk;
        for (from, to) in &self.moves {
            rename(disk, from, to).map_err(|source| WriteError { path: to.clone(), source })?;
        }
        let service = self.service.as_ref().map(|text| (paths.service_file.clone(), text));
        let servers = self
            .servers
            .iter()
            .filter_map(|(name, text)| Some((paths.server_file(name), text.as_ref()?)));
        for (path, text) in service.into_iter().chain(servers) {
            replace(disk, &path, text).map_err(|source| WriteError { path, source })?;
        }
        let gone = self.servers.iter().filter(|(_, text)| text.is_none());
        for path in gone.map(|(name, _)| paths.server_file(name)) {
            match disk.unlink(&path).and_then(|()| disk.sync_dir(&paths.servers_dir)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(WriteError { path, source }),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Gives a directory another name, unless it has it already.
fn rename(disk: &Disk, from: &Path, to: &Path) -> io::Result<()> {
    if disk.metadata(from).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    disk.rename(from, to)?;
    for path in [from, to] {
        disk.sync_dir(path.parent().unwrap_or_else(|| Path::new("/")))?;
    }
    Ok(())
}

/// Puts a text in the place of a file: there is the old one or the new one at any moment. Its
/// permissions stay; a new file has those of the package's.
fn replace(disk: &Disk, path: &Path, text: &str) -> io::Result<()> {
    let mode = disk.metadata(path).map_or(MODE, |old| old.mode & 0o777);
    let draft = draft(path);
    let written = (|| {
        match disk.unlink(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.open(&draft, Open::CreateNew)?;
        disk.set_mode(&draft, mode)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.sync_all()?;
        disk.rename(&draft, path)
    })();
    if written.is_err() {
        // The first error is the one to tell; a draft left behind is read by nobody.
        disk.unlink(&draft).unwrap_or_default();
    }
    written?;
    disk.sync_dir(path.parent().unwrap_or_else(|| Path::new("/")))
}
