//! `pickup`: files that wait in Pickup, and what would become of one.

use std::fmt::Write as _;
use std::io::Read;

use clap::Subcommand;
use mailroot_common::control::{Kind, PickupCheck, PickupEntry, Problem, path};
use mailroot_common::message::import::Rules;

use crate::files;
use crate::output::{Cell, Column, Form, Row, escape};
use crate::tool::{Tool, stdout};

/// The verbs of `pickup`.
#[derive(Debug, Subcommand)]
pub(crate) enum PickupCommand {
    /// List files that wait, or are left where they are.
    #[command(visible_alias = "ls")]
    List,
    /// Say what would become of files: sender, recipients, routes. Nothing is sent.
    Check(Check),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The files; - for standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

pub(crate) async fn run(tool: &mut Tool, command: PickupCommand) -> Result<u8, Problem> {
    match command {
        PickupCommand::List => {
            let mut files: Vec<PickupEntry> = tool.daemon().await?.get(path::PICKUP).await?;
            if let Some(name) = &tool.global.server {
                files.retain(|file| file.server == *name);
            }
            tool.print_rows(files)?;
            Ok(0)
        }
        PickupCommand::Check(args) => check(tool, &args).await,
    }
}

async fn check(tool: &mut Tool, args: &Check) -> Result<u8, Problem> {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    let alone = match tool.daemon().await {
        Ok(_) => None,
        Err(problem) if problem.kind() == Kind::Unavailable => Some(rules(tool, &problem)?),
        Err(problem) => return Err(problem),
    };
    for file in &args.files {
        let checked = match &alone {
            Some(rules) => check_here(file, rules),
            None => check_one(tool, file).await,
        };
        match checked {
            Ok(checked) => good.push(checked),
            Err(problem) if problem.code.starts_with("daemon.") => return Err(problem),
            Err(problem) => bad.push(format!("{file}: {}", problem.detail)),
        }
    }
    if !tool.print_data(&good)? {
        if matches!(tool.shape.form, Form::Table) {
            let text: String = good.iter().map(for_people).collect();
            let mut out = stdout();
            std::io::Write::write_all(&mut out, text.as_bytes()).map_err(crate::io_problem)?;
        } else {
            tool.print_rows(good)?;
        }
    }
    if bad.is_empty() {
        return Ok(0);
    }
    let detail = "Pickup would not send all of them";
    Err(Problem::new("pickup", Kind::Found, detail).items(bad))
}

/// The rules of a virtual server as its file has them, where the daemon cannot be asked.
fn rules(tool: &Tool, why: &Problem) -> Result<Rules, Problem> {
    let (config, file) = files::server(tool.global.home.as_deref(), tool.server())?;
    let by = match file {
        Some(file) => format!("by {}", file.display()),
        None => "by the defaults".to_owned(),
    };
    tool.note(&escape(&format!("{}; checked here {by}, without routes", why.detail)));
    Ok(Rules::of(&config))
}

fn check_here(file: &str, rules: &Rules) -> Result<PickupCheck, Problem> {
    let checked = rules.check(file, &read(file)?);
    checked.map_err(|bad| Problem::new("pickup", Kind::Found, bad.to_string()))
}

fn read(file: &str) -> Result<Vec<u8>, Problem> {
    let read = if file == "-" {
        let mut octets = Vec::new();
        std::io::stdin().read_to_end(&mut octets).map(|_| octets)
    } else {
        std::fs::read(file)
    };
    read.map_err(|error| Problem::new("file", Kind::Failed, format!("cannot read it: {error}")))
}

async fn check_one(tool: &mut Tool, file: &str) -> Result<PickupCheck, Problem> {
    let octets = read(file)?;
    let mut query = format!("{}?name=", path::PICKUP_CHECK);
    path::encode(file, &mut query);
    if let Some(server) = &tool.global.server {
        query.push_str("&server=");
        path::encode(server, &mut query);
    }
    tool.daemon().await?.post_octets(&query, octets).await
}

fn for_people(checked: &PickupCheck) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let done = writeln!(text, "  {name:<10}  {}", escape(value));
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    };
    let from = checked.from.to_string();
    line("from", if from.is_empty() { "<>" } else { &from });
    for to in &checked.to {
        let route = to.route.as_ref().map(|route| format!("  by {route}")).unwrap_or_default();
        line("to", &format!("{}{route}", to.address));
    }
    line("envelope", &format!("from {}", checked.envelope));
    checked.notes.iter().for_each(|note| line("note", note));
    format!("{}  ok\n{text}", escape(&checked.name))
}

impl Row for PickupEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("server", |it| Cell::text(&*it.server)),
        Column::always("size", |it| Cell::Size(it.size)),
        Column::always("uid", |it| Cell::Count(it.uid.into())),
        Column::always("age", |it| Cell::Ago(it.at)),
        Column::always("state", |it| Cell::text(&*it.state)),
        Column::always("reason", |it| Cell::maybe(it.reason.as_deref())),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}

impl Row for PickupCheck {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("from", |it| Cell::text(it.from.to_string())),
        Column::always("to", |it| {
            let to: Vec<_> = it.to.iter().map(|to| to.address.to_string()).collect();
            Cell::Text(to.join(","))
        }),
        Column::always("notes", |it| Cell::Text(it.notes.join("; "))),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}
