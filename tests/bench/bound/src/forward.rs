//! The sending side: kept-open connections that take messages from one queue in memory.
//!
//! MAIL, RCPT and DATA go in one write, the body in another. Every hundredth message that arrived
//! is a line on standard output, so that whoever measures knows when the last one has.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

const ENVELOPE: &[u8] = b"MAIL FROM:<sender@source.test>\r\nRCPT TO:<user@sink.test>\r\nDATA\r\n";
const LINE_EVERY: u64 = 100;

/// The queue's near end.
#[derive(Clone)]
pub(crate) struct Forwarding {
    queue: mpsc::UnboundedSender<Vec<u8>>,
}

impl Forwarding {
    /// Opens `connections` to the sink on `port`.
    pub(crate) async fn start(port: u16, connections: usize) -> io::Result<Self> {
        let (queue, far_end) = mpsc::unbounded_channel();
        let far_end = Arc::new(Mutex::new(far_end));
        let arrived = Arc::new(AtomicU64::new(0));
        for _ in 0..connections {
            let link = Link::open(port).await?;
            let (far_end, arrived) = (Arc::clone(&far_end), Arc::clone(&arrived));
            tokio::spawn(async move {
                if let Err(error) = link.carry(&far_end, &arrived).await {
                    eprintln!("bound: a connection to the sink is lost: {error}");
                }
            });
        }
        Ok(Self { queue })
    }

    /// Queues a message.
    pub(crate) fn hand_over(&self, message: Vec<u8>) {
        // It fails only when every connection is lost, which was said.
        let _ = self.queue.send(message);
    }
}

struct Link {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Link {
    async fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut link = Self { stream, input: Vec::with_capacity(4096), output: Vec::new() };
        link.replies(1).await?;
        link.stream.write_all(b"EHLO bound\r\n").await?;
        link.replies(1).await?;
        Ok(link)
    }

    async fn carry(
        mut self,
        queue: &Mutex<mpsc::UnboundedReceiver<Vec<u8>>>,
        arrived: &AtomicU64,
    ) -> io::Result<()> {
        loop {
            let next = queue.lock().await.recv().await;
            let Some(message) = next else { return Ok(()) };
            self.stream.write_all(ENVELOPE).await?;
            self.replies(3).await?;
            self.output.clear();
            self.output.extend_from_slice(&message);
            self.output.extend_from_slice(b".\r\n");
            self.stream.write_all(&self.output).await?;
            self.replies(1).await?;
            let count = arrived.fetch_add(1, Ordering::Relaxed) + 1;
            if count.is_multiple_of(LINE_EVERY) {
                writeln!(io::stdout(), "arrived {count}")?;
            }
        }
    }

    /// Reads that many replies, each of any number of lines. What they say is not looked at.
    async fn replies(&mut self, mut count: usize) -> io::Result<()> {
        let mut used = 0;
        loop {
            while let Some(end) = memchr(b'\n', &self.input[used..]) {
                let is_last = self.input.get(used + 3) != Some(&b'-');
                used += end + 1;
                count -= usize::from(is_last);
                if count == 0 {
                    self.input.drain(..used);
                    return Ok(());
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
