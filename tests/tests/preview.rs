//! What a change of the configuration would have done to mail of late.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, swaks};
use serde_json::Value;

#[test]
fn a_preview_tells_which_mail_of_late_would_fare_differently() {
    let host = ports::local();
    let site = Site::start(Setup::new().smart_host(host));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for to in ["a@far.test", "b@far.test", "c@near.test"] {
        assert_eq!(talk.message("app@client.test", &[to], &tagged("x")).unwrap().code, 250);
    }
    let same = site.ctl(&["server", "set", "default", "description=x", "--dry-run"]);
    assert!(same.out.contains("None of 3 recent decisions"), "{same}");

    let close = ["server", "set", "default", "access.relay.list=192.0.2.0/24", "--preview"];
    let told = site.ctl(&close);
    for part in [
        "Of 3 recent decisions",
        "2 x  default  relay  127.0.0.1 -> ",
        "@far.test: allowed by relay list 127.0.0.0/8 -> refused by relay list",
    ] {
        assert!(told.out.contains(part), "{part}: {told}");
    }
    let json = site.control().json(&close);
    assert_eq!(json["dry_run"], true);
    let different = json["replay"]["different"].as_array().unwrap();
    let counts: Vec<_> = different.iter().map(|it| it["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [2, 1], "{json}");

    let mut files: Value = site.control().json(&["config", "export"]);
    let text = files["servers"]["default"].as_str().unwrap().to_owned();
    let export = site.home().join("export.yaml");
    let other = text.replace(&format!("[{}]:{}", host.ip(), host.port()), "relay.example:2525");
    assert_ne!(other, text);
    files["servers"]["default"] = Value::from(other);
    fs::write(&export, files.to_string()).unwrap();
    let told = site.ctl(&["config", "apply", "--preview", "-f", &export.display().to_string()]);
    for part in ["2 x  default  route  ", "@far.test: ", " -> relay.example:2525"] {
        assert!(told.out.contains(part), "{part}: {told}");
    }
    let shown = site.control().json(&[
        "server",
        "set",
        "default",
        "access.connect.policy=only",
        "access.connect.list=192.0.2.0/24",
        "--preview",
    ]);
    assert_eq!(shown["replay"]["different"][0]["decision"], "connect", "{shown}");
}

#[test]
fn a_preview_knows_the_routes_of_senders() {
    let site = Site::start(Setup::new().smart_host(ports::local()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for from in ["anna@shop.test", "bert@shop.test", "app@client.test"] {
        assert_eq!(talk.message(from, &["a@far.test"], &tagged("x")).unwrap().code, 250);
    }
    let mut files: Value = site.control().json(&["config", "export"]);
    let text = files["servers"]["default"].as_str().unwrap().to_owned();
    let rule =
        "delivery:\n  sender_routes:\n    - {from: \"*@shop.test\", route: relay.example:2525}\n";
    let other = text.replacen("delivery:\n", rule, 1);
    assert_ne!(other, text, "{text}");
    files["servers"]["default"] = Value::from(other);
    let export = site.home().join("export.yaml");
    fs::write(&export, files.to_string()).unwrap();
    let told = site.ctl(&["config", "apply", "--preview", "-f", &export.display().to_string()]);
    for part in ["2 x  default  route  ", "@shop.test -> a@far.test: ", " -> relay.example:2525"] {
        assert!(told.out.contains(part), "{part}: {told}");
    }
    assert_eq!(told.out.matches(" x  default").count(), 1, "{told}");
}

#[test]
fn a_preview_knows_who_relayed_by_a_certificate() {
    let peer = Peer::accepting(ports::local());
    let issuer = Authority::new();
    let shown = issuer.sign_client("ada@corp.test", Valid::Now);
    let setup = Setup::new()
        .smart_host(peer.address())
        .key("access.relay.list", "[]")
        .key("access.certificates.mode", "request")
        .key("access.certificates.trust", &issuer.file().display().to_string())
        .key("access.relay.certificates", "trusted");
    let site = Site::start(setup);
    let file = shown.path().to_str().unwrap();
    swaks::send(&site, &["--tls", "--tls-cert", file, "--tls-key", file]).ok();
    peer.await_received(1);
    let preview = |change: &str| site.ctl(&["server", "set", "default", change, "--preview"]).out;
    let told = preview("description=x");
    assert!(told.contains("None of 1 recent decisions"), "{told}");
    let pinned = format!("access.certificates.pinned={}", shown.fingerprint());
    let told = preview(&pinned);
    assert!(told.contains("None of 1 recent decisions"), "{told}");
    let told = preview("access.relay.certificates=pinned");
    let words = "allowed by certificate trusted -> refused by relay list";
    assert!(told.contains("Of 1 recent decisions") && told.contains(words), "{told}");
}
