//! `dkim`: keys that mail is signed with on its way out, and their records in DNS.

use std::io::Write as _;
use std::time::Duration;

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    DkimKey, DkimRecord, Edited, NewDkimKey, Problem, RecordState, path,
};

use crate::complete;
use crate::io_problem;
use crate::output::{Cell, Column, Row, escape};
use crate::terms::{TermOptions, report};
use crate::tool::{Tool, stdout};

/// A large key may take a while to be made.
const MAKE_WAIT: Duration = Duration::from_secs(60);
/// The longest string of a TXT record (RFC 1035 section 3.3).
const STRING_OCTETS_MAX: usize = 255;

/// The verbs of `dkim`.
#[derive(Debug, Subcommand)]
pub(crate) enum DkimCommand {
    /// List the keys, and what is wrong with them.
    #[command(visible_alias = "ls")]
    List,
    /// Make a key for a domain and sign its mail from now on, beside the keys it has.
    Create(Create),
    /// Print the records that publish the keys of a domain, and whether DNS has them.
    Dns(Dns),
    /// Sign no more with a key; its file stays in secrets.d.
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The domain that stands in From.
    #[arg(value_name = "DOMAIN")]
    domain: String,
    /// The key's name in DNS; the first of mr1, mr2 and so on that is free by default.
    #[arg(long, value_name = "NAME")]
    selector: Option<String>,
    /// The kind of key; rsa by default, which every receiver can check.
    #[arg(long = "type", value_parser = ["rsa", "ed25519"])]
    algorithm: Option<String>,
    /// The size of an RSA key: 2048 by default, 3072 or 4096.
    #[arg(long, value_name = "N")]
    bits: Option<u32>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Dns {
    /// The domain.
    #[arg(value_name = "DOMAIN", add = ArgValueCompleter::new(complete::dkim_domains))]
    domain: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The domain.
    #[arg(value_name = "DOMAIN", add = ArgValueCompleter::new(complete::dkim_domains))]
    domain: String,
    /// Which of its keys.
    #[arg(long, value_name = "NAME")]
    selector: String,
    #[command(flatten)]
    terms: TermOptions,
}

pub(crate) async fn run(tool: &mut Tool, command: DkimCommand) -> Result<u8, Problem> {
    match command {
        DkimCommand::List => {
            let path = path::fill(path::DKIM, &[tool.server()]);
            let keys: Vec<DkimKey> = tool.daemon().await?.get(&path).await?;
            tool.print_rows(keys)?;
            Ok(0)
        }
        DkimCommand::Create(args) => create(tool, args).await,
        DkimCommand::Dns(args) => dns(tool, &args.domain).await,
        DkimCommand::Remove(args) => {
            let names = [tool.server(), &args.domain, &args.selector];
            let path = args.terms.on(&path::fill(path::DKIM_KEY, &names))?;
            let edited: Edited = tool.daemon().await?.delete(&path).await?;
            report(tool, &edited)
        }
    }
}

async fn create(tool: &mut Tool, args: Create) -> Result<u8, Problem> {
    let path = args.terms.on(&path::fill(path::DKIM, &[tool.server()]))?;
    let Create { domain, selector, algorithm, bits, .. } = args;
    let wish = NewDkimKey { domain, selector, algorithm, bits };
    let edited: Edited = tool.daemon().await?.post(&path, &wish, MAKE_WAIT).await?;
    let code = report(tool, &edited)?;
    if !edited.dry_run {
        tool.note(&format!("publish it now: smtpctl dkim dns {}", escape(&wish.domain)));
    }
    Ok(code)
}

/// Prints lines of a zone file, with what DNS has as a comment behind each.
async fn dns(tool: &mut Tool, domain: &str) -> Result<u8, Problem> {
    let path = path::fill(path::DKIM_RECORDS, &[tool.server(), domain]);
    let records: Vec<DkimRecord> = tool.daemon().await?.get(&path).await?;
    if tool.print_data(&records)? {
        return Ok(0);
    }
    for record in &records {
        let state = state(record);
        let line = match &record.text {
            Some(text) => format!("{}. TXT {}   ; {state}", record.name, strings(text)),
            None => format!("; {}. {state}", record.name),
        };
        writeln!(stdout(), "{}", escape(&line)).map_err(io_problem)?;
    }
    Ok(0)
}

fn state(record: &DkimRecord) -> String {
    let why = record.why.as_deref().unwrap_or_default();
    match record.state {
        RecordState::Published => "in DNS".to_owned(),
        RecordState::Different => {
            format!("DNS has something else: {:?}", record.found.join(" | "))
        }
        RecordState::Absent => "not in DNS yet".to_owned(),
        RecordState::Unknown => format!("not known: {why}"),
    }
}

/// The text in as many strings as it needs. It has neither quotes nor backslashes.
fn strings(text: &str) -> String {
    let parts = text.as_bytes().chunks(STRING_OCTETS_MAX);
    let parts: Vec<String> =
        parts.map(|part| format!("\"{}\"", String::from_utf8_lossy(part))).collect();
    parts.join(" ")
}

impl Row for DkimKey {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("domain", |it| Cell::text(&*it.domain)),
        Column::always("selector", |it| Cell::text(&*it.selector)),
        Column::always("type", |it| match (&it.algorithm, it.bits) {
            (Some(kind), Some(bits)) if kind == "rsa" => Cell::text(format!("{kind} {bits}")),
            (kind, _) => Cell::maybe(kind.as_deref()),
        }),
        Column::always("subdomains", |it| Cell::text(if it.subdomains { "yes" } else { "no" })),
        Column::always("state", |it| Cell::text(it.trouble.as_deref().unwrap_or("ok"))),
        Column::wide("key", |it| Cell::text(&*it.key_at)),
        Column::wide("server", |it| Cell::text(&*it.server)),
    ];

    fn id(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_have_several_strings() {
        assert_eq!(strings("short"), "\"short\"");
        let long = strings(&"x".repeat(300));
        let parts: Vec<usize> = long.split(' ').map(str::len).collect();
        assert_eq!(parts, [257, 47]);
    }
}
