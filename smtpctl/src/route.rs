//! `route`: where mail would go, and whether a client may send it there.

use std::io::Write as _;

use clap::Subcommand;
use mailroot_common::control::{Decision, Judgement, Problem, Question, SenderOutside, path};

use crate::client::WAIT;
use crate::io_problem;
use crate::output::escape;
use crate::tool::{Tool, stdout};

/// The verbs of `route`.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Say where mail to an address would go, and which line of the file decides.
    Show(Show),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The recipient.
    #[arg(value_name = "ADDRESS")]
    to: String,
    /// Say as well whether this client may send to it.
    #[arg(long, value_name = "ADDRESS")]
    client: Option<String>,
    /// Say as well under which address this sender would be known there.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// Do not ask DNS.
    #[arg(long)]
    no_dns: bool,
}

pub(crate) async fn run(tool: &mut Tool, command: RouteCommand) -> Result<u8, Problem> {
    let RouteCommand::Show(args) = command;
    let question = Question {
        client: args.client,
        to: Some(args.to.clone()),
        from: args.from,
        look_up: !args.no_dns,
    };
    let path = path::fill(path::DECIDE, &[tool.server()]);
    let decision: Decision = tool.daemon().await?.post(&path, &question, WAIT).await?;
    if tool.print_data(&decision)? {
        return Ok(0);
    }
    line("recipient", &args.to, "")?;
    print_decision(tool, &decision)?;
    Ok(0)
}

/// Prints what was decided, a line for each part.
pub(crate) fn print_decision(tool: &Tool, decision: &Decision) -> Result<(), Problem> {
    if tool.print_data(decision)? {
        return Ok(());
    }
    for (name, judgement) in [("connect", &decision.connect), ("relay", &decision.relay)] {
        if let Some(judgement) = judgement {
            line(name, &words(judgement), &judgement.origin)?;
        }
    }
    if let Some(sender) = &decision.sender {
        let SenderOutside { envelope, header, rule, origin } = sender;
        let words = match (rule.as_str(), envelope == header) {
            ("none", _) => format!("{envelope}, as it is"),
            (_, true) => format!("{envelope} in MAIL FROM and From, by {rule}"),
            (_, false) => format!("{envelope} in MAIL FROM, {header} in From, by {rule}"),
        };
        line("sender", &words, origin)?;
    }
    let Some(way) = &decision.way else { return Ok(()) };
    let domain = format!("{} ({})", way.domain, way.kind);
    line("domain", &domain, &way.origin)?;
    if let Some(said) = &way.directory {
        line("directory", said, "")?;
    }
    let helo = if way.helo_only { ", greeted with HELO" } else { "" };
    line("next hop", &format!("{}{helo}", way.hop), "")?;
    for host in &way.hosts {
        line("", host, "")?;
    }
    if let Some(error) = &way.dns_error {
        line("DNS", error, "")?;
    }
    for (place, text) in way.tls.iter().enumerate() {
        line(if place == 0 { "TLS" } else { "" }, text, "")?;
    }
    line("retry", &format!("{}, given up after {}", way.retry, way.expire), "")
}

fn words(judgement: &Judgement) -> String {
    let reply = judgement.reply.as_ref().map(|reply| format!(", the client hears {reply:?}"));
    format!("{}: {}{}", judgement.outcome.as_str(), judgement.rule, reply.unwrap_or_default())
}

fn line(name: &str, text: &str, origin: &str) -> Result<(), Problem> {
    let origin = if origin.is_empty() { String::new() } else { format!("   {origin}") };
    writeln!(stdout(), "{name:<10}  {}{}", escape(text), escape(&origin)).map_err(io_problem)
}
