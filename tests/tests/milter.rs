//! Milters: one on libmilter that does what a message asks it to, OpenDKIM as it is shipped, and some that
//! are none.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mailroot_tests::message::tagged;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};
use tempfile::TempDir;

/// A milter in a process of its own; it ends when dropped.
struct Milter {
    child: Child,
    address: SocketAddr,
    home: TempDir,
}

impl Drop for Milter {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Milter {
    fn run(mut command: Command, address: SocketAddr, home: TempDir) -> Self {
        let log = fs::File::create(home.path().join("out")).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let milter = Self { child, address, home };
        wait::until("the milter to listen", || TcpStream::connect(address).ok());
        milter
    }

    /// The one of these tests; nothing where its library is not there.
    fn actions() -> Option<Self> {
        let has = Command::new("/usr/bin/python3").args(["-c", "import Milter"]).output();
        if !has.is_ok_and(|done| done.status.success()) {
            skip::note("milters", "python3-milter is not installed");
            return None;
        }
        let home = tempfile::Builder::new().prefix("mailroot-milter-").tempdir().unwrap();
        let address = ports::local();
        let mut command = Command::new("/usr/bin/python3");
        command.arg(program::repository().join("tests/milter/actions.py"));
        command.arg(format!("inet:{}@127.0.0.1", address.port())).arg(home.path().join("log"));
        Some(Self::run(command, address, home))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn entry(&self) -> String {
        format!("\"inet:127.0.0.1:{}\"", self.address.port())
    }
}

fn site(milters: &str) -> Site {
    Site::start(Setup::new().key("messages.milters", &format!("[{milters}]")))
}

fn message(subject: &str, body: &str) -> Vec<u8> {
    format!("From: a@client.test\r\nSubject: {subject} it\r\nX-Old: gone\r\n\r\n{body}")
        .into_bytes()
}

/// What is said to a message of this subject.
fn send(site: &Site, subject: &str, body: &str) -> (u16, String) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let said = talk.message("a@client.test", &["b@local.test"], &message(subject, body)).unwrap();
    (said.code, said.to_string())
}

#[test]
fn a_milter_says_no_and_not_now_in_its_own_words() {
    let Some(milter) = Milter::actions() else { return };
    let site = site(&milter.entry());
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.say("MAIL FROM:<later@client.test>").code, 451);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    let never = talk.say("RCPT TO:<never@local.test>");
    assert_eq!(never.code, 550);
    assert!(never.to_string().contains("5.7.99 never, 100% sure"), "{}", never.to_string());
    talk.expect("RCPT TO:<b@local.test>", 250);
    talk.expect("RSET", 250);
    let sent =
        talk.message("a@client.test", &["b@local.test"], &message("reject", "x\r\n")).unwrap();
    assert_eq!(sent.code, 550);
    // The session goes on, and so does the milter's.
    let sent = talk.message("a@client.test", &["b@local.test"], &tagged("good")).unwrap();
    assert_eq!(sent.code, 250);
    assert_eq!(site.await_dropped(1).len(), 1);
    let log = milter.log();
    assert_eq!(log.matches("connect ").count(), 1, "{log}");
    for part in ["helo client.test", "j=relay.test", "rcpt <b@local.test> b@local.test"] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert!(!log.contains("Received"), "{log}");

    let (code, text) = send(&site, "defer", "x\r\n");
    assert!(code == 451 && text.contains("4.7.42 come again"), "{code} {text}");
    assert_eq!(send(&site, "discard", "x\r\n").0, 250);
    site.logged(&["event=discarded", "by=milter"]);
    site.logged(&["event=reject", "reason=filter-refused", "stage=rcpt"]);
    let metrics = site.ctl(&["metrics"]).ok();
    let counted = "mailroot_filtered_total{result=\"discarded\",server=\"default\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(site.dropped("default").len(), 1);
}

#[test]
fn what_a_milter_changes_is_what_is_delivered() {
    let Some(milter) = Milter::actions() else { return };
    let site = site(&milter.entry());
    assert_eq!(send(&site, "change", "the old body\r\n").0, 250);
    let stored = &site.await_dropped(1)[0];
    let text = String::from_utf8_lossy(&stored.octets).into_owned();
    for part in [
        "X-Last: added\r\n\tfolded\r\n",
        "X-First: inserted\r\n",
        "Subject: changed subject\r\n",
        "\r\n\r\nanother body\r\n.with a dot\r\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("X-Old") && !text.contains("old body"), "{text}");
    assert!(text.find("X-First").unwrap() < text.find("From: a@").unwrap(), "{text}");
    site.logged(&["event=received", "from=<changed@client.test>", "to=<other@local.test>"]);

    assert_eq!(send(&site, "hold", "x\r\n").0, 250);
    let held = site.ctl(&["queue", "list"]).ok();
    assert!(held.contains("looks odd") || held.contains("held"), "{held}");
}

#[test]
fn a_body_in_a_file_is_seen_whole_and_written_anew_only_where_it_changes() {
    let Some(milter) = Milter::actions() else { return };
    let site = site(&milter.entry());
    let line = format!("{}\r\n", "y".repeat(70));
    let body = line.repeat(20_000);
    assert_eq!(send(&site, "as it is", &body).0, 250);
    assert_eq!(send(&site, "large", &body).0, 250);
    let stored = site.await_dropped(2);
    for stored in &stored {
        let text = String::from_utf8_lossy(&stored.octets).into_owned();
        let (header, rest) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(rest, body);
        assert_eq!(header.contains("changed subject"), header.contains("X-First: inserted"));
    }
    let changed = |it: &&mailroot_tests::message::Stored| {
        String::from_utf8_lossy(&it.octets).contains("changed subject")
    };
    assert_eq!(stored.iter().filter(changed).count(), 1);
    assert_eq!(
        milter.log().matches(&format!("size={}", body.len())).count(),
        2,
        "{}",
        milter.log()
    );
    let left: Vec<PathBuf> = fs::read_dir(site.spool("default", "Queue"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("body-"))
        .collect();
    wait::until("no body to be left", || left.iter().all(|path| !path.exists()).then_some(()));
}

#[test]
fn opendkim_as_it_is_shipped_signs_what_it_sees() {
    let Some(opendkim) = program::find("opendkim") else {
        return skip::note("OpenDKIM as a milter", "opendkim is not installed");
    };
    let home = tempfile::Builder::new().prefix("mailroot-opendkim-").tempdir().unwrap();
    let address = ports::local();
    let mut command = Command::new(opendkim);
    let key = home.path().join("key.pem");
    program::run(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"), b"").ok();
    let text = format!(
        "Mode s\nDomain client.test\nSelector s1\nKeyFile {}\nRequireSafeKeys no\nSyslog no\n\
         SoftwareHeader yes\nInternalHosts 127.0.0.1\n",
        key.display()
    );
    let config = home.path().join("opendkim.conf");
    fs::write(&config, text).unwrap();
    command.arg("-f").arg("-x").arg(&config);
    command.arg("-p").arg(format!("inet:{}@127.0.0.1", address.port()));
    let milter = Milter::run(command, address, home);
    let site = site(&milter.entry());
    assert_eq!(send(&site, "hello", "x\r\n").0, 250);
    let text = String::from_utf8_lossy(&site.await_dropped(1)[0].octets).into_owned();
    assert!(text.contains("DKIM-Filter: OpenDKIM Filter"), "{text}");
    let signature = text.find("DKIM-Signature: v=1").unwrap_or_else(|| panic!("{text}"));
    assert!(text[signature..].contains("d=client.test"), "{text}");
    assert!(text.find("Received:").unwrap() < signature, "{text}");
}

/// Somebody who takes connections and does this with each.
fn pretender(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut heard = [0; 4096];
                let _first = stream.read(&mut heard);
                let _said = stream.write_all(answer);
                while stream.read(&mut heard).is_ok_and(|octets| octets > 0) {}
            });
        }
    });
    address
}

#[test]
fn a_milter_that_cannot_be_heard_defers_or_is_passed_over_as_its_entry_says() {
    let silent = pretender(b"");
    let nonsense = pretender(b"220 mail.example ESMTP\r\n");
    let greedy = pretender(b"\0\0\0\x0dO\0\0\0\x06\0\xff\xff\xff\0\0\0\0");
    let nobody = ports::local();
    for (address, reason) in [
        (silent, "no answer within 1 s"),
        (nonsense, "it says something of"),
        (greedy, "it wants what was not offered"),
        (nobody, "cannot connect"),
    ] {
        let entry = |on_failure: &str| {
            format!("{{address: \"inet:{address}\", timeout: 1s, on_failure: {on_failure}}}")
        };
        let site = site(&entry("defer"));
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        let said = talk.say("MAIL FROM:<a@client.test>");
        assert_eq!(said.code, 451, "{reason}: {said}");
        site.logged(&["event=milter-failed", reason, "then=defer"]);
        talk.expect("NOOP", 250);
        let key = format!("messages.milters=[{}]", entry("accept"));
        site.ctl(&["server", "set", "default", &key]).ok();
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        let sent = talk.message("a@client.test", &["b@local.test"], &tagged("passed")).unwrap();
        assert_eq!(sent.code, 250, "{reason}");
        site.await_dropped(1);
    }
}
