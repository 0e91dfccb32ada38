//! The log for programs that read others' logs, and what it shows of people.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};

/// A peer that puts some recipients off and refuses others.
fn choosy() -> Peer {
    Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt if event.line.contains("slow@") => Answer::say("451 4.7.1 come back later"),
        Stage::Rcpt if event.line.contains("bad@") => {
            Answer::say("550 5.1.1 <bad@far.test>: nobody, from=<x@y>, size=9")
        }
        _ => Answer::Accept,
    })
}

/// Sends far.test by a peer, takes no other mail for elsewhere, and logs into a file of its home.
fn setup(peer: &Peer) -> Setup {
    let route = peer.address();
    Setup::new().key("access.relay.list", "[]").domain(&format!(
        "{{name: far.test, type: remote, relay: true, route: \"[{}]:{}\"}}",
        route.ip(),
        route.port()
    ))
}

fn with_file(setup: Setup, more: &[(&str, &str)]) -> Site {
    let site = Site::prepare(setup);
    let file = format!("{:?}", site.home().join("mail.log").display().to_string());
    let setup = site.setup().service("logging.target", "file").service("logging.file", &file);
    site.configure(more.iter().fold(setup, |setup, (key, value)| setup.service(key, value)));
    site.launch();
    site
}

fn send(site: &Site, to: &[&str]) -> String {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let from = format!("ops@{LOCAL_DOMAIN}");
    let sent = talk.message(&from, to, &tagged("log")).unwrap();
    assert_eq!(sent.code, 250, "{sent:?}");
    sent.to_string().split_whitespace().find(|word| word.len() == 12).unwrap().to_owned()
}

/// The log, once it has these parts in one line each.
fn log_with(site: &Site, parts: &[&str]) -> String {
    wait::until(&format!("{parts:?} in the log"), || {
        let text = fs::read_to_string(site.home().join("mail.log")).unwrap_or_default();
        parts.iter().all(|part| text.contains(part)).then_some(text)
    })
}

/// The number that stands before a word of pflogsumm's report.
fn number(report: &str, word: &str) -> u64 {
    let line = report
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(word) && line.starts_with(' '));
    let line = line.unwrap_or_else(|| panic!("no {word} in {report}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn pflogsumm_counts_what_happened() {
    if program::find("pflogsumm").is_none() {
        return skip::note("the log as pflogsumm reads it", "pflogsumm is not installed");
    }
    let peer = choosy();
    let site = with_file(setup(&peer), &[("logging.format", "postfix")]);
    let local = format!("ada@{LOCAL_DOMAIN}");
    let first = send(&site, &[&local, "ok@far.test"]);
    let slow = send(&site, &["slow@far.test"]);
    let bad = send(&site, &["bad@far.test"]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect(&format!("MAIL FROM:<ops@{LOCAL_DOMAIN}>"), 250);
    talk.expect("RCPT TO:<\"x>, relay=y, delay=1, status=sent (z\"@other.test>", 550);
    talk.expect("QUIT", 221);
    let report = site.await_dropped(2);
    assert!(report.iter().any(|stored| stored.text().contains("bad@far.test")));
    let told = log_with(
        &site,
        &[
            &format!("{first}: to=<ok@far.test>, relay="),
            &format!("{first}: to=<{local}>, relay=local, "),
            &format!("{slow}: to=<slow@far.test>, relay="),
            &format!("{bad}: to=<bad@far.test>, relay="),
            &format!("{bad}: sender non-delivery notification: "),
            "NOQUEUE: reject: RCPT from unknown[127.0.0.1]: 550 5.7.1 <",
            &format!("to=<ops@{LOCAL_DOMAIN}>, relay=local, "),
            " (in reply to RCPT TO command))",
        ],
    );
    let mut summary = Command::new(program::find("pflogsumm").unwrap());
    summary.args(["--syslog-name=mailroot", "-e"]).arg(site.home().join("mail.log"));
    let report = program::run(&mut summary, b"").ok();
    for (word, count) in [
        ("received", 3),
        ("delivered", 3),
        ("forwarded", 0),
        ("deferred", 1),
        ("bounced", 1),
        ("rejected", 1),
    ] {
        assert_eq!(number(&report, word), count, "{word}: {report}\n{told}");
    }
    let octets = report.lines().find_map(|line| line.strip_suffix("bytes received")).unwrap();
    assert_ne!(octets.trim(), "0", "{report}");
    let domain = |name: &str| -> Vec<String> {
        let summary = report.split("Message Delivery").nth(1).unwrap();
        let line = summary.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(domain(LOCAL_DOMAIN)[0], "2", "{report}");
    assert_eq!((&*domain("far.test")[0], &*domain("far.test")[2]), ("1", "1"), "{report}");
    assert!(report.contains("Relay access denied"), "{report}");

    let lines: serde_json::Value =
        serde_json::from_str(&site.ctl(&["logs", &bad, "-o", "json"]).ok()).unwrap();
    let events = lines.as_array().unwrap().iter().map(|line| line["event"].as_str().unwrap());
    let mut events: Vec<_> = events.collect();
    // A machine that is busy may tell of the attempt first.
    events.sort_unstable();
    assert_eq!(events, ["bounced", "cleanup", "qmgr", "received", "report"], "{lines}");
    assert!(lines.as_array().unwrap().iter().all(|line| line["time"].is_string()), "{lines}");
    let found = site.ctl(&["logs", "--to", "slow@*", "-o", "template={event} {id}\\n"]).ok();
    assert_eq!(found, format!("deferred {slow}\n"));
}

#[test]
fn addresses_are_shown_as_far_as_the_configuration_says() {
    let peer = choosy();
    let site = with_file(setup(&peer), &[("logging.addresses", "hashed")]);
    let ada = format!("ada@{LOCAL_DOMAIN}");
    let digest_of = |id: &str| {
        let text = log_with(&site, &[&format!("event=delivered server=default id={id} ")]);
        let line = text.lines().find(|line| line.contains(id) && line.contains("event=delivered"));
        let (_, rest) = line.unwrap().split_once(" to=<").unwrap();
        rest.split_once('@').unwrap().0.to_owned()
    };
    let first = send(&site, &[&ada]);
    let digest = digest_of(&first);
    assert!(digest.len() == 16 && digest.bytes().all(|o| o.is_ascii_hexdigit()), "{digest}");
    site.stop();
    site.launch();
    assert_eq!(digest_of(&send(&site, &[&ada.to_uppercase()])), digest, "after a restart");
    assert_ne!(digest_of(&send(&site, &[&format!("bob@{LOCAL_DOMAIN}")])), digest);
    let bad = send(&site, &["bad@far.test"]);
    let text = log_with(&site, &[&format!("event=bounced server=default id={bad}")]);
    assert!(!text.contains("ada@") && !text.contains("bad@") && !text.contains("ops@"), "{text}");
    assert!(text.contains("nobody, from=<") && text.contains("@far.test>: nobody"), "{text}");

    let searched = site.ctl(&["logs", "--to", &ada]);
    assert!(searched.err.contains("smtpctl trace"), "{searched}");
    assert!(!site.ctl(&["logs", "--to", "*@local.test"]).err.contains("trace"));
    let traced = site.ctl(&["trace", "--to", &ada, "-o", "name"]).ok();
    assert!(traced.contains(&first), "{traced}");
    let lines = site.ctl(&["logs", &first]).ok();
    assert!(lines.contains(&digest), "{lines}");
    let state: serde_json::Value =
        serde_json::from_str(&site.ctl(&["logs", "level", "-o", "json"]).ok()).unwrap();
    assert_eq!(state["addresses"], "hashed");

    site.ctl(&["config", "set", "logging.addresses=domain-only"]).ok();
    let id = send(&site, &[&ada]);
    log_with(&site, &[&format!("id={id} rcpt=1 relay=drop"), " to=<*@local.test> "]);
    site.ctl(&["config", "set", "logging.addresses=full"]).ok();
    send(&site, &[&ada]);
    log_with(&site, &[&format!("to=<{ada}>")]);
}

#[test]
fn a_key_that_is_none_is_told_and_nothing_is_changed() {
    let site = Site::start(Setup::new());
    let key = site.home().join("state/log.key");
    fs::write(&key, "none\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let refused = site.ctl(&["config", "set", "logging.addresses=hashed"]).exited(6);
    assert!(refused.err.contains("log.key") && refused.err.contains("remove it"), "{refused}");
    fs::remove_file(&key).unwrap();
    site.ctl(&["config", "set", "logging.addresses=hashed"]).ok();
    assert!(key.exists());
}

/// The files below a directory of a server, one text.
fn w3c(directory: &Path, server: &str) -> String {
    let files = fs::read_dir(directory.join(server)).into_iter().flatten();
    let files = files.map(|file| file.unwrap().path());
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn analysers_of_the_originals_files_find_what_they_read() {
    let peer = choosy();
    let site = Site::start(setup(&peer));
    let directory = site.home().join("w3c");
    let blocked = site.home().join("blocked");
    fs::write(&blocked, "").unwrap();
    let refused = site.ctl(&["config", "set", &format!("logging.w3c={}", blocked.display())]);
    assert!(refused.code == 6 && refused.err.contains("blocked"), "{refused}");
    site.ctl(&["config", "set", &format!("logging.w3c={}", directory.display())]).ok();
    let id = send(&site, &["ok@far.test"]);
    peer.await_received(1);
    let text = wait::until("the records", || {
        let text = w3c(&directory, "default");
        let parts = ["OutboundConnectionCommand", " MAIL - ", " DATA - +<"];
        parts.iter().all(|part| text.contains(part)).then_some(text)
    });
    let records: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').collect())
        .collect();
    assert!(records.iter().all(|record| record.len() == 21), "{text}");
    let fields: Vec<&str> =
        text.lines().find_map(|line| line.strip_prefix("#Fields: ")).unwrap().split(' ').collect();
    assert_eq!(fields.len(), 21, "{text}");
    let of = |record: &[&str], field: &str| {
        record[fields.iter().position(|name| *name == field).unwrap()].to_owned()
    };
    let found = |verb: &str| {
        let inbound =
            |record: &&Vec<&str>| of(record, "cs-method") == verb && of(record, "sc-status") != "0";
        records.iter().find(inbound).unwrap_or_else(|| panic!("no {verb} in {text}"))
    };
    let rcpt = found("RCPT");
    assert_eq!(of(rcpt, "cs-uri-query"), "+TO:<ok@far.test>", "{text}");
    assert_eq!((of(rcpt, "sc-status"), of(rcpt, "c-ip")), ("250".into(), "127.0.0.1".into()));
    assert_eq!((of(rcpt, "s-sitename"), of(rcpt, "cs-version")), ("default".into(), "SMTP".into()));
    assert_eq!(of(rcpt, "cs-username"), "client.test", "{text}");
    assert_eq!(of(found("DATA"), "cs-uri-query"), format!("+<{id}>"), "{text}");
    let size: u64 = of(found("DATA"), "cs-bytes").parse().unwrap();
    assert!(size > tagged("log").len() as u64, "{size}: {text}");

    site.ctl(&["config", "set", "logging.addresses=domain-only"]).ok();
    site.ctl(&["server", "set", "default", "general.logging=false"]).ok();
    send(&site, &["silent@far.test"]);
    site.ctl(&["server", "set", "default", "general.logging=true"]).ok();
    send(&site, &["ok@far.test"]);
    let text = wait::until("a masked record", || {
        let text = w3c(&directory, "default");
        text.contains("+TO:<*@far.test>").then_some(text)
    });
    assert!(!text.contains("silent@"), "{text}");
    site.ctl(&["config", "set", "logging.w3c=off"]).ok();
    let before = w3c(&directory, "default").len();
    send(&site, &["off@far.test"]);
    site.stop();
    assert_eq!(w3c(&directory, "default").len(), before);
}

#[test]
fn a_directory_that_is_lost_stops_no_mail() {
    let site = Site::prepare(Setup::new());
    let directory = site.home().join("w3c");
    let path = format!("{:?}", directory.display().to_string());
    site.configure(site.setup().service("logging.w3c", &path));
    fs::write(&directory, "in the way").unwrap();
    site.launch();
    send(&site, &[&format!("ada@{LOCAL_DOMAIN}")]);
    site.await_dropped(1);
    site.logged(&["event=w3c-failed", "w3c"]);
    fs::remove_file(&directory).unwrap();
    wait::until("records after all", || {
        send(&site, &[&format!("ada@{LOCAL_DOMAIN}")]);
        w3c(&directory, "default").contains(" RCPT - ").then_some(())
    });
}
