//! A real Exim as a sender, from an unpacked package: it cannot be installed beside Postfix.
//!
//! `tests/run.sh` unpacks it below `target/exim`. Its program insists on a user of its own, so it runs in
//! a private mount namespace with a password file that has one; that needs root.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::program::{self, Finished};
use crate::skip;

/// An Exim that sends everything to one host.
pub struct Exim {
    home: TempDir,
    root: PathBuf,
}

/// Why there is no Exim, for the list of skips.
pub const ABSENT: &str = "Exim is not unpacked below target/exim, or we are not root";

impl Exim {
    /// Prepares it; `None` when it was not unpacked or we are not root.
    ///
    /// # Panics
    ///
    /// When its files cannot be written.
    #[must_use]
    pub fn relaying_to(host: SocketAddr) -> Option<Self> {
        let root = program::repository().join("target/exim");
        if !root.join("usr/sbin/exim4").is_file() || !skip::root() {
            return None;
        }
        let home = tempfile::Builder::new().prefix("mailroot-exim-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = home.path().display();
        for folder in ["spool", "log"] {
            fs::create_dir(home.path().join(folder)).unwrap();
            fs::set_permissions(home.path().join(folder), fs::Permissions::from_mode(0o777))
                .unwrap();
        }
        let passwords = fs::read_to_string("/etc/passwd").unwrap();
        let groups = fs::read_to_string("/etc/group").unwrap();
        fs::write(
            home.path().join("passwd"),
            format!("{passwords}Debian-exim:x:64999:64999::/:/usr/sbin/nologin\n"),
        )
        .unwrap();
        fs::write(home.path().join("group"), format!("{groups}Debian-exim:x:64999:\n")).unwrap();
        let configuration = format!(
            "primary_hostname = exim.test\nspool_directory = {at}/spool\nlog_file_path = {at}/log/%s\n\
             notifier_socket =\nkeep_environment =\nqualify_domain = exim.test\nhosts_connection_nolog = *\n\
             local_interfaces = 127.0.0.1\nexim_path = {root}/usr/sbin/exim4\n\
             begin routers\nsend:\n  driver = manualroute\n  route_list = * {ip}\n  transport = out\n  \
             self = send\nbegin transports\nout:\n  driver = smtp\n  port = {port}\n  \
             hosts_try_chunking = *\n  allow_localhost\n",
            ip = host.ip(),
            port = host.port(),
            root = root.display(),
        );
        fs::write(home.path().join("exim.conf"), configuration).unwrap();
        Some(Self { home, root })
    }

    /// Sends one message and waits for the end of the attempt.
    #[must_use]
    pub fn send(&self, from: &str, to: &str, octets: &[u8]) -> Finished {
        let script = format!(
            "mount --bind {home}/passwd /etc/passwd && mount --bind {home}/group /etc/group && \
             exec env LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu {root}/usr/sbin/exim4 \
             -C {home}/exim.conf -odf -i -f '{from}' '{to}'",
            home = self.home.path().display(),
            root = self.root.display(),
        );
        program::run(Command::new("unshare").args(["--mount", "sh", "-c", &script]), octets)
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log/main")).unwrap_or_default()
    }
}
