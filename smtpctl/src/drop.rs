//! `drop`: messages that lie in Drop.

use std::fmt::Write as _;

use clap::Subcommand;
use mailroot_common::control::{Change, DropEntry, Problem, path};

use crate::change::{ChangeOptions, Deed, change};
use crate::listing::list;
use crate::output::{Cell, Column, Row, escape, human_size};
use crate::queue::print_octets;
use crate::select::MessageSelection;
use crate::tool::Tool;

/// The verbs of `drop`.
#[derive(Debug, Subcommand)]
pub(crate) enum DropCommand {
    /// List messages.
    #[command(visible_alias = "ls")]
    List(MessageSelection),
    /// Show one message.
    Show(Show),
    /// Delete messages.
    Purge(Purge),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The message's id, or its beginning.
    #[arg(value_name = "ID")]
    id: String,
    /// Print its octets instead. Is logged.
    #[arg(long)]
    content: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    selection: MessageSelection,
    #[command(flatten)]
    options: ChangeOptions,
}

pub(crate) async fn run(tool: &mut Tool, command: DropCommand) -> Result<u8, Problem> {
    let server = tool.global.server.clone();
    match command {
        DropCommand::List(selection) => {
            let selector = selection.selector(server.as_deref())?;
            list::<DropEntry>(tool, path::DROP, selector, None).await
        }
        DropCommand::Show(show) if show.content => {
            print_octets(tool, &path::fill(path::DROP_CONTENT, &[&show.id])).await
        }
        DropCommand::Show(show) => {
            let path = path::fill(path::DROP_MESSAGE, &[&show.id]);
            let entry: DropEntry = tool.daemon().await?.get(&path).await?;
            tool.print_object(entry, for_people)?;
            Ok(0)
        }
        DropCommand::Purge(purge) => {
            let deed = Deed {
                list: path::DROP,
                path: path::DROP_PURGE.to_owned(),
                verb: "purge",
                done: "removed",
                noun: "message",
                is_final: true,
            };
            let selector = purge.selection.selector(server.as_deref())?;
            let body = |selector, if_exists| Change {
                selector,
                reason: None,
                if_exists,
                ..Change::default()
            };
            change::<DropEntry, _>(tool, &deed, &purge.options, selector, body).await
        }
    }
}

fn for_people(entry: &DropEntry) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let done = writeln!(text, "{name:<10}  {}", escape(value));
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    };
    line("id", &format!("{} (server {})", entry.id, entry.server));
    line("file", &format!("{} ({})", entry.file, human_size(entry.size)));
    line("since", &entry.at.to_string());
    match entry.from.as_deref() {
        Some("") => line("from", "<>"),
        Some(from) => line("from", from),
        None => {}
    }
    entry.to.iter().for_each(|to| line("to", to));
    text
}

impl Row for DropEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(&*it.id)),
        Column::always("age", |it| Cell::Ago(it.at)),
        Column::always("size", |it| Cell::Size(it.size)),
        Column::always("from", |it| match it.from.as_deref() {
            Some("") => Cell::text("<>"),
            from => Cell::maybe(from),
        }),
        Column::always("to", |it| Cell::Text(it.to.join(","))),
        Column::wide("server", |it| Cell::text(&*it.server)),
        Column::wide("file", |it| Cell::text(&*it.file)),
    ];

    fn id(&self) -> String {
        self.id.clone()
    }
}
