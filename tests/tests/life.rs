//! The life of the daemon: it stops cleanly, takes new configurations under load, and refuses bad ones
//! without a change.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailroot_tests::account::tag;
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::ports;
use mailroot_tests::setup::{LOCAL_DOMAIN, ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::wait;
use nix::sys::signal::Signal;

const SHAPE: Shape = Shape { clients: 10, per_connection: 50, filling: 200 };

fn to_drop(number: usize) -> String {
    format!("n{number}@{LOCAL_DOMAIN}")
}

#[test]
fn sigterm_tells_idle_sessions_and_exits_0() {
    let site = Site::start(Setup::new());
    let mut idle = site.talk();
    idle.expect("EHLO client.test", 250);
    let mut open = site.talk();
    open.expect("EHLO client.test", 250);
    open.expect("MAIL FROM:<a@client.test>", 250);

    site.signal(Signal::SIGTERM);

    for talk in [&mut idle, &mut open] {
        let reply = talk.reply().unwrap();
        assert_eq!((reply.code, reply.enhanced()), (421, Some("4.3.2")), "{reply}");
        assert!(talk.rest().unwrap().is_empty());
    }
    assert!(site.wait().success());
}

#[test]
fn a_stop_under_load_leaves_no_outcome_unknown_and_loses_nothing() {
    let sink = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(sink.address()));
    let load = Load::start(site.address(), SHAPE, |number| format!("n{number}@far.test"));
    wait::until("load", || (load.account.acknowledged() >= 200).then_some(()));

    site.stop();
    let account = load.stop();
    site.launch_again();
    site.await_empty_queue();

    let arrived: Vec<String> = sink.received().iter().map(|message| tag(&message.octets)).collect();
    let balance = account.balance(&arrived);
    assert!(balance.lost.is_empty(), "{:?}", balance.lost);
    assert_eq!(balance.duplicates, 0, "a clean stop makes no duplicates");
}

#[test]
fn a_hundred_reloads_under_load_drop_no_session_and_lose_nothing() {
    let site = Site::start(Setup::new());
    let load = Load::start(site.address(), SHAPE, to_drop);
    for round in 0..100 {
        rewrite(&site, &format!("banner: round {round}"));
        if round % 10 == 0 {
            let _reloaded = site.ctl(&["reload", "--wait"]).ok();
        } else {
            site.signal(Signal::SIGHUP);
        }
    }
    let _last = site.ctl(&["reload", "--wait"]).ok();
    wait::until("load", || (load.account.acknowledged() >= 100).then_some(()));
    let broken = load.broken.load(Ordering::SeqCst);
    let account = load.stop();
    site.await_empty_queue();

    assert_eq!(broken, 0, "sessions were dropped");
    let arrived: Vec<String> =
        site.dropped("default").iter().map(|stored| tag(&stored.octets)).collect();
    let balance = account.balance(&arrived);
    assert!(balance.lost.is_empty(), "{:?}", balance.lost);
    assert_eq!(balance.duplicates, 0);
    let mut talk = Talk::connect(site.address()).unwrap();
    assert!(talk.reply().unwrap().to_string().contains("round 99"));
}

/// Writes a line into `general:` of the server file, over the one written before.
fn rewrite(site: &Site, line: &str) {
    let path = site.home().join("etc/servers.d/default.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> =
        text.lines().filter(|old| !old.trim_start().starts_with("banner:")).collect();
    let text = kept.join("\n").replace("general:", &format!("general:\n  {line}")) + "\n";
    let staged = path.with_extension("new");
    fs::write(&staged, text).unwrap();
    fs::rename(&staged, &path).unwrap();
}

#[test]
fn a_bad_file_keeps_the_old_configuration_and_says_why() {
    let site = Site::start(Setup::new());
    let path = site.home().join("etc/servers.d/default.yaml");
    let good = fs::read_to_string(&path).unwrap();
    for (bad, word) in [
        ("messages:\n  max_recipient: 5\n", "max_recipients"),
        ("messages: [\n", "default.yaml"),
        ("\tversion: 1\n", "default.yaml"),
    ] {
        fs::write(&path, format!("{good}{bad}")).unwrap();
        let refused = site.ctl(&["reload", "--wait"]).exited(6);
        assert!(refused.err.contains(word), "{refused}");
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        let to = to_drop(0);
        assert_eq!(talk.message("a@client.test", &[&to], &tagged("on")).unwrap().code, 250);
    }
    let status = site.ctl(&["status", "--check"]);
    assert_eq!(status.code, 10, "{status}");

    // A restart with the broken file starts with what was good last.
    site.stop();
    site.launch();
    let status = site.ctl(&["status", "--check"]).exited(10);
    assert!(status.out.contains("default.yaml"), "{status}");

    fs::write(&path, good).unwrap();
    let _reloaded = site.ctl(&["reload", "--wait"]).ok();
    let _healthy = site.ctl(&["status", "--check"]).ok();
}

#[test]
fn a_server_that_cannot_start_leaves_the_others_running_and_shows_in_status() {
    let taken = std::net::TcpListener::bind(ports::local()).unwrap();
    let mut second = ServerFile::new("second")
        .only_domains(&["{name: second.test, type: default}"])
        .key("general.listen", &taken.local_addr().unwrap().to_string());
    second.address = taken.local_addr().unwrap();
    let site = Site::prepare(Setup::new().with(second));
    site.spawn(&[]);
    wait::until("the first server", || Talk::try_to(site.address()).ok());

    let servers = wait::until("both servers in the list", || {
        let listed = site.ctl(&["server", "list", "-o", "json"]);
        let servers: serde_json::Value = serde_json::from_str(&listed.out).ok()?;
        (servers.as_array().map(Vec::len) == Some(2)).then_some(servers)
    });

    let text = servers.to_string();
    assert!(text.contains("running"), "{text}");
    site.logged(&["second", "in use"]);
    assert_eq!(site.ctl(&["status", "--check"]).code, 10);

    drop(taken);
    let _started = site.ctl(&["server", "start", "second"]).ok();
    wait::until("the second server", || Talk::try_to(second_address(&site)).ok());
}

fn second_address(site: &Site) -> std::net::SocketAddr {
    let text = fs::read_to_string(site.home().join("etc/servers.d/second.yaml")).unwrap();
    let listen = text.lines().find_map(|line| line.trim().strip_prefix("listen: ")).unwrap();
    listen.trim_matches('"').parse().unwrap()
}

#[test]
fn a_second_daemon_for_the_same_home_is_refused_with_the_holders_name() {
    let site = Site::start(Setup::new());
    let second = site.run(&[]);
    assert_ne!(second.code, 0, "{second}");
    let said = format!("{}{}", second.out, second.err);
    assert!(said.contains(&site.pid().to_string()), "it names the holder: {second}");
    let mut talk = site.talk();
    talk.expect("NOOP", 250);
}

#[test]
fn the_supervisor_hears_readiness_life_and_stop() {
    let site = Site::prepare(Setup::new());
    let socket = site.home().join("notify.sock");
    let notify = UnixDatagram::bind(&socket).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = site
        .command()
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "400000")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut heard = String::new();
    let mut hear = |word: &str| {
        while !heard.contains(word) {
            let mut datagram = [0; 4096];
            let length =
                notify.recv(&mut datagram).unwrap_or_else(|_| panic!("no {word} in {heard}"));
            heard.push_str(&String::from_utf8_lossy(&datagram[..length]));
            heard.push('\n');
        }
    };
    hear("READY=1");
    let _answers = Talk::to(site.address());
    hear("WATCHDOG=1");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    hear("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_few_descriptors_are_enough_to_refuse_politely() {
    let site = Site::prepare(Setup::new());
    let home = site.home().display().to_string();
    let program = mailroot_tests::program::ours("smtpd").display().to_string();
    let mut child = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -n 64; exec '{program}' --home '{home}'")])
        .env_remove("MAILROOT_HOME")
        .stdout(fs::File::create(site.home().join("log")).unwrap())
        .stderr(fs::File::create(site.home().join("errors")).unwrap())
        .spawn()
        .unwrap();
    wait::until("a greeting", || Talk::try_to(site.address()).ok());
    let held: Vec<Talk> = (0..100).filter_map(|_| Talk::connect(site.address()).ok()).collect();
    assert!(child.try_wait().unwrap().is_none(), "it lives");
    drop(held);
    wait::until("a message taken again", || {
        let mut talk = Talk::try_to(site.address()).ok()?;
        talk.try_say("EHLO client.test").ok()?;
        let to = to_drop(0);
        let reply = talk.message("a@client.test", &[&to], &tagged("after")).ok()?;
        (reply.code == 250).then_some(())
    });
    site.await_dropped(1);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn mail_that_waits_survives_a_restart_and_goes_when_the_peer_is_back() {
    let peer = Peer::start(ports::local(), |event: &Event| {
        if event.stage == Stage::Connect { Answer::Close } else { Answer::Accept }
    });
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for number in 0..20 {
        let octets = tagged(&format!("n{number}"));
        assert_eq!(talk.message("a@client.test", &["b@far.test"], &octets).unwrap().code, 250);
    }
    site.stop();
    peer.behave(|_| Answer::Accept);
    site.launch();

    let mut tags: Vec<String> =
        peer.await_received(20).iter().map(|message| tag(&message.octets)).collect();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 20);
}
