//! The configuration that a first start below `--home` writes.

use std::io::{self, Write};
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
    !paths.service_file.exists() && !paths.server_file(&default_server()).exists()
}

fn default_server() -> mailroot_common::config::ServerName {
    mailroot_common::config::ServerName::parse("default").expect("the name is a good one")
}

/// Writes both files; an existing one is never overwritten.
pub(super) fn write(paths: &Paths) -> io::Result<FirstStart> {
    std::fs::create_dir_all(&paths.servers_dir)?;
    let domain = machine_name();
    let server_file = paths.server_file(&default_server());
    write_new(&server_file, &server_text(&domain))?;
    write_new(&paths.service_file, &service_text())?;
    let files = vec![paths.service_file.clone(), server_file];
    Ok(FirstStart { files, listen: LISTEN.to_owned(), domain })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
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
