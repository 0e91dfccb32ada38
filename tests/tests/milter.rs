//! Milters: one on libmilter that does what a message asks it to, OpenDKIM as it is shipped, and some that
//! are none.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use mailroot_tests::caller::Caller;
use mailroot_tests::message::tagged;
use mailroot_tests::milter::Milter;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};
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
    let discarded = site.logged(&["event=discarded", "by=milter"]);
    assert!(discarded.contains(&milter.address().port().to_string()), "{discarded}");
    let told = site.ctl(&["trace", "--subject", "discard it"]).ok();
    let by = format!("discarded  by milter: inet:[127.0.0.1]:{}", milter.address().port());
    assert!(told.contains(&by) && told.contains("nobody gets it"), "{told}");
    let listed = site.control().json(&["trace", "--to", "b@local.test", "--subject", "discard it"]);
    assert_eq!(listed[0]["state"], "discarded", "{listed}");
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
fn a_field_that_is_added_does_not_run_into_a_body_without_an_empty_line_before_it() {
    let Some(milter) = Milter::actions() else { return };
    let site = site(&milter.entry());
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let lines = format!("{}\r\n", "y".repeat(70)).repeat(300);
    for body in ["this is no field\r\nX-Not: one either\r\n", &lines] {
        let octets = format!("From: a@client.test\r\nSubject: add it\r\n{body}");
        let sent = talk.message("a@client.test", &["b@local.test"], octets.as_bytes()).unwrap();
        assert_eq!(sent.code, 250);
    }
    for stored in &site.await_dropped(2) {
        let text = stored.text();
        let (header, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(header.ends_with("X-Added: yes"), "{header}");
        assert!(body.starts_with("this is no field\r\n") || body == lines, "{body}");
    }
}

#[test]
fn programs_of_this_machine_are_looked_at_where_the_entry_says_so() {
    let Some(milter) = Milter::actions() else { return };
    let entry = |local: bool| format!("{{address: {}, local: {local}}}", milter.entry());
    let site = site(&entry(true));
    let caller = Caller::of(&site);
    let hand_in = |subject: &str| {
        let words = ["-i", "-f", "a@client.test", "b@local.test"];
        caller.run("sendmail", &words, &format!("Subject: {subject} it\n\nx\n"))
    };
    hand_in("add").exited(0);
    assert_eq!(site.await_dropped(1)[0].fields("X-Added"), ["yes"]);
    let refused = hand_in("reject").exited(77);
    assert!(refused.err.contains("5.7.1"), "{refused}");
    let later = hand_in("defer").exited(75);
    assert!(later.err.contains("come again"), "{later}");
    assert!(milter.log().contains("connect localhost 127.0.0.1"), "{}", milter.log());
    let key = format!("messages.milters=[{}]", entry(false));
    site.ctl(&["server", "set", "default", &key]).ok();
    hand_in("add").exited(0);
    let added = |it: &&mailroot_tests::message::Stored| !it.fields("X-Added").is_empty();
    assert_eq!(site.await_dropped(2).iter().filter(added).count(), 1);
}

#[test]
fn files_of_pickup_are_changed_discarded_put_off_or_end_in_badmail() {
    let Some(milter) = Milter::actions() else { return };
    let milters = format!("[{{address: {}, local: true}}]", milter.entry());
    let site = Site::start(
        Setup::new()
            .key("messages.milters", &milters)
            .key("store.pickup.poll", "100ms")
            .key("store.pickup.settle", "0ms"),
    );
    let put = |subject: &str, body: &str| {
        let staged = site.home().join(subject);
        let head = "X-Sender: a@client.test\r\nX-Receiver: b@local.test\r\nX-Old: gone\r\n";
        fs::write(&staged, format!("{head}Subject: {subject} it\r\n\r\n{body}")).unwrap();
        let name = format!("{subject}.eml");
        fs::rename(&staged, site.spool("default", "Pickup").join(name)).unwrap();
    };
    let lines = format!("{}\r\n", "y".repeat(70)).repeat(20_000);
    put("add", "small\r\n");
    put("large", &lines);
    put("change", "old\r\n");
    let stored = site.await_dropped(3);
    let of = |body: &str| stored.iter().find(|it| it.body() == body.as_bytes()).unwrap();
    assert_eq!(of("small\r\n").fields("X-Added"), ["yes"]);
    let large = of(&lines);
    assert_eq!(large.fields("X-Receiver"), ["other@local.test"]);
    assert_eq!(
        (large.fields("Subject"), large.fields("X-Old").len()),
        (vec!["changed subject".to_owned()], 0)
    );
    assert_eq!(of("another body\r\n.with a dot\r\n").fields("X-First"), ["inserted"]);
    assert!(
        stored.iter().all(|it| it.fields("Received").len() == 1 && it.fields("Date").len() == 1)
    );

    put("reject", "x\r\n");
    wait::until("a file in Badmail", || (site.badmail().len() == 3).then_some(()));
    let why = site.ctl(&["badmail", "list"]).ok();
    assert!(why.contains("a milter refused it"), "{why}");
    put("discard", "x\r\n");
    site.logged(&["event=discarded", "by=milter", "from=<a@client.test>"]);
    let told = site.control().json(&["trace", "--subject", "discard it"]);
    assert_eq!(told[0]["state"], "discarded", "{told}");
    put("defer", "later\r\n");
    site.logged(&["a milter has it wait: 451 4.7.42 come again"]);
    let waiting = site.ctl(&["pickup", "list"]).ok();
    assert!(waiting.contains("defer.eml"), "{waiting}");
    assert_eq!(site.dropped("default").len(), 3);
    site.ctl(&["server", "set", "default", "messages.milters=[]"]).ok();
    let stored = site.await_dropped(4);
    assert!(stored.iter().any(|it| it.body() == b"later\r\n"));
    assert_eq!(site.badmail().len(), 3);
}

#[test]
fn who_stops_waits_for_no_milter_that_looks_at_a_file_of_pickup() {
    let milter = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = milter.local_addr().unwrap();
    let entry = format!("[{{address: \"inet:{address}\", timeout: 10m, local: true}}]");
    let setup = Setup::new().key("store.pickup.poll", "100ms").key("store.pickup.settle", "0ms");
    let site = Site::start(setup.clone().key("messages.milters", &entry));
    let staged = site.home().join("staged");
    fs::write(&staged, "X-Sender: a@client.test\r\nX-Receiver: b@local.test\r\n\r\nkept\r\n")
        .unwrap();
    fs::rename(&staged, site.spool("default", "Pickup").join("slow.eml")).unwrap();
    // It says nothing for as long as the daemon listens.
    milter.set_nonblocking(true).unwrap();
    let _silent = wait::until("the milter to be called", || milter.accept().ok());
    site.stop();
    assert!(site.dropped("default").is_empty() && site.badmail().is_empty());
    site.configure(setup);
    site.launch();
    assert_eq!(site.await_dropped(1)[0].body(), b"kept\r\n");
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
