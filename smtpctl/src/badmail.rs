//! `badmail`: messages that could be neither delivered nor returned.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    BadmailEntry, BadmailMessage, Change, Changed, Kind, Problem, Requeue as Body, Selector, path,
};
use mailroot_common::units::Timestamp;
use serde::Serialize;

use crate::change::{ChangeOptions, Deed, LISTED_MAX, change, parts, with_query};
use crate::complete;
use crate::export;
use crate::listing::list;
use crate::output::{Cell, Column, Row, escape, human_size};
use crate::queue::print_octets;
use crate::select::MessageSelection;
use crate::tool::Tool;

/// The verbs of `badmail`.
#[derive(Debug, Subcommand)]
pub(crate) enum BadmailCommand {
    /// List messages.
    #[command(visible_alias = "ls")]
    List(MessageSelection),
    /// Count messages by why they are there.
    Stats(MessageSelection),
    /// Show one message: why it is there, and what to do.
    Show(Show),
    /// Write messages into files that a Pickup directory takes.
    Export(Export),
    /// Put messages back into the queue.
    Requeue(Requeue),
    /// Delete messages.
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The message's id, or its beginning.
    #[arg(value_name = "ID", add = ArgValueCompleter::new(complete::message_ids))]
    id: String,
    /// Print its octets instead. Is logged.
    #[arg(long)]
    content: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Requeue {
    /// Ids, or beginnings of ids with 4 or more characters; - reads ids from standard input.
    #[arg(value_name = "ID", required = true)]
    #[arg(add = ArgValueCompleter::new(complete::message_ids))]
    ids: Vec<String>,
    /// Send to this address instead of those of the envelope; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Send as this address instead of that of the envelope; '<>' for none.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// One file for each message into this directory.
    #[arg(long, value_name = "DIR", help_heading = "Options")]
    dir: PathBuf,
    #[command(flatten)]
    selection: MessageSelection,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    selection: MessageSelection,
    #[command(flatten)]
    options: ChangeOptions,
}

pub(crate) async fn run(tool: &mut Tool, command: BadmailCommand) -> Result<u8, Problem> {
    let server = tool.global.server.clone();
    match command {
        BadmailCommand::List(selection) => {
            let selector = selection.selector(server.as_deref())?;
            list::<BadmailEntry>(tool, path::BADMAIL, selector, None).await
        }
        BadmailCommand::Stats(selection) => {
            stats(tool, selection.selector(server.as_deref())?).await
        }
        BadmailCommand::Export(args) => export(tool, args, server.as_deref()).await,
        BadmailCommand::Show(show) if show.content => {
            print_octets(tool, &path::fill(path::BADMAIL_CONTENT, &[&show.id])).await
        }
        BadmailCommand::Show(show) => {
            let path = path::fill(path::BADMAIL_MESSAGE, &[&show.id]);
            let message: BadmailMessage = tool.daemon().await?.get(&path).await?;
            tool.print_object(message, for_people)?;
            Ok(0)
        }
        BadmailCommand::Requeue(requeue) => put_back(tool, requeue, server.as_deref()).await,
        BadmailCommand::Purge(purge) => {
            let deed = deed(path::BADMAIL_PURGE, "purge", "removed");
            let selector = purge.selection.selector(server.as_deref())?;
            let body = |selector, if_exists| Change {
                selector,
                reason: None,
                if_exists,
                ..Change::default()
            };
            change::<BadmailEntry, _>(tool, &deed, &purge.options, selector, body).await
        }
    }
}

/// The chosen messages, all of them in memory: Badmail is bounded.
async fn chosen(tool: &mut Tool, selector: Selector) -> Result<Vec<BadmailEntry>, Problem> {
    let mut found = Vec::new();
    for part in parts(selector, LISTED_MAX) {
        let take = |row: BadmailEntry| {
            found.push(row);
            Ok(true)
        };
        tool.daemon().await?.lines(&with_query(path::BADMAIL, &part), take).await?;
    }
    Ok(found)
}

/// Messages that are in Badmail for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Stats {
    reason: String,
    messages: u64,
    /// Octets of all messages together.
    size: u64,
    oldest: Timestamp,
    newest: Timestamp,
}

async fn stats(tool: &mut Tool, selector: Selector) -> Result<u8, Problem> {
    let found = chosen(tool, selector).await?;
    tool.print_rows(count(&found))?;
    Ok(0)
}

/// The most messages first, then by reason.
fn count(entries: &[BadmailEntry]) -> Vec<Stats> {
    let mut groups: BTreeMap<&str, Stats> = BTreeMap::new();
    for entry in entries {
        let group = groups.entry(&entry.reason).or_insert_with(|| Stats {
            reason: entry.reason.clone(),
            messages: 0,
            size: 0,
            oldest: entry.at,
            newest: entry.at,
        });
        group.messages += 1;
        group.size += entry.size;
        group.oldest = group.oldest.min(entry.at);
        group.newest = group.newest.max(entry.at);
    }
    let mut stats: Vec<_> = groups.into_values().collect();
    stats.sort_by_key(|group| std::cmp::Reverse(group.messages));
    stats
}

async fn export(tool: &mut Tool, args: Export, server: Option<&str>) -> Result<u8, Problem> {
    let selector = args.selection.selector(server)?;
    if selector.is_empty() || args.options.dry_run {
        let deed = Deed { is_final: false, ..deed(path::BADMAIL, "export", "exported") };
        let body =
            |selector, if_exists| Change { selector, reason: None, if_exists, ..Change::default() };
        return change::<BadmailEntry, _>(tool, &deed, &args.options, selector, body).await;
    }
    let found = chosen(tool, selector).await?;
    if found.is_empty() {
        return Err(Problem::new("message", Kind::NotFound, "no message matches"));
    }
    let mut changed = Changed::default();
    let directory = export::Target::directory(&args.dir)?;
    for entry in found {
        let mut octets = front(&entry).into_bytes();
        let take = |piece: &[u8]| {
            octets.extend_from_slice(piece);
            Ok(())
        };
        let content = path::fill(path::BADMAIL_CONTENT, &[&entry.id]);
        let read = tool.daemon().await?.octets(&content, take).await;
        match read.and_then(|()| directory.write_file(&format!("{}.eml", entry.id), &octets)) {
            Ok(()) => changed.add(&entry.id, octets.len() as u64),
            Err(problem) => changed.add_failure(&entry.id, &problem),
        }
    }
    directory.finish()?;
    export::report(tool, &changed, "exported", false)
}

/// The fields that tell a Pickup directory the envelope, if it is known.
fn front(entry: &BadmailEntry) -> String {
    let Some(from) = &entry.from else { return String::new() };
    let mut text = format!("X-Sender: {}\r\n", if from.is_empty() { "<>" } else { from });
    for to in &entry.to {
        text.push_str(&format!("X-Receiver: {to}\r\n"));
    }
    text.push_str(&format!("X-Mailroot-Previous-Id: {}\r\n", entry.id));
    text
}

async fn put_back(tool: &mut Tool, args: Requeue, server: Option<&str>) -> Result<u8, Problem> {
    let deed = deed(path::BADMAIL_REQUEUE, "requeue", "put back into the queue");
    let selector = MessageSelection::of_ids(args.ids).selector(server)?;
    let from = args.from.map(|from| if from == "<>" { String::new() } else { from });
    let to = args.to;
    let body = |selector, if_exists| Body {
        change: Change { selector, reason: None, if_exists, ..Change::default() },
        to: to.clone(),
        from: from.clone(),
    };
    change::<BadmailEntry, _>(tool, &deed, &args.options, selector, body).await
}

fn deed(path: &str, verb: &'static str, done: &'static str) -> Deed {
    Deed { list: path::BADMAIL, path: path.to_owned(), verb, done, noun: "message", is_final: true }
}

pub(crate) fn for_people(message: &BadmailMessage) -> String {
    let entry = &message.entry;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let done = writeln!(text, "{name:<10}  {}", escape(value));
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    };
    line("id", &format!("{} (server {})", entry.id, entry.server));
    line("file", &format!("{} ({})", message.file, human_size(entry.size)));
    line("since", &entry.at.to_string());
    line("reason", &format!("{}: {}", entry.reason, entry.detail));
    if let Some(source) = &message.source {
        line("source", source);
    }
    match entry.from.as_deref() {
        Some("") => line("from", "<>"),
        Some(from) => line("from", from),
        None => {}
    }
    for to in &entry.to {
        line("to", to);
    }
    if !message.report.is_empty() {
        text.push('\n');
        for report_line in message.report.lines() {
            text.push_str(&escape(report_line.trim_end()));
            text.push('\n');
        }
    }
    text
}

impl Row for BadmailEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(&*it.id)),
        Column::always("age", |it| Cell::Ago(it.at)),
        Column::always("from", |it| match it.from.as_deref() {
            Some("") => Cell::text("<>"),
            from => Cell::maybe(from),
        }),
        Column::always("to", |it| Cell::Text(it.to.join(","))),
        Column::always("reason", |it| Cell::text(&*it.reason)),
        Column::always("detail", |it| Cell::text(&*it.detail)),
        Column::wide("size", |it| Cell::Size(it.size)),
        Column::wide("server", |it| Cell::text(&*it.server)),
    ];

    fn id(&self) -> String {
        self.id.clone()
    }
}

impl Row for Stats {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("reason", |it| Cell::text(&*it.reason)),
        Column::always("messages", |it| Cell::Count(it.messages)),
        Column::always("size", |it| Cell::Size(it.size)),
        Column::always("oldest", |it| Cell::Ago(it.oldest)),
        Column::always("newest", |it| Cell::Ago(it.newest)),
    ];

    fn id(&self) -> String {
        self.reason.clone()
    }
}

impl Row for BadmailMessage {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(&*it.entry.id)),
        Column::always("age", |it| Cell::Ago(it.entry.at)),
        Column::always("file", |it| Cell::text(&*it.file)),
        Column::always("reason", |it| Cell::text(&*it.entry.reason)),
        Column::always("detail", |it| Cell::text(&*it.entry.detail)),
        Column::wide("source", |it| Cell::maybe(it.source.as_deref())),
        Column::wide("size", |it| Cell::Size(it.entry.size)),
        Column::wide("server", |it| Cell::text(&*it.entry.server)),
    ];

    fn id(&self) -> String {
        self.entry.id.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reason: &str, at: &str, from: Option<&str>) -> BadmailEntry {
        serde_json::from_value(serde_json::json!({
            "id": "6FZK5D3VYE2S", "server": "default", "at": at, "size": 1000, "from": from,
            "to": ["a@x.example"], "reason": reason, "detail": "x",
        }))
        .unwrap()
    }

    #[test]
    fn messages_are_counted_by_their_reason_and_the_most_come_first() {
        let found = [
            entry("hop-count", "2026-11-24T09:00:00Z", Some("")),
            entry("ndr-of-dsn", "2026-11-24T10:00:00Z", Some("")),
            entry("ndr-of-dsn", "2026-11-24T08:00:00Z", Some("")),
        ];
        let stats = count(&found);
        assert_eq!(
            (stats[0].reason.as_str(), stats[0].messages, stats[0].size),
            ("ndr-of-dsn", 2, 2000)
        );
        assert_eq!(stats[0].oldest, Timestamp::parse("2026-11-24T08:00:00Z").unwrap());
        assert_eq!(stats[1].messages, 1);
    }

    #[test]
    fn an_unknown_envelope_is_left_to_the_header() {
        assert_eq!(front(&entry("x", "2026-11-24T09:00:00Z", None)), "");
        let known = front(&entry("x", "2026-11-24T09:00:00Z", Some("")));
        assert!(known.starts_with("X-Sender: <>\r\nX-Receiver: a@x.example\r\n"), "{known}");
    }
}
