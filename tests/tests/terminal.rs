//! The control tool as a person at a terminal meets it: the dashboard, the pager, completion, colours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::screen::Screen;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, wait};

/// A peer that wants nothing yet, and says so in words that would clear a terminal.
fn hostile() -> Peer {
    Peer::start(ports::local(), |event: &Event| match event.stage {
        Stage::Rcpt => Answer::say("451 4.7.1 later\u{1b}[2J\u{1b}]0;owned\u{7}"),
        _ => Answer::Accept,
    })
}

fn setup(peer: &Peer) -> Setup {
    Setup::new().smart_host(peer.address()).key("delivery.outbound.retry", "[1h]")
}

/// Hands in messages and waits until each was deferred.
fn defer(site: &Site, count: usize) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for number in 0..count {
        let to = format!("r{number}@far.test");
        let reply = talk.message("app@client.test", &[&to], &tagged(&to)).unwrap();
        assert_eq!(reply.code, 250);
    }
    wait::until("deferred messages", || {
        let rows = site.ctl(&["queue", "list", "--state", "retry", "-o", "name"]);
        (rows.out.lines().count() == count).then_some(())
    });
}

#[test]
fn top_shows_the_queue_and_tries_it_again() {
    let peer = hostile();
    let site = Site::start(setup(&peer));
    let Some(screen) = Screen::open("smtpctl top", site.home()) else { return };
    defer(&site, 3);
    screen.enter("smtpctl top --interval 100ms");
    let host = peer.address().port().to_string();
    let shown = screen.await_that("a destination", |text| {
        text.contains("DESTINATION")
            && text.contains("OLDEST")
            && text.contains(&host)
            && text.contains("queue 3  retry 3")
    });
    assert!(shown.contains("mailroot") && shown.contains("all servers"), "{shown}");
    screen.write("q");
    screen.await_text("r2@far.test");
    screen.write("/R1@");
    screen.press(&["Enter"]);
    let shown = screen.await_that("one row", |text| !text.contains("r2@far.test"));
    assert!(shown.contains("r1@far.test"), "{shown}");
    screen.press(&["Enter"]);
    let shown = screen.await_text("rcpt 1");
    assert!(shown.contains("later") && shown.contains("[2J"), "told, and not obeyed: {shown}");
    screen.press(&["Escape"]);
    screen.await_text("? help");
    peer.behave(|_| Answer::Accept);
    screen.write("f");
    let received = peer.await_received(1);
    assert_eq!(received[0].recipients(), ["r1@far.test"]);
    screen.press(&["Escape"]);
    screen.await_text("queue 2  retry 2");
    screen.write("?");
    screen.await_text("any key goes back");
    screen.write("x");
    screen.await_text("? help");
    screen.write("x");
    let shown = screen.await_text("$ smtpctl top");
    assert!(!shown.contains("far.test"), "the terminal is what it was before: {shown}");
}

#[test]
fn top_closes_a_session_and_outlives_the_daemon() {
    let site = Site::start(Setup::new());
    let Some(screen) = Screen::open("smtpctl top", site.home()) else { return };
    let mut talk = site.talk();
    talk.expect("EHLO lingering.test", 250);
    screen.enter("smtpctl top -s default --interval 100ms");
    screen.await_text("conns in 1");
    screen.write("s");
    screen.await_text("lingering.test");
    screen.write("k");
    screen.await_text("close session");
    screen.write("y");
    screen.await_text("1 session closed");
    assert!(talk.rest().is_ok(), "it was ended in order");
    screen.await_text("no sessions");
    site.stop();
    screen.await_text("no daemon: ");
    site.launch();
    screen.await_that("the daemon again", |text| {
        !text.contains("no daemon") && text.contains("conns in 0")
    });
    screen.press(&["C-c"]);
    screen.await_text("$ smtpctl top");
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let site = Site::start(Setup::new());
    let Some(screen) = Screen::open("smtpctl top", site.home()) else { return };
    screen.enter(
        "timeout --foreground -s TERM 3 smtpctl top; stty -a | grep -o '[-]*icanon'; echo over",
    );
    screen.await_text("? help");
    let shown = screen.await_that("the shell", |text| text.lines().any(|line| line == "over"));
    assert!(shown.contains("$ timeout") && !shown.contains("? help"), "{shown}");
    assert!(!shown.contains("-icanon"), "{shown}");
    let refused = site.ctl(&["top"]).exited(2);
    assert!(refused.err.contains("smtpctl stats"), "{refused}");
    let _span = site.ctl(&["top", "--interval", "soon"]).exited(2);
}

#[test]
fn a_long_list_is_paged() {
    if program::find("less").is_none() {
        return mailroot_tests::skip::note("a pager", "less is not installed");
    }
    let peer = hostile();
    let site = Site::start(setup(&peer));
    let Some(screen) = Screen::open("a pager", site.home()) else { return };
    defer(&site, 40);
    screen.enter("smtpctl queue list --sort to --columns id,to");
    let shown = screen.await_text("ID");
    assert!(!shown.contains("r9@far.test"), "the end is not shown yet: {shown}");
    screen.write("G");
    screen.await_text("r9@far.test");
    screen.write("q");
    screen.await_that("the shell", |text| text.trim_end().ends_with('$'));
}

#[test]
fn a_shell_completes_living_names_by_tab() {
    let site = Site::start(Setup::new());
    let Some(screen) = Screen::open("completion by Tab", site.home()) else { return };
    let _made = site.ctl(&["server", "create", "lan", "--disabled", "--domain", "lan.test"]).ok();
    screen.enter("source <(smtpctl completion bash); clear; echo rea''dy");
    screen.await_text("ready");
    screen.write("smtpctl server show la");
    screen.press(&["Tab"]);
    screen.await_text("smtpctl server show lan");
    screen.press(&["Enter"]);
    screen.await_text("spool/lan");
}

#[test]
fn states_have_colours_for_people_only() {
    const GREEN: &str = "\u{1b}[32mrunning";
    let site = Site::start(Setup::new());
    let ctl = |words: &[&str]| site.ctl(words).ok();
    assert!(!ctl(&["server", "list"]).contains('\u{1b}'), "not into a pipe");
    assert!(ctl(&["server", "list", "--color", "always"]).contains(GREEN));
    assert!(ctl(&["status", "--color=always"]).contains(GREEN));
    for form in ["json", "jsonl", "csv", "plain", "yaml", "name", "template={state}"] {
        let out = ctl(&["server", "list", "--color", "always", "-o", form]);
        assert!(!out.contains('\u{1b}'), "{form}: {out:?}");
    }
    let Some(screen) = Screen::open("colours", site.home()) else { return };
    screen.enter("smtpctl server list --no-pager");
    screen.await_text("NAME");
    assert!(screen.painted().contains(GREEN), "{:?}", screen.painted());
    screen.enter(
        "clear; NO_COLOR=1 smtpctl server list; smtpctl server list --color never; echo ov''er",
    );
    screen.await_text("over");
    assert!(!screen.painted().contains(GREEN), "{:?}", screen.painted());
}

/// What a key of the default server is.
fn key(site: &Site, key: &str) -> String {
    site.ctl(&["config", "get", key, "-s", "default"]).ok().trim().to_owned()
}

#[test]
fn the_wizard_asks_until_answers_are_good_and_changes_once() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new());
    let Some(screen) = Screen::open("smtpctl setup", site.home()) else { return };
    let revisions = || site.control().json(&["config", "history"]).as_array().unwrap().len();
    let before = revisions();
    screen.enter("smtpctl setup; echo en''ded $?");
    screen.await_text("Name of this host in mail [relay.test]:");
    screen.enter("not a name");
    screen.await_that("the question again", |text| {
        text.lines().last().is_some_and(|line| !line.contains("[relay.test]"))
    });
    screen.enter("mail.test");
    screen.await_text("or none [none]:");
    let host = format!("[{}]:{}", peer.address().ip(), peer.address().port());
    screen.enter(&host);
    screen.await_text("User name to log in there");
    screen.press(&["Enter"]);
    screen.await_text("Addresses to listen on [");
    screen.press(&["Enter"]);
    screen.await_text("may send mail onward as well");
    screen.enter("10.1.0.0/16");
    screen.await_text("Deliver mail for root of this machine to");
    screen.press(&["Enter"]);
    screen.await_text("Send a test message to");
    screen.enter("ops@far.test");
    let shown = screen.await_text("ended 0");
    assert!(shown.contains("undo with: smtpctl config rollback 0"), "{shown}");
    assert!(shown.contains("done"), "{shown}");
    assert_eq!(peer.await_received(1)[0].recipients(), ["ops@far.test"]);
    assert_eq!(key(&site, "delivery.fqdn"), "mail.test");
    assert_eq!(key(&site, "delivery.smart_host").trim_matches(['"', '\'']), host);
    assert!(key(&site, "access.relay.list").contains("10.1.0.0/16"));
    assert_eq!(revisions(), before + 1, "one change");
    let _undone = site.ctl(&["config", "rollback", "0"]).ok();
    assert_eq!(key(&site, "delivery.fqdn"), "service.hostname");
}

#[test]
fn setup_by_options_asks_nothing_and_does_nothing_twice() {
    let site = Site::start(Setup::new());
    let usage = site.ctl(&["setup"]).exited(2);
    assert!(usage.err.contains("--smarthost"), "{usage}");
    let wanted = ["setup", "--mailname", "mail.test", "--relay", "10.1.0.0/16", "--no-input"];
    let planned = site.ctl(&[&wanted[..], &["--dry-run"]].concat());
    assert!(planned.out.contains("+  fqdn: mail.test"), "{planned}");
    let first = site.ctl(&[&wanted[..], &["--if-missing"]].concat()).exited(0);
    assert!(first.err.contains("config rollback 0"), "{first}");
    assert_eq!(key(&site, "delivery.fqdn"), "mail.test");
    let again = site.control().json(&wanted);
    assert_eq!(again["changed"], false, "{again}");
    let missing = ["setup", "--if-missing", "--mailname", "other.test"];
    let _nothing = site.ctl(&missing).exited(0);
    assert_eq!(key(&site, "delivery.fqdn"), "mail.test", "it was set up before");
    let _direct = site.ctl(&["setup", "--smarthost", "none"]).exited(0);
    let bad = site.ctl(&["setup", "--mailname", "not a name"]).exited(2);
    assert!(bad.err.contains("--mailname"), "{bad}");
    site.stop();
    let _down = site.ctl(&wanted).exited(5);
}

#[test]
fn how_far_a_drain_has_come_is_told_in_one_line_that_goes() {
    let peer = hostile();
    let site = Site::start(setup(&peer));
    let Some(screen) = Screen::open("progress", site.home()) else { return };
    defer(&site, 1);
    screen.enter("smtpctl service drain --wait=60s; echo ov''er");
    screen.await_text("taken, 1 message left to deliver");
    peer.behave(|_| Answer::Accept);
    // One that is being tried at this moment is not tried again by this.
    wait::until("the message to go", || {
        let _tried = site.ctl(&["queue", "retry", "--all"]);
        let waiting = site.control().json(&["queue", "list"]);
        waiting.as_array().is_some_and(Vec::is_empty).then_some(())
    });
    let shown = screen.await_text("over");
    assert!(shown.contains("taken, 0 messages left to deliver"), "{shown}");
    assert!(!shown.contains("1 message left"), "{shown}");
}

#[test]
fn the_wizard_asks_for_the_login_at_the_smart_host_and_shows_no_password() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new());
    let Some(screen) = Screen::open("setup with a login", site.home()) else { return };
    screen.enter("smtpctl setup; echo en''ded $?");
    screen.await_text("Name of this host in mail");
    screen.press(&["Enter"]);
    screen.await_text("or none [none]:");
    screen.enter(&format!("[{}]:{}", peer.address().ip(), peer.address().port()));
    screen.await_text("User name to log in there");
    screen.enter("relay@client.test");
    screen.await_text("Addresses to listen on [");
    screen.press(&["Enter"]);
    screen.await_text("may send mail onward as well");
    screen.press(&["Enter"]);
    screen.await_text("Deliver mail for root of this machine to");
    screen.enter("ops@example.net");
    screen.await_text("Send a test message to");
    screen.press(&["Enter"]);
    screen.await_text("Password for relay@client.test:");
    screen.enter("open sesame");
    let shown = screen.await_text("ended 0");
    assert!(!shown.contains("sesame") && shown.contains("smarthost"), "{shown}");
    assert_eq!(key(&site, "delivery.smart_host"), "smarthost:smarthost");
    let aliases = std::fs::read_to_string(site.home().join("etc/aliases")).unwrap();
    assert_eq!(aliases, "root: ops@example.net\n");
    let user = site.ctl(&["config", "get", "smart_hosts.smarthost.auth.user"]).ok();
    assert_eq!(user.trim(), "relay@client.test");
}

#[test]
fn setup_takes_the_login_by_options_and_never_as_an_argument() {
    let site = Site::start(Setup::new());
    let nobody = ports::local();
    let host = format!("[{}]:{}", nobody.ip(), nobody.port());
    let line = ["setup", "--smarthost", &host, "--user", "relay", "--no-input"];
    let missing = site.ctl(&line).exited(2);
    assert!(missing.err.contains("--password-stdin"), "{missing}");
    assert_eq!(key(&site, "delivery.smart_host"), "none", "nothing was changed");
    let with = [&line[..], &["--mailname", "mail.test", "--password-stdin"]].concat();
    let revisions = || {
        let history = site.control().json(&["config", "history"]);
        history.as_array().map_or(0, Vec::len)
    };
    let before = revisions();
    let done = site.control().input("open sesame\n").run(&with).exited(0);
    assert!(done.err.contains("config rollback 0"), "{done}");
    assert_eq!(revisions(), before + 1, "name, host and login are one change");
    assert_eq!(key(&site, "delivery.fqdn"), "mail.test");
    assert_eq!(key(&site, "delivery.smart_host"), "smarthost:smarthost");
    let files = site.ctl(&["config", "export"]).ok();
    assert!(!files.contains("sesame"), "{files}");
    let _alone = site.ctl(&["setup", "--user", "relay"]).exited(2);
    let _undone = site.ctl(&["config", "rollback", "0"]).ok();
    assert_eq!(key(&site, "delivery.fqdn"), "service.hostname");
    assert_eq!(key(&site, "delivery.smart_host"), "none");
}
