//! `service`: all virtual servers at once.

use std::time::{Duration, Instant};

use clap::Subcommand;
use mailroot_common::control::server::VerbRequest;
use mailroot_common::control::{
    Change, Changed, DestinationPause, Kind, PauseRequest, Problem, QueueVerb, Redirect, Selector,
    Server, ServerState, Status, Verb, path,
};
use mailroot_common::units::Span;

use crate::change::counted;
use crate::client::WAIT;
use crate::progress::Progress;
use crate::server::no_such_server;
use crate::tool::Tool;

/// How often a queue that is to empty is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The states of mail that can go another way.
const HANDED_OVER: &str = "queued,active,retry,in_doubt";
/// How long all mail may take to be marked as due.
const FLUSH_WAIT: Duration = Duration::from_secs(600);

/// The verbs of `service`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// Take no new mail and make no new attempts, or one of these.
    Pause(Pause),
    /// Take mail and make attempts again, or one of these.
    Resume(Valves),
    /// Take no new mail, and try everything that waits now.
    Drain(Drain),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Valves {
    /// New mail by listeners and Pickup; a pause lasts until the daemon ends.
    #[arg(long)]
    inbound: bool,
    /// Attempts at other hosts; a pause lasts over a restart.
    #[arg(long)]
    outbound: bool,
    /// Deliveries into Drop; a pause lasts over a restart.
    #[arg(long)]
    local: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    valves: Valves,
    /// End by itself after this time, such as 10m.
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<String>,
    /// Why, for the log and for status.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Drain {
    /// Hand over what waits: by this host, whatever the routes say; name, name:port or [address]:port.
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    /// Wait until nothing waits but what is held; not longer than this [default: 5m].
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "5m")]
    wait: Option<String>,
    /// Why, for the log and for status.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(crate) async fn run(tool: &mut Tool, command: ServiceCommand) -> Result<u8, Problem> {
    match command {
        ServiceCommand::Pause(args) => {
            let Pause { valves, span, reason } = args;
            if let Some(text) = &span {
                read_span("--for", text)?;
            }
            if valves.is_inbound() {
                turn_inbound(tool, Verb::Pause, span.clone(), reason.clone()).await?;
            }
            for destination in valves.destinations() {
                let request = PauseRequest {
                    destination: destination.to_owned(),
                    server: tool.global.server.clone(),
                    span: span.clone(),
                    reason: reason.clone(),
                    exactly: false,
                };
                let _done: Vec<DestinationPause> =
                    tool.daemon().await?.post(path::QUEUE_PAUSE, &request, WAIT).await?;
            }
            tool.say_done(&valves.words(), &format!("{} paused", valves.words().join(", ")))?;
            Ok(0)
        }
        ServiceCommand::Resume(valves) => {
            if valves.is_inbound() {
                turn_inbound(tool, Verb::Resume, None, None).await?;
            }
            for destination in valves.destinations() {
                let request = PauseRequest {
                    destination: destination.to_owned(),
                    server: tool.global.server.clone(),
                    exactly: true,
                    ..PauseRequest::default()
                };
                let client = tool.daemon().await?;
                let done: Result<Vec<DestinationPause>, _> =
                    client.post(path::QUEUE_RESUME, &request, WAIT).await;
                // What was not paused goes on as well.
                done.map(drop).or_else(|problem| {
                    if problem.exit == Kind::NotFound.exit_code()
                        && &*problem.code == "queue.not_found"
                    {
                        Ok(())
                    } else {
                        Err(problem)
                    }
                })?;
            }
            tool.say_done(&valves.words(), &format!("{} resumed", valves.words().join(", ")))?;
            Ok(0)
        }
        ServiceCommand::Drain(args) => drain(tool, args).await,
    }
}

impl Valves {
    /// Nothing named is new mail and other hosts.
    const fn is_inbound(&self) -> bool {
        self.inbound || !(self.outbound || self.local)
    }

    fn destinations(&self) -> Vec<&'static str> {
        let outbound = self.outbound || !(self.inbound || self.local);
        let valves = [(outbound, "*"), (self.local, "drop")];
        valves.iter().filter(|(meant, _)| *meant).map(|(_, name)| *name).collect()
    }

    fn words(&self) -> Vec<&'static str> {
        let mut words = if self.is_inbound() { vec!["inbound"] } else { Vec::new() };
        let names = self.destinations();
        words.extend(names.iter().map(|name| if *name == "*" { "outbound" } else { "local" }));
        words
    }
}

fn read_span(option: &str, text: &str) -> Result<Duration, Problem> {
    let span = Span::parse(text)
        .map_err(|error| Problem::new("client", Kind::Usage, format!("{option}: {error}")))?;
    Ok(span.as_duration())
}

/// The virtual servers meant.
async fn servers(tool: &mut Tool) -> Result<Vec<Server>, Problem> {
    let status: Status = tool.daemon().await?.get(path::STATUS).await?;
    let Some(name) = tool.global.server.clone() else { return Ok(status.servers) };
    let found: Vec<_> = status.servers.into_iter().filter(|server| server.name == name).collect();
    if found.is_empty() { Err(no_such_server(&name)) } else { Ok(found) }
}

/// Pauses the servers that run, or resumes those that are paused; one that is stopped stays so.
async fn turn_inbound(
    tool: &mut Tool,
    verb: Verb,
    span: Option<String>,
    reason: Option<String>,
) -> Result<(), Problem> {
    let from: &[ServerState] = match verb {
        Verb::Pause => &[ServerState::Running, ServerState::Paused],
        _ => &[ServerState::Paused],
    };
    let request = VerbRequest { reason, span, ..VerbRequest::default() };
    for server in servers(tool).await? {
        if from.contains(&server.state) {
            let path = path::fill(path::SERVER_VERB, &[&server.name, verb.as_str()]);
            let _now: Server = tool.daemon().await?.post(&path, &request, WAIT).await?;
        }
    }
    Ok(())
}

async fn drain(tool: &mut Tool, args: Drain) -> Result<u8, Problem> {
    let patience = args.wait.as_deref().map(|text| read_span("--wait", text)).transpose()?;
    let reason = args.reason.unwrap_or_else(|| "draining".to_owned());
    turn_inbound(tool, Verb::Pause, None, Some(reason)).await?;
    let selector =
        Selector { all: true, server: tool.global.server.clone(), ..Selector::default() };
    if let Some(host) = args.to {
        let selector = Selector { state: Some(HANDED_OVER.to_owned()), ..selector.clone() };
        let change = Change { selector, if_exists: true, ..Change::default() };
        let aim = Redirect { change, to_host: Some(host), ..Redirect::default() };
        let handed: Changed =
            tool.daemon().await?.post(path::QUEUE_REDIRECT, &aim, FLUSH_WAIT).await?;
        handed.notes.iter().for_each(|note| tool.note(note));
    }
    let change = Change { selector, reason: None, if_exists: true, ..Change::default() };
    let flush = path::fill(path::QUEUE_VERB, &[QueueVerb::Flush.as_str()]);
    let flushed: Changed = tool.daemon().await?.post(&flush, &change, FLUSH_WAIT).await?;
    flushed.notes.iter().for_each(|note| tool.note(note));
    let begun = Instant::now();
    let mut progress = Progress::new(tool);
    loop {
        let now = servers(tool).await?;
        let left: u64 = now.iter().map(|it| it.queue.messages.saturating_sub(it.queue.held)).sum();
        let words = format!("no new mail is taken, {} left to deliver", counted(left, "message"));
        match patience {
            Some(patience) if left > 0 => {
                if begun.elapsed() >= patience {
                    return Err(Problem::new("service", Kind::TimedOut, words));
                }
                progress.tell(|| words);
                tokio::time::sleep(LOOK_EVERY).await;
            }
            _ => {
                drop(progress);
                tool.say_done(&now, &words)?;
                return Ok(0);
            }
        }
    }
}
