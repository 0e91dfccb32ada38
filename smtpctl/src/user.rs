//! `user`: who may log in to send mail.

use std::time::Duration;

use clap::Subcommand;
use mailroot_common::control::{
    Kind, NewUser, PasswordAnswer, PasswordQuestion, Problem, User, UserChanged, UserWish, path,
};
use mailroot_common::password::{SALT_OCTETS, kept};
use serde::Serialize;

use crate::output::{Cell, Column, Row, escape};
use crate::password::{PasswordOptions, Place, secret};
use crate::tool::Tool;

/// A password is made hard to guess, which takes a moment.
const WAIT: Duration = Duration::from_secs(30);

/// The verbs of `user`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// List users, with their last logins since the daemon started.
    #[command(visible_alias = "ls")]
    List,
    /// Add one; the password is asked for, or read as the options say.
    Add(Add),
    /// Give one another password; sessions with the old one are ended.
    Passwd(Passwd),
    /// Change what one may do; one who is disabled loses his sessions at once.
    Set(Set),
    /// Take one away; its sessions are ended.
    #[command(visible_alias = "rm")]
    Remove(Named),
    /// Say whether a login with this password would be taken: exit code 0 or 10.
    Verify(Passwd),
    /// Print the Argon2id form of a password, as the file of users has it. It is asked for, or read from
    /// standard input or as the options say. The daemon is not asked.
    Hash(Hash),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Hash {
    #[command(flatten)]
    password: PasswordOptions,
}

/// What a password is told by.
#[derive(Debug, Serialize)]
struct Hashed {
    argon2id: String,
}

impl Row for Hashed {
    const COLUMNS: &'static [Column<Self>] =
        &[Column::always("argon2id", |it| Cell::text(&*it.argon2id))];

    fn id(&self) -> String {
        self.argon2id.clone()
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The name to log in with.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    password: PasswordOptions,
    /// An address that mail may be sent as, with * for any characters; may be given several times. Any
    /// address by default.
    #[arg(long, value_name = "PATTERN")]
    send_as: Vec<String>,
    /// How many recipients mail may be sent to in a span, such as 500/d, also per s, min and h. As many
    /// as there are by default.
    #[arg(long, value_name = "RATE")]
    quota: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Passwd {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    password: PasswordOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Take no logins.
    #[arg(long, conflicts_with = "enabled")]
    disabled: bool,
    /// Take logins again.
    #[arg(long)]
    enabled: bool,
    /// The addresses that mail may be sent as, instead of those there were.
    #[arg(long, value_name = "PATTERN")]
    send_as: Vec<String>,
    /// Let mail be sent as any address.
    #[arg(long, conflicts_with = "send_as")]
    send_as_any: bool,
    /// How many recipients mail may be sent to in a span, such as 500/d, or none for as many as there
    /// are.
    #[arg(long, value_name = "RATE")]
    quota: Option<String>,
}

pub(crate) async fn run(tool: &mut Tool, command: UserCommand) -> Result<u8, Problem> {
    match command {
        UserCommand::List => {
            let users: Vec<User> = tool.daemon().await?.get(path::USERS).await?;
            tool.print_rows(users)?;
            Ok(0)
        }
        UserCommand::Add(args) => add(tool, args).await,
        UserCommand::Passwd(args) => {
            let password = Some(read(tool, &args.password, &args.name)?);
            change(tool, &args.name, &UserWish { password, ..UserWish::default() }).await
        }
        UserCommand::Set(args) => set(tool, &args).await,
        UserCommand::Remove(args) => {
            let path = path::fill(path::USER, &[&args.name]);
            let changed: UserChanged = tool.daemon().await?.delete(&path).await?;
            tell(tool, "removed", &changed)
        }
        UserCommand::Verify(args) => verify(tool, &args).await,
        UserCommand::Hash(args) => hash(tool, &args),
    }
}

async fn add(tool: &mut Tool, args: Add) -> Result<u8, Problem> {
    let password = read(tool, &args.password, &args.name)?;
    let Add { name, send_as, quota, .. } = args;
    let wish = NewUser { name, password, send_as, quota };
    let user: User = tool.daemon().await?.post(path::USERS, &wish, WAIT).await?;
    let may = match user.send_as.is_empty() {
        true => "may send as any address".to_owned(),
        false => format!("may send as {}", user.send_as.join(", ")),
    };
    tool.say_done(&user, &format!("added  {}  ({})", escape(&user.name), escape(&may)))?;
    tool.note("logins are taken where access.basic.enabled is true");
    Ok(0)
}

async fn set(tool: &mut Tool, args: &Set) -> Result<u8, Problem> {
    let enabled = match (args.enabled, args.disabled) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let send_as = match (args.send_as_any, args.send_as.is_empty()) {
        (true, _) => Some(Vec::new()),
        (false, true) => None,
        (false, false) => Some(args.send_as.clone()),
    };
    let quota = args.quota.clone();
    if enabled.is_none() && send_as.is_none() && quota.is_none() {
        return Err(Problem::new("user", Kind::Usage, "nothing is to be changed")
            .hint("say --disabled, --enabled, --send-as, --send-as-any or --quota"));
    }
    let wish = UserWish { enabled, send_as, quota, ..UserWish::default() };
    change(tool, &args.name, &wish).await
}

async fn change(tool: &mut Tool, name: &str, wish: &UserWish) -> Result<u8, Problem> {
    let path = path::fill(path::USER, &[name]);
    let changed: UserChanged = tool.daemon().await?.patch(&path, wish).await?;
    tell(tool, "changed", &changed)
}

fn tell(tool: &Tool, what: &str, changed: &UserChanged) -> Result<u8, Problem> {
    let sessions = match changed.sessions_ended {
        0 => String::new(),
        1 => "; 1 session ended".to_owned(),
        count => format!("; {count} sessions ended"),
    };
    tool.say_done(changed, &format!("{what}  {}{sessions}", escape(&changed.user.name)))?;
    Ok(0)
}

async fn verify(tool: &mut Tool, args: &Passwd) -> Result<u8, Problem> {
    let password = read(tool, &args.password, &args.name)?;
    let path = path::fill(path::USER_VERIFY, &[&args.name]);
    let question = PasswordQuestion { password };
    let answer: PasswordAnswer = tool.daemon().await?.post(&path, &question, WAIT).await?;
    let words = answer.reason.as_deref().unwrap_or("a login would be taken");
    tool.say_done(&answer, &format!("{}: {words}", escape(&args.name)))?;
    Ok(if answer.good { 0 } else { Kind::Found.exit_code() })
}

fn hash(tool: &Tool, args: &Hash) -> Result<u8, Problem> {
    let password = match args.password.read(tool, "the hash")? {
        Some(password) => password,
        None => secret(Place::Stdin, "a password")?,
    };
    let failed = |detail| Problem::new("user", Kind::Failed, detail);
    let mut salt = [0; SALT_OCTETS];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    random.fill(&mut salt).map_err(|_| failed("the system has no randomness"))?;
    let argon2id =
        kept(&password, &salt).ok_or_else(|| failed("the system has no memory for the hash"))?;
    tool.print_object(Hashed { argon2id }, |it| format!("{}\n", it.argon2id))?;
    Ok(0)
}

fn read(tool: &Tool, options: &PasswordOptions, name: &str) -> Result<String, Problem> {
    options.read(tool, name)?.ok_or_else(|| {
        let detail = "no password is given, and nobody can be asked";
        Problem::new("user", Kind::Usage, detail)
            .hint("pass it with --password-stdin or --password-file, never as an argument")
    })
}

impl Row for User {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("state", |it| Cell::text(if it.enabled { "enabled" } else { "disabled" })),
        Column::always("send_as", |it| match it.send_as.is_empty() {
            true => Cell::text("any"),
            false => Cell::text(it.send_as.join(", ")),
        }),
        Column::always("last_login", |it| it.last_login.map_or(Cell::Nothing, Cell::Ago)),
        Column::always("from", |it| {
            it.last_client.map_or(Cell::Nothing, |client| Cell::text(client.to_string()))
        }),
        Column::always("failed", |it| Cell::Count(it.failed)),
        Column::wide("quota", |it| Cell::text(it.quota.as_deref().unwrap_or("unlimited"))),
        Column::wide("password_since", |it| Cell::Ago(it.password_since)),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}
