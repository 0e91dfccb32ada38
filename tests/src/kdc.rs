//! A real Kerberos realm (MIT) of one server, on a loopback port, for logins by tickets.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{ports, program, skip, wait};

/// Why there is no realm, for the list of skips.
pub const ABSENT: &str = "krb5-kdc is not installed, or we are not root";

/// The realm's name.
pub const REALM: &str = "MAILROOT.TEST";

/// A running realm; it ends when dropped.
pub struct Kdc {
    child: Child,
    home: TempDir,
}

impl Kdc {
    /// Knows these principals by their passwords, and one service whose key lies in a file. `None` when it
    /// is not installed or we are not root.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn start(users: &[(&str, &str)], service: &str) -> Option<Self> {
        let [server, create, admin] = ["krb5kdc", "kdb5_util", "kadmin.local"].map(program::find);
        let (server, create, admin) = (server?, create?, admin?);
        if !skip::root() {
            return None;
        }
        let home = tempfile::Builder::new().prefix("mailroot-kdc-").tempdir().unwrap();
        let (at, address) = (home.path().display().to_string(), ports::local());
        fs::write(
            home.path().join("krb5.conf"),
            format!(
                "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n \
                 dns_canonicalize_hostname = false\n rdns = false\n udp_preference_limit = 1\n \
                 default_ccache_name = FILE:{at}/cache\n default_client_keytab_name = FILE:{at}/client.keytab\n\
                 [realms]\n {REALM} = {{\n  kdc = {address}\n }}\n"
            ),
        )
        .unwrap();
        fs::write(
            home.path().join("kdc.conf"),
            format!(
                "[kdcdefaults]\n kdc_listen = {address}\n kdc_tcp_listen = {address}\n[realms]\n {REALM} = {{\n  \
                 database_name = {at}/principal\n  key_stash_file = {at}/stash\n  acl_file = {at}/acl\n }}\n\
                 [logging]\n kdc = FILE:{at}/log\n"
            ),
        )
        .unwrap();
        let run = |program: &Path, arguments: &[&str]| {
            let mut command = Command::new(program);
            program::run(with(&mut command, home.path()).args(arguments), b"").ok()
        };
        let _made = run(&create, &["-r", REALM, "create", "-s", "-P", "of the realm"]);
        for (user, password) in users {
            let _known = run(&admin, &["-q", &format!("addprinc -pw \"{password}\" {user}")]);
        }
        let _known = run(&admin, &["-q", &format!("addprinc -randkey {service}")]);
        let _kept = run(&admin, &["-q", &format!("ktadd -k {at}/service.keytab {service}")]);
        let mut command = Command::new(server);
        let child = with(&mut command, home.path())
            .args(["-n", "-r", REALM])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait::until("the realm to listen", || TcpStream::connect(address).ok());
        Some(Self { child, home })
    }

    /// Puts the key of a user where the library looks for it; its password is good no more.
    ///
    /// # Panics
    ///
    /// When the realm does not know it.
    pub fn keep_key_of(&self, user: &str) {
        let keytab = self.home.path().join("client.keytab");
        self.order(&format!("ktadd -k {} {user}", keytab.display()));
    }

    /// Gives an order of `kadmin`.
    ///
    /// # Panics
    ///
    /// When the realm cannot do it.
    pub fn order(&self, order: &str) {
        let admin = program::find("kadmin.local").unwrap();
        let mut command = Command::new(admin);
        program::run(with(&mut command, self.home.path()).args(["-q", order]), b"").ok();
    }

    /// How often somebody has asked it for a first ticket.
    #[must_use]
    pub fn asked(&self) -> usize {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains("AS_REQ")).count()
    }

    /// Ends it; nobody answers then.
    pub fn stop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }

    /// Where the service's key is.
    #[must_use]
    pub fn service_key(&self) -> PathBuf {
        self.home.path().join("service.keytab")
    }

    /// What a program must have in its environment to know the realm.
    #[must_use]
    pub fn environment(&self) -> String {
        format!("KRB5_CONFIG={}", self.home.path().join("krb5.conf").display())
    }
}

fn with<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command
        .env("KRB5_CONFIG", home.join("krb5.conf"))
        .env("KRB5_KDC_PROFILE", home.join("kdc.conf"))
}

impl Drop for Kdc {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("--- KDC\n{log}");
        }
    }
}
