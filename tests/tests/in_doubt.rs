//! Recipients in doubt: the whole message was sent, and nobody answered.
//!
//! The peer takes every octet and says nothing; then the connection dies, or we do. The recipient is in
//! doubt from then on: shown, counted, and treated as the configuration says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, wait};

/// A peer that gives this answer to the end of the first message and takes all others. The number says
/// how many ends it has seen.
fn peer_that_first(answer: Answer) -> (Peer, Arc<AtomicUsize>) {
    let ends = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&ends);
    let behaviour = move |event: &Event| match event.stage {
        Stage::End if seen.fetch_add(1, Ordering::SeqCst) == 0 => answer.clone(),
        _ => Answer::Accept,
    };
    (Peer::start(ports::local(), behaviour), ends)
}

fn counter(site: &Site, name: &str) -> u64 {
    site.control().json(&["server", "show", "default"])["counters"][name].as_u64().unwrap()
}

/// Sends one message and waits until the peer has all of it; returns its id.
fn send(site: &Site, ends: &AtomicUsize, from: &str) -> String {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let reply = talk.message(from, &["b@far.test"], &tagged("doubtful")).unwrap();
    assert_eq!(reply.code, 250);
    wait::until("the end of the message", || (ends.load(Ordering::SeqCst) > 0).then_some(()));
    // `2.6.0 ID queued ...`
    reply.lines[0].split_whitespace().find(|word| word.len() == 12).unwrap().to_owned()
}

#[test]
fn our_own_death_before_the_answer_leaves_the_recipient_in_doubt() {
    let (peer, ends) = peer_that_first(Answer::Silence);
    let site = Site::start(
        Setup::new().smart_host(peer.address()).key("delivery.outbound.in_doubt", "hold"),
    );
    let id = send(&site, &ends, "a@client.test");
    site.kill();
    site.launch();
    wait::until("the doubt", || {
        let listed = site.ctl(&["queue", "list", "--state", "in_doubt", "-o", "name"]);
        (listed.out.trim() == id).then_some(())
    });
    let shown = wait::until("the decision", || {
        let shown = site.ctl(&["queue", "show", &id]).ok();
        shown.contains("waits for an operator").then_some(shown)
    });
    assert!(shown.contains("this service ended before the host had answered"), "{shown}");
    assert_eq!(counter(&site, "recipients_in_doubt"), 1);
    let log = site.log();
    assert!(log.contains(&format!("event=in_doubt level=warn id={id}")), "{log}");

    // An operator who knows better has it tried.
    assert_eq!(site.ctl(&["queue", "retry", &id]).code, 0);
    wait::until("an empty queue", || {
        site.ctl(&["queue", "list", "-o", "name"]).ok().is_empty().then_some(())
    });
    assert_eq!(peer.with_received(|received| received.len()), 1);
}

#[test]
fn our_own_death_before_the_answer_is_followed_by_another_attempt_unless_told_otherwise() {
    let (peer, ends) = peer_that_first(Answer::Silence);
    let site = Site::start(Setup::new().smart_host(peer.address()));
    send(&site, &ends, "a@client.test");
    site.kill();
    site.launch();
    wait::until("the message", || {
        (peer.with_received(|received| received.len()) == 1).then_some(())
    });
    assert_eq!(counter(&site, "recipients_in_doubt"), 1);
}

#[test]
fn a_sender_who_is_to_decide_learns_that_it_is_not_known() {
    let (peer, ends) = peer_that_first(Answer::AcceptAndClose);
    let site = Site::start(
        Setup::new().smart_host(peer.address()).key("delivery.outbound.in_doubt", "return"),
    );
    send(&site, &ends, &format!("a@{LOCAL_DOMAIN}"));
    let report = wait::until("the report", || site.dropped("default").into_iter().next());
    let report = String::from_utf8_lossy(&report.octets).into_owned();
    assert!(report.contains("It is not known whether your message has reached"), "{report}");
    assert!(report.contains("Final-Recipient: rfc822; b@far.test"), "{report}");
    assert_eq!(ends.load(Ordering::SeqCst), 1, "it was not tried again");
}
