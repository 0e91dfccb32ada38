//! `queue redirect`: messages that wait are sent another way.

use clap_complete::ArgValueCompleter;
use mailroot_common::config::SmartHostName;
use mailroot_common::control::{Change, Problem, QueueEntry, Redirect as Body, path};

use crate::change::{ChangeOptions, Deed, change};
use crate::complete;
use crate::select::QueueSelection;
use crate::tool::Tool;

#[derive(Debug, clap::Args)]
pub(crate) struct Redirect {
    #[command(flatten)]
    aim: Aim,
    #[command(flatten)]
    selection: QueueSelection,
    #[command(flatten)]
    options: ChangeOptions,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Aim {
    /// By this host, whatever the routes say; name, name:port or [address]:port.
    #[arg(long, value_name = "HOST", help_heading = "Options")]
    to_host: Option<String>,
    /// By this smart host, with its security and login.
    #[arg(long, value_name = "NAME", help_heading = "Options", add = ArgValueCompleter::new(complete::smart_hosts))]
    to_smarthost: Option<String>,
    /// To this address instead of everybody who waits.
    #[arg(long, value_name = "ADDRESS", help_heading = "Options")]
    to_address: Option<String>,
    /// Into the queue of this virtual server.
    #[arg(long, value_name = "NAME", help_heading = "Options")]
    to_server: Option<String>,
}

pub(crate) async fn run(tool: &mut Tool, args: Redirect) -> Result<u8, Problem> {
    let selector = args.selection.selector(tool.global.server.as_deref())?;
    let deed = Deed {
        list: path::QUEUE,
        path: path::QUEUE_REDIRECT.to_owned(),
        verb: "redirect",
        done: "redirected",
        noun: "message",
        is_final: true,
    };
    let aim = args.aim;
    let named = aim.to_smarthost.map(|name| format!("{}{name}", SmartHostName::PREFIX));
    let to_host = aim.to_host.or(named);
    let body = |selector, if_exists| Body {
        change: Change { selector, reason: None, if_exists, ..Change::default() },
        to_host: to_host.clone(),
        to_address: aim.to_address.clone(),
        to_server: aim.to_server.clone(),
    };
    change::<QueueEntry, _>(tool, &deed, &args.options, selector, body).await
}
