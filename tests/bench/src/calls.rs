//! System calls and syncs for each message, counted by `strace`; nothing is timed here.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::load::Sink;
use crate::options::Options;
use crate::process;
use crate::report::{Table, short};
use crate::rows::{PATIENCE, Row};
use crate::scratch::Scratch;
use crate::server::{Program, Server, free_port};

const SYNCS: &[&str] = &["fsync", "fdatasync", "sync_file_range", "syncfs"];
/// How many calls are named.
const NAMED: usize = 6;

/// Counts for every row of the default sizes and prints them.
pub(crate) async fn measure(options: &Options, scratch: &Scratch) -> Outcome<()> {
    let plain = Options { full: false, ..options.clone() };
    let mut table = Table::new(
        "System calls for each message (strace)",
        &["row", "program", "all", "syncs", "most frequent"],
    );
    for row in Row::all(&plain) {
        for program in Program::ALL {
            let home = scratch.directory()?;
            let counts = one(&row, program, home.path(), options).await?;
            let all: f64 = counts.iter().map(|(_, count)| count).sum();
            let is_sync = |name: &str| SYNCS.contains(&name);
            let syncs: f64 =
                counts.iter().filter(|(name, _)| is_sync(name)).map(|(_, count)| count).sum();
            let named: Vec<String> = counts
                .iter()
                .take(NAMED)
                .map(|(name, count)| format!("{name} {}", short(*count)))
                .collect();
            table.row(vec![
                row.to_string(),
                program.name().to_owned(),
                short(all),
                short(syncs),
                named.join(", "),
            ]);
        }
    }
    table.print(options);
    Ok(())
}

/// Calls for each message by name, the most frequent first.
async fn one(
    row: &Row,
    program: Program,
    home: &Path,
    options: &Options,
) -> Outcome<Vec<(String, f64)>> {
    let sink = if row.relay { Some(Sink::start().await?) } else { None };
    let next_hop = sink.as_ref().map_or_else(free_port, |sink| Ok(sink.port))?;
    let server = Server::start(program, home, &row.setup(next_hop, options)).await?;
    let mut watch = server.watch();
    let messages = options.messages(if program == Program::Postfix { 500 } else { 4000 });
    row.run(&server, messages).await?;
    if row.relay {
        watch.until(messages, PATIENCE).await?;
    }

    let output = home.join("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(&output);
    for pid in process::tree(server.pid()) {
        command.arg("-p").arg(pid.to_string());
    }
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut strace = command.spawn()?;
    attached(server.pid()).await?;
    row.run(&server, messages).await?;
    if row.relay {
        watch.until(messages * 2, PATIENCE).await?;
    }
    if let Some(pid) = strace.id() {
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGINT)?;
    }
    timeout(PATIENCE, strace.wait()).await.map_err(|_| "strace does not end")??;
    let text = fs::read_to_string(&output)?;
    server.stop().await?;
    let mut counts = parse(&text, messages);
    counts.sort_by(|one, other| other.1.total_cmp(&one.1));
    Ok(counts)
}

/// Waits until a tracer is there.
async fn attached(pid: u32) -> Outcome<()> {
    for _ in 0..1000 {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_some_and(|pid| pid.trim() != "0") {
            // Other threads and processes follow at once.
            sleep(Duration::from_millis(500)).await;
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err("strace does not attach".into())
}

/// Lines of `% time, seconds, usecs/call, calls, [errors,] name`.
fn parse(text: &str, messages: u64) -> Vec<(String, f64)> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let calls: f64 = words.get(3)?.parse().ok()?;
            let name = *words.last()?;
            (words.len() >= 5 && name != "total")
                .then(|| (name.to_owned(), calls / messages as f64))
        })
        .collect()
}
