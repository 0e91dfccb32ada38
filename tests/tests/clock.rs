//! A wall clock that jumps while the daemon runs: mail that waits goes out, new mail passes, nothing spins.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Instant;

use mailroot_tests::account::tag;
use mailroot_tests::faketime::Faketime;
use mailroot_tests::load::Spent;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};

const MESSAGES: usize = 10;

/// A daemon that has tried ten messages once, and its clock; nothing without libfaketime.
fn deferred(peer: &Peer, retry: &str) -> Option<(Site, Faketime)> {
    let setup = Setup::new().smart_host(peer.address());
    let setup = setup.key("delivery.outbound.retry", retry).key("general.idle_timeout", "2s");
    let site = Site::prepare(setup);
    let Some(clock) = Faketime::of(&site) else {
        skip::note("a clock that jumps", "libfaketime is not installed");
        return None;
    };
    site.launch();
    for number in 0..MESSAGES {
        send(&site, "x@far.test", &format!("m{number}"));
    }
    wait::until("an attempt at each", || {
        let listed = site.ctl(&["queue", "list", "--state", "retry", "-o", "name"]).ok();
        (listed.lines().count() == MESSAGES).then_some(())
    });
    Some((site, clock))
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
    let peer = Peer::start(ports::local(), |event| match event.stage {
        Stage::Rcpt if event.line.contains("far.test") => Answer::say("450 4.2.1 later"),
        _ => Answer::Accept,
    });
    let Some((site, clock)) = deferred(&peer, "[1h]") else { return };

    clock.set(by);

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
    let peer = Peer::start(ports::local(), |event| match event.stage {
        Stage::Rcpt => Answer::say("450 4.2.1 later"),
        _ => Answer::Accept,
    });
    let Some((site, clock)) = deferred(&peer, "[2s]") else { return };
    peer.behave(|_| Answer::Accept);
    clock.set("-1d");
    site.await_empty_queue();
    assert_eq!(peer.received().len(), MESSAGES);
    site.stop();
}

/// The wall clock as it is written in mail, to the minute.
fn minute() -> String {
    let mut date = std::process::Command::new("date");
    let said = program::run(date.env("LC_ALL", "C").args(["-u", "+%a, %d %b %Y %H:%M"]), b"").ok();
    said.trim().to_owned()
}

#[test]
fn a_time_zone_changes_nothing_that_is_written() {
    let site = Site::prepare(Setup::new());
    site.under(&["env", "TZ=Pacific/Kiritimati"]);
    site.launch();
    let before = minute();
    send(&site, &format!("x@{LOCAL_DOMAIN}"), "zone");
    let received = site.await_dropped(1)[0].fields("Received")[0].clone();
    let when = [before, minute()];
    assert!(when.iter().any(|when| received.contains(when.as_str())), "{received}, {when:?}");
    assert!(received.contains("+0000"), "{received}");
    let listed = site.control().json(&["trace", "--last", "1"]).to_string();
    assert!(listed.contains('Z') && !listed.contains("+14:00"), "{listed}");
}

#[test]
fn a_second_that_comes_twice_harms_no_mail() {
    let site = Site::prepare(Setup::new());
    let Some(clock) = Faketime::of(&site) else {
        return skip::note("a second that comes twice", "libfaketime is not installed");
    };
    site.launch();
    let to = format!("x@{LOCAL_DOMAIN}");
    for (number, by) in ["+0", "-1", "-2", "-1", "+0"].into_iter().enumerate() {
        clock.set(by);
        for copy in 0..3 {
            send(&site, &to, &format!("m{number}.{copy}"));
        }
    }
    let mut tags: Vec<String> =
        site.await_dropped(15).iter().map(|stored| tag(&stored.octets)).collect();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 15, "{tags:?}");
    site.await_empty_queue();
    site.stop();
}
