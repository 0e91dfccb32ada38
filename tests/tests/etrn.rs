//! Mail that waits until a host of its domain asks for it (RFC 1985), and asking others for ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, wait};

/// A server that holds the mail of `branch.test`, which goes to the peer, for whoever is on this
/// machine, and that of `ship.test` for another network.
fn holding(peer: &Peer) -> Setup {
    let at = peer.address();
    let route = format!("\"[{}]:{}\"", at.ip(), at.port());
    Setup::new()
        .key("delivery.outbound.retry", "[1h]")
        .domain(&format!(
            "{{name: branch.test, type: remote, relay: true, route: {route}, \
             hold: {{release: etrn, etrn_from: 127.0.0.0/8, queue: Night}}}}"
        ))
        .domain(&format!(
            "{{name: ship.test, type: remote, relay: true, route: {route}, \
             hold: {{release: etrn, etrn_from: [192.0.2.0/24], queue: night}}}}"
        ))
}

fn send(site: &Site, to: &str, tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &[to], &tagged(tag)).unwrap().code, 250);
}

fn hello(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO branch.test", 250);
    talk
}

fn reasons(site: &Site) -> Vec<String> {
    let rows = site.control().json(&["queue", "list"]);
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn mail_waits_until_it_is_asked_for_by_whoever_may() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(holding(&peer));
    for (to, tag) in [("a@branch.test", "one"), ("b@branch.test", "two"), ("c@ship.test", "sea")] {
        send(&site, to, tag);
    }
    wait::until("all to be held", || {
        let held = |reason: &String| reason.starts_with("held until");
        (reasons(&site).iter().filter(|it| held(it)).count() == 3).then_some(())
    });
    assert!(peer.attempts().is_empty(), "nobody was asked");
    let mut talk = site.talk();
    talk.expect("ETRN branch.test", 503);
    let offered = talk.expect("EHLO branch.test", 250);
    assert!(offered.lines.iter().any(|line| line == "ETRN"), "{offered}");
    assert!(talk.expect("HELP", 214).lines[0].contains("ETRN"));
    for (line, code) in [
        ("ETRN", 501),
        ("ETRN a b", 501),
        ("ETRN ship.test", 459),
        ("ETRN elsewhere.test", 459),
        ("ETRN @elsewhere.test", 459),
        ("ETRN #day", 459),
        ("MAIL FROM:<a@branch.test>", 250),
        ("ETRN branch.test", 503),
        ("RSET", 250),
    ] {
        talk.expect(line, code);
    }
    let started = talk.expect("ETRN branch.test", 253);
    assert_eq!(started.lines, ["2.0.0 2 messages for branch.test started"]);
    peer.await_received(2);
    wait::until("one message left", || (reasons(&site).len() == 1).then_some(()));
    talk.expect("ETRN branch.test", 251);
    site.logged(&["event=etrn", "client=127.0.0.1", "node=branch.test", "messages=2"]);
    site.logged(&["event=reject", "reason=etrn-denied", "code=459"]);

    site.logged(&["event=etrn-done", "node=branch.test"]);
    send(&site, "d@branch.test", "later");
    wait::until("it to be held again", || (reasons(&site).len() == 2).then_some(()));
    site.kill();
    site.launch_again();
    wait::until("it to be held after a restart", || (reasons(&site).len() == 2).then_some(()));
    assert_eq!(peer.received().len(), 2);
    assert_eq!(
        hello(&site).expect("ETRN #NIGHT", 253).lines[0],
        "2.0.0 1 message for #night started"
    );
    peer.await_received(3);
    let noted = site.ctl(&["queue", "flush"]);
    assert!(noted.err.contains("ship.test is held until it is asked for"), "{noted}");
    assert_eq!(peer.received().len(), 3);
    let later = site.ctl(&["queue", "retry", "--domain", "ship.test", "--in", "1s"]);
    assert!(later.err.contains("ship.test is held until it is asked for"), "{later}");
    let _sent = site.ctl(&["queue", "retry", "--domain", "ship.test"]).ok();
    peer.await_received(4);
    site.await_empty_queue();
}

#[test]
fn mail_that_could_not_be_sent_waits_to_be_asked_for_again() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Connect => Answer::say("421 4.3.2 not now"),
        _ => Answer::Accept,
    });
    let site = Site::start(holding(&peer));
    send(&site, "a@branch.test", "one");
    wait::until("it to be held", || (reasons(&site).len() == 1).then_some(()));
    hello(&site).expect("ETRN @branch.test", 253);
    wait::until("the failure in the reason", || {
        reasons(&site)[0].contains("last time: ").then_some(())
    });
    assert!(reasons(&site)[0].contains("421 4.3.2 not now"), "{:?}", reasons(&site));
    peer.behave(|_| Answer::Accept);
    hello(&site).expect("ETRN branch.test", 253);
    peer.await_received(1);
    site.await_empty_queue();
}

#[test]
fn mail_that_was_asked_for_is_sent_after_a_restart_without_being_asked_for_again() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Hello => Answer::Silence,
        _ => Answer::Accept,
    });
    let site = Site::start(holding(&peer));
    send(&site, "a@branch.test", "one");
    send(&site, "c@ship.test", "sea");
    hello(&site).expect("ETRN branch.test", 253);
    wait::until("the host to be called", || (peer.sessions() > 0).then_some(()));
    site.kill();
    peer.behave(|_| Answer::Accept);
    site.launch_again();
    assert_eq!(peer.await_received(1)[0].recipients(), ["a@branch.test"]);
    site.logged(&["event=etrn-done", "node=branch.test"]);
    wait::until("it to be held from then on", || {
        send(&site, "b@branch.test", "later");
        reasons(&site).iter().any(|it| it.starts_with("held until")).then_some(())
    });
    assert_eq!(peer.received().len(), 1, "the rest was not asked for");
}

#[test]
fn holding_is_switched_by_commands_and_nothing_is_offered_where_nothing_is_held() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let mut talk = site.talk();
    let offered = talk.expect("EHLO branch.test", 250);
    assert!(!offered.lines.iter().any(|line| line == "ETRN"), "{offered}");
    talk.expect("ETRN branch.test", 502);
    let alone = site.ctl(&["domain", "add", "remote", "x.test", "--etrn-from", "127.0.0.1"]);
    let _alone = alone.exited(2);
    let words = ["domain", "add", "remote", "branch.test", "--relay", "--hold-for-etrn"];
    let _added = site.ctl(&[&words[..], &["--etrn-from", "127.0.0.1"]].concat()).ok();
    let listed = site.ctl(&["domain", "list"]).ok();
    assert!(listed.contains("held for ETRN"), "{listed}");
    let shown = site.ctl(&["domain", "show", "branch.test"]).ok();
    assert!(shown.contains("hold.etrn_from") && shown.contains("127.0.0.1"), "{shown}");
    let route = site.ctl(&["route", "show", "a@branch.test"]).ok();
    assert!(route.contains("held for ETRN, then ") && route.contains("10d"), "{route}");
    send(&site, "a@branch.test", "one");
    wait::until("it to be held", || (reasons(&site).len() == 1).then_some(()));
    let row = &site.control().json(&["domain", "list"])[1];
    assert_eq!((row["held"].as_bool(), row["queued"].as_u64()), (Some(true), Some(1)));
    let _off = site.ctl(&["domain", "set", "branch.test", "hold.etrn_from=", "hold.release=off"]);
    peer.await_received(1);
    let bad = site.ctl(&["domain", "set", "branch.test", "hold.queue=a b"]).exited(6);
    assert!(bad.err.contains("E0315"), "{bad}");
    let bad = site.ctl(&["domain", "set", "branch.test", "hold.keep=3d"]).exited(6);
    assert!(bad.err.contains("E0437"), "{bad}");
    let bad = site.ctl(&["domain", "set", LOCAL_DOMAIN, "hold.release=etrn"]).exited(6);
    assert!(bad.err.contains("E0404"), "{bad}");
}

#[test]
fn a_branch_asks_its_hub_for_mail() {
    let at = ports::local();
    let route = format!("\"[{}]:{}\"", at.ip(), at.port());
    let hub = Site::start(Setup::new().domain(&format!(
        "{{name: {LOCAL_DOMAIN}.branch, type: remote, relay: true, route: {route}, \
         hold: {{release: etrn}}}}"
    )));
    let mut branch = Setup::new();
    branch.servers[0].address = at;
    let branch = Site::start(
        branch
            .key("general.listen", &format!("\"{at}\""))
            .only_domains(&[&format!("{{name: {LOCAL_DOMAIN}.branch, type: default}}")]),
    );
    let domain = format!("{LOCAL_DOMAIN}.branch");
    send(&hub, &format!("a@{domain}"), "from the hub");
    wait::until("it to be held", || (reasons(&hub).len() == 1).then_some(()));
    let host = format!("[{}]:{}", hub.address().ip(), hub.address().port());
    let asked = branch.ctl(&["etrn", &host, &domain]).ok();
    assert!(asked.contains("253") && asked.contains("1 message"), "{asked}");
    branch.await_dropped(1);
    hub.await_empty_queue();
    let partly = branch.ctl(&["etrn", &host, &domain, "elsewhere.test"]).exited(8);
    assert!(partly.out.contains("251") && partly.out.contains("459"), "{partly}");
    let _refused = branch.ctl(&["etrn", &host, "elsewhere.test"]).exited(1);
    let down = format!("127.0.0.1:{}", ports::free());
    let down = branch.ctl(&["etrn", &down, &domain]).exited(1);
    assert!(down.out.contains("connection refused"), "{down}");
    let _usage = branch.ctl(&["etrn", &host]).exited(2);
    let _usage = branch.ctl(&["etrn", &host, "a b"]).exited(2);
    branch.logged(&["event=etrn-sent", "actor="]);
}

#[test]
fn postfix_sends_what_we_ask_it_for() {
    let at = ports::local();
    let Some(hub) = Postfix::start(
        ports::local(),
        None,
        &[
            "relay_domains = branch.test",
            "fast_flush_domains = branch.test",
            &format!("transport_maps = inline:{{branch.test=smtp:[{}]:{}}}", at.ip(), at.port()),
            "minimal_backoff_time = 1h",
            "maximal_backoff_time = 1h",
            "queue_run_delay = 1h",
        ],
    ) else {
        return skip::note("Postfix as a host that is asked for mail", postfix::ABSENT);
    };
    let mut talk = Talk::to(hub.address());
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@client.test", &["b@branch.test"], &tagged("held there")).unwrap();
    assert_eq!(sent.code, 250);
    let mut setup = Setup::new().key("general.listen", &format!("\"{at}\""));
    setup.servers[0].address = at;
    let branch = Site::start(setup.only_domains(&["{name: branch.test, type: default}"]));
    let host = format!("[{}]:{}", hub.address().ip(), hub.address().port());
    // Postfix may not have given the first attempt up yet, and then has nothing to flush.
    wait::until("Postfix to send it", || {
        let asked = branch.ctl(&["etrn", &host, "branch.test"]).ok();
        assert!(asked.contains("Queuing started"), "{asked}");
        (branch.dropped("default").len() == 1).then_some(())
    });
}
