//! mailroot-log(5) against the source: every event and every field of the log is described, and no other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mailroot_tests::program;

/// What begins a line of the log, with the event as one of its arguments.
const BEGINNINGS: [&str; 6] = ["line", "begin", "tell", "made_line", "trouble", "about_report"];
/// What adds a field to it.
const FIELDS: [&str; 3] = ["word", "text", "maybe"];

fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_tests =
            path.ends_with("tests.rs") || path.ends_with("tests") || path.ends_with("simulation");
        if path.is_dir() && !is_tests {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") && !is_tests {
            let text = fs::read_to_string(&path).unwrap();
            found.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned());
        }
    }
}

/// The arguments of every call of a function of this name, each as it is written.
fn calls<'a>(text: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let call = format!("{name}(");
    let is_whole = |at: usize| {
        text[..at].chars().next_back().is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_')
    };
    let found = text.match_indices(&call).filter(|(at, _)| is_whole(*at));
    found.map(|(at, _)| arguments(&text[at + call.len()..])).collect()
}

fn arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found, mut quoted) = (0_usize, 0, Vec::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => {
                found.push(text[begin..at].trim());
                return found;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn literal(argument: &str) -> Option<&str> {
    let word = argument.strip_prefix('"')?.strip_suffix('"')?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    (!word.is_empty() && word.chars().all(is_plain)).then_some(word)
}

/// Events that are chosen before the line begins.
fn chosen(text: &str) -> Vec<&str> {
    let blocks = text.split("let event = match ").skip(1);
    let words = blocks.flat_map(|rest| rest.split("\n    };").next().unwrap().split("=> ").skip(1));
    words.filter_map(|word| literal(word.split(',').next().unwrap().trim())).collect()
}

/// The names of the items of a page with this macro, in these sections or in all others.
fn items<'a>(page: &'a str, name: &str, only_fields: bool) -> BTreeSet<&'a str> {
    let beginning = format!(".It {name} ");
    let sections = page.split("\n.Sh ");
    let wanted = sections.filter(|it| it.starts_with("FIELDS OF LINES") == only_fields);
    wanted.flat_map(str::lines).filter_map(|line| line.strip_prefix(&beginning)).collect()
}

#[test]
fn every_event_and_field_of_the_log_is_described() {
    let mut texts = Vec::new();
    sources(&program::repository().join("smtpd/src"), &mut texts);
    let (mut events, mut fields) = (BTreeSet::new(), BTreeSet::from(["time"]));
    for text in &texts {
        for name in BEGINNINGS {
            events.extend(calls(text, name).into_iter().flatten().filter_map(literal));
        }
        events.extend(chosen(text));
        for call in FIELDS.iter().flat_map(|name| calls(text, name)) {
            if let [key, _, ..] = call.as_slice() {
                fields.extend(literal(key));
            }
        }
    }
    let page = fs::read_to_string(program::repository().join("man/mailroot-log.5")).unwrap();
    assert!(events.contains("received") && events.contains("expired"), "{events:?}");
    assert_eq!(items(&page, "Li", false), events, "events of mailroot-log(5), and of the source");
    assert_eq!(items(&page, "Va", true), fields, "fields of mailroot-log(5), and of the source");
}
