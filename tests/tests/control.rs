//! Every command of `smtpctl`, as scripts and people use it: what it prints, what it changes, how it ends.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::stranger::Stranger;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, program, skip, wait};

/// A site whose remote mail waits, and the peer it waits for.
fn waiting(messages: usize) -> (Site, Peer) {
    let peer = Peer::start(ports::local(), |event: &Event| {
        if event.stage == Stage::Rcpt {
            Answer::say("451 4.7.1 greylisted")
        } else {
            Answer::Accept
        }
    });
    let site =
        Site::start(Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for number in 0..messages {
        let (from, to) = (format!("s{number}@client.test"), format!("r{number}@far.test"));
        let reply = talk.message(&from, &[&to], &tagged(&format!("m{number}"))).unwrap();
        assert_eq!(reply.code, 250);
    }
    wait::until("every message in retry", || {
        let rows = site.control().json(&["queue", "list", "--state", "retry"]);
        (rows.as_array().map(Vec::len) == Some(messages)).then_some(())
    });
    (site, peer)
}

#[test]
fn a_summary_counts_what_waits_by_what_it_has_in_common() {
    let (site, _peer) = waiting(3);
    let summary = |by: &str| site.control().json(&["queue", "summary", "--by", by]);
    let by_domain = summary("destination");
    assert_eq!(by_domain[0]["group"], "far.test");
    assert_eq!(
        (by_domain[0]["messages"].as_u64(), by_domain[0]["recipients"].as_u64()),
        (Some(3), Some(3))
    );
    assert_eq!(summary("sender").as_array().unwrap().len(), 3);
    let reason = summary("reason");
    assert!(reason[0]["group"].as_str().unwrap().starts_with("451"), "{reason}");
    assert_eq!(summary("age")[0]["group"], "under 5m");
    let table = site.ctl(&["queue", "summary", "--from", "s1@*"]).ok();
    assert!(table.starts_with("GROUP") && table.contains("far.test"), "{table}");
}

fn ids(site: &Site) -> Vec<String> {
    site.ctl(&["queue", "list", "-o", "name"]).ok().lines().map(str::to_owned).collect()
}

#[test]
fn status_says_what_runs_and_its_exit_code_whether_it_is_well() {
    let site = Site::start(Setup::new());
    let table = site.ctl(&["status"]).ok();
    assert!(table.contains("default") && table.contains("running"), "{table}");
    assert!(table.contains(&site.address().to_string()), "{table}");
    let status = site.control().json(&["status"]);
    assert_eq!(status["pid"].as_u64(), Some(u64::from(site.pid())));
    assert_eq!(status["servers"][0]["state"], "running");
    let _healthy = site.ctl(&["status", "--check"]).ok();
    assert!(site.ctl(&["version"]).ok().contains(env!("CARGO_PKG_VERSION")));

    site.stop();
    let down = site.ctl(&["status"]).exited(5);
    assert!(down.err.contains("smtpd"), "it says what to do: {down}");
    let down = site.ctl(&["status", "-o", "json"]).exited(5);
    let error: serde_json::Value = serde_json::from_str(&down.err).unwrap();
    assert_eq!(error["error"]["exit"], 5, "{down}");
}

#[test]
fn queue_list_has_every_form() {
    let (site, _peer) = waiting(3);
    let json = site.control().json(&["queue", "list"]);
    assert_eq!(json.as_array().map(Vec::len), Some(3));
    let row = &json[0];
    for field in
        ["id", "server", "state", "accepted_at", "size", "from", "to", "attempts", "reason"]
    {
        assert!(!row[field].is_null(), "{field}: {row}");
    }
    assert_eq!(row["reason"].as_str().map(|words| words.contains("greylisted")), Some(true));
    let lines = site.ctl(&["queue", "list", "-o", "jsonl"]).ok();
    assert_eq!(lines.lines().count(), 3);
    for line in lines.lines() {
        let _object: serde_json::Value = serde_json::from_str(line).unwrap();
    }
    let table = site.ctl(&["queue", "list"]).ok();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.starts_with("ID"), "{table}");
    assert_eq!(site.ctl(&["queue", "list", "--no-headers"]).ok().lines().count(), 3);
    let plain = site.ctl(&["queue", "list", "-o", "plain"]).ok();
    assert!(plain.lines().count() == 3 && plain.contains('\t'), "{plain}");
    let csv = site.ctl(&["queue", "list", "-o", "csv"]).ok();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert!(site.ctl(&["queue", "list", "-o", "yaml"]).ok().contains("greylisted"));
    assert!(site.ctl(&["queue", "list", "-o", "wide"]).ok().contains("far.test"));
    let template = site.ctl(&["queue", "list", "-o", "template={id} {from}\\n"]).ok();
    assert!(template.lines().all(|line| line.split(' ').count() == 2), "{template}");
    assert_eq!(ids(&site).len(), 3);
    assert_eq!(site.ctl(&["queue", "list", "-o", "name", "--limit", "2"]).ok().lines().count(), 2);
    let sorted = site.ctl(&["queue", "list", "-o", "template={from}\\n", "--sort", "-from"]).ok();
    let mut reversed: Vec<&str> = sorted.lines().collect();
    reversed.reverse();
    assert!(reversed.is_sorted(), "{sorted}");
}

#[test]
fn selectors_choose_by_every_condition() {
    let (site, _peer) = waiting(3);
    let count = |arguments: &[&str]| {
        let mut all = vec!["queue", "list", "-o", "name"];
        all.extend(arguments);
        site.ctl(&all).ok().lines().count()
    };
    for (arguments, expected) in [
        (&["--from", "s1@client.test"][..], 1),
        (&["--from", "s*@client.test"], 3),
        (&["--to", "/^r[01]@/"], 2),
        (&["--domain", "far.test"], 3),
        (&["--domain", "near.test"], 0),
        (&["--reason", "greylist"], 3),
        (&["--code", "4.7.*"], 3),
        (&["--code", "5.*"], 0),
        (&["--older-than", "1h"], 0),
        (&["--newer-than", "1h"], 3),
        (&["--size", ">1B"], 3),
        (&["--size", ">1MiB"], 0),
        (&["--client", "127.0.0.0/8"], 3),
        (&["--client", "192.0.2.0/24"], 0),
        (&["--state", "held"], 0),
        (&["--from", "s1@*", "--to", "r2@*"], 0),
    ] {
        assert_eq!(count(arguments), expected, "{arguments:?}");
    }
    let first = ids(&site).remove(0);
    assert_eq!(count(&[&first]), 1);
    let _too_short = site.ctl(&["queue", "list", "--older-than", "5"]).exited(2);
    assert_eq!(site.ctl(&["queue", "list", "--from", "nobody@*", "-o", "json"]).ok().trim(), "[]");
}

#[test]
fn changing_commands_need_a_choice_and_a_yes() {
    let (site, peer) = waiting(3);
    let _usage = site.ctl(&["queue", "remove"]).exited(2);
    let shown = site.ctl(&["queue", "remove", "--all", "--dry-run"]).ok();
    assert_eq!(ids(&site).len(), 3, "{shown}");
    let _unasked = site.ctl(&["queue", "remove", "--all"]).exited(2);
    assert_eq!(ids(&site).len(), 3);
    let _nothing = site.ctl(&["queue", "remove", "--from", "nobody@*", "--yes"]).exited(3);

    let chosen = ids(&site);
    let _held = site.ctl(&["queue", "hold", &chosen[0], "--because", "check with legal"]).ok();
    let shown = site.ctl(&["queue", "show", &chosen[0]]).ok();
    assert!(shown.contains("held") && shown.contains("check with legal"), "{shown}");
    peer.behave(|_| Answer::Accept);
    let _flushed = site.ctl(&["queue", "flush"]).ok();
    peer.await_received(2);
    wait::until("only the held one left", || (ids(&site) == [chosen[0].clone()]).then_some(()));
    let _absent = site.ctl(&["queue", "release", "000000000000"]).exited(3);
    let _partly = site.ctl(&["queue", "release", &chosen[0], "000000000000"]).exited(8);
    let _retried = site.ctl(&["queue", "retry", "--all"]);
    peer.await_received(3);
    site.await_empty_queue();
}

#[test]
fn ids_come_from_standard_input_and_may_be_shortened() {
    let (site, peer) = waiting(2);
    let all = ids(&site);
    let removed =
        site.control().input(&format!("{}\n", all[0])).run(&["queue", "remove", "-", "--yes"]);
    assert_eq!(removed.code, 0, "{removed}");
    assert_eq!(ids(&site), all[1..]);
    site.logged(&["event=removed", &all[0]]);
    let _three = site.ctl(&["queue", "show", &all[1][..3]]);
    let shown = site.ctl(&["queue", "show", &all[1]]).ok();
    assert!(shown.contains("m0") || shown.contains("m1"), "the subject: {shown}");
    let content = site.ctl(&["queue", "show", &all[1], "--content"]).ok();
    assert!(content.contains("X-Tag: m"), "{content}");
    let header = site.ctl(&["queue", "show", &all[1], "--headers"]).ok();
    assert!(header.contains("X-Tag: m") && !header.contains("body of"), "{header}");
    let _none = site.ctl(&["queue", "show", "0000ZZZZ0000"]).exited(3);
    peer.behave(|_| Answer::Accept);
    let retried = site.control().input(&format!("{}\n", all[1])).run(&["queue", "retry", "-"]);
    assert_eq!(retried.code, 0, "{retried}");
    peer.await_received(1);
}

#[test]
fn badmail_is_listed_shown_sent_again_and_purged() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        let bad = event.stage == Stage::Rcpt && event.line.contains("bad");
        if bad { Answer::say("550 5.1.1 unknown here") } else { Answer::Accept }
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for number in 0..3 {
        let to = format!("bad{number}@far.test");
        assert_eq!(talk.message("", &[&to], &tagged(&format!("b{number}"))).unwrap().code, 250);
    }
    let rows = wait::until("three messages in Badmail", || {
        let rows = site.control().json(&["badmail", "list"]);
        (rows.as_array().map(Vec::len) == Some(3)).then_some(rows)
    });
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    let shown = site.ctl(&["badmail", "show", &id]).ok();
    assert!(shown.contains("550 5.1.1 unknown here"), "{shown}");
    assert!(site.ctl(&["badmail", "show", &id, "--content"]).ok().contains("X-Tag: b"));
    let _again = site.ctl(&["badmail", "requeue", &id, "--to", "good@far.test"]).ok();
    let received = peer.await_received(1);
    assert_eq!(received[0].recipients(), ["good@far.test"]);
    let rows = site.control().json(&["badmail", "list"]);
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "requeued is gone from Badmail");
    let _dry = site.ctl(&["badmail", "purge", "--all", "--dry-run"]).ok();
    let _purged = site.ctl(&["badmail", "purge", "--all", "--yes"]).ok();
    assert_eq!(site.ctl(&["badmail", "list", "-o", "json"]).ok().trim(), "[]");
    assert!(site.badmail().is_empty(), "{:?}", site.badmail());
}

#[test]
fn servers_are_created_paused_stopped_and_started_while_others_go_on() {
    let site = Site::start(Setup::new());
    let listen = ports::local();
    let created = site
        .ctl(&["server", "create", "lan", "--listen", &listen.to_string(), "--domain", "lan.test"])
        .ok();
    let mut talk = Talk::to(listen);
    talk.expect("EHLO client.test", 250);
    assert!(site.home().join("etc/servers.d/lan.yaml").is_file(), "{created}");
    let listen_text = listen.to_string();
    let again = ["server", "create", "lan", "--listen", &listen_text, "--domain", "lan.test"];
    let _conflict = site.ctl(&again).exited(7);
    let _content = site.ctl(&[&again[..], &["--if-not-exists"]].concat()).ok();
    let table = site.ctl(&["server", "list"]).ok();
    assert!(table.contains("lan") && table.contains("default"), "{table}");
    let shown = site.ctl(&["server", "show", "lan"]).ok();
    assert!(shown.contains("lan.test") && shown.contains("messages.max_size"), "{shown}");

    let _paused = site.ctl(&["server", "pause", "lan"]).ok();
    wait::until("the pause", || {
        let mut new = Talk::connect(listen).ok()?;
        (new.reply().map_or(421, |reply| reply.code) == 421).then_some(())
    });
    talk.expect("NOOP", 250);
    let _resumed = site.ctl(&["server", "resume", "lan"]).ok();
    wait::until("the end of the pause", || Talk::try_to(listen).ok());
    let _stopped = site.ctl(&["server", "stop", "lan"]).ok();
    wait::until("the stop", || Talk::connect(listen).is_err().then_some(()));
    assert_eq!(talk.reply().unwrap().code, 421, "the session that was open hears it");
    let mut other = site.talk();
    other.expect("NOOP", 250);
    let _started = site.ctl(&["server", "start", "lan"]).ok();
    wait::until("the start", || Talk::try_to(listen).ok());
    let _unknown = site.ctl(&["server", "show", "nobody"]).exited(3);
}

#[test]
fn domains_are_added_and_removed_live_and_comments_are_kept() {
    let site = Site::prepare(Setup::new().key("access.relay.list", "[192.0.2.1]"));
    let path = site.home().join("etc/servers.d/default.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("# written by hand\n{text}  # last line\n")).unwrap();
    site.launch();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<x@alias.test>", 550);

    let _alias = site.ctl(&["domain", "add", "alias", "alias.test"]).ok();
    let partner = ["domain", "add", "remote", "partner.test", "--route", "[127.0.1.77]"];
    let _unknown = site.ctl(&[&partner[..], &["--in-doubt", "drop"]].concat()).exited(2);
    let _remote = site.ctl(&[&partner[..], &["--relay", "--in-doubt", "hold"]].concat()).ok();
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<x@alias.test>", 250);
    talk.expect("RCPT TO:<x@partner.test>", 250);

    let listed = site.control().json(&["domain", "list"]).to_string();
    assert!(listed.contains(r#""in_doubt":"hold""#), "{listed}");
    for name in [LOCAL_DOMAIN, "alias.test", "partner.test"] {
        assert!(listed.contains(name), "{listed}");
    }
    let _there = site.ctl(&["domain", "add", "alias", "alias.test"]).exited(7);
    let _content = site.ctl(&["domain", "add", "alias", "alias.test", "--if-not-exists"]).ok();
    let _default = site.ctl(&["domain", "remove", LOCAL_DOMAIN]);
    assert!(site.control().json(&["domain", "list"]).to_string().contains(LOCAL_DOMAIN));
    let _removed = site.ctl(&["domain", "remove", "partner.test"]).ok();
    let _absent = site.ctl(&["domain", "remove", "partner.test"]).exited(3);
    let _content = site.ctl(&["domain", "remove", "partner.test", "--if-exists"]).ok();
    let after = fs::read_to_string(&path).unwrap();
    assert!(after.starts_with("# written by hand\n"), "{after}");
    assert!(after.contains("# last line"), "{after}");
    assert!(after.contains("alias.test") && !after.contains("partner.test"), "{after}");
    for line in text.lines() {
        assert!(after.contains(line), "{line:?} is gone from {after}");
    }
}

#[test]
fn sessions_are_listed_and_ended_with_421() {
    let site = Site::start(Setup::new());
    let mut talk = site.talk();
    talk.expect("EHLO name.client.test", 250);
    let rows = wait::until("the session in the list", || {
        let rows = site.control().json(&["session", "list"]);
        (!rows.as_array().unwrap().is_empty()).then_some(rows)
    });
    assert!(rows.to_string().contains("127.0.0.1"), "{rows}");
    let _killed = site.ctl(&["session", "kill", "--all", "--yes"]).ok();
    assert_eq!(talk.reply().unwrap().code, 421);
    assert!(talk.rest().unwrap().is_empty());
}

#[test]
fn send_tells_what_became_of_the_message() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        let bad = event.stage == Stage::Rcpt && event.line.contains("bad");
        if bad { Answer::say("550 5.1.1 unknown here") } else { Answer::Accept }
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let sent =
        site.ctl(&["send", "--to", &format!("x@{LOCAL_DOMAIN}"), "--subject", "try", "--wait"]);
    assert_eq!(sent.code, 0, "{sent}");
    assert_eq!(site.await_dropped(1)[0].fields("Subject"), ["try"]);
    let sent = site.ctl(&["send", "--to", "good@far.test", "--wait"]);
    assert_eq!(sent.code, 0, "{sent}");
    assert_eq!(peer.await_received(1)[0].recipients(), ["good@far.test"]);
}

#[test]
fn config_check_finds_errors_before_they_are_loaded() {
    let site = Site::start(Setup::new());
    let _good = site.ctl(&["config", "check"]).ok();
    let path = site.home().join("etc/servers.d/default.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}messages:\n  max_recipient: 5\n")).unwrap();
    let bad = site.ctl(&["config", "check"]).exited(6);
    let said = format!("{}{}", bad.out, bad.err);
    assert!(said.contains("max_recipients") && said.contains("default.yaml:"), "{bad}");
    let bad = site.ctl(&["config", "check", path.to_str().unwrap(), "-o", "json"]).exited(6);
    assert!(bad.out.contains("max_recipient"), "{bad}");
    let mut talk = site.talk();
    talk.expect("NOOP", 250);
}

#[test]
fn strangers_to_the_control_socket_are_turned_away() {
    let site = Site::start(Setup::new());
    let socket = site.home().join("run/control.sock");
    let mode = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660, "{mode:o}");
    let ask = |request: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = String::new();
        let _closed = stream.read_to_string(&mut reply);
        reply
    };
    let good = ask("GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    for header in ["Origin: http://evil.test", "Referer: http://evil.test/x"] {
        let reply = ask(&format!(
            "GET /v1/version HTTP/1.1\r\nHost: localhost\r\n{header}\r\nConnection: close\r\n\r\n"
        ));
        assert!(reply.starts_with("HTTP/1.1 4"), "{header}: {reply}");
    }
    let reply = ask("GET /v1/version HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 4"), "{reply}");
    let reply = ask("BLAH\r\n\r\n");
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{reply}");
    let reply = ask("GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(reply.starts_with("HTTP/1.1 404") && reply.contains("\"code\""), "{reply}");
    let document =
        ask("GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert!(document.contains("/v1/queue"), "{document}");
    let _still = site.ctl(&["status"]).ok();
}

#[test]
fn another_user_may_not_operate() {
    if !skip::root() {
        return skip::note("another user", "only root can start a program as somebody else");
    }
    let site = Site::start(Setup::new());
    fs::set_permissions(site.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let denied = Stranger::of(&site).run(&["status"]);
    assert_eq!(denied.code, 4, "{denied}");
}

#[test]
fn words_of_peers_cannot_steer_the_terminal() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        if event.stage == Stage::Rcpt {
            Answer::say("451 4.7.1 \u{1b}[2Jboo\u{7}")
        } else {
            Answer::Accept
        }
    });
    let site =
        Site::start(Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &["b@far.test"], &tagged("x")).unwrap().code, 250);
    let id = wait::until("the words in the list", || {
        let rows = site.control().json(&["queue", "list"]);
        let told = rows[0]["reason"].as_str().is_some_and(|reason| reason.contains("boo"));
        told.then(|| rows[0]["id"].as_str().unwrap().to_owned())
    });
    for form in ["table", "plain", "wide", "csv", "yaml", "json"] {
        for arguments in [&["queue", "list", "-o", form][..], &["queue", "show", &id, "-o", form]] {
            let finished = site.ctl(arguments);
            let bad = finished.out.bytes().any(|octet| octet == 0x1b || octet == 7);
            assert!(!bad, "{arguments:?}: {:?}", finished.out);
        }
    }
}

#[test]
fn long_output_on_a_terminal_goes_through_a_pager() {
    let Some(script) = program::find("script") else {
        return skip::note("a pager", "script is not installed");
    };
    let site = Site::start(Setup::new());
    let smtpctl = program::ours("smtpctl");
    let typed = |words: &str, pager: &str| {
        let line = format!("{} --home {} {words}", smtpctl.display(), site.home().display());
        let mut command = Command::new(&script);
        command.args(["-qec", &line, "/dev/null"]).env("SMTPCTL_PAGER", pager);
        program::run(&mut command, b"").ok()
    };
    let pager = "sed s/^/paged:/";
    let paged = typed("server list", pager);
    assert!(paged.lines().any(|line| line.starts_with("paged:default")), "{paged}");
    assert!(!typed("server list --no-pager", pager).contains("paged:"));
    assert!(!typed("server list", "cat").contains("paged:"));
    let said = typed("server pause default", pager);
    assert!(said.contains("paused") && !said.contains("paged:"), "{said}");
    let piped = site.ctl(&["server", "list"]).ok();
    assert!(piped.contains("default"), "{piped}");
}

#[test]
fn a_watched_list_is_shown_again_and_again() {
    let site = Site::start(Setup::new());
    let smtpctl = program::ours("smtpctl");
    let (smtpctl, home) = (smtpctl.display(), site.home().display());
    let line = format!("{smtpctl} --home {home} server list --watch=100ms | head -n 6");
    let watched = program::run(Command::new("sh").args(["-c", &line]), b"").ok();
    assert_eq!(watched.matches("NAME").count(), 3, "{watched}");
    let _not_a_list = site.ctl(&["server", "pause", "default", "--watch"]).exited(2);
    let _not_a_span = site.ctl(&["server", "list", "--watch=soon"]).exited(2);
}
