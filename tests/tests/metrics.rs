//! What the daemon counts and measures, as programs read it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use mailroot_tests::message::tagged;
use mailroot_tests::setup::{ServerFile, Setup};
use mailroot_tests::site::Site;

/// The values of the text, each by name and labels. Every line is one that Prometheus takes: a comment
/// of a metric, or a value of the metric that was described last.
fn values(text: &str) -> BTreeMap<String, f64> {
    let (mut described, mut found) = (String::new(), BTreeMap::new());
    let mut parts: &[&str] = &[""];
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            described = rest.split_once(' ').unwrap().0.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            let kinds = ["counter", "gauge", "histogram"];
            assert!(name == described && kinds.contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            parts = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            assert!(
                parts.iter().any(|part| bare == format!("{described}{part}"))
                    && found.insert(name.to_owned(), value.parse().unwrap()).is_none(),
                "{line}"
            );
        }
    }
    found
}

#[test]
fn metrics_count_what_happened() {
    let site = Site::start(Setup::new().with(ServerFile::new("lan")));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for to in ["ada@local.test", "bob@local.test"] {
        assert_eq!(talk.message("app@client.test", &[to], &tagged("m")).unwrap().code, 250);
    }
    site.await_dropped(2);
    site.await_empty_queue();
    let text = site.ctl(&["metrics"]).ok();
    let all = values(&text);
    for (name, value) in [
        ("mailroot_messages_received_total{server=\"default\"}", 2.0),
        ("mailroot_messages_received_total{server=\"lan\"}", 0.0),
        ("mailroot_recipients_total{result=\"dropped\",server=\"default\"}", 2.0),
        ("mailroot_connections{direction=\"inbound\",server=\"default\"}", 1.0),
        ("mailroot_queue_messages{queue=\"all\",server=\"default\"}", 0.0),
        ("mailroot_queue_oldest_age_seconds{server=\"default\"}", 0.0),
        ("mailroot_server_up{server=\"lan\"}", 1.0),
    ] {
        assert_eq!(all.get(name), Some(&value), "{name} in {text}");
    }
    let chosen = site.ctl(&["metrics", "--grep", "server_up.*lan"]).ok();
    assert_eq!(chosen, "mailroot_server_up{server=\"lan\"} 1\n");
    let of_lan = site.ctl(&["metrics", "-s", "lan"]).ok();
    assert!(!of_lan.contains("default") && of_lan.contains("mailroot_build_info"), "{of_lan}");
    let rows = site.control().json(&["metrics", "--grep", "^mailroot_build_info"]);
    assert_eq!((&rows[0]["value"], &rows[0]["kind"]), (&1.0.into(), &"gauge".into()));
    assert_eq!(site.ctl(&["metrics", "--grep", "nothing_of_the_kind"]).code, 3);
    assert_eq!(site.ctl(&["metrics", "--grep", "("]).code, 2);
}
