//! `send`: a test message, and what becomes of it.

mod compose;
mod pickup;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::control::{
    BadmailMessage, Kind, Problem, QueueMessage, Server, ServerDetail, ServerState, path,
};
use mailroot_common::id::QueueId;
use mailroot_common::units::{Span, Timestamp};
use serde::Serialize;

use crate::output::{Cell, Column, Row, escape};
use crate::password::PasswordOptions;
use crate::sendmail;
use crate::smtp::{Login, Parcel, Wish, hand_over};
use crate::tool::{Tool, now, submit_socket};

/// How often a message that is waited for is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The arguments of `send`.
#[derive(Debug, clap::Args)]
pub(crate) struct Send {
    /// A recipient; may be given several times.
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// The sender [default: postmaster at the server's domain].
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// The subject.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The text; - reads it from standard input.
    #[arg(long, value_name = "TEXT|-")]
    body: Option<String>,
    /// A complete message with header, sent as it is; - reads it from standard input.
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["subject", "body"])]
    eml: Option<PathBuf>,
    /// A file to attach; may be given several times.
    #[arg(long, value_name = "FILE", conflicts_with = "eml")]
    attach: Vec<PathBuf>,
    /// The door that it is handed in by: smtp, a listener; submit, the socket of local programs; pickup, a
    /// file.
    #[arg(long, value_name = "DOOR", value_enum, default_value = "smtp")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    via: Door,
    /// Have it sent at this moment, such as 2026-12-01T08:00:00Z, or after this span.
    #[arg(long, value_name = "TIME|SPAN")]
    at: Option<String>,
    /// Have it returned if it is not delivered within this span.
    #[arg(long, value_name = "SPAN")]
    by: Option<String>,
    /// Before or after other mail: -9 to 9.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i8).range(-9..=9))]
    priority: Option<i8>,
    /// Log in as this user; the password is asked for, or read as below.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    password: PasswordOptions,
    /// Follow it until it has left the queue, at most this long.
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "60s")]
    wait: Option<String>,
}

/// By which door a message comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Door {
    Smtp,
    Submit,
    Pickup,
}

impl Send {
    /// A test message to one recipient, followed until it has left the queue.
    pub(crate) fn test(to: String) -> Self {
        let wait = Some("60s".to_owned());
        let password = PasswordOptions::default();
        Self {
            to: vec![to],
            from: None,
            subject: None,
            body: None,
            eml: None,
            attach: Vec::new(),
            via: Door::Smtp,
            at: None,
            by: None,
            priority: None,
            user: None,
            password,
            wait,
        }
    }

    /// What the sender wants of time and order (RFC 4865, RFC 2852, RFC 6710).
    fn wishes(&self) -> Result<Vec<Wish>, Problem> {
        let usage = |detail: String| Problem::new("send", Kind::Usage, detail);
        let mut wishes = Vec::new();
        if let Some(text) = &self.at {
            let parameter = match (Span::parse(text), Timestamp::parse(text)) {
                (Ok(span), _) => format!("HOLDFOR={}", span.as_millis() / 1_000),
                (Err(_), Ok(at)) => format!("HOLDUNTIL={at}"),
                (Err(_), Err(error)) => return Err(usage(format!("--at: {error}"))),
            };
            wishes.push(Wish { extension: "FUTURERELEASE", parameter });
        }
        if let Some(text) = &self.by {
            let span = Span::parse(text).map_err(|error| usage(format!("--by: {error}")))?;
            let parameter = format!("BY={};R", span.as_millis() / 1_000);
            wishes.push(Wish { extension: "DELIVERBY", parameter });
        }
        if let Some(priority) = self.priority {
            let parameter = format!("MT-PRIORITY={priority}");
            wishes.push(Wish { extension: "MT-PRIORITY", parameter });
        }
        Ok(wishes)
    }
}

/// What became of it.
#[derive(Debug, Serialize)]
struct Sent {
    server: String,
    id: Option<QueueId>,
    reply: String,
    /// `accepted`, `done`, `retry`, `held`, `badmail` …
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Row for Sent {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("id", |it| it.id.map_or(Cell::Nothing, |id| Cell::text(id.to_string()))),
        Column::always("server", |it| Cell::text(&*it.server)),
        Column::always("state", |it| Cell::text(&*it.state)),
        Column::always("reply", |it| Cell::text(&*it.reply)),
        Column::always("reason", |it| Cell::maybe(it.reason.as_deref())),
    ];

    fn id(&self) -> String {
        self.id.map(|id| id.to_string()).unwrap_or_default()
    }
}

pub(crate) async fn run(tool: &mut Tool, args: &Send) -> Result<u8, Problem> {
    let usage =
        |what: &str, error: String| Problem::new("send", Kind::Usage, format!("--{what}: {error}"));
    let wait = args.wait.as_deref().map(Span::parse).transpose();
    let wait = wait.map_err(|error| usage("wait", error.to_string()))?;
    for to in &args.to {
        Mailbox::parse(to).map_err(|error| usage("to", error.to_string()))?;
    }
    let wishes = args.wishes()?;
    if args.via != Door::Smtp
        && (!wishes.is_empty() || args.user.is_some() || args.password.is_given())
    {
        let detail = "--at, --by, --priority and a login are for --via smtp";
        return Err(Problem::new("send", Kind::Usage, detail));
    }
    let name = tool.server().to_owned();
    let detail: ServerDetail =
        tool.daemon().await?.get(&path::fill(path::SERVER, &[&name])).await?;
    let server = &detail.server;
    let sender = match &args.from {
        Some(from) => {
            ReversePath::parse(from).map_err(|error| usage("from", error.to_string()))?.to_string()
        }
        None => format!("postmaster@{}", server.domain),
    };
    let message = match &args.eml {
        Some(file) => read_file(file)?,
        None => compose(args, &sender)?,
    };
    let parcel = Parcel { sender, recipients: args.to.clone(), message, wishes };
    let accepted = "accepted".to_owned();
    let mut sent =
        Sent { server: name, id: None, reply: String::new(), state: accepted, reason: None };
    if args.via == Door::Pickup {
        let file = pickup::put(&detail, &parcel)?;
        sent.reply = format!("written into Pickup as {file}");
        if let Some(wait) = wait {
            sent.id = pickup::taken(tool, &file, wait.as_duration()).await?;
            if sent.id.is_none() {
                tool.note("it is not known that the file was taken: smtpctl pickup list");
                return Ok(Kind::TimedOut.exit_code());
            }
        }
    } else {
        sent.reply = converse(tool, args, server, parcel).await?;
        sent.id = id_in(&sent.reply);
    }
    let code = match (wait, sent.id) {
        (Some(wait), Some(id)) => follow(tool, id, wait.as_duration(), &mut sent).await?,
        (Some(_), None) => {
            tool.note("the reply names no id, so the message cannot be followed");
            0
        }
        (None, _) => 0,
    };
    tool.print_object(sent, |sent| {
        let id = sent.id.map(|id| id.to_string()).unwrap_or_default();
        let reason = sent.reason.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        escape(format!("{id}  {}{reason}  ({})", sent.state, sent.reply).trim_start()) + "\n"
    })?;
    Ok(code)
}

/// Hands a message in over SMTP; the last reply. The conversation is apart from what speaks with the
/// daemon.
async fn converse(
    tool: &Tool,
    args: &Send,
    server: &Server,
    parcel: Parcel,
) -> Result<String, Problem> {
    let handed = if args.via == Door::Submit {
        let socket = submit_socket(tool.global.home.as_deref());
        tokio::task::spawn_blocking(move || sendmail::hand_in(&socket, &parcel))
    } else {
        let (address, login) = (listener(server)?, login(tool, args)?);
        tokio::task::spawn_blocking(move || hand_over(address, &parcel, login.as_ref()))
    };
    handed.await.map_err(|error| Problem::new("send", Kind::Failed, error.to_string()))?
}

/// Who we are to the server, if that was said.
fn login(tool: &Tool, args: &Send) -> Result<Option<Login>, Problem> {
    let missing = |what: &str| {
        Problem::new("send", Kind::Usage, format!("a login needs {what}, and nobody can be asked"))
            .hint("say --user NAME and --password-stdin or --password-file")
    };
    match &args.user {
        None if args.password.is_given() => Err(missing("a user")),
        None => Ok(None),
        Some(user) => {
            let password = args.password.read(tool, user)?;
            let password = password.ok_or_else(|| missing("a password"))?;
            Ok(Some(Login { user: user.clone(), password }))
        }
    }
}

/// Looks at the message until it has left the queue.
async fn follow(
    tool: &mut Tool,
    id: QueueId,
    wait: Duration,
    sent: &mut Sent,
) -> Result<u8, Problem> {
    let begun = Instant::now();
    let id = id.to_string();
    let mut told = String::new();
    loop {
        let path = path::fill(path::QUEUE_MESSAGE, &[&id]);
        match tool.daemon().await?.get::<QueueMessage>(&path).await {
            Ok(message) => {
                sent.entry(&message);
                let news = sent.reason.clone().unwrap_or_default();
                if news != told {
                    tool.note(&escape(&format!("{}: {news}", sent.state)));
                    told = news;
                }
            }
            Err(problem) if problem.kind() == Kind::NotFound => {
                return ended(tool, &id, sent).await;
            }
            Err(problem) => return Err(problem),
        }
        if begun.elapsed() >= wait {
            return Ok(Kind::TimedOut.exit_code());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Sent {
    fn entry(&mut self, message: &QueueMessage) {
        message.entry.state.as_str().clone_into(&mut self.state);
        self.reason.clone_from(&message.entry.reason);
    }
}

/// The queue no longer has it: it was delivered or returned, unless Badmail has it.
async fn ended(tool: &mut Tool, id: &str, sent: &mut Sent) -> Result<u8, Problem> {
    let path = path::fill(path::BADMAIL_MESSAGE, &[id]);
    match tool.daemon().await?.get::<BadmailMessage>(&path).await {
        Ok(message) => {
            "badmail".clone_into(&mut sent.state);
            sent.reason = Some(message.entry.detail);
            Ok(Kind::Failed.exit_code())
        }
        Err(problem) if problem.kind() == Kind::NotFound => {
            "done".clone_into(&mut sent.state);
            sent.reason = None;
            Ok(0)
        }
        Err(problem) => Err(problem),
    }
}

/// The first listener that can be reached from this machine itself.
fn listener(server: &Server) -> Result<SocketAddr, Problem> {
    if server.state != ServerState::Running {
        let detail = format!("the virtual server {} is {}", server.name, server.state);
        return Err(Problem::new("send", Kind::Unavailable, detail)
            .hint(format!("smtpctl server start {0}, or resume {0}", server.name)));
    }
    let local = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Some((Ipv4Addr::LOCALHOST.into(), address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => Some((Ipv6Addr::LOCALHOST.into(), address.port())),
        ip if ip.is_loopback() => Some((ip, address.port())),
        _ => None,
    };
    let addresses = || server.listen.iter().filter_map(|text| text.parse::<SocketAddr>().ok());
    let found = addresses().find_map(local).map(SocketAddr::from).or_else(|| addresses().next());
    found.ok_or_else(|| {
        let detail = format!("the virtual server {} listens nowhere", server.name);
        Problem::new("send", Kind::Unavailable, detail)
    })
}

/// The first word of the reply that is an id.
pub(crate) fn id_in(reply: &str) -> Option<QueueId> {
    let words = reply.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.len() == QueueId::DIGITS).find_map(|word| QueueId::parse(word).ok())
}

fn read_file(file: &std::path::Path) -> Result<Vec<u8>, Problem> {
    let read = if file.as_os_str() == "-" { read_stdin() } else { std::fs::read(file) };
    read.map_err(|error| {
        Problem::new("send", Kind::Usage, format!("cannot read {}: {error}", file.display()))
    })
}

fn read_stdin() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}

fn compose(args: &Send, sender: &str) -> Result<Vec<u8>, Problem> {
    let text = match args.body.as_deref() {
        Some("-") => {
            let octets = read_file(std::path::Path::new("-"))?;
            String::from_utf8(octets).map_err(|error| {
                Problem::new("send", Kind::Usage, format!("--body: the text is no UTF-8: {error}"))
            })?
        }
        Some(text) => format!("{text}\n"),
        None => "This is a test message of smtpctl send.\n".to_owned(),
    };
    let subject = args.subject.as_deref().unwrap_or("Test of mail delivery");
    let wanted = compose::Wanted { sender, to: &args.to, subject, text, attach: &args.attach };
    compose::compose(wanted, now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(state: &str, listen: &[&str]) -> Server {
        serde_json::from_value(serde_json::json!({
            "name": "default", "state": state, "listen": listen, "domain": "a.example",
            "profile": "modern", "sessions_in": 0, "sessions_out": 0,
            "queue": {"messages": 0, "retry": 0, "held": 0}, "badmail": 0, "mail_root": "/x"
        }))
        .unwrap()
    }

    #[test]
    fn a_listener_on_loopback_is_preferred() {
        let address = |listen: &[&str]| listener(&server("running", listen)).unwrap().to_string();
        assert_eq!(address(&["10.1.0.5:25", "127.0.0.1:2525"]), "127.0.0.1:2525");
        assert_eq!(address(&["0.0.0.0:25"]), "127.0.0.1:25");
        assert_eq!(address(&["[::]:25"]), "[::1]:25");
        assert_eq!(address(&["10.1.0.5:25"]), "10.1.0.5:25");
        assert_eq!(listener(&server("running", &[])).unwrap_err().exit, 5);
        assert_eq!(listener(&server("paused", &["127.0.0.1:25"])).unwrap_err().exit, 5);
    }

    #[test]
    fn the_id_is_found_in_the_reply() {
        let id = QueueId::parse("6FZK5D3VYE2S").ok();
        assert_eq!(id_in("250 2.0.0 queued as 6FZK5D3VYE2S"), id);
        assert_eq!(id_in("250 2.6.0 <6FZK5D3VYE2S> accepted"), id);
        assert_eq!(id_in("250 2.0.0 ok"), None);
    }
}
