//! Passwords and other secrets on their way in: from a pipe, from a file, or typed unseen. Never an argument, which
//! every user of the machine could read.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use mailroot_common::control::{Kind, Problem};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::io_problem;
use crate::tool::Tool;

/// The most octets of a password.
const OCTETS_MAX: u64 = 64 * 1024;

/// Where a secret is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    Stdin,
    File(&'a Path),
}

impl<'a> Place<'a> {
    /// The one that was named, if one was.
    pub(crate) fn of(is_stdin: bool, file: Option<&'a Path>) -> Option<Self> {
        if is_stdin { Some(Self::Stdin) } else { file.map(Self::File) }
    }
}

/// Reads a secret of one line; `what` is how it is called.
pub(crate) fn secret(place: Place<'_>, what: &str) -> Result<String, Problem> {
    let read = match place {
        Place::Stdin => {
            let mut read = String::new();
            io::stdin().take(OCTETS_MAX).read_to_string(&mut read).map_err(io_problem)?;
            read
        }
        Place::File(path) => text(path)?,
    };
    one_line(&read, what)
}

/// Reads a file of text as it is.
pub(crate) fn text(path: &Path) -> Result<String, Problem> {
    let cannot = |error: io::Error| {
        let detail = format!("cannot read {}: {error}", path.display());
        Problem::new("password", Kind::Failed, detail)
    };
    let mut read = String::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(OCTETS_MAX).read_to_string(&mut read).map_err(cannot)?;
    Ok(read)
}

/// The line, without its end.
fn one_line(text: &str, what: &str) -> Result<String, Problem> {
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains(['\r', '\n']) {
        let detail = format!("{what} is one line of text and not empty");
        return Err(Problem::new("password", Kind::Usage, detail));
    }
    Ok(line.to_owned())
}

/// Where a password comes from.
#[derive(Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(crate) struct PasswordOptions {
    /// Read the password from standard input.
    #[arg(long)]
    password_stdin: bool,
    /// Read the password from a file.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordOptions {
    /// Whether a place was named.
    pub(crate) const fn is_given(&self) -> bool {
        self.password_stdin || self.password_file.is_some()
    }

    /// The password; nothing if no place was named and nobody can be asked.
    pub(crate) fn read(&self, tool: &Tool, name: &str) -> Result<Option<String>, Problem> {
        const WHAT: &str = "a password";
        match Place::of(self.password_stdin, self.password_file.as_deref()) {
            Some(place) => secret(place, WHAT).map(Some),
            None if tool.can_ask() => {
                let text = ask(&format!("Password for {name}: ")).map_err(io_problem)?;
                one_line(&text, WHAT).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// Asks on the terminal without showing what is typed.
fn ask(question: &str) -> io::Result<String> {
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut unseen = before.clone();
    unseen.local_flags.remove(LocalFlags::ECHO);
    write!(io::stderr(), "{question}")?;
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &unseen)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before)?;
    writeln!(io::stderr())?;
    read.map(|_| line)
}
