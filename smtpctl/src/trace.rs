//! `trace`: what became of messages, also of those that are long gone.
//!
//! For people each message is a story with its reasons; for programs it is a row or an object. That
//! nothing was found is an answer too: it says what was seen instead.

use std::fmt::Write as _;
use std::io::Write as _;

use mailroot_common::control::{Kind, Problem, Refused, Selector, TraceEntry, TraceRecord, path};

use crate::change::{LISTED_MAX, parts};
use crate::io_problem;
use crate::listing::{limited, list};
use crate::output::{Cell, Column, Form, Row, escape, human_span};
use crate::select::TraceSelection;
use crate::story::{advice, story};
use crate::tool::{Tool, stdout};

/// How many stories a person is told who does not say.
const STORIES: u64 = 10;
/// How many refusals are looked at for the answer that nothing was found.
const REFUSALS: u64 = 1_000;
/// How many clients that answer names.
const CLIENTS: usize = 5;
/// Reasons that are the server's own, told before anybody has named a recipient.
const EARLY: [&str; 2] = ["store-full", "stopping"];

#[derive(Debug, clap::Args)]
pub(crate) struct Trace {
    #[command(flatten)]
    selection: TraceSelection,
    /// Tell of the newest N only. Stories are told of 10 unless this says otherwise.
    #[arg(long, value_name = "N", help_heading = "Options")]
    last: Option<u64>,
    /// List who was turned away, instead of messages.
    #[arg(long, help_heading = "Options")]
    refused: bool,
    /// Also tell what was said over SMTP, as far as trace.dialogues has it remembered.
    #[arg(long, help_heading = "Options", conflicts_with = "refused")]
    dialogue: bool,
}

pub(crate) async fn run(tool: &mut Tool, trace: &Trace) -> Result<u8, Problem> {
    let selector = trace.selection.selector(tool.global.server.as_deref())?;
    let limit = trace.last.or(tool.shape.limit);
    if trace.refused {
        return list::<Refused>(tool, path::TRACE_REFUSED, selector, limit).await;
    }
    tool.daemon_of_all().await?;
    let path = match trace.dialogue {
        false => path::TRACE,
        true => path::TRACE_DIALOGUES,
    };
    if tool.shape.form != Form::Table {
        return list::<TraceEntry>(tool, path, selector, limit).await;
    }
    let told = tell(tool, path, &selector, limit.unwrap_or(STORIES)).await?;
    if tool.sees_own() {
        if told == 0 {
            let text = format!("No message of yours{} is in the trace.\n", chosen(&selector));
            stdout().write_all(text.as_bytes()).map_err(io_problem)?;
        }
        return Ok(if told == 0 { Kind::NotFound.exit_code() } else { 0 });
    }
    let asks_client = selector.client.is_some();
    if told == 0 {
        tell_nothing(tool, &selector).await?;
    }
    if told == 0 && !selector.is_ids_only() || asks_client {
        tell_refusals(tool, &selector).await?;
    }
    Ok(if told == 0 { Kind::NotFound.exit_code() } else { 0 })
}

/// Tells the newest stories; how many there were.
async fn tell(tool: &mut Tool, path: &str, selector: &Selector, most: u64) -> Result<u64, Problem> {
    let shape = tool.shape.clone();
    let (mut out, mut told) = (stdout(), 0);
    for part in parts(selector.clone(), LISTED_MAX) {
        let take = |entry: TraceEntry| {
            told += 1;
            if told <= most {
                let gap = if told == 1 { "" } else { "\n" };
                write!(out, "{gap}{}", story(&entry, &shape)).map_err(io_problem)?;
            }
            Ok(true)
        };
        // One more shows whether there are more.
        let path = limited(path, &part, Some(most.saturating_add(1)));
        tool.daemon().await?.lines(&path, take).await?;
    }
    out.flush().map_err(io_problem)?;
    if told > most {
        let more = "There are more; --last N tells of more, -o wide lists them.";
        tool.note(more);
    }
    Ok(told)
}

/// Says that no message was found, and since when there is a record.
async fn tell_nothing(tool: &mut Tool, selector: &Selector) -> Result<(), Problem> {
    let record: TraceRecord = tool.daemon().await?.get(path::TRACE_RECORD).await?;
    let mut text = match record.since {
        None => "The trace is empty: nothing has been recorded yet.\n".to_owned(),
        Some(since) => {
            let age = human_span(tool.shape.now.since(since));
            format!("No message{} is in the trace, which begins {age} ago.\n", chosen(selector))
        }
    };
    if record.dropped > 0 {
        let dropped = record.dropped;
        text.push_str(&format!(
            "{dropped} events could not be recorded since the daemon started.\n"
        ));
    }
    if record.damaged > 0 {
        text.push_str(&format!("{} parts of it cannot be read.\n", record.damaged));
    }
    stdout().write_all(text.as_bytes()).map_err(io_problem)
}

/// The conditions in words.
fn chosen(selector: &Selector) -> String {
    let mut text = String::new();
    if !selector.ids.is_empty() {
        text.push_str(&format!(" {}", selector.ids.join(" ")));
    }
    for (word, value) in [
        ("from", &selector.from),
        ("to", &selector.to),
        ("to the domain", &selector.domain),
        ("with the subject", &selector.subject),
        ("of the client", &selector.client),
        ("newer than", &selector.newer_than),
        ("older than", &selector.older_than),
        ("on the server", &selector.server),
    ] {
        if let Some(value) = value {
            text.push_str(&format!(" {word} {value}"));
        }
    }
    escape(&text)
}

/// Refusals with the same client and reason.
struct Group {
    newest: Refused,
    count: u64,
}

/// Those that were turned away, by client and reason.
async fn refusals(
    tool: &mut Tool,
    selector: &Selector,
    counts: impl Fn(&Refused) -> bool,
) -> Result<Vec<Group>, Problem> {
    let mut groups: Vec<Group> = Vec::new();
    let take = |refused: Refused| {
        let same = groups.iter_mut().find(|group| {
            group.newest.client == refused.client && group.newest.reason == refused.reason
        });
        match same {
            _ if !counts(&refused) => {}
            Some(group) => group.count += 1,
            None => groups.push(Group { newest: refused, count: 1 }),
        }
        Ok(true)
    };
    let path = limited(path::TRACE_REFUSED, selector, Some(REFUSALS));
    tool.daemon().await?.lines(&path, take).await?;
    Ok(groups)
}

/// Says who was turned away of whom the selector could speak.
async fn tell_refusals(tool: &mut Tool, selector: &Selector) -> Result<(), Problem> {
    let selector = Selector { ids: Vec::new(), ..selector.clone() };
    let mut groups = refusals(tool, &selector, |_| true).await?;
    if groups.is_empty() && (selector.to.is_some() || selector.domain.is_some()) {
        // Whoever was sent away by a full or a paused server did not come as far as a recipient.
        let selector = Selector { to: None, domain: None, ..selector };
        let early = |it: &Refused| it.to.is_none() && EARLY.contains(&it.reason.as_str());
        groups = refusals(tool, &selector, early).await?;
    }
    let mut text = String::new();
    for Group { newest, count } in groups.iter().take(CLIENTS) {
        let age = human_span(tool.shape.now.since(newest.at));
        let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
        let line = format!(
            "{} was refused {times}, the last time {age} ago: {} {} {} at {}",
            newest.client, newest.code, newest.status, newest.reason, newest.stage
        );
        let done = writeln!(text, "{}", escape(&line));
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
        if let Some(known) = &newest.advice {
            text.push_str(&advice(known, &tool.shape));
        }
        let see = format!("smtpctl trace --refused --client {}", newest.client);
        text.push_str(&format!("See  {}\n", escape(&see)));
    }
    if groups.len() > CLIENTS {
        text.push_str(&format!("{} more were refused.\n", groups.len() - CLIENTS));
    }
    stdout().write_all(text.as_bytes()).map_err(io_problem)
}

impl Row for TraceEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(it.id.to_string())),
        Column::always("age", |it| it.accepted_at.map_or(Cell::Nothing, Cell::Ago)),
        Column::always("size", |it| it.size.map_or(Cell::Nothing, Cell::Size)),
        Column::always("from", |it| match it.from.as_deref() {
            Some("") => Cell::text("<>"),
            from => Cell::maybe(from),
        }),
        Column::always("to", |it| {
            let to: Vec<_> = it.recipients.iter().map(|to| to.address.as_str()).collect();
            Cell::Text(to.join(","))
        }),
        Column::always("state", |it| Cell::text(&*it.state)),
        Column::always("last", |it| match it.events.last() {
            Some(last) => Cell::Text(format!("{} {last}", last.event).trim_end().to_owned()),
            None => Cell::Nothing,
        }),
        Column::wide("server", |it| Cell::text(&*it.server)),
        Column::wide("via", |it| Cell::maybe(it.via.as_deref())),
        Column::wide("client", |it| Cell::maybe(it.client.as_deref())),
        Column::wide("subject", |it| Cell::maybe(it.subject.as_deref())),
        Column::asked("message_id", |it| Cell::maybe(it.message_id.as_deref())),
        Column::asked("rule", |it| Cell::maybe(it.rule.as_deref())),
        Column::asked("next", |it| it.next_attempt_at.map_or(Cell::Nothing, Cell::Until)),
        Column::asked("events", |it| Cell::Count(it.events.len() as u64)),
        Column::asked("dialogues", |it| Cell::Count(it.dialogues.len() as u64)),
        Column::asked("why", |it| Cell::maybe(it.advice.as_ref().map(|advice| &*advice.why))),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }
}

impl Row for Refused {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("age", |it| Cell::Ago(it.at)),
        Column::always("client", |it| Cell::text(&*it.client)),
        Column::always("stage", |it| Cell::text(&*it.stage)),
        Column::always("code", |it| Cell::Count(it.code)),
        Column::always("status", |it| Cell::text(&*it.status)),
        Column::always("reason", |it| Cell::text(&*it.reason)),
        Column::always("from", |it| Cell::maybe(it.from.as_deref())),
        Column::always("to", |it| Cell::maybe(it.to.as_deref())),
        Column::wide("server", |it| Cell::text(&*it.server)),
        Column::wide("helo", |it| Cell::maybe(it.helo.as_deref())),
        Column::wide("session", |it| Cell::maybe(it.session.as_deref())),
        Column::asked("why", |it| Cell::maybe(it.advice.as_ref().map(|advice| &*advice.why))),
    ];

    fn id(&self) -> String {
        self.client.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_found_is_named() {
        let selector = Selector {
            ids: vec!["6FZK".to_owned()],
            to: Some("al@slow.example".to_owned()),
            newer_than: Some("2h".to_owned()),
            ..Selector::default()
        };
        assert_eq!(chosen(&selector), " 6FZK to al@slow.example newer than 2h");
        assert_eq!(chosen(&Selector::default()), "");
    }
}
