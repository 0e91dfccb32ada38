//! How much mail leaves at once and how fast, as an operator sets it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::{fields, tagged};
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, wait};

fn send(site: &Site, count: usize, to: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for n in 0..count {
        let reply = talk.message("a@client.test", &[to], &tagged(&format!("m{n}"))).unwrap();
        assert_eq!(reply.code, 250);
    }
}

fn route(peer: &Peer) -> String {
    format!("[{}]:{}", peer.address().ip(), peer.address().port())
}

#[test]
fn a_domain_gets_mail_at_the_rate_and_over_the_connections_that_were_set() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new());
    let add = ["domain", "add", "remote", "slow.test", "--relay", "--route", &route(&peer)];
    let bad = site.ctl(&[&add[..], &["--rate", "often"]].concat()).exited(2);
    assert!(bad.err.contains("30/min"), "{bad}");
    let _added = site.ctl(&[&add[..], &["--rate", "1/s", "--max-connections", "1"]].concat()).ok();
    let listed = site.ctl(&["domain", "list"]).ok();
    assert!(listed.contains("1 connections, 1/s"), "{listed}");
    send(&site, 15, "b@slow.test");
    peer.await_received(15);
    assert_eq!(peer.most_open(), 1);
    site.await_empty_queue();
    assert!(!site.log().contains("event=deferred"), "waiting for a turn is no delay");
    let bad = site.ctl(&["domain", "set", "slow.test", "limits.rate=0/min"]).exited(6);
    assert!(bad.err.contains("E0208"), "{bad}");
    let _off = site.ctl(&["domain", "set", "slow.test", "limits.rate="]).ok();
    send(&site, 30, "b@slow.test");
    peer.await_received(45);
}

#[test]
fn servers_share_the_connections_of_a_smart_host() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new());
    let set = ["smarthost", "set", &route(&peer), "--name", "hub", "--tls", "off"];
    let _set = site.ctl(&[&set[..], &["--max-connections", "2"]].concat()).ok();
    let at = ports::local();
    let lan = ["server", "create", "lan", "--listen", &at.to_string(), "--domain", "lan.test"];
    let _made = site.ctl(&[&lan[..], &["--smarthost", "smarthost:hub"]].concat()).ok();
    let _loopback = site.ctl(&["server", "set", "lan", "delivery.allow_loopback=true"]).ok();
    send(&site, 100, "b@far.test");
    let mut talk = mailroot_tests::talk::Talk::to(at);
    talk.expect("EHLO client.test", 250);
    for n in 0..100 {
        let sent = talk.message("a@client.test", &["c@far.test"], &tagged(&format!("l{n}")));
        assert_eq!(sent.unwrap().code, 250);
    }
    peer.await_received(200);
    assert!(peer.most_open() <= 2, "{}", peer.most_open());
    site.await_empty_queue();
    assert!(!site.log().contains("event=deferred"), "waiting for a turn is no delay");
    // Connections are kept for a while, and count.
    let sessions = site.control().json(&["session", "list"]);
    let out = sessions.as_array().unwrap().iter().find(|it| it["direction"] == "out");
    if let Some(out) = out {
        assert_eq!(out["limit"]["connections"], 2, "{sessions}");
        assert!(out["limit_used"].as_u64().unwrap() <= 2, "{sessions}");
    }
    let shown = site.ctl(&["smarthost", "list"]).ok();
    assert!(shown.contains("of 2 (configuration)"), "{shown}");
    let shown = site.control().json(&["smarthost", "show", "hub"]);
    assert_eq!(shown["limit"]["connections_max"], 2, "{shown}");
}

#[test]
fn a_host_that_asks_for_less_is_left_alone_and_its_words_are_shown() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Mail => Answer::say("450 4.7.28 too much mail, slow down"),
        _ => Answer::Accept,
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    send(&site, 50, "b@far.test");
    let tried = wait::until("some to have been tried", || {
        let shown = site.ctl(&["queue", "list", "--state", "retry", "-o", "name"]).ok();
        shown.lines().next().map(|first| (first.to_owned(), shown.lines().count()))
    });
    assert!(tried.1 <= 5, "{tried:?}");
    let shown = site.ctl(&["queue", "show", &tried.0]).ok();
    assert!(shown.contains("too much mail, slow down"), "{shown}");
    peer.behave(|_| Answer::Accept);
    let _flushed = site.ctl(&["queue", "flush"]).ok();
    peer.await_received(50);
}

/// Sends one message from a sender, as large as it is to be.
fn send_from(site: &Site, sender: &str, tag: &str, octets: usize) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let line = format!("{}\r\n", "x".repeat(78));
    let mut text = tagged(tag);
    text.extend(line.repeat(octets / 80).into_bytes());
    assert_eq!(talk.message(sender, &["b@far.test"], &text).unwrap().code, 250);
}

/// A site whose mail goes to the peer over so many connections, and waits for now.
fn paused(peer: &Peer, connections: u32) -> Site {
    let site = Site::start(Setup::new());
    let add = ["domain", "add", "remote", "far.test", "--relay", "--route", &route(peer)];
    let limit = connections.to_string();
    let _added = site.ctl(&[&add[..], &["--max-connections", &limit]].concat()).ok();
    let _paused = site.ctl(&["queue", "pause", "--destination", "*"]).ok();
    site
}

#[test]
fn one_sender_with_much_mail_does_not_hold_up_another() {
    let peer = Peer::accepting(ports::local());
    let site = paused(&peer, 1);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for n in 0..400 {
        let sent = talk.message("bulk@client.test", &["b@far.test"], &tagged(&format!("n{n}")));
        assert_eq!(sent.unwrap().code, 250);
    }
    send_from(&site, "anna@client.test", "hers", 80);
    let summary = site.control().json(&["queue", "summary"]);
    let limit = &summary[0]["limit"];
    assert_eq!((&summary[0]["group"], &limit["connections"]), (&"far.test".into(), &1.into()));
    assert_eq!(limit["connections_by"], "configuration", "{summary}");
    let table = site.ctl(&["queue", "summary"]).ok();
    assert!(table.contains("0 of 1 (configuration)"), "{table}");
    let _resumed = site.ctl(&["queue", "resume", "--destination", "*"]).ok();
    let received = peer.await_received(401);
    let senders: Vec<&str> = received.iter().map(|mail| mail.sender()).collect();
    let place = senders.iter().position(|sender| *sender == "anna@client.test").unwrap();
    assert!(place < 20, "hers came as number {place}");
    let tags: Vec<String> = received
        .iter()
        .filter(|mail| mail.sender() == "bulk@client.test")
        .flat_map(|mail| fields(&mail.octets, "X-Tag"))
        .collect();
    let sent: Vec<String> = (0..400).map(|n| format!("n{n}")).collect();
    assert_eq!(tags, sent, "one sender's mail keeps its order");
}

#[test]
fn a_few_large_messages_leave_connections_to_small_ones() {
    let peer = Peer::start(ports::local(), |event: &Event| match event {
        // Large mail takes as long as the test wants.
        Event { stage: Stage::Mail, line, .. } if line.contains("large@") => Answer::Silence,
        _ => Answer::Accept,
    });
    let site = paused(&peer, 4);
    for n in 0..6 {
        send_from(&site, "large@client.test", &format!("l{n}"), 5 << 20);
    }
    for n in 0..100 {
        send_from(&site, "small@client.test", &format!("s{n}"), 80);
    }
    let _resumed = site.ctl(&["queue", "resume", "--destination", "*"]).ok();
    let received = peer.await_received(100);
    assert!(received.iter().all(|mail| mail.sender() == "small@client.test"));
    // Nor does what comes while they are still on their way wait for them.
    for n in 101..104 {
        send_from(&site, "small@client.test", &format!("s{n}"), 80);
        peer.await_received(n);
    }
}
