//! A million deferred messages over ten thousand domains, half of them for one.
//!
//! Every domain is found by MX and none answers. Beside them lies one domain that takes its mail,
//! whose cost and delay show what the others do to it; a second server without all that mail takes
//! turns with the first one. At last all domains answer, and the queue is
//! flushed.

mod flush;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::dns::Dns;
use super::{Verdicts, mib, millis, seconds};
use crate::Outcome;
use crate::client::{Client, message};
use crate::load::{Load, Sink};
use crate::options::Options;
use crate::process;
use crate::report::{median, short};
use crate::rows::PATIENCE;
use crate::server::{Program, Server, Setup, free_port};
use crate::watch::Watch;

const MESSAGES: u64 = 1_000_000;
const DOMAINS: u64 = 10_000;
const SESSIONS: u64 = 20;
const BODY: usize = 1024;
const MEMORY_MAX_KIB: u64 = 250 << 10;
const LISTENING_MAX: Duration = Duration::from_secs(1);
const KNOWN_MAX: Duration = Duration::from_secs(20);
/// The address beside the deferred ones.
const OTHER: &str = "user@other.test";
/// How often the cost is measured with an empty queue and with a full one, in turn.
const PAIRS: usize = 10;
/// How much dearer a message may become.
const DEARER_MAX: f64 = 1.1;

/// The server and what surrounds it.
struct Site {
    server: Server,
    /// The server without mail that waits.
    empty: Option<Server>,
    /// Where the hosts of the many domains listen, later.
    late_port: u16,
    messages: u64,
    _dns: Dns,
    _other: Sink,
}

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let mut site = Site::start(options, home).await?;
    let title = format!("{} deferred messages, {DOMAINS} domains, half for one", site.messages);
    let mut verdicts = Verdicts::new(&title);
    site.fill(&mut verdicts).await?;
    site.compare(&mut verdicts).await?;
    site.restart(&mut verdicts).await?;
    flush::measure(&site, &mut verdicts).await?;
    site.server.stop().await?;
    Ok(verdicts)
}

impl Site {
    async fn start(options: &Options, home: &Path) -> Outcome<Self> {
        let dns = Dns::start()?;
        let other = Sink::start().await?;
        let late_port = free_port()?;
        let route = format!("route: \"[127.0.0.1]:{}\"", other.port);
        let setup = Setup {
            resolver: Some(dns.port),
            keys: vec![
                ("delivery", "allow_loopback: true".to_owned()),
                // What is measured is the length of the queue, not attempts at dead hosts meanwhile.
                ("delivery", "outbound: {retry: [1h]}".to_owned()),
                ("delivery", format!("connections: {{port: {late_port}}}")),
                ("domains", format!("- {{name: other.test, type: remote, {route}}}")),
            ],
            ..Setup::new(late_port, options)
        };
        let server = Server::start(Program::Mailroot, &home.join("full"), &setup).await?;
        let empty = Some(Server::start(Program::Mailroot, &home.join("empty"), &setup).await?);
        let messages = options.messages(MESSAGES);
        Ok(Self { server, empty, late_port, messages, _dns: dns, _other: other })
    }

    /// What relaying costs beside a full queue, compared with an empty one.
    async fn compare(&mut self, verdicts: &mut Verdicts) -> Outcome<()> {
        let Some(other) = self.empty.take() else { return Ok(()) };
        let (mut empty, mut full) = (Vec::new(), Vec::new());
        for _ in 0..PAIRS {
            empty.push(cost(&other).await?);
            full.push(cost(&self.server).await?);
        }
        other.stop().await?;
        let nothing = "nothing was measured";
        let (empty, full) = (median(empty).ok_or(nothing)?, median(full).ok_or(nothing)?);
        verdicts.tell("relay, empty queue, CPU s per 1,000", short(empty));
        let must = "at most 10 % more";
        verdicts.judge("relay, full queue", short(full), must, full <= empty * DEARER_MAX);
        Ok(())
    }

    async fn fill(&self, verdicts: &mut Verdicts) -> Outcome<()> {
        let begun = Instant::now();
        let (port, share) = (self.server.port, self.messages / SESSIONS);
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                tokio::spawn(async move {
                    let numbers = session * share..(session + 1) * share;
                    send(port, numbers).await.map_err(|error| error.to_string())
                })
            })
            .collect();
        for session in sessions {
            session.await??;
        }
        let took = begun.elapsed();
        let rate = self.messages as f64 / took.as_secs_f64();
        verdicts.tell("accepted, messages a second", short(rate));
        let memory = process::peak_kib(self.server.pid())?;
        verdicts.judge(
            "memory as it comes in, most",
            mib(memory),
            "250 MiB",
            memory <= MEMORY_MAX_KIB,
        );
        verdicts.tell("disk", mib(self.disk_kib()));
        Ok(())
    }

    async fn restart(&mut self, verdicts: &mut Verdicts) -> Outcome<()> {
        let mut known = self.watch("event=queue_read");
        let mut tried = self.watch("event=deferred");
        let (known_before, tried_before) = (known.look()?, tried.look()?);
        let listening = self.server.restart().await?;
        let begun = Instant::now();
        verdicts.judge("listening", millis(listening), "1 s", listening <= LISTENING_MAX);
        let (reply, wait) =
            Client::open(self.server.port).await?.send(OTHER, &message(4096)).await?;
        verdicts.tell("first new message", format!("{} after {}", code(&reply), millis(wait)));
        tried.until(tried_before + 1, PATIENCE).await?;
        let first = listening + begun.elapsed();
        known.until(known_before + 1, PATIENCE).await?;
        let all = listening + begun.elapsed();
        verdicts.judge("first old message under way", seconds(first), "20 s", first <= KNOWN_MAX);
        verdicts.judge("all known", seconds(all), "20 s", all <= KNOWN_MAX);
        let memory = process::peak_kib(self.server.pid())?;
        verdicts.judge(
            "memory after the start, most",
            mib(memory),
            "250 MiB",
            memory <= MEMORY_MAX_KIB,
        );
        Ok(())
    }

    fn watch(&self, words: &'static str) -> Watch {
        Watch::new(self.server.log(), words, 1)
    }

    fn queue(&self) -> PathBuf {
        self.server.home.join("spool/default/Queue")
    }

    /// What the segments of the queue take on disk.
    fn disk_kib(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let files = std::fs::read_dir(self.queue()).into_iter().flatten().flatten();
        files
            .filter(|file| file.file_name().to_string_lossy().starts_with("segment-"))
            .filter_map(|file| file.metadata().ok())
            .map(|data| data.blocks() / 2)
            .sum()
    }
}

/// CPU seconds for 1,000 messages relayed to the other domain, without what the server takes when
/// nothing is sent.
async fn cost(server: &Server) -> Outcome<f64> {
    let messages = 20_000;
    let mut watch = Watch::new(server.log(), "to=<user@other.test>", 1);
    let seen = watch.look()? + messages;
    let idle_before = process::cpu_seconds(server.pid())?;
    let begun = Instant::now();
    sleep(Duration::from_secs(2)).await;
    let before = process::cpu_seconds(server.pid())?;
    let idle = (before - idle_before) / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let load = Load { sessions: 20, messages, size: 4096, open: true, to: OTHER };
    load.send(server.port, PATIENCE).await?;
    watch.until(seen, PATIENCE).await?;
    let taken = process::cpu_seconds(server.pid())? - before;
    Ok((taken - idle * begun.elapsed().as_secs_f64()) * 1000.0 / messages as f64)
}

fn code(reply: &str) -> &str {
    reply.split(' ').next().unwrap_or_default()
}

async fn send(port: u16, numbers: std::ops::Range<u64>) -> Outcome<u64> {
    let to = numbers.map(|number| match number % 2 {
        0 => "user@big.test".to_owned(),
        _ => format!("user@d{}.test", number / 2 % DOMAINS),
    });
    Client::open(port).await?.send_all(to, &message(BODY)).await
}
