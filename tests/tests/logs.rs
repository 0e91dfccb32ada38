//! The log as an operator reads it, wherever the daemon writes it; and how much it tells.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use mailroot_tests::message::tagged;
use mailroot_tests::program;
use mailroot_tests::setup::{ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{skip, wait};
use serde_json::Value;

/// A daemon that logs into a file of its home.
fn with_file(setup: Setup) -> Site {
    let site = Site::prepare(setup);
    let file = site.home().join("mail.log");
    let setup = site.setup().service("logging.target", "file");
    site.configure(setup.service("logging.file", &format!("{:?}", file.display().to_string())));
    site.launch();
    site
}

/// Hands a message in; its id.
fn send(site: &Site, to: &str) -> String {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("app@client.test", &[to], &tagged("log")).unwrap();
    assert_eq!(sent.code, 250, "{sent:?}");
    sent.to_string().split_whitespace().find(|word| word.len() == 12).unwrap().to_owned()
}

/// The lines that are chosen, as objects, once there are as many.
fn lines(site: &Site, words: &[&str], count: usize) -> Vec<Value> {
    let line: Vec<&str> = ["logs", "-o", "json"].iter().chain(words).copied().collect();
    wait::until(&format!("{count} lines of {words:?}"), || {
        let lines: Vec<Value> = serde_json::from_str(&site.ctl(&line).ok()).unwrap();
        (lines.len() >= count).then_some(lines)
    })
}

fn events(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"].as_str().unwrap_or_default()).collect()
}

#[test]
fn lines_are_chosen_by_what_they_name() {
    let site = with_file(Setup::new());
    let first = send(&site, "ada@local.test");
    let second = send(&site, "bob@local.test");
    let of_first = lines(&site, &[&first], 2);
    assert_eq!(events(&of_first), ["received", "delivered"]);
    assert!(of_first.iter().all(|line| line["id"] == *first && line["time"].is_string()));
    assert_eq!(of_first[0]["from"], "<app@client.test>");
    let to = lines(&site, &["--to", "bob@*"], 2);
    assert!(to.iter().all(|line| line["id"] == *second), "{to:?}");
    lines(&site, &["--client", "127.0.0.0/8", "--since", "1h"], 4);
    assert!(site.ctl(&["logs", "--client", "192.0.2.0/24"]).ok().is_empty());
    assert!(site.ctl(&["logs", "--since", "2030-01-01T00:00:00Z"]).ok().is_empty());
    assert!(site.ctl(&["logs", "--level", "error"]).ok().is_empty());
    assert_eq!(lines(&site, &["--last", "1"], 1).len(), 1);
    let text = site.ctl(&["logs", &second]).ok();
    assert!(text.contains(&format!("received {second} server=default")), "{text}");
    let names = site.ctl(&["logs", "--to", "bob@*", "-o", "template={event} {to}\\n"]).ok();
    assert_eq!(names, "received bob@local.test\ndelivered bob@local.test\n");
    for (line, code) in
        [(&["logs", "--since", "yesterday"], 2), (&["logs", "--client", "10.0.0.1/8"], 2)]
    {
        assert_eq!(site.ctl(line).code, code, "{line:?}");
    }
    site.stop();
    assert_eq!(lines(&site, &[&first], 2).len(), 2, "without the daemon");
}

#[test]
fn the_log_is_followed_also_into_a_file_that_takes_its_place() {
    let site = with_file(Setup::new());
    let before = send(&site, "ada@local.test");
    lines(&site, &[&before], 2);
    let following = site.control().follow(&["logs", "-f", "--to", "*@local.test", "-o", "jsonl"]);
    let heard = |id: &str| {
        let wanted = |line: &String| line.contains(id) && line.contains("delivered");
        wait::until("a line that is followed", || {
            following.lines().iter().any(wanted).then_some(())
        });
    };
    heard(&before);
    heard(&send(&site, "bob@local.test"));
    let (file, old) = (site.home().join("mail.log"), site.home().join("mail.log.1"));
    fs::rename(&file, old).unwrap();
    let reopened = site.control().json(&["logs", "reopen"]);
    assert_eq!(reopened["file"], file.display().to_string());
    wait::until("a file anew", || file.exists().then_some(()));
    heard(&send(&site, "eve@local.test"));
    fs::rename(&file, site.home().join("mail.log.2")).unwrap();
    let _read = site.ctl(&["reload"]).ok();
    heard(&send(&site, "bob@local.test"));
    assert!(file.exists(), "opened anew on reload");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let refused = site.ctl(&["logs", "reopen"]).exited(6);
    assert!(refused.err.contains("mail.log"), "{refused}");
}

#[test]
fn where_nothing_keeps_the_log_that_is_said() {
    let site = Site::start(Setup::new());
    let told = site.ctl(&["logs"]);
    assert!(told.code == 3 && told.err.contains("logging.target=file"), "{told}");
    site.stop();
    assert_eq!(site.ctl(&["logs"]).code, 3);
}

#[test]
fn where_the_log_goes_is_changed_at_once_or_not_at_all() {
    let site = Site::start(Setup::new());
    let file = site.home().join("other.log");
    let words = format!("logging.file={}", file.display());
    let line = ["config", "set", "logging.target=file", "logging.file=/no/such/log", "-o", "json"];
    let refused = site.ctl(&line);
    assert!(refused.code == 6 && refused.err.contains("/no/such/log"), "{refused}");
    assert!(refused.err.contains("config.log_file"), "{refused}");
    let dry = site.ctl(&["config", "set", "logging.target=file", &words, "--dry-run"]);
    assert!(dry.code == 0 && !file.exists(), "{dry}");
    site.ctl(&["config", "set", "logging.target=file", &words, "logging.format=json"]).ok();
    let id = send(&site, "ada@local.test");
    lines(&site, &[&id], 2);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{text}");
    assert!(!site.log().contains(&id), "the old place");
    site.ctl(&["config", "set", "logging.target=stdout"]).ok();
    let id = send(&site, "bob@local.test");
    site.logged(&["delivered", &id]);
}

#[test]
fn a_server_may_be_left_out_of_the_log_and_more_be_told_for_a_while() {
    let site =
        with_file(Setup::new().with(ServerFile::new("quiet").key("general.logging", "false")));
    let quiet = site.setup().servers[1].address;
    let mut talk = mailroot_tests::talk::Talk::to(quiet);
    talk.expect("EHLO client.test", 250);
    talk.expect("NONSENSE", 500);
    let told = send(&site, "ada@local.test");
    lines(&site, &[&told], 2);
    assert!(site.ctl(&["logs", "-s", "quiet"]).ok().is_empty(), "{}", site.ctl(&["logs"]));
    site.ctl(&["server", "set", "quiet", "general.logging=true"]).ok();
    let mut again = mailroot_tests::talk::Talk::to(quiet);
    again.expect("QUIT", 221);
    lines(&site, &["-s", "quiet"], 2);

    let level = |words: &[&str]| {
        let line: Vec<&str> = ["logs", "level"].iter().chain(words).copied().collect();
        site.control().json(&line)
    };
    assert_eq!(level(&[])["level"], "info");
    let raised = level(&["debug", "--for", "1h", "--client", "192.0.2.0/24"]);
    assert_eq!(raised["raised"]["client"], "192.0.2.0/24");
    let step = |site: &Site| {
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        talk.expect("NONSENSE", 500);
        talk.expect("QUIT", 221);
    };
    step(&site);
    level(&["debug", "--client", "127.0.0.1"]);
    step(&site);
    let steps = lines(&site, &["-s", "default", "--reason", "unknown-command"], 1);
    assert!(steps.iter().all(|line| line["level"] == "debug"), "{steps:?}");
    let count = steps.len();
    assert!(level(&["configured"])["raised"].is_null());
    step(&site);
    let id = send(&site, "ada@local.test");
    lines(&site, &[&id], 2);
    let after = lines(&site, &["-s", "default", "--reason", "unknown-command"], 1);
    assert_eq!(after.len(), count, "{after:?}");
    let less = site.ctl(&["logs", "level", "error"]).exited(2);
    assert!(less.err.contains("tells no more than logging.level, which is info"), "{less}");
    for words in [&["level", "debug", "--for", "2d"], &["level", "debug", "--client", "10.0.0.1/8"]]
    {
        assert_eq!(site.ctl(&[&["logs"][..], words].concat()).code, 2, "{words:?}");
    }
}

/// A journal of its own, in its own place.
struct Journal(Child);

impl Journal {
    const DAEMON: &str = "/lib/systemd/systemd-journald";

    fn start() -> Self {
        let script = format!(
            "mount -t tmpfs none /run && mkdir -p /run/systemd/journal \
             \"/run/log/journal/$(cat /etc/machine-id)\" && exec {}",
            Self::DAEMON
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", &script]).stdin(Stdio::null());
        Self(unshare.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// A stream into it as the service manager opens one for a unit.
    fn stream(&self) -> OwnedFd {
        let path = format!("/proc/{}/root/run/systemd/journal/stdout", self.0.id());
        let stream = wait::until("the journal", || UnixStream::connect(&path).ok());
        let head = b"mailroot\nmailroot.service\n6\n1\n0\n0\n0\n";
        std::io::Write::write_all(&mut &stream, head).unwrap();
        stream.into()
    }

    /// `smtpctl` where the journal is.
    fn command(&self, home: &Path, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.0.id()));
        command.arg(program::ours("smtpctl")).arg("--home").arg(home).args(words);
        command
    }

    /// Runs it to its end.
    fn ctl(&self, home: &Path, words: &[&str]) -> program::Finished {
        program::run(&mut self.command(home, words), b"")
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends with its owner.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_journal_is_read_where_the_daemon_writes_there() {
    if !skip::root() || !Path::new(Journal::DAEMON).exists() {
        return skip::note("journal", "it takes root and systemd-journald");
    }
    let site = Site::prepare(Setup::new());
    let journal = Journal::start();
    let stream = journal.stream();
    let stat = nix::sys::stat::fstat(stream.as_fd()).unwrap();
    let errors = File::create(site.home().join("errors")).unwrap();
    let mut command = site.command();
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.st_dev, stat.st_ino));
    command.stdin(Stdio::null()).stdout(Stdio::from(stream)).stderr(errors);
    let _daemon = Daemon(command.spawn().unwrap());
    site.await_listening();
    let id = send(&site, "ada@local.test");
    let found = wait::until("lines in the journal", || {
        let told = journal.ctl(site.home(), &["logs", &id, "-o", "jsonl"]);
        assert_eq!(told.code, 0, "{told}");
        (told.out.lines().count() == 2).then_some(told.out)
    });
    let lines: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events(&lines), ["received", "delivered"]);
    assert!(lines.iter().all(|line| line["time"].is_string() && line["level"] == "info"));

    let mut follow = journal.command(site.home(), &["logs", "-f", "--to", "*@local.test"]);
    let mut following = Daemon(follow.stdout(Stdio::piped()).spawn().unwrap());
    let out = BufReader::new(following.0.stdout.take().unwrap());
    let mut heard = out.lines().map_while(Result::ok);
    assert!(heard.any(|line| line.contains(&id)), "what was there before");
    let next = send(&site, "bob@local.test");
    assert!(heard.any(|line| line.contains("delivered") && line.contains(&next)));
}
