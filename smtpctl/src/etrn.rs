//! `etrn`: another host is asked to send the mail that it holds for us, by itself or over the same
//! connection.

use std::time::Duration;

use mailroot_common::config::SmartHostName;
use mailroot_common::control::{EtrnAnswer, EtrnRequest, Kind, Problem, path};

use crate::output::{Cell, Column, Row};
use crate::tool::Tool;

/// A call may last as long as a host lets us wait.
const CALL_WAIT: Duration = Duration::from_secs(120);
/// The same with --atrn, before whose answer a host may look through all its mail (RFC 2645).
const ATRN_WAIT: Duration = Duration::from_mins(11);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: smtpctl etrn hub.example branch.example\n\n@DOMAIN asks for the mail of \
                  all domains below it as well, #NAME for that of a queue the host has a name for.\n\nWith \
                  --atrn the mail comes over the connection that is made, so that it finds us wherever \
                  we are: smtpctl etrn --atrn --smarthost hub"
)]
pub(crate) struct Etrn {
    /// The host that holds the mail, then the domains: HOST[:PORT] DOMAIN..., or only the domains
    /// with --smarthost.
    #[arg(value_name = "HOST[:PORT] DOMAIN|@DOMAIN|#QUEUE", required_unless_present = "atrn")]
    words: Vec<String>,
    /// Ask this smart host, with its security and login.
    #[arg(long, value_name = "NAME", add = clap_complete::ArgValueCompleter::new(crate::complete::smart_hosts))]
    smarthost: Option<String>,
    /// Have the mail sent over the same connection (ATRN). Without a domain all that is held for us.
    #[arg(long, requires = "smarthost")]
    atrn: bool,
}

pub(crate) async fn run(tool: &mut Tool, args: Etrn) -> Result<u8, Problem> {
    let (host, nodes) = match args.smarthost {
        Some(name) => (format!("{}{name}", SmartHostName::PREFIX), args.words),
        None => {
            let mut words = args.words.into_iter();
            (words.next().unwrap_or_default(), words.collect())
        }
    };
    if nodes.is_empty() && !args.atrn {
        let problem = Problem::new("etrn", Kind::Usage, "no domain is named");
        return Err(problem.hint("smtpctl etrn hub.example branch.example"));
    }
    let path = path::fill(path::ETRN, &[tool.server()]);
    let body = EtrnRequest { host, nodes, atrn: args.atrn };
    let patience = if args.atrn { ATRN_WAIT } else { CALL_WAIT };
    let answers: Vec<EtrnAnswer> = tool.daemon().await?.post(&path, &body, patience).await?;
    let refused = answers.iter().filter(|answer| !answer.is_taken).count();
    let all = answers.len();
    tool.print_rows(answers)?;
    Ok(match refused {
        0 => 0,
        _ if refused == all => Kind::Failed.exit_code(),
        _ => Kind::Partly.exit_code(),
    })
}

impl Row for EtrnAnswer {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("node", |it| match &*it.node {
            "" => Cell::text("all"),
            node => Cell::text(node),
        }),
        Column::always("sent", |it| Cell::text(if it.is_taken { "yes" } else { "no" })),
        Column::always("reply", |it| Cell::text(&*it.reply)),
        Column::wide("host", |it| Cell::text(&*it.host)),
    ];

    fn id(&self) -> String {
        self.node.clone()
    }
}
