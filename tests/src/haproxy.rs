//! A real balancer (HAProxy) on a loopback port, in front of one server.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{ports, program, wait};

/// Why there is no balancer, for the list of skips.
pub const ABSENT: &str = "haproxy is not installed";

/// A running balancer; it ends when dropped.
pub struct Haproxy {
    child: Child,
    home: TempDir,
    address: SocketAddr,
}

impl Haproxy {
    /// Passes connections on to `server`, each with a header of this form: `send-proxy` or
    /// `send-proxy-v2`. `None` when it is not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn before(server: SocketAddr, form: &str) -> Option<Self> {
        Self::start(server, "", form)
    }

    /// Stands between clients and a server under TLS, with TLS of its own to either: clients see this
    /// identity. `None` when it is not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn between(server: SocketAddr, identity: &Path) -> Option<Self> {
        let shows = format!("ssl crt {}", identity.display());
        Self::start(server, &shows, "ssl verify none")
    }

    fn start(server: SocketAddr, shows: &str, form: &str) -> Option<Self> {
        let haproxy = program::find("haproxy")?;
        let home = tempfile::Builder::new().prefix("mailroot-haproxy-").tempdir().unwrap();
        let (address, file) = (ports::local(), home.path().join("haproxy.cfg"));
        let text = format!(
            "global\n maxconn 100\ndefaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n\
             listen mail\n bind {address} {shows}\n server ours {server} {form}\n"
        );
        fs::write(&file, text).unwrap();
        let log = fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new(haproxy)
            .args(["-db", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        wait::until("the balancer to listen", || TcpStream::connect(address).ok());
        Some(Self { child, home, address })
    }

    /// Where clients come.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            eprintln!("--- haproxy\n{log}");
        }
    }
}
