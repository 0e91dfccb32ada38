//! `stats`: what was sent, deferred and given up, and how long it took; counted from the trace.

mod iis;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use mailroot_common::control::{Kind, Problem, Stats, StatsBy, path};
use mailroot_common::units::Span;

use crate::output::{Cell, Column, Row};
use crate::tool::Tool;

/// The arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatsArgs {
    /// How far back to count.
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    since: String,
    /// What recipients are counted by.
    #[arg(long, value_name = "WHAT", default_value = "server")]
    #[arg(value_parser = PossibleValuesParser::new(StatsBy::ALL.map(StatsBy::as_str))
        .try_map(|word| word.parse::<StatsBy>()))]
    by: StatsBy,
    /// What was counted since the daemon started, and what waits, under the original's names.
    #[arg(long, conflicts_with_all = ["since", "by"])]
    iis_names: bool,
}

pub(crate) async fn run(tool: &mut Tool, args: &StatsArgs) -> Result<u8, Problem> {
    if args.iis_names {
        return iis::run(tool).await;
    }
    Span::parse(&args.since).map_err(|error| {
        Problem::new("stats", Kind::Usage, format!("--since: {error}"))
            .hint("a span is a number with s, m, h or d, such as 1d")
    })?;
    let path = with_terms(&args.since, args.by, tool.global.server.as_deref());
    let stats: Vec<Stats> = tool.daemon().await?.get(&path).await?;
    tool.print_rows(stats)?;
    Ok(0)
}

/// The path of what was sent within a span.
pub(crate) fn with_terms(since: &str, by: StatsBy, server: Option<&str>) -> String {
    let mut path = format!("{}?by={by}&since=", path::STATS);
    path::encode(since, &mut path);
    if let Some(server) = server {
        path.push_str("&server=");
        path::encode(server, &mut path);
    }
    path
}

impl Row for Stats {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("group", |it| Cell::text(&*it.group)),
        Column::always("sent", |it| Cell::Count(it.sent)),
        Column::always("deferred", |it| Cell::Count(it.deferred)),
        Column::always("failed", |it| Cell::Count(it.failed)),
        Column::always("bytes", |it| Cell::Size(it.bytes)),
        Column::always("p50", |it| it.p50.map_or(Cell::Nothing, Cell::Lasting)),
        Column::always("p95", |it| it.p95.map_or(Cell::Nothing, Cell::Lasting)),
        Column::wide("p99", |it| it.p99.map_or(Cell::Nothing, Cell::Lasting)),
    ];

    fn id(&self) -> String {
        self.group.clone()
    }
}
