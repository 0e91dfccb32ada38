//! Every field of the original's dialogs: the table of the manual, and each of its commands done against the
//! running daemon.
//!
//! The table of mailroot-iis(7) is written with `MAILROOT_WRITE_MAN=1`, as those of the keys are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write;
use std::fs;
use std::process::Command;

use mailroot_common::config::dialogs::{FIELDS, Field};
use mailroot_common::config::{ServerConfig, ServiceConfig};
use mailroot_tests::program;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::skip;

const FIELD: &str = "the field of integrated authentication";

fn table() -> String {
    let mut out = String::new();
    let mut dialog = "";
    for field in FIELDS {
        if field.dialog != dialog {
            if !dialog.is_empty() {
                out.push_str(".El\n");
            }
            dialog = field.dialog;
            let _ = writeln!(out, ".Ss {dialog}\n.Bl -tag -width Ds");
        }
        let _ = writeln!(out, ".It {}\n.Li smtpctl {}", field.field, field.command);
        if !field.key.is_empty() {
            let _ = writeln!(out, ".br\n.Cm {}", field.key);
        }
    }
    out + ".El\n"
}

#[test]
fn the_manual_has_the_table_of_the_dialogs() {
    const BEGIN: &str = ".\\\" dialogs\n";
    const END: &str = ".\\\" end of dialogs\n";
    let file = program::repository().join("man/mailroot-iis.7");
    let page = fs::read_to_string(&file).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (_, tail) = rest.split_once(END).unwrap();
    let wanted = format!("{head}{BEGIN}{}{END}{tail}", table());
    if std::env::var_os("MAILROOT_WRITE_MAN").is_some() {
        fs::write(&file, &wanted).unwrap();
        return;
    }
    assert!(
        page == wanted,
        "man/mailroot-iis.7 is out of date; write it anew with \
         MAILROOT_WRITE_MAN=1 cargo test -p mailroot-tests --test dialogs"
    );
}

#[test]
fn every_key_of_the_table_is_one_of_the_files() {
    let keys: Vec<String> = ServerConfig::keys()
        .into_iter()
        .chain(ServiceConfig::keys())
        .map(|documented| documented.key)
        .collect();
    for field in FIELDS.iter().filter(|field| !field.key.is_empty()) {
        assert!(keys.iter().any(|key| key == field.key), "{field:?}");
    }
}

/// The words of a command as a shell reads them.
fn shell_words(command: &str) -> Vec<String> {
    let mut shell = Command::new("sh");
    shell.args(["-fc", &format!("printf '%s\\n' {command}")]);
    program::run(&mut shell, b"").ok().lines().map(str::to_owned).collect()
}

/// What the key shows now: of the service where that has it, else of the default server.
fn value(site: &Site, field: &Field) -> String {
    let of_service = ServiceConfig::keys().iter().any(|documented| documented.key == field.key);
    let line = ["config", "get", field.key, "-s", "default"];
    site.ctl(if of_service { &line[..3] } else { &line }).ok()
}

#[test]
fn every_field_of_every_dialog_is_set_and_seen() {
    let site = Site::start(Setup::new());
    for field in FIELDS {
        // What lies in the system's directory of logs lies in the home here.
        let command =
            field.command.replace("/var/log/mailroot", &site.home().display().to_string());
        let words = shell_words(&command);
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["-o", "json"]).collect();
        let done = site.ctl(&words);
        let said = format!("{}{}", done.out, done.err);
        if ["E0397", "E0370"].iter().any(|code| said.contains(code)) {
            skip::note(FIELD, "smtpd was built without its feature gssapi");
            continue;
        }
        // A check that finds something is no failure of the command; a list that is empty matches nothing.
        assert!([0, 3, 10].contains(&done.code), "{field:?}: {done}");
        if field.key.is_empty() {
            assert!(done.out.contains(field.shows), "{field:?}: {done}");
        } else {
            assert_eq!(done.code, 0, "{field:?}: {done}");
            let shown = value(&site, field);
            assert!(shown.contains(field.shows), "{field:?} shows {shown}");
        }
    }
}
