//! `session`: SMTP sessions, in both directions.

use std::fmt::Write as _;

use clap::Subcommand;
use mailroot_common::control::{Change, Kind, Problem, Selector, Session, path};

use crate::change::{ChangeOptions, Deed, change, with_query};
use crate::dialogue::follow;
use crate::listing::list;
use crate::output::{Cell, Column, Row, Shape, escape, human_size};
use crate::select::SessionSelection;
use crate::tool::Tool;

/// The verbs of `session`.
#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List the sessions.
    #[command(visible_alias = "ls")]
    List(SessionSelection),
    /// Show one session.
    Show(Show),
    /// Follow what is said in sessions, those that come included.
    Watch(Watch),
    /// End sessions. No accepted message is lost.
    Kill(Kill),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The session's id, or its beginning.
    #[arg(value_name = "ID")]
    id: String,
    /// Follow what is said in it until it ends: secrets left out, messages counted.
    #[arg(long, help_heading = "Options")]
    dialogue: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// The other side's address or network.
    #[arg(long, value_name = "CIDR", help_heading = "Selector")]
    client: Option<String>,
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
            list::<Session>(tool, path::SESSIONS, selector, None).await
        }
        SessionCommand::Show(show) => {
            let selector = Selector { server, ..Selector::id(show.id.clone()) };
            selector
                .compile()
                .map_err(|error| Problem::new("selector", Kind::Usage, error.to_string()))?;
            let mut found = None;
            let take = |row: Session| {
                found = Some(row);
                Ok(true)
            };
            let path = with_query(path::SESSIONS, &selector);
            tool.daemon().await?.lines(&path, take).await?;
            let session = found.ok_or_else(|| {
                let detail = format!("there is no session {}", show.id);
                Problem::new("session", Kind::NotFound, detail)
                    .hint("it has ended; the log tells how")
            })?;
            if show.dialogue {
                return follow(tool, &Selector::id(session.id.to_string()), Some(&session)).await;
            }
            let shape = &tool.shape;
            tool.print_object(session, |session| for_people(session, shape))?;
            Ok(0)
        }
        SessionCommand::Watch(Watch { client }) => {
            let selector = Selector { server, client, ..Selector::default() };
            let compiled = selector.compile();
            compiled.map_err(|error| Problem::new("selector", Kind::Usage, error.to_string()))?;
            follow(tool, &selector, None).await
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
            let body = |selector, if_exists| Change {
                selector,
                reason: reason.clone(),
                if_exists,
                ..Change::default()
            };
            change::<Session, _>(tool, &deed, &kill.options, selector, body).await
        }
    }
}

pub(crate) fn for_people(session: &Session, shape: &Shape) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let done = writeln!(text, "{name:<10}  {}", escape(value));
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    };
    line("id", &format!("{} (server {})", session.id, session.server));
    line("direction", &session.direction.to_string());
    line("peer", &session.peer);
    for (name, value) in
        [("name", &session.name), ("user", &session.user), ("cert", &session.certificate)]
    {
        if let Some(value) = value {
            line(name, value);
        }
    }
    line("state", &session.state);
    line("messages", &format!("{} ({})", session.messages, human_size(session.bytes)));
    let age = Cell::Ago(session.since).for_people(shape.now, shape.time, shape.utc);
    line("since", &format!("{} ({age} ago)", session.since));
    text
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
        Column::always("tls", |it| Cell::maybe(it.tls.as_deref())),
        Column::always("msgs", |it| Cell::Count(it.messages)),
        Column::always("bytes", |it| Cell::Size(it.bytes)),
        Column::always("age", |it| Cell::Ago(it.since)),
        Column::wide("limit", |it| match (&it.limit, it.limit_used) {
            (Some(limit), Some(used)) => Cell::text(limit.words(used)),
            _ => Cell::Nothing,
        }),
        Column::asked("certificate", |it| Cell::maybe(it.certificate.as_deref())),
        Column::asked("address", |it| Cell::text(&*it.peer)),
        Column::asked("name", |it| Cell::maybe(it.name.as_deref())),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }
}
