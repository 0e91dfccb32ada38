//! What senders want of time and order: by when, not before when, before or after other mail. The clients
//! are Python's smtplib and our own dialogues, the next hops a second Mailroot and scripted hosts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::program;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::wait;

/// Sends one message with these parameters of MAIL; returns the reply to MAIL and the message's id.
fn send(site: &Site, parameters: &str, to: &str, tag: &str) -> (String, String) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let mail = talk.expect(&format!("MAIL FROM:<ops@{LOCAL_DOMAIN}> {parameters}"), 250);
    talk.expect(&format!("RCPT TO:<{to}>"), 250);
    talk.expect("DATA", 354);
    talk.send(&tagged(tag)).unwrap();
    let end = talk.say(".").to_string();
    let id =
        end.split_whitespace().find(|word| word.len() == 12).unwrap_or_else(|| panic!("{end}"));
    (mail.to_string(), id.to_owned())
}

/// A second Mailroot to which all mail of the first goes.
fn next_hop() -> Site {
    Site::start(Setup::new().only_domains(&["{name: far.test, type: default}"]))
}

#[test]
fn mail_that_is_wanted_back_rather_than_late_comes_back_in_time() {
    // Nobody listens there: the destination backs off, and the deadline comes in between.
    let nobody = ports::local();
    let setup = Setup::new().smart_host(nobody).key("delivery.outbound.retry", "[1h]");
    let site = Site::start(setup);
    let (_, id) = send(&site, "BY=2;R", "x@far.test", "late");

    let report = site.await_dropped(1).remove(0).text();

    for part in ["Action: failed", "Status: 5.4.7", "Deliver-By-Date: ", "x@far.test"] {
        assert!(report.contains(part), "{part}: {report}");
    }
    site.await_empty_queue();
    site.logged(&["event=expired", &id, "reason=deadline"]);
    let story = site.ctl(&["trace", &id]).ok();
    assert!(story.contains("else returned"), "{story}");
}

#[test]
fn a_deadline_is_met_though_the_daemon_was_down_when_it_came() {
    let setup = Setup::new().smart_host(ports::local()).key("delivery.outbound.retry", "[1h]");
    let site = Site::start(setup);
    let (_, id) = send(&site, "BY=1;R", "x@far.test", "asleep");
    site.kill();
    site.launch_again();

    let report = site.await_dropped(1).remove(0).text();

    assert!(report.contains("Status: 5.4.7") && report.contains(&id), "{report}");
    site.await_empty_queue();
}

#[test]
fn of_mail_that_is_late_the_sender_is_told_and_it_goes_on() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        if event.stage == Stage::Rcpt { Answer::say("451 4.7.1 not yet") } else { Answer::Accept }
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    send(&site, "BY=1;N", "x@far.test", "slow");

    let report = site.await_dropped(1).remove(0).text();

    for part in ["Action: delayed", "Status: 4.4.7", "Deliver-By-Date: "] {
        assert!(report.contains(part), "{part}: {report}");
    }
    peer.behave(|_: &Event| Answer::Accept);
    peer.await_received(1);
    site.await_empty_queue();
    let reports = site.dropped("default");
    let kinds: Vec<String> = reports.iter().map(|report| report.text()).collect();
    let of = |word: &str| kinds.iter().filter(|text| text.contains(word)).count();
    assert_eq!((of("Action: delayed"), of("Action: relayed")), (1, 1), "{kinds:?}");
    assert!(!peer.received()[0].mail.contains("BY="), "{}", peer.received()[0].mail);
}

#[test]
fn the_time_that_is_left_is_passed_on_and_each_hop_is_told_of() {
    let far = next_hop();
    let site = Site::start(Setup::new().smart_host(far.address()));
    send(&site, "BY=3600;RT", "x@far.test", "passed-on");

    let arrived = far.await_dropped(1).remove(0);

    assert!(arrived.text().contains("passed-on"));
    let line = far.logged(&["event=received", "wishes="]);
    assert!(line.contains("else returned, traced"), "{line}");
    let report = site.await_dropped(1).remove(0).text();
    assert!(report.contains("Action: relayed"), "{report}");
    site.await_empty_queue();
}

#[test]
fn a_host_that_knows_no_deadlines_gets_no_mail_that_has_one() {
    let peer = Peer::start(ports::local(), |_: &Event| Answer::Accept);
    let site = Site::start(Setup::new().smart_host(peer.address()));
    send(&site, "BY=3600;R", "x@far.test", "strict");

    let report = site.await_dropped(1).remove(0).text();

    assert!(report.contains("Action: failed") && report.contains("Status: 5.3.3"), "{report}");
    assert!(report.contains("DELIVERBY"), "{report}");
    site.await_empty_queue();
    assert_eq!(peer.received().len(), 0);
}

#[test]
fn mail_for_later_waits_survives_and_is_released_by_hand() {
    let peer = Peer::start(ports::local(), |_: &Event| Answer::Accept);
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let (_, id) = send(&site, "HOLDFOR=86400", "x@far.test", "tomorrow");
    wait::until("the reason why it waits", || {
        site.ctl(&["trace", &id]).out.contains("and not before").then_some(())
    });
    site.kill();
    site.launch_again();
    // What is sent after it arrives before it: so it was not merely slow.
    send(&site, "", "y@far.test", "today");
    peer.await_received(1);

    let shown = wait::until("the message after the restart", || {
        let shown = site.ctl(&["queue", "show", &id]);
        (shown.code == 0).then_some(shown.out)
    });

    assert!(
        shown.contains("not before") && shown.contains("its sender wants it sent at"),
        "{shown}"
    );
    let listed = site.ctl(&["queue", "list", "--reason", "its sender wants"]).ok();
    assert!(listed.contains(&id), "{listed}");
    assert_eq!(peer.received().len(), 1, "it was not tried");
    let _released = site.ctl(&["queue", "retry", &id]).ok();
    peer.await_received(2);
    site.await_empty_queue();
    assert!(!peer.received()[1].mail.contains("HOLD"), "{}", peer.received()[1].mail);
}

#[test]
fn mail_for_later_goes_by_itself_when_its_time_has_come() {
    let peer = Peer::start(ports::local(), |_: &Event| Answer::Accept);
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let (_, id) = send(&site, "HOLDFOR=3", "x@far.test", "soon");
    send(&site, "", "y@far.test", "now");

    peer.await_received(2);

    let order: Vec<String> =
        peer.received().iter().map(|it| it.recipients()[0].to_owned()).collect();
    assert_eq!(order, ["y@far.test", "x@far.test"]);
    site.logged(&["event=delivered", &id]);
}

#[test]
fn only_who_may_relay_is_offered_to_have_mail_held() {
    let offers = |setup: Setup| {
        let site = Site::start(setup);
        let reply = site.talk().expect("EHLO client.test", 250).to_string();
        ["FUTURERELEASE", "DELIVERBY", "MT-PRIORITY"].map(|word| reply.contains(word))
    };
    assert_eq!(offers(Setup::new()), [true; 3]);
    assert_eq!(offers(Setup::new().key("access.relay.list", "[]")), [false, true, true]);
    assert_eq!(offers(Setup::new().key("messages.future_release", "0s")), [false, true, true]);
    let extensions = Setup::new().key("general.extensions", "[SIZE, FUTURERELEASE]");
    assert_eq!(offers(extensions), [true, false, false]);
}

#[test]
fn higher_priority_leaves_first_and_strangers_cannot_raise_theirs() {
    let peer = Peer::start(ports::local(), |_: &Event| Answer::Accept);
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let _paused = site.ctl(&["queue", "pause", "--destination", "*"]).ok();
    for (number, priority) in [("1", 0), ("2", -9), ("3", 9), ("4", 0), ("5", 2)] {
        let to = format!("{number}@far.test");
        send(&site, &format!("MT-PRIORITY={priority}"), &to, number);
    }
    let (_, id) = send(&site, "MT-PRIORITY=1", "6@far.test", "6");
    let shown = site.ctl(&["queue", "show", &id]).ok();
    assert!(shown.contains("priority    1"), "{shown}");
    let _resumed = site.ctl(&["queue", "resume", "--destination", "*"]).ok();

    peer.await_received(6);

    let order: Vec<String> =
        peer.received().iter().map(|it| it.recipients()[0][..1].to_owned()).collect();
    assert_eq!(order.concat(), "356142");

    let closed = Site::start(Setup::new().key("access.relay.list", "[]"));
    let (mail, id) = send(&closed, "MT-PRIORITY=9", &format!("x@{LOCAL_DOMAIN}"), "pushy");
    assert!(mail.contains("2.3.6") && mail.contains("lowered to 0"), "{mail}");
    let line = closed.logged(&["event=received", &id]);
    assert!(!line.contains("priority"), "{line}");
}

#[test]
fn smtplib_sends_with_all_of_it_and_the_next_hop_hears_what_concerns_it() {
    let Some(python) = program::find("python3") else {
        return skip::note("Python", "python3 is not installed");
    };
    let far = next_hop();
    let site = Site::start(Setup::new().smart_host(far.address()));
    let program = format!(
        "import smtplib\n\
         s = smtplib.SMTP('{}', {})\n\
         s.ehlo()\n\
         for word in ('deliverby', 'futurerelease', 'mt-priority'): assert s.has_extn(word), word\n\
         s.sendmail('ops@{LOCAL_DOMAIN}', ['x@far.test'], 'Subject: wishes\\r\\n\\r\\nx\\r\\n',\n\
         \x20   mail_options=['BY=3600;N', 'HOLDFOR=1', 'MT-PRIORITY=-4'])\n\
         s.quit()\n",
        site.address().ip(),
        site.address().port(),
    );
    let _sent = program::run(Command::new(python).args(["-c", &program]), b"").ok();

    assert!(far.await_dropped(1)[0].text().contains("Subject: wishes"));

    let arrived = far.dropped("default").remove(0);
    let trace = arrived.fields("Received").concat();
    assert_eq!(trace.matches("PRIORITY -4").count(), 2, "each hop names it: {trace}");
    let line = far.logged(&["event=received", "wishes="]);
    assert!(line.contains("priority -4") && line.contains("the sender is told"), "{line}");
    assert!(!line.contains("not before"), "{line}");
    site.await_empty_queue();
}

#[test]
fn send_hands_wishes_over_and_says_what_is_not_offered() {
    let peer = Peer::start(ports::local(), |_: &Event| Answer::Accept);
    let setup = Setup::new().smart_host(peer.address()).key("messages.deliver_by_min", "1m");
    let site = Site::start(setup);
    let send = |more: &[&str]| {
        let line = [&["send", "--to", "x@far.test"][..], more].concat();
        site.ctl(&line)
    };
    send(&["--at", "1d", "--priority", "-4"]).ok();
    let line = site.logged(&["event=received", "wishes="]);
    assert!(line.contains("not before") && line.contains("priority -4"), "{line}");
    send(&["--at", "2040-01-01T00:00:00Z"]).exited(1);
    let refused = send(&["--by", "59s"]).exited(1).err;
    assert!(refused.contains("is not taken"), "{refused}");
    send(&["--by", "2h"]).ok();
    let report = site.logged(&["event=received", "else returned"]);
    assert!(report.contains("wishes="), "{report}");
    send(&["--at", "soon"]).exited(2);
    send(&["--priority", "10"]).exited(2);

    let offered = site.talk().expect("EHLO client.test", 250).to_string();
    assert!(offered.contains("DELIVERBY 60"), "{offered}");
    let strangers = Site::start(Setup::new().key("access.relay.list", "[]"));
    let to = format!("x@{LOCAL_DOMAIN}");
    let refused = strangers.ctl(&["send", "--to", &to, "--at", "1d"]).exited(1).err;
    assert!(refused.contains("does not offer FUTURERELEASE"), "{refused}");
}
