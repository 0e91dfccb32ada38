//! Destinations that refuse, defer, fall silent, vanish, greylist or answer each recipient differently:
//! every recipient comes to exactly one end, and the remote's words reach everyone who asks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::message::{Stored, tagged};
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::wait;

/// Sends one message and requires its 250.
fn send(site: &Site, from: &str, to: &[&str], tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let reply = talk.message(from, to, &tagged(tag)).unwrap();
    assert_eq!(reply.code, 250, "{reply}");
}

fn sender() -> String {
    format!("ops@{LOCAL_DOMAIN}")
}

fn relay(peer: &Peer) -> Setup {
    Setup::new().smart_host(peer.address())
}

/// The part of a report that programs read: `Field: value` lines.
fn status(report: &Stored) -> Vec<String> {
    report
        .text()
        .replace("\r\n ", " ")
        .lines()
        .filter(|line| {
            [
                "Final-Recipient",
                "Original-Recipient",
                "Action",
                "Status",
                "Diagnostic-Code",
                "Remote-MTA",
            ]
            .iter()
            .any(|field| line.starts_with(&format!("{field}:")))
        })
        .map(|line| line.trim_end().to_owned())
        .collect()
}

#[test]
fn a_refusal_at_each_stage_becomes_one_report_with_the_remotes_words() {
    for (stage, words) in [
        (Stage::Connect, "554 5.7.1 not from you, snowdrop"),
        (Stage::Mail, "550 5.1.8 no such sender, snowdrop"),
        (Stage::Rcpt, "550 5.1.1 nobody here by that name, snowdrop"),
        (Stage::Data, "554 5.6.0 no data please, snowdrop"),
        (Stage::End, "554 5.7.9 smells odd, snowdrop"),
    ] {
        let peer = Peer::start(ports::local(), move |event: &Event| {
            if event.stage == stage { Answer::say(words) } else { Answer::Accept }
        });
        let site = Site::start(relay(&peer));
        send(&site, &sender(), &["x@far.test"], "refused");

        let report = site.await_dropped(1).remove(0);

        let lines = status(&report).join("\n");
        assert!(report.text().contains("snowdrop"), "{stage:?}: {}", report.text());
        assert!(lines.contains("Action: failed"), "{stage:?}: {lines}");
        assert!(lines.contains("x@far.test"), "{stage:?}: {lines}");
        let enhanced = words.split(' ').nth(1).unwrap();
        assert!(lines.contains(&format!("Status: {enhanced}")), "{stage:?}: {lines}");
        assert_eq!(report.fields("Return-Path"), ["<>"], "{stage:?}");
        site.await_empty_queue();
        assert_eq!(site.dropped("default").len(), 1, "{stage:?}: one report");
        assert_eq!(peer.received().len(), 0);
    }
}

#[test]
fn a_deferral_at_each_stage_is_tried_again_until_it_goes() {
    for stage in [Stage::Connect, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::End] {
        let peer = Peer::start(ports::local(), move |event: &Event| {
            let first = event.stage == stage && event.before == 0;
            if first { Answer::say("451 4.7.1 come back later") } else { Answer::Accept }
        });
        let site = Site::start(relay(&peer));
        send(&site, &sender(), &["x@far.test"], "deferred");

        peer.await_received(1);

        site.await_empty_queue();
        assert_eq!(peer.received().len(), 1, "{stage:?}");
        assert_eq!(site.dropped("default").len(), 0, "{stage:?}: no report");
        site.logged(&["event=deferred", "come back later"]);
        site.logged(&["event=delivered", "x@far.test"]);
    }
}

#[test]
fn a_peer_that_vanishes_or_falls_silent_at_each_stage_loses_nothing() {
    for stage in [
        Stage::Connect,
        Stage::Hello,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Body,
        Stage::End,
    ] {
        for gone in [Answer::Close, Answer::Silence] {
            if stage == Stage::Body && gone == Answer::Silence {
                continue;
            }
            let answer = gone.clone();
            let peer = Peer::start(ports::local(), move |event: &Event| {
                if event.stage == stage && event.session == 0 {
                    answer.clone()
                } else {
                    Answer::Accept
                }
            });
            let setup = relay(&peer)
                .key("delivery.connections.timeout", "1s")
                .key("delivery.connections.greeting", "1s")
                .key("delivery.connections.data_end", "1s");
            let site = Site::start(setup);
            send(&site, &sender(), &["x@far.test"], "gone");

            peer.await_received(1);

            site.await_empty_queue();
            assert_eq!(peer.received().len(), 1, "{stage:?} {gone:?}");
            assert_eq!(site.dropped("default").len(), 0, "{stage:?} {gone:?}: no report");
        }
    }
}

#[test]
fn a_connection_lost_after_the_dot_is_tried_again_and_may_come_twice() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        let first = event.stage == Stage::End && event.before == 0;
        if first { Answer::AcceptAndClose } else { Answer::Accept }
    });
    let site = Site::start(relay(&peer));
    send(&site, &sender(), &["x@far.test"], "doubt");

    peer.await_received(2);

    site.await_empty_queue();
    assert_eq!(peer.received().len(), 2, "once in doubt, once for sure");
    assert_eq!(site.dropped("default").len(), 0);
}

#[test]
fn a_greylisting_peer_gets_each_recipient_once() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        let new = event.stage == Stage::Rcpt && event.before == 0;
        if new { Answer::say("451 4.7.1 Greylisted, try again in 1 s") } else { Answer::Accept }
    });
    let site = Site::start(relay(&peer));
    let to = ["a@far.test", "b@far.test", "c@far.test"];
    send(&site, &sender(), &to, "grey");

    let listed = wait::until("a row in retry", || {
        let rows = site.control().json(&["queue", "list"]);
        let reason = rows[0]["reason"].as_str().unwrap_or_default().to_owned();
        (reason.contains("Greylisted") || !peer.received().is_empty()).then_some(reason)
    });
    assert!(listed.contains("Greylisted") || !peer.received().is_empty());
    site.await_empty_queue();
    let mut got: Vec<String> = peer
        .received()
        .iter()
        .flat_map(|message| message.recipients().into_iter().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    got.sort();
    assert_eq!(got, to);
    assert_eq!(site.dropped("default").len(), 0);
}

#[test]
fn recipients_answered_differently_each_come_to_their_own_end() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt if event.line.contains("good") => Answer::Accept,
        Stage::Rcpt if event.line.contains("bad") => Answer::say("550 5.1.1 bad is unknown"),
        Stage::Rcpt if event.line.contains("full") => Answer::say("552 5.2.2 full is full"),
        Stage::Rcpt if event.line.contains("later") && event.before == 0 => {
            Answer::say("450 4.2.0 later please")
        }
        _ => Answer::Accept,
    });
    let site = Site::start(relay(&peer));
    let to = ["good@far.test", "bad@far.test", "later@far.test", "full@far.test"];
    send(&site, &sender(), &to, "mixed");

    peer.await_received(2);
    site.await_empty_queue();

    let received = peer.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].recipients(), ["good@far.test"]);
    assert_eq!(received[1].recipients(), ["later@far.test"]);
    let reports = site.dropped("default");
    assert_eq!(reports.len(), 1, "one report names both failures");
    let lines = status(&reports[0]).join("\n");
    for words in
        ["bad@far.test", "full@far.test", "550 5.1.1 bad is unknown", "552 5.2.2 full is full"]
    {
        assert!(lines.contains(words), "{words}: {lines}");
    }
    for other in ["good@far.test", "later@far.test"] {
        assert!(!lines.contains(other), "{other}: {lines}");
    }
}

#[test]
fn a_message_the_peer_cannot_take_is_returned_and_not_damaged() {
    let peer = Peer::offering(ports::local(), &["PIPELINING"], |_| Answer::Accept);
    let site = Site::start(relay(&peer));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect(&format!("MAIL FROM:<{}> BODY=8BITMIME SMTPUTF8", sender()), 250);
    talk.expect("RCPT TO:<j\u{f6}rg@far.test>", 250);
    talk.expect("DATA", 354);
    talk.expect("Subject: gr\u{fc}\u{df}e\r\n\r\n\u{e4}\r\n.", 250);

    let report = site.await_dropped(1).remove(0);

    assert!(status(&report).join("\n").contains("Status: 5.6"), "{}", report.text());
    site.await_empty_queue();
    assert_eq!(peer.received().len(), 0);
}

#[test]
fn the_remotes_words_reach_log_queue_report_and_badmail() {
    const DEFER: &str = "451 4.7.0 the quick brown fox waits";
    const REFUSE: &str = "550 5.7.1 the quick brown fox refuses";
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt if event.line.contains("later@") => Answer::say(DEFER),
        Stage::Rcpt => Answer::say(REFUSE),
        _ => Answer::Accept,
    });
    let site = Site::start(relay(&peer).key("delivery.outbound.retry", "[1h]"));

    send(&site, &sender(), &["later@far.test"], "queued");
    let line = site.logged(&["event=deferred", "later@far.test"]);
    assert!(line.contains(DEFER), "{line}");
    let id = wait::until("a queued message", || {
        let rows = site.control().json(&["queue", "list"]);
        rows[0]["id"].as_str().map(str::to_owned)
    });
    let shown = wait::until("the story in queue show", || {
        let shown = site.ctl(&["queue", "show", &id]).ok();
        shown.contains(DEFER).then_some(shown)
    });
    assert!(shown.contains(&format!(":{}", peer.address().port())), "{shown}");

    send(&site, &sender(), &["never@far.test"], "returned");
    let report = site.await_dropped(1).remove(0);
    let lines = status(&report).join("\n");
    assert!(lines.contains(&format!("Diagnostic-Code: smtp; {REFUSE}")), "{lines}");
    let line = site.logged(&["never@far.test", "quick brown fox refuses"]);
    assert!(line.contains("event=bounced") || line.contains("event=failed"), "{line}");

    send(&site, "", &["never2@far.test"], "unreturnable");
    let kept = wait::until("a message in Badmail", || {
        let listed = site.control().json(&["badmail", "list"]);
        listed[0]["id"].as_str().map(str::to_owned)
    });
    let shown = site.ctl(&["badmail", "show", &kept]).ok();
    assert!(shown.contains(REFUSE), "{shown}");
    let texts: String =
        site.badmail().iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
    assert!(texts.contains(REFUSE), "{texts}");
    assert!(texts.contains("X-Tag: unreturnable"), "{texts}");
}

#[test]
fn no_report_is_ever_made_for_a_report() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        if event.stage == Stage::Rcpt { Answer::say("550 5.1.1 nobody") } else { Answer::Accept }
    });
    let site = Site::start(relay(&peer));
    send(&site, "away@elsewhere.test", &["x@far.test"], "ping");

    wait::until("the report in Badmail", || (!site.badmail().is_empty()).then_some(()));
    site.await_empty_queue();

    let listed = site.control().json(&["badmail", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(peer.received().len(), 0);
    assert_eq!(site.dropped("default").len(), 0);
}

#[test]
fn notify_ret_envid_and_orcpt_are_honoured() {
    let peer = Peer::offering(ports::local(), &["PIPELINING"], |event: &Event| {
        let bad = event.stage == Stage::Rcpt && event.line.contains("bad");
        if bad { Answer::say("550 5.1.1 no") } else { Answer::Accept }
    });
    let site = Site::start(relay(&peer));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect(&format!("MAIL FROM:<{}> RET=FULL ENVID=QQ314159", sender()), 250);
    talk.expect("RCPT TO:<bad1@far.test> NOTIFY=NEVER", 250);
    talk.expect("RCPT TO:<bad2@far.test> NOTIFY=FAILURE ORCPT=rfc822;old+2B@far.test", 250);
    talk.expect("RCPT TO:<good@far.test> NOTIFY=SUCCESS", 250);
    talk.expect("DATA", 354);
    talk.expect("Subject: all of it\r\n\r\nthe whole body\r\n.", 250);

    wait::until("failure and relayed in reports", || {
        let text: String = site.dropped("default").iter().map(Stored::text).collect();
        (text.contains("Action: failed") && text.contains("Action: relayed")).then_some(())
    });
    site.await_empty_queue();

    let text: String = site.dropped("default").iter().map(Stored::text).collect();
    assert!(text.contains("Original-Envelope-Id: QQ314159"), "{text}");
    assert!(
        text.contains("Original-Recipient: rfc822;old+2B@far.test")
            || text.contains("Original-Recipient: rfc822; old+@far.test")
            || text.contains("Original-Recipient: rfc822;old+@far.test"),
        "{text}"
    );
    assert!(text.contains("the whole body"), "RET=FULL: {text}");
    assert!(!text.contains("bad1@far.test"), "NOTIFY=NEVER: {text}");
    assert_eq!(text.matches("Action: relayed").count(), 1, "{text}");
}

#[test]
fn a_dead_host_is_tried_no_more_often_than_the_schedule_says_and_every_host_counts() {
    let port = ports::free();
    let dead = ports::host(11, port);
    let alive = Peer::accepting(ports::host(12, port));
    let hosts = format!("[\"[{}]:{port}\", \"[{}]:{port}\"]", dead.ip(), alive.address().ip());
    let site = Site::start(Setup::new().key("delivery.smart_host", &hosts));
    send(&site, &sender(), &["x@far.test"], "second-host");
    alive.await_received(1);

    let peer = Peer::start(ports::local(), |event: &Event| {
        if event.stage == Stage::Rcpt { Answer::say("451 4.0.0 no") } else { Answer::Accept }
    });
    let site = Site::start(relay(&peer).key("delivery.outbound.retry", "[1s, 1h]"));
    send(&site, &sender(), &["y@far.test"], "disciplined");
    wait::until("the second attempt", || (peer.attempts().len() >= 2).then_some(()));
    let rows = wait::until("the long wait", || {
        let rows = site.control().json(&["queue", "list"]);
        (rows[0]["attempts"].as_u64() == Some(2)).then_some(rows)
    });
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    assert_eq!(peer.attempts().len(), 2, "the schedule says 1 s, then 1 h");
}

#[test]
fn connections_to_one_destination_are_bounded_and_reused() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(
        relay(&peer)
            .key("delivery.connections.per_domain", "2")
            .key("messages.max_per_connection", "5"),
    );
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for number in 0..40 {
        let tag = format!("n{number}");
        let reply = talk.message(&sender(), &["x@far.test"], &tagged(&tag)).unwrap();
        assert_eq!(reply.code, 250);
    }

    let received = peer.await_received(40);

    assert!(peer.most_open() <= 2, "{} connections at once", peer.most_open());
    let mut counts = vec![0; peer.sessions()];
    for message in &received {
        counts[message.session] += 1;
    }
    assert!(counts.iter().all(|&count| count <= 5), "{counts:?}");
    assert!(peer.sessions() <= 20, "{} connections for 40 messages", peer.sessions());
}

#[test]
fn two_relays_that_point_at_each_other_end_the_loop() {
    let first = Setup::new();
    let second = Setup::new().smart_host(first.servers[0].address).key("delivery.max_hops", "10");
    let first = first.smart_host(second.servers[0].address).key("delivery.max_hops", "10");
    let (one, two) = (Site::start(first), Site::start(second));
    send(&one, &sender(), &["x@far.test"], "loop");

    let report = wait::until("a report from one of them", || {
        one.dropped("default").into_iter().chain(two.dropped("default")).next()
    });

    assert!(report.text().contains("5.4.6"), "{}", report.text());
    one.await_empty_queue();
    two.await_empty_queue();
}

#[test]
fn mail_is_tried_again_at_a_moment_that_an_operator_names() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 greylisted"),
        _ => Answer::Accept,
    });
    let site = Site::start(relay(&peer).key("delivery.outbound.retry", "[1h]"));
    send(&site, &sender(), &["b@far.test"], "x");
    let listed = wait::until("a message that waits", || {
        let listed = site.control().json(&["queue", "list", "--state", "retry"]);
        listed[0]["id"].as_str().map(str::to_owned)
    });
    let id = listed.as_str();
    let next = || site.control().json(&["queue", "show", id])["next_attempt_at"].clone();
    let by_schedule = next();
    let _sooner = site.ctl(&["queue", "retry", id, "--in", "30m"]).ok();
    let sooner = next();
    assert!(sooner.as_str() < by_schedule.as_str(), "{sooner} {by_schedule}");
    let at = "2037-01-01T00:00:00.000Z";
    let _named = site.ctl(&["queue", "retry", id, "--at", at]).ok();
    assert_eq!(next(), at);
    peer.behave(|_| Answer::Accept);
    let _now = site.ctl(&["queue", "retry", id]).ok();
    peer.await_received(1);
    let _no_time = site.ctl(&["queue", "retry", id, "--at", "soon"]).exited(2);
}

#[test]
fn whoever_waits_for_a_flush_is_told_what_came_of_it() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 greylisted"),
        _ => Answer::Accept,
    });
    let site = Site::start(relay(&peer).key("delivery.outbound.retry", "[1h]"));
    for to in ["b@far.test", "late@far.test", "held@far.test"] {
        send(&site, &sender(), &[to], "x");
    }
    wait::until("messages that wait", || {
        let listed = site.ctl(&["queue", "list", "--state", "retry", "-o", "name"]).ok();
        (listed.lines().count() == 3).then_some(())
    });
    let _held = site.ctl(&["queue", "hold", "--to", "held@*"]).ok();
    let none = site.ctl(&["queue", "flush", "--wait=30s", "-o", "json"]).exited(1);
    let told: serde_json::Value = serde_json::from_str(&none.out).unwrap();
    assert_eq!((&told["tried"], &told["deferred"]), (&2.into(), &2.into()), "{told}");
    let unknown = site.ctl(&["queue", "flush", "6FZK5D3VYE2S", "--wait=30s"]).exited(3);
    assert!(unknown.err.contains("6FZK5D3VYE2S"), "{unknown}");
    let _paused = site.ctl(&["queue", "pause", "--destination", "*"]).ok();
    let paused = site.ctl(&["queue", "flush", "--to", "late@*", "--wait=1s"]).exited(9);
    assert!(paused.err.contains("stays paused"), "{paused}");
    let _resumed = site.ctl(&["queue", "resume", "--destination", "*"]).ok();
    peer.behave(|event: &Event| match event.stage {
        Stage::Rcpt if event.line.contains("late@") => Answer::say("451 4.7.1 greylisted"),
        _ => Answer::Accept,
    });
    let some = site.ctl(&["queue", "flush", "--wait=30s"]).exited(8);
    assert!(some.out.contains("1 left the queue, 1 deferred again (1x 451 4.7.1"), "{some}");
}
