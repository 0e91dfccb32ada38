//! `tls`: hosts that have proved who they are, and reports about TLS to other domains.

use std::io::Write as _;
use std::time::Duration;

use clap::Subcommand;
use mailroot_common::control::{Problem, TlsHost, TlsReport, TlsReportWish, TlsReportsBegun, path};
use serde_json::Value;

use crate::io_problem;
use crate::output::{Cell, Column, Row, json_pretty};
use crate::tool::{Tool, stdout};

/// How long the daemon may take to begin.
const WAIT: Duration = Duration::from_secs(30);

/// The verbs of `tls`.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// List hosts that once showed a good certificate.
    #[command(visible_alias = "ls")]
    List,
    /// Let a host show any certificate again, or none.
    Forget(Forget),
    /// What other domains are told of the TLS that mail to them met.
    #[command(subcommand)]
    Report(ReportCommand),
}

/// The verbs of `tls report`.
#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// List what is counted for each domain, and the reports that wait.
    #[command(visible_alias = "ls")]
    List,
    /// Show the reports about a domain as they are sent.
    Show(Show),
    /// Send the reports now, instead of when the day is over.
    Send(SendNow),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The domain.
    #[arg(value_name = "DOMAIN")]
    domain: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SendNow {
    /// The domain; all by default.
    #[arg(value_name = "DOMAIN")]
    domain: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Forget {
    /// The host's name, as tls list has it.
    #[arg(value_name = "HOST")]
    name: String,
}

pub(crate) async fn run(tool: &mut Tool, command: TlsCommand) -> Result<u8, Problem> {
    match command {
        TlsCommand::List => {
            let hosts: Vec<TlsHost> = tool.daemon().await?.get(path::TLS_HOSTS).await?;
            tool.print_rows(hosts)?;
        }
        TlsCommand::Forget(Forget { name }) => {
            let path = path::fill(path::TLS_HOST, &[&name]);
            let forgotten: TlsHost = tool.daemon().await?.delete(&path).await?;
            let words = format!(
                "{} is forgotten; its mail is tried again when it is due, or now: \
                 smtpctl queue flush",
                forgotten.host
            );
            tool.say_done(&forgotten, &words)?;
        }
        TlsCommand::Report(command) => run_report(tool, command).await?,
    }
    Ok(0)
}

async fn run_report(tool: &mut Tool, command: ReportCommand) -> Result<(), Problem> {
    match command {
        ReportCommand::List => {
            let reports: Vec<TlsReport> = tool.daemon().await?.get(path::TLS_REPORTS).await?;
            tool.print_rows(reports)
        }
        ReportCommand::Show(Show { domain }) => {
            let path = path::fill(path::TLS_REPORT, &[&domain]);
            let reports: Vec<Value> = tool.daemon().await?.get(&path).await?;
            if !tool.print_data(&reports)? {
                writeln!(stdout(), "{}", json_pretty(&reports)).map_err(io_problem)?;
            }
            Ok(())
        }
        ReportCommand::Send(SendNow { domain }) => {
            let wish = TlsReportWish { domain };
            let begun: TlsReportsBegun =
                tool.daemon().await?.post(path::TLS_REPORTS_SEND, &wish, WAIT).await?;
            let words = format!(
                "reports that are sent to whoever wants them: {}; the log tells where to",
                begun.reports
            );
            tool.say_done(&begun, &words)
        }
    }
}

impl Row for TlsReport {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("domain", |it| Cell::text(&*it.domain)),
        Column::always("state", |it| Cell::text(it.state.as_str())),
        Column::always("good", |it| Cell::Count(it.successes)),
        Column::always("failed", |it| Cell::Count(it.failures)),
        Column::always("begins", |it| Cell::Ago(it.begins)),
        Column::always("next", |it| it.next.map_or(Cell::Nothing, Cell::Until)),
        Column::always("trouble", |it| Cell::maybe(it.trouble.as_deref())),
    ];

    fn id(&self) -> String {
        self.domain.clone()
    }
}

impl Row for TlsHost {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("host", |it| Cell::text(&*it.host)),
        Column::always("first", |it| Cell::Ago(it.first)),
        Column::always("last", |it| Cell::Ago(it.last)),
        Column::always("until", |it| it.until.map_or(Cell::Nothing, Cell::Until)),
    ];

    fn id(&self) -> String {
        self.host.clone()
    }
}
