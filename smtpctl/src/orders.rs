//! `queue pause`, `queue resume`, and holds of mail yet to come.

use clap::ArgGroup;
use mailroot_common::control::{
    DestinationPause, FutureHold, FutureHoldRequest, FutureReleaseRequest, Kind, Orders,
    PauseRequest, Problem, Selector, path,
};

use crate::change::counted;
use crate::client::WAIT;
use crate::output::{Cell, Column, Row};
use crate::tool::Tool;

#[derive(Debug, clap::Args)]
#[command(group(ArgGroup::new("what").required(true).args(["destination", "list"])))]
pub(crate) struct Pause {
    /// A domain, a host, or a pattern with * and ? for them; drop for Drop.
    #[arg(long, value_name = "PATTERN")]
    destination: Option<String>,
    /// End by itself after this time, such as 1h.
    #[arg(long = "for", value_name = "SPAN", conflicts_with = "list")]
    span: Option<String>,
    /// Why: for the log, for queue list, and for reports of mail that grows too old.
    #[arg(long, value_name = "TEXT", conflicts_with = "list")]
    reason: Option<String>,
    /// List what is paused.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resume {
    /// The pattern that was paused, or one that fits it.
    #[arg(long, value_name = "PATTERN")]
    destination: String,
}

/// Lists or pauses destinations.
pub(crate) async fn pause(tool: &mut Tool, args: Pause) -> Result<u8, Problem> {
    let server = tool.global.server.clone();
    let Some(destination) = args.destination else {
        let mut orders: Orders = tool.daemon().await?.get(path::QUEUE_ORDERS).await?;
        orders.pauses.retain(|pause| server.as_ref().is_none_or(|name| *name == pause.server));
        tool.print_rows(orders.pauses)?;
        return Ok(0);
    };
    let request =
        PauseRequest { destination, server, span: args.span, reason: args.reason, exactly: false };
    let done: Vec<DestinationPause> =
        tool.daemon().await?.post(path::QUEUE_PAUSE, &request, WAIT).await?;
    let messages = done.iter().map(|pause| pause.messages).sum();
    let waiting = counted(messages, "message");
    tool.say_done(&done, &format!("{} paused, {waiting} there", request.destination))?;
    Ok(0)
}

/// Ends pauses of destinations.
pub(crate) async fn resume(tool: &mut Tool, args: Resume) -> Result<u8, Problem> {
    let server = tool.global.server.clone();
    let request = PauseRequest { destination: args.destination, server, ..PauseRequest::default() };
    let done: Vec<DestinationPause> =
        tool.daemon().await?.post(path::QUEUE_RESUME, &request, WAIT).await?;
    tool.say_done(&done, &format!("{} resumed", request.destination))?;
    Ok(0)
}

/// Lists the rules that hold mail yet to come.
pub(crate) async fn list_holds(tool: &mut Tool) -> Result<u8, Problem> {
    let server = tool.global.server.clone();
    let mut orders: Orders = tool.daemon().await?.get(path::QUEUE_ORDERS).await?;
    orders.holds.retain(|hold| server.as_ref().is_none_or(|name| *name == hold.server));
    tool.print_rows(orders.holds)?;
    Ok(0)
}

/// Holds mail yet to come.
pub(crate) async fn hold(
    tool: &mut Tool,
    selector: Selector,
    span: Option<String>,
    reason: Option<String>,
) -> Result<u8, Problem> {
    if selector.is_empty() {
        let detail = "nothing is chosen to hold";
        return Err(Problem::new("selector", Kind::Usage, detail)
            .hint("say which mail: --from, --to, --domain or --client"));
    }
    let request = FutureHoldRequest { selector, span, reason };
    let done: Vec<FutureHold> =
        tool.daemon().await?.post(path::QUEUE_HOLD_FUTURE, &request, WAIT).await?;
    let ids: Vec<_> = done.iter().map(|hold| hold.id.to_string()).collect();
    tool.say_done(&done, &format!("mail yet to come is held by {}", ids.join(", ")))?;
    Ok(0)
}

/// Ends rules that hold mail yet to come.
pub(crate) async fn release(tool: &mut Tool, selector: Selector) -> Result<u8, Problem> {
    if !selector.is_ids_only() {
        let detail = "name the ids of rules to end";
        return Err(Problem::new("selector", Kind::Usage, detail)
            .hint("smtpctl queue hold --list names them"));
    }
    let request = FutureReleaseRequest { ids: selector.ids, server: selector.server };
    let done: Vec<FutureHold> =
        tool.daemon().await?.post(path::QUEUE_RELEASE_FUTURE, &request, WAIT).await?;
    tool.say_done(&done, &format!("{} ended", counted(done.len() as u64, "rule")))?;
    Ok(0)
}

impl Row for DestinationPause {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("destination", |it| Cell::text(&*it.destination)),
        Column::always("server", |it| Cell::text(&*it.server)),
        Column::always("messages", |it| Cell::Count(it.messages)),
        Column::always("since", |it| Cell::Ago(it.since)),
        Column::always("ends", |it| it.until.map_or(Cell::Nothing, Cell::Until)),
        Column::always("by", |it| Cell::text(&*it.by)),
        Column::always("reason", |it| Cell::maybe(it.reason.as_deref())),
    ];

    fn id(&self) -> String {
        self.destination.clone()
    }
}

impl Row for FutureHold {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| Cell::text(it.id.to_string())),
        Column::always("server", |it| Cell::text(&*it.server)),
        Column::always("from", |it| Cell::maybe(it.selector.from.as_deref())),
        Column::always("to", |it| Cell::maybe(it.selector.to.as_deref())),
        Column::always("domain", |it| Cell::maybe(it.selector.domain.as_deref())),
        Column::always("client", |it| Cell::maybe(it.selector.client.as_deref())),
        Column::always("since", |it| Cell::Ago(it.since)),
        Column::always("ends", |it| it.until.map_or(Cell::Nothing, Cell::Until)),
        Column::always("by", |it| Cell::text(&*it.by)),
        Column::always("reason", |it| Cell::maybe(it.reason.as_deref())),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }
}
