//! What `doctor local-mail --fix` puts right on a machine, on one of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::Command;

use mailroot_tests::program::{self, Finished};
use mailroot_tests::setup::{HOSTNAME, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::skip;

/// `smtpctl` where another directory is /etc.
fn ctl(site: &Site, etc: &Path, words: &[&str]) -> Finished {
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(etc);
    command.arg(program::ours("smtpctl")).arg("--home").arg(site.home());
    program::run(command.args(words), b"")
}

#[test]
fn files_that_local_mail_lacks_are_written_and_those_there_are_stay() {
    if !skip::root() {
        return skip::note("doctor local-mail --fix", "it takes root to have another /etc");
    }
    let site = Site::start(Setup::new());
    let etc = site.home().join("other-etc");
    fs::create_dir(&etc).unwrap();
    for file in ["passwd", "group", "hosts", "nsswitch.conf"] {
        let from = Path::new("/etc").join(file);
        if from.exists() {
            fs::copy(from, etc.join(file)).unwrap();
        }
    }
    let dry = ctl(&site, &etc, &["doctor", "local-mail", "--fix", "--dry-run"]);
    assert!(dry.code == 10 && dry.err.contains("/etc/mailname"), "{dry}");
    assert!(!etc.join("mailname").exists() && !etc.join("aliases").exists());

    let fixed = ctl(&site, &etc, &["doctor", "local-mail", "--fix"]);
    assert_eq!(
        fs::read_to_string(etc.join("mailname")).unwrap(),
        format!("{HOSTNAME}\n"),
        "{fixed}"
    );
    let aliases = fs::read_to_string(etc.join("aliases")).unwrap();
    assert!(aliases.contains("postmaster"), "{aliases}");
    assert!(fixed.out.contains(&format!("/etc/mailname says {HOSTNAME}")), "{fixed}");
    assert!(fixed.err.contains("left to you: "), "{fixed}");

    fs::write(etc.join("aliases"), "root: ops@example.net\n").unwrap();
    fs::remove_file(etc.join("mailname")).unwrap();
    let again = ctl(&site, &etc, &["doctor", "local-mail", "--fix"]);
    assert!(etc.join("mailname").exists(), "{again}");
    assert_eq!(fs::read_to_string(etc.join("aliases")).unwrap(), "root: ops@example.net\n");
}
