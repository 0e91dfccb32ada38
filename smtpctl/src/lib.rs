//! The Mailroot control tool: what a person types, sent to the daemon's control socket.
//!
//! In: a command line. Out: data on standard output, words about it on standard error, and an exit
//! code of `mailroot_common::control::problem`. One file per noun; [`args`] is the tree of
//! commands, [`client`] speaks with the daemon, [`output`] prints, [`change`] holds the manners of
//! every command that changes something. Under the names `sendmail`, `mailq` and `newaliases` it is what other
//! programs expect of these.

mod access;
mod adopt;
mod alias;
pub mod args;
mod badmail;
mod cert;
mod change;
mod client;
mod complete;
mod config;
mod dialogue;
mod dkim;
mod doctor;
mod domain;
mod drop;
mod etrn;
mod explain;
mod export;
mod files;
mod flush;
mod help;
mod ldap;
mod listing;
mod logs;
mod metrics;
pub mod opensmtpd;
mod operator;
mod orders;
mod output;
mod pager;
mod password;
mod pickup;
mod progress;
mod queue;
mod redirect;
mod remote;
mod route;
mod select;
mod send;
mod sendmail;
mod server;
mod service;
mod service_user;
mod session;
mod setup;
mod smarthost;
mod smtp;
mod stats;
mod status;
mod story;
mod summary;
mod tar;
mod terms;
mod tls;
mod tool;
mod top;
mod trace;
mod user;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mailroot_common::control::{Kind, Problem};
use mailroot_common::units::Span;

use args::{Args, Command};
use pager::Pager;
use tool::Tool;

/// Runs a command line, the program's name first, and says how it went.
pub fn run(line: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line: Vec<OsString> = line.into_iter().collect();
    if let Some(name) = sendmail::Name::of(line.first()) {
        return sendmail::run(name, line);
    }
    if complete::answer(&line) {
        return ExitCode::SUCCESS;
    }
    let line = match opensmtpd::rewrite(line) {
        Ok(line) => line,
        Err(problem) => return tell(&problem, false),
    };
    let args = match Args::try_parse_from(&line) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; clap knows which stream each goes to.
            let code = if error.use_stderr() { Kind::Usage.exit_code() } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::from(1) };
        }
    };
    let as_json = args.global.is_json();
    let done = match (&args.global.host, args.global.watch.clone()) {
        (Some(host), _) => remote::run(host, &line),
        (None, Some(span)) => watch(&line, &args, &span),
        (None, None) => perform(args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(problem) => tell(&problem, as_json),
    }
}

/// Performs a command that shows something again and again, until it fails or is interrupted.
fn watch(line: &[OsString], args: &Args, span: &str) -> Result<u8, Problem> {
    let usage = |detail: String| Problem::new("client", Kind::Usage, detail);
    if !args.command.shows() {
        return Err(usage("--watch is for commands that show something".to_owned()));
    }
    let span = Span::parse(span).map_err(|error| usage(format!("--watch: {error}")))?;
    let is_terminal = io::stdout().is_terminal();
    loop {
        let again = Args::try_parse_from(line).map_err(|error| usage(error.to_string()))?;
        if is_terminal {
            io::stdout().write_all(CLEAR).map_err(io_problem)?;
        }
        perform(again)?;
        io::stdout().flush().map_err(io_problem)?;
        std::thread::sleep(span.as_duration().max(WATCH_MIN));
    }
}

/// Clears a terminal (ECMA-48 sections 8.3.21 and 8.3.39).
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";
/// The shortest pause between two looks.
const WATCH_MIN: Duration = Duration::from_millis(100);

fn perform(args: Args) -> Result<u8, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::new("client", Kind::Failed, format!("cannot start: {error}")))?;
    if args.global.is_nagios() && !matches!(args.command, Command::Doctor(_)) {
        return Err(Problem::new("output", Kind::Usage, "the form nagios is that of doctor"));
    }
    let pages = args.command.shows() && !args.global.no_pager && args.global.watch.is_none();
    let mut tool = Tool::new(args.global);
    let _pager = if pages { Pager::start() } else { None };
    // Behind a pointer: the runtime has three places where it looks at what it waits for, and each of them would
    // carry the code of all commands.
    let answer: Pin<Box<dyn Future<Output = Result<u8, Problem>> + '_>> =
        Box::pin(answer(args.command, &mut tool));
    let answered = runtime.block_on(answer);
    // A person may read on for long: the daemon is to be let go before.
    drop(tool);
    answered
}

async fn answer(command: Command, tool: &mut Tool) -> Result<u8, Problem> {
    match command {
        Command::Status(status) => status::run(tool, &status).await,
        Command::Setup(setup) => setup::run(tool, &setup).await,
        Command::Top(top) => top::run(tool, &top).await,
        Command::Stats(stats) => stats::run(tool, &stats).await,
        Command::Doctor(doctor) => doctor::run(tool, &doctor).await,
        Command::Metrics(metrics) => metrics::run(tool, &metrics).await,
        Command::Logs(logs) => logs::run(tool, &logs).await,
        Command::Service(service) => service::run(tool, service).await,
        Command::Server(server) => server::run(tool, server).await,
        Command::Access(it) => access::run(tool, access::Which::Connect, it).await,
        Command::Relay(it) => access::run(tool, access::Which::Relay, it).await,
        Command::Route(route) => route::run(tool, route).await,
        Command::Domain(domain) => domain::run(tool, domain).await,
        Command::Alias(it) => alias::run(tool, it).await,
        Command::Dkim(it) => dkim::run(tool, it).await,
        Command::Smarthost(it) => smarthost::run(tool, it).await,
        Command::Ldap(it) => ldap::run(tool, it).await,
        Command::Etrn(etrn) => etrn::run(tool, etrn).await,
        Command::Tls(it) => tls::run(tool, it).await,
        Command::Cert(it) => cert::run(tool, it).await,
        Command::User(it) => user::run(tool, it).await,
        Command::Operator(operator) => operator::run(tool, operator).await,
        Command::Session(session) => session::run(tool, session).await,
        Command::Queue(queue) => queue::run(tool, queue).await,
        Command::Drop(drop) => drop::run(tool, drop).await,
        Command::Pickup(pickup) => pickup::run(tool, pickup).await,
        Command::Badmail(badmail) => badmail::run(tool, badmail).await,
        Command::Trace(trace) => trace::run(tool, &trace).await,
        Command::Send(send) => send::run(tool, &send).await,
        Command::Config(config) => config::run(tool, &config).await,
        Command::Reload(reload) => config::reload(tool, &reload).await,
        Command::Explain(explain) => explain::run(tool, &explain),
        Command::Help(help) => help::run(&help),
        Command::Completion(completion) => complete::register(&completion),
        Command::Version => status::version(tool).await,
    }
}

/// Tells a problem on standard error; its exit code.
fn tell(problem: &Problem, as_json: bool) -> ExitCode {
    if *problem.code == *OUTPUT_CLOSED {
        return ExitCode::SUCCESS;
    }
    let text = if as_json { problem_as_json(problem) } else { problem_for_people(problem) };
    // Nobody is left to tell if standard error is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    ExitCode::from(problem.exit)
}

fn problem_for_people(problem: &Problem) -> String {
    let mut text = format!("error: {}\n", output::escape(&problem.detail));
    for item in &problem.items {
        for line in item.lines() {
            text.push_str(&format!("  {}\n", output::escape(line)));
        }
    }
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("hint: {}\n", output::escape(hint)));
    }
    text
}

fn problem_as_json(problem: &Problem) -> String {
    let mut error = serde_json::json!({
        "code": problem.code,
        "exit": problem.exit,
        "message": problem.detail,
    });
    if let Some(hint) = &problem.hint {
        error["hint"] = (**hint).into();
    }
    if !problem.items.is_empty() {
        error["items"] = problem.items.as_slice().into();
    }
    format!("{}\n", output::json(&serde_json::json!({ "error": error })))
}

/// The code of a problem that is none: whoever read our output has seen enough.
const OUTPUT_CLOSED: &str = "output.closed";

/// An error of standard output.
#[expect(clippy::needless_pass_by_value, reason = "map_err hands the error over")]
fn io_problem(error: io::Error) -> Problem {
    let mut problem =
        Problem::new("output", Kind::Failed, format!("cannot write the output: {error}"));
    if error.kind() == io::ErrorKind::BrokenPipe {
        problem.code = OUTPUT_CLOSED.into();
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_with_what_to_do() {
        let problem = Problem::new("queue", Kind::NotFound, "no message 6FZK\u{1b}[2J")
            .hint("smtpctl queue list")
            .items(["one", "two\nthree"]);
        assert_eq!(
            problem_for_people(&problem),
            "error: no message 6FZK\\x1b[2J\n  one\n  two\n  three\nhint: smtpctl queue list\n"
        );
        let json: serde_json::Value = serde_json::from_str(&problem_as_json(&problem)).unwrap();
        assert_eq!(json["error"]["code"], "queue.not_found");
        assert_eq!(json["error"]["exit"], 3);
        assert_eq!(json["error"]["hint"], "smtpctl queue list");
    }

    #[test]
    fn a_closed_pipe_is_no_problem() {
        let closed = io_problem(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.code.as_ref(), OUTPUT_CLOSED);
        assert_ne!(
            io_problem(io::Error::from(io::ErrorKind::StorageFull)).code.as_ref(),
            OUTPUT_CLOSED
        );
    }
}
