//! `sendmail`: who a message is from and who gets it, however the caller writes that, and messages of odd shapes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::{Command, Stdio};

use mailroot_tests::caller::Caller;
use mailroot_tests::message::Stored;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::wait;

/// The copies in Drop with this subject, once there are so many.
fn found(site: &Site, subject: &str, count: usize) -> Vec<Stored> {
    wait::until(&format!("{count} of {subject:?} in Drop"), || {
        let all = site.dropped("default").into_iter();
        let all: Vec<_> = all.filter(|it| it.fields("Subject") == [subject]).collect();
        (all.iter().map(|it| it.fields("X-Receiver").len()).sum::<usize>() >= count).then_some(all)
    })
}

/// Who got it, in order.
fn receivers(site: &Site, subject: &str, count: usize) -> Vec<String> {
    let all = found(site, subject, count);
    let mut names: Vec<String> = all.iter().flat_map(|it| it.fields("X-Receiver")).collect();
    names.sort();
    names
}

#[test]
fn an_argument_may_name_several_as_cron_passes_its_list_on() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    for (subject, argument) in [
        ("list", "a@local.test,b@local.test"),
        ("blanks", "a@local.test, b@local.test"),
        ("names", "\"Doe, J\" <a@local.test>, b@local.test (him)"),
    ] {
        let words = ["-FCronDaemon", "-i", "-B8BITMIME", "-oem", argument];
        let _sent = caller.run("sendmail", &words, &format!("Subject: {subject}\n\nx\n")).ok();
        assert_eq!(receivers(&site, subject, 2), ["a@local.test", "b@local.test"], "{subject}");
    }
    let told = caller.run("sendmail", &["-bv", "a@local.test,b@local.test"], "").ok();
    assert_eq!(told.matches("deliverable").count(), 2, "{told}");
}

#[test]
fn one_that_is_no_address_is_named_and_the_others_get_it() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let input = |subject: &str, to: &str| format!("To: {to}\nSubject: {subject}\n\nx\n");
    let words = ["bad@@x.test", "good@local.test", "worse@local..test"];
    let told = caller.run("sendmail", &words, &input("arguments", "x")).exited(65);
    assert!(told.err.contains("bad@@x.test") && told.err.contains("worse@local..test"), "{told}");
    assert!(told.err.contains("the others get it") && told.err.lines().count() == 1, "{told}");
    assert_eq!(receivers(&site, "arguments", 1), ["good@local.test"]);

    let told = caller.run("sendmail", &["-t"], &input("header", "a@@x.test, good@local.test"));
    assert!(told.code == 65 && told.err.contains("line 1: To:"), "{told}");
    assert_eq!(receivers(&site, "header", 1), ["good@local.test"]);
    for nobody in [&[""][..], &["<>"]] {
        let told = caller.run("sendmail", nobody, "x\n").exited(64);
        assert!(told.err.contains("no recipients"), "{told}");
    }
    let told = caller.run("sendmail", &["-t"], "To: a@@x.test\n\nx\n").exited(65);
    assert!(!told.err.contains("others"), "{told}");
}

#[test]
fn blind_copies_are_hidden_whoever_names_the_recipients() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let header = "Return-Path: <x@far.test>\nBcc: hidden@far.test\nResent-Bcc: more@far.test\n";
    let input = format!("{header}Subject: blind\n\nBcc: body\n");
    let _sent = caller.run("sendmail", &["-i", "a@local.test"], &input).ok();
    let stored = found(&site, "blind", 1).remove(0);
    let text = stored.text();
    assert!(!text.contains("far.test") && text.contains("Bcc: body"), "{text}");
}

#[test]
fn a_sender_carries_no_wishes_with_it() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    for sender in ["x@far.test> HOLDFOR=86400 ENVID=a", "x@far.test y@far.test", "x@@far.test"] {
        let told = caller.run("sendmail", &["-f", sender, "a@local.test"], "x\n").exited(65);
        assert!(told.err.contains("the sender"), "{told}");
    }
    let words = ["-f", "Anna <x@far.test>", "a@local.test"];
    let _sent = caller.run("sendmail", &words, "Subject: named\n\nx\n").ok();
    assert_eq!(found(&site, "named", 1)[0].fields("X-Sender"), ["x@far.test"]);
    assert!(site.dropped("default").len() == 1, "nobody got the others");
}

#[test]
fn a_job_whose_output_has_a_line_without_end_is_heard_of() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let line = "0123456789".repeat(20_000);
    let input = format!("Subject: long\n\n{line}\nend\n");
    let _sent = caller.run("sendmail", &["-i", "a@local.test"], &input).ok();
    let stored = found(&site, "long", 1).remove(0);
    let body = String::from_utf8(stored.body().to_vec()).unwrap();
    assert!(body.lines().all(|line| line.len() <= 998), "{}", body.len());
    assert_eq!(body.replace("\r\n ", ""), format!("{line}\r\nend\r\n"));
}

#[test]
fn an_output_that_does_not_end_is_refused() {
    let site = Site::start(Setup::new().key("messages.max_size", "40MiB"));
    let caller = Caller::of(&site);
    let mut sendmail = caller.command(caller.path("sendmail"));
    let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let out = sendmail.arg("a@local.test").stdin(yes.stdout.take().unwrap()).output().unwrap();
    // Nobody reads what it writes any more.
    drop(sendmail);
    let _ended = yes.wait().unwrap();
    let err = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(65), "{err}");
    assert!(err.contains("larger than 40MiB"), "{err}");
}

#[test]
fn whoever_has_seen_enough_of_the_list_hears_no_complaint() {
    let site = Site::start(Setup::new());
    let caller = Caller::of(&site);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let out = caller.command(caller.path("mailq")).stdout(full).output().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(74), "{err}");
    assert!(err.starts_with("mailq: "), "{err}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let out = caller.command(caller.path("mailq")).stdout(writer).output().unwrap();
    assert_eq!((out.status.code(), out.stderr.as_slice()), (Some(0), &b""[..]));
}
