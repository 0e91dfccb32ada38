//! A real Postfix in a temporary directory: its own configuration, queue and port, nothing of the system's.
//!
//! As receiver it stores every address below `postfix.test` in a maildir; mail to anywhere else it relays
//! to a host of the test's choice, which makes it a sender. Only root can start it: `master` changes users.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::message::Stored;
use crate::talk::Talk;
use crate::{program, skip, wait};

/// A running instance; it stops when dropped.
pub struct Postfix {
    home: TempDir,
    address: SocketAddr,
}

/// Why there is no Postfix, for the list of skips.
pub const ABSENT: &str = "Postfix is not installed, or we are not root";

impl Postfix {
    /// Starts an instance that listens on `address` and sends what is not its own to `relay`; `None`
    /// when it is not installed or we are not root. `settings` are further lines of main.cf.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        relay: Option<SocketAddr>,
        settings: &[&str],
    ) -> Option<Self> {
        program::find("postfix").filter(|_| skip::root())?;
        let home = tempfile::Builder::new().prefix("mailroot-postfix-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let postfix = Self { home, address };
        postfix.lay(relay, settings);
        let started = postfix.control("start");
        assert!(started.success(), "postfix start: {started}");
        wait::until("a greeting of Postfix", || Talk::try_to(address).ok());
        Some(postfix)
    }

    fn lay(&self, relay: Option<SocketAddr>, settings: &[&str]) {
        let home = self.home.path();
        for folder in ["etc", "queue", "data", "mail"] {
            fs::create_dir(home.join(folder)).unwrap();
        }
        let number = |flag: &str, name: &str| -> u32 {
            program::run(Command::new("id").args([flag, name]), b"").ok().trim().parse().unwrap()
        };
        chown(home.join("data"), Some(number("-u", "postfix")), None).unwrap();
        let nobody = number("-u", "nobody");
        let group = number("-g", "nobody");
        chown(home.join("mail"), Some(nobody), Some(group)).unwrap();
        let relayhost = relay
            .map(|host| format!("relayhost = [{}]:{}\n", host.ip(), host.port()))
            .unwrap_or_default();
        let at = home.display();
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {at}/queue\ndata_directory = {at}/data\n\
             maillog_file =\nmyhostname = postfix.test\n\
             mydestination =\nmynetworks = 127.0.0.0/8\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             smtp_bind_address = 127.0.0.1\nsmtpd_peername_lookup = no\nsmtp_dns_support_level = disabled\n\
             alias_maps =\nalias_database =\nlocal_recipient_maps =\n\
             virtual_mailbox_domains = postfix.test, example.com, example.org\n\
             virtual_mailbox_base = {at}/mail\nvirtual_mailbox_maps = static:inbox/\n\
             virtual_uid_maps = static:{nobody}\nvirtual_gid_maps = static:{group}\n\
             virtual_minimum_uid = 1\nvirtual_mailbox_limit = 0\nmailbox_size_limit = 0\n\
             message_size_limit = 104857600\nsmtpd_recipient_restrictions =\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\nsmtputf8_enable = yes\n\
             strict_smtputf8 = no\nsmtpd_client_restrictions =\nsmtpd_sender_restrictions =\n\
             smtpd_delay_reject = no\nsmtpd_error_sleep_time = 0\nminimal_backoff_time = 5s\n\
             maximal_backoff_time = 5s\nqueue_run_delay = 5s\n{relayhost}{extra}\n",
            extra = settings.join("\n"),
        );
        fs::write(home.join("etc/main.cf"), main).unwrap();
        let master = format!(
            "{}:{} inet n - n - - smtpd\n{SERVICES}",
            self.address.ip(),
            self.address.port()
        );
        fs::write(home.join("etc/master.cf"), master).unwrap();
    }

    /// Listens at a further address, with these settings there.
    ///
    /// # Panics
    ///
    /// When Postfix does not take them.
    pub fn listen_too(&self, address: SocketAddr, settings: &[String]) {
        let path = self.home.path().join("etc/master.cf");
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str(&format!("{}:{} inet n - n - - smtpd", address.ip(), address.port()));
        for setting in settings {
            text.push_str(&format!("\n  -o {{{setting}}}"));
        }
        text.push('\n');
        fs::write(&path, text).unwrap();
        let reloaded = self.control("reload");
        assert!(reloaded.success(), "postfix reload: {reloaded}");
        wait::until("another listener of Postfix", || TcpStream::connect(address).ok());
    }

    /// Runs `postfix VERB`. Nothing of ours may be inherited: its master would keep a pipe open.
    fn control(&self, verb: &str) -> ExitStatus {
        Command::new("timeout")
            .args(["--kill-after=5", "60"])
            .arg(program::find("postfix").expect("it was there at the start"))
            .arg("-c")
            .arg(self.home.path().join("etc"))
            .arg(verb)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its configuration directory, for `sendmail -C`.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.home.path().join("etc")
    }

    /// What it delivered, with bare LF line ends as it stores them.
    ///
    /// # Panics
    ///
    /// Never; a maildir that is not there yet is empty.
    #[must_use]
    pub fn delivered(&self) -> Vec<Stored> {
        Stored::in_maildir(&self.home.path().join("mail/inbox/new"))
    }

    /// Waits until it delivered `count` messages.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    #[track_caller]
    pub fn await_delivered(&self, count: usize) -> Vec<Stored> {
        wait::until(&format!("{count} messages in Postfix's maildir"), || {
            let delivered = self.delivered();
            (delivered.len() >= count).then_some(delivered)
        })
    }

    /// Hands a message to its `sendmail` command.
    ///
    /// # Panics
    ///
    /// When that refuses it.
    pub fn sendmail(&self, from: &str, to: &str, octets: &[u8]) {
        let mut command = Command::new(program::find("sendmail").expect("it comes with Postfix"));
        command.arg("-C").arg(self.configuration()).args(["-i", "-f", from, to]);
        program::run(&mut command, octets).ok();
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let ended = self.control("stop");
        if !ended.success() {
            eprintln!("postfix stop: {ended}");
        }
    }
}

const SERVICES: &str = "\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 5 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
";
