//! The codes of errors: mailroot-errors(7) against their table, and the table against the source.
//!
//! The lists of the page are written with `MAILROOT_WRITE_MAN=1`, as those of the keys are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use mailroot_common::codes::{self, DIAGNOSTICS, Explained, PROBLEMS};
use mailroot_tests::{mdoc, program};

fn item(row: &Explained) -> String {
    format!(".It Li {}\n{}.br\n{}", row.code, mdoc::prose(row.cause), mdoc::prose(row.cure))
}

/// The page with its lists written anew. Each stands between `.\" codes BEGINNING` and
/// `.\" end of codes`; the codes with a dot are one list.
fn written_anew(page: &str) -> String {
    let mut out = String::new();
    let mut listed = 0;
    let mut inside = false;
    for line in page.lines() {
        inside &= line != ".\\\" end of codes";
        if !inside {
            let _ = writeln!(out, "{line}");
        }
        if let Some(beginning) = line.strip_prefix(".\\\" codes ") {
            inside = true;
            out.push_str(".Bl -tag -width Ds\n");
            let belongs = |row: &&Explained| match beginning {
                "." => row.code.contains('.'),
                _ => row.code.starts_with(beginning),
            };
            for row in codes::all().filter(belongs) {
                out.push_str(&item(row));
                listed += 1;
            }
            out.push_str(".El\n");
        }
    }
    assert_eq!(listed, codes::all().count(), "a code has no list in the page");
    out
}

#[test]
fn the_page_lists_every_code() {
    let file = program::repository().join("man/mailroot-errors.7");
    let page = fs::read_to_string(&file).unwrap();
    let wanted = written_anew(&page);
    if std::env::var_os("MAILROOT_WRITE_MAN").is_some() {
        fs::write(&file, &wanted).unwrap();
        return;
    }
    assert!(
        page == wanted,
        "man/mailroot-errors.7 is out of date; write it anew with \
         MAILROOT_WRITE_MAN=1 cargo test -p mailroot-tests --test errors"
    );
}

/// Every source file below a folder without its unit tests.
fn sources(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if !path.ends_with("tests.rs") {
            let text = fs::read_to_string(&path).unwrap();
            let product = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            found.push(product.to_owned());
        }
    }
}

fn product(folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for folder in folders {
        sources(&program::repository().join(folder), &mut found);
    }
    found
}

fn same(kind: &str, in_source: &BTreeSet<String>, rows: &[Explained]) {
    let in_table: BTreeSet<String> = rows.iter().map(|row| row.code.to_owned()).collect();
    let missing: Vec<_> = in_source.difference(&in_table).collect();
    let stale: Vec<_> = in_table.difference(in_source).collect();
    assert!(missing.is_empty(), "{kind} without a row in common/src/codes: {missing:?}");
    assert!(stale.is_empty(), "{kind} with a row in common/src/codes, but made nowhere: {stale:?}");
}

#[test]
fn every_diagnostic_has_a_row_and_every_row_a_diagnostic() {
    let is_code = |word: &&str| {
        word.len() == 5
            && word.starts_with(['E', 'W'])
            && word[1..].bytes().all(|octet| octet.is_ascii_digit())
    };
    let mut found = BTreeSet::new();
    for text in product(&["common/src/config", "smtpd/src"]) {
        found.extend(text.split('"').filter(is_code).map(str::to_owned));
    }
    same("diagnostics", &found, DIAGNOSTICS);
}

/// `not_found` for `NotFound`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap()
}

/// The kinds of problems a piece of code names.
fn kinds(code: &str) -> Vec<String> {
    const KINDS: [&str; 10] = [
        "Failed",
        "Usage",
        "NotFound",
        "NotPermitted",
        "Unavailable",
        "ConfigInvalid",
        "Conflict",
        "Partly",
        "TimedOut",
        "Found",
    ];
    let named = code.split("Kind::").skip(1).map(identifier);
    named.filter(|name| KINDS.contains(name)).map(snake).collect()
}

/// The codes that one call of `Problem::new` can make. `before` ends where the call begins, `after`
/// begins with its arguments. A kind in a variable is one that the function names before.
fn codes_of(before: &str, after: &str, nouns: &BTreeSet<String>, out: &mut BTreeSet<String>) {
    let (noun, rest) = after.split_once(',').unwrap();
    let noun = noun.trim();
    let ends = [";", "=>", "\n}", "\n    }", "Problem::new("];
    let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    let statement = &rest[..end];
    let words: Vec<String> = match statement.split_once(".word(\"") {
        Some((_, word)) => vec![identifier(word).to_owned()],
        None if rest.trim_start().starts_with("kind") => {
            kinds(before.rsplit("fn ").next().unwrap())
        }
        None => kinds(statement).into_iter().take(1).collect(),
    };
    let of_deeds = noun == "deed.noun";
    for word in words {
        let known = noun.trim_matches('"').to_owned();
        let those = if of_deeds { nouns.clone() } else { BTreeSet::from([known]) };
        out.extend(those.iter().map(|noun| format!("{noun}.{word}")));
    }
}

#[test]
fn every_problem_has_a_row_and_every_row_a_problem() {
    let texts = product(&["smtpd/src/control", "smtpd/src/service", "smtpctl/src"]);
    let mut nouns = BTreeSet::new();
    for text in &texts {
        nouns.extend(text.split(" noun: \"").skip(1).map(|rest| identifier(rest).to_owned()));
    }
    let mut found = BTreeSet::new();
    for text in &texts {
        for (at, call) in text.match_indices("Problem::new(") {
            codes_of(&text[..at], &text[at + call.len()..], &nouns, &mut found);
        }
        // Warnings of status carry their whole code.
        for beginning in ["warning(\"", "code: \""] {
            let words = text.split(beginning).skip(1).map(|rest| rest.split('"').next().unwrap());
            found.extend(words.filter(|word| word.contains('.')).map(str::to_owned));
        }
    }
    same("problems", &found, PROBLEMS);
}

#[test]
fn the_tool_explains_a_code() {
    let explain = |code: &str| {
        program::run(Command::new(program::ours("smtpctl")).args(["explain", code]), b"")
    };
    let told = explain("e0310").ok();
    assert!(told.starts_with("E0310\n") && told.contains("open relay"), "{told}");
    let unknown = explain("server.exsts").exited(3);
    assert!(unknown.err.contains("did you mean server.exists?"), "{unknown}");
}
