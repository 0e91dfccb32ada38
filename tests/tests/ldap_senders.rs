//! What a directory decides about senders.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::caller::Caller;
use mailroot_tests::peer::Peer;
use mailroot_tests::ports;
use mailroot_tests::site::Site;
use mailroot_tests::slapd::{Entry, asking, directory};
use mailroot_tests::talk::Talk;

const PEOPLE: &[Entry<'_>] = &[
    ("ada", &["mail: ada@local.test", "mailLocalAddress: countess@local.test"]),
    ("eve", &["mail: eve@local.test"]),
];

fn hello(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk
}

#[test]
fn who_sends_in_a_name_that_nobody_has_is_refused_where_that_is_wanted() {
    let Some(mut directory) = directory(PEOPLE) else { return };
    let site = Site::start(asking("openldap", &[directory.address()]));
    fs::write(site.home().join("etc/aliases"), "cron: ada\n").unwrap();
    let code = |from: &str| {
        let reply = hello(&site).say(&format!("MAIL FROM:<{from}>"));
        (reply.code, reply.enhanced().unwrap_or_default().to_owned())
    };
    assert_eq!(code("nobody@local.test").0, 250, "nobody is asked by default");
    site.ctl(&["ldap", "set", "senders.unknown=refuse"]).ok();
    for (from, expected) in [
        ("ada@local.test", 250),
        ("Countess@Local.Test", 250),
        ("nobody@local.test", 550),
        ("*@local.test", 550),
        ("", 250),
        ("postmaster@local.test", 250),
        ("cron@local.test", 250),
        ("nobody@far.test", 250),
    ] {
        let (found, enhanced) = code(from);
        assert_eq!(found, expected, "{from}");
        assert!(found != 550 || enhanced == "5.1.0", "{from}: {enhanced}");
    }
    site.logged(&["event=reject", "reason=unknown-sender", "from=<nobody@local.test>"]);
    let counted = site.ctl(&["metrics", "--grep", "unknown_sender"]).ok();
    assert!(counted.trim_end().ends_with(" 2"), "{counted}");
    let by_program = Caller::of(&site);
    let words = ["-f", "nobody@local.test", "ada@local.test"];
    by_program.run("sendmail", &words, "Subject: x\n\nx\n").ok();
    assert_eq!(site.await_dropped(1)[0].fields("X-Sender"), ["nobody@local.test"]);
    directory.kill();
    assert_eq!(code("ada@local.test"), (451, "4.4.3".to_owned()));
    assert_eq!((code("cron@local.test").0, code("nobody@far.test").0), (250, 250));
}

#[test]
fn mail_goes_on_from_the_senders_own_address() {
    let Some(mut directory) = directory(PEOPLE) else { return };
    let outside = Peer::accepting(ports::local());
    let setup = asking("openldap", &[directory.address()]).smart_host(outside.address());
    let site = Site::start(setup.key("ldap.unknown", "return"));
    let mut count = 0;
    let mut goes_on_from = |from: &str| {
        let text = format!("From: {from}\r\nSubject: x\r\n\r\nx\r\n");
        let reply = hello(&site).message(from, &["b@far.test"], text.as_bytes());
        assert_eq!(reply.unwrap().code, 250);
        count += 1;
        let received = outside.await_received(count).pop().unwrap();
        assert!(String::from_utf8_lossy(&received.octets).contains(&format!("From: {from}\r\n")));
        received.sender().to_owned()
    };
    assert_eq!(goes_on_from("countess@local.test"), "countess@local.test");
    site.ctl(&["ldap", "set", "senders.primary=true"]).ok();
    assert_eq!(goes_on_from("countess@local.test"), "ada@local.test");
    assert_eq!(goes_on_from("nobody@local.test"), "nobody@local.test");
    assert_eq!(goes_on_from("countess@far.test"), "countess@far.test");
    let reply = hello(&site).message("countess@local.test", &["nobody@local.test"], b"\r\nx\r\n");
    assert_eq!(reply.unwrap().code, 250);
    assert_eq!(site.await_dropped(1)[0].fields("X-Receiver"), ["ada@local.test"]);
    directory.kill();
    assert_eq!(goes_on_from("countess@local.test"), "countess@local.test");
}
