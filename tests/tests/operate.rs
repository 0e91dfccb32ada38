//! What an operator does with mail that waits: returns it, sends it another way, while it rests and
//! while it is on its way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, wait};

/// A peer that wants no recipient yet.
fn reluctant() -> Peer {
    Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 greylisted"),
        _ => Answer::Accept,
    })
}

fn setup(peer: &Peer) -> Setup {
    Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]")
}

/// Hands in one message; its id.
fn send(site: &Site, from: &str, to: &str, tag: &str) -> String {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let reply = talk.message(from, &[to], &tagged(tag)).unwrap();
    assert_eq!(reply.code, 250);
    // `2.6.0 ID queued ...`
    reply.lines[0].split_whitespace().find(|word| word.len() == 12).unwrap().to_owned()
}

fn await_state(site: &Site, state: &str, count: usize) {
    wait::until(&format!("{count} messages that are {state}"), || {
        let rows = site.ctl(&["queue", "list", "--state", state, "-o", "name"]);
        (rows.out.lines().count() == count).then_some(())
    });
}

fn listed(site: &Site, server: &str) -> Vec<String> {
    let rows = site.ctl(&["queue", "list", "-o", "name", "--server", server]).ok();
    rows.lines().map(str::to_owned).collect()
}

/// A peer that keeps the answer to the end of each message until it is told what to say; the first
/// channel tells that a message has come.
fn hesitant() -> (Peer, Receiver<()>, Sender<Answer>) {
    let (came, comes) = mpsc::channel();
    let (say, to_say) = mpsc::channel();
    let (came, to_say) = (Mutex::new(came), Arc::new(Mutex::new(to_say)));
    let peer = Peer::start(ports::local(), move |event: &Event| match event.stage {
        Stage::End => {
            // Whoever is gone at the end of a test hears nothing.
            let _ = came.lock().unwrap().send(());
            to_say.lock().unwrap().recv().unwrap_or(Answer::Close)
        }
        _ => Answer::Accept,
    });
    (peer, comes, say)
}

#[test]
fn bounced_mail_is_returned_once_in_the_operators_words() {
    let peer = reluctant();
    let site = Site::start(setup(&peer));
    let from = format!("ada@{LOCAL_DOMAIN}");
    let id = send(&site, &from, "b@far.test", "returned");
    let other = send(&site, &from, "c@far.test", "kept");
    await_state(&site, "retry", 2);
    let _held = site.ctl(&["queue", "hold", &id]).ok();
    let _usage = site.ctl(&["queue", "bounce"]).exited(2);
    let _nothing = site.ctl(&["queue", "bounce", "--from", "nobody@*", "--yes"]).exited(3);
    let _unasked = site.ctl(&["queue", "bounce", "--all"]).exited(2);
    let two_lines = site.ctl(&["queue", "bounce", &id, "--because", "a\nb"]).exited(2);
    assert!(two_lines.err.contains("one line"), "{two_lines}");
    let planned = site.ctl(&["queue", "bounce", "--all", "--dry-run"]);
    assert!(planned.err.contains("would bounce 2 messages"), "{planned}");
    let _done = site.ctl(&["queue", "bounce", &id, "--because", "attachment not allowed"]).ok();

    let report = &site.await_dropped(1)[0];
    let text = report.text();
    assert!(text.contains("Status: 5.7.1") && text.contains("attachment not allowed"), "{text}");
    assert!(text.contains("Final-Recipient: rfc822; b@far.test"), "{text}");
    site.logged(&["event=return-ordered", &id, "actor="]);
    site.logged(&["event=bounced", &id, "reason=operator"]);
    wait::until("the other one alone", || (listed(&site, "default") == [&*other]).then_some(()));
    let _gone = site.ctl(&["queue", "bounce", &id]).exited(3);
    assert_eq!(site.dropped("default").len(), 1);
}

#[test]
fn bounced_mail_of_the_null_sender_goes_to_badmail() {
    let peer = reluctant();
    let site = Site::start(setup(&peer));
    let id = send(&site, "", "b@far.test", "report");
    await_state(&site, "retry", 1);
    let _done = site.ctl(&["queue", "bounce", &id]).ok();
    let kept = wait::until("a message in Badmail", || {
        let kept = site.control().json(&["badmail", "list"]);
        (!kept[0].is_null()).then_some(kept)
    });
    assert_eq!(kept[0]["id"], *id);
    assert!(kept[0]["detail"].as_str().unwrap().contains("5.7.1"), "{kept}");
    assert!(listed(&site, "default").is_empty());
}

#[test]
fn redirected_mail_goes_by_the_chosen_host_also_after_a_restart() {
    let (peer, hub) = (reluctant(), reluctant());
    let site = Site::start(setup(&peer));
    let id = send(&site, "a@client.test", "b@far.test", "moved");
    await_state(&site, "retry", 1);
    let host = format!("[{}]:{}", hub.address().ip(), hub.address().port());
    let _none = site.ctl(&["queue", "redirect", &id]).exited(2);
    let _bad = site.ctl(&["queue", "redirect", &id, "--to-host", "127.0.0.1"]).exited(2);
    let _done = site.ctl(&["queue", "redirect", &id, "--to-host", &host]).ok();
    wait::until("an attempt at the hub", || (!hub.attempts().is_empty()).then_some(()));
    let shown = site.ctl(&["queue", "show", &id]).ok();
    assert!(shown.contains(&format!("by host:{host}")), "{shown}");
    assert_eq!(site.ctl(&["queue", "list", "--domain", "far.test", "-o", "name"]).ok().trim(), id);
    hub.behave(|_| Answer::Accept);
    site.kill();
    site.launch_again();
    // If the outcome was not recorded before the end, it goes by itself.
    let _now = site.ctl(&["queue", "retry", &id]);
    assert_eq!(hub.await_received(1)[0].recipients(), ["b@far.test"]);
    let _new = send(&site, "a@client.test", "b@far.test", "new");
    await_state(&site, "retry", 1);
    assert_eq!(hub.received().len(), 1, "new mail goes as before");
    site.logged(&["event=redirected", &id, "actor="]);
}

#[test]
fn redirected_mail_goes_to_the_chosen_address_or_server() {
    let peer = reluctant();
    let two = ServerFile::new("lan").only_domains(&["{name: lan.test, type: default}"]);
    let site = Site::start(setup(&peer).with(two));
    let id = send(&site, "a@client.test", "b@far.test", "readdressed");
    let other = send(&site, "a@client.test", "c@lan.test", "handed over");
    await_state(&site, "retry", 2);
    let to = format!("new@{LOCAL_DOMAIN}");
    let _done = site.ctl(&["queue", "redirect", &id, "--to-address", &to]).ok();
    let dropped = &site.await_dropped(1)[0];
    assert_eq!(dropped.fields("X-Receiver"), [to]);
    let same = site.ctl(&["queue", "redirect", &other, "--to-server", "default"]).exited(1);
    assert!(same.err.contains("already"), "{same}");
    let _absent = site.ctl(&["queue", "redirect", &other, "--to-server", "wan"]).exited(3);
    let _done = site.ctl(&["queue", "redirect", &other, "--to-server", "lan"]).ok();
    wait::until("the message in Drop of the other server", || site.dropped("lan").pop());
    site.await_empty_queue();
}

#[test]
fn a_removal_of_a_message_on_its_way_counts_when_the_attempt_ends() {
    let (peer, comes, say) = hesitant();
    let site = Site::start(setup(&peer));
    let id = send(&site, &format!("ada@{LOCAL_DOMAIN}"), "b@far.test", "removed");
    comes.recv().unwrap();
    let _done = site.ctl(&["queue", "remove", &id]).ok();
    assert!(listed(&site, "default").is_empty(), "it is gone for everybody who looks");
    say.send(Answer::say("451 4.3.0 not now")).unwrap();
    site.logged(&["event=deferred", &id]);
    let _flushed = site.ctl(&["queue", "flush"]);
    site.kill();
    site.launch_again();
    assert!(listed(&site, "default").is_empty(), "it does not come back");
    assert!(site.dropped("default").is_empty(), "nobody is told");
}

#[test]
fn a_return_of_a_message_on_its_way_counts_when_the_attempt_ends() {
    let (peer, comes, say) = hesitant();
    let site = Site::start(setup(&peer));
    let from = format!("ada@{LOCAL_DOMAIN}");
    let late = send(&site, &from, "b@far.test", "late");
    comes.recv().unwrap();
    let _done = site.ctl(&["queue", "bounce", &late, "--because", "no"]).ok();
    assert_eq!(listed(&site, "default"), [late], "its attempt has not ended");
    say.send(Answer::say("451 4.3.0 not now")).unwrap();
    let report = site.await_dropped(1).remove(0).text();
    assert!(report.contains("Status: 5.7.1"), "{report}");

    // What was delivered was delivered: nobody is told that it was not.
    let quick = send(&site, &from, "c@far.test", "quick");
    comes.recv().unwrap();
    let _done = site.ctl(&["queue", "bounce", &quick]).ok();
    say.send(Answer::Accept).unwrap();
    site.logged(&["event=delivered", &quick]);
    site.await_empty_queue();
    assert_eq!(site.dropped("default").len(), 1);
}

#[test]
fn a_paused_destination_is_left_alone_until_it_is_resumed() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer));
    let host = format!("[{}]", peer.address().ip());
    let _paused =
        site.ctl(&["queue", "pause", "--destination", &host, "--reason", "new hardware"]).ok();
    let id = send(&site, "a@client.test", "b@far.test", "waits");
    let _local = send(&site, "a@client.test", &format!("b@{LOCAL_DOMAIN}"), "goes");
    let _goes = site.await_dropped(1);
    wait::until("the paused one alone", || (listed(&site, "default") == [&*id]).then_some(()));
    let flushed = site.ctl(&["queue", "flush"]);
    assert!(flushed.err.contains("stays paused"), "{flushed}");
    let listed_row = &site.control().json(&["queue", "list"])[0];
    assert!(listed_row["reason"].as_str().unwrap().contains("new hardware"), "{listed_row}");
    let summary = site.control().json(&["queue", "summary", "--by", "reason"]);
    assert!(summary[0]["group"].as_str().unwrap().contains("paused by"), "{summary}");
    let status = site.ctl(&["status"]).ok();
    assert!(status.contains("paused") && status.contains(&host), "{status}");
    site.kill();
    site.launch_again();
    let kept = site.control().json(&["queue", "pause", "--list"]);
    assert_eq!(
        (kept[0]["destination"].as_str(), kept[0]["messages"].as_u64()),
        (Some(&*host), Some(1))
    );
    let _other = site.ctl(&["queue", "resume", "--destination", "elsewhere"]).exited(3);
    assert_eq!(listed(&site, "default"), [id]);
    assert!(peer.attempts().is_empty(), "nobody was asked");
    let _resumed = site.ctl(&["queue", "resume", "--destination", &host]).ok();
    peer.await_received(1);
    site.await_empty_queue();
    site.logged(&["event=destination-paused", "actor="]);
    site.logged(&["event=destination-resumed", "actor="]);
}

#[test]
fn a_pause_ends_by_itself() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer));
    let _bad = site.ctl(&["queue", "pause", "--destination", "*", "--for", "soon"]).exited(2);
    let _paused = site.ctl(&["queue", "pause", "--destination", "*", "--for", "1s"]).ok();
    let _id = send(&site, "a@client.test", "b@far.test", "late");
    peer.await_received(1);
    assert_eq!(site.ctl(&["queue", "pause", "--list", "-o", "json"]).ok().trim(), "[]");
}

#[test]
fn mail_yet_to_come_is_held_by_a_rule() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer));
    let _none = site.ctl(&["queue", "hold", "--future"]).exited(2);
    let _other = site.ctl(&["queue", "hold", "--future", "--subject", "x"]).exited(2);
    let _rule = site
        .ctl(&["queue", "hold", "--future", "--from", "mfp@*", "--because", "check with legal"])
        .ok();
    let held = send(&site, "mfp@client.test", "b@far.test", "held");
    let _goes = send(&site, "a@client.test", "b@far.test", "goes");
    peer.await_received(1);
    await_state(&site, "held", 1);
    site.logged(&["event=held", &held, "check with legal"]);
    site.kill();
    site.launch_again();
    await_state(&site, "held", 1);
    let shown = site.ctl(&["queue", "show", &held]).ok();
    assert!(shown.contains("check with legal"), "{shown}");
    let rules = site.control().json(&["queue", "hold", "--list"]);
    let rule = rules[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(rules[0]["selector"]["from"], "mfp@*");
    let _absent = site.ctl(&["queue", "release", "--future", "0000ZZZZ0000"]).exited(3);
    let _ended = site.ctl(&["queue", "release", "--future", &rule]).ok();
    assert_eq!(site.ctl(&["queue", "hold", "--list", "-o", "json"]).ok().trim(), "[]");
    let _next = send(&site, "mfp@client.test", "b@far.test", "no longer held");
    peer.await_received(2);
    let _released = site.ctl(&["queue", "release", &held]).ok();
    peer.await_received(3);
}

#[test]
fn exported_mail_is_adopted_by_another_queue_or_taken_by_pickup() {
    let peer = reluctant();
    let two = ServerFile::new("lan").only_domains(&["{name: lan.test, type: default}"]);
    let site = Site::start(setup(&peer).with(two));
    let mut first = send(&site, "a@client.test", "b@lan.test", "first");
    let null = send(&site, "", "c@lan.test", "second");
    await_state(&site, "retry", 2);
    let place = |name: &str| site.home().join(name).display().to_string();
    let _nowhere = site.ctl(&["queue", "export", "--all"]).exited(2);
    let _nothing = site.ctl(&["queue", "export", "--dir", &place("out")]).exited(2);
    let _dry = site.ctl(&["queue", "export", "--all", "--dir", &place("out"), "--dry-run"]).ok();
    assert!(!site.home().join("out").exists());

    let _mbox = site.ctl(&["queue", "export", "--all", "--mbox", &place("all.mbox")]).ok();
    let mbox = std::fs::read_to_string(place("all.mbox")).unwrap();
    assert_eq!(mbox.lines().filter(|line| line.starts_with("From ")).count(), 2, "{mbox}");
    let again = site.ctl(&["queue", "export", "--all", "--mbox", &place("all.mbox")]).exited(1);
    assert!(again.err.contains("nothing is replaced"), "{again}");
    let _tar = site.ctl(&["queue", "export", &first, "--tar", &place("one.tar")]).ok();
    let listing = std::process::Command::new("tar").arg("tf").arg(place("one.tar")).output();
    let names = String::from_utf8(listing.unwrap().stdout).unwrap();
    assert_eq!(names.trim(), format!("{first}.eml"));
    let piped = site.ctl(&["queue", "export", &first, "--tar", "-"]);
    assert!(piped.code == 0 && piped.out.starts_with(&first), "{piped}");

    let out = ["queue", "export", "--all", "--dir", &place("out"), "--remove"];
    let _unasked = site.ctl(&out).exited(2);
    let mut sure = out.to_vec();
    sure.push("--yes");
    let _done = site.ctl(&sure).ok();
    assert!(listed(&site, "default").is_empty());
    let text = std::fs::read_to_string(site.home().join(format!("out/{null}.eml"))).unwrap();
    assert!(text.starts_with("X-Sender: <>\r\nX-Receiver: c@lan.test\r\n"), "{text}");

    std::fs::write(site.home().join("out/bad.eml"), "this is no message\n").unwrap();
    let _dry = site.ctl(&["queue", "adopt", &place("out"), "--server", "lan", "--dry-run"]).ok();
    let partly = site.ctl(&["queue", "adopt", &place("out"), "--server", "lan"]).exited(8);
    assert!(partly.err.contains("bad.eml: line 1"), "{partly}");
    wait::until("both in Drop", || (site.dropped("lan").len() == 2).then_some(()));
    let mut dropped = site.dropped("lan");
    let was: Vec<String> =
        dropped.iter_mut().flat_map(|it| it.fields("X-Mailroot-Previous-Id")).collect();
    assert!(was.contains(&first) && was.contains(&null), "{was:?}");
    let left: Vec<_> = std::fs::read_dir(place("out")).unwrap().collect();
    assert_eq!(left.len(), 1, "what could not be adopted is left");
    let _failed = site.ctl(&["queue", "adopt", &place("out"), "--server", "lan"]).exited(1);
    let _empty = site.ctl(&["queue", "adopt", &place("etc")]).exited(3);
    site.logged(&["event=adopted", "actor="]);

    first = send(&site, "a@client.test", "d@lan.test", "third");
    await_state(&site, "retry", 1);
    let _done = site.ctl(&["queue", "export", &first, "--dir", &place("out"), "--remove"]).ok();
    let file = format!("{first}.eml");
    let pickup = site.spool("lan", "Pickup").join(&file);
    std::fs::rename(site.home().join("out").join(&file), pickup).unwrap();
    wait::until("the third in Drop", || (site.dropped("lan").len() == 3).then_some(()));
}

#[test]
fn the_service_is_paused_resumed_and_drained() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer));
    let state = || site.control().json(&["status"])["servers"][0]["state"].clone();
    let _paused = site.ctl(&["service", "pause", "--outbound", "--local"]).ok();
    assert_eq!(state(), "running");
    let _id = send(&site, "a@client.test", "b@far.test", "remote");
    let _local = send(&site, "a@client.test", &format!("b@{LOCAL_DOMAIN}"), "local");
    let _other = site.ctl(&["queue", "pause", "--destination", "other.test"]).ok();
    let late = site.ctl(&["service", "drain", "--wait=1s"]).exited(9);
    assert!(late.err.contains("2 messages left"), "{late}");
    assert!(late.err.contains("* stays paused") && late.err.contains("drop stays"), "{late}");
    assert_eq!(state(), "paused");
    let _resumed = site.ctl(&["service", "resume", "--outbound", "--local"]).ok();
    let _drained = site.ctl(&["service", "drain", "--wait"]).ok();
    assert_eq!((peer.received().len(), site.dropped("default").len()), (1, 1));
    let _resumed = site.ctl(&["service", "resume"]).ok();
    assert_eq!(state(), "running");
    let kept = site.control().json(&["queue", "pause", "--list"]);
    assert_eq!(kept[0]["destination"], "other.test", "the pause of one destination stays");

    let _bad = site.ctl(&["service", "pause", "--for", "soon"]).exited(2);
    let _absent = site.ctl(&["service", "pause", "--server", "wan"]).exited(3);
    let _short = site.ctl(&["service", "pause", "--inbound", "--for", "1s", "--reason", "x"]).ok();
    assert_eq!(state(), "paused");
    wait::until("the end of the pause", || (state() == "running").then_some(()));
    site.logged(&["event=server", "verb=resume", "actor=mailroot"]);
}

#[test]
fn badmail_is_counted_and_exported() {
    let peer = reluctant();
    let site = Site::start(setup(&peer));
    let id = send(&site, "", "b@far.test", "report");
    await_state(&site, "retry", 1);
    let _done = site.ctl(&["queue", "bounce", &id]).ok();
    std::fs::write(site.spool("default", "Pickup").join("bad.eml"), "no message\n").unwrap();
    wait::until("both in Badmail", || {
        (site.ctl(&["badmail", "list", "-o", "name"]).out.lines().count() == 2).then_some(())
    });
    let stats = site.control().json(&["badmail", "stats"]);
    let reasons: Vec<_> =
        stats.as_array().unwrap().iter().map(|row| row["reason"].clone()).collect();
    assert_eq!(reasons.len(), 2, "{stats}");
    assert_eq!(site.ctl(&["badmail", "stats", "--from", "x@*", "-o", "json"]).ok().trim(), "[]");
    let out = site.home().join("out").display().to_string();
    let _usage = site.ctl(&["badmail", "export", "--dir", &out]).exited(2);
    let _done = site.ctl(&["badmail", "export", "--all", "--dir", &out]).ok();
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2);
    let text = std::fs::read_to_string(format!("{out}/{id}.eml")).unwrap();
    assert!(text.starts_with("X-Sender: <>\r\nX-Receiver: b@far.test\r\n"), "{text}");
    let _again = site.ctl(&["badmail", "export", &id, "--dir", &out]).exited(1);
}

#[test]
fn drop_is_listed_shown_and_purged() {
    let site = Site::start(setup(&reluctant()));
    let to = format!("b@{LOCAL_DOMAIN}");
    let first = send(&site, "a@client.test", &to, "first");
    let _second = send(&site, "", &to, "second");
    let _both = site.await_dropped(2);
    let rows = site.control().json(&["drop", "list"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    let mine = site.ctl(&["drop", "list", "--from", "a@*", "-o", "name"]).ok();
    assert_eq!(mine.trim(), first);
    assert_eq!(site.ctl(&["drop", "list", "--domain", "x.test", "-o", "json"]).ok().trim(), "[]");
    let shown = site.ctl(&["drop", "show", &first]).ok();
    assert!(shown.contains("a@client.test") && shown.contains(&to), "{shown}");
    let content = site.ctl(&["drop", "show", &first, "--content"]).ok();
    assert!(content.contains("X-Tag: first"), "{content}");
    let _usage = site.ctl(&["drop", "purge"]).exited(2);
    let _unasked = site.ctl(&["drop", "purge", "--all"]).exited(2);
    let _young = site.ctl(&["drop", "purge", "--older-than", "1h", "--yes"]).exited(3);
    let _dry = site.ctl(&["drop", "purge", "--all", "--dry-run"]).ok();
    let _one = site.ctl(&["drop", "purge", &first]).ok();
    assert_eq!(site.dropped("default").len(), 1);
    let _all = site.ctl(&["drop", "purge", "--all", "--yes"]).ok();
    assert!(site.dropped("default").is_empty());
    let _absent = site.ctl(&["drop", "show", &first]).exited(3);
    site.logged(&["event=drop-removed", &first, "actor="]);
}

#[test]
fn pickup_is_listed_and_files_are_checked_before_they_are_put_there() {
    let site = Site::start(setup(&reluctant()));
    let pickup = site.spool("default", "Pickup");
    std::fs::write(pickup.join("draft.tmp"), "From: a@x.test\n").unwrap();
    std::fs::create_dir(pickup.join("folder")).unwrap();
    let listed = wait::until("files in Pickup", || {
        let listed = site.control().json(&["pickup", "list"]);
        let rows = listed.as_array().map(Vec::len);
        (rows == Some(2) && listed.to_string().contains("left")).then_some(listed)
    });
    assert!(listed.to_string().contains("uid"), "{listed}");
    let good = site.home().join("good.eml");
    let text = format!("From: a@x.test\nTo: b@far.test, c@{LOCAL_DOMAIN}\nSubject: x\n\nbody\n");
    std::fs::write(&good, &text).unwrap();
    let good = good.display().to_string();
    let checked = site.ctl(&["pickup", "check", &good]).ok();
    assert!(checked.contains("c@") && checked.contains("by drop"), "{checked}");
    assert!(checked.contains("no Date: one will be added"), "{checked}");
    let json = site.control().input(&text).json(&["pickup", "check", "-"]);
    assert_eq!(json[0]["from"], "a@x.test");
    let bad = site.control().input("no message\n").run(&["pickup", "check", "-", &good]);
    assert!(bad.code == 10 && bad.err.contains("line 1"), "{bad}");
    assert!(site.ctl(&["queue", "list", "-o", "name"]).ok().is_empty(), "nothing is sent");
}

#[test]
fn a_session_is_shown_while_it_lives() {
    let site = Site::start(setup(&reluctant()));
    let mut talk = site.talk();
    talk.expect("EHLO printer.test", 250);
    let port = talk.local().port();
    let rows = wait::until("the session", || {
        let rows = site.control().json(&["session", "list"]);
        rows.to_string().contains("printer.test").then_some(rows)
    });
    let mine =
        |row: &&serde_json::Value| row["peer"].as_str().unwrap().ends_with(&port.to_string());
    let id = rows.as_array().unwrap().iter().find(mine).unwrap()["id"].as_str().unwrap().to_owned();
    let shown = site.ctl(&["session", "show", &id]).ok();
    assert!(shown.contains("printer.test") && shown.contains(&port.to_string()), "{shown}");
    assert_eq!(site.control().json(&["session", "show", &id])["direction"], "in");
    talk.expect("QUIT", 221);
    wait::until("its end", || (site.ctl(&["session", "show", &id]).code == 3).then_some(()));
    let _usage = site.ctl(&["session", "show", "x"]).exited(2);
}

#[test]
fn counters_have_the_names_of_the_original() {
    let site = Site::start(setup(&reluctant()));
    let _sent = send(&site, "a@client.test", &format!("b@{LOCAL_DOMAIN}"), "first");
    let _dropped = site.await_dropped(1);
    let value = |counter: &str| {
        let rows = site.control().json(&["stats", "--iis-names", "-s", "default"]);
        let all = rows.as_array().unwrap();
        let row = all.iter().find(|row| row["counter"] == counter).unwrap();
        assert_eq!(row["instance"], "default");
        row["value"].as_u64().unwrap()
    };
    assert_eq!(value("Messages Received Total"), 1);
    assert_eq!(value("Messages Delivered Total"), 1);
    assert_eq!(value("Pickup Directory Messages Retrieved Total"), 0);
    assert!(value("Inbound Connections Total") >= 1);
    let all = site.control().json(&["stats", "--by", "service"]);
    assert_eq!((&all[0]["group"], &all[0]["sent"]), (&"service".into(), &1.into()), "{all}");
    assert!(all[0]["p99"].is_number() || all[0]["p99"].is_string(), "{all}");
}
