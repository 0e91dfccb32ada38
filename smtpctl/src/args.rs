//! The command line of `smtpctl`: nouns, verbs, and the options that every command has.
//!
//! Each noun's verbs and options stand in the noun's own file. Words of OpenSMTPD's `smtpctl` are
//! rewritten before they come here (see [`crate::opensmtpd`]).

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::access::AccessCommand;
use crate::alias::AliasCommand;
use crate::badmail::BadmailCommand;
use crate::cert::CertCommand;
use crate::complete::{self, Completion};
use crate::config::{ConfigCommand, Reload};
use crate::dkim::DkimCommand;
use crate::doctor::Doctor;
use crate::domain::DomainCommand;
use crate::drop::DropCommand;
use crate::etrn::Etrn;
use crate::explain::Explain;
use crate::help::Help;
use crate::ldap::LdapCommand;
use crate::logs::Logs;
use crate::metrics::MetricsArgs;
use crate::operator::OperatorCommand;
use crate::output::{Form, TimeForm, When};
use crate::pickup::PickupCommand;
use crate::queue::QueueCommand;
use crate::route::RouteCommand;
use crate::send::Send;
use crate::server::ServerCommand;
use crate::service::ServiceCommand;
use crate::session::SessionCommand;
use crate::setup::Setup;
use crate::smarthost::SmarthostCommand;
use crate::stats::StatsArgs;
use crate::status::StatusArgs;
use crate::tls::TlsCommand;
use crate::top::TopArgs;
use crate::trace::Trace;
use crate::user::UserCommand;

/// The Mailroot control tool.
///
/// Speaks with the running daemon over its control socket.
#[derive(Debug, Parser)]
#[command(
    name = "smtpctl",
    version,
    after_help = AFTER_HELP,
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 100
)]
pub struct Args {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The noun.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Global {
    /// The directory of a daemon that was started with --home DIR.
    #[arg(long, global = true, value_name = "DIR", env = "MAILROOT_HOME", hide_env = true)]
    pub(crate) home: Option<PathBuf>,

    /// The control socket [default: /run/mailroot/control.sock].
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// Perform the command on another host, over ssh.
    #[arg(short = 'H', long, global = true, value_name = "[USER@]HOST")]
    pub(crate) host: Option<String>,

    /// The virtual server meant.
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        env = "SMTPCTL_SERVER",
        hide_env = true,
        add = clap_complete::ArgValueCompleter::new(complete::servers)
    )]
    pub(crate) server: Option<String>,

    /// Form: table, wide, plain, json, jsonl, yaml, csv, name, or template=TEXT with {column}; of doctor
    /// also nagios.
    #[arg(short, long, global = true, value_name = "FORM", default_value = "table")]
    #[arg(hide_default_value = true)]
    pub(crate) output: Form,

    /// Columns to show; +NAME adds one, -NAME leaves one out.
    #[arg(long, global = true, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) columns: Option<String>,

    /// No header in tables and CSV.
    #[arg(long, global = true)]
    pub(crate) no_headers: bool,

    /// Sort by a column; -NAME the other way round.
    #[arg(long, global = true, value_name = "NAME", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,

    /// Show at most N rows.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) limit: Option<u64>,

    /// How moments are written.
    #[arg(long, global = true, value_name = "FORM", value_enum, default_value = "relative")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub(crate) time: TimeForm,

    /// Write moments in UTC.
    #[arg(long, global = true)]
    pub(crate) utc: bool,

    /// Whether states have colours: auto, always, never.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value = "auto")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub(crate) color: When,

    /// Show a list again and again, every 2s or every SPAN.
    #[arg(long, global = true, value_name = "SPAN", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "2s")]
    pub(crate) watch: Option<String>,

    /// Show long output as it comes, also on a terminal.
    #[arg(long, global = true)]
    pub(crate) no_pager: bool,

    /// Never ask; refuse instead.
    #[arg(long, global = true)]
    pub(crate) no_input: bool,

    /// Say nothing but data and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

impl Global {
    /// Whether errors are to be told as JSON too.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.output, Form::Json | Form::Jsonl)
    }

    /// Whether the line of a plug-in of Nagios is wanted, which only `doctor` has.
    pub(crate) const fn is_nagios(&self) -> bool {
        matches!(self.output, Form::Nagios)
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The first steps: name, smart host, listeners, who may send.
    Setup(Setup),
    /// Whether everything works, in one screen.
    Status(StatusArgs),
    /// Everything at work, on the whole terminal.
    Top(TopArgs),
    /// What was sent, deferred and given up, and how long it took.
    Stats(StatsArgs),
    /// Look at what mail depends on, and measure it.
    Doctor(Doctor),
    /// What is counted and measured, in the text format of Prometheus.
    Metrics(MetricsArgs),
    /// What the daemon tells: the log, read where it is written.
    Logs(Logs),
    /// All virtual servers at once: pause, resume, drain.
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Virtual servers.
    #[command(subcommand)]
    Server(ServerCommand),
    /// Who may connect to a virtual server.
    #[command(subcommand)]
    Access(AccessCommand),
    /// Who may send mail onward through a virtual server.
    #[command(subcommand)]
    Relay(AccessCommand),
    /// Where mail would go.
    #[command(subcommand)]
    Route(RouteCommand),
    /// Domains of a virtual server.
    #[command(subcommand)]
    Domain(DomainCommand),
    /// Who gets mail for the local names of this machine.
    #[command(subcommand)]
    Alias(AliasCommand),
    /// Hosts that take mail for others, with TLS and logins.
    #[command(subcommand)]
    Smarthost(SmarthostCommand),
    /// The directory that knows the recipients of a virtual server.
    #[command(subcommand)]
    Ldap(LdapCommand),
    /// Ask another host to send the mail that it holds for us.
    Etrn(Etrn),
    /// Keys that mail is signed with (DKIM), and their records in DNS.
    #[command(subcommand)]
    Dkim(DkimCommand),
    /// Hosts that have proved who they are, and are not trusted with less.
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Certificates that clients are shown.
    #[command(subcommand)]
    Cert(CertCommand),
    /// Users who may log in to send mail.
    #[command(subcommand)]
    User(UserCommand),
    /// People who may give orders.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// SMTP sessions, in both directions.
    #[command(subcommand)]
    Session(SessionCommand),
    /// Messages that wait.
    #[command(subcommand, visible_alias = "q")]
    Queue(QueueCommand),
    /// Messages that could be neither delivered nor returned.
    #[command(subcommand, visible_alias = "bm")]
    Badmail(BadmailCommand),
    /// What became of messages, also of those that are long gone.
    Trace(Trace),
    /// Messages that lie in Drop.
    #[command(subcommand)]
    Drop(DropCommand),
    /// Files that wait in Pickup.
    #[command(subcommand)]
    Pickup(PickupCommand),
    /// Send a test message.
    Send(Send),
    /// The configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Read the configuration again; refuse it whole if anything in it is wrong.
    Reload(Reload),
    /// Say what a code of an error or a warning means, and what to do.
    Explain(Explain),
    /// Open the manual.
    Help(Help),
    /// Print what a shell reads to complete command lines.
    #[command(alias = "completions")]
    Completion(Completion),
    /// The versions of tool and daemon.
    Version,
}

impl Command {
    /// Whether it shows something that may be long, and changes nothing.
    pub(crate) const fn shows(&self) -> bool {
        match self {
            Self::Status(_)
            | Self::Stats(_)
            | Self::Route(_)
            | Self::Doctor(_)
            | Self::Metrics(_)
            | Self::Trace(_) => true,
            Self::Logs(logs) => logs.shows(),
            Self::Server(command) => {
                matches!(command, ServerCommand::List | ServerCommand::Show(_))
            }
            Self::Access(command) | Self::Relay(command) => {
                matches!(command, AccessCommand::List)
            }
            Self::Domain(command) => {
                matches!(command, DomainCommand::List | DomainCommand::Show(_))
            }
            Self::Smarthost(command) => {
                matches!(command, SmarthostCommand::List | SmarthostCommand::Show(_))
            }
            Self::Ldap(command) => matches!(command, LdapCommand::Show),
            Self::Alias(command) => matches!(command, AliasCommand::List(_)),
            Self::Dkim(command) => matches!(command, DkimCommand::List | DkimCommand::Dns(_)),
            Self::Tls(command) => matches!(command, TlsCommand::List),
            Self::Cert(command) => matches!(command, CertCommand::List | CertCommand::Show(_)),
            Self::User(command) => matches!(command, UserCommand::List),
            Self::Operator(command) => matches!(command, OperatorCommand::List),
            Self::Session(command) => matches!(command, SessionCommand::List(_)),
            Self::Queue(command) => matches!(
                command,
                QueueCommand::List(_) | QueueCommand::Summary(_) | QueueCommand::Show(_)
            ),
            Self::Badmail(command) => {
                matches!(command, BadmailCommand::List(_) | BadmailCommand::Show(_))
            }
            Self::Config(command) => matches!(
                command,
                ConfigCommand::Show(_)
                    | ConfigCommand::Diff(_)
                    | ConfigCommand::Export(_)
                    | ConfigCommand::History
                    | ConfigCommand::Schema(_)
            ),
            Self::Drop(command) => matches!(command, DropCommand::List(_) | DropCommand::Show(_)),
            Self::Pickup(command) => matches!(command, PickupCommand::List),
            Self::Setup(_)
            | Self::Etrn(_)
            | Self::Top(_)
            | Self::Service(_)
            | Self::Send(_)
            | Self::Reload(_)
            | Self::Explain(_)
            | Self::Help(_)
            | Self::Completion(_)
            | Self::Version => false,
        }
    }
}

const AFTER_HELP: &str = "\
Examples:
  smtpctl status                                    is everything well?
  smtpctl queue list --to '*@slow.example'          what waits for slow.example?
  smtpctl trace --to bob@partner.example            where is Bob's mail?
  smtpctl queue show 6FZK                           why does it wait?
  smtpctl queue remove --from 'loop@*' --dry-run    what would go?
  smtpctl send --to ops@example.net --wait          does mail go through?

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing matched, 4 not permitted,
5 daemon not running, 6 configuration invalid, 7 conflict, 8 partly done,
9 timed out, 10 a check found problems. The manual is smtpctl(8).";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Args::command().debug_assert();
    }

    const UNDERSTOOD: &[&str] = &[
        "status",
        "status default --check",
        "-o json status",
        "status -o template={name} --columns -name,+domain --sort -queue --limit 5",
        "stats",
        "stats --since 2h --by destination --limit 3",
        "stats --watch -s lan -o csv",
        "setup --if-missing --mailname a.example --smarthost b.example:587 --no-input",
        "setup --listen 10.0.0.1:25 --relay 10.0.0.0/8 --test-to a@b.example --dry-run",
        "etrn hub.example:25 branch.example @sea.example #night",
        "etrn --smarthost hub branch.example -s lan",
        "-H a@b.example status",
        "queue list --host=b.example",
        "top --interval 500ms -s lan --color always",
        "metrics --grep queue_messages -o json",
        "logs",
        "logs 6FZK -f --to bob@* --level warn --last 5",
        "logs --since 2h --client 10.0.0.0/8 -s lan -o jsonl",
        "logs level",
        "logs level debug --for 10m --client 10.0.0.0/8",
        "logs level configured",
        "logs reopen",
        "doctor",
        "doctor storage -s lan -o json",
        "server ls",
        "server show default --tab delivery",
        "server create lan --listen 10.0.0.1:25 --listen [::1]:25 --domain a.example --dry-run",
        "server pause default lan --reason x",
        "domain add alias a.example b.example --if-not-exists -s lan",
        "domain add remote *.a.example --relay --helo --route h:25 --route [192.0.2.1] --in-doubt hold",
        "domain rm a.example --if-exists",
        "dkim create a.example --selector s1 --type ed25519 --dry-run",
        "dkim rm a.example --selector s1",
        "tls ls -o json",
        "ldap show -s lan",
        "ldap set server=ldaps://a.example base=DC=a -s lan --dry-run",
        "ldap test --address a@b.example",
        "tls forget mx.a.example",
        "tls report list",
        "tls report show a.example",
        "tls report send a.example",
        "tls report send",
        "access allow 10.0.0.0/8 --comment lan",
        "relay policy --only --try 2m",
        "relay test --client 192.0.2.1 --to a@b.example",
        "route show a@b.example --client 192.0.2.1 --from c@d.example --no-dns",
        "server set default a=b c+=d e-=f --message x --expect-revision 3",
        "server delete lan --purge-store --discard-queue --yes",
        "config rollback 0 --dry-run",
        "config show delivery --iis",
        "config show --effective",
        "config fmt --check",
        "config fmt - x.yaml --dry-run",
        "server show default --effective --defaults",
        "stats --iis-names -s lan",
        "doctor --offline --redact -o plain",
        "doctor -o nagios",
        "relay policy --all-except --authenticated",
        "relay policy --no-authenticated",
        "relay allow 0.0.0.0/0 --i-want-an-open-relay",
        "queue retry 6FZK --in 10m",
        "queue flush --wait=30s",
        "queue retry --all --at 2026-12-01T08:00:00Z",
        "smarthost set --preset google-relay --fqdn relay.example.net",
        "setup --root-alias ops@a.example --no-input",
        "doctor local-mail --fix --dry-run",
        "setup --smarthost b.example:587 --user u@a.example --password-stdin --no-input",
        "send --to a@b.example --user u --password-stdin",
        "smarthost login m365 --client-credentials --tenant t --client-id i --client-secret-stdin --mailbox a@b.example",
        "smarthost login gmail --refresh-token-stdin --client-secret-file x",
        "smarthost login m365 --print-admin-steps --mailbox a@b.example",
        "service pause",
        "service pause --inbound --outbound --local --for 10m --reason x -s lan",
        "service resume --outbound",
        "service drain --wait=5s --reason x",
        "service drain --to relay2.example.net",
        "config export --redact",
        "session list --client 10.0.0.0/8",
        "session show 7QK2MF",
        "session show 7QK2MF --dialogue",
        "session watch --client 10.0.0.0/8",
        "session kill 7QK2MF",
        "session kill --all --yes",
        "q ls --from a@* --older-than 2d --size >5MiB --state retry,held",
        "queue show 6FZK --headers",
        "queue summary --by reason --domain a.example --limit 5",
        "queue flush",
        "queue retry - -s default",
        "queue hold 6FZK --reason x",
        "queue rm --all --yes --no-input",
        "queue bounce 6FZK --because no",
        "queue pause --destination *.a.example --for 1h --reason x",
        "queue pause --list",
        "queue resume --destination a.example",
        "queue hold --future --from a@* --for 1h --because x",
        "queue hold --list",
        "queue export --all --dir /tmp/x --remove --yes",
        "queue export 6FZK --mbox x",
        "queue export --domain a.example --tar -",
        "queue adopt /tmp/x --keep --dry-run",
        "queue release --future 6FZK3QB27N5C",
        "queue redirect --domain a.example --to-host h:25 --yes",
        "queue redirect 6FZK --to-address a@b.example",
        "queue redirect --all --to-server lan --dry-run",
        "trace",
        "trace 6FZK --last 1",
        "trace --to bob@partner.example --newer-than 1d -o json",
        "trace --since 2h",
        "trace --refused --client 10.1.0.0/16",
        "bm list --reason loop",
        "badmail stats --older-than 1d",
        "badmail export --all --dir x --dry-run",
        "badmail requeue 6FZK --to a@b.example --from <>",
        "badmail purge --older-than 30d --dry-run",
        "drop list --domain a.example",
        "drop show 6FZK --content",
        "drop purge --older-than 7d --yes",
        "pickup list",
        "pickup check a.eml -",
        "send --to a@b.example --wait",
        "send --to a@b.example --via submit --attach a.pdf --attach b",
        "send --to a@b.example --via pickup --wait",
        "trace 6FZK --dialogue",
        "send --to a@b.example --at 2h --by 1d --priority -4",
        "send --to a@b.example --at 2026-12-01T08:00:00Z",
        "send --to a@b.example --wait=5s --subject x --body -",
        "config check a.yaml -W",
        "reload --wait=5s",
        "completion zsh",
        "help queue",
        "queue list --watch=500ms --no-pager",
        "version -q --utc --time iso",
    ];

    const REFUSED: &[&str] = &[
        "send --to a@b.example --via air",
        "send --to a@b.example --eml x --attach y",
        "trace --refused --dialogue",
        "stats --by weather",
        "logs level loud",
        "logs level --for 10m",
        "logs --level loud",
        "logs --last 9999999",
        "setup --relay 10.0.0.0/33",
        "setup --smarthost a:b:c",
        "status --color blue",
        "",
        "stat",
        "queue",
        "doctor astrology",
        "queue lis",
        "queue show",
        "queue list --limit x",
        "queue list -o xml",
        "queue list --time never",
        "queue remove --older-then 2d",
        "queue redirect --all",
        "queue pause",
        "queue export --all",
        "queue export --all --dir a --tar b",
        "queue adopt",
        "queue resume",
        "queue hold --all --for 1h",
        "queue redirect --all --to-host a --to-server b",
        "dkim create a.example --type dsa",
        "dkim remove a.example",
        "domain add",
        "domain add alias",
        "drop show",
        "pickup check",
        "trace --last x",
        "trace --state held",
        "relay policy",
        "relay policy --only --all-except",
        "relay policy --authenticated --no-authenticated",
        "queue retry --all --in 1h --at 2026-12-01T08:00:00Z",
        "config rollback",
        "config show --effective --iis",
        "setup --user u --password secret",
        "stats --iis-names --by hour",
        "doctor --fix --offline",
        "server set default",
        "smarthost login m365",
        "smarthost login m365 --device-code --client-credentials",
        "smarthost login m365 --client-credentials --client-secret s",
        "send",
        "server pause",
    ];

    #[test]
    fn lines_are_understood_or_refused() {
        for line in UNDERSTOOD {
            let words = std::iter::once("smtpctl").chain(line.split(' '));
            assert!(Args::try_parse_from(words).is_ok(), "{line}");
        }
        for line in REFUSED {
            let words = std::iter::once("smtpctl").chain(line.split_whitespace());
            let error = Args::try_parse_from(words).err();
            assert!(error.is_some(), "{line}");
        }
    }
}
