//! Five hundred senders that dawdle and as many sessions that say nothing: does ordinary mail
//! notice?

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Verdicts, mib, millis};
use crate::Outcome;
use crate::client::{Client, message};
use crate::load::Sink;
use crate::options::Options;
use crate::process;
use crate::server::{Program, Server, Setup};

const SLOW: usize = 500;
const IDLE: usize = 500;
/// Two hundred octets a second: above the pace below which a server hangs up.
const PIECE: &[u8] = b"a slow line of text\r";
const PIECE_EVERY: Duration = Duration::from_millis(100);
/// How long a slow sender goes on at most, in pieces.
const PIECES_MAX: usize = 6_000;
const ORDINARY: usize = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(1);

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let sink = Sink::start().await?;
    let keys = vec![
        ("general", "max_connections: 2000".to_owned()),
        ("general", "max_connections_per_client: 2000".to_owned()),
    ];
    let setup = Setup { keys, forwards: true, ..Setup::new(sink.port, options) };
    let server = Server::start(Program::Mailroot, home, &setup).await?;
    let port = server.port;
    let mut slow = JoinSet::new();
    for _ in 0..SLOW {
        slow.spawn(async move { dawdle(port).await.map_err(|error| error.to_string()) });
    }
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(Client::open(port).await?);
    }
    let mut waits = Vec::new();
    let body = message(4096);
    for _ in 0..ORDINARY {
        let begun = Instant::now();
        Client::open(port).await?.send("user@sink.test", &body).await?;
        waits.push(begun.elapsed());
    }
    waits.sort_unstable();
    if let Some(ended) = slow.try_join_next() {
        return Err(format!("a slow sender ended: {:?}", ended?).into());
    }
    let at = |part: usize| waits.get((waits.len() - 1) * part / 100).copied().unwrap_or_default();
    let mut verdicts = Verdicts::new(&format!(
        "{ORDINARY} messages, each over a new connection, beside {SLOW} slow senders and {IDLE} idle"
    ));
    verdicts.tell("connection to 250, median", millis(at(50)));
    verdicts.judge("connection to 250, 99 %", millis(at(99)), "1 s", at(99) < WAIT_MAX);
    verdicts.tell("the longest", millis(at(100)));
    verdicts.tell("memory", mib(process::resident_kib(server.pid())?));
    slow.abort_all();
    drop(idle);
    server.stop().await?;
    Ok(verdicts)
}

async fn dawdle(port: u16) -> Outcome<()> {
    let mut client = Client::open(port).await?;
    client.begin("user@sink.test").await?;
    for _ in 0..PIECES_MAX {
        // A CR goes with the LF of the next piece.
        client.say(PIECE).await?;
        sleep(PIECE_EVERY).await;
        client.say(b"\n").await?;
    }
    Ok(())
}
