//! Long output on a terminal goes through a pager, as a person's other tools do it.
//!
//! `SMTPCTL_PAGER` or `PAGER` names the program, `less` if neither does; `cat` or nothing means
//! none. What fits on one screen is left there by `less -F`.

use std::io::{self, IsTerminal, Write};
use std::process::{Child, Command, Stdio};

use nix::unistd::dup2_stdout;

/// What our output goes through; it is waited for when this is dropped.
#[derive(Debug)]
pub(crate) struct Pager(Child);

impl Pager {
    /// Puts a pager behind standard output, if that is a terminal and a pager is wanted. One that
    /// cannot be started is no reason to show nothing.
    pub(crate) fn start() -> Option<Self> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let wish = |name| std::env::var(name).ok();
        let program = program(wish("SMTPCTL_PAGER"), wish("PAGER"))?;
        let mut words = program.split_whitespace();
        let mut child = Command::new(words.next()?)
            .args(words)
            .env("LESSCHARSET", "utf-8")
            .stdin(Stdio::piped())
            .spawn()
            .ok()?;
        let pipe = child.stdin.take()?;
        dup2_stdout(&pipe).ok()?;
        Some(Self(child))
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // The pager ends when nobody can write to it any more, and a person has read enough.
        let _ = io::stdout().flush();
        if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
            let _ = dup2_stdout(nowhere);
        }
        let _ = self.0.wait();
    }
}

/// The pager to start, with its options; none if none is wanted.
fn program(own: Option<String>, general: Option<String>) -> Option<String> {
    let wish = own.or(general).unwrap_or_else(|| "less".to_owned());
    match wish.trim() {
        "" | "cat" => None,
        "less" => Some("less -FRX".to_owned()),
        other => Some(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_variable_comes_first_and_cat_is_none() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(program(None, None), some("less -FRX"));
        assert_eq!(program(some("most"), some("less")), some("most"));
        assert_eq!(program(None, some("less -S")), some("less -S"));
        assert_eq!(program(some("cat"), some("less")), None);
        assert_eq!(program(some(""), some("less")), None);
    }
}
