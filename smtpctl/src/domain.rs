//! `domain`: the domains of one virtual server.

use clap::Subcommand;
use mailroot_common::control::{Domain, Kind, NewDomain, Problem, path};

use crate::client::WAIT;
use crate::output::{Cell, Column, Row};
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
    /// mx, or a host to send to; several in order.
    #[arg(long, value_name = "mx|HOST[:PORT]")]
    route: Vec<String>,
    /// What is done with recipients that may or may not have the message; as for other domains if not
    /// given.
    #[arg(long, value_parser = ["retry", "hold", "return"])]
    in_doubt: Option<String>,
    /// Be content if it exists.
    #[arg(long)]
    if_not_exists: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The domains.
    #[arg(value_name = "DOMAIN", required = true)]
    names: Vec<String>,
    /// Be content if it does not exist.
    #[arg(long)]
    if_exists: bool,
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
            add(tool, domains, args.if_not_exists).await
        }
        DomainCommand::Add(Add::Remote(args)) => {
            let domain = NewDomain::Remote {
                name: args.name,
                relay: args.relay,
                helo_only: args.helo,
                route: read_route(args.route)?,
                in_doubt: args.in_doubt,
            };
            add(tool, vec![domain], args.if_not_exists).await
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

async fn add(tool: &mut Tool, domains: Vec<NewDomain>, if_not_exists: bool) -> Result<u8, Problem> {
    let path = path::fill(path::DOMAINS, &[tool.server()]);
    let mut tally = Tally::new("added");
    for domain in domains {
        let answer = tool.daemon().await?.post::<Domain>(&path, &domain, WAIT).await;
        tally.count(domain.name(), answer, if_not_exists, "domain.exists")?;
    }
    tally.report(tool)
}

async fn remove(tool: &mut Tool, args: &Remove) -> Result<u8, Problem> {
    let mut tally = Tally::new("removed");
    for name in &args.names {
        let path = path::fill(path::DOMAIN, &[tool.server(), name]);
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
            let options: Vec<String> = helo.into_iter().chain(doubt).collect();
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
