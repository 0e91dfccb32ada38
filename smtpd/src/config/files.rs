//! The texts of all files of one configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mailroot_common::config::ServerName;
use mailroot_common::control::ConfigFiles;

use super::paths::Paths;

/// The texts of all files, each with its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) service: (PathBuf, String),
    pub(super) servers: BTreeMap<ServerName, (PathBuf, String)>,
}

/// A file that differs: its path, its text before and after.
pub(super) type Difference<'f> = (&'f Path, Option<&'f str>, Option<&'f str>);

impl Files {
    /// Those that somebody sent.
    pub(super) fn of_texts(paths: &Paths, texts: ConfigFiles) -> Result<Self, String> {
        let mut servers = BTreeMap::new();
        for (name, text) in texts.servers {
            let name = ServerName::parse(&name).map_err(|error| error.to_string())?;
            servers.insert(name.clone(), (paths.server_file(&name), text));
        }
        Ok(Self { service: (paths.service_file.clone(), texts.service), servers })
    }

    /// Them as they are sent.
    pub(super) fn texts(&self, revision: u64) -> ConfigFiles {
        let text =
            |(name, (_, text)): (&ServerName, &(PathBuf, String))| (name.to_string(), text.clone());
        ConfigFiles {
            revision,
            service: self.service.1.clone(),
            servers: self.servers.iter().map(text).collect(),
        }
    }

    /// All of them, the service's file first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &str)> {
        std::iter::once(&self.service)
            .chain(self.servers.values())
            .map(|(path, text)| (path.as_path(), text.as_str()))
    }

    /// The files that `after` has otherwise, or not at all, or that only `after` has.
    pub(super) fn differences<'f>(&'f self, after: &'f Self) -> Vec<Difference<'f>> {
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (self.iter().collect(), after.iter().collect());
        let mut paths: Vec<&Path> = old.keys().chain(new.keys()).copied().collect();
        paths.sort_unstable();
        paths.dedup();
        let differs = |path: &Path| {
            let (old, new) = (old.get(path).copied(), new.get(path).copied());
            (old != new).then_some((old, new))
        };
        paths
            .into_iter()
            .filter_map(|path| differs(path).map(|(old, new)| (path, old, new)))
            .collect()
    }

    /// FNV-1a over names and texts, 16 hexadecimal digits: names a state; equality is decided by the
    /// texts themselves.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut take = |octets: &[u8]| {
            for octet in octets {
                hash = (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3);
            }
            hash = (hash ^ 0xff).wrapping_mul(0x100_0000_01b3);
        };
        take(self.service.1.as_bytes());
        for (name, (_, text)) in &self.servers {
            take(name.as_str().as_bytes());
            take(text.as_bytes());
        }
        format!("{hash:016x}")
    }
}
