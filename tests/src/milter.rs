//! Milters in processes of their own: one on libmilter that does what a message asks it to, and others as they
//! are shipped.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{ports, program, skip, wait};

/// A milter, or a program that one needs; it ends when dropped.
#[derive(Debug)]
pub struct Milter {
    child: Child,
    address: SocketAddr,
    home: TempDir,
}

impl Drop for Milter {
    fn drop(&mut self) {
        // Asked first, so that it ends its own processes; it may have ended by itself.
        let pid = Pid::from_raw(self.child.id().try_into().unwrap_or_default());
        let _asked = kill(pid, Signal::SIGTERM);
        if wait::within(wait::PATIENCE, || self.child.try_wait().ok().flatten()).is_none() {
            let _ended = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

impl Milter {
    /// Runs a milter and waits until it listens at this address; its home goes with it.
    ///
    /// # Panics
    ///
    /// When it cannot be run or does not listen.
    #[must_use]
    pub fn run(mut command: Command, address: SocketAddr, home: TempDir) -> Self {
        let log = fs::File::create(home.path().join("out")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let milter = Self { child, address, home };
        let listens = wait::within(wait::PATIENCE, || TcpStream::connect(address).ok());
        let out = || fs::read_to_string(milter.home.path().join("out")).unwrap_or_default();
        assert!(listens.is_some(), "the milter does not listen: {}", out());
        milter
    }

    /// The one on libmilter; nothing where its library is not there.
    ///
    /// # Panics
    ///
    /// When it does not listen.
    #[must_use]
    pub fn actions() -> Option<Self> {
        let has = Command::new("/usr/bin/python3").args(["-c", "import Milter"]).output();
        if !has.is_ok_and(|done| done.status.success()) {
            skip::note("milters", "python3-milter is not installed");
            return None;
        }
        let home = tempfile::Builder::new().prefix("mailroot-milter-").tempdir().unwrap();
        let address = ports::local();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(program::repository().join("tests/milter/actions.py"));
        command.arg(format!("inet:{}@127.0.0.1", address.port())).arg(home.path().join("log"));
        Some(Self::run(command, address, home))
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the one on libmilter has heard.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Its entry in `messages.milters`.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("\"inet:127.0.0.1:{}\"", self.address.port())
    }
}
