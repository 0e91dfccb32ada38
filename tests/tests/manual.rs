//! The manual pages against the programs: every option and every command is described, and nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use mailroot_tests::{program, skip};

fn page(name: &str) -> String {
    let path = program::repository().join("man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn help(name: &str, arguments: &[&str]) -> String {
    program::run(
        Command::new(program::ours(name)).args(arguments).arg("--help").env_remove("MAILROOT_HOME"),
        b"",
    )
    .ok()
}

/// The long options that a help text names at the beginning of its lines.
fn options(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split("--").nth(1))
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

/// The commands that a help text lists, with their visible aliases left out.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("    "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "help")
        .map(str::to_owned)
        .collect()
}

/// mdoc writes `--home` as `-home` after its flag macro; prose may write it plainly.
fn describes(page: &str, option: &str) -> bool {
    let plain = format!("--{option}");
    let macro_form = format!("Fl -{option}");
    let escaped = option.replace('-', "\\-");
    page.contains(&plain) || page.contains(&macro_form) || page.contains(&format!("Fl -{escaped}"))
}

#[test]
fn smtpd_8_describes_every_option_and_no_other() {
    let page = page("smtpd.8");
    let options = options(&help("smtpd", &[]));
    assert!(options.contains("home") && options.contains("check"), "{options:?}");
    for option in options.iter().filter(|option| !["help", "version"].contains(&option.as_str())) {
        assert!(describes(&page, option), "smtpd.8 does not describe --{option}");
    }
    for word in page.split("Fl -").skip(1) {
        let name: String =
            word.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
        if name.len() > 1 {
            assert!(options.contains(&name), "smtpd.8 describes --{name}, which is not there");
        }
    }
}

#[test]
fn smtpctl_8_describes_every_command_and_option() {
    let page = page("smtpctl.8");
    let mut missing = Vec::new();
    let top = help("smtpctl", &[]);
    for noun in commands(&top) {
        let text = help("smtpctl", &[&noun]);
        let verbs = commands(&text);
        let mut lines = vec![vec![noun.clone()]];
        for verb in verbs {
            let deeper = commands(&help("smtpctl", &[&noun, &verb]));
            lines.push(vec![noun.clone(), verb.clone()]);
            lines.extend(deeper.into_iter().map(|last| vec![noun.clone(), verb.clone(), last]));
        }
        for line in lines {
            if !page.contains(&line.join(" ")) {
                missing.push(line.join(" "));
            }
            let words: Vec<&str> = line.iter().map(String::as_str).collect();
            for option in options(&help("smtpctl", &words)) {
                if option != "help" && !describes(&page, &option) {
                    missing.push(format!("{} --{option}", line.join(" ")));
                }
            }
        }
    }
    assert!(missing.is_empty(), "smtpctl.8 does not describe:\n{}", missing.join("\n"));
}

#[test]
fn every_page_is_clean_mdoc() {
    let Some(mandoc) = program::find("mandoc") else {
        return skip::note("mandoc", "mandoc is not installed");
    };
    let folder = program::repository().join("man");
    let mut pages = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let linted =
            program::run(Command::new(&mandoc).args(["-Tlint", "-Wstyle"]).arg(&path), b"");
        let complaints: Vec<&str> = linted
            .out
            .lines()
            // A date in the future of the page's build and a page that is not installed here are no faults.
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
        pages += 1;
    }
    assert!(pages >= 4, "{pages} manual pages");
}
