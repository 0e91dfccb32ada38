//! The command line of `smtpd`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::observe::Format;

/// The Mailroot SMTP relay daemon.
///
/// Runs every virtual server of the configuration in the foreground until SIGTERM or SIGINT.
/// SIGHUP reads the configuration again.
#[derive(Clone, Debug, Parser)]
#[command(name = "smtpd", version, after_help = AFTER_HELP)]
pub struct Args {
    /// Keep everything under DIR: configuration, spool, state and sockets. Needs no root. On first
    /// start a configuration is written there.
    #[arg(long, value_name = "DIR", env = "MAILROOT_HOME")]
    pub home: Option<PathBuf>,

    /// Check the configuration, print every error and warning, and exit.
    #[arg(long)]
    pub check: bool,

    /// Form of the log lines; overrides logging.format.
    #[arg(long, value_name = "FORM")]
    pub log: Option<LogForm>,
}

/// The value of `--log`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogForm {
    /// One `key=value` line per event.
    Logfmt,
    /// One JSON object per line.
    Json,
    /// Lines of Postfix.
    Postfix,
}

impl From<LogForm> for Format {
    fn from(form: LogForm) -> Self {
        match form {
            LogForm::Logfmt => Self::Logfmt,
            LogForm::Json => Self::Json,
            LogForm::Postfix => Self::Postfix,
        }
    }
}

const AFTER_HELP: &str = "\
Examples:
  smtpd --home ./mailroot            try it: listens on 127.0.0.1:2525
  smtpd --check                      check /etc/mailroot
  smtpd --home ./mailroot --check    check ./mailroot/etc

Exit codes: 0 done, 69 a resource is missing or in use, 70 a fault of the program,
77 not permitted, 78 the configuration is wrong.";
