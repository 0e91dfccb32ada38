//! Hosts that tell for whom they speak (XCLIENT): named ones are heard, and what they told is judged as if
//! that client had called; nobody else is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, swaks};

const PASSWORD: &str = "correct horse";

/// A server before `peer` where 127.0.0.1 may tell; it may relay itself, and so may 192.0.2.0/24.
fn setup(peer: &Peer) -> Setup {
    Setup::new()
        .smart_host(peer.address())
        .key("access.relay.list", "[127.0.0.1, 192.0.2.0/24]")
        .key("access.connect.list", "[203.0.113.0/24]")
        .key("access.xclient_from", "127.0.0.1")
}

#[test]
fn the_client_is_whoever_the_named_host_tells() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer));
    let told = |words: &str| swaks::send(&site, &["--xclient", words]);
    told("ADDR=192.0.2.9 NAME=inside.test PORT=4711 HELO=inside.test PROTO=ESMTP").ok();
    let line = site.logged(&["event=client-told", "by=127.0.0.1"]);
    assert!(line.contains("client=192.0.2.9 port=4711"), "{line}");
    site.logged(&["event=received", "client=192.0.2.9"]);
    let received = peer.await_received(1);
    let text = String::from_utf8_lossy(&received[0].octets).into_owned();
    assert!(text.contains("[192.0.2.9]") && !text.contains("127.0.0.1"), "{text}");

    let stranger = told("ADDR=198.51.100.7");
    assert!(stranger.out.contains("550 5.7.1"), "{stranger}");
    site.logged(&["event=reject", "client=198.51.100.7", "reason=relay-denied"]);
    let stranger = told("ADDR=IPV6:2001:db8::7");
    assert!(stranger.out.contains("550 5.7.1"), "{stranger}");
    // Who is not told may do nothing that a list allows, and who may not connect is not greeted.
    let nobody = told("ADDR=[UNAVAILABLE]");
    assert!(nobody.out.contains("550 5.7.1"), "{nobody}");
    let denied = told("ADDR=203.0.113.5");
    assert!(denied.out.contains("554 5.7.1"), "{denied}");
    site.logged(&["event=reject", "client=203.0.113.5", "reason=access-denied"]);
    assert_eq!(peer.received().len(), 1);
}

#[test]
fn a_named_host_gives_away_nothing_that_is_its_own() {
    let peer = Peer::accepting(ports::local());
    let setup = setup(&peer)
        .key("access.basic.enabled", "true")
        .key("access.basic.require_tls", "false")
        .key("access.auth_failures.delay", "0s");
    let site = Site::start(setup);
    site.control()
        .input(&format!("{PASSWORD}\n"))
        .run(&["user", "add", "ada", "--password-stdin"])
        .ok();
    let mut talk = site.talk();
    let offered = talk.expect("EHLO host.test", 250);
    assert!(offered.lines.contains(&"XCLIENT NAME ADDR PORT PROTO HELO".to_owned()), "{offered}");
    let mut base64 = std::process::Command::new("base64");
    let word = format!("\0ada\0{PASSWORD}");
    let word = program::run(base64.arg("-w0"), word.as_bytes()).ok();
    talk.expect(&format!("AUTH PLAIN {word}"), 235);
    let greeted = talk.expect("XCLIENT ADDR=198.51.100.7", 220);
    assert!(greeted.lines[0].starts_with("relay.test "), "{greeted}");
    // The login was the host's, and the client has greeted nobody yet.
    talk.expect("MAIL FROM:<a@client.test>", 503);
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@far.test>", 550);
    talk.expect("XCLIENT ADDR=192.0.2.9", 503);
    talk.expect("RSET", 250);
    let id = site.ctl(&["session", "list", "-o", "name"]).ok().trim().to_owned();
    let shown = site.ctl(&["session", "show", &id]).ok();
    assert!(shown.contains("198.51.100.7") && !shown.contains("ada"), "{shown}");
    // Nobody is logged in by another's word, and what cannot be read changes nothing.
    talk.expect("XCLIENT ADDR=192.0.2.9 LOGIN=ada", 555);
    talk.expect("XCLIENT ADDR=192.0.2.9 HELO=a+0D+0AMAIL", 501);
    talk.expect("XCLIENT ADDR=192.0.2.9 ADDR=192.0.2.8", 501);
    talk.expect("XCLIENT", 501);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@far.test>", 550);
    talk.expect("RSET", 250);
    // It may tell of the next one, who has greeted the host; and guesses are the client's.
    talk.expect("XCLIENT ADDR=192.0.2.9 HELO=next.test PROTO=SMTP", 220);
    let sent = talk.message("a@client.test", &["b@far.test"], &tagged("next")).unwrap();
    assert_eq!(sent.code, 250);
    let received = peer.await_received(1);
    let text = String::from_utf8_lossy(&received[0].octets).into_owned();
    assert!(text.contains("next.test") && text.contains("with SMTP"), "{text}");
    talk.expect("XCLIENT ADDR=198.51.100.8", 220);
    talk.expect("EHLO client.test", 250);
    talk.expect("AUTH PLAIN AGFkYQB3cm9uZw==", 535);
    site.logged(&["event=login-failed", "client=198.51.100.8", "reason=bad-password"]);
}

#[test]
fn strangers_tell_nothing() {
    let peer = Peer::accepting(ports::local());
    let setup = setup(&peer)
        .key("access.xclient_from", "[192.0.2.1]")
        .key("access.relay.list", "[192.0.2.9]");
    let site = Site::start(setup);
    let mut talk = site.talk();
    let offered = talk.expect("EHLO client.test", 250);
    assert!(!offered.lines.iter().any(|line| line.starts_with("XCLIENT")), "{offered}");
    talk.expect("XCLIENT ADDR=192.0.2.9", 500);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@far.test>", 550);
    // From a host that is named now it is taken.
    site.ctl(&["server", "set", "default", "access.xclient_from=127.0.0.1"]).ok();
    let mut talk = site.talk();
    talk.expect("XCLIENT ADDR=192.0.2.9", 220);
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@far.test>", 250);
}

#[test]
fn connections_of_a_told_client_count_for_its_quota() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer).key("access.quota.connections", "2/h"));
    let mut talk = site.talk();
    talk.expect("XCLIENT ADDR=198.51.100.7", 220);
    talk.expect("XCLIENT ADDR=198.51.100.7", 220);
    talk.expect("XCLIENT ADDR=198.51.100.8", 220);
    talk.expect("XCLIENT ADDR=198.51.100.7", 421);
    site.logged(&["event=reject", "client=198.51.100.7", "reason=connection-rate"]);
}

#[test]
fn everybody_may_not_tell() {
    let setup = Setup::new().key("access.xclient_from", "[10.0.0.0/8, 0.0.0.0/0]");
    let checked = Site::prepare(setup).run(&["--check"]);
    assert!(checked.code != 0 && checked.err.contains("E0386"), "{checked}");
}
