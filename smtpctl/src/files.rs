//! The configuration files as they lie there, for whoever has no daemon to ask.

use std::fs;
use std::path::{Path, PathBuf};

use mailroot_common::config::logging::Logging;
use mailroot_common::config::{
    Diagnostic, Profile, ServerConfig, ServerName, parse_server, parse_service,
};
use mailroot_common::control::{Kind, Problem};

/// Where they lie in an installed system.
const SYSTEM: &str = "/etc/mailroot";
/// The same below the directory of `--home`.
const BELOW_HOME: &str = "etc";

/// A file, and what is to be said of it.
pub(crate) struct Found {
    /// Its path.
    pub(crate) name: String,
    /// Errors and warnings.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

fn directory(home: Option<&Path>) -> PathBuf {
    home.map_or_else(|| PathBuf::from(SYSTEM), |home| home.join(BELOW_HOME))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Reads all of them, each by itself.
///
/// # Errors
///
/// What cannot be read, in words.
pub(crate) fn all(home: Option<&Path>) -> Result<Vec<Found>, String> {
    let directory = directory(home);
    let service = directory.join("mailroot.yaml");
    let (name, text) = (service.display().to_string(), read(&service)?);
    let diagnostics = parse_service(&text, &name).map_or_else(|found| found, |(_, found)| found);
    let mut all = vec![Found { name, diagnostics }];
    let mut files: Vec<PathBuf> = fs::read_dir(directory.join("servers.d"))
        .map_err(|error| format!("cannot read {}: {error}", directory.join("servers.d").display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    for file in files {
        let (name, text) = (file.display().to_string(), read(&file)?);
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let server = ServerName::parse(stem).map_err(|error| format!("{name}: {error}"))?;
        let parsed = parse_server(&server, &text, &name);
        let diagnostics = parsed.map_or_else(|found| found, |(_, found)| found);
        all.push(Found { name, diagnostics });
    }
    Ok(all)
}

/// How the daemon logs, as far as that can be read.
pub(crate) fn logging(home: Option<&Path>) -> Option<Logging> {
    let file = directory(home).join("mailroot.yaml");
    let text = read(&file).ok()?;
    parse_service(&text, &file.display().to_string()).ok().map(|(config, _)| config.logging)
}

/// The configuration of a virtual server and where it was read; the defaults where there is no file.
///
/// # Errors
///
/// A file that cannot be read or is wrong.
pub(crate) fn server(
    home: Option<&Path>,
    name: &str,
) -> Result<(ServerConfig, Option<PathBuf>), Problem> {
    let server = ServerName::parse(name)
        .map_err(|error| Problem::new("server", Kind::Usage, error.to_string()))?;
    let file = directory(home).join("servers.d").join(format!("{name}.yaml"));
    if fs::metadata(&file).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok((ServerConfig::defaults(Profile::Modern), None));
    }
    let text = read(&file).map_err(|why| Problem::new("config", Kind::NotPermitted, why))?;
    let parsed = parse_server(&server, &text, &file.display().to_string());
    match parsed {
        Ok((config, _)) => Ok((config, Some(file))),
        Err(found) => {
            let detail = format!("{} has errors", file.display());
            let items = found.iter().map(|diagnostic| diagnostic.title.clone());
            Err(Problem::new("config", Kind::ConfigInvalid, detail).items(items))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_without_a_daemon_and_defaults_stand_in_for_none() {
        let home = tempfile::tempdir().unwrap();
        assert!(all(Some(home.path())).is_err());
        let (config, file) = server(Some(home.path()), "lan").unwrap();
        assert!(file.is_none() && config.store.pickup.x_headers);
        fs::create_dir_all(home.path().join("etc/servers.d")).unwrap();
        fs::write(home.path().join("etc/mailroot.yaml"), "version: 1\n").unwrap();
        let text = "version: 1\nstore: {pickup: {x_headers: false}}\n\
                    domains: [{name: a.example, type: default}]\n";
        fs::write(home.path().join("etc/servers.d/lan.yaml"), text).unwrap();
        assert_eq!(all(Some(home.path())).unwrap().len(), 2);
        let (config, file) = server(Some(home.path()), "lan").unwrap();
        assert!(file.is_some() && !config.store.pickup.x_headers);
        fs::write(home.path().join("etc/servers.d/lan.yaml"), "version: 1\nno_key: 1\n").unwrap();
        assert_eq!(server(Some(home.path()), "lan").unwrap_err().exit, 6);
        assert!(!all(Some(home.path())).unwrap()[1].diagnostics.is_empty());
    }
}
