//! `sendmail`: how long a program waits that hands in a message, until it is durable.
//!
//! Postfix's does the same beside it, for comparison; it leaves the message in its own directory.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Verdicts, millis};
use crate::client::message;
use crate::options::Options;
use crate::rows::PATIENCE;
use crate::server::{Program, Server, Setup, free_port};
use crate::{Outcome, load, programs};

const MESSAGES: u64 = 1_000;
const SIZE: usize = 1024;
const MIDDLE_MAX: Duration = Duration::from_millis(5);

pub(super) async fn measure(options: &Options, home: &Path) -> Outcome<Verdicts> {
    let messages = options.messages(MESSAGES);
    let setup = Setup::new(free_port()?, options);
    let ours = {
        let home = home.join("mailroot");
        let server = Server::start(Program::Mailroot, &home, &setup).await?;
        let sendmail = home.join("sendmail");
        std::os::unix::fs::symlink(programs::mailroot("smtpctl").canonicalize()?, &sendmail)?;
        let command = || {
            let mut command = Command::new(&sendmail);
            command.env("MAILROOT_HOME", &home);
            command
        };
        let times = submit(messages, command).await?;
        server.stop().await?;
        times
    };
    let theirs = {
        let home = home.join("postfix");
        let server = Server::start(Program::Postfix, &home, &setup).await?;
        let command = || {
            let mut command = Command::new("/usr/sbin/sendmail");
            command.arg("-C").arg(home.join("etc"));
            command
        };
        let times = submit(messages, command).await?;
        server.stop().await?;
        times
    };
    let title = format!("{messages} messages by sendmail, one after the other");
    let mut verdicts = Verdicts::new(&title);
    let (middle, rare) = (at(&ours, 500), at(&ours, 990));
    verdicts.judge("sendmail, 50 %", millis(middle), "5 ms", middle < MIDDLE_MAX);
    verdicts.tell("sendmail, 99 %", millis(rare));
    verdicts.tell("Postfix's, 50 %", millis(at(&theirs, 500)));
    verdicts.tell("Postfix's, 99 %", millis(at(&theirs, 990)));
    Ok(verdicts)
}

/// How long each of so many messages took, the shortest first.
async fn submit(messages: u64, command: impl Fn() -> Command) -> Outcome<Vec<Duration>> {
    let body = message(SIZE);
    // Without the dot that ends it over SMTP.
    let body = body.strip_suffix(b".\r\n").unwrap_or(&body);
    let mut times = Vec::new();
    for _ in 0..messages {
        let begun = Instant::now();
        let mut command = command();
        command.args(["-i", load::TO]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut input = child.stdin.take().ok_or("no input")?;
        input.write_all(body).await?;
        drop(input);
        let status = timeout(PATIENCE, child.wait()).await??;
        times.push(begun.elapsed());
        if !status.success() {
            return Err(format!("sendmail: {status}").into());
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn at(times: &[Duration], part: usize) -> Duration {
    let rank = (times.len() * part / 1000).min(times.len().saturating_sub(1));
    times.get(rank).copied().unwrap_or_default()
}
