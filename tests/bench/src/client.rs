//! A small SMTP client, for what `smtp-source` does not tell: how long an answer took, what the
//! server calls a message, many recipients' domains, sessions that dawdle.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Outcome;

/// How long one reply may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// One session.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    /// Connects, reads the greeting and says EHLO.
    pub(crate) async fn open(port: u16) -> Outcome<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, input: Vec::with_capacity(1024) };
        client.reply("220").await?;
        client.say(b"EHLO client.test\r\n").await?;
        client.reply("250").await?;
        Ok(client)
    }

    pub(crate) async fn say(&mut self, octets: &[u8]) -> Outcome<()> {
        timeout(PATIENCE, self.stream.write_all(octets))
            .await
            .map_err(|_| "no octet is taken")??;
        Ok(())
    }

    /// Reads one reply, which must have this code; returns its last line.
    pub(crate) async fn reply(&mut self, code: &str) -> Outcome<String> {
        loop {
            while let Some(end) = memchr(b'\n', &self.input) {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                if line.get(3) == Some(&b'-') {
                    continue;
                }
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if line.starts_with(code) {
                    return Ok(line);
                }
                return Err(format!("expected {code}, heard {line}").into());
            }
            let reading = self.stream.read_buf(&mut self.input);
            if timeout(PATIENCE, reading).await.map_err(|_| "no reply comes")?? == 0 {
                return Err("the server hung up".into());
            }
        }
    }

    /// The commands of a message up to its body.
    fn envelope(to: &str) -> String {
        format!("MAIL FROM:<sender@source.test>\r\nRCPT TO:<{to}>\r\nDATA\r\n")
    }

    async fn go_ahead(&mut self) -> Outcome<()> {
        self.reply("250").await?;
        self.reply("250").await?;
        self.reply("354").await?;
        Ok(())
    }

    /// Says all that comes before a body.
    pub(crate) async fn begin(&mut self, to: &str) -> Outcome<()> {
        self.say(Self::envelope(to).as_bytes()).await?;
        self.go_ahead().await
    }

    /// Sends one message whose octets end with a line of a dot; returns the last reply, and how
    /// long it took from the last octet.
    pub(crate) async fn send(&mut self, to: &str, body: &[u8]) -> Outcome<(String, Duration)> {
        self.begin(to).await?;
        self.say(body).await?;
        let sent = Instant::now();
        let reply = self.reply("250").await?;
        Ok((reply, sent.elapsed()))
    }

    /// Sends one message to each address. The commands of the next go with the end of the last.
    pub(crate) async fn send_all(
        &mut self,
        mut to: impl Iterator<Item = String>,
        body: &[u8],
    ) -> Outcome<u64> {
        let mut count = 0;
        let Some(first) = to.next() else { return Ok(0) };
        self.begin(&first).await?;
        for next in to {
            let mut octets = body.to_vec();
            octets.extend_from_slice(Self::envelope(&next).as_bytes());
            self.say(&octets).await?;
            self.reply("250").await?;
            self.go_ahead().await?;
            count += 1;
        }
        self.say(body).await?;
        self.reply("250").await?;
        Ok(count + 1)
    }
}

/// A message of about `size` octets, with the dot that ends it.
pub(crate) fn message(size: usize) -> Vec<u8> {
    let mut octets =
        b"From: <sender@source.test>\r\nTo: <user@sink.test>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
          Message-Id: <1@source.test>\r\nSubject: a subject of the usual length\r\n\r\n"
            .to_vec();
    let line = [b'x'; 76];
    while octets.len() < size {
        octets.extend_from_slice(&line);
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(b".\r\n");
    octets
}
