//! A sink under TLS: stunnel, which answers EHLO and STARTTLS and hands the rest to `smtp-sink`.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::Outcome;
use crate::load::Sink;
use crate::server::free_port;

/// A running sink under TLS; it ends when dropped.
pub(crate) struct TlsSink {
    pub(crate) port: u16,
    _front: Child,
    _sink: Sink,
}

impl TlsSink {
    /// Starts it with a certificate of its own, made in `home`.
    pub(crate) async fn start(home: &Path) -> Outcome<Self> {
        fs::create_dir_all(home)?;
        let (sink, port) = (Sink::start().await?, free_port()?);
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
        let settings = format!(
            "foreground = yes\npid =\ndebug = err\noutput = {home}/stunnel.log\n\
             [sink]\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{sink}\nprotocol = smtp\n\
             cert = {chain}\nkey = {key}\n",
            home = home.display(),
            sink = sink.port,
            chain = chain.display(),
            key = key.display(),
        );
        let file = home.join("stunnel.conf");
        fs::write(&file, settings)?;
        let front = Command::new("stunnel")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        for _ in 0..1000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
                return Ok(Self { port, _front: front, _sink: sink });
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err("stunnel does not listen".into())
    }
}
