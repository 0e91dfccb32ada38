//! Roles on one virtual server: what somebody sees and may do who is trusted with one of two.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::tagged;
use mailroot_tests::ports;
use mailroot_tests::setup::{ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::stranger::Stranger;
use mailroot_tests::talk::Talk;

/// A site with the servers `default` and `lan`, a message waiting in each; nobody is operator of
/// `lan`.
fn site() -> Option<(Site, Stranger)> {
    if !skip::root() {
        skip::note("roles", "only root can start a program as somebody else");
        return None;
    }
    let nowhere = ports::local();
    let smart_host = format!("\"[{}]:{}\"", nowhere.ip(), nowhere.port());
    let server = ServerFile::new("lan").key("delivery.smart_host", &smart_host);
    let lan = server.address;
    let site = Site::start(Setup::new().smart_host(nowhere).with(server));
    for (address, to) in [(site.address(), "d@far.test"), (lan, "l@far.test")] {
        let mut talk = Talk::to(address);
        talk.expect("EHLO client.test", 250);
        let reply = talk.message("a@client.test", &[to], &tagged("x")).unwrap();
        assert_eq!(reply.code, 250, "{reply}");
    }
    let stranger = Stranger::of(&site).at_the_socket();
    let _denied = stranger.run(&["status"]).exited(4);
    let _added = site.ctl(&["operator", "add", "nobody", "-s", "lan"]).ok();
    Some((site, stranger))
}

/// The recipients in a list.
fn recipients(site: &Site) -> String {
    site.ctl(&["queue", "list", "-o", "json"]).ok()
}

#[test]
fn an_operator_of_one_server_sees_that_server_alone() {
    let Some((site, stranger)) = site() else { return };
    assert!(recipients(&site).contains("d@far.test"));
    for words in [
        &["server", "list"][..],
        &["status"],
        &["queue", "list"],
        &["trace"],
        &["operator", "list"],
    ] {
        let told = stranger.run(&[words, &["-o", "json"]].concat()).ok();
        assert!(told.contains("lan"), "{words:?}: {told}");
        let others = told.contains("\"default\"") || told.contains("d@far.test");
        assert!(!others && !told.contains("\"root\""), "{words:?}: {told}");
    }
    let all = site.control().json(&["queue", "list"]);
    let rows = all.as_array().unwrap();
    let hidden = rows.iter().find(|row| row["server"] == "default").unwrap();
    let id = hidden["id"].as_str().unwrap();
    let _hidden = stranger.run(&["queue", "show", id]).exited(3);
    let _hidden = stranger.run(&["queue", "show", id, "--content"]).exited(3);
    let told = stranger.run(&["trace", "--dialogue", "-o", "json"]).ok();
    assert!(told.contains("l@far.test") && !told.contains("d@far.test"), "{told}");
    let _lowered = site.ctl(&["operator", "add", "nobody", "--role", "viewer", "-s", "lan"]).ok();
    let _told = stranger.run(&["trace"]).ok();
    let _denied = stranger.run(&["trace", "--dialogue"]).exited(4);
    for words in [
        &["queue", "list", "-s", "default"][..],
        &["server", "show", "default"],
        &["domain", "list", "-s", "default"],
        &["session", "list", "-s", "default"],
        &["config", "show"],
        &["config", "history"],
        &["config", "export"],
    ] {
        let denied = stranger.run(words).exited(4);
        assert!(denied.err.contains("nobody") || denied.err.contains("you are no"), "{denied}");
    }
}

#[test]
fn an_operator_of_one_server_acts_on_that_server_alone() {
    let Some((site, stranger)) = site() else { return };
    let _held = stranger.run(&["queue", "hold", "--all", "--yes"]).ok();
    let held = site.control().json(&["queue", "list", "--state", "held"]);
    let held = held.as_array().unwrap();
    assert_eq!((held.len(), &held[0]["server"]), (1, &"lan".into()), "{held:?}");
    let _paused = stranger.run(&["server", "pause", "lan"]).ok();
    let _resumed = stranger.run(&["server", "resume", "lan"]).ok();
    for words in [
        &["server", "pause", "default"][..],
        &["server", "stop", "lan", "--persist"],
        &["server", "set", "lan", "messages.max_size=5MiB"],
        &["queue", "redirect", "--all", "--yes", "--to-server", "default"],
        &["reload"],
    ] {
        let _denied = stranger.run(words).exited(4);
    }

    // As admin of the server it changes the server's keys, and no other's.
    let _raised = site.ctl(&["operator", "add", "nobody", "--role", "admin", "-s", "lan"]).ok();
    let _set = stranger.run(&["server", "set", "lan", "messages.max_size=5MiB"]).ok();
    assert_eq!(site.ctl(&["config", "get", "messages.max_size", "-s", "lan"]).ok().trim(), "5MiB");
    for words in [
        &["server", "set", "default", "messages.max_size=5MiB"][..],
        &["server", "delete", "lan", "--yes"],
        &["server", "rename", "lan", "mine"],
        &["config", "set", "control.operators+=nobody"],
        &["operator", "add", "nobody"],
    ] {
        let _denied = stranger.run(words).exited(4);
    }
    let log = site.logged(&["actor=nobody", "verb=pause"]);
    assert!(log.contains("server=lan"), "{log}");

    let _removed = site.ctl(&["operator", "remove", "nobody", "-s", "lan"]).ok();
    let _denied = stranger.run(&["session", "list"]).exited(4);
    let own = stranger.run(&["queue", "list", "-o", "name"]).ok();
    assert_eq!(own, "", "he handed nothing in himself");
    let _none = site.ctl(&["operator", "remove", "nobody", "-s", "lan"]).exited(3);
    let _content = site.ctl(&["operator", "remove", "nobody", "-s", "lan", "--if-exists"]).ok();
}

#[test]
fn operators_of_the_service_are_added_and_removed() {
    let Some((site, stranger)) = site() else { return };
    let _added = site.ctl(&["operator", "add", "%helpdesk", "nobody", "--role", "viewer"]).ok();
    let listed = site.control().json(&["operator", "list"]);
    let find = |who: &str, server: Option<&str>| {
        let entries = listed.as_array().unwrap().iter();
        let mut found = entries.filter(|it| it["who"] == who && it["server"].as_str() == server);
        found.next().map(|it| it["role"].as_str().unwrap().to_owned())
    };
    assert_eq!(find("%helpdesk", None).as_deref(), Some("viewer"), "{listed}");
    assert_eq!(find("nobody", Some("lan")).as_deref(), Some("operator"), "{listed}");
    assert_eq!(find("root", None).as_deref(), Some("admin"), "the defaults stay: {listed}");

    // It sees everything as viewer, and acts where the server's own list allows it.
    let told = stranger.run(&["queue", "list"]).ok();
    assert!(told.contains("d@far.test") && told.contains("l@far.test"), "{told}");
    let _held = stranger.run(&["queue", "hold", "--all", "--yes"]).ok();
    let held = site.control().json(&["queue", "list", "--state", "held"]);
    assert_eq!(held.as_array().unwrap().len(), 1, "{held}");
    let _removed = site.ctl(&["operator", "remove", "nobody"]).ok();
    let told = stranger.run(&["queue", "list"]).ok();
    assert!(!told.contains("d@far.test"), "{told}");
}
