//! A real OpenSMTPD, from an unpacked package: its programs have the names of ours, and it cannot be
//! installed beside Postfix. As a relay that logs in under TLS, and as a host that takes mail.
//!
//! `tests/run.sh` unpacks it below `target/opensmtpd`. Its program insists on users and places of its own,
//! so it runs in a private mount namespace that has them; that needs root. The packaged version (6.8)
//! cannot be called under TLS: built with OpenSSL 3 it does not find its own private key.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::message::Stored;
use crate::talk::Talk;
use crate::{program, skip, wait};

/// A running OpenSMTPD.
pub struct OpenSmtpd {
    home: TempDir,
    daemon: Child,
    address: SocketAddr,
}

/// Why there is none, for the list of skips.
pub const ABSENT: &str = "OpenSMTPD is not unpacked below target/opensmtpd, or we are not root";

/// The domain whose mail it keeps.
pub const DOMAIN: &str = "keep.test";

impl OpenSmtpd {
    /// One that keeps mail of [`DOMAIN`] and sends all other to a host, under TLS with a login and a
    /// certificate that `trust` vouches for, for the name `host`; `None` when it was not unpacked or we are
    /// not root.
    ///
    /// # Panics
    ///
    /// When its files cannot be written, or it does not start.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        relay: SocketAddr,
        (user, password): (&str, &str),
    ) -> Option<Self> {
        let root = program::repository().join("target/opensmtpd");
        if !root.join("usr/sbin/smtpd").is_file() || !skip::root() {
            return None;
        }
        let home = tempfile::Builder::new().prefix("mailroot-opensmtpd-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = home.path().display().to_string();
        let configuration = format!(
            "table secrets {{ \"us\" = \"{user}:{password}\" }}\n\
             table keepers {{ \"@{DOMAIN}\" = \"nobody\" }}\n\
             listen on {ip} port {port} hostname opensmtpd.test\n\
             action \"keep\" maildir \"{at}/mail\" virtual <keepers>\n\
             action \"out\" relay host smtp+tls://us@{relay} auth <secrets> tls no-verify\n\
             match from any for domain \"{DOMAIN}\" action \"keep\"\n\
             match from any for any action \"out\"\n",
            ip = address.ip(),
            port = address.port(),
        );
        Self::furnish(&home, &root, &configuration);
        let script = format!(
            "for it in etc/passwd etc/group var/spool var/lib run usr/libexec; do \
             mount --bind {at}/root/$it /$it || exit 1; done; \
             exec env LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu {root}/usr/sbin/smtpd \
             -d -f {at}/smtpd.conf",
            root = root.display(),
        );
        let log = fs::File::create(home.path().join("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self { home, daemon, address };
        wait::until("OpenSMTPD to listen", || Talk::try_to(address).ok().map(drop));
        Some(started)
    }

    /// The files that it looks for at places of its own.
    fn furnish(home: &TempDir, root: &Path, configuration: &str) {
        let place = |path: &str| home.path().join("root").join(path);
        for folder in
            ["etc", "var/spool", "var/lib/opensmtpd/empty", "run", "usr/libexec/opensmtpd"]
        {
            fs::create_dir_all(place(folder)).unwrap();
        }
        fs::create_dir(home.path().join("mail")).unwrap();
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(home.path().join("mail"), open).unwrap();
        for program in fs::read_dir(root.join("usr/libexec/opensmtpd")).unwrap() {
            let program = program.unwrap();
            fs::copy(program.path(), place("usr/libexec/opensmtpd").join(program.file_name()))
                .unwrap();
        }
        let extend = |path: &str, lines: &str| {
            let text = fs::read_to_string(format!("/{path}")).unwrap();
            fs::write(place(path), format!("{text}{lines}")).unwrap();
        };
        let user = |name: &str, id: u32| {
            format!("{name}:x:{id}:{id}::/var/lib/opensmtpd/empty:/usr/sbin/nologin\n")
        };
        extend("etc/passwd", &(user("opensmtpd", 64_991) + &user("opensmtpq", 64_992)));
        extend("etc/group", "opensmtpd:x:64991:\nopensmtpq:x:64992:\n");
        fs::write(home.path().join("smtpd.conf"), configuration).unwrap();
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until so many messages were kept.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    #[track_caller]
    pub fn await_kept(&self, count: usize) -> Vec<Stored> {
        let place = self.home.path().join("mail/new");
        wait::until(&format!("{count} messages kept by OpenSMTPD"), || {
            let kept = Stored::in_maildir(&place);
            (kept.len() >= count).then_some(kept)
        })
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for OpenSmtpd {
    fn drop(&mut self) {
        // Its other processes end with the first; it may be gone already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
