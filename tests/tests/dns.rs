//! Name servers that answer as no honest one does: what they publish moves no mail of others and is asked for
//! within bounds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::UdpSocket;

use mailroot_tests::message::tagged;
use mailroot_tests::names::{Kind, Names, Record};
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, wait};

/// What an attempt may ask about the hosts of a domain.
const QUESTIONS_MAX: usize = 32;
/// What the search for the domain's policy may ask, aliases of its record included.
const ABOUT_POLICY_MAX: usize = 8;
/// Mail hosts of a domain, as many as fit into one answer by UDP.
const HOSTS: u32 = 28;

/// A daemon that asks these names and tries again after an hour, so that one attempt is all there is.
fn site(names: &Names, port: u16) -> Site {
    let setup = Setup::new().dns(names.address(), port).key("delivery.outbound.retry", "[1h]");
    Site::start(setup)
}

fn send(site: &Site, to: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &[to], &tagged(to)).unwrap().code, 250);
}

fn await_reason(site: &Site, part: &str) {
    wait::until(&format!("a message that waits for {part:?}"), || {
        let waiting = site.control().json(&["queue", "list"]);
        let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains(part).then_some(())
    });
}

fn hosts(domain: &str) -> Vec<(String, Record)> {
    let host = |n| (domain.to_owned(), Record::Mx(10, format!("h{n}.{domain}")));
    (0..HOSTS).map(host).collect()
}

#[test]
fn an_attempt_asks_only_so_much_whatever_a_domain_publishes() {
    let port = ports::free();
    let good = ports::host(6, port);
    let names = Names::serve(move |name, kind| {
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        match (name, kind) {
            ("deep.test" | "wide.test", Kind::Mx) => hosts(name),
            // Each host is an alias of an alias, and so on.
            (_, Kind::A | Kind::Other(_)) if rest.ends_with("deep.test") => {
                vec![(name.to_owned(), Record::Alias(format!("x{first}.{rest}")))]
            }
            // Most of the hosts do not exist in this one.
            (_, Kind::A) if name == "h7.wide.test" => match good.ip() {
                std::net::IpAddr::V4(address) => vec![(name.to_owned(), Record::A(address))],
                std::net::IpAddr::V6(_) => Vec::new(),
            },
            _ => Vec::new(),
        }
    });
    let peer = Peer::accepting(good);
    let site = site(&names, port);

    send(&site, "a@deep.test");
    await_reason(&site, &format!("more than {QUESTIONS_MAX} questions"));
    let asked = names.asked();
    let is_of_policy = |(name, _): &&(String, Kind)| name.contains("_mta-sts");
    let about_policy = asked.iter().filter(is_of_policy).count();
    assert_eq!(asked.len() - about_policy, QUESTIONS_MAX, "{asked:?}");
    assert!(about_policy <= ABOUT_POLICY_MAX, "{asked:?}");

    // What is known by then is not asked again: sooner or later the host that there is has its turn.
    send(&site, "b@wide.test");
    wait::until("the mail at the one host that there is", || {
        let _again = site.ctl(&["queue", "retry", "--domain", "wide.test", "--yes"]);
        (!peer.received().is_empty()).then_some(())
    });
}

#[test]
fn an_answer_moves_no_mail_of_a_domain_that_nobody_asked_for() {
    let port = ports::free();
    let [honest, evil] = [7, 8].map(|host| Peer::accepting(ports::host(host, port)));
    let [at, evil_at] = [honest.address(), evil.address()].map(|at| match at.ip() {
        std::net::IpAddr::V4(address) => Record::A(address),
        std::net::IpAddr::V6(_) => panic!("peers are on 127.0.0.0/8"),
    });
    let names = Names::serve(move |name, kind| match (name, kind) {
        ("liar.test", Kind::Mx) => vec![
            ("bank.test".to_owned(), Record::Mx(0, "evil.test".to_owned())),
            ("mx.bank.test".to_owned(), evil_at.clone()),
            ("liar.test".to_owned(), Record::Mx(10, "mx.liar.test".to_owned())),
            ("mx.liar.test".to_owned(), evil_at.clone()),
        ],
        ("bank.test", Kind::Mx) => {
            vec![(name.to_owned(), Record::Mx(10, "mx.bank.test".to_owned()))]
        }
        ("mx.liar.test" | "mx.bank.test", Kind::A) => {
            vec![("evil.test".to_owned(), evil_at.clone()), (name.to_owned(), at.clone())]
        }
        _ => Vec::new(),
    });
    let site = site(&names, port);
    for to in ["a@liar.test", "b@bank.test"] {
        send(&site, to);
    }
    honest.await_received(2);
    assert_eq!(evil.sessions(), 0);
}

#[test]
fn a_silent_server_keeps_nobody_from_being_greeted_and_holds_up_no_session() {
    /// Who comes at once, and how often a server may be asked for each name.
    const CLIENTS: usize = 20;
    const QUESTIONS_EACH_MAX: usize = 8;
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let site = Site::start(Setup::new());
    let mut running = site.talk();
    running.expect("EHLO client.test", 250);
    // Which server is asked may change while all goes on.
    let at = silent.local_addr().unwrap();
    site.ctl(&["config", "set", &format!("dns.resolvers={at}"), "dns.timeout=1s"]).ok();
    let keys = ["access.reverse_dns=true", "access.proxy_from=127.0.0.1"];
    site.ctl(&[&["server", "set", "default"][..], &keys].concat()).ok();
    // Nobody asks for the names of loopback, so that they come from elsewhere.
    let mut waiting: Vec<Talk> = (0..CLIENTS)
        .map(|number| {
            let mut talk = Talk::connect(site.address()).unwrap();
            let header = format!("PROXY TCP4 192.0.2.{} 127.0.0.1 1000 25\r\n", number + 1);
            talk.send(header.as_bytes()).unwrap();
            talk
        })
        .collect();
    silent.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let mut octets = [0; 512];
    assert_ne!(silent.recv(&mut octets).unwrap(), 0, "it is asked");
    running.expect("NOOP", 250);
    for talk in &mut waiting {
        assert_eq!(talk.reply().unwrap().code, 220);
        talk.expect("EHLO client.test", 250);
    }
    silent.set_nonblocking(true).unwrap();
    let asked = 1 + std::iter::from_fn(|| silent.recv(&mut octets).ok()).count();
    assert!(asked <= CLIENTS * QUESTIONS_EACH_MAX, "{asked} questions");
    running.expect("QUIT", 221);
}
