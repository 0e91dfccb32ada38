//! `operator`: who may give orders, about the service or about one virtual server.

use clap::Subcommand;
use mailroot_common::control::{KeyEdit, OperatorEntry, Problem, path};

use crate::output::{Cell, Column, Row};
use crate::server::change::edit_keys;
use crate::terms::TermOptions;
use crate::tool::Tool;

/// The verbs of `operator`.
#[derive(Debug, Subcommand)]
pub(crate) enum OperatorCommand {
    /// List them, or with -s those of one virtual server.
    #[command(visible_alias = "ls")]
    List,
    /// Let people give orders; with -s, about one virtual server only.
    Add(Add),
    /// Let them give orders no more.
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// Users, and groups with a leading %.
    #[arg(value_name = "USER", required = true)]
    people: Vec<String>,
    /// viewer sees everything but messages, operator reads these and acts on queues and sessions, admin
    /// changes the configuration.
    #[arg(long, value_name = "ROLE", value_parser = ["viewer", "operator", "admin"])]
    #[arg(default_value = "operator", hide_possible_values = true)]
    role: String,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// Users, and groups with a leading %.
    #[arg(value_name = "USER", required = true)]
    people: Vec<String>,
    /// Be content if they are not there.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    terms: TermOptions,
}

impl Row for OperatorEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("who", |it| Cell::text(&*it.who)),
        Column::always("role", |it| Cell::text(&*it.role)),
        Column::always("server", |it| Cell::text(it.server.as_deref().unwrap_or("all"))),
        Column::wide("may", |it| Cell::text(may(&it.role))),
    ];

    fn id(&self) -> String {
        self.who.clone()
    }
}

/// What a role may do, in a few words.
fn may(role: &str) -> &'static str {
    match role {
        "viewer" => "see status, queues, sessions and the trace, but no message",
        "operator" => "see messages, act on queues and sessions, start and stop",
        _ => "also change the configuration",
    }
}

pub(crate) async fn run(tool: &mut Tool, command: OperatorCommand) -> Result<u8, Problem> {
    match command {
        OperatorCommand::List => {
            let mut all = read(tool).await?;
            if let Some(server) = &tool.global.server {
                all.retain(|entry| entry.server.as_ref() == Some(server));
            }
            tool.print_rows(all)?;
            Ok(0)
        }
        OperatorCommand::Add(args) => add(tool, &args).await,
        OperatorCommand::Remove(args) => remove(tool, args).await,
    }
}

async fn read(tool: &mut Tool) -> Result<Vec<OperatorEntry>, Problem> {
    tool.daemon().await?.get(path::OPERATORS).await
}

/// The entries of the list that the line means.
async fn of_list(tool: &mut Tool) -> Result<Vec<OperatorEntry>, Problem> {
    let mut all = read(tool).await?;
    all.retain(|entry| entry.server == tool.global.server);
    Ok(all)
}

/// The path whose keys are changed, and the key.
fn place(tool: &Tool) -> (String, &'static str) {
    match &tool.global.server {
        Some(server) => (path::fill(path::SERVER, &[server]), "security.operators"),
        None => (path::CONFIG.to_owned(), "control.operators"),
    }
}

async fn add(tool: &mut Tool, args: &Add) -> Result<u8, Problem> {
    let there = of_list(tool).await?;
    let (path, key) = place(tool);
    let mut edits = Vec::new();
    for who in &args.people {
        let old = there.iter().find(|entry| entry.who == *who);
        if old.is_some_and(|entry| entry.role == args.role) {
            continue;
        }
        if old.is_some() {
            edits.push(KeyEdit::Remove { key: key.to_owned(), item: who.clone() });
        }
        let item = format!("{{who: {who:?}, role: {}}}", args.role);
        edits.push(KeyEdit::Add { key: key.to_owned(), item });
    }
    edit_keys(tool, &path, edits, &args.terms).await
}

async fn remove(tool: &mut Tool, args: Remove) -> Result<u8, Problem> {
    let there = of_list(tool).await?;
    let (path, key) = place(tool);
    let mut people = args.people;
    if args.if_exists {
        people.retain(|who| there.iter().any(|entry| entry.who == *who));
    }
    let edit = |item: String| KeyEdit::Remove { key: key.to_owned(), item };
    let edits = people.into_iter().map(edit).collect();
    edit_keys(tool, &path, edits, &args.terms).await
}
