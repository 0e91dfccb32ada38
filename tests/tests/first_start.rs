//! The README's first command: an empty directory becomes a relay that works, for root and for anybody.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mailroot_tests::message::{Stored, tagged};
use mailroot_tests::talk::Talk;
use mailroot_tests::{ctl::Ctl, program, skip, wait};

const UID_NOBODY: u32 = 65534;

/// Where the README says that it listens.
fn address() -> SocketAddr {
    "127.0.0.1:2525".parse().unwrap()
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

fn start(home: &Path, output: &Path, user: Option<u32>) -> Daemon {
    let mut command = Command::new(program::ours("smtpd"));
    command
        .arg("--home")
        .arg(home)
        .env_remove("MAILROOT_HOME")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(File::options().create(true).append(true).open(output).unwrap())
        .stderr(File::options().create(true).append(true).open(output).unwrap());
    if let Some(uid) = user {
        command.uid(uid).gid(uid);
    }
    let mut daemon = Daemon(command.spawn().unwrap());
    wait::until("a greeting on 127.0.0.1:2525", || {
        let ended = daemon.0.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {}", fs::read_to_string(output).unwrap());
        Talk::try_to(address()).ok()
    });
    daemon
}

fn works_in_an_empty_home(user: Option<u32>) {
    let parent = tempfile::tempdir().unwrap();
    fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(parent.path(), user, user).unwrap();
    let (home, output) = (parent.path().join("mailroot"), parent.path().join("output"));
    let daemon = start(&home, &output, user);
    let said = wait::until("what to try next", || {
        let said = fs::read_to_string(&output).unwrap();
        said.contains("2525").then_some(said)
    });
    assert!(said.contains("swaks") || said.contains("smtpctl"), "{said}");

    let mut talk = Talk::to(address());
    talk.expect("EHLO client.test", 250);
    let reply = talk.message("me@client.test", &["you@localhost"], &tagged("first")).unwrap();
    assert_eq!(reply.code, 250, "{reply}");
    let drop_folder = home.join("spool/default/Drop");
    let dropped = wait::until("the message in Drop", || {
        Stored::read_all(&drop_folder, "eml").into_iter().next()
    });
    assert_eq!(dropped.fields("X-Receiver"), ["you@localhost"]);
    let status = Ctl::new(&home).run(&["status"]).ok();
    assert!(status.contains("127.0.0.1:2525"), "{status}");

    let configuration = fs::read(home.join("etc/servers.d/default.yaml")).unwrap();
    drop(daemon);
    let _again = start(&home, &output, user);
    assert_eq!(fs::read(home.join("etc/servers.d/default.yaml")).unwrap(), configuration);
    let _good = Ctl::new(&home).run(&["config", "check"]).ok();
}

#[test]
fn an_empty_directory_becomes_a_relay_that_works_for_root_and_for_anybody() {
    works_in_an_empty_home(None);
    if skip::root() {
        works_in_an_empty_home(Some(UID_NOBODY));
    }
}
