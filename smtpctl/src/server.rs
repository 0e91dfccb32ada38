//! `server`: virtual servers.

pub(crate) mod change;

use std::fmt::Write as _;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::server::VerbRequest;
use mailroot_common::control::{
    AccessList, Kind, NewServer, Problem, Server, ServerDetail, Setting, Verb, path,
};
use mailroot_common::units::Span;

use crate::client::WAIT;
use crate::complete;
use crate::config::keys::put_in_force;
use crate::output::{Cell, Column, Form, Row, Shape, escape, print_all};
use crate::terms::TermOptions;
use crate::tool::Tool;

/// The verbs of `server`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServerCommand {
    /// List the virtual servers.
    #[command(visible_alias = "ls")]
    List,
    /// Show one with its settings.
    Show(Show),
    /// Make a new one and start it.
    Create(Create),
    /// Give keys other values, at once and in the file.
    Set(change::Set),
    /// Take keys out of the file, so that their defaults are in force.
    Unset(change::Unset),
    /// Make a copy with other listeners and a mail root of its own.
    Clone(change::Clone),
    /// Give one another name; its mail goes with it.
    Rename(change::Rename),
    /// Replace the file of one, or make one, from a file or standard input.
    Apply(change::Apply),
    /// Take one away.
    #[command(visible_alias = "rm")]
    Delete(change::Delete),
    /// Start taking and delivering mail.
    Start(Turn),
    /// End all sessions and stop.
    Stop(Stop),
    /// Take no new sessions; deliver on.
    Pause(Pause),
    /// Take sessions again.
    Resume(Names),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The virtual server.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::servers))]
    name: String,
    /// Only the settings of one section, such as delivery.
    #[arg(long, value_name = "SECTION")]
    tab: Option<String>,
    /// Show the values that are in force where a value only stands for another.
    #[arg(long)]
    effective: bool,
    /// Show the defaults beside the values.
    #[arg(long)]
    defaults: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The name: small letters, digits, hyphens.
    #[arg(value_name = "NAME")]
    name: String,
    /// An address and port to listen on; may be given several times.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Vec<String>,
    /// The default domain [default: the host's name].
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// The directory of Pickup, Queue, Drop and Badmail.
    #[arg(long, value_name = "DIR")]
    root: Option<String>,
    /// The smart host.
    #[arg(long, value_name = "HOST[:PORT]")]
    smarthost: Option<String>,
    /// modern or iis6: whose defaults hold.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// relay, printers, internal, internet or users: what it is for, which gives its file keys to
    /// begin with.
    #[arg(long, value_name = "NAME")]
    from_template: Option<String>,
    /// Do not start it, now or with the daemon.
    #[arg(long)]
    disabled: bool,
    /// Be content if it exists.
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Names {
    /// The virtual servers.
    #[arg(value_name = "NAME", required = true, add = ArgValueCompleter::new(complete::servers))]
    names: Vec<String>,
    /// Why, for the log and for status.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Turn {
    #[command(flatten)]
    names: Names,
    /// Also write into the file whether it is enabled, so that it stays so.
    #[arg(long)]
    persist: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    turn: Turn,
    /// First let sessions end by themselves, for at most 30s or SPAN, while no new ones are taken.
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "30s", conflicts_with = "kill_sessions")]
    drain: Option<Span>,
    /// End sessions at once, also with a message on its way.
    #[arg(long)]
    kill_sessions: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    names: Names,
    /// End sessions at once as well; without it they go on.
    #[arg(long)]
    kill_sessions: bool,
}

pub(crate) async fn run(tool: &mut Tool, command: ServerCommand) -> Result<u8, Problem> {
    match command {
        ServerCommand::List => {
            let mut servers: Vec<Server> = tool.daemon().await?.get(path::SERVERS).await?;
            if let Some(name) = &tool.global.server {
                servers.retain(|server| server.name == *name);
            }
            tool.print_rows(servers)?;
            Ok(0)
        }
        ServerCommand::Show(args) => show(tool, &args).await,
        ServerCommand::Create(args) => create(tool, args).await,
        ServerCommand::Set(args) => change::set(tool, &args).await,
        ServerCommand::Unset(args) => change::unset(tool, &args).await,
        ServerCommand::Clone(args) => change::copy(tool, &args).await,
        ServerCommand::Rename(args) => change::rename(tool, &args).await,
        ServerCommand::Apply(args) => change::apply(tool, &args).await,
        ServerCommand::Delete(args) => change::delete(tool, &args).await,
        ServerCommand::Start(Turn { names, persist }) => {
            let body = VerbRequest { persist, ..ending(&names, None, false) };
            verb(tool, Verb::Start, &names, body).await
        }
        ServerCommand::Stop(Stop { turn: Turn { names, persist }, drain, kill_sessions }) => {
            let body = VerbRequest { persist, ..ending(&names, drain, kill_sessions) };
            verb(tool, Verb::Stop, &names, body).await
        }
        ServerCommand::Pause(Pause { names, kill_sessions }) => {
            verb(tool, Verb::Pause, &names, ending(&names, None, kill_sessions)).await
        }
        ServerCommand::Resume(names) => {
            verb(tool, Verb::Resume, &names, ending(&names, None, false)).await
        }
    }
}

/// The answer to a name that names nothing.
pub(crate) fn no_such_server(name: &str) -> Problem {
    Problem::new("server", Kind::NotFound, format!("there is no virtual server {name:?}"))
        .hint("smtpctl server list names them")
}

async fn show(tool: &mut Tool, args: &Show) -> Result<u8, Problem> {
    let path = path::fill(path::SERVER, &[&args.name]);
    let mut detail: ServerDetail = tool.daemon().await?.get(&path).await?;
    if let Some(tab) = &args.tab {
        let inside = |key: &str| key == tab || key.strip_prefix(tab.as_str()).is_some_and(begins);
        let section = |key: &str| key.split(['.', '[']).next().unwrap_or_default().to_owned();
        let mut sections: Vec<String> = detail.settings.iter().map(|it| section(&it.key)).collect();
        sections.dedup();
        detail.settings.retain(|setting| inside(&setting.key));
        if detail.settings.is_empty() {
            let text = format!("there is no section {tab:?} in force");
            let hint = format!("there are {}", sections.join(", "));
            return Err(Problem::new("server", Kind::NotFound, text).hint(hint));
        }
    }
    if args.effective {
        detail.settings.iter_mut().for_each(put_in_force);
    }
    if tool.print_data(&detail)? {
        return Ok(0);
    }
    if args.defaults && tool.shape.columns.is_none() {
        tool.shape.columns = Some("key,value,default,origin".to_owned());
    }
    if args.tab.is_none() && matches!(tool.shape.form, Form::Table | Form::Wide) {
        use std::io::Write as _;
        let mut out = crate::tool::stdout();
        out.write_all(for_people(&detail, &tool.shape).as_bytes()).map_err(crate::io_problem)?;
        return print_all(detail.settings, &tool.shape, &mut out).map(|_| 0);
    }
    tool.print_rows(detail.settings)?;
    Ok(0)
}

fn begins(rest: &str) -> bool {
    rest.starts_with(['.', '['])
}

fn for_people(detail: &ServerDetail, shape: &Shape) -> String {
    let server = &detail.server;
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let done = writeln!(text, "{name:<10}  {}", escape(value));
        debug_assert!(done.is_ok(), "writing into a String cannot fail");
    };
    line("name", &server.name);
    line("state", server.state.as_str());
    for why in [&server.trouble, &server.reason].into_iter().flatten() {
        line("because", why);
    }
    line("listen", &server.listen.join(", "));
    line("file", &detail.file);
    line("mail root", &server.mail_root);
    for name in ["queue", "retry", "held", "oldest", "badmail", "in", "out"] {
        if let Some(column) = Server::COLUMNS.iter().find(|column| column.name == name) {
            let value = (column.cell)(server).for_people(shape.now, shape.time, shape.utc);
            line(&name.replace('_', " "), &value);
        }
    }
    let counted = detail.counters.iter().filter(|(_, count)| **count > 0);
    let counted: Vec<String> =
        counted.map(|(name, count)| format!("{} {count}", name.replace('_', " "))).collect();
    if !counted.is_empty() {
        line("counted", &counted.join(", "));
    }
    text.push('\n');
    text
}

impl Row for Setting {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("key", |it| Cell::text(&*it.key)),
        Column::always("value", |it| Cell::text(&*it.value)),
        Column::always("origin", |it| Cell::text(&*it.origin)),
        Column::wide("default", |it| Cell::text(&*it.default)),
        Column::wide("iis_default", |it| Cell::text(&*it.iis_default)),
    ];

    fn id(&self) -> String {
        self.key.clone()
    }
}

async fn create(tool: &mut Tool, args: Create) -> Result<u8, Problem> {
    let name = args.name.clone();
    let body = NewServer {
        name: args.name,
        listen: args.listen,
        domain: args.domain,
        root: args.root,
        smart_host: args.smarthost,
        profile: args.profile,
        template: args.from_template,
        stopped: args.disabled,
    };
    let path = args.terms.on(path::SERVERS)?;
    let answer = tool.daemon().await?.post::<Server>(&path, &body, WAIT).await;
    let server = match answer {
        Ok(server) => server,
        Err(problem) if args.if_not_exists && &*problem.code == "server.exists" => {
            tool.say_done(&serde_json::json!({ "changed": false }), "it exists already")?;
            return Ok(0);
        }
        Err(problem) => return Err(problem),
    };
    if args.terms.dry_run {
        tool.note(&format!("valid; {name} would be created; nothing was changed"));
    } else {
        let listen = server.listen.join(", ");
        let words =
            format!("created {name}, {}, {listen}, mail in {}", server.state, server.mail_root);
        tool.say_done(&server, &words)?;
        tell_who_relays(tool, &server).await?;
    }
    if let Some(trouble) = server.trouble {
        return Err(Problem::new("server", Kind::Partly, format!("created, but {trouble}")));
    }
    Ok(0)
}

/// Says what to do next where nobody may relay through a new server, or only who logs in.
async fn tell_who_relays(tool: &mut Tool, server: &Server) -> Result<(), Problem> {
    let name = &*server.name;
    let path = path::fill(path::ACCESS, &[name, "relay"]);
    let list: AccessList = tool.daemon().await?.get(&path).await?;
    if !list.entries.is_empty() || list.policy != "only" {
        return Ok(());
    }
    if server.auth.iter().any(|way| way == "basic") {
        tool.note("note: whoever logs in may relay through it, and nobody else; next: smtpctl user add NAME --send-as ADDRESS");
    } else {
        let next = format!("smtpctl relay allow NETWORK -s {name}");
        tool.note(&format!("note: nobody may relay through it yet; next: {next}"));
    }
    Ok(())
}

/// What is asked of servers that stop or pause.
fn ending(names: &Names, drain: Option<Span>, kill_sessions: bool) -> VerbRequest {
    let drain = drain.map(|span| span.to_string());
    VerbRequest { reason: names.reason.clone(), drain, kill_sessions, ..VerbRequest::default() }
}

async fn verb(
    tool: &mut Tool,
    verb: Verb,
    names: &Names,
    body: VerbRequest,
) -> Result<u8, Problem> {
    let drain = body.drain.as_deref().and_then(|span| Span::parse(span).ok());
    let wait = WAIT + drain.map(Span::as_duration).unwrap_or_default();
    let mut servers = Vec::new();
    let mut failed = Vec::new();
    for name in &names.names {
        let path = path::fill(path::SERVER_VERB, &[name, verb.as_str()]);
        match tool.daemon().await?.post::<Server>(&path, &body, wait).await {
            Ok(server) => servers.push(server),
            Err(problem) => failed.push((name, problem)),
        }
    }
    let done = servers.iter().map(|server| format!("{}  {}", server.name, server.state));
    let words = done.collect::<Vec<_>>().join("\n");
    if !servers.is_empty() {
        tool.say_done(&servers, &words)?;
    }
    match failed.pop() {
        None => Ok(0),
        Some((_, problem)) if servers.is_empty() && failed.is_empty() => Err(problem),
        Some(last) => {
            failed.push(last);
            let items = failed.iter().map(|(name, problem)| format!("{name}: {problem}"));
            let detail = format!("could not {} all of them", verb.as_str());
            let kind = if servers.is_empty() { Kind::Failed } else { Kind::Partly };
            Err(Problem::new("server", kind, detail).items(items))
        }
    }
}
