//! Postfix's own test programs: `smtp-source`, which sends, and `smtp-sink`, which takes all.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::server::free_port;

/// What `smtp-source` sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) sessions: u32,
    pub(crate) messages: u64,
    pub(crate) size: u64,
    /// Whether a session sends one message after the other over one connection.
    pub(crate) open: bool,
    pub(crate) to: &'static str,
}

/// Whom the rows of the speed table send to.
pub(crate) const TO: &str = "user@sink.test";

impl Load {
    /// Sends all messages to `port`; returns once each was answered with 250.
    pub(crate) async fn send(self, port: u16, patience: Duration) -> Outcome<()> {
        let mut command = Command::new("smtp-source");
        if self.open {
            command.arg("-d");
        }
        command.args(["-s", &self.sessions.to_string(), "-m", &self.messages.to_string()]);
        command.args(["-l", &self.size.to_string()]);
        command.args(["-f", "sender@source.test", "-t", self.to]);
        command.arg(format!("127.0.0.1:{port}")).stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = timeout(patience, command.output())
            .await
            .map_err(|_| format!("smtp-source took more than {patience:?}"))??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("smtp-source: {}: {}", output.status, said.trim()).into());
        }
        Ok(())
    }
}

/// Sessions the sink takes at the same time; more than any server opens.
const SESSIONS_MAX: &str = "20000";

/// A running `smtp-sink`; it ends when dropped.
pub(crate) struct Sink {
    pub(crate) port: u16,
    _child: Child,
}

impl Sink {
    pub(crate) async fn start() -> Outcome<Self> {
        Self::start_on(free_port()?).await
    }

    pub(crate) async fn start_on(port: u16) -> Outcome<Self> {
        let child = Command::new("smtp-sink")
            .args(["-u", "nobody", "-m", SESSIONS_MAX, &format!("127.0.0.1:{port}"), "1024"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        for _ in 0..1000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
                return Ok(Self { port, _child: child });
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err("smtp-sink does not listen".into())
    }
}
