//! What the dialogs of the original set about mail on its way out, each as a key that works: those that no
//! other file shows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc;

use mailroot_tests::dns::Dns;
use mailroot_tests::faketime::Faketime;
use mailroot_tests::message::{Stored, tagged};
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};

fn send(site: &Site, to: &[&str], tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message(&format!("ops@{LOCAL_DOMAIN}"), to, &tagged(tag)).unwrap();
    assert_eq!(sent.code, 250, "{sent}");
}

/// A host that says nothing but from where it was called.
fn callers(at: SocketAddr) -> mpsc::Receiver<IpAddr> {
    let listener = TcpListener::bind(at).unwrap();
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let from = stream.peer_addr().unwrap().ip();
            // The test may be over, and the caller gone.
            let _gone = stream.write_all(b"421 4.3.2 not now\r\n");
            if told.send(from).is_err() {
                return;
            }
        }
    });
    heard
}

fn next(callers: &mpsc::Receiver<IpAddr>) -> IpAddr {
    callers.recv_timeout(wait::PATIENCE).unwrap()
}

#[test]
fn mail_leaves_from_the_address_that_was_chosen() {
    let at = ports::local();
    let from = callers(at);
    let site = Site::start(Setup::new().smart_host(at).key("delivery.source", "127.0.0.77"));
    send(&site, &["b@far.test"], "from");
    assert_eq!(next(&from).to_string(), "127.0.0.77");
}

#[test]
fn hosts_are_called_by_the_addresses_of_the_family_that_was_chosen() {
    let port = ports::free();
    let (four, six) = (ports::host(9, port), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)));
    if TcpListener::bind(six).is_err() {
        return skip::note("addresses of both kinds", "there is no IPv6 here");
    }
    let (by_four, by_six) = (callers(four), callers(six));
    let Some(dns) = Dns::serve(&[
        "both.test. 60 IN MX 10 mx.both.test.",
        &format!("mx.both.test. 60 IN A {}", four.ip()),
        "mx.both.test. 60 IN AAAA ::1",
    ]) else {
        return skip::note("addresses of both kinds", "unbound is not installed");
    };
    for (version, first, other) in
        [("4", &by_four, &by_six), ("6", &by_six, &by_four), ("prefer-4", &by_four, &by_six)]
    {
        let setup = Setup::new().dns(dns.address(), port).key("delivery.ip_version", version);
        let site = Site::start(setup.key("delivery.outbound.retry", "[1h]"));
        send(&site, &["b@both.test"], version);
        assert_eq!(next(first).is_ipv4(), version != "6");
        if version == "prefer-4" {
            assert!(next(other).is_ipv6(), "the other kind comes after it");
        }
        wait::until("the end of the attempt", || {
            let waiting = site.control().json(&["queue", "list"]);
            waiting[0]["reason"].is_string().then_some(())
        });
        assert!(version == "prefer-4" || other.try_recv().is_err(), "{version}");
        while first.try_recv().is_ok() {}
    }
}

#[test]
fn the_name_that_was_set_is_said_and_helo_where_that_is_wanted() {
    let [plain, old] = [0, 1].map(|_| Peer::accepting(ports::local()));
    let to = |at: SocketAddr| format!("\"[{}]:{}\"", at.ip(), at.port());
    let old_domain =
        format!("{{name: old.test, type: remote, helo_only: true, route: {}}}", to(old.address()));
    let setup = Setup::new()
        .key("delivery.fqdn", "out.example.net")
        .key("delivery.smart_host", &to(plain.address()))
        .domain(&old_domain);
    let site = Site::start(setup);
    send(&site, &["b@far.test", "c@old.test"], "hello");
    assert_eq!(plain.await_received(1)[0].hello, "EHLO out.example.net");
    let received = old.await_received(1).remove(0);
    assert_eq!(received.hello, "HELO out.example.net");
    assert!(!received.mail.contains("SIZE="), "HELO has no extensions: {}", received.mail);
    let trace = mailroot_tests::message::fields(&received.octets, "Received").concat();
    assert!(trace.contains("by out.example.net"), "{trace}");
    assert!(site.talk().expect("EHLO client.test", 250).to_string().contains("out.example.net"));
}

#[test]
fn direct_delivery_is_attempted_first_where_that_is_wanted() {
    let port = ports::free();
    let hub = Peer::accepting(ports::local());
    let Some(dns) = Dns::serve(&[
        "dead.test. 60 IN MX 10 mx.dead.test.",
        "mx.dead.test. 60 IN A 127.0.1.11",
        "good.test. 60 IN MX 10 mx.good.test.",
        "mx.good.test. 60 IN A 127.0.1.12",
        "null.test. 60 IN MX 0 .",
    ]) else {
        return skip::note("direct delivery first", "unbound is not installed");
    };
    let good = Peer::accepting(ports::host(12, port));
    let setup = Setup::new().dns(dns.address(), port).smart_host(hub.address());
    let site = Site::start(setup.key("delivery.direct_first", "on_dns_failure"));
    let dead = "a@dead.test";
    send(&site, &["b@good.test"], "direct");
    good.await_received(1);
    send(&site, &["c@nowhere.test"], "no such domain");
    hub.await_received(1);
    send(&site, &[dead], "nobody answers");
    wait::until("a message that waits", || {
        let waiting = site.control().json(&["queue", "list"]);
        waiting[0]["reason"].as_str().is_some_and(|it| it.contains("refused")).then_some(())
    });
    site.ctl(&["server", "set", "default", "delivery.direct_first=on_any_temporary_failure"]).ok();
    let to = |number: usize| hub.await_received(number)[number - 1].recipients()[0].to_owned();
    assert_eq!(to(2), dead);
    // Whoever wants no mail is not asked for elsewhere.
    send(&site, &["d@null.test"], "null MX");
    assert!(site.await_dropped(1)[0].text().contains("5.1.10"));
    assert_eq!((hub.received().len(), good.received().len()), (2, 1));
}

#[test]
fn smart_hosts_stand_in_for_each_other_and_get_no_more_recipients_than_they_take() {
    let second = Peer::accepting(ports::local());
    let nobody = ports::local();
    let setup = Setup::new()
        .service("smart_hosts.isp.host", "\"[127.0.0.1]\"")
        .service("smart_hosts.isp.port", &nobody.port().to_string())
        .service("smart_hosts.isp.tls", "off")
        .service("smart_hosts.isp.backup", &format!("\"[127.0.0.1]:{}\"", second.address().port()))
        .service("smart_hosts.isp.limits.recipients", "3")
        .key("delivery.smart_host", "smarthost:isp");
    let site = Site::start(setup);
    let to: Vec<String> = (0..7).map(|n| format!("b{n}@far.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    send(&site, &to, "backup");
    let received = second.await_received(3);
    let mut counts: Vec<usize> = received.iter().map(|it| it.rcpt.len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 3, 3]);
    // The first is asked again when it is there.
    let first = Peer::accepting(nobody);
    site.await_empty_queue();
    wait::until("mail at the first", || {
        send(&site, &["c@far.test"], "first");
        site.await_empty_queue();
        (!first.received().is_empty()).then_some(())
    });
}

/// A daemon whose clock goes on while it is stopped.
fn prepared(setup: Setup) -> Option<(Site, Faketime)> {
    let site = Site::prepare(setup);
    let clock = Faketime::of(&site);
    if clock.is_none() {
        skip::note("notices of delay", "libfaketime is not installed");
    }
    clock.map(|clock| (site, clock))
}

fn later(site: &Site, clock: &Faketime, by: &str) {
    site.stop();
    clock.set(by);
    site.launch_again();
}

fn report(site: &Site, action: &str) -> Stored {
    wait::until(&format!("a report: {action}"), || {
        let all = site.dropped("default");
        all.into_iter().find(|it| it.text().contains(&format!("Action: {action}")))
    })
}

#[test]
fn whoever_waits_for_other_hosts_is_told_and_given_up_in_the_time_that_was_set() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("450 4.2.1 later"),
        _ => Answer::Accept,
    });
    let setup = Setup::new()
        .smart_host(peer.address())
        .key("delivery.outbound.retry", "[30m]")
        .key("delivery.outbound.delay_notice", "1h")
        .key("delivery.outbound.expire", "4h");
    let Some((site, clock)) = prepared(setup) else { return };
    site.launch();
    send(&site, &["b@far.test"], "late");
    site.logged(&["event=deferred"]);
    later(&site, &clock, "+40m");
    wait::until("the second attempt", || (peer.attempts().len() == 2).then_some(()));
    assert!(site.dropped("default").is_empty(), "an hour is not over");
    later(&site, &clock, "+100m");
    let told = report(&site, "delayed").text();
    assert!(told.contains("Will-Retry-Until: ") && told.contains("4.2.1 later"), "{told}");
    later(&site, &clock, "+5h");
    let told = report(&site, "failed").text();
    assert!(told.contains("4.2.1 later"), "{told}");
    site.await_empty_queue();
}

#[test]
fn whoever_waits_for_drop_is_told_and_given_up_in_the_time_that_was_set() {
    let setup = Setup::new()
        .only_domains(&["{name: local.test, type: default, drop: {quota: 1KiB}}"])
        .key("delivery.local.retry", "[30m]")
        .key("delivery.local.delay_notice", "1h")
        .key("delivery.local.expire", "4h");
    let Some((site, clock)) = prepared(setup) else { return };
    let peer = Peer::accepting(ports::local());
    let hub = format!("delivery.smart_host=\"[127.0.0.1]:{}\"", peer.address().port());
    site.launch();
    site.ctl(&["server", "set", "default", &hub]).ok();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let large = [tagged("full"), vec![b'x'; 900], b"\r\n".to_vec()].concat();
    for _ in 0..2 {
        let sent = talk.message("ops@far.test", &["b@local.test"], &large).unwrap();
        assert_eq!(sent.code, 250);
    }
    site.logged(&["event=deferred"]);
    later(&site, &clock, "+100m");
    let await_action = |action: &str| {
        let words = format!("Action: {action}");
        let says = |octets: &[u8]| String::from_utf8_lossy(octets).contains(&words);
        wait::until(&format!("a report: {action}"), || {
            peer.with_received(|all| all.iter().any(|it| says(&it.octets))).then_some(())
        });
    };
    await_action("delayed");
    later(&site, &clock, "+5h");
    await_action("failed");
    site.await_empty_queue();
}

#[test]
fn quick_retries_come_before_the_schedule_of_the_original() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("450 4.2.1 later"),
        _ => Answer::Accept,
    });
    let setup = Setup::new()
        .smart_host(peer.address())
        .key("profile", "iis6")
        .key("general.logging", "true")
        .key("access.relay.list", "127.0.0.1")
        .key("delivery.outbound.retry", "[2h]")
        .key("delivery.outbound.quick_retries", "2");
    let Some((site, clock)) = prepared(setup) else { return };
    site.launch();
    send(&site, &["b@far.test"], "quick");
    let next = |site: &Site, tries: usize| {
        wait::until(&format!("attempt {tries}"), || {
            let waiting = site.control().json(&["queue", "list"]);
            (waiting[0]["attempts"] == tries && peer.attempts().len() == tries).then_some(())
        });
    };
    next(&site, 1);
    for (tries, by) in [(2, "+2m"), (3, "+4m")] {
        later(&site, &clock, by);
        next(&site, tries);
    }
    later(&site, &clock, "+6m");
    let shown = site.control().json(&["queue", "list"]);
    assert_eq!(shown[0]["attempts"], 3, "the next is by the schedule: {shown}");
    later(&site, &clock, "+3h");
    next(&site, 4);
}

#[test]
fn reports_of_failure_are_copied_and_carry_the_whole_message_where_that_is_wanted() {
    let peer = Peer::start(ports::local(), |event: &Event| match event.line {
        line if line.contains("gone@") => Answer::say("550 5.1.1 no such user"),
        _ => Answer::Accept,
    });
    let setup = Setup::new()
        .smart_host(peer.address())
        .key("messages.ndr_copy_to", "watcher@watch.test")
        .key("messages.ndr_full_message", "true");
    let site = Site::start(setup);
    send(&site, &["gone@far.test"], "copied");
    let own = site.await_dropped(1).remove(0).text();
    let copy = peer.await_received(1).remove(0);
    assert_eq!(copy.recipients(), ["watcher@watch.test"]);
    assert_eq!(copy.sender(), "");
    for text in [own, String::from_utf8_lossy(&copy.octets).into_owned()] {
        assert!(text.contains("message/rfc822") && text.contains("550 5.1.1"), "{text}");
    }
}
