//! Completion of command lines in shells, with names and ids as the daemon knows them now.
//!
//! `completion SHELL` prints what a shell is to read once; it then asks this program for each word,
//! through an environment variable. A daemon that does not answer at once completes nothing.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::CommandFactory;
use clap_complete::engine::CompletionCandidate;
use clap_complete::env::{CompleteEnv, Shells};
use mailroot_common::control::{
    BadmailEntry, DkimKey, Domain, Kind, Problem, QueueEntry, Server, Session, SmartHost, path,
};
use serde::de::DeserializeOwned;

use crate::args::Args;
use crate::client::Client;
use crate::io_problem;
use crate::tool::{socket, stdout};

/// The variable by which a shell asks.
const VARIABLE: &str = "SMTPCTL_COMPLETE";
/// How long a person waits for a list of words.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most ids that are offered.
const IDS_MAX: usize = 50;

/// The arguments of `completion`.
#[derive(Debug, clap::Args)]
pub(crate) struct Completion {
    /// The shell.
    #[arg(value_name = "SHELL", value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

/// Answers a shell that asks, and says whether one did.
pub(crate) fn answer(line: &[OsString]) -> bool {
    let shell = CompleteEnv::with_factory(Args::command).var(VARIABLE);
    // What a shell shows of an error would only be in the way.
    shell.try_complete(line.iter().cloned(), None).unwrap_or(true)
}

/// Prints what a shell reads to complete our lines.
pub(crate) fn register(args: &Completion) -> Result<u8, Problem> {
    let shells = Shells::builtins();
    let shell = shells
        .completer(&args.shell)
        .ok_or_else(|| Problem::new("client", Kind::Usage, "no such shell"))?;
    shell
        .write_registration(VARIABLE, "smtpctl", "smtpctl", "smtpctl", &mut stdout())
        .map_err(io_problem)?;
    Ok(0)
}

/// Names of virtual servers.
pub(crate) fn servers(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| {
        let servers: Vec<Server> = client.get(path::SERVERS).await?;
        Ok(servers.into_iter().map(|server| server.name).collect())
    })
}

/// Domains of the virtual server of the line.
pub(crate) fn domains(current: &OsStr) -> Vec<CompletionCandidate> {
    let server = on_line(&["-s", "--server"]).or_else(|| std::env::var("SMTPCTL_SERVER").ok());
    ask(current, async |client| {
        let path = path::fill(path::DOMAINS, &[server.as_deref().unwrap_or("default")]);
        let domains: Vec<Domain> = client.get(&path).await?;
        Ok(domains.into_iter().map(|domain| domain.name).collect())
    })
}

/// Ids of messages: those in Badmail on a line about Badmail, else those that wait.
pub(crate) fn message_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    let is_badmail = std::env::args().any(|word| word == "badmail" || word == "bm");
    if is_badmail {
        ids(current, path::BADMAIL, |entry: BadmailEntry| entry.id)
    } else {
        ids(current, path::QUEUE, |entry: QueueEntry| entry.id.to_string())
    }
}

/// Names of smart hosts.
pub(crate) fn smart_hosts(current: &OsStr) -> Vec<CompletionCandidate> {
    ask(current, async |client| {
        let hosts: Vec<SmartHost> = client.get(path::SMARTHOSTS).await?;
        Ok(hosts.into_iter().map(|host| host.name).collect())
    })
}

/// Domains with keys of the virtual server of the line.
pub(crate) fn dkim_domains(current: &OsStr) -> Vec<CompletionCandidate> {
    let server = on_line(&["-s", "--server"]).or_else(|| std::env::var("SMTPCTL_SERVER").ok());
    ask(current, async |client| {
        let path = path::fill(path::DKIM, &[server.as_deref().unwrap_or("default")]);
        let keys: Vec<DkimKey> = client.get(&path).await?;
        let mut names: Vec<String> = keys.into_iter().map(|key| key.domain).collect();
        names.dedup();
        Ok(names)
    })
}

/// Ids of sessions.
pub(crate) fn session_ids(current: &OsStr) -> Vec<CompletionCandidate> {
    ids(current, path::SESSIONS, |session: Session| session.id.to_string())
}

fn ids<T: DeserializeOwned>(
    current: &OsStr,
    list: &str,
    id: impl Fn(T) -> String,
) -> Vec<CompletionCandidate> {
    let begin = current.to_string_lossy().to_uppercase();
    ask(current, async |client| {
        let mut ids = Vec::new();
        let take = |entry: T| {
            ids.extend(Some(id(entry)).filter(|id| id.starts_with(&begin)));
            Ok(ids.len() < IDS_MAX)
        };
        client.lines(list, take).await?;
        Ok(ids)
    })
}

/// The words that begin as the current one does; none where the daemon is not there.
fn ask(
    current: &OsStr,
    question: impl AsyncFnOnce(&mut Client) -> Result<Vec<String>, Problem>,
) -> Vec<CompletionCandidate> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let home = on_line(&["--home"]).map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("MAILROOT_HOME").map(PathBuf::from));
    let given = on_line(&["--socket"]).map(PathBuf::from);
    let socket = socket(given.as_deref(), home.as_deref());
    let asked = runtime.block_on(async {
        let asked = async {
            let mut client = Client::connect(&socket).await?;
            question(&mut client).await
        };
        tokio::time::timeout(PATIENCE, asked).await
    });
    let words = asked.ok().and_then(Result::ok).unwrap_or_default();
    let begin = current.to_string_lossy().to_lowercase();
    let fits = |word: &String| word.to_lowercase().starts_with(&begin);
    words.into_iter().filter(fits).map(CompletionCandidate::new).collect()
}

/// The value of an option on the line that is being completed.
fn on_line(names: &[&str]) -> Option<String> {
    value_of(&std::env::args().collect::<Vec<_>>(), names)
}

fn value_of(words: &[String], names: &[&str]) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        for name in names {
            if word == name {
                return words.next().cloned();
            }
            if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value.to_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_line_are_found_in_both_forms() {
        let words: Vec<String> =
            ["smtpctl", "--home", "/x", "-s", "lan", "queue"].map(str::to_owned).to_vec();
        assert_eq!(value_of(&words, &["--home"]).as_deref(), Some("/x"));
        assert_eq!(value_of(&words, &["-s", "--server"]).as_deref(), Some("lan"));
        let words: Vec<String> = ["smtpctl", "--home=/y"].map(str::to_owned).to_vec();
        assert_eq!(value_of(&words, &["--home"]).as_deref(), Some("/y"));
        assert_eq!(value_of(&words, &["--socket"]), None);
    }
}
