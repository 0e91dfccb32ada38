//! The three programs that are compared, each started alone in a directory of its own.
//!
//! All listen on loopback, send to the same sink or to a port where nobody listens, and write
//! their log to a file. A server ends when it is dropped, however the benchmark ends.

mod bound;
mod mailroot;
mod postfix;

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::options::Options;
use crate::watch::Watch;

/// How long a server may take to greet, and to stop.
const PATIENCE: Duration = Duration::from_mins(2);

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Program {
    Bound,
    Mailroot,
    Postfix,
}

impl Program {
    pub(crate) const ALL: [Self; 3] = [Self::Bound, Self::Mailroot, Self::Postfix];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bound => "Bound",
            Self::Mailroot => "Mailroot",
            Self::Postfix => "Postfix",
        }
    }
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Where all mail goes; nobody need listen there.
    pub(crate) next_hop: u16,
    /// Whether mail is expected to go there.
    pub(crate) forwards: bool,
    /// Whether it goes there under TLS only.
    pub(crate) tls: bool,
    /// A library loaded into the server before all others, which makes each sync take some ms.
    pub(crate) preload: Option<(u64, PathBuf)>,
    /// A further port of Mailroot, at which TLS begins at once.
    pub(crate) implicit: Option<u16>,
    /// Where Mailroot finds DNS; the system's resolver if nowhere.
    pub(crate) resolver: Option<u16>,
    /// Keys of Mailroot's server file that a measurement needs beyond the defaults: section, line.
    pub(crate) keys: Vec<(&'static str, String)>,
}

impl Setup {
    /// Nothing beyond the defaults.
    pub(crate) fn new(next_hop: u16, options: &Options) -> Self {
        let preload = options.slow_disk.clone();
        Self {
            next_hop,
            forwards: false,
            tls: false,
            preload,
            implicit: None,
            resolver: None,
            keys: Vec::new(),
        }
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) port: u16,
    pub(crate) home: PathBuf,
    setup: Setup,
    child: Option<Child>,
    pid: u32,
}

impl Server {
    /// Starts `program` in the new directory `home` and waits for its greeting.
    pub(crate) async fn start(program: Program, home: &Path, setup: &Setup) -> Outcome<Self> {
        fs::create_dir_all(home)?;
        let port = free_port()?;
        match program {
            Program::Bound => {}
            Program::Mailroot => mailroot::configure(home, port, setup)?,
            Program::Postfix => postfix::configure(home, port, setup)?,
        }
        let mut server = Self {
            program,
            port,
            home: home.to_owned(),
            setup: setup.clone(),
            child: None,
            pid: 0,
        };
        server.launch().await?;
        Ok(server)
    }

    /// Starts it, or starts it again over what it left.
    pub(crate) async fn launch(&mut self) -> Outcome<()> {
        let mut command = match self.program {
            Program::Bound => bound::command(&self.home, self.port, &self.setup),
            Program::Mailroot => mailroot::command(&self.home),
            Program::Postfix => postfix::command(&self.home),
        };
        if let Some((delay, library)) = &self.setup.preload {
            command.env("LD_PRELOAD", library).env("SLOW_DISK_MS", delay.to_string());
        }
        let output = File::options().create(true).append(true).open(self.home.join("out"))?;
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        let child = command.kill_on_drop(self.program != Program::Postfix).spawn()?;
        self.pid = child.id().ok_or("the server ended at once")?;
        self.child = Some(child);
        let begun = Instant::now();
        while greeting(self.port).await.is_none() {
            let child = self.child.as_mut().ok_or("the server is gone")?;
            if let Some(status) = child.try_wait()? {
                let said = fs::read_to_string(self.home.join("out")).unwrap_or_default();
                return Err(format!("{}: {status}\n{said}", self.program.name()).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} does not greet", self.program.name()).into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        if self.program == Program::Postfix {
            self.pid = postfix::master(&self.home)?;
        }
        Ok(())
    }

    /// The process all others of the server descend from.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The file in which the server tells of deliveries.
    pub(crate) fn log(&self) -> PathBuf {
        self.home.join(match self.program {
            Program::Bound => "out",
            Program::Mailroot => "log",
            Program::Postfix => "log/mail",
        })
    }

    /// Watches for messages that have reached the next hop.
    pub(crate) fn watch(&self) -> Watch {
        let (words, messages) = match self.program {
            Program::Bound => ("arrived ", 100),
            Program::Mailroot => ("event=delivered", 1),
            Program::Postfix => ("status=sent", 1),
        };
        Watch::new(self.log(), words, messages)
    }

    /// Ends the server as a crash would: no process of it runs on.
    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        for pid in crate::process::tree(self.pid) {
            signal(pid, Signal::SIGKILL);
        }
        self.ended().await
    }

    /// Asks the server to end, and waits.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        signal(self.pid, Signal::SIGTERM);
        self.ended().await
    }

    /// Stops it and starts it again; returns how long the start took until the greeting.
    pub(crate) async fn restart(&mut self) -> Outcome<Duration> {
        signal(self.pid, Signal::SIGTERM);
        self.ended().await?;
        let begun = Instant::now();
        self.launch().await?;
        Ok(begun.elapsed())
    }

    async fn ended(&mut self) -> Outcome<()> {
        if let Some(mut child) = self.child.take() {
            timeout(PATIENCE, child.wait()).await.map_err(|_| "the server does not end")??;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            for pid in crate::process::tree(self.pid) {
                signal(pid, Signal::SIGKILL);
            }
        }
    }
}

fn signal(pid: u32, which: Signal) {
    if let Ok(pid) = i32::try_from(pid)
        && pid > 1
    {
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(pid), which);
    }
}

/// The first octets a server says, if one listens on `port`.
async fn greeting(port: u16) -> Option<[u8; 4]> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    let mut octets = [0; 4];
    timeout(Duration::from_secs(5), stream.read_exact(&mut octets)).await.ok()?.ok()?;
    Some(octets)
}

/// A port nobody listens on, below those that the system gives to clients.
pub(crate) fn free_port() -> Outcome<u16> {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 5000)?;
    for _ in 0..10_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (start + step) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".into())
}
