//! `tls`: hosts that have proved who they are, and are not trusted with less.

use clap::Subcommand;
use mailroot_common::control::{Problem, TlsHost, path};

use crate::output::{Cell, Column, Row};
use crate::tool::Tool;

/// The verbs of `tls`.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// List hosts that once showed a good certificate.
    #[command(visible_alias = "ls")]
    List,
    /// Let a host show any certificate again, or none.
    Forget(Forget),
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
    }
    Ok(0)
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
