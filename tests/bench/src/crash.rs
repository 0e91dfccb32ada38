//! Is every acknowledged message there after the server was killed under load?
//!
//! Clients note what the server called each message when it answered 250. The server is killed
//! while they send, started again, and asked for all it has.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::client::{Client, message};
use crate::options::Options;
use crate::report::Table;
use crate::rows::PATIENCE;
use crate::scratch::Scratch;
use crate::server::{Program, Server, Setup, free_port};
use crate::{Outcome, programs};

const SESSIONS: usize = 20;
const KILLS: usize = 3;
const LOAD: Duration = Duration::from_secs(2);

type Names = Arc<Mutex<BTreeSet<String>>>;

/// Kills and accounts; prints what was promised and what was found. The bound keeps no queue.
pub(crate) async fn measure(options: &Options, scratch: &Scratch) -> Outcome<()> {
    let title = format!("Acknowledged mail after {KILLS} times kill -9 under load");
    let mut table = Table::new(&title, &["program", "acknowledged", "in the queue", "missing"]);
    let mut lost = false;
    for program in [Program::Mailroot, Program::Postfix] {
        let home = scratch.directory()?;
        let (promised, found) = one(program, home.path(), options).await?;
        let missing = promised.difference(&found).count();
        lost |= missing > 0 && program == Program::Mailroot;
        table.row(vec![
            program.name().to_owned(),
            promised.len().to_string(),
            found.len().to_string(),
            missing.to_string(),
        ]);
    }
    table.print(options);
    if lost { Err("acknowledged mail is missing".into()) } else { Ok(()) }
}

async fn one(
    program: Program,
    home: &Path,
    options: &Options,
) -> Outcome<(BTreeSet<String>, BTreeSet<String>)> {
    let setup = Setup::new(free_port()?, options);
    let mut server = Server::start(program, home, &setup).await?;
    let promised = Names::default();
    for _ in 0..KILLS {
        let port = server.port;
        let clients: Vec<_> = (0..SESSIONS)
            .map(|_| {
                let names = Arc::clone(&promised);
                // It ends with an error, because the server is killed.
                tokio::spawn(async move { send(program, port, &names).await.is_err() })
            })
            .collect();
        sleep(LOAD).await;
        server.kill().await?;
        for client in clients {
            let _broken: bool = timeout(PATIENCE, client).await??;
        }
        server.launch().await?;
    }
    let found = queued(&server).await?;
    server.stop().await?;
    let promised = promised.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok((promised, found))
}

async fn send(program: Program, port: u16, names: &Names) -> Outcome<()> {
    let body = message(4096);
    let mut client = Client::open(port).await?;
    loop {
        let (reply, _) = client.send("user@sink.test", &body).await?;
        // `250 2.6.0 NAME queued for delivery`, `250 2.0.0 Ok: queued as NAME`.
        let mut words = reply.split(' ');
        let name = if program == Program::Mailroot { words.nth(2) } else { words.next_back() };
        let name = name.unwrap_or_default().to_owned();
        names.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }
}

/// What the server says it has. Asked until two answers agree, as it may still be reading.
async fn queued(server: &Server) -> Outcome<BTreeSet<String>> {
    let mut before = None;
    for _ in 0..200 {
        let now = listing(server).await?;
        if before.as_ref() == Some(&now) {
            return Ok(now);
        }
        before = Some(now);
        sleep(Duration::from_secs(1)).await;
    }
    Err("the queue does not come to rest".into())
}

async fn listing(server: &Server) -> Outcome<BTreeSet<String>> {
    let mut command = if server.program == Program::Mailroot {
        let mut command = Command::new(programs::mailroot("smtpctl"));
        command.arg("--home").arg(&server.home).args(["queue", "list", "-o", "name"]);
        command
    } else {
        let mut command = Command::new("postqueue");
        command.arg("-c").arg(server.home.join("etc")).arg("-j");
        command
    };
    let output = timeout(PATIENCE, command.output()).await??;
    let text = String::from_utf8_lossy(&output.stdout);
    let name = |line: &str| match line.split_once("\"queue_id\": \"") {
        Some((_, rest)) => rest.split('"').next().unwrap_or_default().to_owned(),
        None => line.rsplit('/').next().unwrap_or_default().trim().to_owned(),
    };
    Ok(text.lines().map(name).collect())
}
