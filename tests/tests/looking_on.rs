//! `sendmail -v`: what is said to other hosts and what comes of it, for whoever handed the mail in.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::caller::Caller;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};

/// A user that no system has.
const UID: u32 = 54_321;

#[test]
fn whoever_looks_on_sees_what_is_said_and_what_comes_of_it() {
    let is_root = skip::root();
    let peer = Peer::start(ports::local(), |event: &Event| match (event.stage, event.line) {
        (Stage::Rcpt, line) if line.contains("later@") => Answer::say("451 4.7.1 come back"),
        _ => Answer::Accept,
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let anybody = Caller::of(&site);
    let caller = if is_root { anybody.as_uid(UID) } else { anybody };
    let words = ["-v", "-i", "ops@far.test", "later@far.test", "here@local.test"];
    let told = caller.run("sendmail", &words, "Subject: seen\n\nnot shown\n").ok();
    let places: Vec<usize> = [
        ">>> MAIL FROM:<",
        ">>> DATA",
        "250 2.6.0 ",
        "Connecting to ",
        "220 ",
        ">>> EHLO ",
        ">>> MAIL FROM:<",
        ">>> RCPT TO:<ops@far.test>",
        "451 4.7.1 come back",
    ]
    .iter()
    .scan(0, |from, part| {
        let found = told.get(*from..).and_then(|rest| rest.find(part));
        let found = found.unwrap_or_else(|| panic!("{part} is not behind the rest: {told}"));
        *from += found + part.len();
        Some(*from)
    })
    .collect();
    assert_eq!(places.len(), 9);
    for part in [
        "ops@far.test... Sent: 250 ",
        "later@far.test... Deferred: 451 4.7.1 come back by ",
        "tried again at ",
        "here@local.test... Sent: put into Drop",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("not shown"), "{told}");
    let _silent = caller.run("sendmail", &["ops@far.test"], "Subject: unseen\n\n").ok();
    let stories = wait::until("a story without a dialogue", || {
        let told = site.control().json(&["trace", "--dialogue", "--to", "ops@far.test"]);
        let all = told.as_array()?.clone();
        (all.len() == 2 && all.iter().all(|it| it["state"] != "queued")).then_some(all)
    });
    let has_dialogue: Vec<bool> = stories
        .iter()
        .map(|it| it["dialogues"].as_array().is_some_and(|it| !it.is_empty()))
        .collect();
    assert_eq!(has_dialogue, [false, true], "{stories:#?}");
    if is_root {
        let id = stories[1]["id"].as_str().unwrap();
        let other = Caller::of(&site).as_uid(UID + 1);
        let _not_his = other.run("smtpctl", &["trace", "--dialogue", id], "").exited(3);
        let his = caller.run("smtpctl", &["trace", "--dialogue", id], "").ok();
        assert!(his.contains("RCPT TO:<ops@far.test>"), "{his}");
    }
}
