//! A real DNS server: unbound with a zone of our own, on a loopback port.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::{ports, program, wait};

/// A running unbound; it ends when dropped.
pub struct Dns {
    child: Child,
    address: SocketAddr,
    home: TempDir,
}

impl Dns {
    /// Serves these records, each in zone-file form such as `example.com. MX 10 mx1.example.com.`;
    /// everything else does not exist. `None` when unbound is not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn serve(records: &[&str]) -> Option<Self> {
        let mut text = "  module-config: \"iterator\"\n  local-zone: \".\" static\n".to_owned();
        for record in records {
            let _infallible = writeln!(text, "  local-data: '{record}'");
        }
        Self::run(&text)
    }

    /// Asks this server for everything below `test.`, and validates what is below the anchor, a DS record.
    /// `None` when unbound is not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn validating(server: SocketAddr, anchor: &str) -> Option<Self> {
        Self::run(&format!(
            "  module-config: \"validator iterator\"\n  local-zone: \"test.\" nodefault\n  \
             trust-anchor: \"{anchor}\"\nstub-zone:\n  name: \"test.\"\n  stub-addr: {}@{}\n",
            server.ip(),
            server.port()
        ))
    }

    /// Runs unbound with these lines beside the usual ones.
    fn run(lines: &str) -> Option<Self> {
        let program = program::find("unbound")?;
        let home = tempfile::Builder::new().prefix("mailroot-dns-").tempdir().unwrap();
        let address = ports::local();
        let mut text = format!(
            "server:\n  interface: {}@{}\n  do-daemonize: no\n  use-syslog: no\n  logfile: \"\"\n  \
             chroot: \"\"\n  username: \"\"\n  directory: \"{}\"\n  pidfile: \"\"\n  verbosity: 1\n  \
             do-not-query-localhost: no\n  access-control: 127.0.0.0/8 allow\n{lines}",
            address.ip(),
            address.port(),
            home.path().display()
        );
        text.push_str("remote-control:\n  control-enable: no\n");
        let file = home.path().join("unbound.conf");
        fs::write(&file, text).unwrap();
        let log = fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["-d", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let dns = Self { child, address, home };
        wait::until("an answer of the DNS server", || dns.answers().then_some(()));
        Some(dns)
    }

    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn answers(&self) -> bool {
        // A query for the address of localhost, for which nobody else is asked: any answer will do.
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut reply = [0; 512];
        socket.send_to(query, self.address).is_ok() && socket.recv(&mut reply).is_ok()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("--- DNS server\n{log}");
        }
    }
}
