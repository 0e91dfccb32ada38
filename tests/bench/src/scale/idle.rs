//! Ten thousand sessions that say EHLO and nothing more, in clear text and under TLS.

use std::path::Path;

use tokio::task::spawn_blocking;

use super::{Verdicts, mib};
use crate::client::{Client, message};
use crate::options::Options;
use crate::server::{Program, Server, Setup, free_port};
use crate::{Outcome, process, secure};

const SESSIONS: usize = 10_000;
/// Sessions opened at the same time.
const AT_ONCE: usize = 100;
/// The same under TLS, each in a thread of its own.
const AT_ONCE_UNDER_TLS: usize = 4;

/// What they may take.
struct Limits {
    all_kib: u64,
    each_kib: u64,
}

/// Sessions that stay open until they are dropped, of whatever kind.
type Sessions = Box<dyn Send>;

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let limits = Limits { all_kib: 150 << 10, each_kib: 64 };
    with(options, home, "idle sessions", &limits, async |port| {
        let openers: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(open(port))).collect();
        let mut clients = Vec::new();
        for opener in openers {
            clients.extend(opener.await??);
        }
        Ok(Box::new(clients) as Sessions)
    })
    .await
}

async fn open(port: u16) -> Result<Vec<Client>, String> {
    let mut clients = Vec::new();
    for _ in 0..SESSIONS / AT_ONCE {
        clients.push(Client::open(port).await.map_err(|error| error.to_string())?);
    }
    Ok(clients)
}

pub(super) async fn measure_under_tls(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let limits = Limits { all_kib: 400 << 10, each_kib: 64 };
    with(options, home, "idle sessions under TLS", &limits, async |port| {
        let config = secure::config()?;
        let open = move || {
            let opened = (0..SESSIONS / AT_ONCE_UNDER_TLS).map(|_| secure::open(port, &config));
            opened.collect::<Outcome<Vec<_>>>()
        };
        let openers: Vec<_> =
            (0..AT_ONCE_UNDER_TLS).map(|_| spawn_blocking(open.clone())).collect();
        let mut sessions = Vec::new();
        for opener in openers {
            sessions.extend(opener.await??);
        }
        Ok(Box::new(sessions) as Sessions)
    })
    .await
}

/// Measures what the sessions take that are opened at a server of a port.
async fn with(
    options: &Options,
    home: &Path,
    what: &str,
    limits: &Limits,
    open: impl AsyncFnOnce(u16) -> Outcome<Sessions>,
) -> Outcome<Verdicts> {
    let keys = vec![
        ("general", format!("max_connections: {}", 2 * SESSIONS)),
        ("general", format!("max_connections_per_client: {}", 2 * SESSIONS)),
    ];
    let setup = Setup { keys, ..Setup::new(free_port()?, options) };
    let server = Server::start(Program::Mailroot, home, &setup).await?;
    let before = process::resident_kib(server.pid())?;
    let sessions = open(server.port).await?;
    let after = process::resident_kib(server.pid())?;
    let (reply, took) =
        Client::open(server.port).await?.send("user@sink.test", &message(4096)).await?;

    let mut verdicts = Verdicts::new(&format!("{SESSIONS} {what}"));
    verdicts.tell("memory before", mib(before));
    let must = mib(limits.all_kib);
    verdicts.judge("memory", mib(after), &must, after <= limits.all_kib);
    verdicts.tell("memory, the most", mib(process::peak_kib(server.pid())?));
    let each = after.saturating_sub(before) as f64 / SESSIONS as f64;
    let must = format!("{} KiB", limits.each_kib);
    verdicts.judge(
        "for each session",
        format!("{each:.1} KiB"),
        &must,
        each <= limits.each_kib as f64,
    );
    verdicts.tell("a message beside them", format!("{} after {}", reply, super::millis(took)));
    drop(sessions);
    server.stop().await?;
    Ok(verdicts)
}
