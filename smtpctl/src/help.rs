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
    ("control", "7", "mailroot-control"),
    ("errors", "7", "mailroot-errors"),
    ("from-exim", "7", "mailroot-from-exim"),
    ("from-opensmtpd", "7", "mailroot-from-opensmtpd"),
    ("from-postfix", "7", "mailroot-from-postfix"),
    ("iis", "7", "mailroot-iis"),
    ("log", "5", "mailroot-log"),
    ("mailroot", "7", "mailroot"),
    ("metric-names", "5", "mailroot-metrics"),
    ("security", "7", "mailroot-security"),
    ("sendmail", "8", "sendmail"),
    ("server-files", "5", "mailroot-server.yaml"),
    ("smtpd", "8", "smtpd"),
    ("store", "5", "mailroot-store"),
];
/// The pages of commands, and the commands that each is about. The others are in the tool's own page.
const NOUNS: &[(&str, &[&str])] = &[
    ("smtpctl-access", &["access", "relay"]),
    ("smtpctl-badmail", &["badmail", "drop"]),
    ("smtpctl-cert", &["cert", "dkim"]),
    ("smtpctl-config", &["config", "reload", "explain"]),
    ("smtpctl-doctor", &["doctor", "status", "metrics"]),
    ("smtpctl-domain", &["domain", "route", "alias", "ldap"]),
    ("smtpctl-pickup", &["pickup", "send"]),
    ("smtpctl-queue", &["queue"]),
    ("smtpctl-server", &["server", "service"]),
    ("smtpctl-session", &["session"]),
    ("smtpctl-smarthost", &["smarthost", "etrn", "tls"]),
    ("smtpctl-trace", &["trace", "stats", "logs"]),
    ("smtpctl-user", &["user", "operator"]),
];
/// What this tool's own page is about besides commands.
const SECTIONS: &[&str] = &["output", "selectors", "operators", "exit"];

#[derive(Debug, clap::Args)]
pub(crate) struct Help {
    /// A page, or a command's first word; output, selectors, operators, exit; or mailroot, aliases, config-files,
    /// control, errors, from-exim, from-opensmtpd, from-postfix, iis, log, metric-names, security,
    /// sendmail, server-files, smtpd, store.
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
    let is_it = |(word, _, page): &&(&str, _, &str)| *word == topic || *page == topic;
    if let Some((_, section, page)) = PAGES.iter().find(is_it) {
        return Ok((section, page, None));
    }
    if let Some((page, _)) = NOUNS.iter().find(|(page, _)| *page == topic) {
        return Ok(("8", page, None));
    }
    let tree = Args::command();
    let is_noun = tree.get_subcommands().any(|noun| noun.get_name() == topic);
    if is_noun || SECTIONS.contains(&topic) {
        let page = NOUNS.iter().find(|(_, nouns)| nouns.contains(&topic));
        return Ok(("8", page.map_or("smtpctl", |(page, _)| page), Some(topic.to_owned())));
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
        assert_eq!(page(Some("queue")).unwrap(), ("8", "smtpctl-queue", Some("queue".to_owned())));
        assert_eq!(page(Some("setup")).unwrap(), ("8", "smtpctl", Some("setup".to_owned())));
        assert_eq!(page(Some("errors")).unwrap(), ("7", "mailroot-errors", None));
        assert_eq!(page(Some("output")).unwrap().1, "smtpctl");
        assert_eq!(page(Some("mailroot-log")).unwrap(), ("5", "mailroot-log", None));
        assert_eq!(page(Some("smtpctl-queue")).unwrap(), ("8", "smtpctl-queue", None));
        let problem = page(Some("quee")).unwrap_err();
        assert!(problem.exit == 2 && problem.hint.unwrap().contains("errors"));
        for (_, section, page) in PAGES {
            assert!(file(page, section).exists(), "{page}.{section}");
        }
    }

    fn file(page: &str, section: &str) -> std::path::PathBuf {
        format!("{}/../man/{page}.{section}", env!("CARGO_MANIFEST_DIR")).into()
    }

    #[test]
    fn each_command_leads_to_the_page_that_describes_it() {
        for noun in Args::command().get_subcommands().map(clap::Command::get_name) {
            let (section, found, _) = page(Some(noun)).unwrap();
            let text = std::fs::read_to_string(file(found, section)).unwrap();
            let is_it = |line: &str| {
                let names = line.strip_prefix(".\\\" command ").unwrap_or_default();
                names.split(", ").any(|words| words.split(' ').next() == Some(noun))
            };
            assert!(text.lines().any(is_it), "{found} does not describe {noun}");
        }
    }
}
