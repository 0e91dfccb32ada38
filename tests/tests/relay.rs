//! The main road: mail goes in by every door, and comes out where it should, octet for octet.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::process::Command;

use mailroot_tests::message::{awkward, body, fields, tagged};
use mailroot_tests::peer::{Answer, Peer};
use mailroot_tests::setup::{HOSTNAME, LOCAL_DOMAIN, ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::{ports, program};

const UID_NOBODY: u32 = 65534;

#[test]
fn swaks_to_a_local_domain_ends_as_a_file_in_drop() {
    let Some(swaks) = program::find("swaks") else {
        return skip::note("swaks", "swaks is not installed");
    };
    let site = Site::start(Setup::new());
    program::run(
        Command::new(swaks)
            .args(["--server", &site.address().to_string()])
            .args(["--from", "app@client.test", "--to", &format!("ops@{LOCAL_DOMAIN}")])
            .args(["--header", "Subject: by swaks", "--body", "one line"]),
        b"",
    )
    .ok();

    let dropped = site.await_dropped(1);

    assert_eq!(dropped[0].fields("Subject"), ["by swaks"]);
    assert_eq!(dropped[0].fields("Return-Path"), ["<app@client.test>"]);
    assert_eq!(dropped[0].fields("X-Sender"), ["app@client.test"]);
    assert_eq!(dropped[0].fields("X-Receiver"), [format!("ops@{LOCAL_DOMAIN}")]);
    assert!(dropped[0].fields("Received")[0].contains(HOSTNAME), "{}", dropped[0].text());
    assert!(String::from_utf8_lossy(dropped[0].body()).contains("one line"));
    site.await_empty_queue();
    assert_eq!(site.ctl(&["queue", "list", "-o", "json"]).ok().trim(), "[]");
}

#[test]
fn a_file_moved_into_pickup_ends_in_drop_and_its_replay_gives_the_same_envelope() {
    let site = Site::start(Setup::new());
    let staged = site.home().join("staged.eml");
    let receivers = format!("X-Receiver: a@{LOCAL_DOMAIN}\r\nX-Receiver: b@{LOCAL_DOMAIN}\r\n");
    let mut message = format!("X-Sender: app@client.test\r\n{receivers}").into_bytes();
    message.extend_from_slice(&tagged("pickup"));
    fs::write(&staged, message).unwrap();
    fs::rename(&staged, site.spool("default", "Pickup").join("staged.eml")).unwrap();

    let first = site.await_dropped(1).remove(0);
    assert_eq!(first.fields("X-Sender"), ["app@client.test"]);
    let mut receivers = first.fields("X-Receiver");
    receivers.sort();
    assert_eq!(receivers, [format!("a@{LOCAL_DOMAIN}"), format!("b@{LOCAL_DOMAIN}")]);
    assert!(!site.spool("default", "Pickup").join("staged.eml").exists());

    fs::rename(&first.path, site.spool("default", "Pickup").join("again.eml")).unwrap();
    let again = site.await_dropped(1);
    let again = again.iter().find(|stored| stored.path != first.path).unwrap_or(&again[0]);

    assert_eq!(again.fields("X-Sender"), ["app@client.test"]);
    let mut receivers_again = again.fields("X-Receiver");
    receivers_again.sort();
    assert_eq!(receivers_again, receivers);
    assert_eq!(again.body(), first.body());
    assert_eq!(again.fields("Message-ID"), first.fields("Message-ID"));
}

#[test]
fn a_message_without_date_and_message_id_gets_both_and_one_with_them_keeps_its_own() {
    let site = Site::start(Setup::new());
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let to = format!("x@{LOCAL_DOMAIN}");
    let bare = b"Subject: bare\r\n\r\nhello\r\n";
    assert_eq!(talk.message("a@client.test", &[&to], bare).unwrap().code, 250);
    assert_eq!(talk.message("a@client.test", &[&to], &tagged("own")).unwrap().code, 250);

    let dropped = site.await_dropped(2);

    let find = |subject: &str| {
        dropped.iter().find(|stored| stored.fields("Subject") == [subject]).unwrap()
    };
    assert_eq!(find("bare").fields("Date").len(), 1);
    assert_eq!(find("bare").fields("Message-ID").len(), 1);
    assert_eq!(find("own").fields("Message-ID"), ["<own@client.test>"]);
    assert_eq!(find("own").fields("Date"), ["Mon, 24 Nov 2025 10:00:00 +0000"]);
}

#[test]
fn a_relayed_message_reaches_the_next_host_octet_for_octet_by_data_and_by_bdat() {
    let large = [awkward("large"), b"0123456789abcdef\r\n".repeat(8192)].concat();
    for (keywords, sent, chunked) in [
        (&["PIPELINING", "8BITMIME"][..], awkward("small"), false),
        (&["PIPELINING", "8BITMIME"], large.clone(), false),
        (&["PIPELINING", "8BITMIME", "CHUNKING"], awkward("small"), true),
        (&["PIPELINING", "8BITMIME", "CHUNKING"], large.clone(), true),
        (&["8BITMIME", "CHUNKING"], large.clone(), true),
    ] {
        let peer = Peer::offering(ports::local(), keywords, |_| Answer::Accept);
        let site = Site::start(Setup::new().smart_host(peer.address()));
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        assert_eq!(talk.message("a@client.test", &["b@far.test"], &sent).unwrap().code, 250);

        let received = peer.await_received(1).remove(0);

        assert_eq!(received.sender(), "a@client.test");
        assert_eq!(received.recipients(), ["b@far.test"]);
        assert_eq!(received.chunked, chunked, "{keywords:?}, {} octets", sent.len());
        assert!(received.octets.ends_with(&sent), "{keywords:?}, {} octets", sent.len());
        let added = &received.octets[..received.octets.len() - sent.len()];
        assert_eq!(fields(added, "Received").len(), 1);
        assert!(fields(added, "Return-Path").is_empty(), "Return-Path belongs to final delivery");
        peer.must_have_read_clean_lines();
    }
}

#[test]
fn recipients_of_one_domain_travel_in_one_transaction() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let to = ["a@far.test", "b@far.test", "c@far.test"];
    assert_eq!(talk.message("s@client.test", &to, &tagged("three")).unwrap().code, 250);

    let received = peer.await_received(1);

    assert_eq!(received.len(), 1);
    assert_eq!(received[0].recipients(), to);
    site.await_empty_queue();
    assert_eq!(peer.received().len(), 1);
}

#[test]
fn a_large_message_goes_through_whole() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let mut sent = tagged("large");
    while sent.len() < 5 << 20 {
        sent.extend_from_slice(
            b"0123456789abcdefghijklmnopqrstuvwxyz.0123456789abcdefghijklmn\r\n",
        );
    }
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &["b@far.test"], &sent).unwrap().code, 250);

    let received = peer.await_received(1);

    assert!(received[0].octets.ends_with(&sent), "{} octets came", received[0].octets.len());
}

#[test]
fn two_virtual_servers_have_their_own_listeners_domains_and_directories() {
    let second = ServerFile::new("printers")
        .only_domains(&["{name: printers.test, type: default}", "{name: scan.test, type: alias}"]);
    let address = second.address;
    let site = Site::start(Setup::new().with(second));
    let mut talk = mailroot_tests::talk::Talk::to(address);
    talk.expect("EHLO mfp.test", 250);
    let to = ["a@printers.test", "b@scan.test"];
    assert_eq!(talk.message("mfp@client.test", &to, &tagged("scan")).unwrap().code, 250);
    let mut first = site.talk();
    first.expect("EHLO client.test", 250);
    let local = format!("x@{LOCAL_DOMAIN}");
    assert_eq!(first.message("a@client.test", &[&local], &tagged("plain")).unwrap().code, 250);

    let plain = site.await_dropped(1);
    mailroot_tests::wait::until("the scan in its server's Drop", || {
        (!site.dropped("printers").is_empty()).then_some(())
    });

    assert_eq!(plain[0].fields("X-Tag"), ["plain"]);
    assert_eq!(site.dropped("printers")[0].fields("X-Tag"), ["scan"]);
    assert_eq!(site.dropped("default").len(), 1);
}

#[test]
fn an_unprivileged_user_can_run_it_and_everything_it_writes_is_private() {
    if !skip::root() {
        return skip::note("another user", "only root can start a program as somebody else");
    }
    let site = Site::start_as(UID_NOBODY, Setup::new());
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let to = format!("x@{LOCAL_DOMAIN}");
    assert_eq!(talk.message("a@client.test", &[&to], &tagged("nobody")).unwrap().code, 250);
    let dropped = site.await_dropped(1);

    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let file = fs::metadata(&dropped[0].path).unwrap();
    assert_eq!(file.uid(), UID_NOBODY);
    for path in [dropped[0].path.clone(), site.spool("default", "Queue"), site.home().join("state")]
    {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{} has mode {mode:o}", path.display());
    }
    site.stop();
}

#[test]
fn a_first_start_in_an_empty_home_writes_a_configuration_and_says_what_to_try() {
    let home = tempfile::tempdir().unwrap();
    let checked = program::run(
        Command::new(program::ours("smtpd"))
            .arg("--home")
            .arg(home.path().join("new"))
            .arg("--check")
            .env_remove("MAILROOT_HOME"),
        b"",
    );
    assert!(!home.path().join("new/spool").exists(), "--check must change nothing: {checked}");
}

#[test]
fn a_message_whose_body_ends_without_a_line_end_in_pickup_is_taken() {
    let site = Site::start(Setup::new());
    let text =
        format!("From: a@client.test\nTo: b@{LOCAL_DOMAIN}\nBcc: c@{LOCAL_DOMAIN}\n\nno end");
    let staged = site.home().join("x.eml");
    fs::write(&staged, text).unwrap();
    fs::rename(&staged, site.spool("default", "Pickup").join("x.eml")).unwrap();

    let dropped = site.await_dropped(1).remove(0);

    assert!(dropped.fields("Bcc").is_empty(), "Bcc is always stripped: {}", dropped.text());
    let mut receivers = dropped.fields("X-Receiver");
    receivers.sort();
    assert_eq!(receivers, [format!("b@{LOCAL_DOMAIN}"), format!("c@{LOCAL_DOMAIN}")]);
    assert_eq!(body(&dropped.octets), b"no end\r\n");
}
