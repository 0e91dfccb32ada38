//! How long senders and receivers wait, at half of the rate the server can do.
//!
//! The rate is found first, with sessions that never pause; then the same sessions keep to half of
//! it. Waits for 250 are the client's, from the last octet to the reply. Waits for delivery are
//! from the server's log, as exact as it writes them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::Outcome;
use crate::client::{Client, message};
use crate::load::Sink;
use crate::options::Options;
use crate::report::Table;
use crate::rows::PATIENCE;
use crate::scratch::Scratch;
use crate::server::{Program, Server, Setup};

const SESSIONS: u32 = 20;
const TO: &str = "user@sink.test";

struct Waits {
    rate: f64,
    answers: Vec<Duration>,
    deliveries: Vec<Duration>,
}

/// Measures the three programs and prints percentiles.
pub(crate) async fn measure(options: &Options, scratch: &Scratch) -> Outcome<()> {
    let mut table = Table::new(
        "Waits in milliseconds at half load, relay over 20 open connections, 4 KiB",
        &[
            "program",
            "messages/s",
            "to 250: 50 %",
            "99 %",
            "99.9 %",
            "delivered: 50 %",
            "99 %",
            "99.9 %",
        ],
    );
    for program in Program::ALL {
        let home = scratch.directory()?;
        let waits = one(program, home.path(), options).await?;
        let mut cells = vec![program.name().to_owned(), format!("{:.0}", waits.rate)];
        for sorted in [&waits.answers, &waits.deliveries] {
            cells.extend([500, 990, 999].map(|part| percentile(sorted, part)));
        }
        table.row(cells);
    }
    table.print(options);
    Ok(())
}

/// Milliseconds below which that part of a thousand lies.
pub(crate) fn percentile(sorted: &[Duration], part: usize) -> String {
    match sorted.get(sorted.len().saturating_sub(1) * part / 1000) {
        Some(wait) => format!("{:.1}", wait.as_secs_f64() * 1000.0),
        None => "-".to_owned(),
    }
}

async fn one(program: Program, home: &Path, options: &Options) -> Outcome<Waits> {
    let sink = Sink::start().await?;
    let setup = Setup { forwards: true, ..Setup::new(sink.port, options) };
    let server = Server::start(program, home, &setup).await?;
    let mut watch = server.watch();
    let first = options.messages(if program == Program::Postfix { 4000 } else { 40_000 });
    let begun = Instant::now();
    send(server.port, first, Duration::ZERO).await?;
    watch.until(first, PATIENCE).await?;
    let rate = first as f64 / begun.elapsed().as_secs_f64() / 2.0;

    let log = server.log();
    let before = fs::read(&log).map_or(0, |octets| octets.len());
    let pause = Duration::from_secs_f64(f64::from(SESSIONS) / rate);
    let mut answers = send(server.port, first, pause).await?;
    watch.until(first * 2, PATIENCE).await?;
    answers.sort_unstable();
    let text = fs::read(&log)?;
    let mut deliveries = match program {
        Program::Bound => Vec::new(),
        _ => delays(&String::from_utf8_lossy(text.get(before..).unwrap_or_default())),
    };
    deliveries.sort_unstable();
    server.stop().await?;
    Ok(Waits { rate, answers, deliveries })
}

/// Sends from all sessions, each pausing so that it begins one message every `pause`.
async fn send(port: u16, messages: u64, pause: Duration) -> Outcome<Vec<Duration>> {
    let share = messages / u64::from(SESSIONS);
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|session| {
            tokio::spawn(async move {
                let work = session_of(port, share, pause, pause * session / SESSIONS);
                work.await.map_err(|error| error.to_string())
            })
        })
        .collect();
    let mut waits = Vec::new();
    for session in sessions {
        waits.extend(session.await??);
    }
    Ok(waits)
}

async fn session_of(
    port: u16,
    messages: u64,
    pause: Duration,
    offset: Duration,
) -> Outcome<Vec<Duration>> {
    let body = message(4096);
    let mut client = Client::open(port).await?;
    let mut waits = Vec::new();
    let mut turn = tokio::time::Instant::now() + offset;
    for _ in 0..messages {
        sleep_until(turn).await;
        turn += pause;
        waits.push(client.send(TO, &body).await?.1);
    }
    client.say(b"QUIT\r\n").await?;
    Ok(waits)
}

/// The values of `delay=` in lines about deliveries.
pub(crate) fn delays(text: &str) -> Vec<Duration> {
    let delivered = |line: &&str| line.contains("event=delivered") || line.contains("status=sent");
    text.lines()
        .filter(delivered)
        .filter_map(|line| line.split("delay=").nth(1))
        .filter_map(|rest| rest.split([' ', ',']).next()?.parse().ok())
        .map(Duration::from_secs_f64)
        .collect()
}
