//! Mail of some senders that goes another way than the rest.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::peer::{Answer, Peer, Stage};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, wait};

fn send(site: &Site, from: &str, to: &[&str]) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message(from, to, b"Subject: x\r\n\r\nx\r\n").unwrap().code, 250);
}

#[test]
fn senders_have_smart_hosts_of_their_own() {
    let (usual, shop, direct, reports) = (
        Peer::accepting(ports::local()),
        Peer::accepting(ports::local()),
        Peer::start(ports::local(), |event| match event.stage {
            Stage::Rcpt => Answer::say("550 5.1.1 no such user"),
            _ => Answer::Accept,
        }),
        Peer::accepting(ports::local()),
    );
    let at = |peer: &Peer| peer.address().to_string();
    let bracketed = |peer: &Peer| {
        let address = peer.address();
        format!("[{}]:{}", address.ip(), address.port())
    };
    let site = Site::start(Setup::new().smart_host(usual.address()));
    let named = bracketed(&shop);
    site.ctl(&["smarthost", "set", &named, "--name", "shop", "--tls", "off", "--no-use"]).ok();
    let rules = format!(
        "delivery.sender_routes=[{{from: \"*@shop.test\", route: smarthost:shop}}, \
         {{from: \"gone@*\", route: \"{}\"}}, {{from: \"<>\", route: [\"{}\"]}}]",
        bracketed(&direct),
        bracketed(&reports)
    );
    site.ctl(&["server", "set", "default", &rules]).ok();
    send(&site, "a@shop.test", &["b@example.com", "c@example.org"]);
    send(&site, "a@other.test", &["b@example.com"]);
    assert_eq!(shop.await_received(1).pop().unwrap().sender(), "a@shop.test");
    assert_eq!(usual.await_received(1).pop().unwrap().sender(), "a@other.test");
    send(&site, "gone@other.test", &["b@example.com"]);
    let report = reports.await_received(1).pop().unwrap();
    assert_eq!((report.sender(), report.recipients()), ("", vec!["gone@other.test"]));
    assert_eq!(shop.received().len(), 1, "one message for both of its recipients");

    let shown = site.ctl(&["route", "show", "b@example.com", "--from", "a@shop.test"]).ok();
    assert!(shown.contains("smarthost:shop"), "{shown}");
    assert!(shown.contains("default.yaml:"), "where it is written: {shown}");
    let shown = site.ctl(&["route", "show", "b@example.com"]).ok();
    assert!(shown.contains(&at(&usual)) || shown.contains(&bracketed(&usual)), "{shown}");
    let listed = site.control().json(&["smarthost", "list"])[0].clone();
    assert_eq!(
        (&listed["state"], &listed["used_by"][0]),
        (&"up".into(), &"default from *@shop.test".into())
    );
    let status = site.ctl(&["status"]).ok();
    assert!(status.contains("Smart hosts   shop up (last delivery "), "{status}");
    let refused = site.ctl(&["smarthost", "remove", "shop"]).exited(6).err;
    assert!(refused.contains("E0431"), "{refused}");
}

#[test]
fn mail_that_waits_turns_to_the_new_way_of_its_sender() {
    let (dead, shop) = (ports::local(), Peer::accepting(ports::local()));
    let site = Site::start(Setup::new().smart_host(dead));
    send(&site, "a@shop.test", &["b@example.com"]);
    send(&site, "a@other.test", &["b@example.com"]);
    site.logged(&["event=deferred"]);
    let rule = format!(
        "delivery.sender_routes+={{from: \"*@shop.test\", route: \"[{}]:{}\"}}",
        shop.address().ip(),
        shop.address().port()
    );
    site.ctl(&["server", "set", "default", &rule]).ok();
    site.ctl(&["queue", "retry", "--all", "--yes"]).ok();
    assert_eq!(shop.await_received(1).pop().unwrap().sender(), "a@shop.test");
    let senders = || {
        let left = site.control().json(&["queue", "list", "--domain", "example.com"]);
        let of_message = |it: &serde_json::Value| it["from"].as_str().unwrap().to_owned();
        left.as_array().unwrap().iter().map(of_message).collect::<Vec<_>>()
    };
    wait::until("the rest waits on", || (senders() == ["a@other.test"]).then_some(()));
}

#[test]
fn bad_routes_of_senders_are_refused_with_their_place() {
    let site = Site::start(Setup::new());
    for (bad, code) in [
        ("{from: \"a@*\"}", "E0104"),
        ("{from: \"/(/\", route: mx}", "E0320"),
        ("{from: \"a@*\", route: []}", "E0303"),
        ("{from: \"a@*\", route: smarthost:none}", "E0431"),
        ("a@b.test", "E0105"),
    ] {
        let key = format!("delivery.sender_routes=[{bad}]");
        let refused = site.ctl(&["server", "set", "default", &key]).exited(6).err;
        assert!(refused.contains(code), "{bad}: {refused}");
    }
}
