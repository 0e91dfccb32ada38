//! Postfix's own test programs: `smtp-sink` as a destination, `smtp-source` as a client.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::talk::Talk;
use crate::{program, skip, wait};

/// A running `smtp-sink` that keeps each message in a file.
pub struct Sink {
    child: Child,
    address: SocketAddr,
    home: TempDir,
}

/// One message as `smtp-sink -d` writes it: its own notes, then the message with bare LF line ends.
#[derive(Clone, Debug)]
pub struct Sunk {
    /// `X-Mail-Args`.
    pub mail: String,
    /// `X-Rcpt-Args`, one for each recipient.
    pub rcpt: Vec<String>,
    /// The message, with CRLF line ends again.
    pub octets: Vec<u8>,
}

impl Sink {
    /// Starts it; `None` when it is not installed.
    ///
    /// # Panics
    ///
    /// When it is installed and does not start.
    #[must_use]
    pub fn start(address: SocketAddr) -> Option<Self> {
        let program = program::find("smtp-sink")?;
        let home = tempfile::Builder::new().prefix("mailroot-sink-").tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = Command::new(program);
        if skip::root() {
            command.args(["-u", "nobody"]);
        }
        let child = command
            .arg("-d")
            .arg(format!("{}/%M.", home.path().display()))
            .arg(format!("{}:{}", address.ip(), address.port()))
            .arg("128")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sink = Self { child, address, home };
        wait::until("a greeting of smtp-sink", || Talk::try_to(address).ok());
        Some(sink)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The messages it kept, in no order.
    ///
    /// # Panics
    ///
    /// When its directory cannot be read.
    #[must_use]
    pub fn kept(&self) -> Vec<Sunk> {
        fs::read_dir(self.home.path())
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read(entry.path()).ok())
            .filter_map(|octets| Sunk::parse(&octets))
            .collect()
    }

    /// Waits until it kept `count` messages whose content ends with `ending` (it writes files bit by bit).
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    #[track_caller]
    pub fn await_kept(&self, count: usize, complete: impl Fn(&Sunk) -> bool) -> Vec<Sunk> {
        wait::until(&format!("{count} messages at smtp-sink"), || {
            let kept = self.kept();
            (kept.iter().filter(|sunk| complete(sunk)).count() >= count).then_some(kept)
        })
    }
}

impl Sunk {
    fn parse(octets: &[u8]) -> Option<Self> {
        let mut mail = String::new();
        let mut rcpt = Vec::new();
        let mut rest = octets;
        // Its notes end where the message begins; each of them is one X- field.
        loop {
            let end = rest.iter().position(|&octet| octet == b'\n')?;
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            match line.split_once(": ") {
                Some(("X-Mail-Args", value)) => value.clone_into(&mut mail),
                Some(("X-Rcpt-Args", value)) => rcpt.push(value.to_owned()),
                Some(("X-Client-Addr" | "X-Client-Proto" | "X-Helo-Args", _)) => {}
                _ => break,
            }
            rest = &rest[end + 1..];
        }
        // Its own trace field stands first; ours follow.
        let mut message = Vec::with_capacity(rest.len() + 64);
        for line in rest.split_inclusive(|&octet| octet == b'\n') {
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            message.extend_from_slice(content);
            message.extend_from_slice(b"\r\n");
        }
        Some(Self { mail, rcpt, octets: message })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
