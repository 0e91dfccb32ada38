//! A sink under TLS, in threads of this process: it takes all mail and keeps none.
//!
//! As light as can be, because it shares the machine with what is measured: a thread for each connection,
//! one write for all that one read asks for, two tickets after a full handshake as servers usually give.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::process::Command;

use crate::Outcome;

/// How much is read at once.
const READ_OCTETS: usize = 64 * 1024;
/// The longest command; no honest client sends more.
const COMMAND_MAX: usize = 4096;

/// A running sink under TLS; it ends when dropped.
pub(crate) struct TlsSink {
    pub(crate) port: u16,
    ending: Arc<AtomicBool>,
}

impl TlsSink {
    /// Starts it with a certificate of its own, made in `home`.
    pub(crate) async fn start(home: &Path) -> Outcome<Self> {
        let config = Arc::new(config(home).await?);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let ending = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ending);
        std::thread::Builder::new().name("tls-sink".into()).spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let config = Arc::clone(&config);
                // A client that hangs up has ended its session: there is nothing to tell.
                let session = move || serve(stream, config).unwrap_or_default();
                if let Err(error) = std::thread::Builder::new().spawn(session) {
                    eprintln!("the sink takes no more sessions: {error}");
                }
            }
        })?;
        Ok(Self { port, ending })
    }
}

impl Drop for TlsSink {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

async fn config(home: &Path) -> Outcome<ServerConfig> {
    fs::create_dir_all(home)?;
    let (chain, key) = (home.join("sink.pem"), home.join("sink.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=sink.test", "-out"])
        .arg(&chain)
        .arg("-keyout")
        .arg(&key)
        .output()
        .await?;
    if !made.status.success() {
        return Err(format!("openssl: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(chain)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    Ok(config)
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(stream, "250-sink.test\r\n250 STARTTLS\r\n");
    session.stream.write_all(b"220 sink.test ESMTP\r\n")?;
    if session.run()? != End::StartTls {
        return Ok(());
    }
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let secured = StreamOwned::new(connection, session.stream);
    let offers = "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-CHUNKING\r\n\
                  250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8\r\n";
    Session::new(secured, offers).run().map(drop)
}

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The client is gone.
    Over,
    /// It wants to go on under TLS.
    StartTls,
}

/// What comes next.
#[derive(Clone, Copy)]
enum Next {
    Command,
    /// A body that ends with a dot.
    Body,
    /// So many octets.
    Chunk(usize),
}

struct Session<S> {
    stream: S,
    offers: &'static str,
    /// Read and not understood yet.
    input: Vec<u8>,
    replies: Vec<u8>,
    next: Next,
}

impl<S: Read + Write> Session<S> {
    fn new(stream: S, offers: &'static str) -> Self {
        Self { stream, offers, input: Vec::new(), replies: Vec::new(), next: Next::Command }
    }

    fn run(&mut self) -> io::Result<End> {
        let mut read = vec![0; READ_OCTETS];
        loop {
            let count = self.stream.read(&mut read)?;
            if count == 0 {
                return Ok(End::Over);
            }
            self.input.extend_from_slice(read.get(..count).unwrap_or_default());
            let end = self.understand();
            self.stream.write_all(&self.replies)?;
            self.stream.flush()?;
            self.replies.clear();
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// Goes through what was read; says how the session ends, if it does.
    fn understand(&mut self) -> Option<End> {
        loop {
            match self.next {
                Next::Command => {
                    let Some(end) = memchr::memchr(b'\n', &self.input) else {
                        return (self.input.len() > COMMAND_MAX).then_some(End::Over);
                    };
                    let line: Vec<u8> = self.input.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line).trim_end().to_ascii_uppercase();
                    if let Some(end) = self.obey(&line) {
                        return Some(end);
                    }
                }
                Next::Body => {
                    let Some(end) = memchr::memmem::find(&self.input, b"\r\n.\r\n") else {
                        // The end may have come in part.
                        self.input.drain(..self.input.len().saturating_sub(4));
                        return None;
                    };
                    self.input.drain(..end + 5);
                    self.reply("250 2.0.0 taken");
                    self.next = Next::Command;
                }
                Next::Chunk(left) => {
                    let count = left.min(self.input.len());
                    self.input.drain(..count);
                    if count < left {
                        self.next = Next::Chunk(left - count);
                        return None;
                    }
                    self.reply("250 2.0.0 taken");
                    self.next = Next::Command;
                }
            }
        }
    }

    fn obey(&mut self, line: &str) -> Option<End> {
        let mut words = line.split(' ');
        match words.next().unwrap_or_default() {
            "EHLO" => self.replies.extend_from_slice(self.offers.as_bytes()),
            "STARTTLS" => {
                self.reply("220 2.0.0 go on");
                return Some(End::StartTls);
            }
            "DATA" => {
                self.reply("354 go on");
                self.next = Next::Body;
                // An empty body is a dot alone.
                self.input.splice(..0, *b"\r\n");
            }
            "BDAT" => {
                let octets = words.next().and_then(|octets| octets.parse().ok());
                self.next = Next::Chunk(octets.unwrap_or_default());
            }
            "QUIT" => {
                self.reply("221 2.0.0 bye");
                return Some(End::Over);
            }
            _ => self.reply("250 2.0.0 ok"),
        }
        None
    }

    fn reply(&mut self, text: &str) {
        self.replies.extend_from_slice(text.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }
}
