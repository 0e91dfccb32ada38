//! The name of this machine in mail, as /etc/mailname says it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::caller::Caller;
use mailroot_tests::message::Stored;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, wait};

/// The message in Drop with this subject.
fn found(site: &Site, subject: &str) -> Stored {
    wait::until(&format!("{subject:?} in Drop"), || {
        site.dropped("default").into_iter().find(|it| it.fields("Subject") == [subject])
    })
}

/// Where nobody listens, as a route.
fn nobody() -> String {
    let at = ports::local();
    format!("[{}]:{}", at.ip(), at.port())
}

#[test]
fn the_name_of_the_machine_is_followed_as_its_file_changes() {
    let domain = format!("{{name: office.test, type: remote, route: \"{}\"}}", nobody());
    let site = Site::start(Setup::new().domain(&domain));
    let (caller, file) = (Caller::of(&site), site.home().join("etc/mailname"));
    let receiver = |subject: &str| {
        let _queued = caller.run("sendmail", &["root"], &format!("Subject: {subject}\n\n")).ok();
        let stored = found(&site, subject);
        (stored.fields("X-Receiver").join(","), stored.fields("From").join(","))
    };
    let named = |name: &str| (format!("root@{name}"), format!("root@{name}"));
    let plain = |(to, from): (String, String)| {
        (to, from.rsplit(' ').next().unwrap().replace(['<', '>'], ""))
    };
    assert_eq!(plain(receiver("none")), named(LOCAL_DOMAIN));
    std::fs::write(&file, "One.test\n").unwrap();
    assert_eq!(plain(receiver("one")), named("one.test"));
    let way = site.ctl(&["route", "show", "root@one.test"]).ok();
    assert!(way.contains("Drop"), "{way}");
    std::fs::write(&file, "two.test\n").unwrap();
    assert_eq!(plain(receiver("two")), named("two.test"));
    let _line = site.logged(&["event=mailname-changed", "name=two.test"]);
    std::fs::write(&file, "no name\n").unwrap();
    assert_eq!(plain(receiver("bad")), named("two.test"));
    let _line = site.logged(&["event=mailname-unread", "label"]);
    // Other doors go by the default domain.
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@client.test", &["root"], b"Subject: door\r\n\r\n").unwrap();
    assert_eq!(sent.code, 250);
    assert_eq!(found(&site, "door").fields("X-Receiver"), [format!("root@{LOCAL_DOMAIN}")]);
    // A domain that the server has an entry for goes where that says.
    std::fs::write(&file, "office.test\n").unwrap();
    let _queued = caller.run("sendmail", &["root"], "Subject: away\n\n").ok();
    let listed = site.control().json(&["queue", "list", "--to", "root@office.test"]);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let _reloaded = site.ctl(&["reload"]).ok();
    let _off = site.ctl(&["config", "set", "service.mailname=off"]).ok();
    assert_eq!(plain(receiver("off")), named(LOCAL_DOMAIN));
}
