//! What is said in sessions, as an operator hears it: lines of both sides, no secret, no message.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::ctl::Following;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, wait};
use serde_json::Value;

/// The lines so far, as objects.
fn heard(following: &Following) -> Vec<Value> {
    following.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Who said what: `C: ` or `S: ` and the words.
fn script(lines: &[Value]) -> Vec<String> {
    let shown = |line: &Value| match line["what"].as_str().unwrap() {
        "client" => format!("C: {}", line["text"].as_str().unwrap()),
        "server" => format!("S: {}", line["text"].as_str().unwrap()),
        other => format!("{other} {}", line["octets"]),
    };
    lines.iter().map(shown).collect()
}

fn must_hold_in_order(script: &[String], parts: &[&str]) {
    let mut rest = script.iter();
    for part in parts {
        assert!(rest.any(|line| line.starts_with(part)), "{part} in {script:#?}");
    }
}

#[test]
fn one_session_is_followed_to_its_end_without_secrets_and_messages() {
    let site = Site::start(Setup::new().smart_host(ports::local()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let id = site.ctl(&["session", "list", "-o", "name"]).ok().trim().to_owned();
    let watch = ["session", "show", &id, "--dialogue", "-o", "jsonl"];
    let following = site.control().follow(&watch);
    wait::until("somebody who listens", || {
        talk.expect("NOOP", 250);
        (!following.lines().is_empty()).then_some(())
    });
    for line in ["AUTH PLAIN AGFsAHNlY3JldA==", "c2VjcmV0", "x\u{1b}[2J"] {
        assert!(talk.say(line).code >= 500);
    }
    let sent = talk.message("a@client.test", &["b@far.test"], &tagged("never-shown")).unwrap();
    assert_eq!(sent.code, 250);
    talk.expect("QUIT", 221);
    let (code, lines) = following.finish();
    assert_eq!(code, 0);
    let all = lines.concat();
    for secret in ["AGFsAHNlY3JldA", "c2VjcmV0", "never-shown", "\\u001b"] {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    must_hold_in_order(
        &script(&lines),
        &[
            "C: NOOP",
            "S: 250",
            "C: AUTH PLAIN ***",
            "S: 50",
            "C: ***",
            "S: 50",
            "C: MAIL FROM:<a@client.test>",
            "S: 250",
            "C: RCPT TO:<b@far.test>",
            "C: DATA",
            "S: 354",
            "body ",
            "S: 250 2.6.0",
            "C: QUIT",
            "S: 221",
            "end",
        ],
    );
    assert!(lines.iter().all(|line| line["id"] == *id && line["direction"] == "in"));
    let gone = site.ctl(&["session", "show", &id, "--dialogue"]).exited(3);
    assert!(gone.err.contains("there is no session"), "{gone}");
}

#[test]
fn sessions_in_both_directions_are_watched_as_they_come() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt if event.line.contains("nobody") => Answer::say("550 5.1.1 no such user"),
        _ => Answer::Accept,
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let following =
        site.control().follow(&["session", "watch", "--client", "127.0.0.0/8", "-o", "jsonl"]);
    let nothing = site.control().follow(&["session", "watch", "--client", "192.0.2.0/24"]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    wait::until("somebody who listens", || {
        talk.expect("NOOP", 250);
        (!following.lines().is_empty()).then_some(())
    });
    let to = ["nobody@far.test", "b@far.test"];
    assert_eq!(talk.message("a@client.test", &to, &tagged("x")).unwrap().code, 250);
    site.await_empty_queue();
    let out = wait::until("the outbound session", || {
        let mut lines = heard(&following);
        lines.retain(|line| line["direction"] == "out");
        script(&lines).iter().any(|line| line.starts_with("body ")).then_some(lines)
    });
    must_hold_in_order(
        &script(&out),
        &[
            "S: 220",
            "C: EHLO",
            "S: 250",
            "C: MAIL FROM:<a@client.test>",
            "C: RCPT TO:<nobody@far.test>",
            "C: RCPT TO:<b@far.test>",
            "S: 550 5.1.1 no such user",
            "body ",
        ],
    );
    assert!(out.iter().all(|line| line["peer"] == peer.address().to_string()), "{out:?}");
    assert!(nothing.lines().is_empty(), "{:?}", nothing.lines());
    let bad = site.ctl(&["session", "watch", "--client", "10.0.0.1/8"]).exited(2);
    assert!(bad.err.contains("--client"), "{bad}");

    // Whoever listens does not keep the daemon from stopping, and is told that it did.
    site.stop();
    let (code, _) = following.finish();
    assert_eq!(code, 0);
}

#[test]
fn people_read_a_dialogue_with_times_and_sessions() {
    let site = Site::start(Setup::new());
    let following = site.control().follow(&["session", "watch"]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let lines = wait::until("a line", || {
        talk.expect("NOOP", 250);
        let lines = following.lines();
        (lines.len() >= 2).then_some(lines)
    });
    let peer = talk.local().to_string();
    let said = |words: &str| lines.iter().any(|line| line.contains(&peer) && line.contains(words));
    assert!(said("C: NOOP") && said("S: 250 2.0.0 ok"), "{lines:?}");
}

/// Hands a message in and gives its id.
fn accepted(site: &Site, to: &str) -> String {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert!(talk.say("AUTH PLAIN AGFsAHNlY3JldA==").code >= 500);
    let sent = talk.message("a@client.test", &[to], &tagged("never-shown")).unwrap();
    assert_eq!(sent.code, 250);
    sent.to_string().split_whitespace().find(|word| word.len() == 12).unwrap().to_owned()
}

/// The dialogues that the trace tells of a message.
fn remembered(site: &Site, id: &str) -> Vec<Value> {
    let told = site.control().json(&["trace", id, "--dialogue"]);
    told[0]["dialogues"].as_array().cloned().unwrap_or_default()
}

#[test]
fn the_trace_remembers_dialogues_as_far_as_it_is_told_to() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt if event.line.contains("later") => Answer::say("451 4.7.1 come again"),
        _ => Answer::Accept,
    });
    let setup = Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]");
    let site = Site::start(setup);
    let state = |id: &str, state: &str| {
        wait::until(&format!("{id} {state}"), || {
            let told = site.control().json(&["trace", id]);
            (told[0]["state"] == *state).then_some(told)
        })
    };
    let silent = accepted(&site, "b@far.test");
    state(&silent, "delivered");
    assert!(remembered(&site, &silent).is_empty(), "off by default");

    site.ctl(&["config", "set", "trace.dialogues=failed"]).ok();
    let (good, late) = (accepted(&site, "b@far.test"), accepted(&site, "later@far.test"));
    state(&good, "delivered");
    state(&late, "retry");
    assert!(remembered(&site, &good).is_empty());
    let failed = remembered(&site, &late);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(
        failed[0]["direction"] == "out" && failed[0]["peer"].as_str().unwrap().contains("127.")
    );
    let lines = |dialogue: &Value| {
        let lines = dialogue["lines"].as_array().unwrap().iter();
        lines.map(|line| line.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    must_hold_in_order(
        &lines(&failed[0]),
        &["C: MAIL FROM:<a@client.test>", "C: RCPT TO:<later@far.test>", "S: 451 4.7.1 come again"],
    );

    site.ctl(&["config", "set", "trace.dialogues=all"]).ok();
    let whole = accepted(&site, "b@far.test");
    state(&whole, "delivered");
    let all = remembered(&site, &whole);
    assert_eq!(all.len(), 2, "{all:?}");
    must_hold_in_order(
        &lines(&all[0]),
        &["S: 220", "C: EHLO client.test", "C: AUTH PLAIN ***", "C: DATA", "   ", "S: 250 2.6.0"],
    );
    assert_eq!((&all[0]["direction"], &all[1]["direction"]), (&"in".into(), &"out".into()));
    let text = format!("{all:?}");
    assert!(!text.contains("AGFsAHNlY3JldA") && !text.contains("never-shown"), "{text}");
    assert!(state(&whole, "delivered")[0]["dialogues"].is_null(), "told only when asked for");
    let told = site.ctl(&["trace", &whole, "--dialogue"]).ok();
    assert!(told.contains("said       by ") && told.contains("  C: EHLO client.test"), "{told}");
}

#[test]
fn what_was_said_before_a_session_failed_is_remembered_too() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Connect => Answer::say("421 4.3.2 full house"),
        _ => Answer::Accept,
    });
    let setup = Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]");
    let site = Site::start(setup.service("trace.dialogues", "failed"));
    let id = accepted(&site, "b@far.test");
    let said = wait::until("a dialogue", || {
        let said = remembered(&site, &id);
        (!said.is_empty()).then_some(said)
    });
    assert!(
        said[0]["lines"][0].as_str().unwrap().starts_with("S: 421 4.3.2 full house"),
        "{said:?}"
    );
}

#[test]
fn a_dialogue_has_nothing_of_the_message_behind_it_on_the_same_connection() {
    let peer = Peer::start(ports::local(), |_: &Event| Answer::Accept);
    let setup = Setup::new().smart_host(peer.address()).service("trace.dialogues", "all");
    let site = Site::start(setup.key("delivery.connections.per_domain", "1"));
    site.ctl(&["queue", "pause", "--destination", "*"]).ok();
    let ids: Vec<String> =
        (0..3).map(|number| accepted(&site, &format!("b{number}@far.test"))).collect();
    site.ctl(&["queue", "resume", "--destination", "*"]).ok();
    site.await_empty_queue();
    for (number, id) in ids.iter().enumerate() {
        let told = wait::until("a dialogue", || {
            let mut told = remembered(&site, id);
            told.retain(|dialogue| dialogue["direction"] == "out");
            told.pop()
        });
        let text = told["lines"].to_string();
        assert!(text.contains(&format!("b{number}@far.test")), "{text}");
        assert_eq!(text.matches("RCPT TO").count(), 1, "{text}");
        assert_eq!(text.matches("MAIL FROM").count(), 1, "{text}");
    }
}
