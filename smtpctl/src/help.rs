//! `help`: opens a page of the manual.

use std::io::{self, IsTerminal};
use std::process::Command;

use clap::CommandFactory;
use mailroot_common::control::{Kind, Problem};

use crate::args::Args;

/// Pages that are about no command, by what they are asked for with.
const PAGES: &[(&str, &str, &str)] = &[
    ("aliases", "5", "aliases"),
    ("config-files", "5", "mailroot.yaml"),
    ("errors", "7", "mailroot-errors"),
    ("iis", "7", "mailroot-iis"),
    ("sendmail", "8", "sendmail"),
    ("server-files", "5", "mailroot-server.yaml"),
    ("smtpd", "8", "smtpd"),
];
/// What this tool's own page is about besides commands.
const SECTIONS: &[&str] = &["output", "selectors", "operators", "exit"];

#[derive(Debug, clap::Args)]
pub(crate) struct Help {
    /// A command's first word; output, selectors, operators, exit; or aliases, config-files, errors,
    /// iis, sendmail, server-files, smtpd.
    #[arg(value_name = "TOPIC")]
    topic: Option<String>,
}

/// Opens the page; the exit code of the program that shows it.
pub(crate) fn run(help: &Help) -> Result<u8, Problem> {
    let (section, page, place) = page(help.topic.as_deref())?;
    let mut man = Command::new("man");
    if let Some(place) = place.filter(|_| io::stdout().is_terminal()) {
        // Only if nobody has another program show pages.
        if std::env::var_os("MANPAGER").is_none() && std::env::var_os("PAGER").is_none() {
            man.env("MANPAGER", format!("less -i '+/^ *{place}'"));
        }
    }
    let shown = man.args([section, page]).status().map_err(|error| {
        Problem::new("client", Kind::Failed, format!("cannot start man: {error}"))
            .hint("every command has --help; pages need the program man (Debian: man-db)")
    })?;
    Ok(shown.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// The section and the name of a page, and where in it to look.
fn page(topic: Option<&str>) -> Result<(&'static str, &'static str, Option<String>), Problem> {
    let Some(topic) = topic else { return Ok(("8", "smtpctl", None)) };
    if let Some((_, section, page)) = PAGES.iter().find(|(word, _, _)| *word == topic) {
        return Ok((section, page, None));
    }
    let tree = Args::command();
    let is_noun = tree.get_subcommands().any(|noun| noun.get_name() == topic);
    if is_noun || SECTIONS.contains(&topic) {
        return Ok(("8", "smtpctl", Some(topic.to_owned())));
    }
    let words: Vec<&str> =
        PAGES.iter().map(|(word, _, _)| *word).chain(SECTIONS.iter().copied()).collect();
    let hint = format!("name a command, or one of {}", words.join(", "));
    Err(Problem::new("client", Kind::Usage, format!("there is no page about {topic:?}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_files_have_their_pages() {
        assert_eq!(page(None).unwrap(), ("8", "smtpctl", None));
        assert_eq!(page(Some("queue")).unwrap(), ("8", "smtpctl", Some("queue".to_owned())));
        assert_eq!(page(Some("errors")).unwrap(), ("7", "mailroot-errors", None));
        assert_eq!(page(Some("output")).unwrap().1, "smtpctl");
        let problem = page(Some("quee")).unwrap_err();
        assert!(problem.exit == 2 && problem.hint.unwrap().contains("errors"));
        for (_, section, page) in PAGES {
            let file = format!("{}/../man/{page}.{section}", env!("CARGO_MANIFEST_DIR"));
            assert!(std::path::Path::new(&file).exists(), "{file}");
        }
    }
}
