//! Every conversation of `tests/transcripts`, against Mailroot and against a real Postfix.
//!
//! Mailroot must answer as the transcript says. Where Postfix first answers otherwise, the difference stands
//! with its reason in `tests/transcripts/postfix-differences.txt`, and the rest of that conversation is not
//! compared: the two sessions are no longer in the same state. A difference that is not listed, or is no
//! longer true, fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use mailroot_tests::ports;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::transcript::Transcript;
use mailroot_tests::wait::PATIENCE;

#[test]
fn mailroot_answers_as_every_transcript_says() {
    let mut complaints = Vec::new();
    let mut sites: BTreeMap<Vec<(String, String)>, Site> = BTreeMap::new();
    for transcript in Transcript::all() {
        let site = sites.entry(transcript.keys.clone()).or_insert_with(|| {
            let setup = transcript
                .keys
                .iter()
                .filter(|(key, _)| key != "domains")
                .fold(Setup::new(), |setup, (key, value)| setup.key(key, value))
                .only_domains(&["{name: example.com, type: default}"]);
            // Every transcript calls the same domain ours; nothing that it sends is meant to leave.
            Site::start(setup.smart_host(ports::local()))
        });
        for difference in transcript.play(site.address(), false, PATIENCE) {
            complaints.push(format!("{}.smtp: {difference}", transcript.name));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// `name:line: reason` for each line where Postfix is known to answer otherwise.
fn known_differences() -> BTreeMap<(String, usize), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts/postfix-differences.txt");
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut parts = line.splitn(3, ':');
            let name = parts.next().unwrap().to_owned();
            let number = parts.next().unwrap().trim().parse().unwrap_or_else(|_| panic!("{line}"));
            let reason = parts.next().unwrap().trim().to_owned();
            assert!(reason.len() > 10, "a difference needs a reason: {line}");
            ((name, number), reason)
        })
        .collect()
}

#[test]
fn postfix_answers_alike_but_for_the_differences_that_are_listed() {
    let known = known_differences();
    let mut found = BTreeSet::new();
    let mut complaints = Vec::new();
    let mut servers: BTreeMap<Vec<String>, Postfix> = BTreeMap::new();
    for transcript in Transcript::all() {
        let mut extra = transcript.postfix.clone();
        if transcript.keys.iter().any(|(key, _)| key == "access.relay.list") {
            extra.push("mynetworks = 192.0.2.0/24".to_owned());
        }
        if !servers.contains_key(&extra) {
            let mut settings: Vec<&str> = vec![
                "virtual_mailbox_domains = example.com",
                "smtpd_forbid_bare_newline = reject",
                "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination",
                "default_transport = discard",
                "virtual_transport = discard",
                "smtpd_timeout = 10s",
                "smtpd_forbid_bare_newline_exclusions =",
                "smtpd_recipient_overshoot_limit = 1",
            ];
            settings.extend(extra.iter().map(String::as_str));
            let Some(postfix) = Postfix::start(ports::local(), None, &settings) else {
                return skip::note("transcripts against Postfix", postfix::ABSENT);
            };
            servers.insert(extra.clone(), postfix);
        }
        let server = &servers[&extra];
        eprintln!("{} {:?}", transcript.name, std::time::SystemTime::now());
        let patience = Duration::from_secs(2);
        if let Some(difference) = transcript.play(server.address(), true, patience).first() {
            let key = (transcript.name.clone(), difference.line);
            if !known.contains_key(&key) {
                complaints.push(format!("{}:{}", transcript.name, difference));
            }
            found.insert(key);
        }
    }
    for ((name, line), reason) in &known {
        if !found.contains(&(name.clone(), *line)) {
            complaints.push(format!("{name}:{line}: listed, but Postfix answers alike ({reason})"));
        }
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn the_machine_plays_every_transcript_too() {
    let tests =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../smtpd/core/src/smtp/server/tests.rs");
    let tests = fs::read_to_string(tests).unwrap();
    for transcript in Transcript::all() {
        let name = format!("    \"{}\"\n", transcript.name);
        assert!(tests.contains(&name), "{} is missing in smtpd-core's list", transcript.name);
    }
}
