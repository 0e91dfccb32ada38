//! The name servers of the system, as resolv.conf(5) has them.
//!
//! A file that names none, or none at all, means the name server on this machine. So a machine whose network is not
//! there yet has a service all the same: mail for local domains and smart hosts with addresses needs no DNS.

use std::io;
use std::path::Path;

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use hickory_resolver::system_conf::parse_resolv_conf;

use super::SetupError;

/// Where the system has them.
pub(super) const FILE: &str = "/etc/resolv.conf";
/// What is asked where nobody is named.
const LOCAL: &str = "\nnameserver 127.0.0.1\n";

/// Reads the file.
pub(super) fn read(file: &Path) -> Result<(ResolverConfig, ResolverOpts), SetupError> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.map_err(|error| SetupError(error.to_string()))?,
    };
    let names_one = text.lines().any(|line| line.split_whitespace().next() == Some("nameserver"));
    let text = if names_one { text } else { text + LOCAL };
    parse_resolv_conf(text).map_err(|error| SetupError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_is_named_the_machine_itself_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        let servers = || {
            let (config, _) = read(&file).unwrap();
            let servers = config.name_servers().iter().map(|server| server.ip.to_string());
            servers.collect::<Vec<_>>()
        };
        assert_eq!(servers(), ["127.0.0.1"], "without a file");
        for (text, expected) in [
            ("", "127.0.0.1"),
            ("# nameserver 192.0.2.1\nsearch example.net", "127.0.0.1"),
            ("search example.net\nnameserver 192.0.2.1\n", "192.0.2.1"),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(servers(), [expected], "{text:?}");
        }
    }
}
