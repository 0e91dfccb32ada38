//! A wall clock that jumps while the daemon runs: mail that waits goes out, new mail passes, nothing spins.
//!
//! The clock is libfaketime's, which reads how far it is off from a file each time it is asked. The clock
//! that measures spans is left alone, as it is on a real machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mailroot_tests::account::tag;
use mailroot_tests::load::Spent;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};

const MESSAGES: usize = 10;

/// Where libfaketime is, if it is.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .chain(["/usr/lib64/faketime/libfaketimeMT.so.1".into()])
        .find(|path| path.exists())
}

/// A daemon that has tried ten messages once, and what sets its clock off by so much.
fn deferred(peer: &Peer, library: &Path) -> (Site, impl Fn(&str)) {
    deferred_for(peer, library, "[1h]")
}

/// The same with other waits between attempts.
fn deferred_for(peer: &Peer, library: &Path, retry: &str) -> (Site, impl Fn(&str) + use<>) {
    let setup = Setup::new().smart_host(peer.address());
    let setup = setup.key("delivery.outbound.retry", retry).key("general.idle_timeout", "2s");
    let site = Site::prepare(setup);
    let offset = site.home().join("offset");
    site.under(&[
        "env",
        &format!("LD_PRELOAD={}", library.display()),
        &format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ]);
    let set = move |by: &str| {
        fs::write(offset.with_extension("new"), by).unwrap();
        fs::rename(offset.with_extension("new"), &offset).unwrap();
    };
    set("+0");
    site.launch();
    for number in 0..MESSAGES {
        send(&site, "x@far.test", &format!("m{number}"));
    }
    wait::until("an attempt at each", || {
        let listed = site.ctl(&["queue", "list", "--state", "retry", "-o", "name"]).ok();
        (listed.lines().count() == MESSAGES).then_some(())
    });
    (site, set)
}

fn send(site: &Site, to: &str, tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &[to], &tagged(tag)).unwrap().code, 250);
}

/// Requires that the daemon does next to nothing while it has nothing to do: for as long as it takes to
/// close a silent session.
fn must_rest(site: &Site) {
    let mut talk = site.talk();
    let (before, since) = (Spent::by(site.pid()), Instant::now());
    assert_eq!(talk.reply().unwrap().code, 421);
    let (spent, passed) = (Spent::by(site.pid()).since(&before), since.elapsed());
    assert!(spent < passed / 2, "it was busy for {spent:?} of {passed:?}");
}

/// The wall clock goes off by so much, seconds of which `said` is the beginning.
fn jump(by: &str, said: &str) {
    let Some(library) = library() else {
        return skip::note("a clock that jumps", "libfaketime is not installed");
    };
    let peer = Peer::start(ports::local(), |event| match event.stage {
        Stage::Rcpt if event.line.contains("far.test") => Answer::say("450 4.2.1 later"),
        _ => Answer::Accept,
    });
    let (site, set) = deferred(&peer, &library);

    set(by);

    must_rest(&site);
    send(&site, "x@near.test", "after");
    send(&site, &format!("x@{LOCAL_DOMAIN}"), "after");
    site.await_dropped(1);
    site.logged(&["event=clock_jumped", &format!("by={said}")]);
    wait::until("mail that came after", || (peer.received().len() == 1).then_some(()));

    // An attempt that fails now is judged by the time that passed, not by what the clock shows.
    site.ctl(&["queue", "flush"]).ok();
    wait::until("another attempt at each", || {
        let rows = site.control().json(&["queue", "list"]);
        let rows = rows.as_array().unwrap();
        let again = rows.iter().filter(|row| row["attempts"].as_u64() == Some(2)).count();
        (rows.len() == MESSAGES && again == MESSAGES).then_some(())
    });
    assert_eq!(peer.received().len(), 1, "a report or a notice was sent");

    peer.behave(|_| Answer::Accept);
    site.ctl(&["queue", "flush"]).ok();
    site.await_empty_queue();
    must_rest(&site);
    let received = peer.received();
    let mut tags: Vec<String> = received.iter().map(|message| tag(&message.octets)).collect();
    tags.sort();
    tags.dedup();
    assert_eq!((received.len(), tags.len()), (MESSAGES + 1, MESSAGES + 1), "each once: {tags:?}");
    assert!(received.iter().all(|message| !message.sender().is_empty()), "a report was sent");
    site.stop();
}

#[test]
fn a_clock_that_goes_a_day_forward_brings_no_notices() {
    jump("+1d", "+86");
}

#[test]
fn a_clock_that_goes_a_day_back_harms_no_mail() {
    jump("-1d", "-86");
}

#[test]
fn a_clock_that_goes_ten_years_forward_returns_no_mail() {
    jump("+10y", "+31");
}

#[test]
fn mail_is_tried_in_its_time_though_the_clock_went_a_day_back() {
    let Some(library) = library() else {
        return skip::note("a clock that jumps", "libfaketime is not installed");
    };
    let peer = Peer::start(ports::local(), |event| match event.stage {
        Stage::Rcpt => Answer::say("450 4.2.1 later"),
        _ => Answer::Accept,
    });
    let (site, set) = deferred_for(&peer, &library, "[2s]");
    peer.behave(|_| Answer::Accept);
    set("-1d");
    site.await_empty_queue();
    assert_eq!(peer.received().len(), MESSAGES);
    site.stop();
}
