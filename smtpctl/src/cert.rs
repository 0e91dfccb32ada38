//! `cert`: certificates that clients are shown.

mod acme;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use mailroot_common::control::{Certificate, Edited, Kind, NewCertificate, Problem, path};

use crate::output::{Cell, Column, Row};
use crate::password;
use crate::terms::{TermOptions, report};
use crate::tool::Tool;

/// The verbs of `cert`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// List them: for whom they are, by whom, until when, and who shows them.
    #[command(visible_alias = "ls")]
    List,
    /// Show one with everything that is known of it.
    Show(Named),
    /// Keep a certificate and its key, or another in its place; shown from the next client on.
    Install(Install),
    /// Make a certificate that signs itself.
    SelfSigned(SelfSigned),
    /// Have a certificate asked of an authority, now and whenever it is to be renewed.
    Request(acme::Request),
    /// Ask the authority anew, whether it is time or not.
    Renew(acme::Renew),
    /// Take one away that no virtual server shows; its files stay.
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Install {
    /// The name it gets.
    #[arg(value_name = "NAME")]
    name: String,
    /// The file of the certificate in PEM, followed by those that vouch for it.
    #[arg(long, value_name = "FILE")]
    chain: PathBuf,
    /// The file of its private key in PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SelfSigned {
    /// The name it gets.
    #[arg(value_name = "NAME")]
    name: String,
    /// A name or an address that it is for; may be given several times.
    #[arg(long = "for", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// Its name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    terms: TermOptions,
}

pub(crate) async fn run(tool: &mut Tool, command: CertCommand) -> Result<u8, Problem> {
    match command {
        CertCommand::List => {
            let all: Vec<Certificate> = tool.daemon().await?.get(path::CERTIFICATES).await?;
            tool.print_rows(all)?;
            Ok(0)
        }
        CertCommand::Show(args) => show(tool, &args.name).await,
        CertCommand::Install(args) => {
            let text = |path: &Path| password::text(path).map(Some);
            let (chain, key) = (text(&args.chain)?, text(&args.key)?);
            let wish = NewCertificate { chain, key, ..NewCertificate::default() };
            put(tool, &args.name, &args.terms, &wish).await
        }
        CertCommand::SelfSigned(args) => {
            let wish = NewCertificate { hosts: args.hosts, ..NewCertificate::default() };
            put(tool, &args.name, &args.terms, &wish).await
        }
        CertCommand::Request(args) => acme::request(tool, args).await,
        CertCommand::Renew(args) => acme::renew(tool, args).await,
        CertCommand::Remove(args) => {
            let path = args.terms.on(&path::fill(path::CERTIFICATE, &[&args.name]))?;
            let edited: Edited = tool.daemon().await?.delete(&path).await?;
            report(tool, &edited)
        }
    }
}

async fn show(tool: &mut Tool, name: &str) -> Result<u8, Problem> {
    let all: Vec<Certificate> = tool.daemon().await?.get(path::CERTIFICATES).await?;
    let found = all.into_iter().find(|it| it.name == name).ok_or_else(|| {
        Problem::new("cert", Kind::NotFound, format!("there is no certificate {name}"))
            .hint("smtpctl cert list names them")
    })?;
    if !tool.print_data(&found)? {
        tool.print_rows(facts(&found))?;
    }
    Ok(0)
}

/// A line of what is known.
#[derive(Debug, serde::Serialize)]
struct Fact {
    what: &'static str,
    value: String,
}

fn facts(it: &Certificate) -> Vec<Fact> {
    let moment = |at: Option<mailroot_common::units::Timestamp>| at.map(|at| at.to_string());
    let rows = [
        ("hosts", Some(it.hosts.join(", "))),
        ("issuer", it.issuer.clone()),
        ("self_signed", Some(it.self_signed.to_string())),
        ("not_before", moment(it.not_before)),
        ("not_after", moment(it.not_after)),
        ("chain", Some(it.chain.to_string())),
        ("used_by", Some(it.used_by.join(", "))),
        ("chain_file", Some(it.chain_file.clone())),
        ("key_file", Some(it.key_file.clone())),
        ("since", moment(it.since)),
        ("trouble", it.trouble.clone()),
    ];
    let acme = it.acme.iter().flat_map(|acme| {
        [
            ("authority", Some(acme.authority.clone())),
            ("asked_for", Some(acme.hosts.join(", "))),
            ("asked_next", moment(Some(acme.next))),
            ("failures", (acme.failures > 0).then(|| acme.failures.to_string())),
            ("refused", acme.trouble.clone()),
        ]
    });
    rows.into_iter()
        .chain(acme)
        .filter_map(|(what, value)| Some(Fact { what, value: value? }))
        .filter(|fact| !fact.value.is_empty())
        .collect()
}

async fn put(
    tool: &mut Tool,
    name: &str,
    terms: &TermOptions,
    wish: &NewCertificate,
) -> Result<u8, Problem> {
    let path = terms.on(&path::fill(path::CERTIFICATE, &[name]))?;
    let edited: Edited = tool.daemon().await?.put(&path, wish).await?;
    report(tool, &edited)
}

impl Row for Fact {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("what", |it| Cell::text(it.what)),
        Column::always("value", |it| Cell::text(&*it.value)),
    ];

    fn id(&self) -> String {
        self.what.to_owned()
    }
}

/// What is wrong with it, or what is under way.
fn state(it: &Certificate) -> &str {
    let refused = it.acme.as_ref().and_then(|acme| acme.trouble.as_deref());
    let asking = it.acme.as_ref().is_some_and(|acme| acme.asking || it.not_after.is_none());
    let awaited = asking.then_some("asked for");
    it.trouble.as_deref().or(refused).or(awaited).unwrap_or("ok")
}

/// Where it comes from.
fn source(it: &Certificate) -> &'static str {
    match &it.acme {
        Some(_) => "acme",
        None if it.name == "auto" => "generated",
        None => "files",
    }
}

impl Row for Certificate {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("hosts", |it| Cell::text(it.hosts.join(", "))),
        Column::always("issuer", |it| match (&it.issuer, it.self_signed) {
            (Some(_), true) => Cell::text("self-signed"),
            (issuer, _) => Cell::maybe(issuer.as_deref()),
        }),
        Column::always("expires", |it| it.not_after.map_or(Cell::Nothing, Cell::Until)),
        Column::always("used_by", |it| Cell::text(it.used_by.join(", "))),
        Column::always("state", |it| Cell::text(state(it))),
        Column::wide("source", |it| Cell::text(source(it))),
        Column::wide("chain_file", |it| Cell::text(&*it.chain_file)),
        Column::wide("key_file", |it| Cell::text(&*it.key_file)),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}
