//! Flags of the control tool, each by what becomes of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::wait;

fn send(site: &Site, to: &str) -> String {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message(&format!("ops@{LOCAL_DOMAIN}"), &[to], &tagged("tool")).unwrap();
    assert_eq!(sent.code, 250, "{sent:?}");
    sent.to_string().split_whitespace().find(|word| word.len() == 12).unwrap().to_owned()
}

/// Waits until so many messages are to be tried again.
fn await_retries(site: &Site, count: usize) {
    wait::until(&format!("{count} deferred messages"), || {
        let list = site.control().json(&["queue", "list", "--state", "retry"]);
        (list.as_array().unwrap().len() == count).then_some(())
    });
}

#[test]
fn clients_that_have_logged_in_may_relay_or_may_not() {
    let setup = Setup::new()
        .key("access.relay.list", "[]")
        .key("access.basic.enabled", "true")
        .key("access.basic.require_tls", "false")
        .key("delivery.smart_host", &Peer::accepting(ports::local()).address().to_string());
    let site = Site::start(setup);
    let add = ["user", "add", "app", "--password-stdin"];
    let _added = site.control().input("correct horse").run(&add).ok();
    let reply = || {
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        // The name app and its password, as AUTH PLAIN has them.
        talk.expect("AUTH PLAIN AGFwcABjb3JyZWN0IGhvcnNl", 235);
        talk.expect("MAIL FROM:<app@client.test>", 250);
        talk.say("RCPT TO:<x@far.test>").code
    };
    assert_eq!(reply(), 250);
    let _set = site.ctl(&["relay", "policy", "--no-authenticated"]).ok();
    assert_eq!(reply(), 550);
    let _set = site.ctl(&["relay", "policy", "--authenticated"]).ok();
    assert_eq!(reply(), 250);
    let _both = site.ctl(&["relay", "policy", "--authenticated", "--no-authenticated"]).exited(2);
    let _other = site.ctl(&["access", "policy", "--authenticated"]).exited(2);
}

#[test]
fn the_name_that_a_provider_goes_by_is_said_to_it() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new());
    let set = ["smarthost", "set", &peer.address().to_string(), "--name", "isp", "--tls", "off"];
    let _set = site.ctl(&[&set[..], &["--fqdn", "relay7.example.test"]].concat()).ok();
    send(&site, "x@far.test");
    let received = peer.await_received(1);
    assert!(received[0].hello.ends_with(" relay7.example.test"), "{}", received[0].hello);
    let greeting = mailroot_tests::talk::Talk::connect(site.address()).unwrap().reply().unwrap();
    assert!(greeting.to_string().contains("relay7.example.test"), "{greeting}");
    let _both = site.ctl(&[&set[..], &["--fqdn", "x.test", "--no-use"]].concat()).exited(2);
}

#[test]
fn what_waits_is_handed_over_by_a_drain() {
    let reluctant = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.3.0 later"),
        _ => Answer::Accept,
    });
    let other = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(reluctant.address()));
    send(&site, "x@far.test");
    await_retries(&site, 1);
    let to = format!("[{}]:{}", other.address().ip(), other.address().port());
    let _drained = site.ctl(&["service", "drain", "--to", &to, "--wait=60s"]).ok();
    assert_eq!(other.await_received(1)[0].recipients(), ["x@far.test"]);
    let status = site.control().json(&["status"]);
    assert_eq!(status["servers"][0]["state"], "paused");
    assert_eq!(status["servers"][0]["queue"]["messages"], 0);
    let _bad = site.ctl(&["service", "drain", "--to", "no host"]).exited(2);
}

#[test]
fn monitoring_systems_read_one_line_and_an_exit_code() {
    let site = Site::start(Setup::new());
    let told = site.ctl(&["doctor", "service", "-o", "nagios"]);
    assert_eq!(told.out.lines().count(), 1, "{told}");
    let (words, data) = told.out.trim_end().split_once(" | ").unwrap();
    let expected = match told.code {
        0 => "MAILROOT OK - ",
        1 => "MAILROOT WARNING - ",
        2 => "MAILROOT CRITICAL - ",
        _ => panic!("{told}"),
    };
    assert!(words.starts_with(expected), "{told}");
    assert!(data.starts_with("warnings=") && data.contains(" failures="), "{told}");
    site.stop();
    let down = site.ctl(&["doctor", "service", "-o", "nagios"]);
    assert!(down.code == 2 && down.out.starts_with("MAILROOT CRITICAL - "), "{down}");
    let _elsewhere = site.ctl(&["status", "-o", "nagios"]).exited(2);
}

#[test]
fn a_password_is_hashed_as_it_is_kept() {
    let site = Site::prepare(Setup::new());
    let hash = |words: &[&str]| site.control().input("correct horse\n").run(words).ok();
    let form = hash(&["user", "hash"]);
    let (argon2id, scram) = form.trim_end().split_once(' ').unwrap();
    assert!(argon2id.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{form}");
    assert!(scram.starts_with("SCRAM-SHA-256$20000:"), "{form}");
    assert_ne!(hash(&["user", "hash", "--password-stdin"]), form, "each has its own salt");
    assert!(hash(&["encrypt"]).starts_with("$argon2id$"));
    let json: serde_json::Value =
        serde_json::from_str(&hash(&["user", "hash", "-o", "json"])).unwrap();
    assert!(json["hash"].as_str().unwrap().starts_with("$argon2id$"));
    let _empty = site.ctl(&["user", "hash"]).exited(2);
    let _tab = site.control().input("a\tb\n").run(&["user", "hash"]).exited(2);
    let shown = site.ctl(&["encrypt", "secret"]).exited(2);
    assert!(!shown.out.contains("argon2id"), "{shown}");
}

#[test]
fn a_flush_may_mean_one_destination_or_what_the_network_failed() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.3.0 later"),
        _ => Answer::Accept,
    });
    let nowhere = ports::local();
    let remote = |name: &str, at: std::net::SocketAddr| {
        format!("{{name: {name}, type: remote, route: \"[{}]:{}\"}}", at.ip(), at.port())
    };
    let setup = Setup::new()
        .domain(&remote("far.test", peer.address()))
        .domain(&remote("gone.test", nowhere))
        .key("delivery.outbound.retry", "[1h]");
    let site = Site::start(setup);
    let (far, gone) = (send(&site, "x@far.test"), send(&site, "x@gone.test"));
    await_retries(&site, 2);
    let host = format!("[{}]:{}", peer.address().ip(), peer.address().port());
    let chosen = |words: &[&str]| {
        let line = [&["queue", "flush", "--dry-run", "-o", "name"], words].concat();
        let out = site.ctl(&line).ok();
        out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&["--destination", &host]), [&*far]);
    assert_eq!(chosen(&["--only-network-errors"]), [&*gone]);
    assert_eq!(chosen(&[]).len(), 2);
    let none = ["queue", "flush", "--destination", &host, "--only-network-errors"];
    let _none = site.ctl(&none).exited(3);
    let attempts = |id: &str| site.control().json(&["queue", "show", id])["attempts"].clone();
    let flushed = site.ctl(&["queue", "flush", "--destination", &host, "--wait=60s"]).exited(1);
    assert!(flushed.out.contains("1 message: 0 left the queue, 1 deferred again"), "{flushed}");
    assert_eq!((attempts(&far), attempts(&gone)), (2.into(), 1.into()));
    let _flushed = site.ctl(&["queue", "flush", "--only-network-errors", "--wait=60s"]).exited(1);
    assert_eq!((attempts(&far), attempts(&gone)), (2.into(), 2.into()));
    let listed = site.ctl(&["queue", "list", "--destination", "[127.*", "-o", "name"]).ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert_eq!(site.ctl(&["queue", "list", "--destination", "drop"]).ok(), "");
}

#[test]
fn a_list_of_servers_tells_how_clients_may_send() {
    let lan =
        ServerFile::new("lan").key("access.anonymous", "false").key("access.basic.enabled", "true");
    let site = Site::start(Setup::new().with(lan));
    let shown = site.ctl(&["server", "list"]).ok();
    assert!(shown.lines().next().unwrap().contains("SMART HOST  AUTH"), "{shown}");
    let list = site.control().json(&["server", "list"]);
    assert_eq!(list[0]["auth"], serde_json::json!(["anonymous"]));
    assert_eq!(list[1]["auth"], serde_json::json!(["basic"]));
}
