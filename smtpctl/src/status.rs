//! `status` and `version`.

use std::io::Write;

use mailroot_common::control::{
    API_VERSION, Kind, Problem, Server, SmartHost, Status, Version, path,
};
use mailroot_common::units::Timestamp;
use serde::Serialize;

use crate::io_problem;
use crate::output::{Cell, Column, Form, Row, escape, human_size, human_span, painted, print_all};
use crate::tool::{Tool, stdout};

/// The arguments of `status`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// One virtual server only.
    #[arg(value_name = "SERVER")]
    name: Option<String>,
    /// Exit with 10 if anything needs a person.
    #[arg(long)]
    check: bool,
}

/// The columns of the table in `status`.
const COLUMNS: &str = "name,state,listen,in,out,queue,retry,badmail,oldest";

pub(crate) async fn run(tool: &mut Tool, args: &StatusArgs) -> Result<u8, Problem> {
    let mut status: Status = tool.daemon().await?.get(path::STATUS).await?;
    let wanted = args.name.as_deref().or(tool.global.server.as_deref());
    if let Some(name) = wanted {
        status.servers.retain(|server| server.name == name);
        status.warnings.retain(|w| w.server.as_deref().is_none_or(|server| server == name));
        if status.servers.is_empty() {
            return Err(crate::server::no_such_server(name));
        }
    }
    let degraded = status.degraded && (wanted.is_none() || !status.warnings.is_empty());
    if !tool.print_data(&status)? {
        print(tool, status)?;
    }
    Ok(if args.check && degraded { Kind::Found.exit_code() } else { 0 })
}

fn print(tool: &Tool, status: Status) -> Result<(), Problem> {
    let mut shape = tool.shape.clone();
    if shape.columns.is_none() {
        shape.columns = Some(COLUMNS.to_owned());
    }
    let out = &mut stdout();
    if !matches!(shape.form, Form::Table | Form::Wide) {
        return print_all(status.servers, &shape, out).map(|_| ());
    }
    writeln!(out, "{}\n", headline(&status, shape.colour)).map_err(io_problem)?;
    let pauses: Vec<_> = status
        .servers
        .iter()
        .flat_map(|server| server.pauses.iter().map(|pause| (server.name.clone(), pause.clone())))
        .collect();
    let stores: Vec<String> = status.servers.iter().filter_map(store).collect();
    print_all(status.servers, &shape, out)?;
    for (number, store) in stores.iter().enumerate() {
        let begin = if number == 0 { "\nStore         " } else { "              " };
        writeln!(out, "{begin}{}", escape(store)).map_err(io_problem)?;
    }
    if !status.smart_hosts.is_empty() {
        let shown = |host| smart_host(host, status.now, shape.colour);
        let hosts: Vec<String> = status.smart_hosts.iter().map(shown).collect();
        writeln!(out, "\nSmart hosts   {}", hosts.join("   ")).map_err(io_problem)?;
    }
    for (server, pause) in &pauses {
        let words = format!("{server}: {}: {}", pause.destination, pause.words());
        writeln!(out, "\n{}   {}", painted("paused", shape.colour), escape(&words))
            .map_err(io_problem)?;
    }
    for warning in &status.warnings {
        let server = warning.server.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let text = escape(&format!("{server}{}", warning.text));
        let written =
            writeln!(out, "\n{}  {text}", painted("warning", shape.colour)).and_then(|()| {
                match &warning.hint {
                    Some(hint) => writeln!(out, "         {}", escape(hint)),
                    None => Ok(()),
                }
            });
        written.map_err(io_problem)?;
    }
    out.flush().map_err(io_problem)
}

/// Where a server's mail lies, how much of it waits, and how much room there is.
fn store(server: &Server) -> Option<String> {
    let (waits, free) = (human_size(server.queue.bytes), human_size(server.free_bytes?));
    Some(format!("{}  {waits} waiting, {free} free", server.mail_root))
}

/// A smart host in a few words.
fn smart_host(host: &SmartHost, now: Timestamp, colour: bool) -> String {
    let ago = |at| format!("last delivery {} ago", human_span(now.since(at)));
    let next = |at: Timestamp| match at > now {
        true => format!("next try in {}", human_span(at.since(now))),
        false => "next try now".to_owned(),
    };
    let token = |at: Timestamp| match at > now {
        true => format!("token ends in {}", human_span(at.since(now))),
        false => "token ended".to_owned(),
    };
    let facts = [
        host.next_attempt_at.map(next),
        host.last_delivery_at.map(ago),
        host.token_until.map(token),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    let facts = match facts.is_empty() {
        true => String::new(),
        false => format!(" ({})", facts.join(", ")),
    };
    format!("{} {}{facts}", escape(&host.name), painted(host.state.as_str(), colour))
}

fn headline(status: &Status, colour: bool) -> String {
    let mut state = painted("running", colour);
    if status.degraded {
        state = format!("{state}, {}", painted("needs attention", colour));
    }
    format!(
        "mailroot {}  {state}, for {}  (pid {}, revision {})",
        escape(&status.version),
        human_span(status.now.since(status.started_at)),
        status.pid,
        status.config_revision,
    )
}

/// What `version` prints.
#[derive(Debug, Serialize)]
struct Versions {
    smtpctl: String,
    api: u32,
    smtpd: Option<Version>,
}

impl Row for Versions {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("smtpctl", |it| Cell::text(&*it.smtpctl)),
        Column::always("smtpd", |it| Cell::maybe(it.smtpd.as_ref().map(|it| &*it.version))),
        Column::always("api", |it| Cell::Count(it.api.into())),
    ];

    fn id(&self) -> String {
        self.smtpctl.clone()
    }
}

/// The tool's version always, the daemon's if it runs.
pub(crate) async fn version(tool: &mut Tool) -> Result<u8, Problem> {
    let smtpd = match tool.daemon().await {
        Ok(client) => client.get(path::VERSION).await.ok(),
        Err(_) => None,
    };
    let versions =
        Versions { smtpctl: env!("CARGO_PKG_VERSION").to_owned(), api: API_VERSION, smtpd };
    tool.print_object(versions, |it| match &it.smtpd {
        Some(daemon) => format!(
            "smtpctl {}, smtpd {} (protocol {}), {}\n",
            it.smtpctl,
            escape(&daemon.version),
            daemon.api,
            escape(&daemon.platform)
        ),
        None => format!("smtpctl {} (protocol {}), smtpd not running\n", it.smtpctl, it.api),
    })?;
    Ok(0)
}

impl Row for Server {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("state", |it| Cell::State(it.state.as_str())),
        Column::always("listen", |it| Cell::text(it.listen.join(", "))),
        Column::always("domain", |it| Cell::text(&*it.domain)),
        Column::always("smart_host", |it| Cell::maybe(it.smart_host.as_deref())),
        Column::always("auth", |it| match it.auth.as_slice() {
            [] => Cell::text("none"),
            ways => Cell::text(ways.join(", ")),
        }),
        Column::always("queue", |it| Cell::Count(it.queue.messages)),
        Column::wide("retry", |it| Cell::Count(it.queue.retry)),
        Column::wide("held", |it| Cell::Count(it.queue.held)),
        Column::wide("size", |it| Cell::Size(it.queue.bytes)),
        Column::wide("oldest", |it| it.queue.oldest_at.map_or(Cell::Nothing, Cell::Ago)),
        Column::wide("badmail", |it| Cell::Count(it.badmail)),
        Column::wide("in", |it| Cell::Count(it.sessions_in)),
        Column::wide("out", |it| Cell::Count(it.sessions_out)),
        Column::wide("profile", |it| Cell::text(&*it.profile)),
        Column::wide("mail_root", |it| Cell::text(&*it.mail_root)),
        Column::wide("free", |it| it.free_bytes.map_or(Cell::Nothing, Cell::Size)),
        Column::wide("trouble", |it| Cell::maybe(it.trouble.as_deref().or(it.reason.as_deref()))),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}
