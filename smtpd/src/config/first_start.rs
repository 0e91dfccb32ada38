//! The configuration that a first start below `--home` writes.

use std::io;
use std::path::{Path, PathBuf};

use mailroot_common::address::Domain;

use super::paths::Paths;

/// What a first start wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstStart {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Where the server `default` listens.
    pub listen: String,
    /// Its default domain.
    pub domain: Domain,
}

const LISTEN: &str = "127.0.0.1:2525";

/// Whether no configuration is there yet.
pub(super) fn is_due(paths: &Paths) -> bool {
    let absent = |path: &Path| {
        paths.disk.metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    absent(&paths.service_file)
}

fn default_server() -> mailroot_common::config::ServerName {
    mailroot_common::config::ServerName::parse("default").expect("the name is a good one")
}

/// Writes the service file and, where there is no virtual server yet, that of `default`; `None`
/// if there was one. The service file comes last: until it is there, a start is a first one.
pub(super) fn write(paths: &Paths) -> io::Result<Option<FirstStart>> {
    let disk = &paths.disk;
    disk.create_dir_all(&paths.servers_dir)?;
    let names = disk.list(&paths.servers_dir)?;
    let written = if names.iter().any(|name| name.as_encoded_bytes().ends_with(b".yaml")) {
        None
    } else {
        let (domain, file) = (machine_name(), paths.server_file(&default_server()));
        disk.replace(&file, &draft(&file), server_text(&domain).as_bytes())?;
        let files = vec![paths.service_file.clone(), file];
        Some(FirstStart { files, listen: LISTEN.to_owned(), domain })
    };
    let file = &paths.service_file;
    disk.replace(file, &draft(file), service_text().as_bytes())?;
    Ok(written)
}

/// Where the new text of a file is written first. Its name ends in no `.yaml`.
pub(super) fn draft(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!(".{name}.draft"))
}

fn service_text() -> String {
    "\
# What all virtual servers share. Every key and its default: man 5 mailroot.yaml
version: 1

logging:
  level: info      # error, warn, info or debug
"
    .to_owned()
}

fn server_text(domain: &Domain) -> String {
    let mut text = format!(
        "\
# The virtual server \"default\". Every key and its default: man 5 mailroot-server.yaml
version: 1

general:
  listen: {LISTEN}     # reachable from this machine only

domains:
  - {{name: {domain}, type: default}}     # mail for it ends in the directory Drop
"
    );
    if domain.as_str() != "localhost" {
        text.push_str("  - {name: localhost, type: alias}     # and so does mail for this one\n");
    }
    text
}

/// The full name of this machine as far as it knows itself: no question goes out to DNS.
pub(super) fn machine_name() -> Domain {
    let short = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_default();
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    full_name(&short, &hosts)
}

/// The name itself if it has a dot, else the one that `hosts` gives beside it, else `localhost`.
fn full_name(short: &str, hosts: &str) -> Domain {
    let listed = || {
        hosts
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .map(|line| line.split_ascii_whitespace().skip(1).collect::<Vec<_>>())
            .filter(|names| names.contains(&short))
            .flatten()
            .find(|name| name.contains('.') && name.split('.').next() == Some(short))
    };
    let name = if short.contains('.') { short } else { listed().unwrap_or(short) };
    let numeric = name
        .rsplit('.')
        .next()
        .is_none_or(|label| label.bytes().all(|octet| octet.is_ascii_digit()));
    Domain::parse(name)
        .ok()
        .filter(|_| !numeric)
        .unwrap_or_else(|| Domain::parse("localhost").expect("localhost is a domain name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_called_by_its_full_name() {
        let hosts =
            "127.0.0.1 localhost\n127.0.1.1 relay1.example.net relay1 # us\n10.0.0.1 relay1x\n";
        let name = |short| full_name(short, hosts).to_string();
        assert_eq!(name("relay1"), "relay1.example.net");
        assert_eq!(name("Mail.example.org"), "mail.example.org");
        assert_eq!(name("other"), "other");
        for odd in ["", "not a name", "ends-", "12345", "10.0.0.1"] {
            assert_eq!(name(odd), "localhost", "{odd:?}");
        }
    }
}
