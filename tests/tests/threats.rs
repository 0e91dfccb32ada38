//! `tests/THREATS.md` names tests, conversations, fuzz targets and planted faults: all of them exist, none of the
//! catalogue's entries is missing, and every planted fault still fits and names a test that there is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mailroot_tests::program::{self, repository};

/// How many goals of reliability and of security there are.
const GOALS: [(&str, usize); 2] = [("R", 14), ("S", 18)];
/// How many kinds of attacks each section of the catalogue has.
const ATTACKS: [(&str, usize); 8] = [
    ("## 3.1 ", 10),
    ("## 3.2 ", 21),
    ("## 3.3 ", 9),
    ("## 3.4 ", 10),
    ("## 3.5 ", 6),
    ("## 3.6 ", 11),
    ("## 3.7 ", 15),
    ("## 3.8 ", 15),
];

fn page() -> String {
    fs::read_to_string(repository().join("tests/THREATS.md")).unwrap()
}

/// The rows below a heading, without those of the table's own head.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let below = page.split(heading).nth(1).unwrap_or_else(|| panic!("{heading:?} is missing"));
    let section = below.split("\n## ").next().unwrap();
    section.lines().filter(|line| line.starts_with('|')).skip(2).collect()
}

/// What stands between backticks.
fn names(row: &str) -> impl Iterator<Item = &str> {
    row.split('`').skip(1).step_by(2)
}

/// The source file that is meant by the path in front of `::`.
fn source(path: &str) -> PathBuf {
    let rooms = [
        ("core/", "smtpd/core/src/"),
        ("smtpd/", "smtpd/src/"),
        ("common/", "common/src/"),
        ("smtpctl/", "smtpctl/src/"),
    ];
    let below = rooms.iter().find_map(|(short, long)| {
        let rest = path.strip_prefix(short)?;
        Some(format!("{long}{rest}"))
    });
    repository().join(below.unwrap_or_else(|| format!("tests/tests/{path}")))
}

fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    let Some(at) = lines.iter().position(|line| {
        line.starts_with(&head)
            || line.strip_prefix("async ").is_some_and(|it| it.starts_with(&head))
    }) else {
        return false;
    };
    let marks = lines[..at].iter().rev().take_while(|line| line.starts_with(['#', '/']));
    marks.into_iter().any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
}

/// Whether a conversation has this name, in which one `*` may stand for anything.
fn is_transcript(pattern: &str) -> bool {
    let (before, behind) = pattern.split_once('*').unwrap_or((pattern, ""));
    let files = fs::read_dir(repository().join("tests/transcripts")).unwrap().flatten();
    files.map(|file| file.file_name().into_string().unwrap()).any(|name| {
        name == pattern
            || pattern.contains('*') && name.starts_with(before) && name.ends_with(behind)
    })
}

/// What is wrong with a name, if anything is.
fn complaint(name: &str) -> Option<String> {
    let exists = |path: String| repository().join(path).is_file();
    let good = if let Some((path, test)) = name.split_once("::") {
        fs::read_to_string(source(path)).is_ok_and(|text| is_test(&text, test))
    } else if name.ends_with(".smtp") {
        is_transcript(name)
    } else if let Some(target) = name.strip_prefix("fuzz/") {
        exists(format!("tests/fuzz/targets/{target}.rs"))
    } else if let Some(fault) = name.strip_prefix("planted/") {
        exists(format!("tests/planted/{fault}.patch"))
    } else if name.ends_with(".rs") {
        exists(format!("tests/tests/{name}"))
    } else {
        repository().join(name).exists()
    };
    (!good).then(|| format!("there is no {name}"))
}

#[test]
fn everything_that_the_page_names_is_there() {
    let page = page();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let complaints: BTreeSet<String> = rows.flat_map(names).filter_map(complaint).collect();
    let complaints: Vec<String> = complaints.into_iter().collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn what_is_not_there_is_found_out() {
    for good in [
        "smuggling.rs::what_leaves_has_clean_lines_and_its_dots",
        "core/smtp/reply.rs::any_octets_are_read_without_panic",
        "bdat-size-*.smtp",
        "fuzz/session",
    ] {
        assert_eq!(complaint(good), None);
    }
    for bad in [
        "smuggling.rs::nothing_was_smuggled",
        "smuggling.rs::what_leaves_has_clean_lines",
        "no_such_file.rs::what_leaves_has_clean_lines_and_its_dots",
        "bdat-colour-*.smtp",
        "fuzz/ntlm",
        "planted/nothing",
        "tests/nothing.sh",
    ] {
        assert!(complaint(bad).is_some(), "{bad}");
    }
}

#[test]
fn every_goal_and_every_attack_has_a_row_that_answers_it() {
    let page = page();
    for (heading, (letter, count)) in ["## Reliability", "## Security"].into_iter().zip(GOALS) {
        let rows = rows(&page, heading);
        let ids: Vec<&str> = rows.iter().map(|row| row.split('|').nth(1).unwrap().trim()).collect();
        let expected: Vec<String> = (1..=count).map(|number| format!("{letter}{number}")).collect();
        assert_eq!(ids, expected);
    }
    for (heading, count) in ATTACKS {
        assert_eq!(rows(&page, heading).len(), count, "{heading}");
    }
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let answers = names(row).next().is_some()
            || ["not covered", "does not apply", "| tests |"].iter().any(|it| row.contains(it));
        assert!(answers, "{row}");
    }
}

#[test]
fn the_page_is_found_by_whoever_looks_for_it() {
    for file in ["SECURITY.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        assert!(text.contains("(tests/THREATS.md)"), "{file}");
    }
}

/// Whether a source of this package has a test of this name.
fn package_has(package: &str, test: &str) -> bool {
    fn any(folder: &Path, test: &str) -> bool {
        fs::read_dir(folder).unwrap().flatten().any(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return any(&path, test);
            }
            fs::read_to_string(&path).is_ok_and(|text| is_test(&text, test))
        })
    }
    let folder = match package {
        "smtpd-core" => "smtpd/core/src",
        "smtpd" => "smtpd/src",
        "smtpctl" => "smtpctl/src",
        "mailroot-tests" => "tests/tests",
        other => panic!("no fault is planted for {other}"),
    };
    any(&repository().join(folder), test)
}

#[test]
fn every_planted_fault_fits_and_is_told_of() {
    let page = page();
    let mut complaints = Vec::new();
    let folder = repository().join("tests/planted");
    for file in fs::read_dir(&folder).unwrap().flatten() {
        let path = file.path();
        let fault = path.file_stem().unwrap().to_str().unwrap();
        let mut git = Command::new("git");
        git.args(["apply", "--check"]).arg(&path).current_dir(repository());
        let checked = program::run(&mut git, b"");
        if checked.code != 0 {
            complaints.push(format!("{fault} does not fit any more: {}", checked.err));
        }
        if !page.contains(&format!("`planted/{fault}`")) {
            complaints.push(format!("tests/THREATS.md does not speak of {fault}"));
        }
        let text = fs::read_to_string(&path).unwrap();
        let suite = text.lines().find_map(|line| line.strip_prefix("suite: ")).unwrap();
        let words: Vec<&str> = suite.split_whitespace().collect();
        let test = words.last().unwrap().rsplit("::").next().unwrap();
        if words.contains(&"--exact") && !package_has(words[1], test) {
            complaints.push(format!("{fault}: there is no test {test} in {}", words[1]));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
