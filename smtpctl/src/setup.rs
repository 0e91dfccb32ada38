//! `setup`: the first steps, as questions to a person or as options of a script.
//!
//! Every answer is checked when it is typed and asked for again if it is no good; what differs from
//! what is in force becomes one change of the virtual server's file, made by the daemon.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::config::HostPort;
use mailroot_common::control::{
    Check, Edited, KeyEdit, KeyEdits, Kind, Problem, Revision, ServerDetail, Setting,
    SmartHostWish, path,
};
use mailroot_common::net::Network;

use crate::alias;
use crate::doctor;
use crate::io_problem;
use crate::output::escape;
use crate::password::PasswordOptions;
use crate::send::{self, Send};
use crate::smarthost;
use crate::terms::{TermOptions, report};
use crate::tool::Tool;

/// How often a question is asked before the person is left alone.
const ASKED_MAX: usize = 5;
/// What is answered where nothing is wanted.
const NONE: &str = "none";
/// What stands before the name of a smart host that has one.
const NAMED: &str = "smarthost:";

const NAME: &str = "delivery.fqdn";
const HOSTNAME: &str = "service.hostname";
const SMART_HOST: &str = "delivery.smart_host";
const LISTEN: &str = "general.listen";
const RELAY: &str = "access.relay.list";

/// The arguments of `setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Setup {
    /// Do nothing where the configuration was ever changed.
    #[arg(long)]
    if_missing: bool,
    /// The name that this host has in mail.
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    mailname: Option<String>,
    /// The host that takes all mail for others, or none.
    #[arg(long, value_name = "HOST[:PORT]|none", value_parser = smart_host)]
    smarthost: Option<String>,
    /// The name to log in to it with; the password is asked for, or read as below.
    #[arg(long, value_name = "USER", requires = "smarthost")]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordOptions,
    /// An address to listen on; may be given several times.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listener)]
    listen: Vec<String>,
    /// An address or network that may send mail onward as well; may be given several times.
    #[arg(long, value_name = "CIDR", value_parser = network)]
    relay: Vec<String>,
    /// Who gets mail for root of this machine.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    root_alias: Option<String>,
    /// Send a test message there when all is done.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    test_to: Option<String>,
    #[command(flatten)]
    terms: TermOptions,
}

/// What is wanted; what is absent stays as it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wishes {
    mailname: Option<String>,
    smarthost: Option<String>,
    user: Option<String>,
    listen: Vec<String>,
    relay: Vec<String>,
    root_alias: Option<String>,
    test_to: Option<String>,
}

fn domain(text: &str) -> Result<String, String> {
    let parsed = Domain::parse(text).map_err(|error| error.to_string())?;
    Ok(parsed.to_string())
}

fn smart_host(text: &str) -> Result<String, String> {
    if text == NONE || text.starts_with(NAMED) {
        return Ok(text.to_owned());
    }
    let words = "a host is a name or an address in brackets, with or without :port";
    HostPort::parse(text).map(|_| text.to_owned()).ok_or_else(|| words.to_owned())
}

fn user(text: &str) -> Result<String, String> {
    let is_good = text.len() <= 255 && !text.chars().any(char::is_control);
    if is_good { Ok(text.to_owned()) } else { Err("a user's name is one line".to_owned()) }
}

fn listener(text: &str) -> Result<String, String> {
    let words = "a listener is an address and a port, such as 10.1.0.5:25 or [::1]:25";
    text.parse::<SocketAddr>().map(|address| address.to_string()).map_err(|_| words.to_owned())
}

fn network(text: &str) -> Result<String, String> {
    Network::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn mailbox(text: &str) -> Result<String, String> {
    Mailbox::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

pub(crate) async fn run(tool: &mut Tool, args: &Setup) -> Result<u8, Problem> {
    if args.if_missing {
        let history: Vec<Revision> = tool.daemon().await?.get(path::CONFIG_HISTORY).await?;
        if was_changed(&history) {
            let revision = history.first().map_or(0, |newest| newest.revision);
            let unchanged = Edited { revision, ..Edited::default() };
            tool.say_done(&unchanged, "the configuration was changed before; nothing to do")?;
            return Ok(0);
        }
    }
    let path = path::fill(path::SERVER, &[tool.server()]);
    let mut now: ServerDetail = tool.daemon().await?.get(&path).await?;
    let of_service: Vec<Setting> = tool.daemon().await?.get(path::CONFIG).await?;
    name_host(&mut now, &of_service);
    let mut wishes = Wishes {
        mailname: args.mailname.clone(),
        smarthost: args.smarthost.clone(),
        user: args.user.clone(),
        listen: args.listen.clone(),
        relay: args.relay.clone(),
        root_alias: args.root_alias.clone(),
        test_to: args.test_to.clone(),
    };
    if tool.can_ask() {
        ask_for_rest(&mut wishes, &now, &mut ask_person)?;
    } else if wishes == Wishes::default() {
        let detail = "nothing is wished, and nobody can be asked";
        return Err(Problem::new("setup", Kind::Usage, detail)
            .hint("say --mailname, --smarthost, --listen, --relay, --root-alias or --test-to"));
    }
    let login = login(tool, args, &wishes)?;
    if login.is_some() {
        wishes.smarthost = None;
    }
    let edits = edits(&wishes, &now);
    let (edited, called): (Edited, _) = match login {
        None => {
            let path = args.terms.on(&path)?;
            (tool.daemon().await?.patch(&path, &KeyEdits { edits }).await?, None)
        }
        Some((name, wish)) => {
            let wish = SmartHostWish { server_edits: edits, ..wish };
            let path = args.terms.on(&path::fill(path::SMARTHOST, &[&name]))?;
            (tool.daemon().await?.patch(&path, &wish).await?, Some(name))
        }
    };
    let code = report(tool, &edited)?;
    if args.terms.dry_run {
        return Ok(code);
    }
    if let Some(address) = &wishes.root_alias {
        let file = alias::set(tool, "root", address).await?;
        tool.note(&escape(&format!("mail for root goes to {address} ({})", file.display())));
    }
    if edited.changed {
        tool.note("undo with: smtpctl config rollback 0");
        tell_checks(tool, called.as_deref()).await?;
    }
    match wishes.test_to {
        Some(to) => send::run(tool, &Send::test(to)).await,
        None => Ok(code),
    }
}

/// The smart host with the login that is wished for it, and the name it gets.
fn login(
    tool: &Tool,
    args: &Setup,
    wishes: &Wishes,
) -> Result<Option<(String, SmartHostWish)>, Problem> {
    let (host, user) = match (&wishes.smarthost, &wishes.user) {
        (Some(host), Some(user)) if host != NONE && !host.starts_with(NAMED) => (host, user),
        (_, None) if !args.password.is_given() => return Ok(None),
        (_, None) => {
            let detail = "a password is given, and no --user whose it is";
            return Err(Problem::new("setup", Kind::Usage, detail));
        }
        (_, Some(user)) => {
            let detail = format!("{user} logs in nowhere: no smart host is named");
            return Err(Problem::new("setup", Kind::Usage, detail)
                .hint("one that has a name already: smtpctl smarthost passwd NAME"));
        }
    };
    let password = args.password.read(tool, user)?.ok_or_else(|| {
        let detail = format!("no password is given for {user}, and nobody can be asked");
        Problem::new("setup", Kind::Usage, detail)
            .hint("pass it with --password-stdin or --password-file, never as an argument")
    })?;
    Ok(Some(smarthost::with_login(host, user, password, tool.server())))
}

/// Where the server's file has no name, puts that of the service in its place.
fn name_host(now: &mut ServerDetail, of_service: &[Setting]) {
    let unset = now.settings.iter_mut().find(|it| it.key == NAME && it.origin == "default");
    if let Some(unset) = unset {
        let name = of_service.iter().find(|it| it.key == HOSTNAME).map(|it| it.value.clone());
        // What stands there for the machine's own name is no name.
        unset.value = name.filter(|name| Domain::parse(name).is_ok()).unwrap_or_default();
    }
}

/// Whether anybody ever changed the configuration; a start is no change.
fn was_changed(history: &[Revision]) -> bool {
    history.iter().any(|revision| revision.how != "start")
}

/// The key's value as it is in force; nothing for an empty list.
fn value<'s>(now: &'s ServerDetail, key: &str) -> Option<&'s str> {
    let found = now.settings.iter().find(|setting| setting.key == key)?;
    let value = found.value.trim();
    (!matches!(value, "" | "[]" | "none")).then_some(value)
}

/// The items of a list as a person reads and writes them.
fn items(text: &str) -> Vec<String> {
    let inner = text.strip_prefix('[').filter(|rest| rest.ends_with(']') && rest.contains(", "));
    let inner = inner.and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let items = inner.split(',').map(|item| item.trim().trim_matches('"').to_owned());
    items.filter(|item| !item.is_empty()).collect()
}

/// The changes that lead from what is in force to what is wanted.
fn edits(wishes: &Wishes, now: &ServerDetail) -> Vec<KeyEdit> {
    let mut edits = Vec::new();
    let mut set = |key: &str, value: String| {
        edits.push(KeyEdit::Set { key: key.to_owned(), value });
    };
    if let Some(name) = wishes.mailname.as_ref().filter(|name| value(now, NAME) != Some(name)) {
        set(NAME, name.clone());
    }
    match (wishes.smarthost.as_deref(), value(now, SMART_HOST)) {
        (Some(NONE), None) | (None, _) => {}
        (Some(NONE), Some(_)) => set(SMART_HOST, String::new()),
        (Some(host), before) if before.map(items) != Some(vec![host.to_owned()]) => {
            set(SMART_HOST, host.to_owned());
        }
        (Some(_), _) => {}
    }
    let listens = value(now, LISTEN).map(items).unwrap_or_default();
    if !wishes.listen.is_empty() && wishes.listen != listens {
        set(LISTEN, wishes.listen.join(", "));
    }
    let add = |item: &String| KeyEdit::Add { key: RELAY.to_owned(), item: item.clone() };
    edits.extend(wishes.relay.iter().map(add));
    edits
}

/// What puts one line before a person and brings the answer; nothing at the end of input.
type Ask<'a> = dyn FnMut(&str) -> Result<Option<String>, Problem> + 'a;

fn ask_person(line: &str) -> Result<Option<String>, Problem> {
    let mut answer = String::new();
    let read = write!(io::stderr(), "{line}").and_then(|()| io::stdin().read_line(&mut answer));
    Ok((read.map_err(io_problem)? > 0).then_some(answer))
}

/// Asks for everything that was not said.
fn ask_for_rest(wishes: &mut Wishes, now: &ServerDetail, ask: &mut Ask<'_>) -> Result<(), Problem> {
    let one =
        |text: &str, check: fn(&str) -> Result<String, String>| check(text).map(|good| vec![good]);
    let several = |text: &str, check: fn(&str) -> Result<String, String>| {
        items(text).iter().map(|item| check(item)).collect()
    };
    if wishes.mailname.is_none() {
        let name = value(now, NAME).unwrap_or_default();
        let question = "Name of this host in mail";
        wishes.mailname = question_of(ask, question, name, |it| one(it, domain))?.pop();
    }
    if wishes.smarthost.is_none() {
        let host = value(now, SMART_HOST).unwrap_or(NONE);
        let question = "Send everything through a smart host? host[:port], or none";
        wishes.smarthost = if items(host).len() > 1 {
            // Several are more than one answer can say; they stay unless another is named.
            question_of(ask, question, "", |it| one(it, smart_host))?.pop()
        } else {
            question_of(ask, question, host, |it| one(it, smart_host))?.pop()
        };
    }
    let is_new = wishes.smarthost.as_deref().is_some_and(|host| {
        host != NONE && !host.starts_with(NAMED) && value(now, SMART_HOST) != Some(host)
    });
    if is_new && wishes.user.is_none() {
        let question = "User name to log in there, or nothing";
        wishes.user = question_of(ask, question, "", |it| one(it, user))?.pop();
    }
    if wishes.listen.is_empty() {
        let listens = items(value(now, LISTEN).unwrap_or_default()).join(", ");
        let question = "Addresses to listen on";
        wishes.listen = question_of(ask, question, &listens, |it| several(it, listener))?;
    }
    if wishes.relay.is_empty() {
        let question = "Networks that may send mail onward as well, or nothing";
        wishes.relay = question_of(ask, question, "", |it| several(it, network))?;
    }
    if wishes.root_alias.is_none() {
        let question = "Deliver mail for root of this machine to, or nothing";
        wishes.root_alias = question_of(ask, question, "", |it| one(it, mailbox))?.pop();
    }
    if wishes.test_to.is_none() {
        let question = "Send a test message to, or nothing";
        wishes.test_to = question_of(ask, question, "", |it| one(it, mailbox))?.pop();
    }
    Ok(())
}

/// Asks until the answer is good. An empty one is the usual one.
fn question_of(
    ask: &mut Ask<'_>,
    question: &str,
    usual: &str,
    check: impl Fn(&str) -> Result<Vec<String>, String>,
) -> Result<Vec<String>, Problem> {
    let usual_shown = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
    let mut line = escape(&format!("{question}{usual_shown}: "));
    for _ in 0..ASKED_MAX {
        let Some(answer) = ask(&line)? else {
            let detail = "the input ended before everything was answered; nothing was changed";
            return Err(Problem::new("setup", Kind::Usage, detail));
        };
        let answer = match answer.trim() {
            "" if usual.is_empty() => return Ok(Vec::new()),
            "" => usual,
            typed => typed,
        };
        match check(answer) {
            Ok(good) => return Ok(good),
            Err(why) => line = escape(&format!("{why}: ")),
        }
    }
    let detail = format!("no good answer to {question:?} after {ASKED_MAX} tries");
    Err(Problem::new("setup", Kind::Usage, detail).hint("nothing was changed"))
}

/// Says whether listeners and smart hosts answer, as far as it may be looked at.
async fn tell_checks(tool: &mut Tool, smart_host: Option<&str>) -> Result<(), Problem> {
    let name = tool.server().to_owned();
    let checks = doctor::of_server(tool, path::DOCTOR_NETWORK, &name).await?;
    let tried = match smart_host {
        Some(name) => smarthost::call(tool, name).await?,
        None => Vec::new(),
    };
    let wanted = |check: &Check| matches!(&*check.topic, "ports" | "smarthost");
    let checks: Vec<Check> = checks.into_iter().filter(wanted).chain(tried).collect();
    tool.note(doctor::for_people(&checks, false).trim_end());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(settings: &[(&str, &str)]) -> ServerDetail {
        let settings: Vec<_> = settings
            .iter()
            .map(|(key, value)| serde_json::json!({"key": key, "value": value, "origin": "x"}))
            .collect();
        serde_json::from_value(serde_json::json!({
            "name": "default", "state": "running", "listen": [], "domain": "a.example",
            "profile": "modern", "sessions_in": 0, "sessions_out": 0, "file": "f",
            "queue": {"messages": 0, "retry": 0, "held": 0}, "badmail": 0, "mail_root": "/x",
            "settings": settings,
        }))
        .unwrap()
    }

    fn asked(answers: &[&str], now: &ServerDetail) -> (Result<Wishes, u8>, Vec<String>) {
        let (mut answers, mut lines) = (answers.iter(), Vec::new());
        let mut wishes = Wishes::default();
        let mut ask = |line: &str| {
            lines.push(line.to_owned());
            Ok(answers.next().map(|answer| format!("{answer}\n")))
        };
        let done = ask_for_rest(&mut wishes, now, &mut ask);
        (done.map(|()| wishes).map_err(|problem| problem.exit), lines)
    }

    #[test]
    fn empty_answers_change_nothing() {
        let now = now(&[
            (NAME, "a.example"),
            (SMART_HOST, "[]"),
            (LISTEN, "[127.0.0.1:25, \"[::1]:25\"]"),
            (RELAY, "[127.0.0.0/8]"),
        ]);
        let (wishes, lines) = asked(&[""; 6], &now);
        assert_eq!(edits(&wishes.unwrap(), &now), []);
        assert_eq!(lines[0], "Name of this host in mail [a.example]: ");
        assert_eq!(lines[2], "Addresses to listen on [127.0.0.1:25, [::1]:25]: ");
    }

    #[test]
    fn a_new_smart_host_may_want_a_login() {
        let mut now = now(&[(NAME, "a.example"), (SMART_HOST, "[]"), (LISTEN, "[::1]:25")]);
        let answers = ["", "isp.example:587", "relay@a.example", "", "", "", ""];
        let (wishes, lines) = asked(&answers, &now);
        assert_eq!(wishes.unwrap().user.as_deref(), Some("relay@a.example"));
        assert_eq!(lines[2], "User name to log in there, or nothing: ");
        // One that is in force is not asked about again.
        now.settings[1].value = "smarthost:isp".to_owned();
        let (wishes, lines) = asked(&[""; 6], &now);
        assert_eq!(lines.len(), 6, "{lines:?}");
        assert_eq!(edits(&wishes.unwrap(), &now), []);
    }

    #[test]
    fn the_name_of_the_service_stands_in_for_the_servers() {
        for (host, expected) in [("a.example", Some("a.example")), ("this machine's name", None)] {
            let mut server = now(&[(NAME, HOSTNAME)]);
            server.settings[0].origin = "default".to_owned();
            name_host(&mut server, &now(&[(HOSTNAME, host)]).settings);
            assert_eq!(value(&server, NAME), expected);
        }
    }

    #[test]
    fn answers_are_checked_and_asked_for_again() {
        let now = now(&[(NAME, "a.example"), (SMART_HOST, "b.example:25"), (LISTEN, "[::1]:25")]);
        let answers = [
            "no name",
            "c.example",
            "none",
            "[::1]:25",
            "10.0.0.0/33",
            "10.0.0.0/8",
            "x@a.test",
            "",
        ];
        let (wishes, lines) = asked(&answers, &now);
        assert!(lines.len() == 8 && !lines[1].starts_with("Name"), "{lines:?}");
        let set =
            |key: &str, value: &str| KeyEdit::Set { key: key.to_owned(), value: value.to_owned() };
        let item = "10.0.0.0/8".to_owned();
        let expected = [
            set(NAME, "c.example"),
            set(SMART_HOST, ""),
            KeyEdit::Add { key: RELAY.to_owned(), item },
        ];
        assert_eq!(edits(&wishes.unwrap(), &now), expected);
        assert_eq!(asked(&["no name"; 9], &now).0, Err(2));
        assert_eq!(asked(&[], &now).0, Err(2));
    }
}
