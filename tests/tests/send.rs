//! `smtpctl send`: a test message by every door, with what is attached to it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mail_parser::{MessageParser, MimeHeaders};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;

fn to() -> String {
    format!("ada@{LOCAL_DOMAIN}")
}

#[test]
fn a_message_comes_in_by_each_door_and_is_followed() {
    let site = Site::start(Setup::new());
    for (count, door) in ["smtp", "submit", "pickup"].into_iter().enumerate() {
        let words = ["send", "--to", &to(), "--from", "app@client.test", "--via", door];
        let line = [&words[..], &["--subject", door, "--wait", "-o", "json"]].concat();
        let sent = site.ctl(&line).ok();
        let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
        assert_eq!(sent["state"], "done", "{door}: {sent}");
        let id = sent["id"].as_str().unwrap();
        let told = site.control().json(&["trace", id]);
        assert_eq!((&told[0]["via"], &told[0]["from"]), (&door.into(), &"app@client.test".into()));
        assert_eq!(site.await_dropped(count + 1).len(), count + 1);
    }
    let refused = site.ctl(&["send", "--to", &to(), "--via", "pickup", "--at", "2h"]);
    assert!(refused.code == 2 && refused.err.contains("--via smtp"), "{refused}");
    let shaped = site.ctl(&["send", "--to", &to(), "-o", "nagios"]);
    assert!(shaped.code == 2 && shaped.err.contains("that of doctor"), "{shaped}");
    assert_eq!(site.await_dropped(3).len(), 3, "refused before anything is sent");
    let strange =
        site.ctl(&["send", "--to", "x@far.test", "--from", "bad sender", "--via", "submit"]);
    assert_eq!(strange.code, 2, "{strange}");
    site.ctl(&["server", "set", "default", "store.pickup.enabled=false"]).ok();
    let closed = site.ctl(&["send", "--to", &to(), "--via", "pickup"]);
    assert!(closed.code == 5 && closed.err.contains("store.pickup.enabled=true"), "{closed}");
}

#[test]
fn files_arrive_as_they_are() {
    let site = Site::start(Setup::new());
    let octets: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let (pdf, csv) = (site.home().join("Übersicht \"1\".pdf"), site.home().join("a.csv"));
    fs::write(&pdf, &octets).unwrap();
    fs::write(&csv, "a;b\r\n.\r\n").unwrap();
    let (pdf_name, csv_name) = (pdf.display().to_string(), csv.display().to_string());
    let text = "Grüße\n.\n";
    let words = ["send", "--to", &to(), "--subject", "Prüfung", "--body", text, "--wait"];
    let attach = ["--attach", &pdf_name, "--attach", &csv_name];
    site.ctl(&[&words[..], &attach].concat()).ok();
    let stored = site.await_dropped(1).remove(0);
    let raw = fs::read(&stored.path).unwrap();
    let message = MessageParser::default().parse(&raw).unwrap();
    assert_eq!(message.subject(), Some("Prüfung"));
    assert_eq!(message.body_text(0).unwrap().trim_end().replace("\r\n", "\n"), "Grüße\n.");
    let first = message.attachment(0).unwrap();
    assert_eq!(first.attachment_name(), Some("Übersicht \"1\".pdf"));
    assert_eq!(first.contents(), octets);
    assert_eq!(message.attachment(1).unwrap().contents(), b"a;b\r\n.\r\n");
    let missing = site.ctl(&["send", "--to", &to(), "--attach", "/no/such/file"]);
    assert!(missing.code == 2 && missing.err.contains("/no/such/file"), "{missing}");
}
