//! The submit socket and `sendmail`: what programs of the machine hand in, and what their users see.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use mailroot_tests::caller::Caller;
use mailroot_tests::message::Stored;
use mailroot_tests::ports;
use mailroot_tests::program;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::wait;

/// A user that no system has.
const UID: u32 = 54_321;

/// The message in Drop with this subject.
fn found(site: &Site, subject: &str) -> Stored {
    wait::until(&format!("{subject:?} in Drop"), || {
        site.dropped("default").into_iter().find(|it| it.fields("Subject") == [subject])
    })
}

#[test]
fn callers_of_every_kind_are_understood() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let root = format!("root@{LOCAL_DOMAIN}");
    // The argument lists of Debian's and Fedora's programs, with the recipients and sender expected.
    for (subject, words, header, sender, to) in [
        (
            "cron",
            "-FCronDaemon -i -B8BITMIME -oem root",
            "From: root (Cron Daemon)\nTo: root\n",
            "",
            "root",
        ),
        ("cronie", "-FCronDaemon -i -odi -oem -oi -t -f root", "To: root\n", "", "root"),
        ("bsd-cron", "-FCronDaemon -odi -oem -oi -t", "To: root\n", "", "root"),
        ("anacron", "-FAnacron -odi root", "To: root\n", "", "root"),
        ("systemd-cron", "-i -B8BITMIME ops@local.test", "", "", "ops"),
        ("at", "-i root", "", "", "root"),
        ("sudo", "-t", "To: root\nFrom: anna\n", "", "root"),
        ("logwatch", "-t", "To: root\nFrom: Logwatch\n", "", "root"),
        ("php", "-t -i -fweb@shop.test", "To: ops@local.test\n", "web@shop.test", "ops"),
        ("phpmailer", "-oi -fweb@shop.test -t", "To: ops@local.test\n", "web@shop.test", "ops"),
        ("fail2ban", "-f ban@far.test ops@local.test", "", "ban@far.test", "ops"),
        ("mutt", "-oem -oi -f a@b.test -- ops@local.test", "", "a@b.test", "ops"),
        ("s-nail", "-i -m -f a@b.test -- ops@local.test", "", "a@b.test", "ops"),
        ("mime-lite", "-t -oi -oem", "To: ops@local.test\n", "", "ops"),
        ("ruby", "-i -f a@b.test -- ops@local.test", "", "a@b.test", "ops"),
        ("unknown", "-Y -i ops@local.test", "", "", "ops"),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let input = format!("{header}Subject: {subject}\n\nline\n.\nlast line\n");
        let done = caller.run("sendmail", &words, &input).exited(0);
        assert_eq!((done.out.as_str(), done.err.as_str()), ("", ""), "{subject}");
        let stored = found(&site, subject);
        let text = stored.text();
        assert_eq!(stored.body(), b"line\r\n.\r\nlast line\r\n", "{subject}: {text}");
        let fields = |name: &str| stored.fields(name).join(", ");
        let sender = if sender.is_empty() { &root } else { sender };
        assert_eq!(fields("X-Sender"), sender, "{subject}: {text}");
        assert_eq!(fields("X-Receiver"), format!("{to}@{LOCAL_DOMAIN}"), "{subject}: {text}");
        for name in ["From", "Date", "Message-ID"] {
            assert_eq!(stored.fields(name).len(), 1, "{subject}: {name}: {text}");
        }
        assert!(fields("From").contains('@'), "{subject}: {text}");
        assert!(!fields("Received").contains("from user"), "{subject}: {text}");
    }
    let cron = found(&site, "cron").fields("From").join("");
    assert_eq!(cron, format!("{root} (Cron Daemon)"));
    assert_eq!(found(&site, "anacron").fields("From"), [format!("Anacron <{root}>")]);
    let log = site.logged(&["event=received", "via=submit", "subject=\"cron\""]);
    assert!(log.contains("uid=") && log.contains("user="), "{log}");
}

#[test]
fn recipients_are_read_from_the_header_and_blind_copies_are_hidden() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let input = "To: One <one@local.test>, two\nCc: three@local.test\nBcc: four,\n five@local.test\n\
                 Subject: many\n\nbody\n";
    let _queued = caller.run("sendmail", &["-t", "six@local.test", "two"], input).ok();
    let stored = found(&site, "many");
    let receivers: BTreeSet<String> = stored.fields("X-Receiver").into_iter().collect();
    let expected =
        ["one", "two", "three", "four", "five", "six"].map(|to| format!("{to}@local.test"));
    assert_eq!(receivers, expected.into());
    assert!(stored.fields("Bcc").is_empty(), "{}", stored.text());
    assert_eq!(stored.fields("To"), ["One <one@local.test>, two@local.test"]);
}

#[test]
fn what_cannot_be_meant_or_taken_has_its_exit_code() {
    let site = Site::start(Setup::new().key("messages.max_size", "10KiB"));
    let caller = Caller::of(&site);
    let large = "x".repeat(20_000);
    for (words, input, code, told) in [
        (&["-bd"][..], "", 64, "systemctl start mailroot"),
        (&["-bt"], "", 64, "smtpctl route show"),
        (&["-bh"], "", 64, "smtpctl stats"),
        (&[], "x", 64, "no recipients"),
        (&["-f"], "x", 64, "-f needs a value"),
        (&["-t"], "Subject: x\n\n", 65, "names no recipients"),
        (&["-t"], "To: two words\n\n", 65, "line 1: To"),
        (&["a b@local.test"], "x", 65, ""),
        (&["ops@local.test"], &large, 65, "552"),
        (&["-bv", "ops@local.test"], "", 0, ""),
        (&["-bv", "a b@local.test"], "", 67, ""),
        (&["-q15m"], "", 0, ""),
    ] {
        let done = caller.run("sendmail", words, input).exited(code);
        assert!(done.err.contains(told), "{words:?}: {done}");
        let is_one_line = done.err.is_empty()
            || done.err.starts_with("sendmail: ") && done.err.trim_end().lines().count() == 1;
        assert!(is_one_line, "{done}");
    }
    assert!(site.dropped("default").is_empty());

    // One of two is refused: the other gets it, and the caller is told.
    let done =
        caller.run("sendmail", &["a b@x.test", "ops@local.test"], "Subject: half\n\n").exited(65);
    assert!(done.err.contains("the others get it"), "{done}");
    let _stored = found(&site, "half");

    site.stop();
    let done = caller.run("sendmail", &["ops@local.test"], "x").exited(75);
    assert!(done.err.contains("not queued"), "{done}");
}

#[test]
fn all_recipients_get_a_message_in_one_step_or_nobody_does() {
    // An envelope is one record of the store.
    let setup = Setup::new().key("store.segment_size", "4MiB");
    let setup = setup.key("messages.max_recipients", "100");
    let site = Site::start(setup);
    let caller = Caller::of(&site);
    let names =
        |count: usize| -> Vec<String> { (0..count).map(|n| format!("r{n}@local.test")).collect() };
    let all = names(1_500);
    let words: Vec<&str> = all.iter().map(String::as_str).collect();
    let _queued = caller.run("sendmail", &words, "Subject: to many\n\n").ok();
    assert_eq!(found(&site, "to many").fields("X-Receiver").len(), 1_500);
    assert_eq!(site.log().matches("event=received").count(), 1, "one message");

    // One too many, by the header: nobody gets it, and whoever repeats it does no harm.
    let input = format!("To: {}\nSubject: too many\n\n", names(10_001).join(",\n "));
    for _ in 0..2 {
        let done = caller.run("sendmail", &["-t"], &input).exited(65);
        assert!(done.err.contains("more than 10000 recipients"), "{done}");
        assert!(done.err.contains("nobody gets it"), "{done}");
    }
    assert_eq!(site.log().matches("event=received").count(), 1, "{}", site.log());
    // Neither does anybody if one of them cannot be taken now.
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@local.test>", 250);
    for to in names(100) {
        talk.expect(&format!("RCPT TO:<{to}>"), 250);
    }
    talk.expect("RCPT TO:<more@local.test>", 452);
}

#[test]
fn line_ends_and_odd_octets_come_through() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let input = "Subject: odd\nno field\n50%\r100%\r\n..\n\u{fc}\0";
    let _queued = caller.run("sendmail", &["ops@local.test"], input).ok();
    let expected = "no field\r\n50%\r\n100%\r\n..\r\n\u{fc}?\r\n";
    assert_eq!(found(&site, "odd").body(), expected.as_bytes());
}

#[test]
fn a_session_runs_through_standard_input_and_output() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let input = "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@far.test>\r\nRCPT TO:<ops@local.test>\r\n\
                 DATA\r\nSubject: piped\r\n\r\n.\r\nQUIT\r\n";
    let said = caller.run("sendmail", &["-bs"], input).ok();
    let codes: Vec<&str> = said.lines().filter_map(|line| line.get(..4)).collect();
    assert!(codes.ends_with(&["250 ", "250 ", "250 ", "354 ", "250 ", "221 "]), "{said}");
    let _stored = found(&site, "piped");
}

#[test]
fn the_policy_decides_under_which_names_users_write() {
    if !skip::root() {
        skip::note("sender policy", "only root can start a program as somebody else");
        return;
    }
    let setup = Setup::new().service("submission.record_user", "header");
    let site = Site::start(setup.service("submission.sender_policy", "login-name"));
    let caller = Caller::of(&site).as_uid(UID);
    let words = ["-f", "boss@local.test", "ops@local.test"];
    let done = caller.run("sendmail", &words, "Subject: no\n\n").exited(77);
    assert!(done.err.contains("553 5.7.1"), "{done}");
    let _queued = caller.run("sendmail", &["ops@local.test"], "Subject: own\n\n").ok();
    let _queued = caller.run("sendmail", &["-f", "<>", "ops@local.test"], "Subject: null\n\n").ok();
    let stored = found(&site, "own");
    assert_eq!(stored.fields("X-Sender"), [format!("{UID}@{LOCAL_DOMAIN}")]);
    assert!(
        stored.fields("Received")[0].contains(&format!("from user {UID}")),
        "{}",
        stored.text()
    );
    assert_eq!(found(&site, "null").fields("From"), [format!("{UID}@{LOCAL_DOMAIN}")]);
    // Root may be anybody.
    let _queued = Caller::of(&site).run("sendmail", &words, "Subject: root\n\n").ok();

    let _off = site.ctl(&["config", "set", "submission.enabled=false"]).ok();
    let done = caller.run("sendmail", &["ops@local.test"], "Subject: off\n\n").exited(69);
    assert!(done.err.contains("access denied"), "{done}");
}

#[test]
fn whoever_is_not_to_hand_in_mail_is_turned_away() {
    if !skip::root() {
        skip::note("who may submit", "only root can start a program as somebody else");
        return;
    }
    let site = Site::start(Setup::new().service("submission.deny", &format!("[\"{UID}\"]")));
    let (denied, other) = (Caller::of(&site).as_uid(UID), Caller::of(&site).as_uid(UID + 1));
    let refused = denied.run("sendmail", &["ops@local.test"], "Subject: no\n\n").exited(69);
    assert!(refused.err.contains("access denied"), "{refused}");
    let _queued = other.run("sendmail", &["ops@local.test"], "Subject: other\n\n").ok();
    let words = [format!("submission.allow={UID}"), "submission.deny=".to_owned()];
    let _set = site.ctl(&["config", "set", &words[0], &words[1]]).ok();
    let _queued = denied.run("sendmail", &["ops@local.test"], "Subject: now\n\n").ok();
    let _refused = other.run("sendmail", &["ops@local.test"], "Subject: no\n\n").exited(69);
    let _queued = Caller::of(&site).run("sendmail", &["ops@local.test"], "Subject: root\n\n").ok();
    for subject in ["other", "now", "root"] {
        let _stored = found(&site, subject);
    }
}

#[test]
fn users_see_their_own_mail_and_nobody_elses() {
    if !skip::root() {
        skip::note("own mail", "only root can start a program as somebody else");
        return;
    }
    let site = Site::start(Setup::new().smart_host(ports::local()));
    let mine = Caller::of(&site).as_uid(UID);
    let yours = Caller::of(&site).as_uid(UID + 1);
    assert_eq!(mine.run("mailq", &[], "").ok(), "Mail queue is empty\n");
    for (caller, to) in [(&mine, "mine@far.test"), (&yours, "yours@far.test")] {
        let _queued = caller.run("sendmail", &[to], &format!("Subject: {to}\n\nbody\n")).ok();
    }
    let id_of = |to: &str| {
        wait::until("a message that waits", || {
            let all = site.control().json(&["queue", "list", "--to", to, "--state", "retry"]);
            Some(all.as_array()?.first()?["id"].as_str()?.to_owned())
        })
    };
    let (my_id, your_id) = (id_of("mine@far.test"), id_of("yours@far.test"));
    for words in [
        &["queue", "list"][..],
        &["trace"],
        &["trace", "-o", "json"],
        &["queue", "list", "-o", "json"],
    ] {
        let told = mine.run("smtpctl", words, "").ok();
        assert!(told.contains("mine@far.test") && !told.contains("yours"), "{words:?}: {told}");
        assert!(!told.contains(&your_id), "{words:?}: {told}");
    }
    let listed = mine.run("mailq.mailroot", &[], "").ok();
    assert!(listed.contains(&my_id) && !listed.contains(&your_id), "{listed}");
    assert!(
        listed.contains("-Queue ID-") && listed.ends_with("-- 0 Kbytes in 1 Request.\n"),
        "{listed}"
    );
    let all = Caller::of(&site).run("sendmail", &["-bp"], "").ok();
    assert!(
        all.contains(&my_id) && all.contains(&your_id) && all.contains("in 2 Requests."),
        "{all}"
    );
    sees_nothing_else(&site, &mine, &my_id, &your_id);
}

/// Neither ids of others nor anything that is not about one's own mail.
fn sees_nothing_else(site: &Site, mine: &Caller, my_id: &str, your_id: &str) {
    // Ids of others are nobody's, whole or in part.
    let told = mine.run("smtpctl", &["trace", your_id], "").exited(3);
    assert!(told.out.contains("No message of yours"), "{told}");
    let none = mine.run("smtpctl", &["queue", "list", your_id, "-o", "name"], "").ok();
    assert_eq!(none, "");
    let _told = mine.run("smtpctl", &["trace", my_id], "").ok();
    let part = mine.run("smtpctl", &["trace", &your_id[..6]], "").exited(2);
    assert!(part.err.contains("whole") && !part.err.contains(your_id), "{part}");

    // Nothing else is answered, and nothing is changed.
    for words in [
        &["status"][..],
        &["queue", "show", my_id],
        &["queue", "remove", my_id, "--yes"],
        &["queue", "flush"],
        &["session", "list"],
        &["trace", "--refused"],
        &["config", "show"],
    ] {
        let _denied = mine.run("smtpctl", words, "").exited(4);
    }
    let _denied = mine.run("sendmail", &["-q"], "").exited(77);
    let _flushed = Caller::of(site).run("sendmail", &["-q"], "").ok();
    let socket = site.home().join("run/submit.sock");
    let asked = program::run(
        mine.command("/usr/bin/python3").args([
            "-c",
            ASK,
            &socket.display().to_string(),
            "/v1/status",
        ]),
        b"",
    );
    assert!(asked.out.contains("403") && asked.out.contains("own mail"), "{asked}");
}

/// Asks over the submit socket as a program would that does not keep to what smtpctl asks.
const ASK: &str = "
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.recv(1000)
s.sendall(b'XQUERY\\r\\n')
s.recv(1000)
s.sendall(b'GET %s HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' % sys.argv[2].encode())
while True:
    got = s.recv(65536)
    if not got:
        break
    print(got.decode())
";

#[test]
fn nothing_is_lost_while_many_hand_in_and_the_daemon_restarts() {
    let count = if skip::full() { 200 } else { 40 };
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let folder = caller.folder().display().to_string();
    let script = format!(
        "i=0; while [ $i -lt {count} ]; do i=$((i+1)); \
         (printf 'Subject: many-%s\\n\\nbody\\n' $i | \"$0\" -i ops@local.test && touch {folder}/done-$i) & done; wait"
    );
    let mut command = caller.command("sh");
    command.arg("-c").arg(script).arg(caller.path("sendmail"));
    let mut running = command.stdin(Stdio::null()).spawn().unwrap();
    // Some were taken, others were not.
    wait::until("first messages", || (!site.dropped("default").is_empty()).then_some(()));
    site.stop();
    site.launch();
    let _ended = wait::until("all callers", || running.try_wait().unwrap());
    let done: BTreeSet<String> = (1..=count)
        .filter(|i| caller.folder().join(format!("done-{i}")).exists())
        .map(|i| format!("many-{i}"))
        .collect();
    assert_eq!(done.len(), count, "every caller was told that its message is queued");
    wait::within(Duration::from_secs(120), || {
        let stored = site.dropped("default");
        let here: BTreeSet<String> = stored.iter().flat_map(|it| it.fields("Subject")).collect();
        done.is_subset(&here).then_some(())
    })
    .expect("every message that was taken is delivered");
}

#[test]
fn one_user_cannot_keep_the_others_out() {
    if !skip::root() {
        skip::note("submit limits", "only root can start a program as somebody else");
        return;
    }
    let setup = Setup::new().service("submission.max_connections_per_user", "2");
    let site = Site::start(setup);
    let socket = site.home().join("run/submit.sock");
    let held: Vec<UnixStream> = (0..2).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    wait::until("two sessions", || {
        let all = site.control().json(&["session", "list"]);
        (all.as_array()?.len() == 2).then_some(())
    });
    let here = Caller::of(&site);
    let done = here.run("sendmail", &["-bv", "ops@local.test"], "").exited(75);
    assert!(done.err.contains("421"), "{done}");
    let _queued =
        Caller::of(&site).as_uid(UID).run("sendmail", &["ops@local.test"], "Subject: x\n\n").ok();
    drop(held);
    let _queued = here.run("sendmail", &["ops@local.test"], "Subject: again\n\n").ok();
}

#[test]
fn a_socket_of_the_service_manager_is_taken_over_and_outlives_the_daemon() {
    let Some(activate) = program::find("systemd-socket-activate") else {
        skip::note("socket activation", "systemd-socket-activate is not there");
        return;
    };
    let site = Site::prepare(Setup::new());
    std::fs::create_dir(site.home().join("run")).unwrap();
    let socket = site.home().join("run/submit.sock");
    let listen = format!("--listen={}", socket.display());
    let activate = activate.display().to_string();
    site.under(&[&activate, &listen, "--fdname=submit"]);
    site.spawn(&[]);
    wait::until("the socket", || UnixStream::connect(&socket).ok());
    site.await_listening();
    let caller = Caller::of(&site);
    let _queued = caller.run("sendmail", &["ops@local.test"], "Subject: passed on\n\n").ok();
    let _stored = found(&site, "passed on");
    site.stop();
    assert!(socket.exists(), "the socket is the service manager's");
}

#[test]
fn real_programs_hand_their_mail_in() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    std::fs::write(caller.folder().join("0001.patch"), PATCH).unwrap();
    for (program, words) in real_programs(&caller) {
        if !is_there(program) {
            skip::note(program, "not installed");
            continue;
        }
        let mut command = caller.command(program);
        command.env("HOME", caller.folder()).args(&words).current_dir(caller.folder());
        let done = program::run(&mut command, b"from a real program\n").exited(0);
        let stored = found(&site, &format!("by {program}"));
        assert_eq!(stored.fields("X-Receiver"), ["ops@local.test"], "{done}\n{}", stored.text());
    }
}

const PATCH: &str = "From 0000000000000000000000000000000000000001 Mon Sep 17 00:00:00 2001\n\
    From: Anna <anna@local.test>\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\
    Subject: by /usr/bin/git\n\n---\n";

/// Programs and what they are told so that they send `by PROGRAM` to ops with our sendmail.
fn real_programs(caller: &Caller) -> [(&'static str, Vec<String>); 5] {
    let sendmail = caller.path("sendmail").display().to_string();
    let php =
        "mail('ops@local.test', 'by php', 'body', 'From: web@local.test', '-fweb@local.test');";
    let lite = format!(
        "use MIME::Lite; MIME::Lite->new(From=>'a@local.test', To=>'ops@local.test', \
         Subject=>'by perl', Data=>'x')->send('sendmail', '{sendmail} -t -oi -oem')"
    );
    let mutt = format!(
        "set sendmail='{sendmail} -oem -oi' use_envelope_from=yes from=a@local.test copy=no"
    );
    let mta = format!("mta={sendmail}");
    let (path, command) =
        (format!("sendmail_path={sendmail} -t -i"), format!("sendemail.sendmailcmd={sendmail}"));
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    [
        ("php", words(&["-d", &path, "-r", php])),
        ("mutt", words(&["-n", "-F", "/dev/null", "-e", &mutt, "-s", "by mutt", "ops@local.test"])),
        ("s-nail", words(&["-:/", "-S", &mta, "-s", "by s-nail", "ops@local.test"])),
        ("perl", words(&["-e", &lite])),
        (
            "/usr/bin/git",
            words(&[
                "-c",
                &command,
                "-c",
                "user.name=Anna",
                "-c",
                "user.email=anna@local.test",
                "send-email",
                "--quiet",
                "--confirm=never",
                "--suppress-cc=all",
                "--from=anna@local.test",
                "--to=ops@local.test",
                "0001.patch",
            ]),
        ),
    ]
}

/// Whether a program is there with what it needs to send mail.
fn is_there(program: &str) -> bool {
    let works = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    match program {
        "perl" => works("perl", &["-MMIME::Lite", "-e", "1"]),
        "/usr/bin/git" => Path::new("/usr/lib/git-core/git-send-email").exists(),
        _ => program::find(program).is_some(),
    }
}
