//! `smtpctl -H`: the same command on another host, by a real sshd on loopback with keys of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mailroot_tests::program::{self, Finished};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};
use nix::unistd::{User, getuid};
use tempfile::TempDir;

/// An sshd for the user who tests, and the client's side of it.
struct Ssh {
    place: TempDir,
    daemon: Child,
    user: String,
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.daemon.kill();
        let _status = self.daemon.wait();
    }
}

fn keygen(file: &Path) {
    let mut command = Command::new("ssh-keygen");
    program::run(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file), b"").ok();
}

impl Ssh {
    /// Starts one; nothing where it is not installed, which is noted as a skip.
    fn start() -> Option<Self> {
        let (Some(sshd), Some(ssh)) = (program::find("sshd"), program::find("ssh")) else {
            skip::note("smtpctl -H", "openssh-server is not installed");
            return None;
        };
        if skip::root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let place = tempfile::Builder::new().prefix("ssh-").tempdir().unwrap();
        let (dir, address) = (place.path(), ports::local());
        keygen(&dir.join("host"));
        keygen(&dir.join("user"));
        fs::copy(dir.join("user.pub"), dir.join("authorized")).unwrap();
        let (at, tools) = (dir.display(), program::ours("smtpctl"));
        let tools = tools.parent().unwrap().display();
        let config = format!(
            "ListenAddress {address}\nHostKey {at}/host\nAuthorizedKeysFile {at}/authorized\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n\
             PermitRootLogin yes\nSetEnv PATH={tools}:/usr/bin:/bin\n"
        );
        fs::write(dir.join("sshd_config"), config).unwrap();
        let client = format!(
            "Port {}\nIdentityFile {at}/user\nIdentitiesOnly yes\nBatchMode yes\n\
             UserKnownHostsFile {at}/known\nStrictHostKeyChecking accept-new\nLogLevel ERROR\n",
            address.port()
        );
        fs::write(dir.join("ssh_config"), client).unwrap();
        fs::create_dir(dir.join("bin")).unwrap();
        // The tool calls ssh by its name; here that name brings the client's configuration with it.
        let script = format!("#!/bin/sh\nexec {} -F {at}/ssh_config \"$@\"\n", ssh.display());
        fs::write(dir.join("bin/ssh"), script).unwrap();
        fs::set_permissions(dir.join("bin/ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
        let daemon = command.stdin(Stdio::null()).stderr(log).spawn().unwrap();
        let user = User::from_uid(getuid()).unwrap().unwrap().name;
        await_greeting(address);
        Some(Self { place, daemon, user })
    }

    /// Runs `smtpctl -H USER@127.0.0.1` with these words.
    fn ctl(&self, words: &[&str], input: &str) -> Finished {
        let host = format!("{}@127.0.0.1", self.user);
        self.run(&[&["-H", &host], words].concat(), input)
    }

    fn run(&self, words: &[&str], input: &str) -> Finished {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}/bin:{path}", self.place.path().display());
        let mut command = Command::new(program::ours("smtpctl"));
        command.args(words).env("PATH", path).env_remove("MAILROOT_HOME");
        program::run(&mut command, input.as_bytes())
    }
}

fn await_greeting(address: SocketAddr) {
    wait::until("the greeting of sshd", || {
        let mut greeting = [0; 4];
        TcpStream::connect(address).ok()?.read_exact(&mut greeting).ok()?;
        (&greeting == b"SSH-").then_some(())
    });
}

#[test]
fn a_command_is_performed_on_another_host_word_for_word() {
    let Some(ssh) = Ssh::start() else { return };
    let site = Site::start(Setup::new());
    let home = site.home().display().to_string();
    let there = |words: &[&str]| ssh.ctl(&[&["--home", &home], words].concat(), "");

    let listed = there(&["server", "list", "-o", "name"]).ok();
    assert_eq!(listed, "default\n");
    let reason = "it's \"quoted\"; $(touch owned) `id` \\ *";
    let _paused = there(&["server", "pause", "default", "--reason", reason]).ok();
    let status = site.control().json(&["server", "show", "default"]);
    assert_eq!(status["reason"], reason, "{status}");
    let _resumed = there(&["server", "resume", "default"]).ok();

    let missing = there(&["queue", "show", "6FZK3QB27N5C"]).exited(3);
    assert!(missing.err.contains("6FZK3QB27N5C"), "{missing}");
    let to = format!("x@{LOCAL_DOMAIN}");
    let words = ["--home", &home, "send", "--to", &to, "--body", "-"];
    let _sent = ssh.ctl(&words, "by standard input\n").ok();
    assert!(site.await_dropped(1)[0].text().contains("by standard input"));
}

#[test]
fn a_host_that_is_none_or_out_of_reach_is_told() {
    let Some(ssh) = Ssh::start() else { return };
    let option = ssh.run(&["-H", "-oProxyCommand=touch owned", "status"], "");
    assert_eq!(option.code, 2, "{option}");
    let _equals = ssh.run(&["--host=-oProxyCommand=id", "status"], "").exited(2);
    let cluster = ssh.run(&["-qHnowhere", "status"], "").exited(2);
    assert!(cluster.err.contains("-H"), "{cluster}");
    let nobody = ssh.run(&["-H", "no-such-user@127.0.0.1", "status", "-o", "json"], "").exited(5);
    let error: serde_json::Value =
        serde_json::from_str(nobody.err.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "remote.unavailable", "{nobody}");
}
