//! `queue`: messages that wait.

use std::fmt::Write as _;
use std::io::Write as _;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    Attempt, Change, Kind, Problem, QueueEntry, QueueMessage, QueueRecipient, QueueVerb,
    RecipientState, Selector, path,
};
use mailroot_common::units::{Span, Timestamp};

use crate::adopt::{self, Adopt};
use crate::change::{ChangeOptions, Deed, change};
use crate::complete;
use crate::export::{self, Export};
use crate::flush;
use crate::io_problem;
use crate::listing::list_own;
use crate::orders;
use crate::output::{Cell, Column, Row, Shape, escape, human_size};
use crate::redirect::{self, Redirect};
use crate::select::QueueSelection;
use crate::summary::{self, Summary};
use crate::tool::{Tool, now, stdout};

/// The verbs of `queue`.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List messages.
    #[command(visible_alias = "ls")]
    List(QueueSelection),
    /// Count messages by destination, sender, reason or age.
    Summary(Summary),
    /// Show one message: where each recipient stands, and the remote's words.
    Show(Show),
    /// Try everything that is chosen now, and all if nothing is.
    Flush(Flush),
    /// Try messages now, whatever back-off their destinations have, or later.
    Retry(Retry),
    /// Hold messages back until they are released; with --future, mail yet to come.
    Hold(Hold),
    /// End a hold; with --future, a rule that holds mail yet to come.
    Release(Release),
    /// Delete messages, all recipients of them. Nobody is told.
    #[command(visible_alias = "rm")]
    Remove(Reasoned),
    /// Return messages to their senders, with a report.
    Bounce(Reasoned),
    /// Send messages another way: this queue only, new mail is unchanged.
    Redirect(Redirect),
    /// Write messages into files that a Pickup directory takes.
    Export(Export),
    /// Put such files into the queue, and remove them.
    Adopt(Adopt),
    /// Make no new attempts at a destination.
    Pause(orders::Pause),
    /// Make attempts at a destination again.
    Resume(orders::Resume),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The message's id, or its beginning.
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::message_ids))]
    id: String,
    /// Print its header instead. Is logged.
    #[arg(long, conflicts_with = "content")]
    headers: bool,
    /// Print its octets instead. Is logged.
    #[arg(long)]
    content: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    selection: QueueSelection,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Flush {
    #[command(flatten)]
    plain: Plain,
    /// Only what the network failed last: no host was reached, or the connection broke.
    #[arg(long, help_heading = "Selector")]
    only_network_errors: bool,
    /// Wait until each was tried, at most 5m or SPAN, and tell what came of it.
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "5m", help_heading = "Options", conflicts_with = "dry_run")]
    wait: Option<Span>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    plain: Plain,
    /// Not now but at this moment, such as 2026-12-01T08:00:00Z.
    #[arg(long, value_name = "TIME", help_heading = "Options", conflicts_with = "span")]
    at: Option<String>,
    /// Not now but after this span.
    #[arg(long = "in", value_name = "SPAN", help_heading = "Options")]
    span: Option<Span>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Reasoned {
    #[command(flatten)]
    plain: Plain,
    /// Why: for the log, for queue show, and for the report of a message that is returned.
    #[arg(long, value_name = "TEXT", help_heading = "Options")]
    because: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Hold {
    #[command(flatten)]
    reasoned: Reasoned,
    /// Hold mail yet to come, chosen by --from, --to, --domain and --client.
    #[arg(long, help_heading = "Options")]
    future: bool,
    /// End the rule after this time, such as 1h; what it held stays held.
    #[arg(long = "for", value_name = "SPAN", requires = "future", help_heading = "Options")]
    span: Option<String>,
    /// List the rules that hold mail yet to come.
    #[arg(long, conflicts_with = "future", help_heading = "Options")]
    list: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Release {
    #[command(flatten)]
    plain: Plain,
    /// End rules that hold mail yet to come, named by their ids; what they held stays held.
    #[arg(long, help_heading = "Options")]
    future: bool,
}

pub(crate) async fn run(tool: &mut Tool, command: QueueCommand) -> Result<u8, Problem> {
    let server = tool.global.server.clone();
    match command {
        QueueCommand::List(selection) => {
            let selector = selection.selector(server.as_deref())?;
            list_own::<QueueEntry>(tool, path::QUEUE, selector, None).await
        }
        QueueCommand::Summary(summary) => summary::run(tool, &summary).await,
        QueueCommand::Show(show) if show.headers || show.content => content(tool, &show).await,
        QueueCommand::Show(show) => {
            let path = path::fill(path::QUEUE_MESSAGE, &[&show.id]);
            let message: QueueMessage = tool.daemon().await?.get(&path).await?;
            let shape = &tool.shape;
            tool.print_object(message, |message| for_people(message, shape))?;
            Ok(0)
        }
        QueueCommand::Flush(Flush { plain, only_network_errors, wait }) => {
            let mut selector = plain.selection.selector(server.as_deref())?;
            selector.network_errors = only_network_errors;
            selector.all |= selector.is_empty();
            let Some(wait) = wait else {
                return perform(tool, QueueVerb::Flush, &plain.options, selector, None).await;
            };
            flush::run(tool, &deed(QueueVerb::Flush, None), selector, wait.as_duration()).await
        }
        QueueCommand::Retry(Retry { plain, at, span }) => {
            let selector = plain.selection.selector(server.as_deref())?;
            let at =
                at.as_deref().map(Timestamp::parse).transpose().map_err(|error| {
                    Problem::new("queue", Kind::Usage, format!("--at: {error}"))
                })?;
            let at = at.or_else(|| span.map(|span| now().after(span)));
            perform_at(tool, QueueVerb::Retry, &plain.options, selector, (None, at)).await
        }
        QueueCommand::Release(Release { plain, future }) => {
            let selector = plain.selection.selector(server.as_deref())?;
            if future {
                return orders::release(tool, selector).await;
            }
            perform(tool, QueueVerb::Release, &plain.options, selector, None).await
        }
        QueueCommand::Hold(Hold { list: true, .. }) => orders::list_holds(tool).await,
        QueueCommand::Hold(Hold { reasoned, future, span, .. }) => {
            let Reasoned { plain, because } = reasoned;
            let selector = plain.selection.selector(server.as_deref())?;
            if future {
                return orders::hold(tool, selector, span, because).await;
            }
            perform(tool, QueueVerb::Hold, &plain.options, selector, because).await
        }
        QueueCommand::Remove(Reasoned { plain, because }) => {
            let selector = plain.selection.selector(server.as_deref())?;
            perform(tool, QueueVerb::Remove, &plain.options, selector, because).await
        }
        QueueCommand::Bounce(Reasoned { plain, because }) => {
            let selector = plain.selection.selector(server.as_deref())?;
            perform(tool, QueueVerb::Bounce, &plain.options, selector, because).await
        }
        QueueCommand::Redirect(args) => redirect::run(tool, args).await,
        QueueCommand::Export(args) => export::run(tool, args).await,
        QueueCommand::Adopt(args) => adopt::run(tool, args).await,
        QueueCommand::Pause(args) => orders::pause(tool, args).await,
        QueueCommand::Resume(args) => orders::resume(tool, args).await,
    }
}

async fn perform(
    tool: &mut Tool,
    verb: QueueVerb,
    options: &ChangeOptions,
    selector: Selector,
    reason: Option<String>,
) -> Result<u8, Problem> {
    perform_at(tool, verb, options, selector, (reason, None)).await
}

/// The same with a moment at which it is to be done.
async fn perform_at(
    tool: &mut Tool,
    verb: QueueVerb,
    options: &ChangeOptions,
    selector: Selector,
    (reason, at): (Option<String>, Option<Timestamp>),
) -> Result<u8, Problem> {
    let body = |selector, if_exists| Change { selector, reason: reason.clone(), if_exists, at };
    change::<QueueEntry, _>(tool, &deed(verb, at), options, selector, body).await
}

fn deed(verb: QueueVerb, at: Option<Timestamp>) -> Deed {
    Deed {
        list: path::QUEUE,
        path: path::fill(path::QUEUE_VERB, &[verb.as_str()]),
        verb: verb.as_str(),
        done: match verb {
            QueueVerb::Retry if at.is_some() => "scheduled",
            QueueVerb::Flush | QueueVerb::Retry => "scheduled now",
            QueueVerb::Hold => "held",
            QueueVerb::Release => "released",
            QueueVerb::Remove => "removed",
            QueueVerb::Bounce => "returned",
        },
        noun: "message",
        is_final: matches!(verb, QueueVerb::Remove | QueueVerb::Bounce),
    }
}

async fn content(tool: &mut Tool, show: &Show) -> Result<u8, Problem> {
    let mut path = path::fill(path::QUEUE_CONTENT, &[&show.id]);
    if show.headers {
        path.push_str("?headers=true");
    }
    print_octets(tool, &path).await
}

/// Prints octets as they are into a pipe; to a terminal only what cannot steer it.
pub(crate) async fn print_octets(tool: &mut Tool, path: &str) -> Result<u8, Problem> {
    let to_terminal = tool.shape.width.is_some();
    let mut out = stdout();
    let print = |octets: &[u8]| {
        if !to_terminal {
            return out.write_all(octets).map_err(io_problem);
        }
        let text = String::from_utf8_lossy(octets);
        let written = text.split_inclusive('\n').try_for_each(|line| {
            let end = if line.ends_with('\n') { "\n" } else { "" };
            write!(out, "{}{end}", escape(line.trim_end_matches(['\r', '\n'])))
        });
        written.map_err(io_problem)
    };
    tool.daemon().await?.octets(path, print).await?;
    out.flush().map_err(io_problem)?;
    Ok(0)
}

pub(crate) fn for_people(message: &QueueMessage, shape: &Shape) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let done = writeln!(text, "{name:<10}  {}", escape(&value));
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    };
    let entry = &message.entry;
    let time = |at| Cell::Ago(at).for_people(shape.now, shape.time, shape.utc);
    line("id", format!("{} (server {})", entry.id, entry.server));
    line("state", entry.state.to_string());
    let client = message.client.map(|client| format!(" from {client}")).unwrap_or_default();
    let helo = message.helo.as_ref().map(|helo| format!(" ({helo})")).unwrap_or_default();
    let session = message.session.map(|id| format!(", session {id}")).unwrap_or_default();
    let at = Cell::Ago(entry.accepted_at).for_programs(shape.time);
    let age = time(entry.accepted_at);
    line("received", format!("{at} ({age} ago) by {}{client}{helo}{session}", message.via));
    if let Some(source) = &message.source {
        line("source", source.clone());
    }
    if let Some(checks) = &message.checks {
        line("checks", checks.clone());
    }
    let from = entry.from.to_string();
    line("from", if from.is_empty() { "<>".to_owned() } else { from });
    for (name, value) in [
        ("message-id", &message.message_id),
        ("subject", &message.subject),
        ("envid", &message.envid),
    ] {
        if let Some(value) = value {
            line(name, value.clone());
        }
    }
    let at = |moment| {
        let written = Cell::Ago(moment).for_programs(shape.time);
        format!("{written} ({})", Cell::Until(moment).for_people(shape.now, shape.time, shape.utc))
    };
    if let Some(moment) = message.release_at {
        line("not before", at(moment));
    }
    if let Some(moment) = message.deliver_by {
        let late = match message.if_late.as_deref() {
            Some("return") => ", else it is returned",
            _ => ", else the sender is told",
        };
        line("deliver by", format!("{}{late}", at(moment)));
    }
    if message.priority != 0 {
        line("priority", message.priority.to_string());
    }
    if message.require_tls {
        line("tls", "required all the way (REQUIRETLS)".to_owned());
    }
    let utf8 = if message.smtputf8 { ", SMTPUTF8" } else { "" };
    line(
        "size",
        format!("{} ({} octets, {}{utf8})", human_size(entry.size), entry.size, message.body),
    );
    for (number, recipient) in message.recipients.iter().enumerate() {
        line(&format!("rcpt {}", number + 1), recipient_for_people(recipient, shape));
        if let Some(last) = &recipient.last {
            line("", attempt_for_people(last));
        }
    }
    if let Some(reason) = &entry.reason {
        line("reason", reason.clone());
    }
    text
}

fn recipient_for_people(recipient: &QueueRecipient, shape: &Shape) -> String {
    let mut text = format!("{}  {}", recipient.address, recipient.state);
    if recipient.attempts > 0 {
        let tries = if recipient.attempts == 1 { "try" } else { "tries" };
        text.push_str(&format!("  {} {tries}", recipient.attempts));
    }
    match recipient.next_attempt_at {
        Some(at) if !recipient.state.is_end() => {
            let next = Cell::Until(at).for_people(shape.now, shape.time, shape.utc);
            text.push_str(&format!("  next {next}"));
        }
        None if recipient.state == RecipientState::InDoubt => {
            text.push_str("  waits for an operator");
        }
        _ => {}
    }
    if let Some(route) = &recipient.route {
        text.push_str(&format!("  by {route}"));
    }
    text
}

/// `2026-11-24T13:56:12.000Z  mx1.example[192.0.2.20]:25  451 4.7.1 Greylisted (rcpt)`.
pub(crate) fn attempt_for_people(attempt: &Attempt) -> String {
    let host = attempt.host.as_ref().map(|host| format!("{host}  ")).unwrap_or_default();
    let code = attempt.code.map(|code| format!("{code} ")).unwrap_or_default();
    let words = attempt.text.replace('\n', " / ");
    format!("{}  {host}{code}{} {words} ({})", attempt.at, attempt.status, attempt.stage)
}

impl Row for QueueEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(it.id.to_string())),
        Column::always("age", |it| Cell::Ago(it.accepted_at)),
        Column::always("size", |it| Cell::Size(it.size)),
        Column::always("from", |it| match it.from.to_string() {
            from if from.is_empty() => Cell::text("<>"),
            from => Cell::Text(from),
        }),
        Column::always("to", |it| {
            let to: Vec<_> = it.to.iter().map(ToString::to_string).collect();
            Cell::Text(to.join(","))
        }),
        Column::always("state", |it| Cell::State(it.state.as_str())),
        Column::always("tries", |it| Cell::Count(it.attempts.into())),
        Column::always("next", |it| it.next_attempt_at.map_or(Cell::Nothing, Cell::Until)),
        Column::always("reason", |it| Cell::maybe(it.reason.as_deref())),
        Column::wide("server", |it| Cell::text(&*it.server)),
        Column::wide("recipients", |it| Cell::Count(it.to.len() as u64)),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl Row for QueueMessage {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(it.entry.id.to_string())),
        Column::always("age", |it| Cell::Ago(it.entry.accepted_at)),
        Column::always("size", |it| Cell::Size(it.entry.size)),
        Column::always("from", |it| Cell::text(it.entry.from.to_string())),
        Column::always("to", |it| {
            let to: Vec<_> = it.recipients.iter().map(|r| r.address.to_string()).collect();
            Cell::Text(to.join(","))
        }),
        Column::always("state", |it| Cell::State(it.entry.state.as_str())),
        Column::always("reason", |it| Cell::maybe(it.entry.reason.as_deref())),
        Column::wide("subject", |it| Cell::maybe(it.subject.as_deref())),
        Column::wide("message_id", |it| Cell::maybe(it.message_id.as_deref())),
        Column::wide("server", |it| Cell::text(&*it.entry.server)),
    ];

    fn id(&self) -> String {
        self.entry.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::units::Timestamp;

    use super::*;
    use crate::output::TimeForm;

    #[test]
    fn show_tells_the_remotes_words() {
        let message: QueueMessage = serde_json::from_value(serde_json::json!({
            "id": "6FZK5D3VYE2S", "server": "default", "state": "retry",
            "accepted_at": "2026-11-24T13:56:10Z", "size": 90_112, "from": "", "to": ["bob@partner.example"],
            "attempts": 2, "next_attempt_at": "2026-11-24T14:06:10Z", "reason": "451 4.7.1 Greylisted",
            "via": "smtp", "client": "10.1.0.7", "helo": "erp\u{1b}[2J", "session": "7QK1ZZ",
            "subject": "Order 2291", "body": "8bitmime", "priority": 3, "if_late": "return",
            "release_at": "2026-11-24T14:06:10Z", "deliver_by": "2026-11-24T15:02:10Z",
            "recipients": [{
                "address": "bob@partner.example", "state": "retry", "attempts": 2,
                "next_attempt_at": "2026-11-24T14:06:10Z", "route": "mx:partner.example",
                "last": {"at": "2026-11-24T13:57:12Z", "result": "deferred", "code": 451, "status": "4.7.1",
                    "text": "Greylisted,\ntry again in 240 s", "host": "mx1.partner.example[192.0.2.20]:25", "stage": "rcpt"}
            }]
        }))
        .unwrap();
        let now = Timestamp::parse("2026-11-24T14:02:10Z").unwrap();
        let shape = Shape { now, time: TimeForm::Relative, utc: true, ..Shape::default() };
        assert_eq!(
            for_people(&message, &shape),
            "id          6FZK5D3VYE2S (server default)\n\
             state       retry\n\
             received    2026-11-24T13:56:10.000Z (6m ago) by smtp from 10.1.0.7 (erp\\x1b[2J), session 7QK1ZZ\n\
             from        <>\n\
             subject     Order 2291\n\
             not before  2026-11-24T14:06:10.000Z (4m)\n\
             deliver by  2026-11-24T15:02:10.000Z (1h), else it is returned\n\
             priority    3\n\
             size        88KiB (90112 octets, 8bitmime)\n\
             rcpt 1      bob@partner.example  retry  2 tries  next 4m  by mx:partner.example\n\
             \x20           2026-11-24T13:57:12.000Z  mx1.partner.example[192.0.2.20]:25  451 4.7.1 Greylisted, / try again in 240 s (rcpt)\n\
             reason      451 4.7.1 Greylisted\n"
        );
    }
}
