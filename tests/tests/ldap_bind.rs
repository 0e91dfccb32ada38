//! How a directory is asked: by which name and password, and what is counted of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mailroot_tests::site::Site;
use mailroot_tests::slapd::{Entry, PASSWORD, READER, asking, directory};
use mailroot_tests::talk::Talk;

const PEOPLE: &[Entry<'_>] =
    &[("ada", &["mail: ada@local.test"]), ("eve", &["mail: eve@local.test"])];

fn hello(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk
}

#[test]
fn a_password_for_the_directory_lies_where_nobody_else_can_read_it() {
    let Some(directory) = directory(PEOPLE) else { return };
    let site = Site::start(asking("openldap", &[directory.address()]));
    let passwd = |text: &str, more: &[&str]| {
        let words = [&["ldap", "passwd", "--password-stdin"], more].concat();
        site.control().input(text).run(&words)
    };
    let file = site.home().join("etc/secrets.d/default.ldap");
    let unsaid = site.ctl(&["ldap", "passwd", "--user", READER]).exited(2).err;
    assert!(unsaid.contains("--password-stdin"), "{unsaid}");
    let nameless = passwd("wrong", &[]).exited(6).err;
    assert!(nameless.contains("E0334") && !file.exists(), "{nameless}");
    passwd("wrong", &["--user", READER, "--dry-run"]).ok();
    assert!(!file.exists());
    passwd("wrong", &["--user", READER]).ok();
    let test = || site.ctl(&["ldap", "test", "--address", "ada@local.test"]);
    assert!(test().out.contains("wrong name or password (49)"));
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    talk.expect("RCPT TO:<ada@local.test>", 451);
    site.logged(&["event=ldap-down", "rests=300s"]);
    passwd(PASSWORD, &[]).ok();
    talk.expect("RCPT TO:<ada@local.test>", 250);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&file).unwrap().trim_end(), PASSWORD);
    let shown = site.ctl(&["ldap", "show"]).ok();
    assert!(shown.contains("{file: default.ldap}") && !shown.contains(PASSWORD), "{shown}");
    assert!(!site.log().contains(PASSWORD));
}

#[test]
fn look_ups_are_counted_and_timed() {
    let Some(mut directory) = directory(PEOPLE) else { return };
    let setup = asking("openldap", &[directory.address()]);
    let site = Site::start(setup.key("ldap.cache.positive", "5m"));
    let value = |name: &str| {
        let line = site.ctl(&["metrics", "--grep", &format!("^{name}")]).ok();
        line.trim_end().rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let counted = |result: &str| value(&format!("mailroot_ldap_lookups_total.*{result}"));
    let timed = |part: &str| value(&format!("mailroot_ldap_lookup_duration_seconds_{part}"));
    assert!(value("mailroot_ldap_connections\\{") == 0.0 && timed("count") == 0.0);
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    talk.expect("RCPT TO:<ada@local.test>", 250);
    talk.expect("RCPT TO:<ada@local.test>", 250);
    talk.expect("RCPT TO:<nobody@local.test>", 550);
    for (result, count) in [("\"found", 1.0), ("cached", 1.0), ("not_found", 1.0), ("failed", 0.0)]
    {
        assert_eq!(counted(result), count, "{result}");
    }
    assert_eq!(value("mailroot_ldap_connections\\{"), 1.0);
    assert_eq!((timed("count"), timed("bucket.*Inf")), (2.0, 2.0));
    assert!(timed("sum") > 0.0);
    directory.kill();
    talk.expect("RCPT TO:<eve@local.test>", 451);
    assert_eq!((counted("failed"), value("mailroot_ldap_connections\\{")), (1.0, 0.0));
}
