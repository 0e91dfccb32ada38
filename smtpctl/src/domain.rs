//! `domain`: the domains of one virtual server.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use mailroot_common::control::{
    Domain, DomainDetail, Edited, KeyEdit, Kind, NewDomain, Problem, path,
};

use crate::client::WAIT;
use crate::complete;
use crate::output::{Cell, Column, Row};
use crate::server::change::{edit_keys, read_assignments};
use crate::terms::{TermOptions, report};
use crate::tool::Tool;

/// The verbs of `domain`.
#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// List the domains.
    #[command(visible_alias = "ls")]
    List,
    /// Add a domain.
    #[command(subcommand)]
    Add(Add),
    /// Show one with its settings.
    Show(Show),
    /// Give keys of a domain other values, such as relay=yes.
    Set(Set),
    /// Give a domain another name.
    Rename(Rename),
    /// Make an alias the default domain; the default domain becomes an alias.
    Default(Promote),
    /// Remove domains; mail that waits for them is routed anew.
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

/// What sort of domain to add.
#[derive(Debug, Subcommand)]
pub(crate) enum Add {
    /// Another name of the default domain.
    Alias(AddAlias),
    /// A domain somewhere else, with rules of its own.
    Remote(AddRemote),
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddAlias {
    /// The domains.
    #[arg(value_name = "DOMAIN", required = true)]
    names: Vec<String>,
    /// Be content if it exists.
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The domain.
    #[arg(value_name = "DOMAIN", add = ArgValueCompleter::new(complete::domains))]
    name: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// The domain.
    #[arg(value_name = "DOMAIN", add = ArgValueCompleter::new(complete::domains))]
    name: String,
    /// KEY=VALUE, or for lists KEY+=ITEM and KEY-=ITEM; KEY= alone takes the key out.
    #[arg(value_name = "KEY=VALUE", required = true)]
    assignments: Vec<String>,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Rename {
    /// The domain.
    #[arg(value_name = "OLD", add = ArgValueCompleter::new(complete::domains))]
    from: String,
    /// The name it gets.
    #[arg(value_name = "NEW")]
    to: String,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    /// The alias.
    #[arg(value_name = "DOMAIN", add = ArgValueCompleter::new(complete::domains))]
    name: String,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AddRemote {
    /// The domain, or *.DOMAIN for all below it.
    #[arg(value_name = "DOMAIN")]
    name: String,
    /// Let anyone send to it through this server.
    #[arg(long)]
    relay: bool,
    /// Use HELO instead of EHLO.
    #[arg(long)]
    helo: bool,
    /// mx, or a host to send to, also smarthost:NAME; several in order.
    #[arg(long, value_name = "mx|HOST[:PORT]")]
    route: Vec<String>,
    /// What is done with recipients that may or may not have the message; as for other domains if not
    /// given.
    #[arg(long, value_parser = ["retry", "hold", "return"])]
    in_doubt: Option<String>,
    /// Whether its mail goes under TLS; as for other domains if not given.
    #[arg(long, value_parser = ["off", "optional", "required", "verify"])]
    tls: Option<String>,
    /// Hold its mail until one of its hosts asks for it with ETRN.
    #[arg(long)]
    hold_for_etrn: bool,
    /// An address or network that may ask; several. From anywhere if not given.
    #[arg(long, value_name = "NETWORK", requires = "hold_for_etrn")]
    etrn_from: Vec<String>,
    /// A user who may fetch its mail with ATRN; several. It is held for that.
    #[arg(long, value_name = "USER")]
    atrn_user: Vec<String>,
    /// Connections at the same time.
    #[arg(long, value_name = "N")]
    max_connections: Option<u32>,
    /// Messages in a time, such as 30/min; also per s, h and d.
    #[arg(long, value_name = "N/TIME")]
    rate: Option<String>,
    /// Be content if it exists.
    #[arg(long)]
    if_not_exists: bool,
    #[command(flatten)]
    terms: TermOptions,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The domains.
    #[arg(value_name = "DOMAIN", required = true, add = ArgValueCompleter::new(complete::domains))]
    names: Vec<String>,
    /// Be content if it does not exist.
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    terms: TermOptions,
}

pub(crate) async fn run(tool: &mut Tool, command: DomainCommand) -> Result<u8, Problem> {
    match command {
        DomainCommand::List => {
            let path = path::fill(path::DOMAINS, &[tool.server()]);
            let domains: Vec<Domain> = tool.daemon().await?.get(&path).await?;
            tool.print_rows(domains)?;
            Ok(0)
        }
        DomainCommand::Add(Add::Alias(args)) => {
            let names = args.names.into_iter();
            let domains = names.map(|name| NewDomain::Alias { name }).collect();
            add(tool, domains, args.if_not_exists, &args.terms).await
        }
        DomainCommand::Add(Add::Remote(args)) => {
            let domain = NewDomain::Remote {
                name: args.name,
                relay: args.relay,
                helo_only: args.helo,
                route: read_route(args.route)?,
                in_doubt: args.in_doubt,
                tls: args.tls,
                hold: args.hold_for_etrn,
                etrn_from: args.etrn_from,
                atrn_users: args.atrn_user,
                connections: args.max_connections,
                rate: args.rate,
            };
            add(tool, vec![domain], args.if_not_exists, &args.terms).await
        }
        DomainCommand::Show(args) => show(tool, &args).await,
        DomainCommand::Set(args) => set(tool, &args).await,
        DomainCommand::Rename(args) => {
            let edit = KeyEdit::Set { key: "name".to_owned(), value: args.to };
            let path = path::fill(path::DOMAIN, &[tool.server(), &args.from]);
            edit_keys(tool, &path, vec![edit], &args.terms).await
        }
        DomainCommand::Default(args) => {
            let path = path::fill(path::DOMAIN_DEFAULT, &[tool.server(), &args.name]);
            let (path, body) = (args.terms.on(&path)?, serde_json::json!({}));
            let edited: Edited = tool.daemon().await?.post(&path, &body, WAIT).await?;
            report(tool, &edited)
        }
        DomainCommand::Remove(args) => remove(tool, &args).await,
    }
}

/// `mx` alone means no hosts.
fn read_route(route: Vec<String>) -> Result<Vec<String>, Problem> {
    if !route.iter().any(|hop| hop == "mx") {
        return Ok(route);
    }
    if route.len() > 1 {
        let detail = "--route mx cannot stand beside other hosts";
        return Err(Problem::new("domain", Kind::Usage, detail));
    }
    Ok(Vec::new())
}

async fn show(tool: &mut Tool, args: &Show) -> Result<u8, Problem> {
    let path = path::fill(path::DOMAIN, &[tool.server(), &args.name]);
    let detail: DomainDetail = tool.daemon().await?.get(&path).await?;
    if !tool.print_data(&detail)? {
        tool.print_rows(detail.settings)?;
    }
    Ok(0)
}

async fn set(tool: &mut Tool, args: &Set) -> Result<u8, Problem> {
    let edits = read_assignments(&args.assignments)?;
    let unset = |edit| match edit {
        KeyEdit::Set { key, value } if value.is_empty() => KeyEdit::Unset { key },
        edit => edit,
    };
    let edits = edits.into_iter().map(unset).collect();
    let path = path::fill(path::DOMAIN, &[tool.server(), &args.name]);
    edit_keys(tool, &path, edits, &args.terms).await
}

async fn add(
    tool: &mut Tool,
    domains: Vec<NewDomain>,
    if_not_exists: bool,
    terms: &TermOptions,
) -> Result<u8, Problem> {
    let path = terms.on(&path::fill(path::DOMAINS, &[tool.server()]))?;
    let mut tally = Tally::new(if terms.dry_run { "would add" } else { "added" });
    for domain in domains {
        let answer = tool.daemon().await?.post::<Domain>(&path, &domain, WAIT).await;
        tally.count(domain.name(), answer, if_not_exists, "domain.exists")?;
    }
    tally.report(tool)
}

async fn remove(tool: &mut Tool, args: &Remove) -> Result<u8, Problem> {
    let mut tally = Tally::new(if args.terms.dry_run { "would remove" } else { "removed" });
    for name in &args.names {
        let path = args.terms.on(&path::fill(path::DOMAIN, &[tool.server(), name]))?;
        let answer = tool.daemon().await?.delete::<Domain>(&path).await;
        tally.count(name, answer, args.if_exists, "domain.not_found")?;
    }
    tally.report(tool)
}

/// What became of several domains. The first real failure ends the command.
#[derive(Debug)]
struct Tally {
    verb: &'static str,
    done: Vec<Domain>,
    words: Vec<String>,
}

impl Tally {
    const fn new(verb: &'static str) -> Self {
        Self { verb, done: Vec::new(), words: Vec::new() }
    }

    fn count(
        &mut self,
        name: &str,
        answer: Result<Domain, Problem>,
        is_content: bool,
        content_with: &str,
    ) -> Result<(), Problem> {
        match answer {
            Ok(domain) => {
                self.words.push(format!("{} {}, {}", self.verb, domain.name, domain.kind));
                self.done.push(domain);
            }
            Err(problem) if is_content && *problem.code == *content_with => {
                self.words.push(format!("{name} unchanged"));
            }
            Err(mut problem) if !self.done.is_empty() => {
                problem.exit = Kind::Partly.exit_code();
                let items = self.done.iter().map(|it| format!("{} {}", self.verb, it.name));
                problem.items.extend(items);
                return Err(problem);
            }
            Err(problem) => return Err(problem),
        }
        Ok(())
    }

    fn report(self, tool: &Tool) -> Result<u8, Problem> {
        let data = serde_json::json!({ "changed": !self.done.is_empty(), "domains": self.done });
        tool.say_done(&data, &self.words.join("\n"))?;
        Ok(0)
    }
}

impl Row for Domain {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("name", |it| Cell::text(&*it.name)),
        Column::always("type", |it| Cell::text(it.kind.to_string())),
        Column::always("relay", |it| {
            it.relay.map_or(Cell::Nothing, |relay| Cell::text(if relay { "yes" } else { "no" }))
        }),
        Column::always("route", |it| Cell::text(&*it.route)),
        Column::always("options", |it| {
            let helo = it.helo_only.then(|| "HELO only".to_owned());
            let doubt = it.in_doubt.as_ref().map(|word| format!("in doubt: {word}"));
            let tls = it.tls.as_ref().map(|word| format!("TLS {word}"));
            let held = it.released_by.as_ref().map(|commands| format!("held for {commands}"));
            let options: Vec<String> = helo
                .into_iter()
                .chain(held)
                .chain(tls)
                .chain(doubt)
                .chain(it.limits.clone())
                .collect();
            if options.is_empty() { Cell::Nothing } else { Cell::text(options.join(", ")) }
        }),
        Column::always("queued", |it| Cell::Count(it.queued)),
        Column::wide("server", |it| Cell::text(&*it.server)),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mx_is_a_route_of_its_own() {
        let route = |hops: &[&str]| read_route(hops.iter().map(|&hop| hop.to_owned()).collect());
        assert_eq!(route(&["mx"]).unwrap(), Vec::<String>::new());
        assert_eq!(route(&["a:25", "b"]).unwrap(), ["a:25", "b"]);
        assert_eq!(route(&["mx", "a"]).unwrap_err().exit, 2);
    }

    #[test]
    fn if_exists_is_content_with_one_code_only() {
        let problem = |kind| Problem::new("domain", kind, "x");
        let mut tally = Tally::new("removed");
        let gone = Err(problem(Kind::NotFound));
        assert!(tally.count("a", gone.clone(), true, "domain.not_found").is_ok());
        assert!(tally.count("a", gone, false, "domain.not_found").is_err());
        let refused = Err(problem(Kind::NotPermitted));
        assert_eq!(tally.count("a", refused, true, "domain.not_found").unwrap_err().exit, 4);
    }
}
