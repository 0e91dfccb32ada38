//! `smarthost`: hosts that take mail for others, each with its security and login.

mod login;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    Check, Edited, KeyEdit, KeyEdits, Kind, Problem, SmartHost, SmartHostCall, SmartHostWish, path,
};
use std::io::Write as _;
use std::time::Duration;

use self::login::Login;
use crate::complete;
use crate::doctor;
use crate::io_problem;
use crate::output::{Cell, Column, Form, Row};
use crate::password::PasswordOptions;
use crate::terms::{TermOptions, report};
use crate::tool::{Tool, stdout};

/// A call may last as long as a host lets us wait.
const CALL_WAIT: Duration = Duration::from_secs(60);

/// The verbs of `smarthost`.
#[derive(Debug, Subcommand)]
pub(crate) enum SmarthostCommand {
    /// List those that have names.
    #[command(visible_alias = "ls")]
    List,
    /// Show one with all its keys.
    Show(Named),
    /// Make one or change one, and have the virtual server send everything by it.
    Set(Box<Set>),
    /// Give it another password.
    Passwd(Passwd),
    /// Have it log in by tokens, get one at once and say whether it works.
    Login(Box<Login>),
    /// Call it as mail would, without mail: token, name, connection, TLS, login.
    Test(Test),
    /// Have the virtual server send directly again.
    Clear(Clear),
    /// Take one away that nobody uses.
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its name.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::smart_hosts))]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Its name.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::smart_hosts))]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The host: name, name:port or [address]:port.
    #[arg(value_name = "HOST[:PORT]", required_unless_present_any = ["preset", "name"])]
    address: Option<String>,
    /// A provider whose host, port and TLS are known.
    #[arg(long, value_parser = ["m365", "google-relay", "gmail", "sendgrid", "mailgun", "postmark"])]
    preset: Option<String>,
    /// The name it gets; by default the preset's, or made of the host's.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Whether mail goes to it under TLS; verify by default.
    #[arg(long, value_parser = ["off", "optional", "required", "verify", "implicit"])]
    tls: Option<String>,
    /// SHA-256 of its public key, instead of a certificate that others vouch for.
    #[arg(long, value_name = "DIGITS")]
    pin: Vec<String>,
    /// A host to try when it cannot be reached; several in order.
    #[arg(long, value_name = "HOST[:PORT]")]
    backup: Vec<String>,
    /// The name to log in with; the password is asked for, or read as below.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordOptions,
    /// Connections at the same time; what the preset says by default.
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// Messages in a time, such as 30/min; also per s, h and d. What the preset says by default.
    #[arg(long, value_name = "N/TIME")]
    rate: Option<String>,
    /// Send the password also without TLS.
    #[arg(long)]
    without_tls: bool,
    /// Try hosts of the recipient's domain first, and this one when that fails.
    #[arg(long, value_parser = ["never", "on_dns_failure", "on_any_temporary_failure"])]
    direct_first: Option<String>,
    /// The name that the virtual server has in mail, which some providers go by.
    #[arg(long, value_name = "DOMAIN")]
    fqdn: Option<String>,
    /// Only make it known; no virtual server is changed.
    #[arg(long, conflicts_with_all = ["direct_first", "fqdn"])]
    no_use: bool,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Passwd {
    /// Its name.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::smart_hosts))]
    name: String,
    #[command(flatten)]
    password: PasswordOptions,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Clear {
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// Its name.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::smart_hosts))]
    name: String,
    #[command(flatten)]
    terms: TermOptions,
}

pub(crate) async fn run(tool: &mut Tool, command: SmarthostCommand) -> Result<u8, Problem> {
    match command {
        SmarthostCommand::List => {
            let hosts: Vec<SmartHost> = tool.daemon().await?.get(path::SMARTHOSTS).await?;
            tool.print_rows(hosts)?;
            Ok(0)
        }
        SmarthostCommand::Show(args) => show(tool, &args.name).await,
        SmarthostCommand::Set(args) => set(tool, *args).await,
        SmarthostCommand::Passwd(args) => passwd(tool, &args).await,
        SmarthostCommand::Login(args) => login::login(tool, &args).await,
        SmarthostCommand::Test(args) => test(tool, &args.name).await,
        SmarthostCommand::Clear(args) => clear(tool, &args.terms).await,
        SmarthostCommand::Remove(args) => {
            let path = args.terms.on(&path::fill(path::SMARTHOST, &[&args.name]))?;
            let edited: Edited = tool.daemon().await?.delete(&path).await?;
            report(tool, &edited)
        }
    }
}

async fn show(tool: &mut Tool, name: &str) -> Result<u8, Problem> {
    let hosts: Vec<SmartHost> = tool.daemon().await?.get(path::SMARTHOSTS).await?;
    let found = hosts.into_iter().find(|host| host.name == name).ok_or_else(|| {
        Problem::new("smarthost", Kind::NotFound, format!("there is no smart host {name}"))
            .hint("smtpctl smarthost list names them")
    })?;
    if !tool.print_data(&found)? {
        let keys = tool.daemon().await?.get::<Vec<mailroot_common::control::Setting>>(path::CONFIG);
        let prefix = format!("smart_hosts.{name}.");
        let own = keys.await?.into_iter().filter(|setting| setting.key.starts_with(&prefix));
        tool.print_rows(own.collect())?;
        if let (Some(limit), Form::Table | Form::Wide) = (&found.limit, &tool.shape.form) {
            let words = format!("Connections and rate now: {}\n", limit.words(found.connections));
            stdout().write_all(words.as_bytes()).map_err(io_problem)?;
        }
        if let (Some(until), Form::Table | Form::Wide) = (found.token_until, &tool.shape.form) {
            let left =
                Cell::Until(until).for_people(tool.shape.now, tool.shape.time, tool.shape.utc);
            let words = format!("The token at hand is good until: {left}\n");
            stdout().write_all(words.as_bytes()).map_err(io_problem)?;
        }
    }
    Ok(0)
}

async fn set(tool: &mut Tool, args: Set) -> Result<u8, Problem> {
    let name = args.name()?;
    let mut edits = args.edits();
    let wants_password = args.user.is_some() || args.password.is_given();
    let password = if wants_password { args.password.read(tool, &name)? } else { None };
    if wants_password && password.is_none() {
        let detail = format!("no password is given for {name}, and nobody can be asked");
        return Err(Problem::new("smarthost", Kind::Usage, detail)
            .hint("pass it with --password-stdin or --password-file, never as an argument"));
    }
    if wants_password {
        let known: Vec<SmartHost> = tool.daemon().await?.get(path::SMARTHOSTS).await?;
        if known.iter().any(|host| host.name == name && host.auth.contains("oauth")) {
            let unset = |key: &str| KeyEdit::Unset { key: key.to_owned() };
            edits.extend(login::TOKEN_KEYS.into_iter().map(unset));
        }
        edits.push(KeyEdit::Set { key: "auth.method".to_owned(), value: "basic".to_owned() });
    }
    let server = (!args.no_use).then(|| tool.server().to_owned());
    let fqdn = args.fqdn.map(|value| KeyEdit::Set { key: "delivery.fqdn".to_owned(), value });
    let wish = SmartHostWish {
        edits,
        password,
        server,
        server_edits: fqdn.into_iter().collect(),
        direct_first: args.direct_first,
        ..SmartHostWish::default()
    };
    let path = args.terms.on(&path::fill(path::SMARTHOST, &[&name]))?;
    let edited: Edited = tool.daemon().await?.patch(&path, &wish).await?;
    report(tool, &edited)
}

impl Set {
    /// The name asked for, else the preset's, else one made of the host's.
    fn name(&self) -> Result<String, Problem> {
        match self.name.clone().or_else(|| self.preset.clone()) {
            Some(name) => Ok(name),
            None => name_of(self.address.as_deref().unwrap_or_default()),
        }
    }

    fn edits(&self) -> Vec<KeyEdit> {
        let mut edits = Vec::new();
        let mut put = |key: &str, value: Option<String>| {
            edits.extend(value.map(|value| KeyEdit::Set { key: key.to_owned(), value }));
        };
        let (host, port) = self.address.as_deref().map_or((None, None), split);
        let list = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
        put("preset", self.preset.clone());
        put("host", host);
        put("port", port);
        put("tls", self.tls.clone());
        put("pin", list(&self.pin));
        put("backup", list(&self.backup));
        put("limits.connections", self.max_connections.map(|most| most.to_string()));
        put("limits.rate", self.rate.clone());
        put("auth.user", self.user.clone());
        put("auth.require_tls", self.without_tls.then(|| "false".to_owned()));
        edits
    }
}

/// The name of a smart host that is made of the host's.
fn name_of(host: &str) -> Result<String, Problem> {
    let bare = host.trim_start_matches('[').split([']', ':']).next().unwrap_or_default();
    let name: String = bare
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(32)
        .collect();
    if name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(name);
    }
    let detail = format!("{host:?} gives no name for a smart host");
    Err(Problem::new("smarthost", Kind::Usage, detail).hint("say --name NAME"))
}

/// The name of a host whose address gives none.
const UNNAMED: &str = "smarthost";

/// What is asked for a host with a name that one user logs in to, and that name.
pub(crate) fn with_login(
    address: &str,
    user: &str,
    password: String,
    server: &str,
) -> (String, SmartHostWish) {
    let name = name_of(address).unwrap_or_else(|_| UNNAMED.to_owned());
    let (host, port) = split(address);
    let edits = [
        ("host", host),
        ("port", port),
        ("auth.method", Some("basic".to_owned())),
        ("auth.user", Some(user.to_owned())),
    ];
    let set = |(key, value): (&str, Option<String>)| {
        value.map(|value| KeyEdit::Set { key: key.to_owned(), value })
    };
    let wish = SmartHostWish {
        edits: edits.into_iter().filter_map(set).collect(),
        password: Some(password),
        server: Some(server.to_owned()),
        ..SmartHostWish::default()
    };
    (name, wish)
}

/// `host:587` as its two parts. What cannot be a host is refused by the daemon.
fn split(text: &str) -> (Option<String>, Option<String>) {
    let end = text.rfind(']').map_or(0, |end| end + 1);
    match text[end..].rsplit_once(':') {
        Some((rest, port)) => (Some(format!("{}{rest}", &text[..end])), Some(port.to_owned())),
        None => (Some(text.to_owned()), None),
    }
}

async fn passwd(tool: &mut Tool, args: &Passwd) -> Result<u8, Problem> {
    let password = args.password.read(tool, &args.name)?;
    let known: Vec<SmartHost> = tool.daemon().await?.get(path::SMARTHOSTS).await?;
    if !known.iter().any(|host| host.name == args.name) {
        let detail = format!("there is no smart host {}", args.name);
        return Err(Problem::new("smarthost", Kind::NotFound, detail));
    }
    if password.is_none() {
        let detail = "no password is given, and nobody can be asked";
        return Err(Problem::new("smarthost", Kind::Usage, detail)
            .hint("pass it with --password-stdin or --password-file"));
    }
    let wish = SmartHostWish { password, ..SmartHostWish::default() };
    let path = args.terms.on(&path::fill(path::SMARTHOST, &[&args.name]))?;
    let edited: Edited = tool.daemon().await?.patch(&path, &wish).await?;
    if edited.changed || edited.dry_run {
        return report(tool, &edited);
    }
    tool.say_done(&edited, &format!("{} has another password", args.name))?;
    Ok(0)
}

async fn test(tool: &mut Tool, name: &str) -> Result<u8, Problem> {
    let checks = call(tool, name).await?;
    doctor::conclude(tool, checks)
}

/// Has the daemon call one; what it found.
pub(crate) async fn call(tool: &mut Tool, name: &str) -> Result<Vec<Check>, Problem> {
    let path = path::fill(path::SMARTHOST_TEST, &[name]);
    let call = SmartHostCall { server: tool.global.server.clone(), new_token: false };
    tool.daemon().await?.post(&path, &call, CALL_WAIT).await
}

async fn clear(tool: &mut Tool, terms: &TermOptions) -> Result<u8, Problem> {
    let edits = vec![KeyEdit::Unset { key: "delivery.smart_host".to_owned() }];
    let path = terms.on(&path::fill(path::SERVER, &[tool.server()]))?;
    let edited: Edited = tool.daemon().await?.patch(&path, &KeyEdits { edits }).await?;
    report(tool, &edited)
}

impl Row for SmartHost {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("state", |it| Cell::State(it.state.as_str())),
        Column::always("host", |it| Cell::text(it.hosts.join(", "))),
        Column::always("tls", |it| Cell::text(&*it.tls)),
        Column::always("auth", |it| Cell::text(&*it.auth)),
        Column::always("user", |it| Cell::maybe(it.user.as_deref())),
        Column::always("token", |it| it.token_until.map_or(Cell::Nothing, Cell::Until)),
        Column::always("used by", |it| match it.used_by.is_empty() {
            true => Cell::Nothing,
            false => Cell::text(it.used_by.join(", ")),
        }),
        Column::always("limit", |it| match &it.limit {
            Some(limit) => Cell::text(limit.words(it.connections)),
            None => Cell::Nothing,
        }),
        Column::wide("delivered", |it| it.last_delivery_at.map_or(Cell::Nothing, Cell::Ago)),
        Column::wide("next", |it| it.next_attempt_at.map_or(Cell::Nothing, Cell::Until)),
        Column::wide("last", |it| Cell::maybe(it.last.as_deref())),
        Column::wide("password", |it| Cell::maybe(it.password_at.as_deref())),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_split_where_a_port_begins() {
        let halves = |text| {
            let (host, port) = split(text);
            (host.unwrap_or_default(), port.unwrap_or_default())
        };
        let pair = |host: &str, port: &str| (host.to_owned(), port.to_owned());
        assert_eq!(halves("a.example:587"), pair("a.example", "587"));
        assert_eq!(halves("a.example"), pair("a.example", ""));
        assert_eq!(halves("[::1]:25"), pair("[::1]", "25"));
        assert_eq!(halves("[::1]"), pair("[::1]", ""));
    }
}
