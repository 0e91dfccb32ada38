//! `mailq`: the queue in the shape that monitoring programs read. Whoever has no role sees his own
//! mail.

use std::io::Write;

use clap::Parser;
use mailroot_common::control::{Kind, Problem, QueueEntry, QueueState, Selector, path};
use mailroot_common::units::Timestamp;

use super::Failure;
use crate::OUTPUT_CLOSED;
use crate::args::Args;
use crate::change::with_query;
use crate::io_problem;
use crate::output::escape;
use crate::tool::{Tool, stdout};

const HEAD: &str = "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------";
/// How far recipients are moved in.
const INDENT: usize = 42;

pub(super) fn run() -> Result<u8, Failure> {
    let failed =
        |error: String| Problem::new("client", Kind::Failed, format!("cannot start: {error}"));
    let args = Args::try_parse_from(["smtpctl", "queue", "list"]);
    let args = args.map_err(|error| failed(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    match runtime.block_on(print(&mut Tool::new(args.global))) {
        // Whoever read the list has seen enough.
        Err(problem) if *problem.code == *OUTPUT_CLOSED => Ok(0),
        done => done.map(|()| 0).map_err(Failure::from),
    }
}

async fn print(tool: &mut Tool) -> Result<(), Problem> {
    let (mut out, mut count, mut octets) = (stdout(), 0_u64, 0_u64);
    let path = with_query(path::QUEUE, &Selector::default());
    let take = |entry: QueueEntry| {
        let head = if count == 0 { format!("{HEAD}\n") } else { String::new() };
        count += 1;
        octets += entry.size;
        writeln!(out, "{head}{}", lines(&entry)).map_err(io_problem)?;
        Ok(true)
    };
    tool.daemon_of_all().await?.lines(&path, take).await?;
    let end = match count {
        0 => "Mail queue is empty\n".to_owned(),
        1 => format!("-- {} Kbytes in 1 Request.\n", octets / 1024),
        _ => format!("-- {} Kbytes in {count} Requests.\n", octets / 1024),
    };
    out.write_all(end.as_bytes()).and_then(|()| out.flush()).map_err(io_problem)
}

/// A message: one line, why it waits, and who is to get it.
fn lines(entry: &QueueEntry) -> String {
    let mark = match entry.state {
        QueueState::Active => '*',
        QueueState::Held => '!',
        _ => ' ',
    };
    let sender = entry.from.to_string();
    let sender = if sender.is_empty() { "MAILER-DAEMON" } else { &sender };
    let (id, size, at) = (entry.id.to_string(), entry.size, arrival(entry.accepted_at));
    let mut text = format!("{id:<11}{mark} {size:>7} {at} {}\n", escape(sender));
    if let Some(reason) = &entry.reason {
        text.push_str(&format!("{:>width$}\n", format!("({})", escape(reason)), width = INDENT));
    }
    for to in &entry.to {
        text.push_str(&format!("{:INDENT$}{}\n", "", escape(&to.to_string())));
    }
    text
}

fn arrival(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let Ok(moment) = jiff::Timestamp::from_millisecond(millis) else { return at.to_string() };
    let local = moment.to_zoned_datetime(jiff::tz::TimeZone::system());
    local.strftime("%a %b %e %H:%M:%S").to_string()
}
