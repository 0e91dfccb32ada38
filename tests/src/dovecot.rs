//! A real Dovecot that does nothing but judge logins for Postfix, on a loopback port.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::kdc::{Kdc, REALM};
use crate::{ports, program, skip, wait};

/// A running instance; it ends when dropped.
pub struct Dovecot {
    child: Child,
    address: SocketAddr,
    home: TempDir,
}

/// Why there is no Dovecot, for the list of skips.
pub const ABSENT: &str = "Dovecot is not installed, or we are not root";

impl Dovecot {
    /// Knows one user. `None` when it is not installed or we are not root.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn start(user: &str, password: &str) -> Option<Self> {
        Self::launch(
            "plain login cram-md5 scram-sha-1 scram-sha-256",
            "driver = passwd-file\n  args = scheme=PLAIN",
            ("users", &format!("{user}:{{PLAIN}}{password}\n")),
        )
    }

    /// Takes tokens that the provider at this address calls good. `None` when it is not installed or we
    /// are not root.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn judging_tokens(provider: SocketAddr) -> Option<Self> {
        let asks = format!(
            "introspection_mode = post\nintrospection_url = http://{provider}/introspect\n\
             username_attribute = username\nactive_attribute = active\nactive_value = true\n\
             scope = mail\n"
        );
        let passdb = "driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args =";
        Self::launch("xoauth2 oauthbearer", passdb, ("oauth2.conf", &asks))
    }

    /// Takes tickets of a realm for the service that this name has there. `None` when it is not installed or
    /// we are not root.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn taking_tickets(kdc: &Kdc, name: &str) -> Option<Self> {
        let keytab = kdc.service_key();
        // Its helpers are not root.
        fs::set_permissions(&keytab, fs::Permissions::from_mode(0o644)).unwrap();
        let (variable, config) = kdc
            .environment()
            .split_once('=')
            .map(|(name, value)| (name.to_owned(), value.to_owned()))?;
        let passdb = format!(
            "driver = static\n  args = nopassword\n}}\nauth_krb5_keytab = {}\nauth_gssapi_hostname = {name}\n\
             auth_realms = {REALM}\nimport_environment = {variable}={config}\npassdb {{\n  driver = passwd-file\n  args =",
            keytab.display()
        );
        Self::launch("gssapi", &passdb, ("users", ""))
    }

    /// `passdb` ends where the path of its file belongs.
    fn launch(mechanisms: &str, passdb: &str, file: (&str, &str)) -> Option<Self> {
        let program = program::find("dovecot").filter(|_| skip::root())?;
        let home = tempfile::Builder::new().prefix("mailroot-dovecot-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (at, address) = (home.path().display().to_string(), ports::local());
        let (name, content) = file;
        fs::write(home.path().join(name), content).unwrap();
        let text = format!(
            "base_dir = {at}/run\nlog_path = {at}/log\nprotocols =\nssl = no\ndisable_plaintext_auth = no\n\
             default_internal_user = nobody\ndefault_login_user = nobody\ndefault_internal_group = nogroup\n\
             auth_mechanisms = {mechanisms}\nauth_failure_delay = 0\n\
             passdb {{\n  {passdb} {at}/{name}\n}}\n\
             userdb {{\n  driver = static\n  args = uid=65534 gid=65534 home=/nonexistent\n}}\n\
             service auth {{\n  inet_listener {{\n    address = {}\n    port = {}\n  }}\n}}\n",
            address.ip(),
            address.port()
        );
        let file = home.path().join("dovecot.conf");
        fs::write(&file, text).unwrap();
        let child = Command::new(program)
            .arg("-F")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let dovecot = Self { child, address, home };
        wait::until("Dovecot to listen", || TcpStream::connect(address).ok());
        Some(dovecot)
    }

    /// The lines of main.cf by which Postfix asks it, for this mechanism alone.
    #[must_use]
    pub fn for_postfix(&self, mechanism: &str) -> Vec<String> {
        vec![
            "smtpd_sasl_auth_enable = yes".to_owned(),
            "smtpd_sasl_type = dovecot".to_owned(),
            format!("smtpd_sasl_path = inet:{}:{}", self.address.ip(), self.address.port()),
            format!("smtpd_sasl_mechanism_filter = {mechanism}"),
            "smtpd_sasl_authenticated_header = yes".to_owned(),
            "smtpd_tls_auth_only = yes".to_owned(),
            "smtpd_recipient_restrictions = permit_sasl_authenticated, reject".to_owned(),
        ]
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // It ends its own helpers when told to.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _status = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("--- Dovecot\n{log}");
        }
    }
}
