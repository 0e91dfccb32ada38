//! `logs`: what the daemon tells, read where it is written; and how much it tells.
//!
//! The daemon says where that is. While it does not run, its configuration does.

mod entry;
mod postfix;
mod source;

use std::io::Write as _;

use clap::Subcommand;
use mailroot_common::config::logging::{Addresses, Target};
use mailroot_common::control::{
    Kind, LogState, LogTarget, LogWish, Matcher, Problem, Selector, path,
};
use mailroot_common::units::{Span, Timestamp};

use self::entry::{Entry, Importance, Newest};
use self::source::Source;
use crate::client::WAIT;
use crate::files;
use crate::io_problem;
use crate::output::{Cell, Column, Form, List, Row, Shape, escape};
use crate::select::LogSelection;
use crate::tool::{Tool, now, stdout};

/// How many lines are told to whoever does not say.
const LINES: usize = 1_000;
/// How many of those there are go before those to come.
const LINES_BEFORE: usize = 10;
/// The most that can be asked for: they are held in memory.
const LINES_MAX: usize = 1_000_000;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Logs {
    #[command(subcommand)]
    command: Option<LogsCommand>,
    #[command(flatten)]
    selection: LogSelection,
    /// Not older than this: a span such as 2h, or a moment such as 2026-12-01T08:00:00Z.
    #[arg(long, value_name = "SPAN|TIME", help_heading = "Selector")]
    since: Option<String>,
    /// This important or more.
    #[arg(long, value_name = "LEVEL", value_enum, default_value = "debug")]
    #[arg(hide_default_value = true, help_heading = "Selector")]
    level: Importance,
    /// Go on with lines as they come.
    #[arg(short, long, help_heading = "Options")]
    follow: bool,
    /// The newest N only; 1000 unless this says otherwise, or 10 with --follow.
    #[arg(long, value_name = "N", help_heading = "Options")]
    #[arg(value_parser = clap::value_parser!(u64).range(..=LINES_MAX as u64))]
    last: Option<u64>,
}

/// What can be done about the log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogsCommand {
    /// Say how much is told; with LEVEL, tell more for a while.
    Level(Level),
    /// Open the file of the log anew, after it was moved away.
    Reopen,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Level {
    /// error, warn, info or debug; or configured, for what logging.level says.
    #[arg(value_name = "LEVEL", value_parser = ["error", "warn", "info", "debug", "configured"])]
    #[arg(hide_possible_values = true)]
    level: Option<String>,
    /// How long, up to a day; 10m unless this says otherwise.
    #[arg(long = "for", value_name = "SPAN", requires = "level")]
    span: Option<Span>,
    /// Only lines about clients of this address or network.
    #[arg(long, value_name = "CIDR", requires = "level")]
    client: Option<String>,
}

impl Logs {
    /// Whether it shows lines, and ends.
    pub(crate) const fn shows(&self) -> bool {
        self.command.is_none() && !self.follow
    }
}

pub(crate) async fn run(tool: &mut Tool, logs: &Logs) -> Result<u8, Problem> {
    match &logs.command {
        None => show(tool, logs).await,
        Some(LogsCommand::Level(args)) => level(tool, args).await,
        Some(LogsCommand::Reopen) => {
            let state: LogState = tool.daemon().await?.post(path::LOG_REOPEN, &(), WAIT).await?;
            let file = state.file.as_deref().unwrap_or("nothing: the log is no file");
            tool.say_done(&state, &escape(&format!("opened anew: {file}")))?;
            Ok(0)
        }
    }
}

/// What is wanted of the log.
struct Wanted {
    matcher: Matcher,
    level: Importance,
    since: Option<Timestamp>,
    now: Timestamp,
}

impl Wanted {
    fn has(&self, entry: &Entry) -> bool {
        entry.level <= self.level && entry.suits(&self.matcher, self.now)
    }

    fn is_before(&self, entry: &Entry) -> bool {
        self.since.is_some_and(|since| entry.at.is_some_and(|at| at < since))
    }
}

async fn show(tool: &mut Tool, logs: &Logs) -> Result<u8, Problem> {
    let selector: Selector = logs.selection.selector(tool.global.server.as_deref())?;
    let usage = |detail: String| Problem::new("logs", Kind::Usage, detail);
    let matcher = selector.compile().map_err(|error| usage(error.to_string()))?;
    let since = logs.since.as_deref().map(|text| moment(text, tool.shape.now)).transpose();
    let since = since.map_err(|error| usage(format!("--since: {error}")))?;
    let wanted = Wanted { matcher, level: logs.level, since, now: tool.shape.now };
    let (source, addresses) = source(tool).await?;
    if addresses != Addresses::Full && logs.selection.names_people() {
        tool.note(&format!(
            "addresses in the log are {} (logging.addresses), which --from and --to look at; \
             smtpctl trace --to ADDRESS tells whose mail was which, and logs ID shows its lines",
            addresses.word()
        ));
    }
    let usual = if logs.follow { LINES_BEFORE } else { LINES };
    let usual = if since.is_some() { LINES_MAX } else { usual };
    let asked = logs.last.or(tool.shape.limit).and_then(|most| usize::try_from(most).ok());
    let most = asked.unwrap_or(usual).min(LINES_MAX);
    let mut newest = Newest::new(most);
    let mut look = |entry: Entry| {
        if wanted.is_before(&entry) {
            return false;
        }
        !wanted.has(&entry) || newest.put_older(entry)
    };
    let mark = source.newest_first(now(), &mut |entry| most > 0 && look(entry))?;
    let mut printer = Printer { follows: logs.follow, has_begun: false };
    printer.print(tool, newest.into_entries())?;
    if logs.follow {
        source.follow(mark, &mut |entry| {
            if wanted.has(&entry) {
                printer.print(tool, [entry])?;
            }
            Ok(true)
        })?;
    }
    Ok(0)
}

/// A moment, or as long ago as a span says.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(span) = Span::parse(text) {
        return Ok(Timestamp::from_millis(now.as_millis().saturating_sub(span.as_millis())));
    }
    Timestamp::parse(text).map_err(|error| error.to_string())
}

/// Prints lines: a list, or without an end piece by piece.
struct Printer {
    follows: bool,
    has_begun: bool,
}

impl Printer {
    fn print(
        &mut self,
        tool: &Tool,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<(), Problem> {
        let mut out = stdout();
        if tool.shape.form == Form::Table && tool.shape.columns.is_none() {
            for entry in entries {
                out.write_all(entry.for_people(&tool.shape).as_bytes()).map_err(io_problem)?;
            }
            return out.flush().map_err(io_problem);
        }
        let form = match &tool.shape.form {
            // An array would have to end.
            Form::Json if self.follows => Form::Jsonl,
            form => form.clone(),
        };
        let no_headers = tool.shape.no_headers || self.has_begun;
        let shape = Shape { form, no_headers, limit: None, ..tool.shape.clone() };
        let mut list = List::begin(&shape, &mut out)?;
        entries.into_iter().try_for_each(|entry| list.push(entry)).map_err(io_problem)?;
        list.finish().map_err(io_problem)?;
        self.has_begun = true;
        Ok(())
    }
}

/// Where the daemon writes, and what it shows of addresses, by its own word or by its configuration.
async fn source(tool: &mut Tool) -> Result<(Source, Addresses), Problem> {
    let asked = match tool.daemon().await {
        Ok(daemon) => daemon.get::<LogState>(path::LOG).await,
        Err(problem) => Err(problem),
    };
    let state = match asked {
        Ok(state) => state,
        Err(problem) if problem.kind() == Kind::Unavailable => return configured(tool, problem),
        Err(problem) => return Err(problem),
    };
    let is_meant = |it: &&Addresses| it.word() == state.addresses;
    let addresses = Addresses::ALL.iter().find(is_meant).copied().unwrap_or(Addresses::Full);
    match (state.target, state.file, state.unit) {
        (LogTarget::Journal, _, unit) => {
            Ok((Source::Journal(unit.unwrap_or_else(|| UNIT.to_owned())), addresses))
        }
        (LogTarget::File, Some(file), _) => Ok((Source::File(file.into()), addresses)),
        _ => Err(nowhere()),
    }
}

/// The unit of an installed daemon.
const UNIT: &str = "mailroot.service";

fn nowhere() -> Problem {
    let detail = "the daemon writes its log to its standard output, and that is not the journal: \
        whoever started it has it";
    Problem::new("logs", Kind::NotFound, detail).hint(
        "smtpctl config set logging.target=file logging.file=/PATH keeps one that can be read",
    )
}

/// Where a daemon that does not run has written; why it is not there if that cannot be read.
fn configured(tool: &Tool, problem: Problem) -> Result<(Source, Addresses), Problem> {
    let home = tool.global.home.as_deref();
    let Some(logging) = files::logging(home) else { return Err(problem) };
    match (logging.target, logging.file) {
        (Target::File, Some(path)) => Ok((Source::File(path), logging.addresses)),
        _ if home.is_some() => Err(nowhere()),
        _ => Ok((Source::Journal(UNIT.to_owned()), logging.addresses)),
    }
}

async fn level(tool: &mut Tool, args: &Level) -> Result<u8, Problem> {
    let Some(level) = &args.level else {
        let state: LogState = tool.daemon().await?.get(path::LOG).await?;
        tool.print_object(state, |state| format!("{}\n", escape(&words(state))))?;
        return Ok(0);
    };
    let wish = LogWish {
        level: Some(level.clone()).filter(|level| level != "configured"),
        seconds: args.span.map(|span| span.as_millis().div_ceil(1_000)),
        client: args.client.clone(),
    };
    let state: LogState = tool.daemon().await?.put(path::LOG_LEVEL, &wish).await?;
    tool.say_done(&state, &escape(&words(&state)))?;
    Ok(0)
}

/// How much is told, in words.
fn words(state: &LogState) -> String {
    let Some(raised) = &state.raised else { return state.level.clone() };
    let client = raised.client.as_ref().map(|client| format!(" about {client}"));
    let client = client.unwrap_or_default();
    format!("{} until {}{client}, otherwise {}", raised.level, raised.until, state.level)
}

impl Row for LogState {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("target", |it| {
            Cell::text(match it.target {
                LogTarget::Journal => "journal",
                LogTarget::Stdout => "stdout",
                LogTarget::File => "file",
            })
        }),
        Column::always("file", |it| Cell::maybe(it.file.as_deref())),
        Column::always("format", |it| Cell::text(&*it.format)),
        Column::always("level", |it| Cell::text(&*it.level)),
        Column::wide("addresses", |it| Cell::text(&*it.addresses)),
        Column::always("raised", |it| Cell::maybe(it.raised.as_ref().map(|it| &*it.level))),
        Column::always("until", |it| {
            it.raised.as_ref().map_or(Cell::Nothing, |it| Cell::Until(it.until))
        }),
        Column::always("client", |it| {
            Cell::maybe(it.raised.as_ref().and_then(|it| it.client.as_deref()))
        }),
    ];

    fn id(&self) -> String {
        self.level.clone()
    }
}
