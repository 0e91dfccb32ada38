//! A flood of handshakes: the daemon has all the work with them and whoever sends them has none. Sessions that
//! run, and new ones in clear text, go on beside it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use mailroot_tests::message::tagged;
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, secure, skip, wait};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

/// Who floods, each from an address of its own.
const FLOODERS: u8 = 20;

fn handshakes() -> usize {
    if skip::full() { 10_000 } else { 2_000 }
}

/// Connects from this address.
fn call(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (SocketAddr::new(from, 0), to) else {
        panic!("the tests call by IPv4");
    };
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&made), &SockaddrIn::from(from))?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&made), &SockaddrIn::from(to))?;
    let stream = TcpStream::from(made);
    stream.set_read_timeout(Some(wait::PATIENCE))?;
    Ok(stream)
}

/// Has the daemon compute its half of one handshake; whether it did.
fn hello(from: IpAddr, to: SocketAddr, hello: &[u8]) -> bool {
    let Ok(mut stream) = call(from, to) else { return false };
    if stream.write_all(hello).is_err() {
        return false;
    }
    // The kind of its record: 0x16 is a handshake's.
    let mut octet = [0];
    stream.read_exact(&mut octet).is_ok() && octet == [0x16]
}

/// One message in this session.
fn send(talk: &mut Talk, number: usize) {
    let to = format!("n{number}@{LOCAL_DOMAIN}");
    let sent = talk.message("a@client.test", &[&to], &tagged(&format!("n{number}"))).unwrap();
    assert_eq!(sent.code, 250, "{sent}");
}

#[test]
fn a_flood_of_handshakes_stops_neither_sessions_that_run_nor_new_ones() {
    let at_once = ports::local();
    let site = Site::start(Setup::new().implicit_tls(at_once));
    let mut running = site.talk();
    running.expect("EHLO client.test", 250);
    let (all, greeting) = (handshakes(), secure::hello());
    let (begun, answered) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut sent = 0;
    // How many handshakes were done while a message was taken.
    let mut meanwhile = Vec::new();
    std::thread::scope(|scope| {
        let flooders: Vec<_> = (1..=FLOODERS)
            .map(|flooder| {
                let from = ports::host(flooder, 0).ip();
                let (begun, answered, greeting) = (&begun, &answered, &greeting);
                scope.spawn(move || {
                    while begun.fetch_add(1, Ordering::Relaxed) < all {
                        if hello(from, at_once, greeting) {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        while flooders.iter().any(|flooder| !flooder.is_finished()) {
            let before = answered.load(Ordering::Relaxed);
            send(&mut running, sent);
            let mut fresh = site.talk();
            fresh.expect("EHLO client.test", 250);
            send(&mut fresh, sent + 1);
            sent += 2;
            meanwhile.push(answered.load(Ordering::Relaxed) - before);
        }
    });
    assert_eq!(answered.load(Ordering::Relaxed), all, "each is answered");
    meanwhile.sort_unstable();
    let (median, most) = (meanwhile[meanwhile.len() / 2], meanwhile[meanwhile.len() - 1]);
    println!(
        "{sent} messages beside {all} handshakes; beside two of them {median}, at most {most}"
    );
    // Two messages take some twenty turns of the daemon, in each of which all flooders may have theirs.
    assert!(most < all / 2, "{most} handshakes before two messages");
    site.await_dropped(sent);
    wait::until("no session but one", || {
        let listed = site.control().json(&["session", "list"]);
        (listed.as_array().map(Vec::len) == Some(1)).then_some(())
    });
    running.expect("QUIT", 221);
}

#[test]
fn a_client_that_says_half_of_a_handshake_keeps_no_place() {
    let at_once = ports::local();
    // No handshake ends by its time while this test has patience.
    let setup = Setup::new()
        .implicit_tls(at_once)
        .key("limits.handshakes", "1")
        .key("limits.handshake_time", "10m");
    let _site = Site::start(setup);
    let greeting = secure::hello();
    // Each has had its answer, and never says the rest.
    let silent: Vec<TcpStream> = (1..=5)
        .map(|number| {
            let mut stream = call(ports::host(number, 0).ip(), at_once).unwrap();
            stream.write_all(&greeting).unwrap();
            let mut octet = [0];
            stream.read_exact(&mut octet).unwrap();
            stream
        })
        .collect();
    let mut talk = Talk::under_tls(at_once).unwrap();
    assert_eq!(talk.reply().unwrap().code, 220);
    talk.expect("EHLO client.test", 250);
    drop(silent);
}
