//! The history of the configuration: listed, compared, gone back to; trials and the lock.

use std::io::Write as _;

use mailroot_common::control::{ConfigDiff, Edited, Problem, Revision, Seal, path};

use crate::client::WAIT;
use crate::io_problem;
use crate::output::{Cell, Column, Row, escape};
use crate::terms::{TermOptions, report};
use crate::tool::{Tool, stdout};

#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// The revision to compare with [default: the one in force].
    #[arg(value_name = "REV")]
    from: Option<u64>,
    /// The other revision [default: the files as they lie there].
    #[arg(value_name = "REV")]
    to: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rollback {
    /// The revision to go back to; 0 means the one before the newest.
    #[arg(value_name = "REV")]
    revision: u64,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Lock {
    /// The words that people are told.
    #[arg(value_name = "REASON")]
    reason: String,
}

impl Row for Revision {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("rev", |it| Cell::Count(it.revision)),
        Column::always("when", |it| Cell::Ago(it.at)),
        Column::always("who", |it| Cell::text(&*it.who)),
        Column::always("how", |it| Cell::text(&*it.how)),
        Column::always("change", |it| Cell::text(it.changes.join("; "))),
        Column::always("message", |it| Cell::maybe(it.message.as_deref())),
    ];

    fn id(&self) -> String {
        self.revision.to_string()
    }
}

pub(crate) async fn list(tool: &mut Tool) -> Result<u8, Problem> {
    let limit = tool.shape.limit.map(|limit| format!("?limit={limit}")).unwrap_or_default();
    let path = format!("{}{limit}", path::CONFIG_HISTORY);
    let revisions: Vec<Revision> = tool.daemon().await?.get(&path).await?;
    tool.print_rows(revisions)?;
    Ok(0)
}

pub(crate) async fn diff(tool: &mut Tool, args: &Diff) -> Result<u8, Problem> {
    let pair = |name: &str, revision: Option<u64>| revision.map(|it| format!("{name}={it}"));
    let query: Vec<String> =
        [pair("from", args.from), pair("to", args.to)].into_iter().flatten().collect();
    let path = format!("{}?{}", path::CONFIG_DIFF, query.join("&"));
    let found: ConfigDiff = tool.daemon().await?.get(&path).await?;
    if tool.print_data(&found)? {
        return Ok(0);
    }
    let text: String = found.diff.lines().map(|line| escape(line) + "\n").collect();
    stdout().write_all(text.as_bytes()).map_err(io_problem)?;
    Ok(0)
}

pub(crate) async fn roll_back(tool: &mut Tool, args: &Rollback) -> Result<u8, Problem> {
    let revision = match args.revision {
        0 => before_newest(tool).await?,
        revision => revision,
    };
    let path = path::fill(path::CONFIG_ROLLBACK, &[&revision.to_string()]);
    let body = serde_json::json!({});
    let edited: Edited = tool.daemon().await?.post(&args.terms.on(&path)?, &body, WAIT).await?;
    report(tool, &edited)
}

async fn before_newest(tool: &mut Tool) -> Result<u64, Problem> {
    let path = format!("{}?limit=2", path::CONFIG_HISTORY);
    let revisions: Vec<Revision> = tool.daemon().await?.get(&path).await?;
    revisions.get(1).map(|it| it.revision).ok_or_else(|| {
        let detail = "there is no revision before the newest";
        Problem::new("config", mailroot_common::control::Kind::NotFound, detail)
    })
}

pub(crate) async fn confirm(tool: &mut Tool) -> Result<u8, Problem> {
    let body = serde_json::json!({});
    let edited: Edited = tool.daemon().await?.post(path::CONFIG_CONFIRM, &body, WAIT).await?;
    tool.say_done(&edited, &format!("revision {} is here to stay", edited.revision))?;
    Ok(0)
}

pub(crate) async fn lock(tool: &mut Tool, args: &Lock) -> Result<u8, Problem> {
    let body = Seal { reason: Some(args.reason.clone()) };
    let seal: Seal = tool.daemon().await?.put(path::CONFIG_LOCK, &body).await?;
    tool.say_done(&seal, "locked; edits by smtpctl are refused with this text")?;
    Ok(0)
}

pub(crate) async fn unlock(tool: &mut Tool) -> Result<u8, Problem> {
    let seal: Seal = tool.daemon().await?.put(path::CONFIG_LOCK, &Seal::default()).await?;
    tool.say_done(&seal, "unlocked")?;
    Ok(0)
}
