//! Memory: it grows with the number of sessions, and not with what they send.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use mailroot_tests::account::arrived;
use mailroot_tests::load::{Load, Shape};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, wait};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const IDLE: usize = 1000;
const SENDERS: usize = 50;
const PER_SESSION_MAX_KIB: u64 = 64;
/// Ten thousand in 400 MiB, with all else that the daemon needs.
const UNDER_TLS_MAX_KIB: u64 = 39;
const ALL_MAX_KIB: u64 = 256 << 10;

/// Takes as many descriptors as there are; whether these are among them.
fn may_open(descriptors: usize) -> bool {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    most >= descriptors as u64 + 500
}

fn body_len() -> usize {
    if skip::full() { 10 << 20 } else { 2 << 20 }
}

/// A session with a message under way, all of whose body is sent but for its end.
fn sender(site: &Site, number: usize) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect(&format!("RCPT TO:<n{number}@{LOCAL_DOMAIN}>"), 250);
    talk.expect("DATA", 354);
    talk.send(&tagged(&format!("n{number}"))).unwrap();
    let piece = [&[b'x'; 62], b"\r\n".as_slice()].concat().repeat(1024);
    for _ in 0..body_len() / piece.len() {
        talk.send(&piece).unwrap();
    }
    talk
}

#[test]
fn a_thousand_idle_sessions_and_fifty_large_bodies_take_little() {
    if !may_open(2 * IDLE) {
        return skip::note("a thousand sessions", "too few descriptors");
    }
    let site = Site::start(
        Setup::new()
            .key("general.max_connections", "unlimited")
            .key("general.max_connections_per_client", "unlimited")
            .key("messages.max_size", "20MiB"),
    );
    let before = site.memory_kib("VmRSS");
    let idle: Vec<Talk> = (0..IDLE)
        .map(|_| {
            let mut talk = site.talk();
            talk.expect("EHLO client.test", 250);
            talk
        })
        .collect();
    let each = (site.memory_kib("VmRSS") - before) / IDLE as u64;
    assert!(each <= PER_SESSION_MAX_KIB, "{each} KiB for an idle session");

    let mut senders: Vec<Talk> = (0..SENDERS).map(|number| sender(&site, number)).collect();
    for talk in &mut senders {
        talk.send(b".\r\n").unwrap();
        assert_eq!(talk.reply().unwrap().code, 250);
    }
    let most = site.memory_kib("VmHWM");
    println!("{each} KiB for an idle session, {} MiB at most", most >> 10);
    assert!(most <= ALL_MAX_KIB, "{most} KiB");
    drop(idle);
    site.await_dropped(SENDERS);
}

#[test]
fn a_thousand_idle_sessions_under_tls_take_little_more() {
    if !may_open(2 * IDLE) {
        return skip::note("a thousand sessions under TLS", "too few descriptors");
    }
    let secure = ports::local();
    let site = Site::start(
        Setup::new()
            .implicit_tls(secure)
            .key("general.max_connections", "unlimited")
            .key("general.max_connections_per_client", "unlimited"),
    );
    let before = site.memory_kib("VmRSS");
    let idle: Vec<Talk> = (0..IDLE)
        .map(|_| {
            let mut talk = Talk::under_tls(secure).unwrap();
            assert_eq!(talk.reply().unwrap().code, 220);
            talk.expect("EHLO client.test", 250);
            talk
        })
        .collect();
    let each = (site.memory_kib("VmRSS") - before) / IDLE as u64;
    println!("{each} KiB for an idle session under TLS");
    assert!(each <= UNDER_TLS_MAX_KIB, "{each} KiB for an idle session under TLS");
    drop(idle);
}

#[test]
fn a_large_message_is_signed_without_being_held_in_memory() {
    let sink = Peer::accepting(ports::local());
    let setup = Setup::new().smart_host(sink.address()).key("messages.max_size", "150MiB");
    let site = Site::start(setup);
    site.ctl(&["dkim", "create", "client.test", "--type", "ed25519"]).ok();
    let send = |pieces: usize| {
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        talk.expect("MAIL FROM:<a@client.test>", 250);
        talk.expect("RCPT TO:<b@far.test>", 250);
        talk.expect("DATA", 354);
        talk.send(&tagged("large")).unwrap();
        let piece = [&[b'x'; 62], b"\r\n".as_slice()].concat().repeat(1024);
        for _ in 0..pieces {
            talk.send(&piece).unwrap();
        }
        talk.send(b".\r\n").unwrap();
        assert_eq!(talk.reply().unwrap().code, 250);
    };
    // What a message takes whose size does not matter.
    send(16);
    sink.await_received(1);
    let before = site.memory_kib("VmHWM");
    let mebibytes = if skip::full() { 100 } else { 40 };
    send(mebibytes * 16);
    wait::until("the large message", || sink.with_received(|all| (all.len() == 2).then_some(())));
    let more = site.memory_kib("VmHWM").saturating_sub(before);
    println!("{more} KiB more for {mebibytes} MiB");
    assert!(more <= 12 << 10, "{more} KiB");
    sink.with_received(|all| {
        let large = &all[1].octets;
        assert!(large.starts_with(b"DKIM-Signature:") && large.len() > mebibytes << 20);
    });
}

/// A memory cgroup of our own; removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// One of at most `limit` octets, if this machine lets us make it.
    fn make(limit: u64) -> Option<Self> {
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let path = Path::new(root).join(format!("mailroot-test-{}", std::process::id()));
            if fs::create_dir(&path).is_ok() {
                let made = Self(path);
                if fs::write(made.0.join(file), limit.to_string()).is_ok() {
                    return Some(made);
                }
            }
        }
        None
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It can be removed once the kernel has forgotten its last process.
        let _gone = wait::within(wait::PATIENCE, || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn within_96_mib_of_memory_the_daemon_goes_on_under_load() {
    let Some(cgroup) = Cgroup::make(96 << 20) else {
        return skip::note("little memory", "no memory cgroup can be made");
    };
    let sink = Peer::accepting(ports::local());
    let setup = Setup::new().smart_host(sink.address());
    let site = Site::prepare(setup.key("general.max_connections_per_client", "unlimited"));
    let enter = format!("echo $$ >{}/cgroup.procs; exec \"$@\"", cgroup.0.display());
    site.under(&["sh", "-c", &enter, "sh"]);
    site.launch();
    let shape = Shape { clients: 40, per_connection: 20, filling: 200_000 };
    let load = Load::start(site.address(), shape, |number| match number % 4 {
        0 => format!("d{number}@{LOCAL_DOMAIN}"),
        _ => format!("r{number}@far.test"),
    });
    let enough = if skip::full() { 4000 } else { 400 };
    wait::until("acknowledged messages", || {
        assert!(site.runs(), "the daemon ended");
        (load.account.acknowledged() >= enough).then_some(())
    });
    let account = load.stop();
    site.await_empty_queue();
    let balance = account.balance(&arrived(&site, &sink));
    println!("{balance}");
    assert!(balance.lost.is_empty(), "{:?}", balance.lost);
    assert_eq!(balance.duplicates, 0);
    site.stop();
}
