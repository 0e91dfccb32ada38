//! Remote servers that attack: endless replies, huge words, bad codes. The relay gives up within its limits,
//! keeps the mail, and nothing of theirs grows beyond bounds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::wait;

const STAGES: [Stage; 6] =
    [Stage::Connect, Stage::Hello, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::End];

fn send(site: &Site, tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let from = format!("ops@{LOCAL_DOMAIN}");
    assert_eq!(talk.message(&from, &["x@far.test"], &tagged(tag)).unwrap().code, 250);
}

/// A peer that answers the first time at `stage` with `words`, and well afterwards.
fn odd_once(stage: Stage, words: &'static str) -> Peer {
    Peer::start(ports::local(), move |event: &Event| {
        if event.stage == stage && event.session == 0 { Answer::say(words) } else { Answer::Accept }
    })
}

#[test]
fn a_reply_without_an_end_is_given_up_and_the_mail_tried_again() {
    for stage in STAGES {
        let peer = Peer::start(ports::local(), move |event: &Event| {
            if event.stage == stage && event.session == 0 {
                Answer::Endless
            } else {
                Answer::Accept
            }
        });
        let site = Site::start(Setup::new().smart_host(peer.address()));
        send(&site, "endless");

        peer.await_received(1);

        site.await_empty_queue();
        assert_eq!(peer.received().len(), 1, "{stage:?}");
        assert!(site.dropped("default").is_empty(), "{stage:?}: no report");
    }
}

#[test]
fn replies_that_are_none_never_count_as_success_or_as_refusal() {
    let check = |stage: Stage, words: &'static str| {
        let peer = odd_once(stage, words);
        let site = Site::start(
            Setup::new().smart_host(peer.address()).key("delivery.connections.timeout", "2s"),
        );
        send(&site, "odd");
        peer.await_received(1);
        site.await_empty_queue();
        assert!(site.dropped("default").is_empty(), "{words:?} at {stage:?}: no report");
    };
    for words in ["999 what", "OK", "2x0 hm", "250-half\r\n550 and half", "\0\0", "600 no", ""] {
        // They wait more than they work: all stages at once.
        std::thread::scope(|scope| {
            for stage in STAGES {
                scope.spawn(move || check(stage, words));
            }
        });
    }
}

#[test]
fn huge_words_of_a_remote_make_no_huge_report_and_no_header_of_their_own() {
    let line = format!("550-5.1.1 {}\r\n", "w".repeat(400));
    let words = format!("{}550 5.1.1 end\u{7}\u{1b}[2J Bcc: victim@other.test", line.repeat(100));
    let peer = Peer::start(ports::local(), move |event: &Event| {
        if event.stage == Stage::Rcpt { Answer::say(&words) } else { Answer::Accept }
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    send(&site, "huge");

    let report = site.await_dropped(1).remove(0);

    assert!(report.octets.len() < 80 << 10, "{} octets", report.octets.len());
    let clean = |octet: &u8| matches!(octet, b'\r' | b'\n' | b'\t') || !octet.is_ascii_control();
    assert!(report.octets.iter().all(clean), "{}", report.text());
    assert!(!report.text().contains("\nBcc:"), "{}", report.text());
    wait::until("one line in the log", || site.log().contains("550").then_some(()));
    for line in site.log().lines() {
        assert!(line.bytes().all(|octet| !octet.is_ascii_control()), "{line:?}");
    }
}

#[test]
fn a_421_in_mid_session_sends_the_rest_on_a_new_one_without_duplicates() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        let closes = event.stage == Stage::Mail && event.session == 0 && event.before >= 2;
        if closes { Answer::say("421 4.3.2 enough for now") } else { Answer::Accept }
    });
    let site = Site::start(
        Setup::new().smart_host(peer.address()).key("delivery.connections.per_domain", "1"),
    );
    for number in 0..10 {
        send(&site, &format!("n{number}"));
    }

    peer.await_received(10);

    site.await_empty_queue();
    let mut tags: Vec<String> = peer
        .received()
        .iter()
        .map(|message| mailroot_tests::account::tag(&message.octets))
        .collect();
    assert_eq!(tags.len(), 10);
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 10);
}
