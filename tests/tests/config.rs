//! Bad configurations: every error of every file at once, with file, line, column, and what to do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use mailroot_tests::setup::{ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::stranger::UID_NOBODY;

/// Checks a server file and returns what was said; the exit code must be 78 for an error.
fn refused(text: &str) -> String {
    let site = Site::prepare(Setup::new());
    fs::write(site.home().join("etc/servers.d/default.yaml"), text).unwrap();
    let checked = site.run(&["--check"]).exited(78);
    let said = format!("{}{}", checked.out, checked.err);
    assert!(said.contains("default.yaml:"), "file and line: {checked}");
    assert!(said.contains("help:"), "what to do: {checked}");
    let started = site.run(&[]).exited(78);
    assert!(format!("{}{}", started.out, started.err).contains("default.yaml"), "{started}");
    said
}

const GOOD: &str = "version: 1\ndomains:\n  - {name: local.test, type: default}\n";

#[test]
fn each_mistake_has_its_place_and_its_advice() {
    for (text, words) in [
        ("messages:\n  max_recipient: 500\n", &["max_recipient", "max_recipients", ":5:3"][..]),
        ("delivery:\n  outbound:\n    retry: [15, 30]\n", &["unit", "15m", ":6:13"]),
        ("messages:\n  max_size: 25\n", &["unit", "MiB", ":5:13"]),
        ("messages:\n  max_size: 1MiB\n  max_size: 2MiB\n", &["max_size", ":6:3"]),
        ("messages:\n  max_size: &a 1MiB\n", &["anchor", ":5:"]),
        ("general:\n  listen: 127.0.0.1\n", &["port", ":5:"]),
        ("general:\n  max_connections: many\n", &["many", ":5:"]),
        ("access:\n  relay:\n    list: [10.1.2.3/16]\n", &["host bits", "10.1.0.0/16", "10.1.2.3"]),
        ("\tgeneral:\n", &["tab", ":4:1"]),
        ("profile: iis5\n", &["iis6", ":4:"]),
    ] {
        let said = refused(&format!("{GOOD}{text}"));
        for word in words {
            assert!(said.contains(word), "{word:?} is missing for {text:?}:\n{said}");
        }
    }
}

#[test]
fn an_open_relay_on_a_reachable_address_is_refused_unless_it_insists() {
    let open = "general:\n  listen: 0.0.0.0:2599\naccess:\n  relay:\n    list: [0.0.0.0/0]\n";
    let said = refused(&format!("{GOOD}{open}"));
    assert!(said.contains("open relay") && said.contains("i_want_an_open_relay"), "{said}");
    for variant in [
        "general:\n  listen: 0.0.0.0:2599\naccess:\n  relay:\n    list: [\"::/0\"]\n",
        "general:\n  listen: \"[::]:2599\"\naccess:\n  relay:\n    list: [0.0.0.0/1, 128.0.0.0/1]\n",
        "general:\n  listen: 192.0.2.1:2599\naccess:\n  relay:\n    policy: all-except\n    list: []\n",
    ] {
        let said = refused(&format!("{GOOD}{variant}"));
        assert!(said.contains("open relay"), "{variant}: {said}");
    }
    let site = Site::prepare(Setup::new());
    let path = site.home().join("etc/servers.d/default.yaml");
    fs::write(&path, format!("{GOOD}{open}    i_want_an_open_relay: true\n")).unwrap();
    assert_eq!(site.run(&["--check"]).code, 0);
    // On loopback alone nobody else can reach it.
    let loopback = open.replace("0.0.0.0:2599", "127.0.0.1:2599");
    fs::write(&path, format!("{GOOD}{loopback}")).unwrap();
    assert_eq!(site.run(&["--check"]).code, 0);
}

#[test]
fn all_errors_of_all_files_come_at_once() {
    let second = ServerFile::new("second").only_domains(&["{name: second.test, type: default}"]);
    let site = Site::prepare(Setup::new().with(second));
    let etc = site.home().join("etc");
    fs::write(etc.join("mailroot.yaml"), "version: 1\nservice:\n  hostnam: a.test\n").unwrap();
    fs::write(
        etc.join("servers.d/default.yaml"),
        format!("{GOOD}general:\n  bannr: x\n  idle_timeout: 5\n"),
    )
    .unwrap();
    fs::write(etc.join("servers.d/second.yaml"), format!("{GOOD}stor: {{}}\n")).unwrap();

    let checked = site.run(&["--check"]).exited(78);

    let said = format!("{}{}", checked.out, checked.err);
    for word in ["hostnam", "bannr", "idle_timeout", "stor", "mailroot.yaml:3", "second.yaml:4"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn two_servers_on_one_address_name_each_other() {
    let mut second =
        ServerFile::new("second").only_domains(&["{name: second.test, type: default}"]);
    let setup = Setup::new();
    let address = setup.servers[0].address;
    second = second.key("general.listen", &address.to_string());
    second.address = address;
    let site = Site::prepare(setup.with(second));

    let checked = site.run(&["--check"]).exited(78);

    let said = format!("{}{}", checked.out, checked.err);
    assert!(said.contains("default.yaml") && said.contains("second.yaml"), "{said}");
}

#[test]
fn hostile_yaml_is_refused_in_bounded_time_and_space() {
    let bomb = "a: &a [x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
        .to_owned();
    let deep = format!("general: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let long = format!("description: {}\n", "x".repeat(10 << 20));
    for text in [
        bomb,
        deep,
        long,
        "general: !!binary abc\n".to_owned(),
        "general: {<<: {a: b}}\n".to_owned(),
        "---\nversion: 1\n---\nversion: 1\n".to_owned(),
        "general:\0\n".to_owned(),
    ] {
        let site = Site::prepare(Setup::new());
        let path = site.home().join("etc/servers.d/default.yaml");
        fs::write(&path, format!("{GOOD}{text}")).unwrap();
        let checked = site.run(&["--check"]).exited(78);
        let said = format!("{}{}", checked.out, checked.err);
        assert!(said.contains("default.yaml"), "{said}");
        assert!(said.len() < 64 << 10, "{} octets of error", said.len());
    }
}

#[test]
fn a_good_configuration_is_told_to_be_good_and_nothing_is_made() {
    let site = Site::prepare(Setup::new());
    let checked = site.run(&["--check"]).exited(0);
    assert!(!site.home().join("spool").exists(), "{checked}");
    assert!(!site.home().join("run/control.sock").exists());
}

#[test]
fn a_spool_that_others_may_write_to_is_not_served_from() {
    let site = Site::start(Setup::new());
    site.stop();
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let root = site.home().join("spool/default");
    let below = ["Queue", "Drop", "Badmail"].map(|name| root.join(name));
    for path in below.into_iter().chain([root.clone()]) {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        set(&path, mode | 0o020);
        let refused = site.run(&[]);
        assert_ne!(refused.code, 0, "{refused}");
        let named = format!("{} may be written by others", path.display());
        assert!(refused.err.contains(&named), "{refused}");
        assert!(refused.err.contains("chmod go-w"), "{refused}");
        set(&path, mode);
    }
    if skip::root() {
        let queue = root.join("Queue");
        chown(&queue, Some(UID_NOBODY), None).unwrap();
        let refused = site.run(&[]);
        assert_ne!(refused.code, 0, "{refused}");
        assert!(refused.err.contains(&format!("belongs to uid {UID_NOBODY}")), "{refused}");
        chown(&queue, Some(0), None).unwrap();
    }
    site.launch();
}

#[test]
fn a_spool_that_cannot_be_used_is_named() {
    let site = Site::prepare(Setup::new());
    fs::write(site.home().join("spool"), "a file in the way").unwrap();
    let refused = site.run(&[]);
    assert_ne!(refused.code, 0, "{refused}");
    assert!(refused.err.contains("/spool/default"), "{refused}");
}
