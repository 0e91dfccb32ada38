//! `session`: SMTP sessions, in both directions.

use clap::Subcommand;
use mailroot_common::control::{Change, Problem, Session, path};

use crate::change::{ChangeOptions, Deed, change, with_query};
use crate::io_problem;
use crate::output::{Cell, Column, List, Row};
use crate::select::SessionSelection;
use crate::tool::{Tool, stdout};

/// The verbs of `session`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List the sessions.
    #[command(visible_alias = "ls")]
    List(SessionSelection),
    /// End sessions. No accepted message is lost.
    Kill(Kill),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Kill {
    #[command(flatten)]
    selection: SessionSelection,
    #[command(flatten)]
    options: ChangeOptions,
    /// Why, for the log.
    #[arg(long, value_name = "TEXT", help_heading = "Options")]
    reason: Option<String>,
}

pub(crate) async fn run(tool: &mut Tool, command: SessionCommand) -> Result<u8, Problem> {
    let server = tool.global.server.clone();
    match command {
        SessionCommand::List(selection) => {
            let selector = selection.selector(server.as_deref())?;
            let shape = tool.shape.clone();
            let mut out = stdout();
            let mut list = List::begin(&shape, &mut out)?;
            let path = with_query(path::SESSIONS, &selector);
            let take = |row: Session| {
                list.push(row).map_err(io_problem)?;
                Ok(!list.is_full())
            };
            tool.daemon().await?.lines(&path, take).await?;
            list.finish().map_err(io_problem)?;
            Ok(0)
        }
        SessionCommand::Kill(kill) => {
            let deed = Deed {
                list: path::SESSIONS,
                path: path::SESSIONS_KILL.to_owned(),
                verb: "close",
                done: "closed",
                noun: "session",
                is_final: true,
            };
            let selector = kill.selection.selector(server.as_deref())?;
            let reason = kill.reason;
            let body = |selector, if_exists| Change { selector, reason: reason.clone(), if_exists };
            change::<Session, _>(tool, &deed, &kill.options, selector, body).await
        }
    }
}

impl Row for Session {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(it.id.to_string())),
        Column::always("server", |it| Cell::text(&*it.server)),
        Column::always("dir", |it| Cell::text(it.direction.to_string())),
        Column::always("peer", |it| match &it.name {
            Some(name) => Cell::text(format!("{name} [{}]", it.peer)),
            None => Cell::text(&*it.peer),
        }),
        Column::always("user", |it| Cell::maybe(it.user.as_deref())),
        Column::always("state", |it| Cell::text(&*it.state)),
        Column::always("msgs", |it| Cell::Count(it.messages)),
        Column::always("bytes", |it| Cell::Size(it.bytes)),
        Column::always("age", |it| Cell::Ago(it.since)),
        Column::asked("address", |it| Cell::text(&*it.peer)),
        Column::asked("name", |it| Cell::maybe(it.name.as_deref())),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }
}
