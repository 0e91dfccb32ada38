//! A flood of handshakes from many addresses, with which the server has all the work: do sessions that run, and
//! new ones in clear text, notice?

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Verdicts, mib, millis};
use crate::client::{Client, message};
use crate::load::Sink;
use crate::options::Options;
use crate::server::{Program, Server, Setup, free_port};
use crate::{Outcome, process, secure};

/// Who floods, each from an address of its own.
const FLOODERS: u8 = 50;
/// Messages of either kind, before the flood and in it.
const ORDINARY: usize = 500;
/// Handshakes at least: the flood goes on until there were so many.
const HANDSHAKES: u64 = 10_000;
const WAIT_MAX: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_mins(1);

/// How long messages took, sorted.
struct Waits {
    running: Vec<Duration>,
    fresh: Vec<Duration>,
}

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let sink = Sink::start().await?;
    let at_once = free_port()?;
    let keys = vec![("general", "max_connections: 2000".to_owned())];
    let implicit = Some(at_once);
    let setup = Setup { keys, implicit, forwards: true, ..Setup::new(sink.port, options) };
    let server = Server::start(Program::Mailroot, home, &setup).await?;
    let before = ordinary(server.port, || false).await?;

    let (ending, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let hello: Arc<[u8]> = secure::hello()?.into();
    let mut flood = JoinSet::new();
    for flooder in 1..=FLOODERS {
        let (ending, count, hello) = (Arc::clone(&ending), Arc::clone(&count), Arc::clone(&hello));
        flood.spawn(async move {
            while !ending.load(Ordering::Relaxed) {
                handshake(flooder, at_once, &hello).await.map_err(|error| error.to_string())?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        });
    }
    let begun = Instant::now();
    let beside = ordinary(server.port, || count.load(Ordering::Relaxed) < HANDSHAKES).await?;
    let (done, took) = (count.load(Ordering::Relaxed), begun.elapsed());
    ending.store(true, Ordering::Relaxed);
    while let Some(ended) = flood.join_next().await {
        ended??;
    }

    let mut verdicts = Verdicts::new(&format!(
        "{} messages each in one session and over new ones, beside handshakes from {FLOODERS} addresses",
        beside.running.len()
    ));
    verdicts.tell("handshakes", done.to_string());
    verdicts.tell("handshakes a second", format!("{:.0}", done as f64 / took.as_secs_f64()));
    for (what, without, with) in [
        ("in a session that runs", &before.running, &beside.running),
        ("over a new connection", &before.fresh, &beside.fresh),
    ] {
        verdicts.tell(&format!("{what}, without, median"), millis(at(without, 50)));
        verdicts.tell(&format!("{what}, without, 99 %"), millis(at(without, 99)));
        verdicts.tell(&format!("{what}, median"), millis(at(with, 50)));
        let most = at(with, 99);
        verdicts.judge(&format!("{what}, 99 %"), millis(most), "1 s", most < WAIT_MAX);
        verdicts.tell(&format!("{what}, the longest"), millis(at(with, 100)));
    }
    verdicts.tell("memory", mib(process::resident_kib(server.pid())?));
    server.stop().await?;
    Ok(verdicts)
}

fn at(waits: &[Duration], part: usize) -> Duration {
    waits.get((waits.len().max(1) - 1) * part / 100).copied().unwrap_or_default()
}

/// Sends messages by turns in one session and over a new connection each, and more for as long as that is asked for.
async fn ordinary(port: u16, more: impl Fn() -> bool) -> Outcome<Waits> {
    let mut running = Client::open(port).await?;
    let (body, mut waits) = (message(4096), Waits { running: Vec::new(), fresh: Vec::new() });
    while waits.running.len() < ORDINARY || more() {
        let begun = Instant::now();
        running.send("user@sink.test", &body).await?;
        waits.running.push(begun.elapsed());
        let begun = Instant::now();
        Client::open(port).await?.send("user@sink.test", &body).await?;
        waits.fresh.push(begun.elapsed());
    }
    waits.running.sort_unstable();
    waits.fresh.sort_unstable();
    Ok(waits)
}

/// Has the server do its half of a handshake, and hangs up.
async fn handshake(flooder: u8, port: u16, hello: &[u8]) -> Outcome<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 2, flooder), 0)))?;
    let called = socket.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut stream: TcpStream = timeout(PATIENCE, called).await??;
    stream.write_all(hello).await?;
    let mut octet = [0];
    timeout(PATIENCE, stream.read_exact(&mut octet)).await??;
    // The kind of its record: a handshake's.
    if octet == [0x16] { Ok(()) } else { Err(format!("the server says {octet:?}").into()) }
}
