//! The two lists of clients as people use them: entries that end, how often each decides, and how
//! ended ones leave the file.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::wait;
use serde_json::Value;

fn text(site: &Site) -> String {
    fs::read_to_string(site.home().join("etc/servers.d/default.yaml")).unwrap()
}

fn entry(site: &Site, noun: &str, name: &str) -> Value {
    let list = site.control().json(&[noun, "list"]);
    let entries = list["entries"].as_array().unwrap();
    entries.iter().find(|entry| entry["entry"] == name).unwrap_or(&Value::Null).clone()
}

fn greeting(site: &Site) -> u16 {
    Talk::connect(site.address()).unwrap().reply().unwrap().code
}

#[test]
fn a_client_is_kept_out_for_a_while_and_let_in_again() {
    let site = Site::start(Setup::new());
    let deny = ["access", "deny", "127.0.0.0/8", "--for", "3s", "--comment", "noisy"];
    let _denied = site.ctl(&deny).ok();
    assert_eq!(greeting(&site), 554);
    let listed = site.ctl(&["access", "list"]).ok();
    assert!(listed.contains("LEFT") && listed.contains("LAST USED"), "{listed}");
    let shown = entry(&site, "access", "127.0.0.0/8");
    assert_eq!((&shown["hits"], &shown["comment"]), (&1.into(), &"noisy".into()), "{shown}");
    wait::until("the entry to end", || (greeting(&site) == 220).then_some(()));
    assert_eq!(entry(&site, "access", "127.0.0.0/8")["expired"], true);
    assert!(site.ctl(&["access", "list"]).ok().contains("expired"));
    assert!(text(&site).contains("until:"), "it stays in the file for a while");

    // The same entry once more, without an end this time; what was said about it stays.
    let _denied = site.ctl(&["access", "deny", "127.0.0.0/8"]).ok();
    assert!(text(&site).contains("noisy") && !text(&site).contains("until:"), "{}", text(&site));
    assert_eq!(greeting(&site), 554);
    let hits = entry(&site, "access", "127.0.0.0/8")["hits"].as_u64().unwrap();
    assert!(hits > 1, "counting went on: {hits}");
    let refused = site.ctl(&["relay", "deny", "127.0.0.0/8", "--for", "1h"]).exited(2);
    assert!(refused.err.contains("takes entries off it"), "{refused}");
}

#[test]
fn a_client_of_a_network_that_stays_on_the_list_is_not_said_to_be_kept_out() {
    let site = Site::start(Setup::new());
    let refused = site.ctl(&["relay", "deny", "127.0.0.5"]).exited(7);
    assert!(refused.err.contains("127.0.0.0/8 still lets in"), "{refused}");
    let _kept = site.ctl(&["access", "deny", "192.0.2.0/24", "198.51.100.7"]).ok();
    let refused = site.ctl(&["access", "allow", "192.0.2.9"]).exited(7);
    assert!(refused.err.contains("192.0.2.0/24 still keeps out"), "{refused}");
    assert_eq!(entry(&site, "access", "192.0.2.0/24")["entry"], "192.0.2.0/24");
    let _free = site.ctl(&["access", "allow", "203.0.113.1", "198.51.100.7"]).ok();
    assert_eq!(entry(&site, "access", "198.51.100.7"), Value::Null);
}

#[test]
fn decisions_are_counted_and_survive_a_reload() {
    let site = Site::start(Setup::new());
    let _set = site.ctl(&["relay", "allow", "127.0.0.1", "--for", "1d"]).ok();
    let _gone = site.ctl(&["relay", "remove", "127.0.0.0/8"]).ok();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    for number in 0..3 {
        talk.expect(&format!("RCPT TO:<u{number}@elsewhere.test>"), 250);
    }
    talk.expect(&format!("RCPT TO:<u@{LOCAL_DOMAIN}>"), 250);
    talk.expect("RSET", 250);
    let used = entry(&site, "relay", "127.0.0.1");
    assert_eq!(used["hits"], 3, "what is ours needs no entry: {used}");
    assert!(used["last_used"].is_string() && used["until"].is_string(), "{used}");
    // Asking what would be decided is no decision.
    let _test = site.ctl(&["relay", "test", "--client", "127.0.0.1"]).ok();
    let _other = site.ctl(&["relay", "allow", "10.1.0.0/16"]).ok();
    let _reload = site.ctl(&["reload"]).ok();
    assert_eq!(entry(&site, "relay", "127.0.0.1")["hits"], 3);
    assert_eq!(entry(&site, "relay", "10.1.0.0/16")["hits"], 0);
}

const ENDED: &str = "[{net: 203.0.113.0/24, comment: old, until: 2026-01-01T00:00:00Z}, 192.0.2.7]";

#[test]
fn ended_entries_leave_the_file_as_a_revision_of_the_daemon() {
    let site = Site::start(Setup::new().key("access.connect.list", ENDED));
    wait::until("the sweep", || (!text(&site).contains("203.0.113")).then_some(()));
    assert!(text(&site).contains("192.0.2.7"));
    let newest = wait::until("the revision", || {
        let history = site.control().json(&["config", "history", "--limit", "1"]);
        (history[0]["who"] == "mailroot").then(|| history[0].clone())
    });
    assert_eq!(newest["message"], "entries that had ended", "{newest}");
}

#[test]
fn a_locked_configuration_keeps_its_ended_entries() {
    let site = Site::start(Setup::new());
    let _lock = site.ctl(&["config", "lock", "managed elsewhere"]).ok();
    site.stop();
    site.configure(Setup::new().key("access.connect.list", ENDED));
    site.launch_again();
    // What an edit would do, it would have done by the time a session was served.
    site.talk().expect("NOOP", 250);
    let _reload = site.ctl(&["reload"]).ok();
    assert!(text(&site).contains("203.0.113"), "{}", text(&site));
}
