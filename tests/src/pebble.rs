//! A real authority that speaks ACME: Debian's Pebble, on loopback, with names from a DNS server of the test.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::certificates::{Authority, Valid};
use crate::{program, wait};

/// The name that its web server's certificate is for.
pub const NAME: &str = "acme.authority.test";

/// Why there is no authority, for the list of skips.
pub const ABSENT: &str = "pebble is not installed";

/// A running authority; it ends when dropped.
pub struct Pebble {
    child: Option<Child>,
    address: SocketAddr,
    config: PathBuf,
    resolver: SocketAddr,
    home: TempDir,
}

/// Where it asks whether a name is somebody's, and for how long it says so.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The port at which it asks.
    pub http: u16,
    /// How long its certificates are good, in seconds.
    pub validity: u64,
}

impl Pebble {
    /// Gives certificates at this address, asking this resolver for names; its web server is vouched for
    /// by `authority`. `None` when it is not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        resolver: SocketAddr,
        authority: &Authority,
        rules: Rules,
    ) -> Option<Self> {
        program::find("pebble")?;
        let home = tempfile::Builder::new().prefix("mailroot-pebble-").tempdir().unwrap();
        let both = fs::read_to_string(authority.sign(NAME, Valid::Now).path()).unwrap();
        let at = both.find("-----BEGIN CERTIFICATE").unwrap();
        let (key, chain) = (home.path().join("key.pem"), home.path().join("chain.pem"));
        fs::write(&key, &both[..at]).unwrap();
        fs::write(&chain, &both[at..]).unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": address.to_string(),
            "certificate": chain,
            "privateKey": key,
            "httpPort": rules.http,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": rules.validity,
        }});
        let file = home.path().join("config.json");
        fs::write(&file, config.to_string()).unwrap();
        let mut pebble = Self { child: None, address, config: file, resolver, home };
        pebble.launch();
        Some(pebble)
    }

    /// Starts it again; it has forgotten everything then, and signs with another key.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn launch(&mut self) {
        let log = fs::File::create(self.home.path().join("log")).unwrap();
        let child = Command::new("pebble")
            .arg("-config")
            .arg(&self.config)
            .args(["-strict", "-dnsserver", &self.resolver.to_string()])
            // It waits, and refuses good requests, at random where nobody says otherwise.
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let address = self.address;
        wait::until("the authority to listen", || TcpStream::connect(address).ok());
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ended = child.kill();
            let _status = child.wait();
        }
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> String {
        format!("https://{NAME}:{}/dir", self.address.port())
    }

    /// What it says of itself.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- authority\n{}", self.log());
        }
    }
}
