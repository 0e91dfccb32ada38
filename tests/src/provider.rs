//! A provider of tokens: the program `tests/oauth/provider.py`, under TLS with a certificate of the test.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::certificates::{Authority, Valid};
use crate::{ports, program, wait};

/// The name that its certificate is for.
pub const NAME: &str = "login.provider.test";
/// The secret of the application that it knows as `app-1`.
pub const SECRET: &str = "s3cret of an application";
/// The right to ask for tokens that it takes first.
pub const RIGHT: &str = "right.of-a-person";

/// Why there is no provider, for the list of skips.
pub const ABSENT: &str = "python3 is not installed";

/// A running provider; it ends when dropped.
pub struct Provider {
    child: Option<Child>,
    address: SocketAddr,
    plain: SocketAddr,
    chain: PathBuf,
    home: TempDir,
}

impl Provider {
    /// Gives tokens for this mailbox at this address; `None` when Python is not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and the provider does not start.
    #[must_use]
    pub fn start(address: SocketAddr, authority: &Authority, mailbox: &str) -> Option<Self> {
        program::find("python3")?;
        let home = tempfile::Builder::new().prefix("mailroot-provider-").tempdir().unwrap();
        let chain = authority.sign(NAME, Valid::Now).path().to_owned();
        let first = json!({
            "secret": SECRET, "certificate": null, "refresh": RIGHT, "life": 3600, "epoch": 1, "pending": 1, "mailbox": mailbox,
        });
        fs::write(home.path().join("state"), first.to_string()).unwrap();
        let mut provider = Self { child: None, address, plain: ports::local(), chain, home };
        provider.launch();
        Some(provider)
    }

    /// Starts it again. Tokens that it gave before are good no more.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn launch(&mut self) {
        let at = |address: SocketAddr| [address.ip().to_string(), address.port().to_string()];
        let child = Command::new("python3")
            .arg(program::repository().join("tests/oauth/provider.py"))
            .args(at(self.address))
            .arg(&self.chain)
            .args(at(self.plain))
            .arg(self.home.path().join("state"))
            .arg(self.home.path().join("log"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let (address, plain) = (self.address, self.plain);
        wait::until("the provider to listen", || {
            TcpStream::connect(address).and_then(|_| TcpStream::connect(plain)).ok()
        });
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The address of what it is asked: `token` or `devicecode`.
    #[must_use]
    pub fn endpoint(&self, what: &str) -> String {
        format!("https://{NAME}:{}/tenant.test/oauth2/v2.0/{what}", self.address.port())
    }

    /// Where it judges tokens, under TLS.
    #[must_use]
    pub fn introspection(&self) -> String {
        format!("https://{NAME}:{}/introspect", self.address.port())
    }

    /// Where its keys lie, under TLS.
    #[must_use]
    pub fn keys(&self) -> String {
        format!("https://{NAME}:{}/keys", self.address.port())
    }

    /// How often it was asked for its keys.
    #[must_use]
    pub fn keys_asked(&self) -> usize {
        let log = fs::read_to_string(self.home.path().join("log.keys")).unwrap_or_default();
        log.lines().count()
    }

    /// What it was asked to judge, one object for each question.
    ///
    /// # Panics
    ///
    /// When its log cannot be read.
    #[must_use]
    pub fn judged(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.home.path().join("log.judged")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A new token for its mailbox.
    ///
    /// # Panics
    ///
    /// When it gives none.
    #[must_use]
    pub fn token(&self) -> String {
        let form = format!("grant_type=client_credentials&client_id=app-1&client_secret={SECRET}");
        let at = format!("http://{}/tenant.test/oauth2/v2.0/token", self.plain);
        let mut curl = Command::new("curl");
        let said = program::run(curl.args(["--silent", "--fail", "--data", &form, &at]), b"").ok();
        let answer: Value = serde_json::from_str(&said).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Where others have it judge tokens, in clear text.
    #[must_use]
    pub const fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// Has it behave otherwise from now on; what can be set stands in its program.
    ///
    /// # Panics
    ///
    /// When its files cannot be written.
    pub fn set(&self, key: &str, value: &Value) {
        let path = self.home.path().join("state");
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        state[key] = value.clone();
        replace(&path, &state.to_string());
    }

    /// What was asked of it and what it gave, one object for each request.
    ///
    /// # Panics
    ///
    /// When its log cannot be read.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every secret that went either way.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        let mut found = vec![SECRET.to_owned(), RIGHT.to_owned()];
        for request in self.requests() {
            for member in ["access_token", "refresh_token", "device_code"] {
                found.extend(request["given"][member].as_str().map(str::to_owned));
            }
        }
        found
    }
}

/// Whoever reads sees the old text or the new one.
fn replace(path: &Path, text: &str) {
    let aside = path.with_extension("new");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- provider\n{:#?}", self.requests());
        }
    }
}
