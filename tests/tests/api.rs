//! The control interface as other people's tools see it: every operation of its description done with curl,
//! and the description held against the daemon by schemathesis.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mailroot_common::units::Timestamp;
use mailroot_tests::certificates::Authority;
use mailroot_tests::gateway::Gateway;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::provider::{self, Provider};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};
use serde_json::{Value, json};

/// A site with mail that waits, mail in Badmail, domains of every kind and two virtual servers.
fn seeded() -> (Site, Peer) {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 greylisted"),
        _ => Answer::Accept,
    });
    let site = Site::prepare(
        Setup::new()
            .service("tls.reports.enabled", "true")
            .service("tls.reports.contact", "tls@local.test")
            .service("tls.acme.listen", &format!("\"{}\"", ports::local()))
            .smart_host(peer.address())
            .key("delivery.outbound.retry", "[1h]")
            .key("store.pickup.poll", "100ms")
            .key("store.pickup.settle", "0ms"),
    );
    let (host, then) = ("mx.remembered.test", "2026-01-01T00:00:00Z");
    let seen = json!({"host": host, "first": then, "last": then, "trust": "system"});
    fs::create_dir_all(site.home().join("state")).unwrap();
    fs::write(site.home().join("state/tls-hosts"), format!("{seen}\n")).unwrap();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = Timestamp::from_millis(u64::try_from(since_1970.as_millis()).unwrap());
    let counted = json!({"begins": now.to_string(), "domain": "told.test", "counted": {"tallies": [
        {"policy": {"kind": "no-policy-found"}, "successes": 3, "failures": 0}
    ]}});
    let reports = site.home().join("state/tls-reports");
    fs::create_dir(&reports).unwrap();
    fs::write(reports.join("current"), format!("{counted}\n")).unwrap();
    site.launch();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for number in 0..20 {
        let to = format!("r{number}@far{}.test", number % 3);
        let sent = talk.message("a@client.test", &[&to], &tagged(&format!("m{number}"))).unwrap();
        assert_eq!(sent.code, 250);
    }
    let local = format!("x@{LOCAL_DOMAIN}");
    assert_eq!(talk.message("a@client.test", &[&local], &tagged("local")).unwrap().code, 250);
    site.await_dropped(1);
    for name in ["one", "two", "three"] {
        let staged = site.home().join(name);
        fs::write(&staged, "Subject: nobody\r\n\r\nhello\r\n").unwrap();
        let pickup = site.spool("default", "Pickup").join(format!("{name}.eml"));
        fs::rename(&staged, pickup).unwrap();
    }
    for line in [
        &["smarthost", "set", "[127.0.0.1]:9", "--name", "isp", "--tls", "off", "--no-use"][..],
        &["domain", "add", "alias", "second.test"],
        &["domain", "add", "remote", "partner.test", "--relay"],
        &["server", "create", "spare", "--disabled", "--domain", "spare.test"],
        &["config", "set", "service.min_free=2MiB"],
    ] {
        let _done = site.ctl(line).ok();
    }
    wait::until("mail in retry and in Badmail", || {
        let count = |line: &[&str]| site.control().json(line).as_array().map(Vec::len);
        let waits = count(&["queue", "list", "--state", "retry"]) == Some(20);
        (waits && count(&["badmail", "list"]) == Some(3)).then_some(())
    });
    (site, peer)
}

/// The ids that a list names.
fn ids(site: &Site, noun: &str) -> Vec<String> {
    site.ctl(&[noun, "list", "-o", "name"]).ok().lines().map(str::to_owned).collect()
}

/// One request with curl; the status and the body.
fn curl(site: &Site, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["-s", "-X", method, "-w", "\n%{http_code}", "--max-time", "60"]);
    command.arg("--unix-socket").arg(site.home().join("run/control.sock"));
    if let Some(body) = body {
        command.args(["-H", "Content-Type: application/json", "-d", body]);
    }
    command.arg(format!("http://localhost{path}"));
    let out = program::run(&mut command, b"").ok();
    let (body, status) = out.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// A request of the list: method, path as it is described, path asked for, body.
type Request = (String, String, String, Option<String>);

fn requests(site: &Site) -> Vec<Request> {
    let text =
        fs::read_to_string(program::repository().join("tests/requests/control.txt")).unwrap();
    let (queue, badmail) = (ids(site, "queue"), ids(site, "badmail"));
    let files = site.control().json(&["config", "export"]).to_string();
    let mail = "X-Sender: a@client.test\r\nX-Receiver: b@far0.test\r\nSubject: x\r\n\r\nhello\r\n";
    let names = [
        ("QUEUE", &*queue[0]),
        ("OTHER", &queue[1]),
        ("BADMAIL", &badmail[0]),
        ("SPENT", &badmail[1]),
        ("DROPPED", &ids(site, "drop")[0]),
        ("MAIL", mail),
        ("FILES", &files),
    ];
    let fill = |text: &str| {
        let fill = |text: String, (name, value): &(&str, &str)| text.replace(name, value);
        names.iter().fold(text.to_owned(), fill)
    };
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.splitn(4, ' ');
            let mut word = || words.next().map(str::to_owned);
            let (method, pattern, path) = (word().unwrap(), word().unwrap(), word().unwrap());
            (method, pattern, fill(&path), word().map(|body| fill(&body)))
        })
        .collect()
}

fn rule(site: &Site) -> String {
    let (_, orders) = curl(site, "GET", "/v1/queue/orders", None);
    let orders: Value = serde_json::from_str(&orders).unwrap();
    orders["holds"][0]["id"].as_str().unwrap().to_owned()
}

/// A smart host that logs in by tokens, and who gives them.
fn cloud(site: &Site) -> Option<Provider> {
    let provider = Provider::start(ports::local(), &Authority::new(), "a@client.test")?;
    let at = |what: &str| format!("http://{}/tenant.test/{what}", provider.plain());
    let mut line = vec!["config".to_owned(), "set".to_owned()];
    for (key, value) in [
        ("host", "[127.0.0.1]"),
        ("tls", "off"),
        ("auth.method", "xoauth2"),
        ("auth.require_tls", "false"),
        ("auth.mailbox", "a@client.test"),
        ("auth.oauth.grant", "refresh-token"),
        ("auth.oauth.client_id", "app-1"),
        ("auth.oauth.token_endpoint", &at("token")),
        ("auth.oauth.device_endpoint", &at("devicecode")),
    ] {
        line.push(format!("smart_hosts.cloud.{key}={value}"));
    }
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let _done = site.ctl(&line).ok();
    Some(provider)
}

#[test]
fn every_operation_of_the_description_is_done_with_curl() {
    let (site, _peer) = seeded();
    let Some(_provider) = cloud(&site) else {
        return skip::note("every operation with curl", provider::ABSENT);
    };
    let (_, document) = curl(&site, "GET", "/v1/openapi.json", None);
    let document: Value = serde_json::from_str(&document).unwrap();
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    let mut done = BTreeSet::new();
    for (method, pattern, path, body) in requests(&site) {
        // The id of a rule is known when it was made.
        let body = body.map(|body| match body.contains("RULE") {
            true => body.replace("RULE", &rule(&site)),
            false => body,
        });
        let (status, answer) = curl(&site, &method, &path, body.as_deref());
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        done.insert((method, pattern));
    }
    assert_eq!(done, described);
}

#[test]
fn schemathesis_finds_no_answer_that_the_description_does_not_allow() {
    let tool = program::repository().join("target/schemathesis/bin/schemathesis");
    if !tool.is_file() {
        return skip::note("schemathesis", "it is not installed; tests/run.sh does that");
    }
    let (site, _peer) = seeded();
    let gateway = Gateway::to(&site.home().join("run/control.sock"));
    let (queue, badmail) = (ids(&site, "queue"), ids(&site, "badmail"));
    // Whoever fuzzes names things that are there; one server is there to be deleted.
    let settings = format!(
        r#"
[parameters]
"path.server" = "default"
"path.domain" = "partner.test"
"path.list" = "relay"
"path.name" = "isp"

[[operations]]
include-method = "DELETE"
include-path = "/v1/servers/{{server}}"
parameters = {{ "path.server" = "spare" }}

[[operations]]
include-path-regex = "^/v1/queue/\\{{id\\}}"
parameters = {{ "path.id" = "{}" }}

[[operations]]
include-path-regex = "^/v1/drop/\\{{id\\}}"
parameters = {{ "path.id" = "{}" }}

[[operations]]
include-path-regex = "^/v1/badmail/\\{{id\\}}"
parameters = {{ "path.id" = "{}" }}
"#,
        queue[0],
        ids(&site, "drop")[0],
        badmail[0]
    );
    let file = site.home().join("schemathesis.toml");
    fs::write(&file, settings).unwrap();
    let (examples, patience) = if skip::full() { ("200", 900) } else { ("10", 90) };
    let mut command = Command::new(&tool);
    command.current_dir(site.home()).arg("--config-file").arg(&file).arg("run");
    command.arg(format!("http://{}/v1/openapi.json", gateway.address));
    command.args(["-H", "Host: localhost", "--seed", "1", "-n", examples]);
    command.args(["--phases", "examples,coverage,fuzzing", "--warnings", "off", "--no-color"]);
    command.args(["--checks", "not_a_server_error,status_code_conformance"]);
    command.args(["--checks", "content_type_conformance,response_schema_conformance"]);
    // A lock would turn every later change away; bodies that are messages it cannot make up; a dialogue
    // has no end; and hosts that it makes up are not to be called.
    for path in [
        "/v1/config/lock",
        "/v1/queue/do/adopt",
        "/v1/pickup/check",
        "/v1/sessions/dialogue",
        "/v1/smarthosts/{name}/test",
        "/v1/smarthosts/{name}/device",
        "/v1/smarthosts/{name}/device/poll",
    ] {
        command.args(["--exclude-path", path]);
    }
    let patience = Duration::from_secs(patience);
    let _clean = program::run_within(patience, &mut command, b"").ok();
    assert!(site.runs(), "the daemon lives");
    let _answers = site.ctl(&["status"]).ok();
}
