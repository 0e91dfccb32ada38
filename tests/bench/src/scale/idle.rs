//! Ten thousand sessions that say EHLO and nothing more.

use std::path::Path;

use super::{Verdicts, mib};
use crate::Outcome;
use crate::client::{Client, message};
use crate::options::Options;
use crate::process;
use crate::server::{Program, Server, Setup, free_port};

const SESSIONS: usize = 10_000;
/// Sessions opened at the same time.
const AT_ONCE: usize = 100;
const MEMORY_MAX_KIB: u64 = 150 << 10;
const SESSION_MAX_KIB: u64 = 64;

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let keys = vec![
        ("general", format!("max_connections: {}", 2 * SESSIONS)),
        ("general", format!("max_connections_per_client: {}", 2 * SESSIONS)),
    ];
    let setup = Setup { keys, ..Setup::new(free_port()?, options) };
    let server = Server::start(Program::Mailroot, home, &setup).await?;
    let before = process::resident_kib(server.pid())?;
    let port = server.port;
    let openers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            tokio::spawn(async move {
                let mut clients = Vec::new();
                for _ in 0..SESSIONS / AT_ONCE {
                    clients.push(Client::open(port).await.map_err(|error| error.to_string())?);
                }
                Ok::<_, String>(clients)
            })
        })
        .collect();
    let mut clients = Vec::new();
    for opener in openers {
        clients.extend(opener.await??);
    }
    let after = process::resident_kib(server.pid())?;
    let (reply, took) = Client::open(port).await?.send("user@sink.test", &message(4096)).await?;

    let mut verdicts = Verdicts::new(&format!("{} idle sessions", clients.len()));
    verdicts.tell("memory before", mib(before));
    verdicts.judge("memory", mib(after), "150 MiB", after <= MEMORY_MAX_KIB);
    let each = after.saturating_sub(before) as f64 / clients.len() as f64;
    let holds = each <= SESSION_MAX_KIB as f64;
    verdicts.judge("for each session", format!("{each:.1} KiB"), "64 KiB", holds);
    verdicts.tell("a message beside them", format!("{} after {}", reply, super::millis(took)));
    drop(clients);
    server.stop().await?;
    Ok(verdicts)
}
