//! Virtual servers that get other directories while the service runs: no queue is left behind.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

use mailroot_tests::message::tagged;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, wait};

fn text(site: &Site) -> String {
    fs::read_to_string(site.home().join("etc/servers.d/default.yaml")).unwrap()
}

fn send(site: &Site, to: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &[to], &tagged("x")).unwrap().code, 250);
}

fn messages_in(directory: &Path) -> usize {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    names.filter(|entry| entry.path().extension().is_some_and(|it| it == "eml")).count()
}

fn waiting(site: &Site) -> usize {
    site.control().json(&["queue", "list"]).as_array().unwrap().len()
}

#[test]
fn a_mail_root_with_mail_in_its_queue_stays() {
    let site = Site::start(Setup::new().smart_host(ports::local()));
    send(&site, "far@far.test");
    let before = text(&site);
    for more in [&["--dry-run"][..], &[]] {
        let words = [&["server", "set", "default", "store.root=elsewhere"][..], more].concat();
        let refused = site.ctl(&[&words[..], &["-o", "json"]].concat()).exited(7);
        assert!(refused.err.contains("server.queue_stays"), "{refused}");
        assert!(refused.err.contains("1 queued messages"), "{refused}");
    }
    assert_eq!(text(&site), before);

    // By hand it is refused as well, and so is the other way to the same end.
    let file = site.home().join("etc/servers.d/default.yaml");
    fs::write(&file, before.replace("store:", "store:\n  root: elsewhere")).unwrap();
    let _refused = site.ctl(&["reload"]).exited(7);
    let status = site.control().json(&["status"]);
    assert_eq!(status["warnings"][0]["code"], "config.edited", "{status}");
    fs::write(&file, &before).unwrap();
    let _refused = site.ctl(&["config", "set", "service.store=/nowhere/at/all"]).exited(7);
    assert_eq!(waiting(&site), 1);
    assert!(!site.home().join("spool/elsewhere").exists());
    send(&site, &format!("here@{LOCAL_DOMAIN}"));
}

#[test]
fn an_empty_server_moves_and_goes_on() {
    let site = Site::start(Setup::new());
    send(&site, &format!("first@{LOCAL_DOMAIN}"));
    let _first = site.await_dropped(1);
    site.await_empty_queue();
    let set = site.control().json(&["server", "set", "default", "store.root=elsewhere"]);
    assert_eq!(set["warnings"][0]["code"], "W0425", "{set}");
    assert!(set["troubles"].as_array().is_none_or(Vec::is_empty), "{set}");
    send(&site, &format!("second@{LOCAL_DOMAIN}"));
    let new = site.home().join("spool/elsewhere/Drop");
    wait::until("a message in the new Drop", || (messages_in(&new) == 1).then_some(()));
    assert_eq!(messages_in(&site.spool("default", "Drop")), 1, "the first stays where it is");

    // A paused server is paused again, and a stopped one stays stopped.
    site.await_empty_queue();
    let _paused = site.ctl(&["server", "pause", "default"]).ok();
    let _back = site.ctl(&["server", "unset", "default", "store.root"]).ok();
    let state = || site.control().json(&["server", "list"])[0]["state"].clone();
    assert_eq!(state(), "paused");
    let _stopped = site.ctl(&["server", "stop", "default"]).ok();
    let _again = site.ctl(&["server", "set", "default", "store.root=elsewhere"]).ok();
    assert_eq!(state(), "stopped");
    let _started = site.ctl(&["server", "start", "default"]).ok();
    send(&site, &format!("third@{LOCAL_DOMAIN}"));
    wait::until("another in the new Drop", || (messages_in(&new) == 2).then_some(()));
}

#[test]
fn drop_moves_also_while_mail_waits() {
    let site = Site::start(Setup::new().smart_host(ports::local()));
    send(&site, "far@far.test");
    let _set = site.ctl(&["domain", "set", LOCAL_DOMAIN, "drop.dir=Letters"]).ok();
    send(&site, &format!("here@{LOCAL_DOMAIN}"));
    let letters = site.spool("default", "Letters");
    wait::until("a message in Letters", || (messages_in(&letters) == 1).then_some(()));
    // What waits goes on waiting in the same queue.
    wait::until("the queue without what was delivered", || (waiting(&site) == 1).then_some(()));
    let left = site.ctl(&["queue", "list", "-o", "json"]).ok();
    assert!(left.contains("far@far.test"), "{left}");
}

/// What was stored before a start is known by and by.
fn await_waiting(site: &Site, count: usize) {
    wait::until("the mail that waits", || (waiting(site) == count).then_some(()));
}

/// Sends a message that waits, stops the daemon, and gives the server another mail root by hand.
fn moved_while_stopped() -> (Site, String) {
    let site = Site::start(Setup::new().smart_host(ports::local()));
    send(&site, "far@far.test");
    site.stop();
    let before = text(&site);
    let file = site.home().join("etc/servers.d/default.yaml");
    fs::write(&file, before.replace("store:", "store:\n  root: elsewhere")).unwrap();
    (site, before)
}

#[test]
fn a_root_that_was_changed_while_the_daemon_was_stopped_hides_no_mail() {
    let (site, before) = moved_while_stopped();
    site.spawn(&[]);
    assert!(!site.wait().success(), "no virtual server could start");
    let said = site.logged(&["event=server-failed", "server=default"]);
    assert!(said.contains("1 messages wait in") && said.contains("spool/default/Queue"), "{said}");
    assert!(said.contains("put store.root"), "{said}");
    // A second try finds it as well: nothing was forgotten by the first.
    site.spawn(&[]);
    assert!(!site.wait().success());
    let file = site.home().join("etc/servers.d/default.yaml");
    fs::write(&file, &before).unwrap();
    site.launch();
    await_waiting(&site, 1);
}

#[test]
fn a_queue_that_went_along_or_is_empty_is_no_obstacle() {
    let (site, _) = moved_while_stopped();
    let spool = site.home().join("spool");
    fs::create_dir(spool.join("elsewhere")).unwrap();
    fs::rename(spool.join("default/Queue"), spool.join("elsewhere/Queue")).unwrap();
    site.launch();
    await_waiting(&site, 1);
    let _gone = site.ctl(&["queue", "remove", "--all", "--yes"]).ok();
    site.await_empty_queue();
    site.stop();
    let file = site.home().join("etc/servers.d/default.yaml");
    fs::write(&file, text(&site).replace("root: elsewhere", "root: third")).unwrap();
    site.launch();
    send(&site, "far@far.test");
    assert!(spool.join("third/Queue").exists());
    assert_eq!(waiting(&site), 1);
}

#[test]
fn a_server_whose_file_is_gone_is_missed_while_it_has_mail() {
    let site = Site::start(Setup::new().smart_host(ports::local()));
    send(&site, "far@far.test");
    let _spare = site
        .ctl(&["server", "create", "spare", "--listen", "127.0.0.1:0", "--domain", "spare.test"])
        .ok();
    let file = site.home().join("etc/servers.d/default.yaml");
    let kept = text(&site);
    fs::remove_file(&file).unwrap();
    let refused = site.ctl(&["reload", "-o", "json"]).exited(7);
    assert!(refused.err.contains("server.queue_stays"), "{refused}");
    site.stop();
    site.spawn(&[]);
    let warning = wait::until("a warning of mail that nobody has", || {
        let status = site.ctl(&["status", "-o", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status.out).ok()?;
        let warnings = status["warnings"].as_array()?.clone();
        warnings.into_iter().find(|it| it["code"] == "queue.left_behind")
    });
    let said = warning["text"].as_str().unwrap();
    assert!(said.contains("1 messages wait in") && said.contains("queue of default"), "{said}");
    fs::write(&file, kept).unwrap();
    let _back = site.ctl(&["reload"]).ok();
    await_waiting(&site, 1);
    let status = site.control().json(&["status"]);
    let warnings = status["warnings"].as_array().unwrap();
    assert!(warnings.iter().all(|it| it["code"] != "queue.left_behind"), "{status}");
}

#[test]
fn badmail_moves_and_keeps_out_of_other_directories() {
    let site = Site::start(Setup::new());
    for place in ["Queue", "Drop", "Pickup/x"] {
        let word = format!("messages.badmail.dir={place}");
        let refused = site.ctl(&["server", "set", "default", &word]);
        assert!(refused.code == 6 && refused.err.contains("E0424"), "{refused}");
    }
    let set = site.control().json(&["server", "set", "default", "messages.badmail.dir=Dead"]);
    assert_eq!(set["warnings"][0]["code"], "W0425", "{set}");
    fs::write(site.spool("default", "Pickup").join("bad.eml"), "Subject: to nobody\n\nx\n")
        .unwrap();
    let dead = site.spool("default", "Dead");
    wait::until("a message in Dead", || (fs::read_dir(&dead).unwrap().count() > 0).then_some(()));
    wait::until("it in the list", || {
        let listed = site.control().json(&["badmail", "list"]);
        (listed.as_array().map(Vec::len) == Some(1)).then_some(())
    });
    assert_eq!(fs::read_dir(site.spool("default", "Badmail")).unwrap().count(), 0);
}
