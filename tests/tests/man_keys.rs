//! The manual pages of the configuration against the keys that the programs know.
//!
//! The lists of keys in both pages are written from the tables of `mailroot-common`; this test
//! writes them again and compares. After a change of a key, run it once with `MAILROOT_WRITE_MAN=1`
//! to put the new lists into the pages, and commit them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use mailroot_common::config::{
    KeyDoc, ServerConfig, ServerName, ServiceConfig, parse_server, parse_service, render_all,
};
use mailroot_tests::{mdoc, program};

fn repository(path: &str) -> PathBuf {
    program::repository().join(path)
}

fn item(key: &KeyDoc) -> String {
    let mut out = format!(".It Cm {}\n", key.key);
    out.push_str(&mdoc::prose(&key.doc));
    let mut facts = format!("Type: {}.", key.type_name);
    if key.modern == "required" {
        facts.push_str(" Required.");
    } else if key.modern == key.iis6 {
        let _ = write!(facts, " Default: {}.", key.modern);
    } else {
        let _ = write!(facts, " Default: {}; in profile iis6: {}.", key.modern, key.iis6);
    }
    if let Some((least, most)) = &key.bounds {
        let _ = write!(facts, " From {least} to {most}.");
    }
    out.push_str(&mdoc::prose(&facts));
    out
}

/// The page with its lists of keys written anew. Each stands between `.\" keys of SECTION` and
/// `.\" end of keys`.
fn written_anew(page: &str, keys: &[KeyDoc]) -> String {
    let mut out = String::new();
    let mut listed = 0;
    let mut inside = false;
    for line in page.lines() {
        if line == ".\\\" end of keys" {
            inside = false;
        }
        if !inside {
            out.push_str(line);
            out.push('\n');
        }
        if let Some(section) = line.strip_prefix(".\\\" keys of ") {
            inside = true;
            let mut parent = section;
            for key in keys.iter().filter(|key| section_of(&key.key) == section) {
                if key.parent() != parent && key.parent().contains('.') && !key.section.is_empty() {
                    let _ = write!(out, ".It Cm {}\n{}", key.parent(), mdoc::prose(&key.section));
                }
                parent = key.parent();
                out.push_str(&item(key));
                listed += 1;
            }
        }
    }
    assert_eq!(listed, keys.len(), "a section of keys has no list in the page");
    out
}

fn section_of(key: &str) -> &str {
    key.split_once('.').map_or("the file", |(section, _)| section)
}

fn compare(path: &str, keys: &[KeyDoc]) {
    let file = repository(path);
    let page = fs::read_to_string(&file).unwrap();
    let wanted = written_anew(&page, keys);
    if std::env::var_os("MAILROOT_WRITE_MAN").is_some() {
        fs::write(&file, &wanted).unwrap();
        return;
    }
    let differs = page.lines().zip(wanted.lines()).find(|(old, new)| old != new);
    assert!(
        page == wanted,
        "{path} differs from the keys, first here: {differs:?}; \
         write it anew with MAILROOT_WRITE_MAN=1 cargo test -p mailroot-tests --test man_keys"
    );
}

#[test]
fn the_page_of_the_service_file_lists_its_keys() {
    compare("man/mailroot.yaml.5", &ServiceConfig::keys());
}

#[test]
fn the_page_of_a_server_file_lists_its_keys() {
    compare("man/mailroot-server.yaml.5", &ServerConfig::keys());
}

/// The first literal display of a page that is a whole file.
fn example_of(path: &str) -> String {
    let page = fs::read_to_string(repository(path)).unwrap();
    let (_, rest) = page.split_once(".Bd -literal -offset indent\nversion: 1\n").unwrap();
    let (example, _) = rest.split_once("\n.Ed").unwrap();
    format!("version: 1\n{example}\n")
}

#[test]
fn the_examples_of_pages_and_package_are_read_without_a_warning() {
    let shipped = |path: &str| fs::read_to_string(repository(path)).unwrap();
    for text in [example_of("man/mailroot.yaml.5"), shipped("packaging/mailroot.yaml")] {
        let (_, warnings) = parse_service(&text, "mailroot.yaml").unwrap();
        assert!(warnings.is_empty(), "{}", render_all(&warnings));
    }
    let name = ServerName::parse("default").unwrap();
    for text in [example_of("man/mailroot-server.yaml.5"), shipped("packaging/default.yaml")] {
        let (_, warnings) = parse_server(&name, &text, "default.yaml").unwrap();
        assert!(warnings.is_empty(), "{}", render_all(&warnings));
    }
}
