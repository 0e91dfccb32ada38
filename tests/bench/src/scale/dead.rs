//! A hundred thousand messages for one destination that takes connections and never says a word, beside
//! mail for another one.
//!
//! Two servers take turns: one has all that mail, the other has none. Attempts at the dead host go on
//! meanwhile, as often as the schedule and the back-off of its lane let them.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Verdicts, millis};
use crate::Outcome;
use crate::client::{Client, message};
use crate::load::{Load, Sink};
use crate::options::Options;
use crate::process;
use crate::report::{median, short};
use crate::rows::PATIENCE;
use crate::server::{Program, Server, Setup};
use crate::watch::Watch;

const MESSAGES: u64 = 100_000;
const BODY: usize = 1024;
const OTHER: &str = "user@other.test";
/// Messages to the other destination in one turn.
const TURN: u64 = 10_000;
const PAIRS: usize = 8;
/// Single messages whose way to the other destination is timed.
const SINGLES: usize = 50;
/// How much slower and dearer the other destination's mail may become.
const WORSE_MAX: f64 = 1.1;
/// How much longer a single message may take, in half of the cases.
const LATER_MAX: Duration = Duration::from_millis(20);

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let (dead, other) = (Silent::start()?, Sink::start().await?);
    let remote = |name: &str, port: u16| {
        let key = format!("- {{name: {name}, type: remote, route: \"[127.0.0.1]:{port}\"}}");
        ("domains", key)
    };
    let setup = Setup {
        keys: vec![
            ("delivery", "allow_loopback: true".to_owned()),
            ("delivery", "outbound: {retry: [1m]}".to_owned()),
            ("delivery", "connections: {greeting: 10s}".to_owned()),
            remote("dead.test", dead.port),
            remote("other.test", other.port),
        ],
        ..Setup::new(dead.port, options)
    };
    let empty = Server::start(Program::Mailroot, &home.join("empty"), &setup).await?;
    let full = Server::start(Program::Mailroot, &home.join("full"), &setup).await?;
    let messages = options.messages(MESSAGES);
    let mut verdicts = Verdicts::new(&format!("{messages} messages for a host that says nothing"));
    let load = Load { sessions: 20, messages, size: 1024, open: true, to: "user@dead.test" };
    load.send(full.port, PATIENCE).await?;
    let mut found: [Vec<Turn>; 2] = Default::default();
    for _ in 0..PAIRS {
        found[0].push(Turn::measure(&empty).await?);
        found[1].push(Turn::measure(&full).await?);
    }
    let middle = |place: usize, value: fn(&Turn) -> f64| {
        median(found[place].iter().map(value).collect()).ok_or("nothing was measured")
    };
    let per_second = [middle(0, |it| it.per_second)?, middle(1, |it| it.per_second)?];
    verdicts.tell("relay beside nothing, messages a second", short(per_second[0]));
    let holds = per_second[1] * WORSE_MAX >= per_second[0];
    let must = "at most 10 % fewer";
    verdicts.judge("relay beside the dead, messages a second", short(per_second[1]), must, holds);
    let cpu = [middle(0, |it| it.cpu)?, middle(1, |it| it.cpu)?];
    verdicts.tell("relay beside nothing, CPU s per 1,000", short(cpu[0]));
    let holds = cpu[1] <= cpu[0] * WORSE_MAX;
    verdicts.judge("relay beside the dead, CPU s per 1,000", short(cpu[1]), "10 % more", holds);
    let single = singles([&empty, &full]).await?;
    verdicts.tell("one message beside nothing", millis(single[0]));
    let holds = single[1] <= single[0] + LATER_MAX;
    verdicts.judge("one message beside the dead", millis(single[1]), "20 ms more", holds);
    let calls = dead.calls.load(Ordering::Relaxed);
    // It was called, and not by everybody who waits for it.
    let holds = (1..=100).contains(&calls);
    verdicts.judge("calls at the dead host meanwhile", calls.to_string(), "1 to 100", holds);
    empty.stop().await?;
    full.stop().await?;
    Ok(verdicts)
}

/// Many messages to the other destination.
struct Turn {
    per_second: f64,
    cpu: f64,
}

impl Turn {
    async fn measure(server: &Server) -> Outcome<Self> {
        let mut watch = Watch::new(server.log(), "to=<user@other.test>", 1);
        let seen = watch.look()? + TURN;
        let before = process::cpu_seconds(server.pid())?;
        let begun = Instant::now();
        let load = Load { sessions: 20, messages: TURN, size: 4096, open: true, to: OTHER };
        load.send(server.port, PATIENCE).await?;
        watch.until(seen, PATIENCE).await?;
        let per_second = TURN as f64 / begun.elapsed().as_secs_f64();
        let taken = process::cpu_seconds(server.pid())? - before;
        Ok(Self { per_second, cpu: taken * 1000.0 / TURN as f64 })
    }
}

/// How long a message takes from its first octet to the word that it was delivered, in half of the cases;
/// the servers take turns.
async fn singles(servers: [&Server; 2]) -> Outcome<[Duration; 2]> {
    let mut waits: [Vec<f64>; 2] = Default::default();
    let watch = |server: &Server| Watch::new(server.log(), "to=<user@other.test>", 1);
    let mut watches = servers.map(watch);
    for _ in 0..SINGLES {
        for place in 0..servers.len() {
            let (server, watch) = (servers[place], &mut watches[place]);
            let mut client = Client::open(server.port).await?;
            let seen = watch.look()? + 1;
            let begun = Instant::now();
            client.send(OTHER, &message(BODY)).await?;
            watch.until(seen, PATIENCE).await?;
            waits[place].push(begun.elapsed().as_secs_f64());
        }
    }
    let [empty, full] = waits.map(|waits| median(waits).map(Duration::from_secs_f64));
    Ok([empty.ok_or("nothing was measured")?, full.ok_or("nothing was measured")?])
}

/// A host that takes connections and keeps silent; it ends when dropped.
struct Silent {
    port: u16,
    calls: Arc<std::sync::atomic::AtomicU64>,
    ending: Arc<AtomicBool>,
}

impl Silent {
    fn start() -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let (calls, ending) = (Arc::default(), Arc::default());
        let silent = Self { port, calls: Arc::clone(&calls), ending: Arc::clone(&ending) };
        std::thread::Builder::new().name("silent".into()).spawn(move || {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                calls.fetch_add(1, Ordering::Relaxed);
                open.push(stream);
            }
        })?;
        Ok(silent)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}
