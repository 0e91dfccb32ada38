//! The receiving side: as little SMTP as `smtp-source` needs, with pipelining.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use memchr::{memchr, memmem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::forward::Forwarding;
use crate::log::Log;

const END: &[u8] = b"\r\n.\r\n";
const READ_OCTETS: usize = 16 * 1024;

/// Serves clients for ever.
pub(crate) async fn serve(
    port: u16,
    log: Arc<Log>,
    forwarding: Option<Forwarding>,
) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let session = Session {
            stream,
            log: Arc::clone(&log),
            forwarding: forwarding.clone(),
            input: Vec::with_capacity(READ_OCTETS),
            output: b"220 bound ESMTP\r\n".to_vec(),
            body: None,
            over: false,
        };
        tokio::spawn(async move {
            // A client that vanishes ends its session and nothing else.
            let _ = session.run().await;
        });
    }
}

struct Session {
    stream: TcpStream,
    log: Arc<Log>,
    forwarding: Option<Forwarding>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// What came of a message so far, without its last dot; `None` between messages.
    body: Option<Vec<u8>>,
    over: bool,
}

impl Session {
    async fn run(mut self) -> io::Result<()> {
        loop {
            let mut input = std::mem::take(&mut self.input);
            let used = self.digest(&input).await;
            input.drain(..used);
            self.input = input;
            if !self.output.is_empty() {
                self.stream.write_all(&self.output).await?;
                self.output.clear();
            }
            if self.over || self.stream.read_buf(&mut self.input).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Handles what is whole in `input`; returns how much of it that was.
    async fn digest(&mut self, input: &[u8]) -> usize {
        let mut used = 0;
        while !self.over {
            let rest = &input[used..];
            if let Some(mut body) = self.body.take() {
                let Some(end) = memmem::find(rest, END) else {
                    // The last octets may be the beginning of the end.
                    let sure = rest.len().saturating_sub(END.len() - 1);
                    body.extend_from_slice(&rest[..sure]);
                    self.body = Some(body);
                    return used + sure;
                };
                body.extend_from_slice(&rest[..end + 2]);
                used += end + END.len();
                self.finish(body).await;
            } else {
                let Some(end) = memchr(b'\n', rest) else { return used };
                self.command(&rest[..end]);
                used += end + 1;
            }
        }
        used
    }

    async fn finish(&mut self, body: Vec<u8>) {
        if !self.log.commit(&body).await {
            self.output.extend_from_slice(b"451 4.3.0 not stored\r\n");
            return;
        }
        if let Some(forwarding) = &self.forwarding {
            forwarding.hand_over(body);
        }
        self.output.extend_from_slice(b"250 2.0.0 queued as ABCDEFGHIJKL\r\n");
    }

    fn command(&mut self, line: &[u8]) {
        let reply: &[u8] = match line.get(..4).unwrap_or_default() {
            b"EHLO" => b"250-bound\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 40000000\r\n",
            b"HELO" => b"250 bound\r\n",
            b"MAIL" => b"250 2.1.0 ok\r\n",
            b"RCPT" => b"250 2.1.5 ok\r\n",
            b"DATA" => {
                self.body = Some(Vec::new());
                b"354 go on\r\n"
            }
            b"QUIT" => {
                self.over = true;
                b"221 bye\r\n"
            }
            _ => b"250 ok\r\n",
        };
        self.output.extend_from_slice(reply);
    }
}
