//! `smtpctl trace` against planted faults: the story is there, and it says why and what to do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mailroot_tests::dns::Dns;
use mailroot_tests::faketime::Faketime;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, wait};

/// Sends one message and requires its 250.
fn send(site: &Site, from: &str, to: &[&str], tag: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let reply = talk.message(from, to, &tagged(tag)).unwrap();
    assert_eq!(reply.code, 250, "{reply}");
}

/// The story as people read it, once it holds every one of `parts`.
#[track_caller]
fn story(site: &Site, arguments: &[&str], parts: &[&str]) -> String {
    let mut all = vec!["trace"];
    all.extend(arguments);
    let mut last = String::new();
    let found = wait::until(&format!("a story with {parts:?}"), || {
        last = site.ctl(&all).out;
        parts.iter().all(|part| last.contains(part)).then(|| last.clone())
    });
    assert!(!found.is_empty());
    found
}

fn traced(site: &Site, arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["trace"];
    all.extend(arguments);
    site.control().json(&all)
}

fn peer(answer: &'static str) -> Peer {
    Peer::start(ports::local(), move |event: &Event| {
        if event.stage == Stage::Rcpt { Answer::say(answer) } else { Answer::Accept }
    })
}

fn to_peer(peer: &Peer) -> Setup {
    Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]")
}

#[test]
fn a_message_that_went_out_is_told_from_its_door_to_the_remotes_words() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    send(&site, "app@client.test", &["al@far.test", &format!("x@{LOCAL_DOMAIN}")], "m1");
    site.await_empty_queue();
    let text = story(&site, &["--to", "al@far.test"], &["received", "delivered"]);
    for part in [
        "app@client.test -> al@far.test",
        "\"m1\"",
        "from 127.0.0.1 (client.test) by SMTP, let in by relay list 127.0.0.0/8",
        "routed",
        "by host:",
        "250",
        "filed as",
        "server default",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("Why"), "nothing needs explaining: {text}");
    let json = traced(&site, &["--from", "app@client.test"]);
    let entry = &json[0];
    assert_eq!(
        (entry["state"].as_str(), json.as_array().map(Vec::len)),
        (Some("delivered"), Some(1))
    );
    assert_eq!(entry["client"], "127.0.0.1");
    assert_eq!(entry["subject"], "m1");
    assert_eq!(entry["message_id"], "<m1@client.test>");
    let words: Vec<_> = entry["events"].as_array().unwrap().iter().map(|it| &it["event"]).collect();
    assert_eq!(words[0], "received");
    assert!(words.iter().any(|word| *word == "delivered"), "{words:?}");
    assert!(words.iter().any(|word| *word == "dropped"), "{words:?}");
}

#[test]
fn every_condition_and_every_form_works() {
    let site = Site::start(Setup::new());
    for number in 0..3 {
        let from = format!("s{number}@client.test");
        let to = format!("r{number}@{LOCAL_DOMAIN}");
        send(&site, &from, &[&to], &format!("tag{number}"));
    }
    site.await_empty_queue();
    let ids: Vec<String> =
        site.ctl(&["trace", "-o", "name"]).ok().lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.is_sorted_by(|a, b| a > b), "the newest first: {ids:?}");
    let domain = format!("*@{LOCAL_DOMAIN}");
    for (arguments, expected) in [
        (&[ids[1].as_str()][..], 1),
        (&["--from", "s1@client.test"], 1),
        (&["--from", "*@client.test"], 3),
        (&["--to", "/^r[01]@/"], 2),
        (&["--to", &domain], 3),
        (&["--domain", LOCAL_DOMAIN], 3),
        (&["--domain", "near.test"], 0),
        (&["--subject", "TAG2"], 1),
        (&["--client", "127.0.0.0/8"], 3),
        (&["--client", "192.0.2.1"], 0),
        (&["--newer-than", "1h"], 3),
        (&["--older-than", "1h"], 0),
        (&["-s", "default"], 3),
        (&["-s", "other"], 0),
        (&["--last", "2"], 2),
        (&["--limit", "1"], 1),
        (&["--from", "s1@*", "--to", "r2@*"], 0),
    ] {
        let all = [&["trace", "-o", "name"][..], arguments].concat();
        assert_eq!(site.ctl(&all).ok().lines().count(), expected, "{arguments:?}");
    }
    let wide = site.ctl(&["trace", "-o", "wide"]).ok();
    assert!(wide.starts_with("ID") && wide.lines().count() == 4, "{wide}");
    assert_eq!(site.ctl(&["trace", "-o", "jsonl"]).ok().lines().count(), 3);
    assert_eq!(site.ctl(&["trace", "-o", "csv"]).ok().lines().count(), 4);
    assert!(site.ctl(&["trace", "-o", "yaml"]).ok().contains("delivered"));
    let template = site.ctl(&["trace", "-o", "template={state} {from}\\n", "--sort", "from"]).ok();
    assert!(template.starts_with("delivered s0@client.test\n"), "{template}");
    let told = site.ctl(&["trace", "--last", "1"]);
    assert_eq!(told.out.matches(" -> ").count(), 1, "{told}");
    assert!(told.err.contains("There are more"), "{told}");
    let ambiguous = site.ctl(&["trace", &ids[0][..4]]).exited(2);
    assert!(ambiguous.err.contains(&ids[1]), "{ambiguous}");
    let nothing = site.ctl(&["trace", "--to", "nobody@far.test"]).exited(3);
    assert!(nothing.out.contains("No message to nobody@far.test"), "{nothing}");
}

#[test]
fn a_dead_host_a_wrong_port_and_a_wrong_name_are_told_apart() {
    let dead = ports::local();
    let setup = Setup::new().smart_host(dead).key("delivery.outbound.retry", "[1h]");
    let site = Site::start(setup);
    send(&site, "a@client.test", &["al@far.test"], "dead");
    let text = story(&site, &["--to", "al@far.test"], &["deferred", "Why", "next try"]);
    for part in [
        "connection refused",
        "refuses connections",
        "queue retry",
        "smtpctl route show -s default --from=a@client.test al@far.test",
        "sender is told at",
        "given up at",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("Another host"), "none took mail: {text}");
    // More mail waits behind the first, untried.
    send(&site, "a@client.test", &["bob@far.test"], "behind");
    story(
        &site,
        &["--to", "bob@far.test"],
        &["refuses connections", "Other mail to it: 1 waiting"],
    );

    let setup = site
        .setup()
        .key("delivery.smart_host", "\"nosuchhost.invalid:25\"")
        .service("dns.timeout", "100ms")
        .service("dns.resolvers", &format!("[\"{}\"]", ports::local()));
    site.configure(setup);
    let _reloaded = site.ctl(&["reload"]).ok();
    let _scheduled = site.ctl(&["queue", "retry", "--to", "al@far.test"]).ok();
    story(
        &site,
        &["--to", "al@far.test"],
        &["name of the smart host", "nosuchhost.invalid", "scheduled  by"],
    );
}

#[test]
fn greylisting_and_refused_relay_are_told_in_the_remotes_words() {
    let grey = peer("451 4.7.1 come back in 300 seconds");
    let site = Site::start(to_peer(&grey));
    send(&site, "a@client.test", &["al@far.test"], "grey");
    let text = story(&site, &["--to", "al@far.test"], &["greylisting", "queue retry"]);
    assert!(text.contains("451 4.7.1 come back in 300 seconds"), "{text}");

    let closed = peer("550 5.7.1 we do not relay");
    let sender = format!("ops@{LOCAL_DOMAIN}");
    let site = Site::start(to_peer(&closed));
    send(&site, &sender, &["al@far.test"], "closed");
    let text =
        story(&site, &["--to", "al@far.test"], &["bounced", "report", "does not relay for us"]);
    assert!(text.contains("The sender was told by"), "{text}");
    // The report is a message with a story of its own.
    let json = traced(&site, &["--to", "al@far.test"]);
    let events = json[0]["events"].as_array().unwrap();
    let report = events.iter().find_map(|event| event["other"].as_str()).unwrap();
    let text = story(&site, &[report], &["as a report of ours", "filed as"]);
    assert!(text.contains(&format!("<> -> {sender}")), "{text}");
}

#[test]
fn clients_that_were_turned_away_are_the_answer_when_nothing_is_found() {
    let setup = Setup::new().key("access.relay.list", "[192.0.2.0/24]");
    let site = Site::start(setup);
    let mut talk = site.talk();
    talk.expect("EHLO intruder.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    for _ in 0..3 {
        talk.expect("RCPT TO:<bob@partner.test>", 550);
    }
    let nothing = site.ctl(&["trace", "--to", "bob@partner.test"]).exited(3);
    for part in [
        "No message to bob@partner.test",
        "127.0.0.1 was refused 3 times",
        "550 5.7.1 relay-denied at rcpt",
        "127.0.0.1 may not send",
        "smtpctl relay allow -s default 127.0.0.1",
        "smtpctl trace --refused --client 127.0.0.1",
    ] {
        assert!(nothing.out.contains(part), "{part}: {nothing}");
    }
    let refused = site.control().json(&["trace", "--refused", "--client", "127.0.0.0/8"]);
    assert_eq!(refused.as_array().map(Vec::len), Some(3), "{refused}");
    assert_eq!(refused[0]["helo"], "intruder.test");
    assert_eq!(refused[0]["to"], "bob@partner.test");
    let table = site.ctl(&["trace", "--refused"]).ok();
    assert!(table.starts_with("AGE") && table.contains("relay-denied"), "{table}");

    // A paused server takes no sessions, and the answer says so.
    let _paused = site.ctl(&["server", "pause", "default"]).ok();
    let mut talk = Talk::connect(site.address()).unwrap();
    assert_eq!(talk.reply().unwrap().code, 421);
    let nothing = site.ctl(&["trace", "--client", "127.0.0.1"]).exited(3);
    for part in ["stopping at connect", "paused, stopped or stopping", "server resume default"] {
        assert!(nothing.out.contains(part), "{part}: {nothing}");
    }
}

#[test]
fn what_operators_did_stands_in_the_story() {
    let grey = peer("451 4.7.1 later");
    let site = Site::start(to_peer(&grey));
    send(&site, "a@client.test", &["al@far.test"], "held");
    story(&site, &["--to", "al@far.test"], &["deferred"]);
    let id = site.ctl(&["queue", "list", "-o", "name"]).ok().trim().to_owned();
    let _held = site.ctl(&["queue", "hold", &id, "--because", "look first"]).ok();
    let text = story(&site, &[&id], &["held", "look first"]);
    assert!(
        text.contains("It is held by") && text.contains(&format!("queue release {id}")),
        "{text}"
    );
    let _released = site.ctl(&["queue", "release", &id]).ok();
    let _removed = site.ctl(&["queue", "remove", &id, "--yes"]).ok();
    let json = traced(&site, &[&id]);
    assert_eq!(json[0]["state"], "removed", "{json}");
    let text = story(&site, &[&id], &["released   by", "removed    by"]);
    assert!(!text.contains("next try"), "{text}");

    send(&site, "a@client.test", &["bob@far.test"], "stopped");
    story(&site, &["--to", "bob@far.test"], &["deferred"]);
    let _stopped = site.ctl(&["server", "stop", "default"]).ok();
    story(&site, &["--to", "bob@far.test"], &["is stopped", "server start default"]);
}

#[test]
fn a_bad_pickup_file_and_its_way_back_are_one_story_each() {
    let setup = Setup::new().key("store.pickup.poll", "100ms").key("store.pickup.settle", "0ms");
    let site = Site::start(setup);
    let path = |name: &str| -> PathBuf { site.spool("default", "Pickup").join(name) };
    fs::write(path(".new"), "no header here\r\n").unwrap();
    fs::rename(path(".new"), path("bad.eml")).unwrap();
    let id = wait::until("a file in Badmail", || {
        let listed = site.ctl(&["badmail", "list", "-o", "name"]).ok();
        (!listed.trim().is_empty()).then(|| listed.trim().to_owned())
    });
    let text = story(&site, &[&id], &["badmail", "Why"]);
    for part in ["bad.eml", "no message that can be sent", &format!("badmail requeue {id}")] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let to = format!("x@{LOCAL_DOMAIN}");
    let _put_back = site
        .ctl(&["badmail", "requeue", &id, "--from", "a@client.test", "--to", &to, "--yes"])
        .ok();
    story(&site, &["--to", &to], &["from Badmail, where it was", "filed as"]);
    story(&site, &[&id], &["requeued   as"]);
}

#[test]
fn a_domain_that_dns_does_not_know_is_told_to_be_mistyped() {
    let port = ports::free();
    let Some(dns) = Dns::serve(&["there.test. 60 IN MX 10 mx.there.test."]) else {
        return skip::note("trace of a missing domain", "unbound is not installed");
    };
    let site = Site::start(Setup::new().dns(dns.address(), port));
    let sender = format!("ops@{LOCAL_DOMAIN}");
    send(&site, &sender, &["al@thre.test"], "mistyped");
    story(&site, &["--to", "al@thre.test"], &["bounced", "mistyped", "dig MX thre.test"]);
    send(&site, &sender, &["al@there.test"], "no-address");
    story(&site, &["--to", "al@there.test"], &["mx.there.test", "Why"]);
}

#[test]
fn mail_whose_time_was_up_is_told_with_what_kept_it() {
    let setup = Setup::new().smart_host(ports::local());
    let setup = setup.key("delivery.outbound.retry", "[1s]").key("delivery.outbound.expire", "1m");
    let site = Site::prepare(setup);
    let Some(clock) = Faketime::of(&site) else {
        return skip::note("mail whose time was up", "libfaketime is not installed");
    };
    site.launch();
    let sender = format!("ops@{LOCAL_DOMAIN}");
    send(&site, &sender, &["al@far.test"], "late");
    story(&site, &["--to", "al@far.test"], &["deferred"]);
    clock.set("+2m");
    let text = story(&site, &["--to", "al@far.test"], &["expired", "report", "Why"]);
    for part in ["time was up", "connection refused", "The sender was told by"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("next try"), "{text}");
}

#[test]
fn a_disk_that_is_full_is_told_by_the_refusals_and_by_doctor() {
    let site = Site::start(Setup::new().service("service.min_free", "900TiB"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 452);
    let nothing = site.ctl(&["trace", "--client", "127.0.0.1"]).exited(3);
    for part in ["452 4.3.1", "smtpctl doctor storage"] {
        assert!(nothing.out.contains(part), "{part}: {nothing}");
    }
    let nothing = site.ctl(&["trace", "--to", "al@far.test"]).exited(3);
    assert!(nothing.out.contains("store-full at mail"), "no recipient was named: {nothing}");
    let checked = site.ctl(&["doctor", "storage"]).exited(10);
    assert!(checked.out.contains("new mail is refused"), "{checked}");
    let status = site.ctl(&["status", "--check"]).exited(10);
    assert!(status.out.contains("new mail is refused: the queue has no room"), "{status}");
}

#[test]
fn a_drop_that_is_full_is_told_with_where_to_look() {
    let local = format!("{{name: {LOCAL_DOMAIN}, type: default, drop: {{quota: 1KiB}}}}");
    let setup = Setup::new().only_domains(&[&local]).key("delivery.local.retry", "1h");
    let site = Site::start(setup);
    let to = format!("x@{LOCAL_DOMAIN}");
    for number in 0..5 {
        send(&site, "a@client.test", &[&to], &format!("full{number}"));
    }
    let text = story(&site, &["--subject", "full4"], &["deferred", "Why"]);
    for part in ["as full as it may be", "quota", "doctor storage -s default"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_message_that_waits_is_told_of_even_if_the_trace_is_gone() {
    let grey = peer("451 4.7.1 later");
    let site = Site::start(to_peer(&grey).key("delivery.outbound.retry", "[1h]"));
    send(&site, "a@client.test", &["al@far.test"], "old");
    story(&site, &["--to", "al@far.test"], &["deferred"]);
    let id = site.ctl(&["queue", "list", "-o", "name"]).ok().trim().to_owned();
    site.stop();
    fs::remove_dir_all(site.home().join("state/trace")).unwrap();
    site.launch_again();
    let text = story(&site, &[&id], &["next try"]);
    assert!(text.contains("a@client.test -> al@far.test"), "{text}");
    let gone = site.ctl(&["trace", "000000000000"]).exited(3);
    assert!(gone.out.contains("trace"), "{gone}");
}

#[test]
fn the_record_is_private_outlives_the_daemon_and_heeds_its_keys() {
    let site = Site::start(Setup::new().service("trace.subjects", "false"));
    let to = format!("x@{LOCAL_DOMAIN}");
    send(&site, "a@client.test", &[&to], "secret-subject");
    site.await_empty_queue();
    story(&site, &["--to", &to], &["filed as"]);
    let found = site.ctl(&["trace", "--subject", "secret-subject", "-o", "name"]).ok();
    assert!(found.is_empty(), "{found}");
    site.stop();
    site.launch();
    let text = story(&site, &["--to", &to], &["received", "filed as"]);
    assert!(!text.contains("secret-subject"), "{text}");
    let folder = site.home().join("state/trace");
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let files: Vec<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");

    // A spoilt file costs what was in it, and is told.
    site.stop();
    for file in &files {
        let mut octets = fs::read(file).unwrap();
        let middle = octets.len() / 2;
        octets[middle] ^= 0xFF;
        let good = octets.clone();
        octets.extend_from_slice(&good);
        fs::write(file, octets).unwrap();
    }
    site.launch();
    let status = site.control().json(&["status"]);
    assert!(status["counters"]["trace_dropped"].is_u64(), "{status}");
    send(&site, "a@client.test", &[&to], "after");
    site.await_empty_queue();
    story(&site, &["--to", &to], &["filed as"]);
    let refused = Setup::new().service("trace.keep", "1m");
    let bad = Site::prepare(refused);
    let check = bad.run(&["--check"]);
    assert!(check.code != 0 && check.err.contains("trace.keep"), "{check}");
}

#[test]
fn what_was_sent_and_deferred_is_counted_by_what_it_has_in_common() {
    let peer = peer("451 4.7.1 greylisted");
    let site = Site::start(to_peer(&peer));
    let local = format!("x@{LOCAL_DOMAIN}");
    send(&site, "app@client.test", &[&local], "s1");
    send(&site, "app@client.test", &[&local, "al@far.test"], "s2");
    send(&site, "", &["bo@far.test"], "s3");
    let stats = |by: &str| site.control().json(&["stats", "--by", by]);
    let row = |stats: &serde_json::Value, group: &str| {
        let found = stats.as_array().unwrap().iter().find(|row| row["group"] == group);
        found.map(|row| (row["sent"].clone(), row["deferred"].clone(), row["failed"].clone()))
    };
    let counted = |sent: u64, deferred: u64| Some((sent.into(), deferred.into(), 0.into()));
    wait::until("all outcomes", || {
        (row(&stats("server"), "default") == counted(2, 2)).then_some(())
    });
    let by_destination = stats("destination");
    assert_eq!(row(&by_destination, "drop"), counted(2, 0));
    let host = format!("[{}]:{}", peer.address().ip(), peer.address().port());
    assert_eq!(row(&by_destination, &host), counted(0, 2), "{by_destination}");
    assert!(by_destination[0]["bytes"].as_u64().unwrap() > 200, "{by_destination}");
    assert!(by_destination[0]["p95"].as_f64().unwrap() < 60.0, "{by_destination}");
    assert!(by_destination[1].get("p50").is_none(), "{by_destination}");
    let by_sender = stats("sender");
    assert_eq!(row(&by_sender, "app@client.test"), counted(2, 1));
    assert_eq!(row(&by_sender, "<>"), counted(0, 1));
    assert!(stats("hour")[0]["group"].as_str().unwrap().ends_with(":00Z"));

    let table = site.ctl(&["stats"]).ok();
    assert!(table.starts_with("GROUP    SENT  DEFERRED  FAILED  BYTES"), "{table}");
    let csv = site.ctl(&["stats", "-o", "csv", "--columns", "group,sent", "--limit", "1"]).ok();
    assert_eq!(csv, "group,sent\r\ndefault,2\r\n");
    let _no_span = site.ctl(&["stats", "--since", "soon"]).exited(2);
    let _unknown = site.ctl(&["stats", "-s", "nowhere"]).exited(3);
}
