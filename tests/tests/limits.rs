//! Every limit has its own reply, and the rest goes on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::TcpStream;
use std::time::Instant;

use mailroot_tests::account::tag;
use mailroot_tests::load::Spent;
use mailroot_tests::message::tagged;
use mailroot_tests::program::find;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::talk::{Reply, Talk, stuffed};

fn local(name: &str) -> String {
    format!("{name}@{LOCAL_DOMAIN}")
}

#[track_caller]
fn is(reply: &Reply, code: u16, enhanced: &str) {
    assert_eq!((reply.code, reply.enhanced()), (code, Some(enhanced)), "{reply}");
}

fn still_works(site: &Site) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let reply = talk.message("a@client.test", &[&local("x")], &tagged("after")).unwrap();
    assert_eq!(reply.code, 250, "{reply}");
}

#[test]
fn sessions_in_all_and_from_one_client_are_bounded() {
    for (key, enhanced) in
        [("general.max_connections", "4.3.2"), ("general.max_connections_per_client", "4.7.0")]
    {
        let site = Site::start(Setup::new().key(key, "3"));
        // The session that looked for the greeting may still be open; it ends by itself.
        let open = mailroot_tests::wait::until("three sessions", || {
            let talks: Vec<Talk> =
                (0..3).filter_map(|_| Talk::try_to(site.address()).ok()).collect();
            (talks.len() == 3).then_some(talks)
        });

        let mut fourth = Talk::connect(site.address()).unwrap();
        is(&fourth.reply().unwrap(), 421, enhanced);
        assert!(fourth.rest().unwrap().is_empty());

        drop(open);
        mailroot_tests::wait::until("room for a session", || Talk::try_to(site.address()).ok());
        still_works(&site);
    }
}

#[test]
fn a_silent_session_is_closed() {
    let site = Site::start(Setup::new().key("general.idle_timeout", "1s"));
    let mut talk = site.talk();
    is(&talk.reply().unwrap(), 421, "4.4.2");
    assert!(talk.rest().unwrap().is_empty());

    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect(&format!("RCPT TO:<{}>", local("x")), 250);
    talk.expect("DATA", 354);
    talk.send(b"Subject: never finished\r\n").unwrap();
    is(&talk.reply().unwrap(), 421, "4.4.2");
    still_works(&site);
    site.await_dropped(1);
    assert_eq!(site.dropped("default").len(), 1);
}

#[test]
fn a_session_does_not_last_for_ever() {
    let site = Site::start(
        Setup::new().key("general.max_session_time", "1s").key("limits.idle_commands", "unlimited"),
    );
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    is(&talk.reply().unwrap(), 421, "4.4.2");
    assert!(talk.rest().unwrap().is_empty());
    still_works(&site);
}

#[test]
fn a_message_too_large_is_refused_when_declared_and_when_counted() {
    let site = Site::start(Setup::new().key("messages.max_size", "10KiB"));
    let mut talk = site.talk();
    let hello = talk.expect("EHLO client.test", 250);
    assert!(hello.lines.iter().any(|line| line == "SIZE 10240"), "{hello}");
    is(&talk.say("MAIL FROM:<a@client.test> SIZE=10241"), 552, "5.3.4");
    let large = [tagged("large"), b"0123456789\r\n".repeat(1000)].concat();
    let reply = talk.message("a@client.test", &[&local("x")], &large).unwrap();
    is(&reply, 552, "5.3.4");
    let reply = talk.message("a@client.test", &[&local("x")], &tagged("small")).unwrap();
    assert_eq!(reply.code, 250, "the session goes on: {reply}");

    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect(&format!("RCPT TO:<{}>", local("x")), 250);
    talk.send(format!("BDAT {}\r\n", large.len()).as_bytes()).unwrap();
    talk.send(&large).unwrap();
    is(&talk.reply().unwrap(), 552, "5.3.4");
    site.await_dropped(1);
}

#[test]
fn a_session_may_carry_only_so_much() {
    let setup =
        Setup::new().key("messages.max_size", "10KiB").key("messages.max_session_size", "12KiB");
    let site = Site::start(setup);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let message = [tagged("part"), b"0123456789\r\n".repeat(600)].concat();
    let mut last = Reply { code: 0, lines: Vec::new() };
    for _ in 0..4 {
        last = talk.message("a@client.test", &[&local("x")], &message).unwrap();
        if last.code != 250 {
            break;
        }
    }
    is(&last, 421, "4.3.4");
    assert!(talk.rest().unwrap().is_empty());
    still_works(&site);
}

#[test]
fn recipients_beyond_the_limit_are_put_off_and_those_before_it_are_served() {
    let site = Site::start(Setup::new().key("messages.max_recipients", "2"));
    let mut talk = site.talk();
    let hello = talk.expect("EHLO client.test", 250);
    assert!(hello.lines.iter().any(|line| line.contains("RCPTMAX=2")), "{hello}");
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect(&format!("RCPT TO:<{}>", local("x")), 250);
    talk.expect(&format!("RCPT TO:<{}>", local("y")), 250);
    is(&talk.say(&format!("RCPT TO:<{}>", local("z"))), 452, "4.5.3");
    talk.expect("DATA", 354);
    talk.send(&stuffed(&tagged("two"))).unwrap();
    assert_eq!(talk.reply().unwrap().code, 250);
    let dropped = site.await_dropped(1);
    assert_eq!(dropped[0].fields("X-Receiver").len(), 2);
}

#[test]
fn a_message_for_more_recipients_than_a_record_holds_is_refused_for_good() {
    // The segments of tests are the smallest there are.
    let site = Site::start(Setup::new());
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let many: Vec<String> = (0..100).map(|n| format!("b{n}@local.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let refused = talk.message("a@client.test", &many, &tagged("many")).unwrap();
    is(&refused, 552, "5.3.4");
    site.logged(&["event=not-stored", "reason=envelope-too-large", "store.segment_size"]);
    let few = talk.message("a@client.test", &many[..40], &tagged("few")).unwrap();
    assert_eq!(few.code, 250);
    site.await_dropped(1);
    still_works(&site);
}

#[test]
fn a_client_that_errs_too_often_is_closed() {
    let site = Site::start(Setup::new().key("general.max_errors", "3"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let mut last = talk.say("WIZ");
    for _ in 0..4 {
        if last.code == 421 {
            break;
        }
        last = talk.say("DEBUG");
    }
    is(&last, 421, "4.7.0");
    assert!(talk.rest().unwrap().is_empty());
    still_works(&site);
}

#[test]
fn lines_headers_and_hops_are_bounded() {
    let setup = Setup::new()
        .key("limits.line_length", "2KiB")
        .key("limits.header_size", "8KiB")
        .key("delivery.max_hops", "5");
    let site = Site::start(setup);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let to = local("x");
    let long = [tagged("long"), vec![b'x'; 3000], b"\r\n".to_vec()].concat();
    is(&talk.message("a@client.test", &[&to], &long).unwrap(), 550, "5.6.0");
    let header = [b"X-Fill: 0123456789012345678901234567890\r\n".repeat(300), tagged("h")].concat();
    is(&talk.message("a@client.test", &[&to], &header).unwrap(), 552, "5.3.4");
    let hops = [b"Received: from a by b; now\r\n".repeat(6), tagged("hops")].concat();
    is(&talk.message("a@client.test", &[&to], &hops).unwrap(), 554, "5.4.6");
    still_works(&site);
}

#[test]
fn a_disk_with_less_room_than_asked_for_refuses_before_the_body() {
    let site = Site::start(Setup::new().service("service.min_free", "1000000GiB"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let mut reply = talk.say("MAIL FROM:<a@client.test>");
    if reply.code == 250 {
        reply = talk.say(&format!("RCPT TO:<{}>", local("x")));
    }
    if reply.code == 250 {
        reply = talk.say("DATA");
    }
    is(&reply, 452, "4.3.1");
}

#[test]
fn without_descriptors_the_daemon_rests_and_then_goes_on() {
    if find("prlimit").is_none() {
        return skip::note("few descriptors", "prlimit is not installed");
    }
    let setup = Setup::new().key("general.max_connections_per_client", "unlimited");
    let site = Site::prepare(setup.key("general.idle_timeout", "3s"));
    site.under(&["prlimit", "--nofile=64"]);
    site.launch();
    let mut early = site.talk();
    early.expect("EHLO client.test", 250);
    // Those that are not accepted wait in the kernel; the clients see them as connected.
    let crowd: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(site.address()).unwrap()).collect();
    site.logged(&["accept-paused"]);

    let reply = early.message("a@client.test", &[&local("x")], &tagged("in the crowd")).unwrap();
    let (before, since) = (Spent::by(site.pid()), Instant::now());
    assert_eq!(early.reply().unwrap().code, 421, "a silent session is closed even now");
    let (spent, passed) = (Spent::by(site.pid()).since(&before), since.elapsed());

    assert!(spent < passed / 2, "it was busy for {spent:?} of {passed:?}");
    drop(crowd);
    still_works(&site);
    // The first one may have been put off, or accepted and its delivery put off.
    assert!(matches!(reply.code, 250 | 451 | 452), "{reply}");
    site.await_empty_queue();
    let mut tags: Vec<String> =
        site.dropped("default").iter().map(|stored| tag(&stored.octets)).collect();
    tags.sort();
    let expected: &[&str] = if reply.code == 250 { &["after", "in the crowd"] } else { &["after"] };
    assert_eq!(tags, expected);
    site.stop();
}

#[test]
fn a_client_connects_no_more_often_than_its_quota() {
    let site = Site::start(Setup::new());
    let _set = site.ctl(&["server", "set", "default", "access.quota.connections=2/d"]).ok();
    for _ in 0..2 {
        site.talk().expect("QUIT", 221);
    }
    let told = Talk::connect(site.address()).unwrap().reply().unwrap();
    assert_eq!((told.code, told.enhanced()), (421, Some("4.7.0")), "{told}");
    site.logged(&["event=reject", "stage=connect", "reason=connection-rate"]);
}

#[test]
fn a_client_sends_no_more_than_its_quota_and_a_user_no_more_than_his() {
    let site = Site::start(
        Setup::new()
            .key("access.quota.messages", "2/d")
            .key("access.quota.recipients", "3/d")
            .key("access.basic.enabled", "true")
            .key("access.basic.require_tls", "false"),
    );
    let to = format!("RCPT TO:<u@{LOCAL_DOMAIN}>");
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for _ in 0..2 {
        talk.expect("MAIL FROM:<a@client.test>", 250);
        talk.expect(&to, 250);
        talk.expect("RSET", 250);
    }
    let told = talk.expect("MAIL FROM:<a@client.test>", 450);
    assert_eq!(told.enhanced(), Some("4.7.1"), "{told}");
    talk.expect("QUIT", 221);

    // More may be sent at once, and whoever comes again has not got rid of what he used.
    let _set = site.ctl(&["server", "set", "default", "access.quota.messages=100/d"]).ok();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect(&to, 250);
    talk.expect(&to, 450);
    site.logged(&["event=reject", "stage=rcpt", "reason=quota"]);

    // A user has his own.
    let add = ["user", "add", "ada", "--password-stdin", "--quota", "2/d"];
    let _added = site.control().input("secret\n").run(&add).ok();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("AUTH PLAIN AGFkYQBzZWNyZXQ=", 235);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect(&to, 250);
    talk.expect(&to, 250);
    talk.expect(&to, 450);
    let listed = site.control().json(&["user", "list"]);
    assert_eq!(listed[0]["quota"], "2/d");
    let _none = site.ctl(&["user", "set", "ada", "--quota", "none"]).ok();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("AUTH PLAIN AGFkYQBzZWNyZXQ=", 235);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    (0..3).for_each(|_| drop(talk.expect(&to, 250)));
    let _wrong = site.ctl(&["user", "set", "ada", "--quota", "many"]).exited(2);
}
