//! What `smtpctl` does by itself, without a daemon to ask.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;

const GOOD: &str = "X-Sender: erp@client.test\nX-Receiver: bob@far.test\nTo: x@far.test\n\nhello\n";

#[test]
fn pickup_files_are_checked_by_the_servers_file_and_the_daemon_agrees() {
    let site = Site::start(Setup::new().key("store.pickup.x_headers", "false"));
    let (good, bad) = (site.home().join("good.eml"), site.home().join("bad.eml"));
    fs::write(&good, GOOD.replace("To:", "From: erp@client.test\nTo:")).unwrap();
    fs::write(&bad, "From: erp@client.test\nToo: bob@far.test\n\nhello\n").unwrap();
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    let by_daemon = site.control().json(&["pickup", "check", &good]);
    let refused = site.ctl(&["pickup", "check", &bad]).exited(10);
    site.stop();
    let alone = site.ctl(&["pickup", "check", &good, "-o", "json"]).exited(0);
    assert!(alone.err.contains("default.yaml") && alone.err.contains("without routes"), "{alone}");
    let mut by_file: serde_json::Value = serde_json::from_str(&alone.out).unwrap();
    assert_eq!(by_file[0]["envelope"], "header", "X headers are not obeyed here: {by_file}");
    by_file[0]["to"][0]["route"] = by_daemon[0]["to"][0]["route"].clone();
    assert_eq!(by_file, by_daemon);
    let alone = site.ctl(&["pickup", "check", &bad]).exited(10);
    assert!(alone.err.contains("line 2"), "{alone}");
    assert!(alone.err.lines().last().is_some_and(|line| refused.err.contains(line)), "{refused}");
    let missing = site.ctl(&["pickup", "check", "-s", "other", &good]).exited(0);
    assert!(missing.err.contains("by the defaults"), "{missing}");
}

#[test]
fn files_of_a_checkout_are_formatted_without_loss() {
    let site = Site::prepare(Setup::new());
    let file = site.home().join("lan.yaml");
    let odd = "version:   1\n\n\n# ours\ngeneral:\n    listen:\n    -   127.0.0.1:25   # here\n";
    fs::write(&file, odd).unwrap();
    let name = file.display().to_string();
    let check = site.ctl(&["config", "fmt", "--check", &name]).exited(10);
    assert_eq!(check.out.trim(), format!("{name} would be reformatted (4 lines)"));
    assert_eq!(fs::read_to_string(&file).unwrap(), odd, "nothing was changed");
    let done = site.ctl(&["config", "fmt", &name]).exited(0);
    assert_eq!(done.out, "");
    let formed = "version: 1\n\n# ours\ngeneral:\n  listen:\n    - 127.0.0.1:25   # here\n";
    assert_eq!(fs::read_to_string(&file).unwrap(), formed);
    let _same = site.ctl(&["config", "fmt", "--check", &name]).exited(0);
    let piped = site.control().input(odd).run(&["config", "fmt", "-"]).exited(0);
    assert_eq!(piped.out, formed);
    fs::write(&file, "a: [1\n").unwrap();
    let broken = site.ctl(&["config", "fmt", &name]).exited(6);
    assert!(broken.err.contains("stays as it is"), "{broken}");
    let usage = site.ctl(&["config", "fmt", "--message", "x", &name]).exited(2);
    assert!(usage.err.contains("--message"), "{usage}");
}

#[test]
fn a_doctor_without_a_daemon_reads_the_files_himself() {
    let site = Site::prepare(Setup::new());
    let _down = site.ctl(&["doctor"]).exited(10);
    let report = site.ctl(&["doctor", "--offline", "--redact", "-o", "json"]).exited(10);
    let checks: Vec<serde_json::Value> = serde_json::from_str(&report.out).unwrap();
    let of = |topic: &str| checks.iter().find(|it| it["topic"] == topic).unwrap();
    assert_eq!(of("service")["level"], "fail");
    assert_eq!(of("config")["text"], "2 files can be read, each by itself");
    let file = site.home().join("etc/servers.d/default.yaml");
    fs::write(&file, "version: 1\nno_such_key: 1\n").unwrap();
    let report = site.ctl(&["doctor", "--offline", "config", "-o", "plain"]).exited(10);
    assert!(
        report.out.contains("no_such_key") && report.out.contains("default.yaml:2"),
        "{report}"
    );
    // What a machine has for sendmail is its own affair; that it is looked at is ours.
    let local = site.ctl(&["doctor", "local-mail", "-o", "jsonl"]);
    assert!([0, 10].contains(&local.code), "{local}");
    for name in ["\"sendmail\"", "mailname"] {
        assert!(local.out.contains(name), "{local}");
    }
}
