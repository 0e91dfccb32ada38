//! `access` and `relay`: the two lists of clients, who may connect and who may send mail onward.

use clap::Subcommand;
use mailroot_common::control::{
    AccessEntry, AccessList, Decision, KeyEdit, Kind, Outcome, Problem, Question, path,
};
use mailroot_common::net::Network;
use mailroot_common::units::{Span, Timestamp};

use crate::client::WAIT;
use crate::output::{Cell, Column, Row};
use crate::route::print_decision;
use crate::server::change::edit_keys;
use crate::terms::TermOptions;
use crate::tool::{Tool, now};

/// The verbs of both.
#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// List the entries.
    #[command(visible_alias = "ls")]
    List,
    /// Let clients in: put them on a list of those who may, or take them off one of those who may
    /// not.
    Allow(Entries),
    /// Keep clients out: the opposite.
    Deny(Entries),
    /// Take entries off the list.
    #[command(visible_alias = "rm")]
    Remove(Remove),
    /// Say how the list is meant.
    Policy(SetPolicy),
    /// Say what would be decided about a client, and by which line.
    Test(Test),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Entries {
    /// Addresses, networks, host names, or *.DOMAIN.
    #[arg(value_name = "ENTRY", required = true)]
    entries: Vec<String>,
    /// What to remember about them.
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// Of relay: also where that makes an open relay.
    #[arg(long)]
    i_want_an_open_relay: bool,
    /// End them after a while, such as 12h or 7d.
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<Span>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The entries.
    #[arg(value_name = "ENTRY", required = true)]
    entries: Vec<String>,
    /// Be content if they are not there.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Meaning {
    /// Only the list below.
    #[arg(long, conflicts_with = "all_except")]
    only: bool,
    /// All except the list below.
    #[arg(long)]
    all_except: bool,
    /// Of relay: clients that have logged in may, whatever the list says.
    #[arg(long, conflicts_with = "no_authenticated")]
    authenticated: bool,
    /// Of relay: they may only as the list says.
    #[arg(long)]
    no_authenticated: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SetPolicy {
    #[command(flatten)]
    meaning: Meaning,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    client: String,
    /// The recipient; for relay [default: one at a domain that nobody named].
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Who may connect.
    Connect,
    /// Who may relay.
    Relay,
}

impl Which {
    const fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Relay => "relay",
        }
    }

    fn key(self, name: &str) -> String {
        format!("access.{}.{name}", self.word())
    }
}

impl Meaning {
    fn edits(&self, which: Which) -> Result<Vec<KeyEdit>, Problem> {
        if which == Which::Connect && (self.authenticated || self.no_authenticated) {
            let detail = "--authenticated and --no-authenticated are for relay policy";
            return Err(Problem::new("access", Kind::Usage, detail)
                .hint("nobody has logged in before he is connected"));
        }
        let wishes = [
            (self.only, "policy", "only"),
            (self.all_except, "policy", "all-except"),
            (self.authenticated, "authenticated", "true"),
            (self.no_authenticated, "authenticated", "false"),
        ];
        let set = |(_, key, value): (bool, &str, &str)| KeyEdit::Set {
            key: which.key(key),
            value: value.to_owned(),
        };
        Ok(wishes.into_iter().filter(|wish| wish.0).map(set).collect())
    }
}

impl Row for AccessEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("entry", |it| Cell::text(&*it.entry)),
        Column::always("comment", |it| Cell::maybe(it.comment.as_deref())),
        Column::always("left", |it| match it.until {
            Some(_) if it.expired => Cell::text("expired"),
            Some(until) => Cell::Until(until),
            None => Cell::Nothing,
        }),
        Column::always("hits", |it| Cell::Count(it.hits)),
        Column::always("last_used", |it| it.last_used.map_or(Cell::Nothing, Cell::Ago)),
        Column::wide("origin", |it| Cell::text(&*it.origin)),
    ];

    fn id(&self) -> String {
        self.entry.clone()
    }
}

pub(crate) async fn run(
    tool: &mut Tool,
    which: Which,
    command: AccessCommand,
) -> Result<u8, Problem> {
    match command {
        AccessCommand::List => {
            let list = read(tool, which).await?;
            if tool.print_data(&list)? {
                return Ok(0);
            }
            tool.note(match list.policy.as_str() {
                "only" => "only the list below",
                _ => "all except the list below",
            });
            tool.print_rows(list.entries)?;
            Ok(0)
        }
        AccessCommand::Allow(args) => turn(tool, which, &args, true).await,
        AccessCommand::Deny(args) => turn(tool, which, &args, false).await,
        AccessCommand::Remove(args) => remove(tool, which, &args).await,
        AccessCommand::Policy(args) => {
            edit_server(tool, args.meaning.edits(which)?, &args.terms).await
        }
        AccessCommand::Test(args) => test(tool, which, &args).await,
    }
}

async fn read(tool: &mut Tool, which: Which) -> Result<AccessList, Problem> {
    let path = path::fill(path::ACCESS, &[tool.server(), which.word()]);
    tool.daemon().await?.get(&path).await
}

async fn edit_server(
    tool: &mut Tool,
    edits: Vec<KeyEdit>,
    terms: &TermOptions,
) -> Result<u8, Problem> {
    let path = path::fill(path::SERVER, &[tool.server()]);
    edit_keys(tool, &path, edits, terms).await
}

/// Puts entries on the list or takes them off it, as its policy wants.
async fn turn(tool: &mut Tool, which: Which, args: &Entries, allow: bool) -> Result<u8, Problem> {
    let list = read(tool, which).await?;
    let adds = (list.policy == "only") == allow;
    if !adds && (args.span.is_some() || args.comment.is_some()) {
        let detail = format!(
            "the list is {:?}, so this takes entries off it: --for and --comment have no place",
            list.policy
        );
        return Err(Problem::new("access", Kind::Usage, detail));
    }
    let until = args.span.map(|span| now().after(span));
    let mut edits = Vec::new();
    if args.i_want_an_open_relay {
        if which == Which::Connect || !allow {
            let detail = "--i-want-an-open-relay is for relay allow";
            return Err(Problem::new("access", Kind::Usage, detail));
        }
        let key = which.key("i_want_an_open_relay");
        edits.push(KeyEdit::Set { key, value: "true".to_owned() });
    }
    if !adds {
        edits.extend(taken_off(&list, which, &args.entries)?);
        return edit_server(tool, edits, &args.terms).await;
    }
    for entry in &args.entries {
        let there = list.entries.iter().find(|it| names(it, entry));
        edits.extend(put(&which.key("list"), entry, there, args.comment.as_deref(), until));
    }
    edit_server(tool, edits, &args.terms).await
}

fn names(entry: &AccessEntry, wanted: &str) -> bool {
    entry.entry.eq_ignore_ascii_case(wanted)
}

/// What takes the wanted entries off the list. An entry that stays and is about some of the same
/// clients would decide as before; so nothing is done then.
fn taken_off(list: &AccessList, which: Which, wanted: &[String]) -> Result<Vec<KeyEdit>, Problem> {
    let is_wanted = |it: &AccessEntry| wanted.iter().any(|entry| names(it, entry));
    for entry in wanted {
        let other = |it: &&AccessEntry| !is_wanted(it) && !it.expired && overlap(&it.entry, entry);
        if let Some(other) = list.entries.iter().find(other) {
            let verb = if list.policy == "only" { "lets in" } else { "keeps out" };
            let command = if which == Which::Relay { "relay" } else { "access" };
            let detail = format!("the entry {} still {verb} clients of {entry}", other.entry);
            let hint = format!(
                "smtpctl {command} remove {} takes it off; put back what is to stay of it",
                other.entry
            );
            return Err(Problem::new("access", Kind::Conflict, detail).hint(hint));
        }
    }
    let taken = list.entries.iter().filter(|it| is_wanted(it));
    Ok(taken.map(|it| KeyEdit::Remove { key: which.key("list"), item: it.entry.clone() }).collect())
}

/// Whether two entries are about some of the same clients, as far as their words tell.
fn overlap(one: &str, other: &str) -> bool {
    if let (Ok(one), Ok(other)) = (Network::parse(one), Network::parse(other)) {
        return one.overlaps(&other);
    }
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let under = |name: &str, pattern: &str| {
        pattern.strip_prefix('*').is_some_and(|domain| name.ends_with(domain))
    };
    one == other || under(&one, &other) || under(&other, &one)
}

/// Has an entry on the list with this comment and this end. One that is there otherwise is
/// replaced; its comment stays where no other is given, its end does not.
fn put(
    key: &str,
    entry: &str,
    there: Option<&AccessEntry>,
    comment: Option<&str>,
    until: Option<Timestamp>,
) -> Vec<KeyEdit> {
    let old_comment = there.and_then(|it| it.comment.as_deref());
    let comment = comment.or(old_comment);
    if there.is_some_and(|it| it.until == until && old_comment == comment) {
        return Vec::new();
    }
    let key = key.to_owned();
    let item = worded(entry, comment, until);
    let removed = there.map(|it| KeyEdit::Remove { key: key.clone(), item: it.entry.clone() });
    removed.into_iter().chain([KeyEdit::Add { key, item }]).collect()
}

/// An entry as it stands in a list, with a comment and an end if there are any.
fn worded(entry: &str, comment: Option<&str>, until: Option<Timestamp>) -> String {
    if comment.is_none() && until.is_none() {
        return entry.to_owned();
    }
    let comment = comment.map(|comment| format!(", comment: {comment:?}")).unwrap_or_default();
    let until = until.map(|until| format!(", until: \"{until}\"")).unwrap_or_default();
    format!("{{net: {entry:?}{comment}{until}}}")
}

async fn remove(tool: &mut Tool, which: Which, args: &Remove) -> Result<u8, Problem> {
    let mut wanted = args.entries.clone();
    if args.if_exists {
        let list = read(tool, which).await?;
        wanted.retain(|entry| list.entries.iter().any(|it| it.entry.eq_ignore_ascii_case(entry)));
    }
    let key = which.key("list");
    let edit = |item: String| KeyEdit::Remove { key: key.clone(), item };
    let edits = wanted.into_iter().map(edit).collect();
    edit_server(tool, edits, &args.terms).await
}

async fn test(tool: &mut Tool, which: Which, args: &Test) -> Result<u8, Problem> {
    let stranger = || "somebody@elsewhere.invalid".to_owned();
    let to = match which {
        Which::Connect => args.to.clone(),
        Which::Relay => Some(args.to.clone().unwrap_or_else(stranger)),
    };
    let question = Question { client: Some(args.client.clone()), to, ..Question::default() };
    let path = path::fill(path::DECIDE, &[tool.server()]);
    let mut decision: Decision = tool.daemon().await?.post(&path, &question, WAIT).await?;
    decision.way = None;
    match which {
        Which::Connect => decision.relay = None,
        Which::Relay if decision.connect.as_ref().is_some_and(is_yes) => decision.connect = None,
        Which::Relay => decision.relay = None,
    }
    let yes = [&decision.connect, &decision.relay].into_iter().flatten().all(is_yes);
    print_decision(tool, &decision)?;
    Ok(if yes { 0 } else { Kind::Found.exit_code() })
}

fn is_yes(judgement: &mailroot_common::control::Judgement) -> bool {
    judgement.outcome == Outcome::Allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_with_a_comment_is_a_mapping() {
        assert_eq!(worded("10.0.0.0/8", None, None), "10.0.0.0/8");
        let text = worded("10.0.0.0/8", Some("a \"b\", c"), None);
        assert_eq!(text, r#"{net: "10.0.0.0/8", comment: "a \"b\", c"}"#);
        let text = worded("::1", None, Some(Timestamp::from_millis(1_764_000_000_000)));
        assert_eq!(text, r#"{net: "::1", until: "2025-11-24T16:00:00.000Z"}"#);
    }

    #[test]
    fn entries_overlap_by_networks_and_by_names() {
        assert!(overlap("127.0.0.0/8", "127.0.0.5") && overlap("127.0.0.5", "127.0.0.0/8"));
        assert!(overlap("*.lan.example", "PC1.lan.example"));
        assert!(overlap("*.example", "*.lan.example"));
        assert!(!overlap("*.lan.example", "lan.example"));
        assert!(!overlap("10.0.0.0/8", "pc1.lan.example"));
    }

    #[test]
    fn an_entry_that_is_there_is_replaced_only_if_it_differs() {
        let end = Some(Timestamp::from_millis(1_764_000_000_000));
        let there = |until| AccessEntry {
            entry: "::1".to_owned(),
            comment: Some("us".to_owned()),
            origin: String::new(),
            until,
            expired: false,
            hits: 0,
            last_used: None,
        };
        assert!(put("k", "::1", Some(&there(None)), None, None).is_empty());
        assert_eq!(put("k", "::1", None, None, None).len(), 1);
        let edits = put("k", "::1", Some(&there(end)), None, None);
        let item = r#"{net: "::1", comment: "us"}"#.to_owned();
        assert_eq!(
            edits[1..],
            [KeyEdit::Add { key: "k".to_owned(), item }],
            "it stays from now on"
        );
    }
}
