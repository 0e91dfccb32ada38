//! Finds and reads the files, all of them, and says everything that is wrong at once.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::config::{
    Diagnostic, ServerConfig, ServerName, ServiceConfig, Source, parse_server, parse_service,
    render_all, yaml,
};
use mailroot_common::control::ConfigFiles;
use mailroot_common::units::Timestamp;

use super::certificates;
use super::check::check_together;
use super::commit;
use super::diff;
use super::files::Files;
use super::first_start::{self, FirstStart};
use super::history::{self, Note};
use super::paths::Paths;
use super::secret::Secrets;
use super::signing;
use crate::clock::Clock;
use crate::disk::{Disk, Kind};

/// The most virtual servers one service has.
pub(super) const SERVERS_MAX: usize = 256;

/// A configuration that holds together.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What all servers share.
    pub service: Arc<ServiceConfig>,
    /// The virtual servers by name, also those that are not enabled.
    pub servers: BTreeMap<ServerName, Arc<ServerConfig>>,
    /// The name of this machine: `service.hostname`, or what the system says.
    pub hostname: Domain,
    /// What may surprise.
    pub warnings: Vec<Diagnostic>,
    /// The number of this state in the history; 0 until it was kept there.
    pub revision: u64,
    pub(super) files: Files,
}

impl PartialEq for Loaded {
    /// Whether both were read from the same octets.
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug)]
pub struct Failed {
    /// All errors, and the warnings among them.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render_all(&self.diagnostics))
    }
}

impl std::error::Error for Failed {}

/// What a start found.
#[derive(Clone, Debug)]
pub struct Started {
    /// The configuration to run.
    pub loaded: Loaded,
    /// Set if there was none and a first one was written.
    pub first_start: Option<FirstStart>,
    /// Set if the files are broken and the last good state of them was taken instead: what is
    /// wrong with them.
    pub degraded: Option<Failed>,
}

/// Reads and checks the configuration.
///
/// # Errors
///
/// Every error of every file.
pub fn load(paths: &Paths) -> Result<Loaded, Failed> {
    check(paths, Files::read(paths)?)
}

/// Reads the configuration at the start of the daemon: writes a first one below `--home`, and
/// takes the last good one where the files are broken.
///
/// # Errors
///
/// Every error of every file, where there is no earlier state to take.
pub fn start(paths: &Paths, at: Timestamp) -> Result<Started, Failed> {
    let mut first_start = None;
    commit::finish(paths).map_err(|error| {
        let title = format!("cannot finish a change of the configuration: {error}");
        Failed::one(Diagnostic::error("E0023", title).help("see to the disk or the file system"))
    })?;
    if paths.home.is_some() && first_start::is_due(paths) {
        first_start = first_start::write(paths).map_err(|error| {
            let title = format!("cannot write a first configuration: {error}");
            let diagnostic = Diagnostic::error("E0021", title);
            Failed::one(diagnostic.help("choose a directory you may write to"))
        })?;
    }
    match load(paths) {
        Ok(mut loaded) => {
            let (who, how) = ("smtpd".to_owned(), "start".to_owned());
            loaded.remember(paths, Note { at, who, how, ..Note::default() });
            Ok(Started { loaded, first_start, degraded: None })
        }
        Err(failed) => {
            let last_good = history::latest(paths).and_then(|(number, files)| {
                check(paths, files).ok().map(|loaded| Loaded { revision: number, ..loaded })
            });
            match last_good {
                Some(loaded) => Ok(Started { loaded, first_start, degraded: Some(failed) }),
                None => Err(failed),
            }
        }
    }
}

impl Failed {
    fn one(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic] }
    }
}

impl Loaded {
    /// Keeps this state in the history, so that a later start can fall back on it and people can
    /// come back to it. A history that cannot be written is a warning, never a reason to stop.
    pub fn remember(&mut self, paths: &Paths, mut note: Note) {
        if let Some((_, files)) = history::latest(paths).filter(|(_, files)| *files != self.files) {
            note.changes =
                check(paths, files).map(|old| diff::words(&old, self)).unwrap_or_default();
        }
        match history::keep(paths, &self.files, note) {
            Ok(number) => self.revision = number,
            Err(error) => {
                self.revision = history::newest(paths);
                let title = format!("cannot keep this configuration in the history: {error}");
                self.warnings.push(
                    Diagnostic::warning("W0022", title)
                        .help("a broken file would then keep the service from starting"),
                );
            }
        }
    }

    /// The same under a number of the history.
    #[must_use]
    pub fn with_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// The texts of the files.
    #[must_use]
    pub fn texts(&self) -> ConfigFiles {
        self.files.texts(self.revision)
    }

    /// Whether the files on disk are those that this was read from. What cannot be read is not.
    #[must_use]
    pub fn is_what_lies_there(&self, paths: &Paths) -> bool {
        Files::read(paths).is_ok_and(|files| files == self.files)
    }

    /// The texts of the files, by path.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files.iter()
    }
}

/// Reads and checks texts.
pub(super) fn check(paths: &Paths, files: Files) -> Result<Loaded, Failed> {
    let mut diagnostics = Vec::new();
    let (path, text) = &files.service;
    let service = match parse_service(text, &path.display().to_string()) {
        Ok((config, warnings)) => {
            diagnostics.extend(warnings);
            Some(config)
        }
        Err(found) => {
            diagnostics.extend(found);
            None
        }
    };
    let mut servers = BTreeMap::new();
    let mut broken = service.is_none();
    for (name, (path, text)) in &files.servers {
        match parse_server(name, text, &path.display().to_string()) {
            Ok((config, warnings)) => {
                diagnostics.extend(warnings);
                servers.insert(name.clone(), Arc::new(config));
            }
            Err(found) => {
                broken = true;
                diagnostics.extend(found);
            }
        }
    }
    let shared = service.clone().unwrap_or_default();
    let together = check_together(paths, &shared, &servers);
    broken |= together.iter().any(is_error);
    diagnostics.extend(together);
    let Some(service) = service.filter(|_| !broken) else { return Err(Failed { diagnostics }) };
    let hostname = service.service.hostname.clone().unwrap_or_else(first_start::machine_name);
    if paths.home.is_none() && !hostname.as_str().contains('.') {
        let title = format!("this machine calls itself {hostname}, which others cannot look up");
        diagnostics.push(
            Diagnostic::warning("W0430", title)
                .help("set service.hostname to the name that DNS has for this machine"),
        );
    }
    let secrets = Secrets::in_directory(&paths.secrets_dir);
    let now = Clock::real().now();
    certificates::check(&service, now, &mut diagnostics);
    certificates::check_outbound(&service, &secrets, &mut diagnostics);
    certificates::check_clients(servers.values().map(|config| &**config), now, &mut diagnostics);
    servers.values().for_each(|config| signing::check(config, &secrets, &mut diagnostics));
    if servers.is_empty() {
        let title = format!("no virtual server in {}", paths.servers_dir.display());
        diagnostics.push(
            Diagnostic::warning("W0420", title)
                .help("create one:  smtpctl server create default --listen 127.0.0.1:25"),
        );
    }
    let service = Arc::new(service);
    Ok(Loaded { service, servers, hostname, warnings: diagnostics, revision: 0, files })
}

fn is_error(diagnostic: &Diagnostic) -> bool {
    diagnostic.severity == mailroot_common::config::Severity::Error
}

impl Files {
    /// Those that can be read; what cannot counts as empty or absent.
    pub(super) fn as_far_as_readable(paths: &Paths) -> Self {
        let Paths { disk, service_file, servers_dir, .. } = paths;
        let server = |path: PathBuf| {
            let name = named(&path).ok()?;
            let text = read_text(disk, &path).unwrap_or_default();
            Some((name, (path, text)))
        };
        let service = read_text(disk, service_file).unwrap_or_default();
        let files = list(disk, servers_dir).unwrap_or_default();
        Self {
            service: (service_file.clone(), service),
            servers: files.into_iter().filter_map(server).collect(),
        }
    }

    /// Reads all files.
    pub(super) fn read(paths: &Paths) -> Result<Self, Failed> {
        let Paths { disk, service_file, servers_dir, .. } = paths;
        let mut diagnostics = Vec::new();
        let service = read_text(disk, service_file).unwrap_or_else(|diagnostic| {
            diagnostics.push(*diagnostic);
            String::new()
        });
        let mut servers = BTreeMap::new();
        for path in list(disk, servers_dir).unwrap_or_else(|diagnostic| {
            diagnostics.push(*diagnostic);
            Vec::new()
        }) {
            match named(&path).and_then(|name| Ok((name, read_text(disk, &path)?))) {
                Ok((name, text)) => {
                    servers.insert(name, (path, text));
                }
                Err(diagnostic) => diagnostics.push(*diagnostic),
            }
        }
        if servers.len() > SERVERS_MAX {
            let title = format!("more than {SERVERS_MAX} virtual servers");
            let help = format!("move files out of {}", servers_dir.display());
            diagnostics.push(Diagnostic::error("E0422", title).help(help));
        }
        if !diagnostics.is_empty() {
            // The files that could be read are checked as well, so that nothing is said late.
            if !service.is_empty() {
                let found = parse_service(&service, &service_file.display().to_string());
                diagnostics.extend(found.err().unwrap_or_default());
            }
            for (name, (path, text)) in &servers {
                let found = parse_server(name, text, &path.display().to_string());
                diagnostics.extend(found.err().unwrap_or_default());
            }
            return Err(Failed { diagnostics });
        }
        Ok(Self { service: (service_file.clone(), service), servers })
    }
}

/// The server files of a directory, in the order of their names. Other files are left alone.
fn list(disk: &Disk, servers_dir: &Path) -> Result<Vec<PathBuf>, Box<Diagnostic>> {
    let names =
        disk.list(servers_dir).map_err(|error| Box::new(unreadable(servers_dir, &error)))?;
    let mut out: Vec<PathBuf> = names
        .iter()
        .map(|name| servers_dir.join(name))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| !path.file_name().unwrap_or_default().as_encoded_bytes().starts_with(b"."))
        .collect();
    out.sort();
    Ok(out)
}

fn named(path: &Path) -> Result<ServerName, Box<Diagnostic>> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    ServerName::parse(&stem).map_err(|error| {
        let title = format!("{}: {error}", path.display());
        Box::new(Diagnostic::error("E0421", title).help("rename the file"))
    })
}

/// Reads a regular file, or what a link points to, of bounded size as UTF-8.
fn read_text(disk: &Disk, path: &Path) -> Result<String, Box<Diagnostic>> {
    let cannot = |error: &io::Error| Box::new(unreadable(path, error));
    let regular = match disk.metadata(path).map_err(|error| cannot(&error))?.kind {
        Kind::File => true,
        Kind::Link => std::fs::metadata(path).map_err(|error| cannot(&error))?.is_file(),
        Kind::Directory | Kind::Other => false,
    };
    if !regular {
        let title = format!("{} is not a regular file", path.display());
        return Err(Box::new(Diagnostic::error("E0020", title).help("move it elsewhere")));
    }
    let max = yaml::FILE_OCTETS_MAX as u64;
    let octets = disk.read(path, max).map_err(|error| cannot(&error))?;
    String::from_utf8(octets).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let source = Arc::new(Source { name: path.display().to_string(), text });
        Box::new(
            Diagnostic::error("E0015", "the file is not UTF-8")
                .at(&source, at..at + 1, "from here on")
                .help("save it as UTF-8"),
        )
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return yaml::too_large(&path.display().to_string());
    }
    let diagnostic = Diagnostic::error("E0020", format!("cannot read {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::NotFound => {
            diagnostic.help("try  smtpd --home ./mailroot  which writes a first configuration")
        }
        io::ErrorKind::PermissionDenied => {
            diagnostic.help("let the daemon's user read it, or start as another user")
        }
        _ => diagnostic.help("see to the disk or the file system"),
    }
}
