//! A host of MTA-STS policies: the program `tests/sts/policy.py`, under TLS on the port of the web.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{ports, program, skip, wait};

/// Why there is no policy host, for the list of skips.
pub const ABSENT: &str = "python3 is not installed, or we are not root";

/// A running policy host; it ends when dropped.
pub struct PolicyHost {
    child: Child,
    address: SocketAddr,
    home: TempDir,
}

impl PolicyHost {
    /// Answers on port 443 of the loopback address with this number, showing this certificate; `None`
    /// when Python is not installed or we are not root.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(host: u8, chain: &Path, policy: &str) -> Option<Self> {
        program::find("python3").filter(|_| skip::root())?;
        let home = tempfile::Builder::new().prefix("mailroot-policy-").tempdir().unwrap();
        let address = ports::host(host, 443);
        write(home.path(), &json!({ "body": policy }));
        let child = Command::new("python3")
            .arg(program::repository().join("tests/sts/policy.py"))
            .args([address.ip().to_string(), address.port().to_string()])
            .arg(chain)
            .args([home.path().join("state"), home.path().join("log")])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let policy_host = Self { child, address, home };
        wait::until("the policy host to listen", || TcpStream::connect(address).ok());
        Some(policy_host)
    }

    /// Where it answers.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it.
    pub fn stop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    /// Has it answer otherwise from now on; what can be set stands in its program.
    pub fn answer(&self, state: &Value) {
        write(self.home.path(), state);
    }

    /// What was posted to it, in order.
    #[must_use]
    pub fn posted(&self) -> Vec<Vec<u8>> {
        let read = |number| fs::read(self.home.path().join(format!("{number}.posted"))).ok();
        (0..).map_while(read).collect()
    }

    /// What was asked of it, a line for each request.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

/// Whoever reads sees the old text or the new one.
fn write(home: &Path, state: &Value) {
    fs::write(home.join("new"), state.to_string()).unwrap();
    fs::rename(home.join("new"), home.join("state")).unwrap();
}

impl Drop for PolicyHost {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- policy host\n{:#?}", self.requests());
        }
    }
}
