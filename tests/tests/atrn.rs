//! Mail that a host of its domain comes for (ATRN, RFC 2645; TURN, RFC 821): it leaves over the connection
//! that the host has made, and no other way.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, program, wait};

const PASSWORD: &str = "correct horse";

/// A server that holds the mail of two domains for `branch`, and that of a third for nobody else; all of
/// them would go to `elsewhere` if it went by its route.
fn setup(elsewhere: &Peer) -> Setup {
    let at = elsewhere.address();
    let route = format!("\"[{}]:{}\"", at.ip(), at.port());
    let domain = |name: &str, hold: &str| {
        format!("{{name: {name}, type: remote, relay: true, route: {route}, hold: {{{hold}}}}}")
    };
    Setup::new()
        .key("access.basic.enabled", "true")
        .key("access.basic.require_tls", "false")
        .key("access.auth_failures.delay", "0s")
        .key("delivery.outbound.retry", "[1h]")
        .domain(&domain("branch.test", "release: atrn, atrn_users: branch"))
        .domain(&domain("\"*.sea.test\"", "release: both, atrn_users: [branch, ship]"))
        .domain(&domain("other.test", "release: atrn, atrn_users: [other]"))
}

fn start(setup: Setup) -> Site {
    let site = Site::start(setup);
    for user in ["branch", "ship", "other", "eve"] {
        let words = ["user", "add", user, "--password-stdin"];
        site.control().input(&format!("{PASSWORD}\n")).run(&words).ok();
    }
    site
}

fn send(site: &Site, to: &str, tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &[to], &tagged(tag)).unwrap().code, 250);
}

fn hello(site: &Site, user: &str) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO branch.test", 250);
    let word =
        program::run(Command::new("base64").arg("-w0"), format!("\0{user}\0{PASSWORD}").as_bytes());
    talk.expect(&format!("AUTH PLAIN {}", word.ok()), 235);
    talk
}

/// Has a peer fetch what it can as `branch`.
fn fetch(site: &Site, peer: &Peer) {
    let mut talk = hello(site, "branch");
    talk.expect("ATRN", 250);
    peer.serve(talk);
}

fn waiting(site: &Site) -> usize {
    site.control().json(&["queue", "list"]).as_array().unwrap().len()
}

/// Whether the routes are free again, as they are when the session before has ended.
fn await_free(site: &Site) {
    wait::until("the session to end", || {
        let rows = site.control().json(&["session", "list"]);
        let is_over = !rows.as_array().unwrap().iter().any(|row| row["state"] == "reversed");
        is_over.then_some(())
    });
}

#[test]
fn mail_leaves_over_the_connection_of_whoever_may_fetch_it_and_no_other_way() {
    let (elsewhere, branch) = (Peer::accepting(ports::local()), Peer::accepting(ports::local()));
    let site = start(setup(&elsewhere));
    for (to, tag) in [
        ("a@branch.test", "one"),
        ("b@branch.test", "two"),
        ("c@x.sea.test", "sea"),
        ("d@other.test", "other"),
    ] {
        send(&site, to, tag);
    }
    let mut talk = site.talk();
    let offered = talk.expect("EHLO branch.test", 250);
    let has = |word: &str| offered.lines.iter().any(|line| line == word);
    assert!(has("ATRN") && has("ETRN") && !has("TURN"), "{offered}");
    for (line, code) in [
        ("ATRN", 530),
        ("TURN", 502),
        ("ETRN branch.test", 459),
        ("ATRN ../../etc/passwd", 501),
        ("ATRN \"a b\"", 501),
    ] {
        talk.expect(line, code);
    }
    hello(&site, "eve").expect("ATRN", 450);
    let mut talk = hello(&site, "branch");
    assert!(talk.expect("HELP", 214).lines[0].contains("ATRN"));
    for (line, code) in [
        ("ATRN other.test", 450),
        ("ATRN branch.test,other.test", 450),
        ("ATRN sea.test", 450),
        ("ATRN y.sea.test", 453),
        ("MAIL FROM:<a@branch.test>", 250),
        ("ATRN branch.test", 503),
        ("RSET", 250),
    ] {
        talk.expect(line, code);
    }
    talk.expect("ATRN branch.test", 250);
    branch.serve(talk);
    let received = branch.received();
    assert_eq!(received.len(), 2, "only of the domain that was named");
    assert!(received.iter().all(|it| it.recipients()[0].ends_with("@branch.test")));
    assert!(received[0].hello.starts_with("EHLO relay.test"), "{}", received[0].hello);
    site.logged(&["event=atrn ", "client=127.0.0.1", "user=\"branch\"", "messages=2"]);
    site.logged(&["event=atrn-done", "messages=2"]);
    await_free(&site);
    fetch(&site, &branch);
    assert_eq!(branch.received().len(), 3, "that of the other domain");
    wait::until("one message left", || (waiting(&site) == 1).then_some(()));
    await_free(&site);
    hello(&site, "branch").expect("ATRN", 453);
    let noted = site.ctl(&["queue", "flush"]);
    assert!(noted.err.contains("other.test is held until it is asked for"), "{noted}");
    assert!(elsewhere.attempts().is_empty(), "nothing went by its route");
    let told = site.ctl(&["trace", "--to", "a@branch.test"]).ok();
    assert!(told.contains("[127.0.0.1]"), "{told}");
}

#[test]
fn a_connection_cut_anywhere_loses_nothing() {
    let elsewhere = Peer::accepting(ports::local());
    let site = start(setup(&elsewhere));
    let stages = [
        Stage::Connect,
        Stage::Hello,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Body,
        Stage::End,
    ];
    let answers = [Answer::Close, Answer::say("421 4.3.2 not now"), Answer::say("451 4.3.0 later")];
    send(&site, "a@branch.test", "kept");
    for stage in stages {
        for answer in &answers {
            let branch = {
                let answer = answer.clone();
                Peer::start(ports::local(), move |event: &Event| match event.stage == stage {
                    true => answer.clone(),
                    false => Answer::Accept,
                })
            };
            fetch(&site, &branch);
            await_free(&site);
            assert_eq!(branch.received().len(), 0, "{stage:?} {answer:?}");
            assert_eq!(waiting(&site), 1, "{stage:?} {answer:?}");
        }
    }
    // What says nothing sensible is no better.
    for (before, after) in [("garbage\r\n", ""), ("220 x\r\n", "250-a\r\n251 b\r\n"), ("", "")] {
        let mut talk = hello(&site, "branch");
        talk.expect("ATRN", 250);
        talk.send(before.as_bytes()).unwrap();
        if !after.is_empty() {
            // It says EHLO, and hears something else than an answer.
            talk.send(after.as_bytes()).unwrap();
        }
        talk.finish().unwrap();
        let _said = talk.rest();
        await_free(&site);
        assert_eq!(waiting(&site), 1, "{before:?} {after:?}");
    }
    let branch = Peer::accepting(ports::local());
    fetch(&site, &branch);
    assert_eq!(branch.received().len(), 1);
    site.await_empty_queue();
    assert!(elsewhere.attempts().is_empty());
}

#[test]
fn refusals_of_the_host_count_as_those_of_any_other() {
    let elsewhere = Peer::accepting(ports::local());
    let site = start(setup(&elsewhere));
    for (to, tag) in
        [("gone@branch.test", "1"), ("later@branch.test", "2"), ("ok@branch.test", "3")]
    {
        send(&site, to, tag);
    }
    let branch = Peer::start(ports::local(), |event: &Event| match (event.stage, event.line) {
        (Stage::Rcpt, line) if line.contains("gone@") => Answer::say("550 5.1.1 nobody here"),
        (Stage::Rcpt, line) if line.contains("later@") => Answer::say("450 4.2.2 full"),
        _ => Answer::Accept,
    });
    fetch(&site, &branch);
    assert_eq!(branch.received().len(), 1, "once each");
    site.logged(&["event=bounced", "to=<gone@branch.test>", "nobody here"]);
    wait::until("its words in the reason", || {
        let rows = site.control().json(&["queue", "list", "--domain", "branch.test"]);
        let reasons = rows.as_array().unwrap().iter().filter_map(|row| row["reason"].as_str());
        let mut told = reasons.filter(|it| it.contains("450 4.2.2 full"));
        told.next().map(|it| assert!(it.starts_with("held until"), "{it}"))
    });
    branch.behave(|_| Answer::Accept);
    await_free(&site);
    // That it waits for a later attempt does not keep it from whoever comes.
    fetch(&site, &branch);
    assert_eq!(branch.received().len(), 2);
}

#[test]
fn a_session_that_fetches_is_seen_and_ended_and_no_other_fetches_the_same() {
    let elsewhere = Peer::accepting(ports::local());
    let site = start(setup(&elsewhere));
    send(&site, "a@branch.test", "kept");
    let branch = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Mail => Answer::Silence,
        _ => Answer::Accept,
    });
    std::thread::scope(|scope| {
        scope.spawn(|| fetch(&site, &branch));
        let session = wait::until("the session", || {
            let rows = site.control().json(&["session", "list"]);
            rows.as_array().unwrap().iter().find(|row| row["state"] == "reversed").cloned()
        });
        wait::until("the message to be on its way", || {
            (!branch.attempts().is_empty()).then_some(())
        });
        hello(&site, "branch").expect("ATRN", 450);
        let id = session["id"].as_str().unwrap().to_owned();
        site.ctl(&["session", "kill", &id, "--yes"]).ok();
        site.logged(&["event=atrn-done", "messages=1"]);
        branch.behave(|_| Answer::Accept);
        // The peer still waits in its silence.
        drop(site.log());
        branch.hush();
    });
    assert_eq!(waiting(&site), 1);
    await_free(&site);

    // A restart in the middle of it.
    let branch = Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::End => Answer::Silence,
        _ => Answer::Accept,
    });
    std::thread::scope(|scope| {
        scope.spawn(|| fetch(&site, &branch));
        wait::until("the message to be on its way", || {
            (!branch.attempts().is_empty()).then_some(())
        });
        site.kill();
        branch.hush();
    });
    site.launch_again();
    let branch = Peer::accepting(ports::local());
    wait::until("the mail to be known", || (waiting(&site) == 1).then_some(()));
    fetch(&site, &branch);
    assert_eq!(branch.received().len(), 1);
    site.await_empty_queue();
    assert!(elsewhere.attempts().is_empty());
}

#[test]
fn turn_is_there_for_whoever_lists_it_and_wants_a_login_too() {
    let (elsewhere, branch) = (Peer::accepting(ports::local()), Peer::accepting(ports::local()));
    let site = start(setup(&elsewhere).key("general.extensions", "[SIZE, TURN]"));
    send(&site, "a@branch.test", "one");
    send(&site, "a@other.test", "two");
    let mut talk = site.talk();
    let offered = talk.expect("EHLO branch.test", 250);
    assert!(offered.lines.iter().any(|line| line == "TURN"), "{offered}");
    talk.expect("TURN", 530);
    talk.expect("ATRN", 502);
    let mut talk = hello(&site, "branch");
    talk.expect("TURN branch.test", 501);
    talk.expect("TURN", 250);
    branch.serve(talk);
    assert_eq!(branch.received().len(), 1);
    wait::until("that of the other domain alone to wait", || (waiting(&site) == 1).then_some(()));
    assert!(elsewhere.attempts().is_empty());
}

#[test]
fn a_branch_of_ours_fetches_its_mail_from_a_hub_of_ours_under_tls() {
    let elsewhere = Peer::accepting(ports::local());
    let hub = start(setup(&elsewhere).key("access.basic.require_tls", "true"));
    let branch =
        Site::start(Setup::new().key("access.relay.list", "[]").only_domains(&[
            "{name: branch.test, type: default}",
            "{name: x.sea.test, type: alias}",
        ]));
    let host = format!("{}:{}", hub.address().ip(), hub.address().port());
    let words = ["smarthost", "set", &host, "--name", "hub", "--tls", "required"];
    let login = ["--user", "branch", "--password-stdin"];
    branch.control().input(&format!("{PASSWORD}\n")).run(&[&words[..], &login].concat()).ok();
    let fetch = |domains: &[&str]| {
        let words = ["etrn", "--atrn", "--smarthost", "hub"];
        branch.ctl(&[&words[..], domains].concat())
    };
    let none = fetch(&[]).exited(1);
    assert!(none.out.contains("453"), "{none}");
    let denied = fetch(&["other.test"]).exited(1);
    assert!(denied.out.contains("450"), "{denied}");
    let _usage = fetch(&["@branch.test"]).exited(2);
    let _usage = branch.ctl(&["etrn", "--atrn", &host]).exited(2);

    for (to, tag) in [("a@branch.test", "one"), ("b@x.sea.test", "two"), ("c@branch.test", "three")]
    {
        send(&hub, to, tag);
    }
    let taken = fetch(&["x.sea.test"]).ok();
    assert!(taken.contains("250") && taken.contains("now you are the server"), "{taken}");
    branch.await_dropped(1);
    wait::until("the rest to wait", || (waiting(&hub) == 2).then_some(()));
    await_free(&hub);
    let taken = fetch(&[]).ok();
    assert!(taken.contains("all"), "{taken}");
    let dropped = branch.await_dropped(3);
    let received = dropped[0].fields("Received").remove(0);
    assert!(received.contains("with ESMTPS") && received.contains("TLSv1.3"), "{received}");
    hub.await_empty_queue();
    hub.logged(&["event=delivered", "tls=TLSv1.3", "to=<a@branch.test>"]);
    branch.logged(&["event=atrn-sent", "actor="]);
    assert!(elsewhere.attempts().is_empty());

    // What is to go under TLS all the way does; what is not for the branch, it does not take.
    let script = format!(
        "import smtplib, ssl\n\
         client = smtplib.SMTP('127.0.0.1', {})\n\
         client.starttls(context=ssl._create_unverified_context())\n\
         client.sendmail('a@client.test', ['d@branch.test'], 'Subject: x\\r\\n\\r\\nx\\r\\n',\n\
         \x20               mail_options=['REQUIRETLS'])\n",
        hub.address().port()
    );
    program::run(Command::new("/usr/bin/python3").arg("-c").arg(script), b"").ok();
    send(&hub, "e@y.sea.test", "not theirs");
    await_free(&hub);
    fetch(&[]).ok();
    branch.await_dropped(4);
    branch.logged(&["event=received", "TLS all the way"]);
    hub.logged(&["event=bounced", "to=<e@y.sea.test>", "relaying is not allowed"]);
}

/// Asks for mail under TLS, as `branch`; the codes of these commands.
fn asked_under_tls(site: &Site, lines: &[&str]) -> String {
    let asked: String =
        lines.iter().map(|line| format!("print(client.docmd('{line}')[0])\n")).collect();
    let script = format!(
        "import smtplib, ssl\n\
         client = smtplib.SMTP('127.0.0.1', {})\n\
         client.starttls(context=ssl._create_unverified_context())\n\
         client.login('branch', '{PASSWORD}')\n\
         {asked}",
        site.address().port()
    );
    program::run(Command::new("/usr/bin/python3").arg("-c").arg(script), b"").ok()
}

#[test]
fn what_a_domain_demands_of_tls_binds_whoever_fetches_its_mail() {
    let (elsewhere, branch) = (Peer::accepting(ports::local()), Peer::accepting(ports::local()));
    let safe = "{name: safe.test, type: remote, relay: true, tls: required, \
                hold: {release: atrn, atrn_users: [branch]}}";
    let site = start(setup(&elsewhere).domain(safe));
    send(&site, "a@safe.test", "safe");
    send(&site, "a@branch.test", "one");
    hello(&site, "eve").expect("ATRN safe.test", 450);
    let mut talk = hello(&site, "branch");
    for line in ["ATRN safe.test", "ATRN branch.test,safe.test", "ATRN"] {
        let refused = talk.expect(line, 530);
        assert_eq!(refused.enhanced(), Some("5.7.0"), "{line}: {refused}");
        assert!(refused.to_string().contains("STARTTLS"), "{line}: {refused}");
    }
    talk.expect("ATRN branch.test", 250);
    branch.serve(talk);
    assert_eq!(branch.received().len(), 1);
    await_free(&site);
    wait::until("one message left", || (waiting(&site) == 1).then_some(()));
    assert_eq!(asked_under_tls(&site, &["ATRN safe.test"]), "250\n");
}

#[test]
fn mail_that_goes_under_tls_or_not_at_all_waits_for_a_connection_that_keeps_to_it() {
    let (elsewhere, branch) = (Peer::accepting(ports::local()), Peer::accepting(ports::local()));
    let site = start(setup(&elsewhere));
    let script = format!(
        "import smtplib, ssl\n\
         client = smtplib.SMTP('127.0.0.1', {})\n\
         client.starttls(context=ssl._create_unverified_context())\n\
         client.sendmail('a@client.test', ['strict@branch.test'], 'Subject: x\\r\\n\\r\\nx\\r\\n',\n\
         \x20               mail_options=['REQUIRETLS'])\n",
        site.address().port()
    );
    program::run(Command::new("/usr/bin/python3").arg("-c").arg(script), b"").ok();
    send(&site, "usual@branch.test", "usual");
    for _ in 0..2 {
        fetch(&site, &branch);
        await_free(&site);
        let received = branch.received();
        assert_eq!(received.len(), 1, "{received:?}");
        assert_eq!(received[0].recipients(), ["usual@branch.test"]);
        wait::until("one message left", || (waiting(&site) == 1).then_some(()));
    }
    assert!(!site.log().contains("event=bounced"), "{}", site.log());
    let rows = site.control().json(&["queue", "list"]);
    let reason = rows[0]["reason"].as_str().unwrap();
    assert!(reason.contains("REQUIRETLS"), "{reason}");
}

#[test]
fn a_session_is_ended_whose_host_reads_nothing() {
    let elsewhere = Peer::accepting(ports::local());
    let site = start(setup(&elsewhere).key("messages.max_size", "64MiB"));
    let large =
        [&tagged("large")[..], &b"0123456789012345678901234567890123456789\r\n".repeat(400_000)]
            .concat();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &["a@branch.test"], &large).unwrap().code, 250);
    let mut talk = hello(&site, "branch");
    talk.expect("ATRN", 250);
    // It answers commands, and then takes no octet of the message.
    let mut stream = talk.into_stream();
    let mut commands = BufReader::new(stream.try_clone().unwrap());
    stream.write_all(b"220 x\r\n").unwrap();
    for reply in ["250-x\r\n250 8BITMIME", "250 ok", "250 ok", "354 go on"] {
        commands.read_line(&mut String::new()).unwrap();
        stream.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
    }
    wait::until("the message to be on its way", || {
        (stream.peek(&mut [0; 16 * 1024]).unwrap() == 16 * 1024).then_some(())
    });
    let rows = site.control().json(&["session", "list"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["state"] == "reversed").unwrap();
    let session = row["id"].as_str().unwrap().to_owned();
    site.ctl(&["session", "kill", &session, "--yes"]).ok();
    site.logged(&["event=atrn-done", "messages=1"]);
    await_free(&site);
    assert_eq!(waiting(&site), 1);
    let branch = Peer::accepting(ports::local());
    fetch(&site, &branch);
    assert_eq!(branch.received().len(), 1);
    drop(stream);
}

#[test]
fn keys_about_fetching_are_looked_at_together() {
    let site = Site::start(Setup::new());
    let words = ["domain", "add", "remote", "branch.test", "--relay", "--atrn-user", "branch"];
    let added = site.ctl(&words);
    assert_eq!(added.code, 0, "{added}");
    let checked = site.ctl(&["config", "check"]);
    assert!(checked.to_string().contains("W0460"), "{checked}");
    let listed = site.ctl(&["domain", "list"]).ok();
    assert!(listed.contains("held for ATRN"), "{listed}");
    let mut talk = site.talk();
    let offered = talk.expect("EHLO branch.test", 250);
    assert!(!offered.lines.iter().any(|line| line == "ATRN"), "nobody can log in: {offered}");
    talk.expect("ATRN", 502);
    let set = |keys: &[&str]| site.ctl(&[&["domain", "set", "branch.test"], keys].concat());
    for (keys, code) in [
        (&["hold.etrn_from=127.0.0.1"][..], "E0360"),
        (&["hold.queue=night"], "E0360"),
        (&["hold.release=etrn"], "E0360"),
        (&["hold.release=both", "hold.atrn_users="], "E0361"),
        (&["hold.release=off"], "E0437"),
    ] {
        let refused = set(keys).exited(6);
        assert!(refused.err.contains(code), "{keys:?}: {refused}");
    }
    set(&["hold.release=both", "hold.queue=night"]).ok();
    let listed = site.ctl(&["domain", "list"]).ok();
    assert!(listed.contains("held for ETRN or ATRN"), "{listed}");
    let route = site.ctl(&["route", "show", "a@branch.test"]).ok();
    assert!(route.contains("held for ETRN or ATRN, then "), "{route}");
}
