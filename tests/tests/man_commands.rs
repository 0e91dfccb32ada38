//! The pages of `smtpctl`'s commands against its command line: SYNOPSIS, options and arguments are written from
//! what the program itself knows, and every command has one place.
//!
//! After a change of a command, run it once with `MAILROOT_WRITE_MAN=1`, and commit the pages.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use clap::{Arg, Command, CommandFactory};
use mailroot_tests::{mdoc, program};
use smtpctl::args::Args;

/// Before and behind what is written anew.
const SYNOPSIS: (&str, &str) = (".\\\" synopsis", ".\\\" end of synopsis");
const COMMAND: (&str, &str) = (".\\\" command ", ".\\\" end of command");
const NOUNS: (&str, &str) = (".\\\" nouns", ".\\\" end of nouns");

/// The pages about commands, by their names.
fn pages() -> BTreeMap<String, String> {
    let folder = program::repository().join("man");
    let names = fs::read_dir(&folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let ours = names.filter(|name| name.starts_with("smtpctl"));
    ours.map(|name| (name.clone(), fs::read_to_string(folder.join(&name)).unwrap())).collect()
}

/// The commands that a page describes together, each list in its place.
fn described(page: &str) -> Vec<Vec<&str>> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(COMMAND.0));
    lines.map(|names| names.split(", ").collect()).collect()
}

/// All that can be called, by its words.
fn commands() -> BTreeMap<String, Command> {
    let mut tree = Args::command();
    tree.build();
    let mut found = BTreeMap::new();
    gather(&tree, "", &mut found);
    found
}

fn gather(command: &Command, words: &str, found: &mut BTreeMap<String, Command>) {
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = below.get_name();
        let words = if words.is_empty() { name.to_owned() } else { format!("{words} {name}") };
        if !below.is_subcommand_required_set() {
            found.insert(words.clone(), below.clone());
        }
        gather(below, &words, found);
    }
}

/// What an argument is described as: an option of every command and help have their place elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Selector,
    Change,
    Own,
}

/// The conditions that smtpctl(8) describes for all commands.
const CONDITIONS: [&str; 13] = [
    "from",
    "to",
    "domain",
    "subject",
    "client",
    "older-than",
    "newer-than",
    "state",
    "reason",
    "code",
    "destination",
    "size",
    "all",
];

fn parts(command: &Command) -> Vec<(Part, &Arg)> {
    let is_change = command.get_arguments().any(|arg| arg.get_id() == "expect_revision");
    let has_selector =
        command.get_arguments().any(|arg| arg.get_help_heading() == Some("Selector"));
    let part = |arg: &Arg| match arg.get_id().as_str() {
        "dry_run" | "message" | "expect_revision" | "trial" if is_change => Part::Change,
        _ if arg.get_help_heading() == Some("Selector") => {
            let is_known = arg.get_long().is_some_and(|long| CONDITIONS.contains(&long));
            if is_known { Part::Selector } else { Part::Own }
        }
        _ if has_selector && arg.get_help_heading() == Some("Arguments") => Part::Selector,
        _ => Part::Own,
    };
    let ours = command.get_arguments().filter(|arg| {
        !arg.is_global_set()
            && !arg.is_hide_set()
            && !["help", "version"].contains(&arg.get_id().as_str())
    });
    ours.map(|arg| (part(arg), arg)).collect()
}

/// The words of an argument that are its own, or its values.
fn value(arg: &Arg) -> String {
    let values = arg.get_possible_values();
    if values.is_empty() || arg.is_hide_possible_values_set() || !arg.get_action().takes_values() {
        let names = arg.get_value_names().unwrap_or_default();
        return names.iter().fold(String::new(), |out, name| format!("{out} Ar {name}"));
    }
    let words: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
    format!(" Cm {}", words.join(" | "))
}

fn option(arg: &Arg, value: &str) -> String {
    let name = match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("Fl -{long}"),
        (None, Some(short)) => format!("Fl {short}"),
        (None, None) => panic!("{} is neither an option nor a place", arg.get_id()),
    };
    if !arg.get_action().takes_values() {
        return name;
    }
    let may_be_bare = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    if may_be_bare { format!("{name} Ns Op = Ns{value}") } else { format!("{name}{value}") }
}

/// What stands behind `.Op` is not broken over two lines by troff, so it must fit one.
const LINE: usize = 70;

fn usage(words: &str, command: &Command) -> String {
    let mut out = format!(".Nm smtpctl Cm {words}\n");
    let parts = parts(command);
    for (_, arg) in parts.iter().filter(|(part, _)| *part == Part::Own) {
        let is_many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        let more = if is_many { " ..." } else { "" };
        let told = if arg.is_positional() {
            value(arg).trim_start().to_owned() + more
        } else {
            option(arg, &value(arg)) + more
        };
        let line = match (arg.is_required_set(), told.len() > LINE) {
            (true, _) => format!(".{told}"),
            (false, false) => format!(".Op {told}"),
            (false, true) => format!(".Oo\n.{told}\n.Oc"),
        };
        let _ = writeln!(out, "{line}");
    }
    for (part, word) in [(Part::Selector, "selector"), (Part::Change, "options")] {
        if parts.iter().any(|(it, _)| *it == part) {
            let _ = writeln!(out, ".Op Ar {word}");
        }
    }
    out
}

/// The items of the arguments that one command or several have, each once.
fn table(page: &str, commands: &[&Command]) -> String {
    let mut items: Vec<String> = Vec::new();
    let mut selector: Vec<String> = Vec::new();
    let mut is_change = false;
    for (part, arg) in commands.iter().flat_map(|command| parts(command)) {
        match part {
            Part::Change => is_change = true,
            Part::Selector if arg.is_positional() => {}
            Part::Selector => selector.push(format!(".Fl -{}", arg.get_long().unwrap())),
            Part::Own => items.push(item(arg)),
        }
    }
    if !selector.is_empty() {
        let last = selector.pop().unwrap();
        let rest: String = selector.iter().map(|it| format!("{it} ,\n")).collect();
        items.push(format!(
            ".It Ar selector\nWhich ones: ids, or\n{rest}{last} ,\nas\n.Xr smtpctl 8\nhas them.\n"
        ));
    }
    if is_change {
        let place =
            if page == "smtpctl-config.8" { ".Sx DESCRIPTION" } else { ".Xr smtpctl-config 8" };
        items.push(format!(".It Ar options\nThose of every change, see\n{place} .\n"));
    }
    let mut told: Vec<String> = Vec::new();
    for item in items {
        if !told.contains(&item) {
            told.push(item);
        }
    }
    if told.is_empty() {
        String::new()
    } else {
        format!(".Bl -tag -width Ds\n{}.El\n", told.concat())
    }
}

fn item(arg: &Arg) -> String {
    let mut head = if arg.is_positional() {
        value(arg).trim_start().to_owned()
    } else {
        option(arg, &value(arg))
    };
    if let (Some(short), Some(_)) = (arg.get_short(), arg.get_long()) {
        head = format!("Fl {short} , {head}");
    }
    for alias in arg.get_visible_aliases().unwrap_or_default() {
        let _ = write!(head, " , Fl -{alias}");
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    assert!(!help.is_empty(), "{head} has no help");
    let stop = if help.ends_with('.') { "" } else { "." };
    let mut out = format!(".It {head}\n{}", mdoc::prose(&format!("{help}{stop}")));
    let defaults: Vec<_> = arg.get_default_values().iter().map(|it| it.to_string_lossy()).collect();
    if arg.get_action().takes_values() && !defaults.is_empty() && !arg.is_hide_default_value_set() {
        out.push_str(&mdoc::prose(&format!("Default: {}.", defaults.join(", "))));
    }
    out
}

/// The list of nouns, each with its page.
fn nouns(pages: &BTreeMap<String, String>) -> String {
    let tree = Args::command();
    let mut out = String::new();
    for noun in tree.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = noun.get_name();
        let place = pages.iter().find(|(_, text)| {
            let all = described(text).concat();
            all.iter().any(|words| words.split(' ').next() == Some(name))
        });
        let (page, _) = place.unwrap_or_else(|| panic!("no page describes {name}"));
        let about = noun.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(out, ".It Cm {name}\n{}", mdoc::prose(&format!("{about}.")));
        let page = page.trim_end_matches(".8");
        if page != "smtpctl" {
            let _ = writeln!(out, "See\n.Xr {page} 8 .");
        }
    }
    out
}

/// The page with all that follows from the command line written anew.
fn written_anew(name: &str, page: &str, all: &BTreeMap<String, String>) -> String {
    let commands = commands();
    let known = |words: &&str| {
        commands.get(*words).unwrap_or_else(|| panic!("{name}: there is no command {words:?}"))
    };
    let mut out = String::new();
    let mut end: Option<&str> = None;
    for line in page.lines() {
        if end == Some(line) {
            end = None;
        }
        if end.is_some() {
            continue;
        }
        let _ = writeln!(out, "{line}");
        if line == SYNOPSIS.0 {
            end = Some(SYNOPSIS.1);
            for words in described(page).concat() {
                out.push_str(&usage(words, known(&words)));
            }
        } else if line == NOUNS.0 {
            end = Some(NOUNS.1);
            out.push_str(&nouns(all));
        } else if let Some(names) = line.strip_prefix(COMMAND.0) {
            end = Some(COMMAND.1);
            let those: Vec<&Command> = names.split(", ").map(|words| known(&words)).collect();
            out.push_str(&table(name, &those));
        }
    }
    assert!(end.is_none(), "{name}: {end:?} is missing");
    out
}

#[test]
fn the_pages_tell_what_the_command_line_knows() {
    let pages = pages();
    for (name, page) in &pages {
        let wanted = written_anew(name, page, &pages);
        if std::env::var_os("MAILROOT_WRITE_MAN").is_some() {
            fs::write(program::repository().join("man").join(name), &wanted).unwrap();
            continue;
        }
        let differs = page.lines().zip(wanted.lines()).find(|(old, new)| old != new);
        assert!(
            *page == wanted,
            "man/{name} differs from the command line, first here: {differs:?}; \
             write it anew with MAILROOT_WRITE_MAN=1 cargo test -p mailroot-tests --test man_commands"
        );
    }
}

#[test]
fn every_command_is_described_once() {
    let pages = pages();
    let mut described: Vec<&str> =
        pages.values().flat_map(|page| described(page).concat()).collect();
    described.sort_unstable();
    let commands = commands();
    let known: Vec<&str> = commands.keys().map(String::as_str).collect();
    assert_eq!(described, known);
}
