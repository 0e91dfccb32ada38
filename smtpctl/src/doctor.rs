//! `doctor`: looks at what mail depends on, and says what to do about it.

mod fix;
mod local_mail;
mod nagios;
mod offline;
mod redact;
mod service;
mod time;

use std::io::Write;

use mailroot_common::control::{Check, Kind, Level, Problem, Server, ServerState, path};

pub(crate) use self::redact::Redactor;
use crate::client::WAIT;
use crate::io_problem;
use crate::output::{Cell, Column, Form, Row, escape, painted, print_all};
use crate::tool::{Tool, stdout};

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// What to look at [default: everything].
    #[arg(value_name = "TOPIC", value_enum)]
    topics: Vec<Topic>,
    /// Look only at what lies on this machine: no DNS, no other hosts. Needs no daemon.
    #[arg(long)]
    offline: bool,
    /// Replace addresses, host names and secrets, the same by the same, so that strangers may read it.
    #[arg(long)]
    redact: bool,
    /// Put right what is safe to put right, say what is left to a person, and look again.
    #[arg(long, conflicts_with = "offline")]
    fix: bool,
    /// With --fix: say what would be done, and do nothing.
    #[arg(long, requires = "fix")]
    dry_run: bool,
}

/// What can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Topic {
    /// Whether the daemon runs.
    Service,
    /// Whether the clock can be trusted.
    Time,
    /// The configuration files.
    Config,
    /// The listeners of the virtual servers.
    Ports,
    /// The name in our greeting.
    Dns,
    /// Whether the smart hosts take connections.
    Smarthost,
    /// Whether the directory of recipients answers.
    Ldap,
    /// Whether DNS publishes the keys that mail is signed with.
    Dkim,
    /// Whether SPF lets our mail leave from here, and all that the records lead to.
    Spf,
    /// What our domains want done with mail that nobody vouches for.
    Dmarc,
    /// The certificates that clients are shown.
    Tls,
    /// Who may relay.
    Relay,
    /// Whether DNS knows the domains of recent senders.
    Senders,
    /// What waits, and why.
    Queue,
    /// The file systems of the queues and how fast their disks sync.
    Storage,
    /// Mail of programs on this machine: who takes it, and where that to root ends.
    LocalMail,
}

impl Topic {
    const fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Time => "time",
            Self::Config => "config",
            Self::Ports => "ports",
            Self::Dns => "dns",
            Self::Smarthost => "smarthost",
            Self::Ldap => "ldap",
            Self::Dkim => "dkim",
            Self::Spf => "spf",
            Self::Dmarc => "dmarc",
            Self::Tls => "tls",
            Self::Relay => "relay",
            Self::Senders => "senders",
            Self::Queue => "queue",
            Self::Storage => "storage",
            Self::LocalMail => local_mail::TOPIC,
        }
    }
}

/// What is told by whoever asks DNS and other hosts.
const NETWORK: [Topic; 10] = [
    Topic::Ports,
    Topic::Dns,
    Topic::Smarthost,
    Topic::Ldap,
    Topic::Dkim,
    Topic::Spf,
    Topic::Dmarc,
    Topic::Tls,
    Topic::Relay,
    Topic::Senders,
];

pub(crate) async fn run(tool: &mut Tool, args: &Doctor) -> Result<u8, Problem> {
    if tool.shape.form == Form::Nagios {
        let found = examine(tool, args).await;
        return nagios::tell(&found);
    }
    let checks = examine(tool, args).await?;
    conclude(tool, checks)
}

async fn examine(tool: &mut Tool, args: &Doctor) -> Result<Vec<Check>, Problem> {
    let mut checks = look(tool, args).await?;
    if args.fix && fix::fix(tool, &checks, args.dry_run).await? {
        checks = look(tool, args).await?;
    }
    if args.redact {
        let mut redactor = Redactor::of_machine();
        checks = checks.into_iter().map(|check| redactor.check(check)).collect();
    }
    Ok(checks)
}

async fn look(tool: &mut Tool, args: &Doctor) -> Result<Vec<Check>, Problem> {
    let wanted = |topic: Topic| args.topics.is_empty() || args.topics.contains(&topic);
    // Mail of programs is the whole machine's affair, which a daemon for trials has nothing to do with.
    let is_named = args.topics.contains(&Topic::LocalMail);
    let wants_local = is_named || args.topics.is_empty() && tool.global.home.is_none();
    let mut checks = Vec::new();
    let is_up = match tool.daemon().await {
        Ok(_) => true,
        Err(problem) if wanted(Topic::Service) || args.offline => {
            checks.push(down(&problem));
            false
        }
        Err(_) if args.topics == [Topic::LocalMail] && !args.fix => false,
        Err(problem) => return Err(problem),
    };
    if is_up {
        checks.extend(ask_daemon(tool, args, &wanted).await?);
    } else if args.offline {
        checks.extend(wanted(Topic::Time).then(time::kept_here));
        if wanted(Topic::Config) {
            checks.extend(offline::config(tool));
        }
    }
    if wants_local {
        checks.extend(local_mail::local_mail(tool, is_up).await?);
    }
    Ok(checks)
}

/// Everything that takes a daemon that answers.
async fn ask_daemon(
    tool: &mut Tool,
    args: &Doctor,
    wanted: &impl Fn(Topic) -> bool,
) -> Result<Vec<Check>, Problem> {
    let mut checks = Vec::new();
    if wanted(Topic::Service) {
        checks.extend(service::service(tool).await?);
    }
    if wanted(Topic::Time) {
        checks.extend(time::time(tool).await?);
    }
    if wanted(Topic::Config) {
        checks.extend(service::config(tool).await?);
    }
    if NETWORK.into_iter().any(wanted) && !args.offline {
        let found = of_servers(tool, path::DOCTOR_NETWORK).await?;
        let is_wanted =
            |check: &Check| NETWORK.iter().any(|it| it.word() == check.topic && wanted(*it));
        checks.extend(found.into_iter().filter(is_wanted));
    }
    if wanted(Topic::Queue) {
        checks.extend(service::queue(tool).await?);
    }
    if wanted(Topic::Storage) {
        checks.extend(of_servers(tool, path::DOCTOR_STORAGE).await?);
    }
    Ok(checks)
}

/// Prints what was found; the exit code says whether anything is wrong.
pub(crate) fn conclude(tool: &Tool, checks: Vec<Check>) -> Result<u8, Problem> {
    let worst = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    print(tool, checks)?;
    Ok(if worst == Level::Ok { 0 } else { Kind::Found.exit_code() })
}

/// What is said of a daemon that cannot be asked.
fn down(problem: &Problem) -> Check {
    let check = Check::new(Level::Fail, Topic::Service.word(), "runs", &*problem.detail);
    match &problem.hint {
        Some(hint) => check.hint(&**hint),
        None => check,
    }
}

/// Has the daemon look at one server, or at each in turn.
async fn of_servers(tool: &mut Tool, pattern: &str) -> Result<Vec<Check>, Problem> {
    let wanted = tool.global.server.clone();
    if let Some(name) = &wanted {
        return of_server(tool, pattern, name).await;
    }
    let servers: Vec<Server> = tool.daemon().await?.get(path::SERVERS).await?;
    let mut checks = Vec::new();
    for server in servers {
        match of_server(tool, pattern, &server.name).await {
            Ok(found) => checks.extend(found),
            // Whoever stopped it knows; whatever kept it from starting is to be told.
            Err(problem) if problem.kind() == Kind::Unavailable => {
                if server.state != ServerState::Stopped || server.trouble.is_some() {
                    checks.push(not_measured(&server, &problem));
                }
            }
            Err(problem) => return Err(problem),
        }
    }
    Ok(checks)
}

/// Has the daemon look at one server.
pub(crate) async fn of_server(
    tool: &mut Tool,
    pattern: &str,
    server: &str,
) -> Result<Vec<Check>, Problem> {
    let path = path::fill(pattern, &[server]);
    tool.daemon().await?.post(&path, &serde_json::json!({}), WAIT).await
}

fn not_measured(server: &Server, problem: &Problem) -> Check {
    let why = server.trouble.as_deref().unwrap_or(&problem.detail);
    let mut check = Check::new(Level::Warn, "storage", "probe", format!("not measured: {why}"));
    check.server = Some(server.name.clone());
    check.hint = problem.hint.as_deref().map(str::to_owned);
    check
}

fn print(tool: &Tool, checks: Vec<Check>) -> Result<(), Problem> {
    let shape = &tool.shape;
    let out = &mut stdout();
    if !matches!(shape.form, Form::Table | Form::Wide) || shape.columns.is_some() {
        return print_all(checks, shape, out).map(|_| ());
    }
    out.write_all(for_people(&checks, shape.colour).as_bytes())
        .and_then(|()| out.flush())
        .map_err(io_problem)
}

/// A line for each, and how many are no good.
pub(crate) fn for_people(checks: &[Check], colour: bool) -> String {
    let several = checks.iter().any(|check| check.server != checks[0].server);
    let mut text = String::new();
    for check in checks {
        let server = check.server.as_ref().filter(|_| several);
        let server = server.map(|name| format!("{name}: ")).unwrap_or_default();
        let words = escape(&format!("{server}{}", check.text));
        let level = check.level.as_str();
        let gap = " ".repeat(4_usize.saturating_sub(level.len()));
        let level = painted(level, colour);
        text.push_str(&format!("{level}{gap}  {}  {words}\n", escape(&check.topic)));
        if let Some(hint) = &check.hint {
            text.push_str(&format!("        {}\n", escape(hint)));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let counted = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let found = [counted(count(Level::Warn), "warning"), counted(count(Level::Fail), "failure")];
    let found: Vec<_> = found.into_iter().flatten().collect();
    if !found.is_empty() {
        text.push_str(&format!("{}\n", found.join(", ")));
    }
    text
}

impl Row for Check {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("level", |it| Cell::State(it.level.as_str())),
        Column::always("topic", |it| Cell::text(&*it.topic)),
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("server", |it| Cell::maybe(it.server.as_deref())),
        Column::always("text", |it| Cell::text(&*it.text)),
        Column::always("hint", |it| Cell::maybe(it.hint.as_deref())),
        Column::wide("figures", |it| {
            let figures = it.figures.iter().map(|(name, value)| format!("{name}={value}"));
            Cell::text(figures.collect::<Vec<_>>().join(" "))
        }),
    ];

    fn id(&self) -> String {
        format!("{}.{}", self.topic, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_a_line_for_each_check_and_what_was_found() {
        let mut checks = vec![
            Check::new(Level::Ok, "storage", "file_system", "ext4"),
            Check::new(Level::Warn, "storage", "barriers", "off\u{1b}[2J").hint("on"),
        ];
        assert_eq!(
            for_people(&checks, false),
            "ok    storage  ext4\nwarn  storage  off\\x1b[2J\n        on\n1 warning\n"
        );
        checks[1].server = Some("lan".to_owned());
        checks[1].level = Level::Fail;
        assert!(for_people(&checks, false).contains("fail  storage  lan: off"));
        assert!(for_people(&checks, false).ends_with("\n1 failure\n"));
        assert_eq!(for_people(&checks[..1], false), "ok    storage  ext4\n");
        assert_eq!(for_people(&[], false), "");
        assert!(for_people(&checks, true).contains("fail\u{1b}[0m  storage  lan: off"));
    }
}
