//! `user`: who may log in to send mail.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use mailroot_common::control::{
    Kind, NewUser, PasswordAnswer, PasswordQuestion, Problem, User, UserChanged, UserWish, path,
};
use mailroot_common::password::{Kept, OCTETS_MAX, SALT_OCTETS, is_password};
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
    Remove(Remove),
    /// Say whether a login with this password would be taken: exit code 0 or 10.
    Verify(Verify),
    /// Print what a password is told by, for user add --hash-stdin here or on another machine. It is asked
    /// for, or read from standard input or as the options say. The daemon is not asked.
    Hash(Hash),
}

/// A password, or what it is told by.
#[derive(Debug, clap::Args)]
pub(crate) struct SecretOptions {
    #[command(flatten)]
    password: PasswordOptions,
    /// Read what user hash printed of the password from standard input.
    #[arg(long, conflicts_with = "PasswordOptions")]
    hash_stdin: bool,
    /// Read what user hash printed of the password from a file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["PasswordOptions", "hash_stdin"])]
    hash_file: Option<PathBuf>,
}

impl SecretOptions {
    /// Either the password or its hash.
    fn read(&self, tool: &Tool, name: &str) -> Result<(Option<String>, Option<String>), Problem> {
        match Place::of(self.hash_stdin, self.hash_file.as_deref()) {
            Some(place) => Ok((None, Some(secret(place, "a hash")?))),
            None => read(tool, &self.password, name).map(|password| (Some(password), None)),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Hash {
    #[command(flatten)]
    password: PasswordOptions,
}

/// What a password is told by.
#[derive(Debug, Serialize)]
struct Hashed {
    hash: String,
}

impl Row for Hashed {
    const COLUMNS: &'static [Column<Self>] = &[Column::always("hash", |it| Cell::text(&*it.hash))];

    fn id(&self) -> String {
        self.hash.clone()
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The name.
    #[arg(value_name = "NAME")]
    name: String,
    /// Be content if there is nobody of the name.
    #[arg(long)]
    if_exists: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The name to log in with.
    #[arg(value_name = "NAME")]
    name: String,
    /// Be content if there is one of the name; he stays as he is.
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    secret: SecretOptions,
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
    secret: SecretOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
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
            let (password, hash) = args.secret.read(tool, &args.name)?;
            change(tool, &args.name, &UserWish { password, hash, ..UserWish::default() }).await
        }
        UserCommand::Set(args) => set(tool, &args).await,
        UserCommand::Remove(args) => remove(tool, &args).await,
        UserCommand::Verify(args) => verify(tool, &args).await,
        UserCommand::Hash(args) => hash(tool, &args),
    }
}

async fn add(tool: &mut Tool, args: Add) -> Result<u8, Problem> {
    let (password, hash) = args.secret.read(tool, &args.name)?;
    let Add { name, send_as, quota, if_not_exists, .. } = args;
    let wish = NewUser { name, password, hash, send_as, quota };
    let answer = tool.daemon().await?.post::<User>(path::USERS, &wish, WAIT).await;
    let user = match answer {
        Err(problem) if if_not_exists && &*problem.code == "user.exists" => {
            return unchanged(tool, "it exists already");
        }
        answer => answer?,
    };
    let may = match user.send_as.is_empty() {
        true => "may send as any address".to_owned(),
        false => format!("may send as {}", user.send_as.join(", ")),
    };
    tool.say_done(&user, &format!("added  {}  ({})", escape(&user.name), escape(&may)))?;
    tool.note("logins are taken where access.basic.enabled is true");
    Ok(0)
}

async fn remove(tool: &mut Tool, args: &Remove) -> Result<u8, Problem> {
    let path = path::fill(path::USER, &[&args.name]);
    let answer = tool.daemon().await?.delete::<UserChanged>(&path).await;
    match answer {
        Err(problem) if args.if_exists && &*problem.code == "user.not_found" => {
            unchanged(tool, "unchanged")
        }
        answer => tell(tool, "removed", &answer?),
    }
}

fn unchanged(tool: &Tool, words: &str) -> Result<u8, Problem> {
    tool.say_done(&serde_json::json!({ "changed": false }), words)?;
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

async fn verify(tool: &mut Tool, args: &Verify) -> Result<u8, Problem> {
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
    if !is_password(&password) {
        let detail = format!("a password is one line of at most {OCTETS_MAX} octets");
        return Err(Problem::new("user", Kind::Usage, detail));
    }
    let failed = |detail| Problem::new("user", Kind::Failed, detail);
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let mut salts = [[0; SALT_OCTETS]; 2];
    for salt in &mut salts {
        random.fill(salt).map_err(|_| failed("the system has no randomness"))?;
    }
    let kept = Kept::of(&password, salts.each_ref())
        .ok_or_else(|| failed("the system has no memory for the hash"))?;
    tool.print_object(Hashed { hash: kept.to_string() }, |it| format!("{}\n", it.hash))?;
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
