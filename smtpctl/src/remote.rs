//! `-H`: the same command on another host, over ssh.
//!
//! The words of the command line are handed to the remote shell in quotes; what comes back,
//! exit code included, is the remote tool's. There is no other way to a daemon from afar.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::{Command, ExitStatus};

use clap::Parser;
use mailroot_common::control::{Kind, Problem};
use mailroot_common::shell;

use crate::args::Args;

/// What ssh exits with if it did not come as far as the command.
const SSH_FAILED: i32 = 255;

/// Performs a command line, the program's name first, on a host; the remote exit code.
pub(crate) fn run(host: &str, line: &[OsString]) -> Result<u8, Problem> {
    let usage = |detail: String| Problem::new("remote", Kind::Usage, detail);
    if host.is_empty() || host.starts_with('-') || host.contains(|c: char| !c.is_ascii_graphic()) {
        return Err(
            usage(format!("{host:?} is no host")).hint("write -H HOST or -H USER@HOST, as for ssh")
        );
    }
    let words = without_host(line).ok_or_else(|| {
        usage("-H is to stand alone".to_owned()).hint("write -H HOST apart from other options")
    })?;
    let mut ssh = Command::new("ssh");
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        ssh.arg("-t");
    }
    ssh.arg("--").arg(host).arg(command(&words));
    let ended = ssh.status().map_err(|error| {
        Problem::new("remote", Kind::Failed, format!("cannot start ssh: {error}"))
            .hint("-H needs the program ssh (Debian: openssh-client)")
    })?;
    if ended.code() == Some(SSH_FAILED) {
        let detail = format!("ssh could not perform the command on {host}");
        return Err(Problem::new("remote", Kind::Unavailable, detail)
            .hint(format!("what does \"ssh {host} smtpctl version\" say?")));
    }
    Ok(code(ended))
}

fn code(ended: ExitStatus) -> u8 {
    ended
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or_else(|| Kind::Failed.exit_code())
}

/// The words behind the program's name without the option that names the host.
fn without_host(line: &[OsString]) -> Option<Vec<OsString>> {
    let places = line.iter().enumerate().skip(1).filter_map(|(place, word)| {
        let word = word.as_bytes();
        match word {
            b"-H" | b"--host" => Some((place, 2)),
            _ if word.starts_with(b"-H") || word.starts_with(b"--host=") => Some((place, 1)),
            _ => None,
        }
    });
    // The same word may be the value of another option; then the rest is no command without host.
    places.into_iter().find_map(|(place, count)| {
        let mut rest = line.to_vec();
        rest.drain(place..(place + count).min(line.len()));
        let args = Args::try_parse_from(&rest).ok()?;
        args.global.host.is_none().then(|| rest.split_off(1))
    })
}

/// The command as the remote shell reads it.
fn command(words: &[OsString]) -> OsString {
    let mut out = b"smtpctl".to_vec();
    for word in words {
        out.push(b' ');
        shell::quote(word.as_bytes(), &mut out);
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(line: &str) -> Option<String> {
        let line: Vec<OsString> = line.split(' ').map(Into::into).collect();
        without_host(&line).map(|words| command(&words).into_string().unwrap())
    }

    #[test]
    fn the_host_is_left_out_and_nothing_else() {
        for (line, expected) in [
            ("smtpctl -H a@b status", Some("smtpctl status")),
            ("smtpctl status --host=b --check", Some("smtpctl status --check")),
            ("smtpctl -Hb queue list -o json", Some("smtpctl queue list -o json")),
            ("smtpctl --columns -Hx --host b status", Some("smtpctl --columns -Hx status")),
            ("smtpctl -qH b status", None),
        ] {
            assert_eq!(remote(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        let words =
            ["", "a b", "it's", "$(id)", "`id`;&|<>*?[]{}~#!", "\\", "a\nb", "\u{fc}\"", "-x"];
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let line = command(&words).into_string().unwrap();
        let script = format!("smtpctl() {{ printf '%s\\0' \"$@\"; }}; {line}");
        let out = Command::new("sh").args(["-c", &script]).output().unwrap().stdout;
        let read: Vec<OsString> =
            out.split(|octet| *octet == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
        assert_eq!(read[..read.len() - 1], words);
    }

    #[test]
    fn what_ssh_would_take_for_an_option_is_no_host() {
        for host in ["-oProxyCommand=id", "", "a b", "a\nb"] {
            assert_eq!(run(host, &["smtpctl".into()]).unwrap_err().exit, 2, "{host:?}");
        }
    }
}
