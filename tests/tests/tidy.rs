//! Holds the house rules: who imports whom, lengths, headers, names, left-overs.
//!
//! It reads files as text, without a parser: a rule that needs one is clippy's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mailroot_tests::program::repository;

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, each with its reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// The rooms of `smtpd`, from the top down. A room may import only from lower rows.
const ROOMS: &[&[&str]] = &[
    &["main"],
    &["control"],
    &["service"],
    &["virtual_server"],
    &["receive", "pickup", "deliver"],
    &["drop", "badmail", "filter"],
    &["queue"],
    &["store"],
    &[
        "acme",
        "aliases",
        "args",
        "config",
        "resolve",
        "sender",
        "https",
        "kerberos",
        "ldap",
        "local",
        "mail_name",
        "milter",
        "mta_sts",
        "oauth",
        "tls",
        "tls_report",
        "trace",
        "users",
        "small_file",
        "observe",
        "disk",
        "directory",
        "dkim",
        "net",
        "clock",
        "process",
    ],
];

/// Rooms of the lowest row that lean on others of it: the log, the network and disks need the time
/// and the files; the command line needs the log's forms; the web needs names, connections and TLS, and
/// tokens and policies are asked of the web.
const WITHIN_LOWEST: &[(&str, &[&str])] = &[
    ("acme", &["clock", "config", "https", "net", "observe", "tls"]),
    ("aliases", &["observe", "small_file"]),
    ("mail_name", &["observe", "small_file"]),
    ("args", &["observe"]),
    ("config", &["clock", "disk", "dkim", "net", "observe", "tls"]),
    ("resolve", &["clock", "net", "observe"]),
    ("sender", &["dkim", "resolve"]),
    ("tls", &["clock", "disk", "net", "observe"]),
    ("https", &["net", "resolve", "tls"]),
    ("ldap", &["clock", "config", "kerberos", "net", "observe", "resolve", "tls"]),
    ("milter", &["net", "observe", "resolve"]),
    ("mta_sts", &["clock", "disk", "https", "net", "observe", "resolve", "tls"]),
    ("oauth", &["clock", "config", "https", "net", "observe", "resolve", "tls"]),
    ("tls_report", &["clock", "disk", "observe"]),
    ("trace", &["clock", "observe"]),
    ("users", &["clock", "config"]),
    ("observe", &["clock"]),
    ("disk", &["clock", "observe"]),
    ("net", &["clock"]),
    ("process", &["clock", "observe"]),
];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.strip_prefix(repository()).unwrap().display().to_string()
    }

    /// Whether it is a file of unit tests that stands beside the code.
    fn is_unit_tests(&self) -> bool {
        self.path.components().any(|part| part.as_os_str() == "src")
            && (self.path.ends_with("tests.rs") || self.name().contains("/tests/"))
            && !self.name().starts_with("tests/")
    }

    /// The lines without those that only tests see, each with its number.
    fn numbered(&self) -> Vec<(usize, &str)> {
        let mut kept = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if line.trim_end() != "#[cfg(test)]" {
                kept.push((index + 1, line));
                continue;
            }
            // What follows is for tests: one line that ends with a semicolon, or a block.
            let is_last = |line: &str| line == "}" || line.ends_with(';') && !line.starts_with(' ');
            while lines.next().is_some_and(|(_, line)| !is_last(line)) {}
        }
        kept
    }

    /// The lines without those that only tests see.
    fn product(&self) -> Vec<&str> {
        self.numbered().into_iter().map(|(_, line)| line).collect()
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        walk(&repository().join(folder), &mut found);
    }
    assert!(!found.is_empty(), "no source below {folders:?}");
    found
}

fn walk(folder: &Path, found: &mut Vec<Source>) {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with("node_modules") {
                walk(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path, text });
        }
    }
}

const EVERYWHERE: &[&str] = &["common", "smtpd", "smtpctl", "tests"];

fn must_be_empty(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

fn rank(room: &str) -> Option<usize> {
    ROOMS.iter().position(|row| row.contains(&room))
}

fn may_import(from: &str, to: &str) -> bool {
    let (Some(above), Some(below)) = (rank(from), rank(to)) else { return false };
    if from == to || to == "store" && from != "queue" {
        return from == to;
    }
    if above < below {
        return true;
    }
    let within = WITHIN_LOWEST.iter().find(|(room, _)| *room == from);
    above == below && within.is_some_and(|(_, rooms)| rooms.contains(&to))
}

/// The room of a file of `smtpd/src`.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(repository().join("smtpd/src")).unwrap();
    let first = inside.iter().next().unwrap().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The names that follow `crate::` in a line, in braces too.
fn crate_paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (place, _) in text.match_indices("crate::") {
        let rest = &text[place + "crate::".len()..];
        let word = |text: &str| -> String {
            let text = text.trim_start();
            text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut start = true;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        found.push(word(&group[at..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push(word(rest));
        }
    }
    found
}

#[test]
fn rooms_import_only_rooms_below_them() {
    let mut complaints = Vec::new();
    for source in sources(&["smtpd/src"]) {
        let from = room(&source.path);
        if from == "lib" {
            continue;
        }
        if rank(&from).is_none() {
            complaints
                .push(format!("{}: {from} is not a room of this test's table", source.name()));
        }
        let text: String = source
            .product()
            .iter()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| format!("{}\n", line.replace("$crate::", "crate::")))
            .collect();
        for to in crate_paths(&text.replace("smtpd::", "crate::")) {
            if rank(&to).is_some() && !may_import(&from, &to) && from != to {
                complaints.push(format!("{}: {from} must not import {to}", source.name()));
            }
        }
    }
    must_be_empty(&complaints);
}

#[test]
fn the_direction_test_sees_what_it_should() {
    assert_eq!(
        crate_paths("use crate::{queue::Queue, store::{a, b}, clock};"),
        ["queue", "store", "clock"]
    );
    assert_eq!(crate_paths("let x = crate::deliver::start();"), ["deliver"]);
    assert!(may_import("receive", "queue"));
    assert!(!may_import("receive", "deliver"));
    assert!(!may_import("receive", "store"));
    assert!(may_import("queue", "store"));
    assert!(!may_import("store", "queue"));
    assert!(!may_import("config", "virtual_server"));
}

#[test]
fn the_rules_name_nothing_that_touches_the_world() {
    const FORBIDDEN: &[&str] = &[
        "Instant::now",
        "SystemTime",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "TcpStream",
        "UdpSocket",
        "TcpListener",
        "UnixStream",
        "std::process",
        "std::thread",
        "std::env",
        "tokio",
        "nix::",
        "fastrand",
    ];
    let mut complaints = Vec::new();
    for source in sources(&["smtpd/core/src", "common/src"]) {
        for (number, line) in source.numbered() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                complaints.push(format!("{}:{number}: names {word}", source.name()));
            }
        }
    }
    for manifest in ["smtpd/core/Cargo.toml", "common/Cargo.toml"] {
        let text = fs::read_to_string(repository().join(manifest)).unwrap();
        let product = text.split("[dev-dependencies]").next().unwrap();
        for crate_name in ["tokio", "nix", "fastrand", "hickory", "socket2", "axum"] {
            if product.lines().any(|line| line.starts_with(crate_name)) {
                complaints.push(format!("{manifest}: depends on {crate_name}"));
            }
        }
    }
    must_be_empty(&complaints);
}

#[test]
fn a_file_is_one_idea() {
    let mut complaints = Vec::new();
    for source in sources(EVERYWHERE) {
        let lines = source.product().len();
        if lines > FILE_LINES_MAX && !source.is_unit_tests() {
            complaints.push(format!("{}: {lines} lines without its tests", source.name()));
        }
        if !source.text.starts_with("//!") {
            complaints.push(format!("{}: begins without a //! header", source.name()));
        }
        for part in source.path.strip_prefix(repository()).unwrap().iter() {
            let stem = part.to_string_lossy().trim_end_matches(".rs").to_owned();
            if ["utils", "util", "helpers", "helper", "manager", "misc", "common_types"]
                .contains(&stem.as_str())
            {
                complaints.push(format!("{}: {stem} says nothing", source.name()));
            }
        }
    }
    must_be_empty(&complaints);
}

/// The functions of a file: name, first line, number of lines. A function ends at the first line that
/// is a brace as deep as its beginning; rustfmt sees to that.
fn functions(lines: &[&str]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let head = code
            .trim_start_matches("pub ")
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ")
            .trim_start_matches("const ")
            .trim_start_matches("async ");
        let Some(rest) = head.strip_prefix("fn ") else { continue };
        let name: String =
            rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let end_line = format!("{}}}", &line[..line.len() - code.len()]);
        if let Some(length) = lines[start..].iter().position(|line| *line == end_line) {
            found.push((name, start + 1, length + 1));
        }
    }
    found
}

#[test]
fn a_function_fits_a_screen() {
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources(EVERYWHERE) {
        for (name, line, length) in functions(&source.product()) {
            if length <= FUNCTION_LINES_MAX {
                continue;
            }
            let exempt = LONG_FUNCTIONS
                .iter()
                .position(|(file, function, _)| source.name() == *file && name == *function);
            match exempt {
                Some(entry) => {
                    used.insert(entry);
                }
                None => complaints.push(format!("{}:{line}: {name}: {length}", source.name())),
            }
        }
    }
    for (entry, (file, function, reason)) in LONG_FUNCTIONS.iter().enumerate() {
        if !used.contains(&entry) {
            complaints.push(format!("{file}: {function} needs no exemption ({reason})"));
        }
    }
    must_be_empty(&complaints);
}

#[test]
fn unsafe_code_stands_in_one_file_at_most_and_releases_check_overflows() {
    // Spelled in two parts so that this file does not find itself.
    let word = ["allow(unsafe", "_code"].concat();
    let files: Vec<String> = sources(EVERYWHERE)
        .iter()
        .filter(|source| source.text.contains(&word))
        .map(Source::name)
        .collect();
    assert!(files.len() <= 1, "{files:?}");
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let release = manifest.split("[profile.release]").nth(1).unwrap();
    assert!(release.split("\n[").next().unwrap().contains("overflow-checks = true"));
    assert!(manifest.contains("unsafe_code = \"deny\""));
}

#[test]
fn tables_of_clients_words_have_the_keyed_hash() {
    // Whoever knows a hash can choose words that all fall into one place of a table.
    const OTHERS: [&str; 8] = [
        "BuildHasherDefault",
        "DefaultHasher::new()",
        "FxHash",
        "FnvHash",
        "ahash",
        "foldhash",
        "with_hasher",
        "hashbrown",
    ];
    let mut complaints = Vec::new();
    for source in sources(&["smtpd/src", "smtpd/core/src", "common/src", "smtpctl/src"]) {
        // What has such a key we have numbered ourselves.
        let ours = |line: &str| line.contains("<QueueId, ");
        let numbered = source.numbered().into_iter().filter(|(_, line)| !ours(line));
        for (number, line) in numbered {
            for other in OTHERS.iter().filter(|other| line.contains(*other)) {
                complaints.push(format!("{}:{number}: {other}", source.name()));
            }
        }
    }
    must_be_empty(&complaints);
}

#[test]
fn nothing_is_left_over() {
    // Spelled in two parts so that this file does not find itself.
    let left_overs = [
        ["to", "do!("].concat(),
        ["unimpl", "emented!("].concat(),
        ["FIX", "ME"].concat(),
        ["TO", "DO"].concat(),
        ["X", "XX"].concat(),
        ["db", "g!("].concat(),
        ["#[ign", "ore"].concat(),
    ];
    let mut complaints = Vec::new();
    for source in sources(EVERYWHERE) {
        for (number, line) in source.text.lines().enumerate() {
            // Words of prose count in comments only; elsewhere they may be data.
            let found = |word: &&String| match line.find(word.as_str()) {
                Some(place) if word.ends_with(['(', 'e']) => place < line.len(),
                Some(place) => line[..place].contains("//"),
                None => false,
            };
            for word in left_overs.iter().filter(found) {
                complaints.push(format!("{}:{}: {word}", source.name(), number + 1));
            }
        }
    }
    must_be_empty(&complaints);
}

#[test]
fn tests_wait_for_what_happens_and_not_for_time_to_pass() {
    let mut complaints = Vec::new();
    let word = ["thread::", "sleep"].concat();
    for source in sources(EVERYWHERE) {
        if source.path.ends_with("tests/src/wait.rs") {
            continue;
        }
        // The product may pause in a thread of its own; its unit tests may not.
        let product: BTreeSet<usize> =
            source.numbered().into_iter().map(|(number, _)| number).collect();
        let is_test = source.name().starts_with("tests/") || source.is_unit_tests();
        for (index, line) in source.text.lines().enumerate() {
            if line.contains(&word) && (is_test || !product.contains(&(index + 1))) {
                complaints.push(format!("{}:{}: {line}", source.name(), index + 1));
            }
        }
    }
    must_be_empty(&complaints);
}

#[test]
fn no_committed_text_speaks_of_the_workplace() {
    let words: Vec<String> = [
        ["crates", ".io"],
        ["index.", "crates"],
        ["registry.npm", "js"],
        ["pypi", ".org"],
        ["deb.deb", "ian"],
        ["/tmp", "/wt"],
        ["/work", "/main"],
        ["/work", "/shared"],
        ["Cla", "ude"],
        ["Anthro", "pic"],
        ["sub", "agent"],
        ["co-auth", "ored-by"],
    ]
    .map(|parts| parts.concat())
    .into();
    let listed = std::process::Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files: {listed:?}");
    let mut complaints = Vec::new();
    for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        // Cargo writes its registry's address into lock files; that one line form is its own.
        let is_lock = name.ends_with("Cargo.lock");
        let Ok(text) = fs::read_to_string(repository().join(name)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if is_lock && line.starts_with("source = \"registry+") {
                continue;
            }
            let lower = line.to_lowercase();
            for word in words.iter().filter(|word| lower.contains(&word.to_lowercase())) {
                complaints.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    must_be_empty(&complaints);
}
