//! `smtpctl` over a long queue.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Verdicts, millis, seconds};
use crate::load::{self, Load};
use crate::options::Options;
use crate::rows::PATIENCE;
use crate::server::{Program, Server, Setup, free_port};
use crate::{Outcome, programs};

const MESSAGES: u64 = 100_000;
const ALL_MAX: Duration = Duration::from_secs(1);
const FIRST_MAX: Duration = Duration::from_millis(50);
const STATUS_MAX: Duration = Duration::from_millis(20);
const TRIES: usize = 9;

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let server = Server::start(Program::Mailroot, home, &Setup::new(free_port()?, options)).await?;
    let messages = options.messages(MESSAGES);
    let load = Load { sessions: 20, messages, size: 1024, open: true, to: load::TO };
    load.send(server.port, PATIENCE).await?;

    let (mut firsts, mut alls, mut statuses) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows = 0;
    for _ in 0..TRIES {
        let (first, all, lines) = run(home, &["queue", "list"]).await?;
        firsts.push(first);
        alls.push(all);
        rows = lines;
        statuses.push(run(home, &["status"]).await?.1);
    }
    let mut verdicts = Verdicts::new(&format!("smtpctl over {messages} messages, medians"));
    verdicts.tell("lines of queue list", rows.to_string());
    let (first, all, status) = (middle(firsts), middle(alls), middle(statuses));
    verdicts.judge("first row of queue list", millis(first), "50 ms", first < FIRST_MAX);
    verdicts.judge("all of queue list", seconds(all), "1 s", all < ALL_MAX);
    verdicts.judge("status", millis(status), "20 ms", status < STATUS_MAX);
    server.stop().await?;
    Ok(verdicts)
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs `smtpctl`; returns when its first row under the header came, when it ended, and how many
/// lines there were.
async fn run(home: &Path, words: &[&str]) -> Outcome<(Duration, Duration, usize)> {
    let begun = Instant::now();
    let mut command = Command::new(programs::mailroot("smtpctl"));
    command.arg("--home").arg(home).args(words).kill_on_drop(true);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("no output")?);
    let reading = async {
        let mut text = Vec::new();
        output.read_until(b'\n', &mut text).await?;
        output.read_until(b'\n', &mut text).await?;
        let first = begun.elapsed();
        output.read_to_end(&mut text).await?;
        Ok::<_, std::io::Error>((first, text))
    };
    let (first, text) = timeout(PATIENCE, reading).await??;
    let status = timeout(PATIENCE, child.wait()).await??;
    if !status.success() {
        return Err(format!("smtpctl {}: {status}", words.join(" ")).into());
    }
    Ok((first, begun.elapsed(), text.iter().filter(|&&octet| octet == b'\n').count()))
}
