//! Mailboxes that other hosts have, by the word of a directory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::peer::{Answer, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::site::Site;
use mailroot_tests::slapd::{Entry, asking, directory};
use mailroot_tests::talk::Talk;

fn hello(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk
}

fn send(site: &Site, to: &[&str]) {
    let reply = hello(site).message("sender@else.test", to, b"Subject: x\r\n\r\nx\r\n");
    assert_eq!(reply.unwrap().code, 250);
}

/// Mailboxes here, elsewhere, and at a host whose name is none.
const ENTRIES: &[Entry<'_>] = &[
    ("carl", &["mail: carl@local.test", "mailLocalAddress: c@local.test", "mailHost: 127.0.0.1"]),
    ("dora", &["mail: dora@local.test", "mailHost: MX.local.test"]),
    ("emil", &["mail: emil@local.test", "mailHost: 127.0.0.1", "mailHost: old.local.test"]),
    ("finn", &["mail: finn@local.test", "mailHost: 127.0.0.1", "mailRoutingAddress: f@inner.test"]),
    (
        "list",
        &[
            "objectClass: groupOfNames",
            "mail: list@local.test",
            "mailHost: 127.0.0.1",
            "member: cn=carl,dc=local,dc=test",
        ],
    ),
    (
        "gina",
        &["mail: gina@local.test", "mailHost: 127.0.0.1", "mailRoutingAddress: gina@local.test"],
    ),
    (
        "club",
        &[
            "objectClass: groupOfNames",
            "mail: club@local.test",
            "member: cn=slip,dc=local,dc=test",
            "member: cn=carl,dc=local,dc=test",
        ],
    ),
    ("slip", &["mail: slip@local.test", "mailHost: smarthost:isp"]),
];

#[test]
fn mail_goes_to_the_host_of_the_mailbox() {
    let Some(directory) = directory(ENTRIES) else { return };
    let inside = Peer::accepting(ports::local());
    let setup = asking("openldap", &[directory.address()])
        .key("delivery.fqdn", "mx.local.test")
        .key("ldap.own_hosts", "[old.local.test]")
        .key("delivery.connections.port", &inside.address().port().to_string());
    let site = Site::start(setup);
    for (count, (to, received)) in [
        ("c", "carl@local.test"),
        ("finn", "f@inner.test"),
        ("list", "list@local.test"),
        ("gina", "gina@local.test"),
    ]
    .into_iter()
    .enumerate()
    {
        send(&site, &[&format!("{to}@local.test")]);
        assert_eq!(inside.await_received(count + 1)[count].recipients(), [received]);
    }
    send(&site, &["dora@local.test", "emil@local.test"]);
    let mut dropped = site.await_dropped(1)[0].fields("X-Receiver");
    dropped.sort();
    assert_eq!(dropped, ["dora@local.test", "emil@local.test"]);
    site.await_empty_queue();
    let words = "carl@local.test by [127.0.0.1]";
    site.logged(&["event=resolved", "to=<c@local.test>", words]);
    for command in [
        ["route", "show", "c@local.test"].as_slice(),
        &["ldap", "test", "--address", "c@local.test"],
    ] {
        let told = site.ctl(command).ok();
        assert!(told.contains(words), "{told}");
    }
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    talk.expect("RCPT TO:<slip@local.test>", 451);
    let told = site.ctl(&["ldap", "test", "--address", "slip@local.test"]).out;
    assert!(told.contains("\"smarthost:isp\"") && told.contains("cannot be the host of"), "{told}");
    // It keeps nobody else of a group from getting the mail.
    let told = site.ctl(&["ldap", "test", "--address", "club@local.test"]).ok();
    assert!(told.contains(words) && told.contains("not cn=slip,dc=local,dc=test"), "{told}");
    site.logged(&["event=ldap-bad-host", "cn=slip"]);
    // While the host takes no mail it is found by the domain that it is for.
    inside.behave(|event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 later"),
        _ => Answer::Accept,
    });
    send(&site, &["c@local.test"]);
    site.logged(&["event=deferred", "to=<carl@local.test>"]);
    let listed = site.ctl(&["queue", "list", "--domain", "local.test"]).ok();
    assert!(listed.contains("carl@local.test"), "{listed}");
    // Where the host turns out to be this server, the mail goes in no circle, and waits for that to be told.
    let port = site.address().port();
    site.ctl(&["server", "set", "default", &format!("delivery.connections.port={port}")]).ok();
    site.ctl(&["queue", "flush"]).ok();
    let words = "it is this server itself: the mail would loop; if the directory means this server";
    site.logged(&["event=deferred", "to=<carl@local.test>", words, "ldap.own_hosts"]);
}
