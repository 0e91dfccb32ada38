//! Balancers in front of the service: the client is whoever the balancer says, and a connection without a
//! header is nobody's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::net::TcpStream;

use mailroot_tests::haproxy::{self, Haproxy};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, swaks};

/// A site that takes what 127.0.0.1 says of its clients, before `peer`. 127.0.0.1 itself may relay.
fn site(peer: &Peer) -> Site {
    let setup = Setup::new()
        .smart_host(peer.address())
        .key("access.relay.list", "[127.0.0.1, 192.0.2.0/24]");
    let site = Site::start(setup);
    site.ctl(&["server", "set", "default", "access.proxy_from=127.0.0.1"]).ok();
    site
}

#[test]
fn the_client_is_whoever_the_balancer_says() {
    let peer = Peer::accepting(ports::local());
    let site = site(&peer);
    for version in ["1", "2"] {
        let behind = |address: &str| {
            let form = match version {
                "1" => "--proxy-family TCP4",
                _ => "--proxy-family AF_INET --proxy-protocol STREAM --proxy-command PROXY",
            };
            let line = format!(
                "--proxy-version {version} {form} --proxy-source {address} --proxy-source-port 4444 \
                 --proxy-dest 127.0.0.1 --proxy-dest-port 25"
            );
            swaks::send(&site, &line.split(' ').collect::<Vec<_>>())
        };
        let stranger = behind("203.0.113.9");
        assert!(
            stranger.out.contains("550 5.7.1") || stranger.out.contains("554 5.7.1"),
            "{stranger}"
        );
        site.logged(&["event=reject", "client=203.0.113.9", "reason=relay-denied"]);
        behind("192.0.2.9").ok();
    }
    let received = peer.await_received(2);
    let text = String::from_utf8_lossy(&received[0].octets).into_owned();
    assert!(text.contains("[192.0.2.9]"), "{text}");
    // Behind a balancer that does not tell, nobody may relay, though the balancer may.
    let untold = Talk::connect(site.address()).and_then(|mut talk| {
        talk.send(b"PROXY UNKNOWN\r\n")?;
        assert_eq!(talk.reply()?.code, 220);
        Ok(talk)
    });
    let mut talk = untold.unwrap();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    let told = talk.expect("RCPT TO:<b@far.test>", 550);
    assert_eq!(told.enhanced(), Some("5.7.1"), "{told}");
}

#[test]
fn without_a_header_nobody_is_greeted() {
    let peer = Peer::accepting(ports::local());
    let site = site(&peer);
    let mut stream = TcpStream::connect(site.address()).unwrap();
    stream.write_all(b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\n").unwrap();
    let mut said = Vec::new();
    // The connection may be reset, since what was sent is not read to its end.
    let _ended = stream.read_to_end(&mut said);
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
    site.logged(&["event=balancer-refused", "client=127.0.0.1"]);

    // Who is no balancer is a client, and his header makes no sense.
    site.ctl(&["server", "set", "default", "access.proxy_from=192.0.2.1"]).ok();
    let mut talk = site.talk();
    talk.expect("PROXY TCP4 192.0.2.7 127.0.0.1 5555 25", 500);
    talk.expect("EHLO client.test", 250);
}

#[test]
fn a_real_balancer_tells_its_clients_apart() {
    let peer = Peer::accepting(ports::local());
    let site = site(&peer);
    for form in ["send-proxy", "send-proxy-v2"] {
        let Some(balancer) = Haproxy::before(site.address(), form) else {
            return skip::note("a balancer in front of the service", haproxy::ABSENT);
        };
        let mut talk = Talk::to(balancer.address());
        talk.expect("EHLO client.test", 250);
        let sent = talk.message("a@x.test", &["b@local.test"], &tagged(form)).unwrap();
        assert_eq!(sent.code, 250);
        let client = "127.0.0.9";
        let more = ["--local-interface", client, "--server", &balancer.address().to_string()];
        assert_ne!(
            swaks::send(&site, &more).code,
            0,
            "the balancer may relay, and its client may not"
        );
        site.logged(&["event=reject", "client=127.0.0.9", "reason=relay-denied"]);
    }
    assert_eq!(site.await_dropped(2).len(), 2);
}

#[test]
fn everybody_is_no_balancer() {
    let setup = Setup::new().key("access.proxy_from", "[10.0.0.0/8, 0.0.0.0/0]");
    let checked = Site::prepare(setup).run(&["--check"]);
    assert!(checked.code != 0 && checked.err.contains("E0380"), "{checked}");
}
