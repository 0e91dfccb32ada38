//! Mail that leaves under another sender's address: in MAIL FROM, in From, and under a signature.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::{body, fields};
use mailroot_tests::peer::{Answer, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{dkim, ports, skip};

const RULES: &str = "[{from: \"*@scanners.test\", to: scanner@client.test}, {from: \"/^scanner@/\", to: loop@scanners.test}]";

fn send(site: &Site, from: &str, to: &str, message: &[u8]) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message(from, &[to], message).unwrap().code, 250);
}

/// A message as a device writes it; large, so that it does not fit into memory.
fn scan(size: usize) -> Vec<u8> {
    let mut octets = b"Subject: scan\r\nFrom: \"Third floor\"\r\n <Scan3@Scanners.test> (MFP)\r\n\
                       To: b@example.com\r\n\r\n"
        .to_vec();
    octets.extend(b".line\r\n\r\n".repeat(size / 9));
    octets
}

#[test]
fn everything_of_some_senders_leaves_as_another_and_is_signed_as_such() {
    let peer = Peer::offering(ports::local(), &["8BITMIME", "SIZE 10000000"], |_| Answer::Accept);
    let setup = Setup::new().smart_host(peer.address());
    let site = Site::start(setup.key("delivery.sender_rewrite", RULES));
    site.ctl(&["dkim", "create", "client.test", "--type", "ed25519"]).ok();
    for (count, size) in [(1, 20), (2, 600_000)] {
        let message = scan(size);
        send(&site, "scan3@scanners.test", "b@example.com", &message);
        let received = peer.await_received(count).pop().unwrap();
        assert_eq!(received.sender(), "scanner@client.test", "once, not by the second rule");
        let declared = format!("SIZE={}", received.octets.len());
        assert!(received.mail.contains(&declared), "{}: {declared}", received.mail);
        let from = fields(&received.octets, "From");
        assert_eq!(from, ["\"Third floor\" <scanner@client.test> (MFP)"]);
        let answers = fields(&received.octets, "Reply-To");
        assert_eq!(answers, ["\"Third floor\" <Scan3@Scanners.test> (MFP)"]);
        assert!(body(&received.octets) == body(&message), "the body is as it was");
        assert_eq!(fields(&received.octets, "DKIM-Signature").len(), 1);
        if !dkim::is_here() {
            skip::note("signatures", dkim::ABSENT);
            continue;
        }
        let records = dkim::records_of(&site.ctl(&["dkim", "dns", "client.test"]).ok());
        assert_eq!(dkim::verify(&records, &[&received.octets]), [[true]]);
    }
    // Mail of others is not touched, and what stays here neither.
    send(&site, "a@other.test", "b@example.com", b"From: a@other.test\r\n\r\nx\r\n");
    let received = peer.await_received(3).pop().unwrap();
    assert_eq!(received.sender(), "a@other.test");
    assert!(fields(&received.octets, "Reply-To").is_empty());
    send(&site, "s@scanners.test", &format!("x@{LOCAL_DOMAIN}"), &scan(20));
    let dropped = site.await_dropped(1);
    assert!(dropped[0].text().contains("Scan3@Scanners.test"), "{}", dropped[0].text());
}

#[test]
fn a_report_reaches_who_sent_it_and_not_the_address_it_left_under() {
    let peer = Peer::start(ports::local(), |event| match event.stage {
        Stage::Rcpt if event.line.contains("nobody@") => Answer::say("550 5.1.1 no such user"),
        _ => Answer::Accept,
    });
    let setup = Setup::new().smart_host(peer.address());
    let site = Site::start(setup.key("delivery.sender_rewrite", RULES));
    send(&site, "scan3@scanners.test", "nobody@example.com", &scan(20));
    let report = peer.await_received(1).pop().unwrap();
    assert_eq!(report.sender(), "", "nobody stays nobody");
    assert_eq!(report.recipients(), ["scan3@scanners.test"]);
}

#[test]
fn the_masquerade_changes_from_only_where_that_is_wanted() {
    let peer = Peer::accepting(ports::local());
    let setup = Setup::new().smart_host(peer.address());
    let site = Site::start(setup.key("delivery.masquerade_domain", "public.test"));
    let message = format!("From: App <app@{LOCAL_DOMAIN}>\r\n\r\nx\r\n");
    let sender = format!("app@{LOCAL_DOMAIN}");
    send(&site, &sender, "b@example.com", message.as_bytes());
    site.ctl(&["server", "set", "default", "delivery.masquerade_header=true"]).ok();
    send(&site, &sender, "b@example.com", message.as_bytes());
    let received = peer.await_received(2);
    for (received, from) in received.iter().zip([&*sender, "app@public.test"]) {
        assert_eq!(received.sender(), "app@public.test");
        assert_eq!(fields(&received.octets, "From"), [format!("App <{from}>")]);
        assert!(fields(&received.octets, "Reply-To").is_empty());
    }
}

#[test]
fn the_route_says_how_a_sender_is_rewritten() {
    let site = Site::start(
        Setup::new()
            .smart_host(ports::local())
            .key("delivery.masquerade_domain", "public.test")
            .key("delivery.sender_rewrite", RULES),
    );
    let shown =
        |from: &str, to: &str| site.ctl(&["route", "show", to, "--from", from, "--no-dns"]).ok();
    let rule = shown("x@scanners.test", "b@example.com");
    let words =
        "scanner@client.test in MAIL FROM and From, by delivery.sender_rewrite *@scanners.test";
    assert!(rule.contains(words) && rule.contains("default.yaml:"), "{rule}");
    let masked = shown(&format!("app@{LOCAL_DOMAIN}"), "b@example.com");
    let words = format!(
        "app@public.test in MAIL FROM, app@{LOCAL_DOMAIN} in From, by delivery.masquerade_domain"
    );
    assert!(masked.contains(&words), "{masked}");
    assert!(shown("a@other.test", "b@example.com").contains("a@other.test, as it is"));
    assert!(!shown("x@scanners.test", &format!("x@{LOCAL_DOMAIN}")).contains("sender"));

    site.ctl(&[
        "server",
        "set",
        "default",
        "delivery.sender_rewrite+={from: \"a@*\", to: b@client.test}",
    ])
    .ok();
    let listed = site.ctl(&["config", "get", "delivery.sender_rewrite", "-s", "default"]).ok();
    assert!(listed.contains("b@client.test"), "{listed}");
    for (bad, code) in [
        ("{from: \"<>\", to: b@client.test}", "E0319"),
        ("{from: \"/(/\", to: b@client.test}", "E0319"),
        ("{from: \"x@*\"}", "E0104"),
        ("{from: \"x@*\", to: nobody}", "E0302"),
    ] {
        let key = format!("delivery.sender_rewrite=[{bad}]");
        let said = site.ctl(&["server", "set", "default", &key]).exited(6).err;
        assert!(said.contains(code), "{bad}: {said}");
    }
}
