//! Disks that are full, refuse or break: the client hears 4xx, nothing accepted is lost, and work goes on
//! without a restart as soon as the disk can.
//!
//! Full disks are small volumes that are really full. A disk that refuses single calls is strace, which
//! answers them instead of the kernel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use mailroot_tests::account::{arrived, tag};
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Peer, Stage};
use mailroot_tests::program::{Tracer, find};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::{Reply, Talk, stuffed};
use mailroot_tests::volume::{Kind, Volume};
use mailroot_tests::{ports, skip, wait};

/// Octets of a body that lies in a file of its own.
const LARGE: usize = 300 << 10;

fn padded(tag: &str, octets: usize) -> Vec<u8> {
    [tagged(tag), b"0123456789\r\n".repeat(octets / 12)].concat()
}

fn greeted(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk
}

fn send(site: &Site, to: &str, octets: &[u8]) -> Reply {
    greeted(site).message("a@client.test", &[to], octets).unwrap()
}

#[track_caller]
fn is_full(reply: &Reply) {
    assert_eq!((reply.code, reply.enhanced()), (452, Some("4.3.1")), "{reply}");
}

fn put_off(peer: &Peer) {
    peer.behave(|event| match event.stage {
        Stage::Rcpt => Answer::say("450 4.2.1 later"),
        _ => Answer::Accept,
    });
}

/// A daemon whose spool is a small volume, and the host it sends to.
fn small(words: &[&str]) -> (Peer, Site, Volume) {
    let peer = Peer::accepting(ports::local());
    let site = Site::prepare(Setup::new().smart_host(peer.address()));
    let words = [&["-m", "0"], words].concat();
    let volume = Volume::small(24, &words, &site.home().join("spool"));
    site.launch();
    // One that is written, and two in reserve, so that it does not depend on chance what there is room for.
    wait::until("segments in reserve", || {
        let names = fs::read_dir(site.spool("default", "Queue")).unwrap().flatten();
        let is_segment = |name: &[u8]| name.starts_with(b"segment-");
        let count = names.filter(|name| is_segment(name.file_name().as_encoded_bytes())).count();
        (count >= 3).then_some(())
    });
    (peer, site, volume)
}

fn await_accepted(site: &Site, tag: &str) {
    wait::until("mail that is accepted again", || {
        (send(site, "after@far.test", &tagged(tag)).code == 250).then_some(())
    });
}

#[test]
fn the_reserve_is_another_as_soon_as_it_is_set() {
    let site = Site::start(Setup::new());
    let mut talk = greeted(&site);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RSET", 250);
    let _set = site.ctl(&["config", "set", "service.min_free=900TiB"]).ok();
    talk.expect("MAIL FROM:<a@client.test>", 452);
    let _set = site.ctl(&["config", "set", "service.min_free=1MiB"]).ok();
    talk.expect("MAIL FROM:<a@client.test>", 250);
}

#[test]
fn below_the_reserve_mail_is_refused_before_its_body_and_the_queue_still_empties() {
    if !Volume::possible("little room", Kind::Ext4, &[]) {
        return;
    }
    let (peer, site, volume) = small(&[]);
    put_off(&peer);
    for number in 0..5 {
        let reply = send(&site, "x@far.test", &tagged(&format!("before{number}")));
        assert_eq!(reply.code, 250, "{reply}");
    }
    volume.fill(512 << 10);

    let reply = wait::until("a refusal before the body", || {
        let reply = greeted(&site).say("MAIL FROM:<a@client.test>");
        (reply.code != 250).then_some(reply)
    });

    is_full(&reply);
    peer.behave(|_| Answer::Accept);
    peer.await_received(5);
    site.await_empty_queue();
    is_full(&greeted(&site).say("MAIL FROM:<a@client.test>"));
    volume.make_room();
    await_accepted(&site, "after");
    site.await_empty_queue();
    assert_eq!(peer.received().len(), 6);
}

#[test]
fn drop_on_a_file_system_of_its_own_fills_up_and_its_mail_waits() {
    if !Volume::possible("Drop on a file system of its own", Kind::Ext4, &[]) {
        return;
    }
    let site = Site::prepare(Setup::new());
    let volume = Volume::small(8, &["-m", "0"], &site.spool("default", "Drop"));
    site.launch();
    let to = format!("x@{LOCAL_DOMAIN}");
    assert_eq!(send(&site, &to, &padded("before", LARGE)).code, 250);
    site.await_dropped(1);

    volume.fill(64 << 10);
    let large = padded("large", LARGE);
    assert_eq!(send(&site, &to, &large).code, 250, "the queue lies elsewhere and has room");
    wait::until("mail that waits for Drop", || {
        let waiting = site.control().json(&["queue", "list"]);
        let reason = waiting[0]["reason"].as_str().unwrap_or_default();
        reason.contains("disk of the Drop directory is full").then_some(())
    });
    assert_eq!(site.dropped("default").len(), 1, "nothing half written has a name");
    // Another domain's mail is not in its way: the queue still takes and the daemon still answers.
    assert_eq!(send(&site, &to, &tagged("small")).code, 250);
    volume.make_room();
    let all = site.await_dropped(3);
    assert!(all.iter().any(|stored| stored.octets.ends_with(&large)), "whole");
    site.await_empty_queue();
}

/// Opens as many transactions as there are bodies, waits until all may send, fills the disk to the brim, and
/// sends all bodies; returns the tags of those that were accepted.
fn send_into(site: &Site, volume: &Volume, to: &str, bodies: &[(String, usize)]) -> Vec<String> {
    let mut talks: Vec<Talk> = bodies
        .iter()
        .map(|_| {
            let mut talk = greeted(site);
            talk.expect("MAIL FROM:<a@client.test>", 250);
            talk.expect(&format!("RCPT TO:<{to}>"), 250);
            talk.expect("DATA", 354);
            talk
        })
        .collect();
    volume.fill(0);
    let mut accepted = Vec::new();
    for (talk, (tag, octets)) in talks.iter_mut().zip(bodies) {
        talk.send(&stuffed(&padded(tag, *octets))).unwrap();
        let reply = talk.reply().unwrap();
        if reply.code == 250 {
            accepted.push(tag.clone());
        } else {
            is_full(&reply);
        }
    }
    accepted
}

#[test]
fn a_disk_that_fills_up_under_a_body_refuses_it_and_keeps_what_was_accepted() {
    if !Volume::possible("full disk", Kind::Ext4, &[]) {
        return;
    }
    let (peer, site, volume) = small(&[]);
    put_off(&peer);
    let before: Vec<String> = (0..3).map(|number| format!("before{number}")).collect();
    for tag in &before {
        assert_eq!(send(&site, "x@far.test", &tagged(tag)).code, 250);
    }
    let mut bodies: Vec<_> = (0..25).map(|number| (format!("small{number}"), 12 << 10)).collect();
    bodies.push(("large".to_owned(), LARGE));

    let mut accepted = send_into(&site, &volume, "x@far.test", &bodies);

    println!("full disk: {} of {} accepted", accepted.len(), bodies.len());
    assert!(!accepted.contains(&"large".to_owned()), "a body without room was accepted");
    assert!(accepted.len() < 25, "more was accepted than segments had room for");
    accepted.extend(before);
    peer.behave(|_| Answer::Accept);
    site.await_empty_queue();
    volume.make_room();
    await_accepted(&site, "after");
    site.await_empty_queue();
    accepted.push("after".to_owned());
    accepted.sort();
    let mut found = arrived(&site, &peer);
    found.sort();
    assert_eq!(found, accepted, "what was accepted arrived once, and nothing else did");
}

#[test]
fn a_disk_without_room_for_names_refuses_large_bodies_and_deliveries_wait() {
    if !Volume::possible("no inodes", Kind::Ext4, &[]) {
        return;
    }
    let (peer, site, volume) = small(&["-N", "128"]);
    volume.fill_names();

    let small = send(&site, &format!("x@{LOCAL_DOMAIN}"), &tagged("small"));
    let large = send(&site, "x@far.test", &padded("large", LARGE));

    assert_eq!(small.code, 250, "there is room in the segment: {small}");
    is_full(&large);
    site.logged(&["drop-failed", "No space left"]);
    assert!(site.dropped("default").is_empty());
    volume.make_room();
    assert_eq!(tag(&site.await_dropped(1)[0].octets), "small");
    await_accepted(&site, "after");
    let large = padded("large", LARGE);
    wait::until("a large body that is accepted", || {
        (send(&site, "x@far.test", &large).code == 250).then_some(())
    });
    site.await_empty_queue();
    assert_eq!(peer.received().len(), 2);
    assert!(site.badmail().is_empty());
}

const SHAPE: Shape = Shape { clients: 6, per_connection: 10, filling: 500 };

fn mixed(number: usize) -> String {
    let domain = if number.is_multiple_of(3) { LOCAL_DOMAIN } else { "far.test" };
    format!("n{number}@{domain}")
}

fn await_refusal(site: &Site) {
    wait::until("a refusal", || {
        let reply = send(site, "x@far.test", &tagged("refused"));
        assert!(matches!(reply.code, 250 | 451 | 452), "{reply}");
        (reply.code != 250).then_some(())
    });
}

fn nothing_lost(load: Load, site: &Site, peer: &Peer, what: &str) {
    let account = load.stop();
    site.await_empty_queue();
    let found: Vec<String> = arrived(site, peer);
    let balance = account.balance(&found);
    println!("{what}: {balance}");
    assert!(balance.lost.is_empty(), "{:?}", balance.lost);
    assert!(site.badmail().is_empty());
}

#[test]
fn a_file_system_that_turns_read_only_refuses_mail_and_keeps_what_it_has() {
    if !Volume::possible("read-only file system", Kind::Ext4, &[]) {
        return;
    }
    let peer = Peer::accepting(ports::local());
    let site = Site::prepare(Setup::new().smart_host(peer.address()));
    let volume = Volume::roomy(Kind::Ext4, &site.home().join("spool"));
    site.launch();
    let load = Load::start(site.address(), SHAPE, mixed);
    wait::until("load", || (load.account.acknowledged() >= 100).then_some(()));

    volume.abort();

    await_refusal(&site);
    // Such a file system takes writes again only after it was unmounted, so nothing may use it.
    site.stop();
    volume.restart();
    site.launch_again();
    let target = load.account.acknowledged() + 50;
    wait::until("load", || (load.account.acknowledged() >= target).then_some(()));
    nothing_lost(load, &site, &peer, "read-only file system");
}

#[test]
fn a_disk_that_refuses_for_a_while_is_used_again_without_a_restart() {
    if find("strace").is_none() || !skip::root() {
        return skip::note("a disk that refuses", "needs strace, and root");
    }
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let load = Load::start(site.address(), SHAPE, mixed);
    wait::until("load", || (load.account.acknowledged() >= 100).then_some(()));

    for error in ["EROFS", "EIO"] {
        let calls = ["pwrite64", "fdatasync", "fsync", "renameat", "unlink"];
        let tracer = Tracer::attach(site.pid(), &calls, error);
        await_refusal(&site);
        drop(tracer);
        let target = load.account.acknowledged() + 50;
        wait::until("load", || (load.account.acknowledged() >= target).then_some(()));
    }

    nothing_lost(load, &site, &peer, "a disk that refuses");
}

/// One line of strace: the call, the file, the offset it writes at, and whether strace answered it.
fn calls(trace: &str) -> Vec<(&str, &str, &str, bool)> {
    trace
        .lines()
        .filter_map(|line| {
            let call = line.split_whitespace().nth(1)?;
            let (name, rest) = call.split_once('(')?;
            let path = rest.split_once('<')?.1.split_once('>')?.0;
            let offset = line.split_once(") = ")?.0.rsplit(", ").next()?;
            Some((name, path, offset, line.contains("INJECTED")))
        })
        .collect()
}

#[test]
fn a_sync_that_failed_is_not_repeated_and_its_mail_is_not_accepted() {
    if find("strace").is_none() {
        return skip::note("a sync that fails", "needs strace");
    }
    let site = Site::prepare(Setup::new());
    let trace = site.home().join("trace");
    site.under(&[
        "strace",
        "-D",
        "-f",
        "-y",
        "-s",
        "0",
        "-o",
        trace.to_str().unwrap(),
        "-e",
        "trace=fdatasync,pwrite64",
        "-e",
        "inject=fdatasync:error=EIO:when=3",
    ]);
    site.launch();
    let mut accepted = Vec::new();
    let mut refused = 0;
    for number in 0..12 {
        let tag = format!("m{number}");
        let reply = send(&site, &format!("x@{LOCAL_DOMAIN}"), &tagged(&tag));
        match reply.code {
            250 => accepted.push(tag),
            // Right after the failure the next client is not even asked for a body.
            452 => {}
            _ => {
                assert_eq!((reply.code, reply.enhanced()), (451, Some("4.3.0")), "{reply}");
                refused += 1;
            }
        }
        if refused > 0 && reply.code != 250 {
            wait::until("a disk that is tried again", || {
                (greeted(&site).say("MAIL FROM:<a@client.test>").code == 250).then_some(())
            });
        }
    }
    site.await_empty_queue();
    site.kill();

    let text = fs::read_to_string(&trace).unwrap();
    let calls = calls(&text);
    let failed: Vec<usize> = (0..calls.len()).filter(|&at| calls[at].3).collect();
    assert!(!failed.is_empty(), "no sync failed:\n{text}");
    for at in failed {
        let (_, path, ..) = calls[at];
        let again = calls[at + 1..].iter().find(|call| call.1 == path);
        // The file may be used anew, from its first octet on; the old octets are not synced again.
        assert!(again.is_none_or(|call| (call.0, call.2) == ("pwrite64", "0")), "{path}:\n{text}");
    }
    assert!(refused >= 1, "nobody heard of the failed sync");
    site.under(&[]);
    site.launch_again();
    site.await_empty_queue();
    let mut found: Vec<String> =
        site.dropped("default").iter().map(|stored| tag(&stored.octets)).collect();
    found.sort();
    accepted.sort();
    assert_eq!(found, accepted, "what was accepted arrived, and what was refused did not");
}

#[test]
fn a_second_daemon_on_the_same_spool_is_refused_and_told_who_has_it() {
    let first = Site::start(Setup::new());
    let spool = first.home().join("spool");
    let second = Site::prepare(Setup::new().service("service.store", spool.to_str().unwrap()));

    let ended = second.run(&[]);

    let holder = format!("process {}", first.pid());
    let said = format!("{}{}", ended.out, ended.err);
    assert_eq!(ended.code, 69, "{ended}");
    assert!(said.contains(&holder) && said.contains("in use by"), "{ended}");
    let reply = send(&first, &format!("x@{LOCAL_DOMAIN}"), &tagged("on"));
    assert_eq!(reply.code, 250, "the first one goes on: {reply}");
    first.await_dropped(1);
}
