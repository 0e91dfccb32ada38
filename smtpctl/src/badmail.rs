//! `badmail`: messages that could be neither delivered nor returned.

use std::fmt::Write as _;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    BadmailEntry, BadmailMessage, Change, Problem, Requeue as Body, path,
};

use crate::change::{ChangeOptions, Deed, LISTED_MAX, change, parts, with_query};
use crate::complete;
use crate::io_problem;
use crate::output::{Cell, Column, List, Row, escape, human_size};
use crate::queue::print_octets;
use crate::select::MessageSelection;
use crate::tool::{Tool, stdout};

/// The verbs of `badmail`.
#[derive(Debug, Subcommand)]
pub(crate) enum BadmailCommand {
    /// List messages.
    #[command(visible_alias = "ls")]
    List(MessageSelection),
    /// Show one message: why it is there, and what to do.
    Show(Show),
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
            let shape = tool.shape.clone();
            let mut out = stdout();
            let mut list = List::begin(&shape, &mut out)?;
            for part in parts(selector, LISTED_MAX) {
                let take = |row: BadmailEntry| {
                    list.push(row).map_err(io_problem)?;
                    Ok(!list.is_full())
                };
                let path = with_query(path::BADMAIL, &part);
                tool.daemon().await?.lines(&path, take).await?;
            }
            list.finish().map_err(io_problem)?;
            Ok(0)
        }
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
            let body = |selector, if_exists| Change { selector, reason: None, if_exists };
            change::<BadmailEntry, _>(tool, &deed, &purge.options, selector, body).await
        }
    }
}

async fn put_back(tool: &mut Tool, args: Requeue, server: Option<&str>) -> Result<u8, Problem> {
    let deed = deed(path::BADMAIL_REQUEUE, "requeue", "put back into the queue");
    let selector = MessageSelection::of_ids(args.ids).selector(server)?;
    let from = args.from.map(|from| if from == "<>" { String::new() } else { from });
    let to = args.to;
    let body = |selector, if_exists| Body {
        change: Change { selector, reason: None, if_exists },
        to: to.clone(),
        from: from.clone(),
    };
    change::<BadmailEntry, _>(tool, &deed, &args.options, selector, body).await
}

fn deed(path: &str, verb: &'static str, done: &'static str) -> Deed {
    Deed { list: path::BADMAIL, path: path.to_owned(), verb, done, noun: "message", is_final: true }
}

fn for_people(message: &BadmailMessage) -> String {
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
