//! `smtpctl doctor`: what it says of the disk that mail lies on, and that it leaves mail alone.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use mailroot_tests::dns::Dns;
use mailroot_tests::faketime::Faketime;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer};
use mailroot_tests::program::Finished;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::stranger::Stranger;
use mailroot_tests::volume::{Kind, Volume};
use mailroot_tests::{ports, skip};
use serde_json::Value;

fn checks(finished: &Finished) -> Vec<Value> {
    serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {checks:?}"))
}

/// The worst level must be the one that the exit code tells.
fn must_agree(finished: &Finished, checks: &[Value]) {
    let is_well = checks.iter().all(|check| check["level"] == "ok");
    assert_eq!(finished.code, if is_well { 0 } else { 10 }, "{finished}");
}

fn must_be_clean(queue: &Path) {
    let names = fs::read_dir(queue).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with("probe")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn it_tells_how_fast_the_disk_syncs_and_leaves_nothing_behind() {
    let site = Site::start(Setup::new());
    let finished = site.ctl(&["doctor", "storage", "-o", "json"]);
    let all = checks(&finished);
    must_agree(&finished, &all);
    for name in ["overwrite", "append", "create"] {
        let figures = &check(&all, name)["figures"];
        let figure = |name: &str| figures[name].as_f64().unwrap();
        assert!(figure("count") >= 3.0, "{figures}");
        assert!(figure("median_seconds") > 0.0, "{figures}");
        assert!(figure("p99_seconds") >= figure("median_seconds"), "{figures}");
    }
    let rate = &check(&all, "rate")["figures"];
    let twenty = rate["twenty_sessions_per_second"].as_f64().unwrap();
    assert!(twenty >= rate["one_session_per_second"].as_f64().unwrap(), "{rate}");
    assert_eq!(check(&all, "file_system")["server"], "default");
    must_be_clean(&site.spool("default", "Queue"));
    site.logged(&["event=storage-measured", "server=default", "role=admin"]);
}

#[test]
fn it_has_every_form_and_without_a_topic_it_looks_at_all() {
    let site = Site::start(Setup::new());
    let run = |form: &str| {
        let finished = site.ctl(&["doctor", "-o", form]);
        assert!([0, 10].contains(&finished.code), "{finished}");
        finished.out
    };
    let lines = run("table");
    let is_check =
        |line: &&str| ["ok    ", "warn  ", "fail  "].iter().any(|it| line.starts_with(it));
    assert!(lines.lines().filter(is_check).count() >= 5, "{lines}");
    assert!(lines.contains("messages per second"), "{lines}");
    let topics = |text: &str| -> Vec<String> {
        let topic = |line: &str| {
            let check: Value = serde_json::from_str(line).unwrap();
            check["topic"].as_str().unwrap().to_owned()
        };
        text.lines().map(topic).collect()
    };
    let told = topics(&run("jsonl"));
    for topic in
        ["service", "time", "config", "ports", "dns", "relay", "senders", "queue", "storage"]
    {
        assert!(told.iter().any(|it| it == topic), "{topic}: {told:?}");
    }
    assert!(run("yaml").contains("topic: storage"));
    let plain = run("plain");
    assert!(plain.lines().any(|line| line.split('\t').nth(1) == Some("storage")), "{plain}");
    assert!(run("csv").starts_with("level,topic,name,server,text,hint,figures\r\n"));
    assert!(run("name").lines().any(|line| line == "storage.rate"));
    let _unknown = site.ctl(&["doctor", "-s", "nobody"]).exited(3);
    let _no_topic = site.ctl(&["doctor", "astrology"]).exited(2);
}

#[test]
fn mail_in_memory_is_warned_of() {
    if !Volume::possible("doctor on tmpfs", Kind::Tmpfs, &["mount", "umount"]) {
        return;
    }
    let site = Site::prepare(Setup::new());
    let _volume = Volume::roomy(Kind::Tmpfs, &site.home().join("spool"));
    site.launch();
    let finished = site.ctl(&["doctor", "storage", "-s", "default", "-o", "json"]).exited(10);
    let all = checks(&finished);
    let found = check(&all, "file_system");
    assert_eq!(found["level"], "warn");
    assert!(found["text"].as_str().unwrap().starts_with("tmpfs"), "{found}");
    assert!(found["hint"].as_str().unwrap().contains("loss of power"), "{found}");
    assert!(check(&all, "overwrite")["figures"]["count"].is_number());
    must_be_clean(&site.spool("default", "Queue"));
    site.stop();
}

#[test]
fn a_viewer_may_not_measure() {
    if !skip::root() {
        return skip::note("a viewer", "only root can start a program as somebody else");
    }
    let site = Site::prepare(Setup::new());
    let file = site.home().join("etc/mailroot.yaml");
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("control:\n  operators:\n    - {who: nobody, role: viewer}\n");
    fs::write(&file, text).unwrap();
    site.launch();
    let stranger = Stranger::of(&site).at_the_socket();
    let _viewer = stranger.run(&["server", "list"]).ok();
    let denied = stranger.run(&["doctor", "storage"]).exited(4);
    assert!(denied.err.contains("operator"), "{denied}");
    assert!(!site.log().contains("event=storage-measured"), "{}", site.log());
}

#[test]
fn mail_flows_while_it_measures_and_one_measures_at_a_time() {
    let peer = Peer::start(ports::local(), |_: &Event| Answer::Accept);
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let (sent, outcomes) = std::thread::scope(|scope| {
        let doctors: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| site.ctl(&["doctor", "storage", "-o", "json"])))
            .collect();
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        let mut sent = 0;
        // As long as anybody measures, and a few more.
        while sent < 20 || doctors.iter().any(|doctor| !doctor.is_finished()) {
            let to = format!("r{sent}@far.test");
            let reply = talk.message("a@client.test", &[&to], &tagged("x")).unwrap();
            assert_eq!(reply.code, 250);
            sent += 1;
        }
        let outcomes: Vec<_> = doctors.into_iter().map(|doctor| doctor.join().unwrap()).collect();
        (sent, outcomes)
    });
    for finished in outcomes {
        if finished.code == 7 {
            assert!(finished.err.contains("doctor.busy"), "{finished}");
            continue;
        }
        let all = checks(&finished);
        must_agree(&finished, &all);
        assert!(check(&all, "overwrite")["figures"]["count"].is_number());
    }
    let messages = peer.await_received(sent);
    let mut received: Vec<_> = messages.iter().flat_map(|message| message.recipients()).collect();
    received.sort_unstable();
    received.dedup();
    assert_eq!(received.len(), sent);
    site.await_empty_queue();
    must_be_clean(&site.spool("default", "Queue"));
}

/// What `doctor` found, of every topic asked for.
fn found(site: &Site, topics: &[&str]) -> (Finished, Vec<Value>) {
    let finished = site.ctl(&[&["doctor", "-o", "json"], topics].concat());
    let all = checks(&finished);
    must_agree(&finished, &all);
    (finished, all)
}

fn of_topic<'a>(all: &'a [Value], topic: &str) -> &'a Value {
    let found = all.iter().find(|check| check["topic"] == topic);
    found.unwrap_or_else(|| panic!("nothing of {topic} in {all:?}"))
}

#[test]
fn a_smart_host_that_greets_is_well_and_one_that_does_not_is_named() {
    let sink = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(sink.address()));
    let (_, all) = found(&site, &["smarthost", "ports"]);
    assert_eq!(of_topic(&all, "smarthost")["level"], "ok", "{all:?}");
    assert_eq!(of_topic(&all, "ports")["level"], "ok", "{all:?}");
    assert!(all.iter().all(|check| check["topic"] != "queue"), "only what was asked: {all:?}");

    let nobody = ports::local();
    for (host, said) in [
        (nobody.to_string(), "refused"),
        ("no-such-host.invalid:587".to_owned(), "no-such-host.invalid"),
    ] {
        let key = format!("delivery.smart_host={host}");
        let _set = site.ctl(&["server", "set", "default", &key]).ok();
        let (_, all) = found(&site, &["smarthost"]);
        let check = of_topic(&all, "smarthost");
        assert_ne!(check["level"], "ok", "{check}");
        assert!(check["text"].as_str().unwrap().to_lowercase().contains(said), "{check}");
        assert!(check["hint"].is_string(), "{check}");
    }
}

#[test]
fn what_keeps_mail_from_coming_in_or_going_out_is_named_with_its_cure() {
    let later = |event: &Event| match event.stage {
        mailroot_tests::peer::Stage::Rcpt => Answer::say("451 4.7.1 greylisted"),
        _ => Answer::Accept,
    };
    let peer = Peer::start(ports::local(), later);
    let site =
        Site::start(Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@client.test", &["b@far.test"], &tagged("x")).unwrap();
    assert_eq!(sent.code, 250);
    mailroot_tests::wait::until("the first attempt", || {
        let rows = site.control().json(&["queue", "list", "--state", "retry"]);
        (rows.as_array().map(Vec::len) == Some(1)).then_some(())
    });
    let (_, all) = found(&site, &["queue"]);
    assert!(of_topic(&all, "queue")["text"].as_str().unwrap().contains("greylisted"), "{all:?}");

    let _paused = site.ctl(&["server", "pause", "default", "--reason", "firmware"]).ok();
    let (_, all) = found(&site, &["ports"]);
    let ports = of_topic(&all, "ports");
    assert!(ports["text"].as_str().unwrap().contains("paused: firmware"), "{ports}");
    assert_eq!(ports["hint"], "smtpctl server resume default");
    let _resumed = site.ctl(&["server", "resume", "default"]).ok();

    let path = site.home().join("etc/servers.d/default.yaml");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{good}messages: {{max_recipient: 5}}\n")).unwrap();
    let (_, all) = found(&site, &["config"]);
    let config = of_topic(&all, "config");
    assert_eq!(config["level"], "fail");
    assert_eq!(config["hint"], "did you mean \"max_recipients\"?");
    fs::write(&path, good).unwrap();

    site.stop();
    let down = site.ctl(&["doctor"]).exited(10);
    assert!(down.out.contains("not running"), "{down}");
}

#[test]
fn a_name_server_that_says_nothing_does_not_keep_the_answer_back() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let resolvers = format!("[\"{}\"]", silent.local_addr().unwrap());
    let domains: Vec<String> =
        (0..6).map(|number| format!("{{name: d{number}.test, type: {}}}", kind(number))).collect();
    let domains: Vec<&str> = domains.iter().map(String::as_str).collect();
    let setup = Setup::new().only_domains(&domains).service("dns.resolvers", &resolvers);
    let site = Site::start(setup);
    let (finished, all) = found(&site, &["spf"]);
    assert!(finished.code != 1 && !all.is_empty(), "{finished}");
    assert!(finished.out.contains("DNS did not tell in time"), "{finished}");
}

fn kind(number: usize) -> &'static str {
    if number == 0 { "default" } else { "alias" }
}

#[test]
fn senders_whom_nobody_can_answer_are_named() {
    let Some(dns) =
        Dns::serve(&["known.test. 60 IN MX 10 mx.known.test.", "null.test. 60 IN MX 0 ."])
    else {
        return skip::note("senders without a domain", "unbound is not installed");
    };
    let site = Site::start(Setup::new().dns(dns.address(), ports::free()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let to = format!("x@{LOCAL_DOMAIN}");
    let local = format!("app@{LOCAL_DOMAIN}");
    for from in ["a@known.test", "a@mistyped.test", "b@mistyped.test", "a@null.test", &local] {
        assert_eq!(talk.message(from, &[&to], &tagged("x")).unwrap().code, 250);
    }
    let (finished, all) = found(&site, &["senders"]);
    let texts: Vec<&str> = all.iter().map(|check| check["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("2 messages") && texts[0].contains("mistyped.test"), "{texts:?}");
    assert!(texts[1].contains("null MX"), "{texts:?}");
    assert!(finished.out.contains("smtpctl trace --from '*@mistyped.test'"), "{finished}");
    let _set =
        site.ctl(&["server", "set", "default", "messages.default_sender=a@nowhere.test"]).ok();
    let (_, all) = found(&site, &["senders"]);
    assert_eq!(check(&all, "default_sender")["level"], "warn", "{all:?}");
}

#[test]
fn a_clock_that_was_set_back_shows_in_the_trace() {
    let site = Site::prepare(Setup::new());
    let Some(clock) = Faketime::of(&site) else {
        return skip::note("a clock that was set back", "libfaketime is not installed");
    };
    clock.set("+2h");
    site.launch();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let to = format!("x@{LOCAL_DOMAIN}");
    assert_eq!(talk.message("a@client.test", &[&to], &tagged("x")).unwrap().code, 250);
    site.await_empty_queue();
    clock.set("+0");
    let (_, all) = found(&site, &["time"]);
    assert!(check(&all, "kept")["text"].is_string(), "{all:?}");
    let back = check(&all, "back");
    assert_eq!(back["level"], "warn");
    assert!(back["text"].as_str().unwrap().contains("in the future"), "{back}");
}

#[test]
fn a_report_can_be_shown_to_strangers() {
    let site = Site::start(
        Setup::new()
            .smart_host(ports::local())
            .key("delivery.fqdn", "hidden-name.example.net")
            .key("messages.default_sender", "someone@secret-host.example.org"),
    );
    let plain = site.ctl(&["doctor", "-o", "plain"]);
    assert!(plain.out.contains("hidden-name.example.net"), "{plain}");
    let shown = site.ctl(&["doctor", "--redact", "-o", "plain"]);
    assert_eq!(shown.code, plain.code, "{shown}");
    for word in ["hidden-name", "secret-host", "someone"] {
        assert!(!shown.out.contains(word), "{word}: {shown}");
    }
    assert!(shown.out.contains("host1.example"), "{shown}");
    assert_eq!(shown.out.lines().count(), plain.out.lines().count(), "{shown}");
}

#[test]
fn what_is_safe_is_put_right_and_the_rest_is_listed() {
    let site = Site::start(Setup::new());
    let taken = std::net::TcpListener::bind(ports::local()).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = site.home().join("etc/servers.d/lan.yaml");
    let text = format!(
        "version: 1\ngeneral: {{listen: [\"{address}\"]}}\n\
         domains: [{{name: lan.test, type: default}}]\n"
    );
    fs::write(&file, text).unwrap();
    let _partly = site.ctl(&["reload"]).exited(8);
    let state = || site.control().json(&["server", "show", "lan"])["state"].clone();
    assert_eq!(state(), "stopped");
    drop(taken);
    let planned = site.ctl(&["doctor", "service", "--fix", "--dry-run"]);
    assert!(planned.err.contains("would start the virtual server lan"), "{planned}");
    assert_eq!(state(), "stopped");
    let fixed = site.ctl(&["doctor", "service", "--fix"]).exited(0);
    assert!(fixed.err.contains("done: start the virtual server lan"), "{fixed}");
    assert_eq!(state(), "running");
    let offline = site.ctl(&["doctor", "--offline", "-o", "json"]);
    assert!(!offline.out.contains("\"dns\""), "nobody outside is asked: {offline}");
}
