//! A real Exim, from an unpacked package: it cannot be installed beside Postfix. As a sender, and as a host
//! that takes mail under TLS with a login and holds mail of a domain for ETRN.
//!
//! `tests/run.sh` unpacks it below `target/exim`. Its program insists on a user of its own, so it runs in
//! a private mount namespace with a password file that has one; that needs root. The packaged version
//! (4.96) knows no ATRN, which came with 4.99.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::certificates::Identity;
use crate::message::Stored;
use crate::program::{self, Finished};
use crate::talk::Talk;
use crate::{skip, wait};

/// An Exim with a configuration.
pub struct Exim {
    home: TempDir,
    root: PathBuf,
    daemon: Option<Child>,
}

/// Why there is no Exim, for the list of skips.
pub const ABSENT: &str = "Exim is not unpacked below target/exim, or we are not root";

/// The domain whose mail a receiving Exim holds for ETRN.
pub const HELD_DOMAIN: &str = "branch.test";

impl Exim {
    /// One that sends everything to one host; `None` when it was not unpacked or we are not root.
    ///
    /// # Panics
    ///
    /// When its files cannot be written.
    #[must_use]
    pub fn relaying_to(host: SocketAddr) -> Option<Self> {
        let rest = format!(
            "begin routers\nsend:\n  driver = manualroute\n  route_list = * {ip}\n  transport = out\n  \
             self = send\nbegin transports\nout:\n  driver = smtp\n  port = {port}\n  \
             hosts_try_chunking = *\n  allow_localhost\n",
            ip = host.ip(),
            port = host.port(),
        );
        Self::prepare(&rest)
    }

    /// One that listens, wants TLS and the login `user` with `password`, keeps mail of all domains, and
    /// that of [`HELD_DOMAIN`] for `branch` until it is asked for; `None` as above.
    ///
    /// # Panics
    ///
    /// When its files cannot be written, or it does not start.
    #[must_use]
    pub fn receiving(
        address: SocketAddr,
        identity: &Identity,
        (user, password): (&str, &str),
        branch: SocketAddr,
    ) -> Option<Self> {
        let rest = format!(
            "tls_advertise_hosts = *\ntls_certificate = HOME/both.pem\ntls_privatekey = HOME/both.pem\n\
             auth_advertise_hosts = ${{if def:tls_in_cipher{{*}}}}\ndsn_advertise_hosts = *\n\
             queue_domains = {HELD_DOMAIN}\nacl_smtp_mail = check_mail\nacl_smtp_rcpt = all\n\
             acl_smtp_etrn = all\n\
             begin acl\ncheck_mail:\n  deny message = TLS first\n       !encrypted = *\n  \
             deny message = login first\n       !authenticated = *\n  accept\nall:\n  accept\n\
             begin routers\nbranch:\n  driver = manualroute\n  domains = {HELD_DOMAIN}\n  \
             route_list = * {ip}\n  transport = out\n  self = send\nkeep:\n  driver = accept\n  \
             transport = keep\n\
             begin transports\nout:\n  driver = smtp\n  port = {port}\n  allow_localhost\nkeep:\n  \
             driver = appendfile\n  directory = HOME/mail\n  maildir_format\n  create_directory\n  \
             user = Debian-exim\n  envelope_to_add\n  return_path_add\n\
             begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n  \
             server_prompts = :\n  \
             server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}\n  \
             server_set_id = $auth2\n",
            ip = branch.ip(),
            port = branch.port(),
        );
        let mut exim = Self::prepare(&rest)?;
        let both = exim.home.path().join("both.pem");
        fs::copy(identity.path(), &both).unwrap();
        fs::set_permissions(&both, fs::Permissions::from_mode(0o644)).unwrap();
        let arguments = format!("-bdf -oX {}:{}", address.ip(), address.port());
        let mut command = exim.command(&arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        exim.daemon = Some(command.spawn().unwrap());
        wait::until("Exim to listen", || Talk::try_to(address).ok().map(drop));
        Some(exim)
    }

    fn prepare(rest: &str) -> Option<Self> {
        let root = program::repository().join("target/exim");
        if !root.join("usr/sbin/exim4").is_file() || !skip::root() {
            return None;
        }
        let home = tempfile::Builder::new().prefix("mailroot-exim-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = home.path().display().to_string();
        for folder in ["spool", "log", "mail"] {
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
             local_interfaces = 127.0.0.1\nexim_path = {root}/usr/sbin/exim4\n{rest}",
            root = root.display(),
            rest = rest.replace("HOME", &at),
        );
        fs::write(home.path().join("exim.conf"), configuration).unwrap();
        Some(Self { home, root, daemon: None })
    }

    fn command(&self, arguments: &str) -> Command {
        let script = format!(
            "mount --bind {home}/passwd /etc/passwd && mount --bind {home}/group /etc/group && \
             exec env LD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu {root}/usr/sbin/exim4 \
             -C {home}/exim.conf {arguments}",
            home = self.home.path().display(),
            root = self.root.display(),
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        command
    }

    /// Sends one message and waits for the end of the attempt.
    #[must_use]
    pub fn send(&self, from: &str, to: &str, octets: &[u8]) -> Finished {
        program::run(&mut self.command(&format!("-odf -i -f '{from}' '{to}'")), octets)
    }

    /// Waits until so many messages were kept.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    #[track_caller]
    pub fn await_kept(&self, count: usize) -> Vec<Stored> {
        let place = self.home.path().join("mail/new");
        wait::until(&format!("{count} messages kept by Exim\n{}", self.log()), || {
            let kept = Stored::in_maildir(&place);
            (kept.len() >= count).then_some(kept)
        })
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log/main")).unwrap_or_default()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may be gone already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
