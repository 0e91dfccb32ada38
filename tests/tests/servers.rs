//! Virtual servers made from templates or taken from an archive, and how the sessions of one end that
//! is stopped or paused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{program, skip, wait};

#[test]
fn a_template_gives_keys_with_reasons_and_lets_no_stranger_relay() {
    let site = Site::start(Setup::new());
    for name in ["relay", "printers", "internal", "internet", "users"] {
        let words = ["server", "create", name, "--from-template", name, "--listen", "127.0.0.1:0"];
        let created = site.ctl(&[&words[..], &["--domain", "new.example"]].concat());
        let text = fs::read_to_string(site.home().join(format!("etc/servers.d/{name}.yaml")));
        let text = text.unwrap();
        assert_eq!(created.code, 0, "{created}");
        assert!(text.contains(&format!("# Made from the template \"{name}\".")), "{text}");
        assert!(text.contains("    # ") || text.contains("\n  # "), "keys say why: {text}");
        let (empty, logins) = (text.contains("\n    list: []\n"), text.contains("basic:"));
        assert_eq!(created.err.contains("nobody may relay"), empty && !logins, "{created}");
        assert_eq!(created.err.contains("smtpctl user add"), logins, "{created}");
        let test = ["relay", "test", "--client", "192.0.2.1", "-s", name];
        let _refused = site.ctl(&test).exited(10);
    }
    let shown = site.ctl(&["config", "get", "messages.max_size", "-s", "printers"]).ok();
    assert_eq!(shown.trim(), "50MiB");
    let unknown = site.ctl(&["server", "create", "x", "--from-template", "open"]).exited(2);
    assert!(unknown.err.contains("printers"), "{unknown}");
    assert!(!site.home().join("etc/servers.d/x.yaml").exists());
}

fn greeting(site: &Site) -> Option<u16> {
    Talk::connect(site.address()).ok()?.reply().ok().map(|reply| reply.code)
}

#[test]
fn a_server_that_drains_lets_sessions_end_by_themselves() {
    let site = Site::start(Setup::new());
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| site.ctl(&["server", "stop", "default", "--drain=60s"]));
        wait::until("no new sessions", || (greeting(&site) == Some(421)).then_some(()));
        let to = format!("u@{LOCAL_DOMAIN}");
        assert_eq!(talk.message("a@client.test", &[&to], &tagged("x")).unwrap().code, 250);
        assert!(!stop.is_finished(), "it waits for the session");
        talk.expect("QUIT", 221);
        let _stopped = stop.join().unwrap().ok();
    });
    assert_eq!(site.control().json(&["server", "list"])[0]["state"], "stopped");
}

#[test]
fn sessions_are_ended_at_once_where_that_is_asked_for() {
    let site = Site::start(Setup::new());
    for verb in ["pause", "stop"] {
        let _started = site.ctl(&["server", "start", "default"]).ok();
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        talk.expect("MAIL FROM:<a@client.test>", 250);
        let reason = ["--kill-sessions", "--reason", "moving house"];
        let _done = site.ctl(&[&["server", verb, "default"][..], &reason].concat()).ok();
        assert_eq!(talk.reply().unwrap().code, 421, "{verb}");
        let shown = site.ctl(&["server", "show", "default"]).ok();
        assert!(shown.contains("moving house"), "{shown}");
    }
    let both = ["server", "stop", "default", "--drain", "--kill-sessions"];
    let _contradiction = site.ctl(&both).exited(2);
    let _too_long = site.ctl(&["server", "stop", "default", "--drain=1h"]).exited(2);
}

#[test]
fn the_configuration_goes_into_an_archive_and_comes_back() {
    let site = Site::start(Setup::new());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.tar");
    let file = file.to_str().unwrap();
    let _exported = site.ctl(&["config", "export", "--tar", file]).ok();
    let _not_over_another = site.ctl(&["config", "export", "--tar", file]).exited(1);
    let before = fs::read_to_string(site.home().join("etc/servers.d/default.yaml")).unwrap();
    let _set = site.ctl(&["server", "set", "default", "messages.max_size=7MiB"]).ok();
    let _applied = site.ctl(&["config", "apply", "-f", file]).ok();
    let after = fs::read_to_string(site.home().join("etc/servers.d/default.yaml")).unwrap();
    assert_eq!(after, before);

    // An archive that another program made of the directory is as good.
    let Some(tar) = program::find("tar") else { return skip::note("tar", "tar is not installed") };
    let other = folder.path().join("other.tar");
    let mut packed = Command::new(tar);
    packed.arg("-cf").arg(&other).arg("-C").arg(site.home().join("etc"));
    let _packed = program::run(packed.args(["mailroot.yaml", "servers.d"]), b"").ok();
    let same = site.control().json(&["config", "apply", "-f", other.to_str().unwrap()]);
    assert_eq!(same["changed"], false, "{same}");
}

#[test]
fn a_port_of_one_address_becomes_one_of_every_address_and_back() {
    let site = Site::start(Setup::new());
    let port = site.address().port();
    let listen = |address: &str| {
        let key = format!("general.listen={address}:{port}");
        site.ctl(&["server", "set", "default", &key])
    };
    let _every = listen("0.0.0.0").ok();
    assert_eq!(greeting(&site), Some(220));
    let _one = listen("127.0.0.1").ok();
    assert_eq!(greeting(&site), Some(220));

    // Where another program has the port of one of them, it is told, and what was listened on still is.
    let other = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
    let refused = listen("0.0.0.0");
    assert_eq!(refused.code, 8, "{refused}");
    assert!(refused.err.contains("another program"), "{refused}");
    assert_eq!(greeting(&site), Some(220));
    drop(other);
}
