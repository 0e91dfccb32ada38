//! Choosing objects on the command line.

use std::io::{self, BufRead};

use clap_complete::ArgValueCompleter;
use mailroot_common::control::{Kind, Problem, Selector};

use crate::complete;

/// Conditions that messages are chosen by. All of them must hold.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Selector")]
pub(crate) struct MessageSelection {
    /// Ids, or beginnings of ids with 4 or more characters; - reads ids from standard input.
    #[arg(value_name = "ID", help_heading = "Arguments")]
    #[arg(add = ArgValueCompleter::new(complete::message_ids))]
    ids: Vec<String>,
    /// The sender: a pattern with * and ?, or /a regular expression/; '<>' for none.
    #[arg(long, value_name = "PATTERN")]
    from: Option<String>,
    /// A recipient.
    #[arg(long, value_name = "PATTERN")]
    to: Option<String>,
    /// A recipient's domain.
    #[arg(long, value_name = "PATTERN")]
    domain: Option<String>,
    /// Accepted longer ago, such as 2h.
    #[arg(long, value_name = "SPAN")]
    older_than: Option<String>,
    /// Accepted not longer ago.
    #[arg(long, value_name = "SPAN")]
    newer_than: Option<String>,
    /// The last words of the remote, or a part of them.
    #[arg(long = "reason", value_name = "PATTERN")]
    words: Option<String>,
    /// The size, such as '>5MiB'.
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// Conditions that only messages in the queue have.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Selector")]
pub(crate) struct QueueSelection {
    #[command(flatten)]
    message: MessageSelection,
    /// The subject, or a part of it.
    #[arg(long, value_name = "PATTERN")]
    subject: Option<String>,
    /// The client's address or network.
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// queued, active, retry, held, in_doubt; several separated by commas.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// The last enhanced code, such as '4.7.*'.
    #[arg(long, value_name = "PATTERN")]
    code: Option<String>,
    /// Where the mail goes: a domain, a host, or a pattern for them; drop for Drop.
    #[arg(long, value_name = "PATTERN")]
    destination: Option<String>,
}

/// Conditions that sessions are chosen by.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Selector")]
pub(crate) struct SessionSelection {
    /// Ids, or beginnings of ids with 4 or more characters; - reads ids from standard input.
    #[arg(value_name = "ID", help_heading = "Arguments")]
    #[arg(add = ArgValueCompleter::new(complete::session_ids))]
    ids: Vec<String>,
    /// The other side's address or network.
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// Begun longer ago, such as 2h.
    #[arg(long, value_name = "SPAN")]
    older_than: Option<String>,
    /// Everything.
    #[arg(long)]
    all: bool,
}

/// Conditions that stories of messages are chosen by. All of them must hold.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Selector")]
pub(crate) struct TraceSelection {
    /// Ids, or beginnings of ids with 4 or more characters; - reads ids from standard input.
    #[arg(value_name = "ID", help_heading = "Arguments")]
    ids: Vec<String>,
    /// The sender: a pattern with * and ?, or /a regular expression/; '<>' for none.
    #[arg(long, value_name = "PATTERN")]
    from: Option<String>,
    /// A recipient.
    #[arg(long, value_name = "PATTERN")]
    to: Option<String>,
    /// A recipient's domain.
    #[arg(long, value_name = "PATTERN")]
    domain: Option<String>,
    /// The subject, or a part of it.
    #[arg(long, value_name = "PATTERN")]
    subject: Option<String>,
    /// The client's address or network.
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// Accepted longer ago, such as 2h.
    #[arg(long, value_name = "SPAN")]
    older_than: Option<String>,
    /// Accepted not longer ago.
    #[arg(long, value_name = "SPAN", visible_alias = "since")]
    newer_than: Option<String>,
}

/// Conditions that lines of the log are chosen by. All of them must hold.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Selector")]
pub(crate) struct LogSelection {
    /// Ids of messages or sessions, or beginnings of ids with 4 or more characters; - reads ids from
    /// standard input.
    #[arg(value_name = "ID", help_heading = "Arguments")]
    ids: Vec<String>,
    /// The sender: a pattern with * and ?, or /a regular expression/; '<>' for none.
    #[arg(long, value_name = "PATTERN")]
    from: Option<String>,
    /// The recipient.
    #[arg(long, value_name = "PATTERN")]
    to: Option<String>,
    /// The recipient's domain.
    #[arg(long, value_name = "PATTERN")]
    domain: Option<String>,
    /// The client's address or network.
    #[arg(long, value_name = "CIDR")]
    client: Option<String>,
    /// The words of the remote or the reason, or a part of them.
    #[arg(long = "reason", value_name = "PATTERN")]
    words: Option<String>,
}

impl LogSelection {
    /// Whether it looks for addresses by more than their domain.
    pub(crate) fn names_people(&self) -> bool {
        let is_one = |it: &&String| it.as_str() != "<>" && !it.starts_with("*@");
        [&self.from, &self.to].into_iter().flatten().any(|it| is_one(&it))
    }

    /// The selector meant, on one server or on all.
    pub(crate) fn selector(&self, server: Option<&str>) -> Result<Selector, Problem> {
        checked(Selector {
            ids: read_ids(&self.ids)?,
            from: self.from.clone(),
            to: self.to.clone(),
            domain: self.domain.clone(),
            client: self.client.clone(),
            reason: self.words.clone(),
            server: server.map(str::to_owned),
            ..Selector::default()
        })
    }
}

impl TraceSelection {
    /// The selector meant, on one server or on all.
    pub(crate) fn selector(&self, server: Option<&str>) -> Result<Selector, Problem> {
        checked(Selector {
            ids: read_ids(&self.ids)?,
            from: self.from.clone(),
            to: self.to.clone(),
            domain: self.domain.clone(),
            subject: self.subject.clone(),
            client: self.client.clone(),
            older_than: self.older_than.clone(),
            newer_than: self.newer_than.clone(),
            server: server.map(str::to_owned),
            ..Selector::default()
        })
    }
}

impl MessageSelection {
    /// These ids and nothing else.
    pub(crate) fn of_ids(ids: Vec<String>) -> Self {
        Self { ids, ..Self::default() }
    }

    /// The selector meant, on one server or on all.
    pub(crate) fn selector(&self, server: Option<&str>) -> Result<Selector, Problem> {
        checked(Selector {
            ids: read_ids(&self.ids)?,
            from: self.from.clone(),
            to: self.to.clone(),
            domain: self.domain.clone(),
            older_than: self.older_than.clone(),
            newer_than: self.newer_than.clone(),
            reason: self.words.clone(),
            size: self.size.clone(),
            server: server.map(str::to_owned),
            all: self.all,
            ..Selector::default()
        })
    }
}

impl QueueSelection {
    /// The selector meant, on one server or on all.
    pub(crate) fn selector(&self, server: Option<&str>) -> Result<Selector, Problem> {
        checked(Selector {
            subject: self.subject.clone(),
            client: self.client.clone(),
            state: self.state.clone(),
            code: self.code.clone(),
            destination: self.destination.clone(),
            ..self.message.selector(server)?
        })
    }
}

impl SessionSelection {
    /// The selector meant, on one server or on all.
    pub(crate) fn selector(&self, server: Option<&str>) -> Result<Selector, Problem> {
        checked(Selector {
            ids: read_ids(&self.ids)?,
            client: self.client.clone(),
            older_than: self.older_than.clone(),
            server: server.map(str::to_owned),
            all: self.all,
            ..Selector::default()
        })
    }
}

/// Checks everything but the number of ids, which is divided among requests later.
fn checked(selector: Selector) -> Result<Selector, Problem> {
    let few = Selector { ids: Vec::new(), ..selector.clone() };
    let ids = selector.ids.chunks(1_000).map(|ids| Selector { ids: ids.to_vec(), ..few.clone() });
    for part in std::iter::once(few.clone()).chain(ids) {
        let compiled = part.compile();
        compiled.map_err(|error| Problem::new("selector", Kind::Usage, error.to_string()))?;
    }
    Ok(selector)
}

/// The ids given, where `-` stands for the first word of every line of standard input.
fn read_ids(given: &[String]) -> Result<Vec<String>, Problem> {
    let mut ids = Vec::with_capacity(given.len());
    for id in given {
        if id == "-" {
            read_lines(io::stdin().lock(), &mut ids)?;
        } else {
            ids.push(id.clone());
        }
    }
    if ids.is_empty() && !given.is_empty() {
        return Err(Problem::new("selector", Kind::NotFound, "standard input named no id"));
    }
    Ok(ids)
}

fn read_lines(input: impl BufRead, ids: &mut Vec<String>) -> Result<(), Problem> {
    for line in input.lines() {
        let line = line.map_err(|error| {
            let detail = format!("cannot read ids from standard input: {error}");
            Problem::new("selector", Kind::Usage, detail)
        })?;
        ids.extend(line.split_whitespace().next().map(str::to_owned));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_names_one_id_per_line() {
        let mut ids = Vec::new();
        read_lines("6FZK3QB27N5C\n\n  7000 rest of a table\n".as_bytes(), &mut ids).unwrap();
        assert_eq!(ids, ["6FZK3QB27N5C", "7000"]);
        assert!(read_lines(&b"\xff\n"[..], &mut ids).is_err());
    }

    #[test]
    fn mistakes_are_told_before_the_daemon_is_asked() {
        let bad = MessageSelection { older_than: Some("2".to_owned()), ..Default::default() };
        assert_eq!(bad.selector(None).unwrap_err().exit, 2);
        let bad = SessionSelection { client: Some("10.0.0.1/8".to_owned()), ..Default::default() };
        assert_eq!(bad.selector(None).unwrap_err().exit, 2);
        let many = MessageSelection { ids: vec!["6FZK".to_owned(); 25_000], ..Default::default() };
        let many = QueueSelection { message: many, ..Default::default() };
        assert_eq!(many.selector(Some("lan")).unwrap().ids.len(), 25_000);
    }
}
