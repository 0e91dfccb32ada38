//! Changes of the configuration: validated whole, written durably, or not made at all.
//!
//! A change goes: lock; read the files, which must be good as they lie there (an edit by hand is
//! adopted by that); edit one text; check all texts together; and only then write: a temporary
//! file, synced, renamed over the old one, and the directory synced. What fails before the rename
//! leaves every file as it was.

use std::io;
use std::path::{Path, PathBuf};

use mailroot_common::address::Domain;
use mailroot_common::config::{DomainKind, DomainName, ServerConfig, ServerName};

use super::edit::{self, RemoteDomainSpec, ServerSpec, TextError};
use super::first_start::draft;
use super::load::{Failed, Files, Loaded, check};
use super::paths::Paths;
use crate::disk::{Disk, File, Kind, Open};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The files are broken as they lie there.
    #[error("the configuration files have errors; correct them first\n\n{0}")]
    Broken(Failed),
    /// The configuration would be refused with the change.
    #[error("the change would make the configuration wrong\n\n{0}")]
    Refused(Failed),
    /// There is no such server.
    #[error("there is no virtual server {0}")]
    NoServer(ServerName),
    /// There is such a server.
    #[error("there is a virtual server {0} already")]
    ServerExists(ServerName),
    /// The server has no such domain.
    #[error("server {server} has no domain {domain}")]
    NoDomain {
        /// The server.
        server: ServerName,
        /// What was asked for.
        domain: DomainName,
    },
    /// The server has the domain.
    #[error("server {server} has the domain {domain} already")]
    DomainExists {
        /// The server.
        server: ServerName,
        /// What was asked for.
        domain: DomainName,
    },
    /// The default domain stays.
    #[error("{domain} is the default domain of server {server} and cannot be removed")]
    DefaultDomain {
        /// The server.
        server: ServerName,
        /// Its default domain.
        domain: DomainName,
    },
    /// The file has a form that cannot be edited without risk.
    #[error("cannot edit {}: {reason}; change it by hand and reload", .path.display())]
    ByHand {
        /// The file.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
    },
    /// Another change is under way.
    #[error("another change of the configuration is under way; try again")]
    Busy,
    /// The file could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Changes the files of one configuration.
#[derive(Clone, Debug)]
pub struct Editor {
    paths: Paths,
}

/// A change that was found good and is not made yet. Dropping it leaves everything as it was.
#[derive(Debug)]
pub struct Change {
    /// The configuration with the change.
    pub loaded: Loaded,
    /// The file that changes.
    pub file: PathBuf,
    /// The lines that change, in the form of `diff -u`.
    pub diff: String,
    text: String,
    paths: Paths,
    // Held until the change is made or dropped.
    _lock: File,
}

impl Editor {
    /// An editor of these files.
    #[must_use]
    pub fn new(paths: Paths) -> Self {
        Self { paths }
    }

    /// Makes `domain` another name of the server's default domain.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn add_alias_domain(
        &self,
        server: &ServerName,
        domain: &Domain,
    ) -> Result<Change, EditError> {
        let name = DomainName::Exact(domain.clone());
        self.add_domain(server, &name, &edit::alias_entry(domain))
    }

    /// Gives mail for another's domain rules of its own.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn add_remote_domain(
        &self,
        server: &ServerName,
        spec: &RemoteDomainSpec,
    ) -> Result<Change, EditError> {
        self.add_domain(server, &spec.name, &edit::remote_entry(spec))
    }

    fn add_domain(
        &self,
        server: &ServerName,
        name: &DomainName,
        entry: &str,
    ) -> Result<Change, EditError> {
        let (lock, loaded) = self.begin()?;
        let config = find(&loaded, server)?;
        if config.domains.iter().any(|entry| entry.name == *name) {
            return Err(EditError::DomainExists { server: server.clone(), domain: name.clone() });
        }
        let span = config.origins.span("domains");
        self.change(lock, loaded, server, |text| edit::add_domain(text, entry, span))
    }

    /// Removes an alias or a remote domain.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn remove_domain(
        &self,
        server: &ServerName,
        name: &DomainName,
    ) -> Result<Change, EditError> {
        let (lock, loaded) = self.begin()?;
        let config = find(&loaded, server)?;
        let known = || (server.clone(), name.clone());
        let Some(number) = config.domains.iter().position(|entry| entry.name == *name) else {
            let (server, domain) = known();
            return Err(EditError::NoDomain { server, domain });
        };
        if matches!(config.domains[number].kind, DomainKind::Default(_)) {
            let (server, domain) = known();
            return Err(EditError::DefaultDomain { server, domain });
        }
        let span = config.origins.span(&format!("domains[{number}]"));
        self.change(lock, loaded, server, |text| edit::remove_domain(text, number, span))
    }

    /// Writes the file of a new server.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn create_server(&self, name: &ServerName, spec: &ServerSpec) -> Result<Change, EditError> {
        let (lock, loaded) = self.begin()?;
        if loaded.servers.contains_key(name) {
            return Err(EditError::ServerExists(name.clone()));
        }
        let text = edit::server_text(name.as_str(), spec);
        self.validate(lock, loaded.files, name, text)
    }

    /// Takes the lock and reads the files as they lie there.
    fn begin(&self) -> Result<(File, Loaded), EditError> {
        let (disk, path) = (&self.paths.disk, self.paths.lock());
        let locked = disk
            .create_dir_all(&self.paths.state)
            .and_then(|()| disk.open(&path, Open::Create))
            .and_then(|file| Ok((file.try_lock()?, file)));
        let lock = match locked {
            Ok((true, lock)) => lock,
            Ok((false, _)) => return Err(EditError::Busy),
            Err(source) => return Err(EditError::Write { path, source }),
        };
        let loaded = super::load(&self.paths).map_err(EditError::Broken)?;
        Ok((lock, loaded))
    }

    fn change(
        &self,
        lock: File,
        loaded: Loaded,
        server: &ServerName,
        edit: impl FnOnce(&str) -> Result<String, TextError>,
    ) -> Result<Change, EditError> {
        let (path, old) = &loaded.files.servers[server];
        let by_hand = |reason: String| EditError::ByHand { path: path.clone(), reason };
        if self.paths.disk.metadata(path).is_ok_and(|found| found.kind == Kind::Link) {
            return Err(by_hand("it is a link to a file that others look after".to_owned()));
        }
        let new = edit(old)
            .map_err(|error| EditError::ByHand { path: path.clone(), reason: error.to_string() })?;
        self.validate(lock, loaded.files, server, new)
    }

    fn validate(
        &self,
        lock: File,
        mut files: Files,
        server: &ServerName,
        new: String,
    ) -> Result<Change, EditError> {
        let file = self.paths.server_file(server);
        let old = files.servers.insert(server.clone(), (file.clone(), new.clone()));
        let old = old.map(|(_, text)| text).unwrap_or_default();
        let diff = edit::diff(&file.display().to_string(), &old, &new);
        let loaded = check(&self.paths, files).map_err(EditError::Refused)?;
        Ok(Change { loaded, file, diff, text: new, paths: self.paths.clone(), _lock: lock })
    }
}

fn find<'l>(loaded: &'l Loaded, server: &ServerName) -> Result<&'l ServerConfig, EditError> {
    let found = loaded.servers.get(server);
    found.map(AsRef::as_ref).ok_or_else(|| EditError::NoServer(server.clone()))
}

impl Change {
    /// Writes the file and keeps the new state in the history. After `Ok` the change survives
    /// loss of power; the caller puts the configuration in force.
    ///
    /// # Errors
    ///
    /// [`EditError::Write`]; the old file stands as it was.
    pub fn apply(mut self) -> Result<Loaded, EditError> {
        replace(&self.paths.disk, &self.file, &self.text)
            .map_err(|source| EditError::Write { path: self.file.clone(), source })?;
        self.loaded.remember(&self.paths);
        Ok(self.loaded)
    }
}

/// Puts a text in the place of a file: there is the old one or the new one at any moment. Its
/// permissions stay; a new file has those of the package's.
fn replace(disk: &Disk, path: &Path, text: &str) -> io::Result<()> {
    const MODE: u32 = 0o660;
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
