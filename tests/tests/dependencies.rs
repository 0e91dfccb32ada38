//! What we build upon: licences, sources, versions, bans. Read from Cargo, without the network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use mailroot_tests::program::{self, repository};

/// Licences that a dependency may be under. One of the alternatives of `OR` is enough; of `AND` all are
/// needed.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "CC0-1.0",
    "BSL-1.0",
    "0BSD",
    "MIT-0",
];

/// Crates of which there must not be two versions: they share types or state.
const SINGLE: &[&str] =
    &["rustls", "hickory-resolver", "hickory-proto", "hyper", "nix", "tokio", "axum", "serde"];

const BANNED: &[(&str, &str)] = &[
    ("ring", "one cryptographic provider: aws-lc"),
    ("openssl", "rustls everywhere"),
    ("openssl-sys", "rustls everywhere"),
    ("native-tls", "rustls everywhere"),
    ("serde_yaml", "the abandoned original; the maintained fork is yaml_serde"),
    ("serde_yml", "unsound"),
    ("yaml-rust", "abandoned"),
    ("anyhow", "errors are enums"),
    ("lazy_static", "the standard library has LazyLock"),
];

struct Package {
    name: String,
    version: String,
    /// Where it is from, if not from the registry.
    elsewhere: Option<String>,
    licence: String,
}

/// The packages that are built for this system, with the features that are on.
fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = program::run(
        Command::new(cargo)
            .args(["tree", "--workspace", "--edges", "normal,build,dev", "--prefix", "none"])
            .args(["--format", "{p}|{l}", "--locked", "--offline"])
            .current_dir(repository()),
        b"",
    )
    .ok();
    let lines: BTreeSet<&str> = out.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    lines
        .into_iter()
        .filter_map(|line| line.split_once('|'))
        .map(|(package, licence)| {
            let mut words = package.splitn(3, ' ');
            Package {
                name: words.next().unwrap().to_owned(),
                version: words.next().unwrap().to_owned(),
                elsewhere: words
                    .next()
                    .filter(|word| *word != "(proc-macro)")
                    .map(|word| word.replace("(proc-macro) ", "")),
                licence: licence.to_owned(),
            }
        })
        .collect()
}

fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], "");
    expression
        .split(" OR ")
        .any(|option| option.split(" AND ").all(|licence| LICENCES.contains(&licence.trim())))
}

#[test]
fn licences_sources_and_bans_hold() {
    let mut complaints = Vec::new();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let packages = packages();
    assert!(packages.len() > 20, "{} packages are too few to be true", packages.len());
    let ours = format!("({}", repository().display());
    for Package { name, version, elsewhere, licence } in &packages {
        if let Some(place) = elsewhere {
            if !place.starts_with(&ours) {
                complaints.push(format!("{name} {version}: comes from {place}"));
            }
            continue;
        }
        versions.entry(name.clone()).or_default().push(version.clone());
        if !is_allowed(licence) {
            complaints.push(format!("{name} {version}: licence {licence:?}"));
        }
        if let Some((_, reason)) = BANNED.iter().find(|(banned, _)| banned == name) {
            complaints.push(format!("{name} {version}: banned: {reason}"));
        }
    }
    for name in SINGLE {
        if let Some(found) = versions.get(*name).filter(|found| found.len() > 1) {
            complaints.push(format!("{name} is there in versions {found:?}"));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_licence_expression_needs_one_good_alternative_with_all_its_parts() {
    assert!(is_allowed("MIT OR GPL-3.0"));
    assert!(is_allowed("MIT/Apache-2.0"));
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(!is_allowed("MIT AND GPL-3.0"));
    assert!(!is_allowed("GPL-3.0"));
}

#[test]
fn every_direct_dependency_is_explained() {
    let text = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let architecture = fs::read_to_string(repository().join("ARCHITECTURE.md")).unwrap();
    let block = text.split("[workspace.dependencies]").nth(1).unwrap();
    let block = block.split("\n[").next().unwrap();
    let complaints: Vec<String> = block
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.trim())
        .filter(|name| {
            !name.starts_with('#') && !["mailroot-common", "smtpd-core", "smtpd"].contains(name)
        })
        .filter(|name| !architecture.contains(*name))
        .map(|name| format!("ARCHITECTURE.md does not say what {name} is for"))
        .collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
