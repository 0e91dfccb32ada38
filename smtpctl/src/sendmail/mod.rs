//! `sendmail`, `mailq` and `newaliases`: what other programs expect of a mail system.
//!
//! In: the command lines and messages that cron, PHP, mutt and others write. Out: mail handed to the
//! daemon over the submit socket, one line beginning with the name, such as `sendmail: `, where that did not work, and the exit
//! codes of sysexits(3). No privilege is needed: the daemon knows from the kernel who calls.

mod envelope;
mod flags;
mod input;
mod list;
mod message;
mod outcome;
mod pipe;
mod submit;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use mailroot_common::address::LocalPart;
use mailroot_common::control::{Kind, Problem};
use nix::unistd::{User, getuid};

use self::envelope::Recipients;
use self::flags::{Flags, Flush, Mode, Usage};
use self::message::Message;
use self::submit::{Audience, Nobody, Submission, Taken};
use crate::alias;
use crate::args::Args;
use crate::output::escape;
use crate::smtp::Parcel;
use crate::tool::submit_socket;

/// The command line cannot be meant.
const USAGE: u8 = 64;
/// Addresses or the message are not in order.
const DATA_ERROR: u8 = 65;
/// There is no such recipient.
const NO_USER: u8 = 67;
/// The mail system does not take mail.
const UNAVAILABLE: u8 = 69;
/// Standard input or output failed.
const IO_ERROR: u8 = 74;
/// Not now.
const TRY_LATER: u8 = 75;
/// The user may not do that.
const NOT_PERMITTED: u8 = 77;

/// The name the program was called by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `sendmail`.
    Sendmail,
    /// `mailq`.
    Mailq,
    /// `newaliases`.
    Newaliases,
}

impl Name {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sendmail => "sendmail",
            Self::Mailq => "mailq",
            Self::Newaliases => "newaliases",
        }
    }

    /// Whether this is one of them; a package may have added `.mailroot` to it.
    pub(crate) fn of(program: Option<&OsString>) -> Option<Self> {
        let name = Path::new(program?).file_name().and_then(OsStr::to_str)?;
        match name.strip_suffix(".mailroot").unwrap_or(name) {
            "sendmail" => Some(Self::Sendmail),
            "mailq" => Some(Self::Mailq),
            "newaliases" => Some(Self::Newaliases),
            _ => None,
        }
    }
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    code: u8,
    words: String,
}

impl From<Usage> for Failure {
    fn from(Usage(words): Usage) -> Self {
        Self { code: USAGE, words }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { code: IO_ERROR, words: error.to_string() }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.kind() {
            _ if problem.code.starts_with("output.") => IO_ERROR,
            Kind::NotPermitted => NOT_PERMITTED,
            Kind::Usage => USAGE,
            Kind::Unavailable | Kind::TimedOut => TRY_LATER,
            _ => UNAVAILABLE,
        };
        Self { code, words: problem.detail.into() }
    }
}

/// Runs a command line, the program's name first.
pub(crate) fn run(name: Name, line: Vec<OsString>) -> ExitCode {
    let done = flags::read(line.into_iter().skip(1).collect()).map_err(Failure::from);
    let done = done.and_then(|mut flags| {
        match name {
            Name::Sendmail => {}
            Name::Mailq => flags.mode = Mode::List,
            Name::Newaliases => flags.mode = Mode::Aliases,
        }
        warn_of(&flags.unknown);
        perform(&flags)
    });
    match done {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, words }) => {
            complain(name, &words);
            ExitCode::from(code)
        }
    }
}

/// One line: whoever reads it is another program's log.
fn complain(name: Name, words: &str) {
    // Nobody is left to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "{}: {}", name.as_str(), escape(words).replace('\n', " "));
}

/// Tells the system's log of options nobody knows; the caller has no use for such words.
fn warn_of(unknown: &[String]) {
    if unknown.is_empty() {
        return;
    }
    // Facility mail, severity warning (RFC 5424 section 6.2.1).
    let words = format!("<20>sendmail[{}]: passed over: {}", std::process::id(), unknown.join(" "));
    if let Ok(socket) = UnixDatagram::unbound() {
        // A machine without a log has nobody to be told.
        let _ = socket.send_to(words.as_bytes(), "/dev/log");
    }
}

/// Hands a message in over the submit socket, under the sender that it names; the daemon's reply.
pub(crate) fn hand_in(socket: &Path, parcel: &Parcel) -> Result<String, Problem> {
    let (login, name) = whoami();
    let sender = match parcel.sender.as_str() {
        "" => "<>",
        sender => sender,
    };
    let mut message = Message::read(&parcel.message);
    message.prepare();
    let submission = Submission {
        message,
        sender: Some(sender.to_owned()),
        login,
        name,
        recipients: parcel.recipients.clone(),
        body: None,
        notify: None,
        returned: None,
        envid: None,
    };
    let problem = |kind, words: String| Problem::new("send", kind, words);
    let taken = submit::submit(socket, &submission, &mut Nobody).map_err(|failure| {
        let kind = match failure.code {
            TRY_LATER | UNAVAILABLE => Kind::Unavailable,
            NOT_PERMITTED => Kind::NotPermitted,
            _ => Kind::Failed,
        };
        problem(kind, failure.words)
    })?;
    match (taken.reply, taken.refused) {
        (Some(reply), refused) if refused.is_empty() => Ok(reply),
        (Some(reply), refused) => {
            let detail = format!("some recipients were refused ({reply})");
            Err(problem(Kind::Partly, detail).items(refused))
        }
        (None, refused) => Err(problem(Kind::Failed, "refused".to_owned()).items(refused)),
    }
}

fn perform(flags: &Flags) -> Result<u8, Failure> {
    let home = std::env::var_os("MAILROOT_HOME").map(PathBuf::from);
    let socket = submit_socket(home.as_deref());
    match &flags.mode {
        Mode::Deliver => deliver(flags, &socket),
        Mode::Dialogue => pipe::run(&socket),
        Mode::List => list::run(),
        Mode::Aliases => {
            // What is wrong is told and no failure: packages call this while they are installed.
            alias::report(home.as_deref(), &mut io::stderr())?;
            Ok(0)
        }
        Mode::Verify => verify(flags, &socket),
        Mode::Flush(flush) => flushed(flush),
        Mode::Nothing => Ok(0),
        Mode::Version => {
            writeln!(io::stdout(), "sendmail of Mailroot {}", env!("CARGO_PKG_VERSION"))?;
            Ok(0)
        }
    }
}

fn deliver(flags: &Flags, socket: &Path) -> Result<u8, Failure> {
    let is_nobody = |word: &String| matches!(word.trim(), "" | "<>");
    if flags.recipients.iter().all(is_nobody) && !flags.reads_recipients {
        let words = "no recipients: name some, or say -t to have them read from the message";
        return Err(Usage(words.to_owned()).into());
    }
    let sender = flags.sender.as_deref().map(envelope::sender).transpose()?;
    let mut recipients = Recipients::of(&flags.recipients);
    let mut message = Message::read(&input::read(flags.keeps_dots, socket)?);
    if flags.reads_recipients {
        recipients.extend(message.recipients());
    }
    recipients.check()?;
    message.prepare();
    let (login, full_name) = whoami();
    let submission = Submission {
        message,
        sender,
        login,
        name: flags.name.clone().unwrap_or(full_name),
        recipients: std::mem::take(&mut recipients.named),
        body: flags.body.clone(),
        notify: flags.notify.clone(),
        returned: flags.returned.clone(),
        envid: flags.envid.clone(),
    };
    let audience: &mut dyn Audience =
        if flags.verbose { &mut outcome::Person } else { &mut Nobody };
    let Taken { refused, reply } = submit::submit(socket, &submission, audience)?;
    refused.into_iter().for_each(|words| recipients.refuse(words));
    let refused = recipients.words();
    if refused.is_empty() {
        return Ok(0);
    }
    let others = if reply.is_some() { "; the others get it" } else { "" };
    Err(Failure { code: DATA_ERROR, words: format!("{refused}{others}") })
}

/// The user's login name, as the local part of an address, and his name in people's words.
fn whoami() -> (String, String) {
    let user = User::from_uid(getuid()).ok().flatten();
    let number = getuid().to_string();
    let (name, full_name) = match user {
        Some(user) => {
            let full =
                user.gecos.to_string_lossy().split(',').next().unwrap_or_default().to_owned();
            (user.name, full)
        }
        None => (number.clone(), String::new()),
    };
    let login = if LocalPart::parse(&name).is_ok() { name } else { number };
    (login, full_name)
}

fn verify(flags: &Flags, socket: &Path) -> Result<u8, Failure> {
    let nobody = Err(Usage("-bv needs an address".to_owned()).into());
    let mut all = Recipients::of(&flags.recipients);
    let refused = all.words();
    let is_somebody = all.check().is_ok();
    let mut worst = 0;
    if !refused.is_empty() {
        writeln!(io::stdout(), "{}", escape(&format!("{refused}... undeliverable")))?;
        worst = NO_USER;
    }
    if !is_somebody {
        return if refused.is_empty() { nobody } else { Ok(worst) };
    }
    for (to, reply) in all.named.iter().zip(submit::verify(socket, &all.named)?) {
        let (word, code) = match reply.code {
            200..=299 => ("deliverable", 0),
            500..=599 => ("undeliverable", NO_USER),
            _ => ("cannot be told now", TRY_LATER),
        };
        writeln!(io::stdout(), "{}", escape(&format!("{to}... {word}: {reply}")))?;
        worst = worst.max(code);
    }
    Ok(worst)
}

/// Tries mail that waits; that there is none is no failure.
fn flushed(flush: &Flush) -> Result<u8, Failure> {
    let anywhere = |text: &str| format!("*{text}*");
    let more: Vec<String> = match flush {
        Flush::All => Vec::new(),
        Flush::Id(id) => vec![id.clone()],
        Flush::Recipient(text) => vec!["--to".to_owned(), anywhere(text)],
        Flush::Sender(text) => vec!["--from".to_owned(), anywhere(text)],
    };
    let words = ["smtpctl", "--quiet", "queue", "flush"].map(str::to_owned);
    let args = Args::try_parse_from(words.into_iter().chain(more))
        .map_err(|error| Usage(error.to_string()))?;
    match crate::perform(args) {
        Ok(_) => Ok(0),
        Err(problem) if problem.kind() == Kind::NotFound => Ok(0),
        Err(problem) => Err(problem.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_decides_with_or_without_the_suffix_of_a_package() {
        for (program, name) in [
            ("/usr/sbin/sendmail", Some(Name::Sendmail)),
            ("sendmail.mailroot", Some(Name::Sendmail)),
            ("/usr/bin/mailq", Some(Name::Mailq)),
            ("mailq.mailroot", Some(Name::Mailq)),
            ("newaliases", Some(Name::Newaliases)),
            ("/usr/sbin/smtpctl", None),
            ("sendmail.postfix", None),
        ] {
            assert_eq!(Name::of(Some(&program.into())), name, "{program}");
        }
        assert_eq!(Name::of(None), None);
    }
}
