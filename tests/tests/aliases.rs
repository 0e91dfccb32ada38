//! Aliases: who gets mail for the local names of the machine, by every door.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;

use mailroot_tests::caller::Caller;
use mailroot_tests::message::{Stored, tagged};
use mailroot_tests::peer::Peer;
use mailroot_tests::ports;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::wait;

/// Who got the message with this tag in Drop.
fn receivers(site: &Site, tag: &str) -> BTreeSet<String> {
    let stored: Stored = wait::until(&format!("{tag} in Drop"), || {
        site.dropped("default").into_iter().find(|it| it.fields("Subject") == [tag])
    });
    stored.fields("X-Receiver").into_iter().collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn send(site: &Site, to: &[&str], tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let reply = talk.message("a@client.test", to, &tagged(tag)).unwrap();
    assert_eq!(reply.code, 250, "{reply}");
}

#[test]
fn one_name_becomes_everybody_behind_it_and_a_change_counts_at_once() {
    let site = Site::start(Setup::new().domain("{name: also.test, type: alias}"));
    let file = site.home().join("etc/aliases");
    send(&site, &["root@local.test"], "before");
    assert_eq!(receivers(&site, "before"), set(["root@local.test"]));

    let list = site.home().join("list");
    fs::write(&list, "one@local.test # first\ntwo\n").unwrap();
    let text = format!(
        "postmaster: root\nroot: \\root, ops\nops: anna@local.test,\n  ben@also.test\n\
         list: :include:{}\npipe: |/bin/sh\nhalf: /var/mail/x, anna\nweb: www\nwww: web\n",
        list.display()
    );
    fs::write(&file, text).unwrap();
    for (tag, to, expected) in [
        (
            "postmaster",
            "Postmaster@also.test",
            set(["root@local.test", "anna@local.test", "ben@local.test"]),
        ),
        ("list", "list@local.test", set(["one@local.test", "two@local.test"])),
        // What leads to nobody keeps its mail.
        ("pipe", "pipe@local.test", set(["pipe@local.test"])),
        ("half", "half@local.test", set(["anna@local.test"])),
        ("circle", "web@local.test", set(["web@local.test"])),
        ("none", "none@local.test", set(["none@local.test"])),
    ] {
        send(&site, &[to], tag);
        assert_eq!(receivers(&site, tag), expected, "{tag}");
    }
    let told = site.logged(&["event=alias-fault", "line=6"]);
    assert!(told.contains("piped"), "{told}");

    fs::write(&list, "three@local.test\n").unwrap();
    send(&site, &["list@local.test", "three@local.test"], "changed");
    assert_eq!(receivers(&site, "changed"), set(["three@local.test"]));

    let pickup = site.spool("default", "Pickup").join("one.eml");
    fs::write(
        &pickup,
        "X-Sender: a@b.test\r\nX-Receiver: ops@local.test\r\nSubject: picked up\r\n\r\n",
    )
    .unwrap();
    assert_eq!(receivers(&site, "picked up"), set(["anna@local.test", "ben@local.test"]));

    let _off = site.ctl(&["config", "set", "service.aliases=off"]).ok();
    send(&site, &["ops@local.test"], "off");
    assert_eq!(receivers(&site, "off"), set(["ops@local.test"]));
}

#[test]
fn mail_for_root_leaves_the_machine() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let _set = site.ctl(&["alias", "set", "root", "ops@far.test"]).ok();
    let caller = Caller::of(&site);
    let words = ["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"];
    let _queued = caller.run("sendmail", &words, "Subject: cron\n\nbody\n").ok();
    let story = wait::until("a delivery", || {
        let told = site.ctl(&["trace", "--to", "ops@far.test", "-o", "json"]);
        told.out.contains("\"delivered\"").then_some(told.out)
    });
    assert!(!story.contains("\"address\": \"root@"), "{story}");
    let _line = site.logged(&["event=alias ", "to=<root@local.test>", "nrcpt=1"]);
}

#[test]
fn the_file_is_edited_looked_at_and_explained() {
    let site = Site::start(Setup::new());
    let file = site.home().join("etc/aliases");
    fs::write(&file, "# ours\npostmaster: root\nbad: |cmd\n").unwrap();
    let _set = site.ctl(&["alias", "set", "root", "ops@far.test", "anna"]).ok();
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "# ours\npostmaster: root\nbad: |cmd\nroot: ops@far.test, anna\n"
    );
    let resolved = site.ctl(&["alias", "resolve", "postmaster"]).ok();
    assert_eq!(resolved, "postmaster -> anna, ops@far.test\n");
    assert_eq!(site.ctl(&["alias", "resolve", "ben"]).ok(), "ben is no alias\n");
    let listed = site.control().json(&["alias", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 3, "{listed}");

    let found = site.ctl(&["alias", "check"]).exited(10);
    assert!(found.out.contains("piped") && found.out.contains('3'), "{found}");
    let told = Caller::of(&site).run("newaliases", &[], "").exited(0);
    assert!(told.err.contains("aliases:3: |cmd: mail is not piped"), "{told}");
    let _same = Caller::of(&site).run("sendmail", &["-bi"], "").ok();

    let _removed = site.ctl(&["alias", "remove", "bad"]).ok();
    let _none = site.ctl(&["alias", "remove", "bad"]).exited(3);
    let _fine = site.ctl(&["alias", "remove", "bad", "--if-exists"]).ok();
    let _good = site.ctl(&["alias", "check"]).ok();
    let _refused = site.ctl(&["alias", "set", "x", "|cmd"]).exited(2);
}
