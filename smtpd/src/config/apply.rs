//! Changes of the configuration: validated whole, written durably, or not made at all.
//!
//! A change goes: lock; read the files, which must be good as they lie there (an edit by hand
//! becomes a revision of its own by that); edit their texts; check all texts together; and only
//! then write (see [`super::commit`]). What fails before leaves every file as it was.

use std::path::Path;
use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::config::{DomainKind, DomainName, ServerConfig, ServerName};
use mailroot_common::control::{ConfigFiles, KeyEdit};

use super::assign::{self, AssignError, Keys};
use super::commit;
use super::edit;
use super::error::EditError;
use super::files::Files;
use super::history::{self, Note};
use super::load::{Loaded, check};
use super::paths::Paths;
use super::spec::{self, RemoteDomainSpec, ServerSpec};
use super::{diff, seal, smart_host};
use crate::disk::{File, Kind, Open};

/// Changes the files of one configuration.
#[derive(Clone, Debug)]
pub struct Editor {
    paths: Paths,
    note: Note,
    expected: Option<u64>,
    obeys_seal: bool,
}

/// A change that was found good and is not made yet. Dropping it leaves everything as it was.
#[derive(Debug)]
pub struct Change {
    /// The configuration as it lies there.
    pub before: Loaded,
    /// The configuration with the change.
    pub loaded: Loaded,
    lying: Files,
    moves: Vec<commit::Move>,
    paths: Paths,
    note: Note,
    // Held until the change is made or dropped.
    _lock: File,
}

impl Editor {
    /// An editor of these files, for changes that the note tells of.
    #[must_use]
    pub fn new(paths: Paths, note: Note) -> Self {
        Self { paths, note, expected: None, obeys_seal: true }
    }

    /// Changes nothing unless this revision is the newest.
    #[must_use]
    pub fn expecting(mut self, revision: Option<u64>) -> Self {
        self.expected = revision;
        self
    }

    /// Changes also what is locked.
    #[must_use]
    pub fn unsealed(mut self) -> Self {
        self.obeys_seal = false;
        self
    }

    /// Changes keys of `mailroot.yaml`.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn edit_service(&self, edits: &[KeyEdit]) -> Result<Change, EditError> {
        let open = self.begin()?;
        let service = &open.before.service;
        let keys = Keys::new(smart_host::docs(service, edits), service.effective());
        let (path, text) = open.before.files.service.clone();
        let new = self.edit_file(&path, &text, |text| assign::assign(text, "", &keys, edits))?;
        let mut files = open.before.files.clone();
        files.service.1 = new;
        self.validate(open, files)
    }

    /// Changes keys of a server's file.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn edit_server(&self, name: &ServerName, edits: &[KeyEdit]) -> Result<Change, EditError> {
        let open = self.begin()?;
        let config = find(&open.before, name)?;
        let keys = Keys::new(ServerConfig::keys(), config.effective());
        self.change(open, name, |text| assign::assign(text, "", &keys, edits))
    }

    /// Changes keys of a domain.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn edit_domain(
        &self,
        server: &ServerName,
        domain: &DomainName,
        edits: &[KeyEdit],
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let config = find(&open.before, server)?;
        let number = position(&config, server, domain)?;
        let path = format!("domains[{number}]");
        let keys = Keys::of_item(&ServerConfig::keys(), &config.effective(), "domains[]", &path);
        self.change(open, server, |text| assign::assign(text, &path, &keys, edits))
    }

    /// Makes an alias the default domain; the default domain becomes an alias.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn promote_domain(
        &self,
        server: &ServerName,
        domain: &DomainName,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let config = find(&open.before, server)?;
        let new = position(&config, server, domain)?;
        if matches!(config.domains[new].kind, DomainKind::Remote { .. }) {
            return Err(EditError::NoAlias(domain.clone()));
        }
        let old =
            config.domains.iter().position(|entry| matches!(entry.kind, DomainKind::Default(_)));
        let Some(old) = old.filter(|&old| old != new) else {
            let files = open.before.files.clone();
            return self.validate(open, files);
        };
        // The Drop directory belongs to the place, not to the name.
        let drop = written_drop(&config, old);
        self.change(open, server, |text| {
            let mut text = edit::unset(text, &format!("domains[{old}].drop"))?;
            text = edit::set(&text, &format!("domains[{old}].type"), "alias")?;
            text = edit::set(&text, &format!("domains[{new}].type"), "default")?;
            match drop {
                Some(drop) => Ok(edit::set(&text, &format!("domains[{new}].drop"), &drop)?),
                None => Ok(text),
            }
        })
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
        self.add_domain(server, &name, &spec::alias_entry(domain))
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
        self.add_domain(server, &spec.name, &spec::remote_entry(spec))
    }

    fn add_domain(
        &self,
        server: &ServerName,
        name: &DomainName,
        entry: &str,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        let config = find(&open.before, server)?;
        if config.domains.iter().any(|entry| entry.name == *name) {
            return Err(EditError::DomainExists { server: server.clone(), domain: name.clone() });
        }
        self.change(open, server, |text| Ok(edit::push(text, "domains", entry)?))
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
        let open = self.begin()?;
        let config = find(&open.before, server)?;
        let number = position(&config, server, name)?;
        if matches!(config.domains[number].kind, DomainKind::Default(_)) {
            let (server, domain) = (server.clone(), name.clone());
            return Err(EditError::DefaultDomain { server, domain });
        }
        self.change(open, server, |text| Ok(edit::remove_item(text, "domains", number)?))
    }

    /// Writes the file of a new server.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn create_server(&self, name: &ServerName, spec: &ServerSpec) -> Result<Change, EditError> {
        self.new_server(name, |_| Ok(spec::server_text(name.as_str(), spec)))
    }

    /// Writes the file of a new server after that of another, with other listeners and a mail root
    /// of its own.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn clone_server(
        &self,
        from: &ServerName,
        to: &ServerName,
        listen: &[String],
    ) -> Result<Change, EditError> {
        self.new_server(to, |before| {
            let config = find(before, from)?;
            let (path, text) = &before.files.servers[from];
            let keys = Keys::new(ServerConfig::keys(), config.effective());
            let edits = [
                KeyEdit::Set { key: "general.listen".to_owned(), value: listen.join(",") },
                KeyEdit::Unset { key: "store.root".to_owned() },
            ];
            self.edit_file(path, text, |text| assign::assign(text, "", &keys, &edits))
        })
    }

    fn new_server(
        &self,
        name: &ServerName,
        text: impl FnOnce(&Loaded) -> Result<String, EditError>,
    ) -> Result<Change, EditError> {
        let open = self.begin()?;
        if open.before.servers.contains_key(name) {
            return Err(EditError::ServerExists(name.clone()));
        }
        let text = text(&open.before)?;
        let mut files = open.before.files.clone();
        files.servers.insert(name.clone(), (self.paths.server_file(name), text));
        self.validate(open, files)
    }

    /// Gives a server this text, whether or not there is one of that name.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn put_server(&self, name: &ServerName, text: &str) -> Result<Change, EditError> {
        let open = self.begin()?;
        let mut files = open.before.files.clone();
        files.servers.insert(name.clone(), (self.paths.server_file(name), text.to_owned()));
        self.validate(open, files)
    }

    /// Gives a server's file another name, and its mail root with it where that is named after it.
    /// Nobody may work in the mail root when the change is made.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn rename_server(&self, from: &ServerName, to: &ServerName) -> Result<Change, EditError> {
        let open = self.begin()?;
        if open.before.servers.contains_key(to) {
            return Err(EditError::ServerExists(to.clone()));
        }
        let config = find(&open.before, from)?;
        let mut files = open.before.files.clone();
        if let Some((_, text)) = files.servers.remove(from) {
            files.servers.insert(to.clone(), (self.paths.server_file(to), text));
        }
        let root = |name| self.paths.mail_root(&open.before.service, name, &config);
        let (old, new) = (root(from), root(to));
        if old != new && self.paths.disk.metadata(&new).is_ok() {
            return Err(EditError::InTheWay(new));
        }
        let moves = if old == new { Vec::new() } else { vec![(old, new)] };
        Ok(Change { moves, ..self.validate(open, files)? })
    }

    /// Takes a server's file away.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn delete_server(&self, name: &ServerName) -> Result<Change, EditError> {
        let open = self.begin()?;
        find(&open.before, name)?;
        let mut files = open.before.files.clone();
        files.servers.remove(name);
        self.validate(open, files)
    }

    /// Makes all files be what they were at a revision, also where those that lie there are broken.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn roll_back(&self, revision: u64) -> Result<Change, EditError> {
        let open = self.begin_anyhow()?;
        let files = history::state(&self.paths, revision);
        self.validate(open, files.ok_or(EditError::NoRevision(revision))?)
    }

    /// Makes all files be these, also where those that lie there are broken.
    ///
    /// # Errors
    ///
    /// [`EditError`]; nothing was changed.
    pub fn put_all(&self, texts: ConfigFiles) -> Result<Change, EditError> {
        let files = Files::of_texts(&self.paths, texts).map_err(EditError::Key)?;
        let open = self.begin_anyhow()?;
        self.validate(open, files)
    }

    /// Takes the lock and reads the files as they lie there, which must be good.
    pub(super) fn begin(&self) -> Result<Begun, EditError> {
        let lock = self.lock()?;
        let before = super::load(&self.paths).map_err(EditError::Broken)?;
        self.begun(lock, before.files.clone(), before)
    }

    /// Takes the lock; where the files are broken, the state in force counts as the one before.
    fn begin_anyhow(&self) -> Result<Begun, EditError> {
        let lock = self.lock()?;
        let failed = match super::load(&self.paths) {
            Ok(before) => return self.begun(lock, before.files.clone(), before),
            Err(failed) => failed,
        };
        let good = history::latest(&self.paths);
        let Some(before) = good.and_then(|(_, files)| check(&self.paths, files).ok()) else {
            return Err(EditError::Broken(failed));
        };
        self.begun(lock, Files::as_far_as_readable(&self.paths), before)
    }

    fn lock(&self) -> Result<File, EditError> {
        if self.obeys_seal
            && let Some(reason) = seal::read(&self.paths)
        {
            return Err(EditError::Sealed(reason));
        }
        let (disk, path) = (&self.paths.disk, self.paths.lock());
        let locked = disk
            .create_dir_all(&self.paths.state)
            .and_then(|()| disk.open(&path, Open::Create))
            .and_then(|file| Ok((file.try_lock()?, file)));
        match locked {
            Ok((true, lock)) => Ok(lock),
            Ok((false, _)) => Err(EditError::Busy),
            Err(source) => Err(EditError::Write { path, source }),
        }
    }

    fn begun(&self, lock: File, lying: Files, mut before: Loaded) -> Result<Begun, EditError> {
        let how = "file edit".to_owned();
        before.remember(&self.paths, Note { at: self.note.at, how, ..Note::default() });
        let newest = before.revision;
        match self.expected.filter(|&expected| expected != newest) {
            Some(expected) => Err(EditError::Changed { expected, newest }),
            None => Ok(Begun { lock, lying, before }),
        }
    }

    pub(super) fn change(
        &self,
        open: Begun,
        server: &ServerName,
        edit: impl FnOnce(&str) -> Result<String, AssignError>,
    ) -> Result<Change, EditError> {
        let (path, old) = &open.before.files.servers[server];
        let new = self.edit_file(path, old, edit)?;
        let mut files = open.before.files.clone();
        files.servers.insert(server.clone(), (path.clone(), new));
        self.validate(open, files)
    }

    pub(super) fn edit_file(
        &self,
        path: &Path,
        text: &str,
        edit: impl FnOnce(&str) -> Result<String, AssignError>,
    ) -> Result<String, EditError> {
        let by_hand = |reason: String| EditError::ByHand { path: path.to_owned(), reason };
        if self.paths.disk.metadata(path).is_ok_and(|found| found.kind == Kind::Link) {
            return Err(by_hand("it is a link to a file that others look after".to_owned()));
        }
        edit(text).map_err(|error| match error {
            AssignError::Text(error) => by_hand(error.to_string()),
            AssignError::NoItem { .. } => EditError::NoItem(error.to_string()),
            error => EditError::Key(error.to_string()),
        })
    }

    pub(super) fn validate(&self, open: Begun, files: Files) -> Result<Change, EditError> {
        let loaded = check(&self.paths, files).map_err(EditError::Refused)?;
        let Begun { lock, lying, before } = open;
        let (paths, note) = (self.paths.clone(), self.note.clone());
        Ok(Change { before, loaded, lying, moves: Vec::new(), paths, note, _lock: lock })
    }
}

/// The lock, what lies there, and the configuration before the change.
pub(super) struct Begun {
    lock: File,
    lying: Files,
    pub(super) before: Loaded,
}

pub(super) fn find(loaded: &Loaded, server: &ServerName) -> Result<Arc<ServerConfig>, EditError> {
    let found = loaded.servers.get(server).cloned();
    found.ok_or_else(|| EditError::NoServer(server.clone()))
}

fn position(
    config: &ServerConfig,
    server: &ServerName,
    domain: &DomainName,
) -> Result<usize, EditError> {
    let found = config.domains.iter().position(|entry| entry.name == *domain);
    found.ok_or_else(|| EditError::NoDomain { server: server.clone(), domain: domain.clone() })
}

/// The Drop directory's keys of a domain as they were written, in flow style.
fn written_drop(config: &ServerConfig, number: usize) -> Option<String> {
    let path = format!("domains[{number}].drop.");
    let pair = |key: mailroot_common::config::EffectiveKey| {
        let name = key.key.strip_prefix(&path)?.to_owned();
        key.origin.map(|_| format!("{name}: {}", spec::quoted(&key.value)))
    };
    let pairs: Vec<String> = config.effective().into_iter().filter_map(pair).collect();
    (!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(", ")))
}

impl Change {
    /// Whether anything changes.
    #[must_use]
    pub fn is_one(&self) -> bool {
        self.lying != self.loaded.files
    }

    /// The lines that change, in the form of `diff -u`.
    #[must_use]
    pub fn diff(&self) -> String {
        diff::lines(&self.lying, &self.loaded.files)
    }

    /// What changes, a line each.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        diff::words(&self.before, &self.loaded)
    }

    /// Writes the files and keeps the new state in the history. After `Ok` the change survives
    /// loss of power; the caller puts the configuration in force.
    ///
    /// # Errors
    ///
    /// [`EditError::Write`]; the old files stand as they were.
    pub fn apply(mut self) -> Result<Loaded, EditError> {
        commit::write(&self.paths, &self.lying, &self.loaded.files, self.moves)?;
        self.loaded.remember(&self.paths, self.note);
        Ok(self.loaded)
    }
}
