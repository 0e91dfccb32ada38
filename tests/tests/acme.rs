//! Certificates that are asked of an authority, by a real one: Pebble. What it gives is shown without a
//! restart, renewed in time, and an authority that cannot be had, or refuses, stops nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mailroot_tests::certificates::Authority;
use mailroot_tests::dns::Dns;
use mailroot_tests::faketime::Faketime;
use mailroot_tests::pebble::{self, Pebble, Rules};
use mailroot_tests::setup::{HOSTNAME, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip};
use serde_json::Value;

const DAYS_90: u64 = 90 * 24 * 3600;

/// A daemon that is to show a certificate called `relay1`, and the authority that gives it.
struct World {
    site: Site,
    pebble: Pebble,
    clock: Option<Faketime>,
    _authority: Authority,
    _dns: Dns,
}

impl World {
    /// `host` is a number of loopback addresses that no other test has. The daemon answers on the port at
    /// which the authority asks, unless it is told another one.
    fn new(host: u8, listen: Option<SocketAddr>) -> Option<Self> {
        let authority = Authority::new();
        let at = ports::host(host, ports::free());
        let asked = ports::host(host, ports::free());
        let names = [
            format!("{HOSTNAME}. 60 IN A {}", asked.ip()),
            format!("mail.relay.test. 60 IN A {}", asked.ip()),
            format!("{}. 60 IN A {}", pebble::NAME, at.ip()),
        ];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Some(dns) = Dns::serve(&names) else {
            skip::note("certificates over ACME", "unbound is not installed");
            return None;
        };
        let rules = Rules { http: asked.port(), validity: DAYS_90 };
        let Some(pebble) = Pebble::start(at, dns.address(), &authority, rules) else {
            skip::note("certificates over ACME", pebble::ABSENT);
            return None;
        };
        let listen = listen.unwrap_or(asked);
        let setup = Setup::new()
            .dns(dns.address(), 25)
            .service("tls.acme.directory", &pebble.directory())
            .service("tls.acme.trust", &authority.file().display().to_string())
            .service("tls.acme.listen", &format!("[\"{listen}\"]"));
        let site = Site::prepare(setup);
        let clock = Faketime::of(&site);
        site.launch();
        Some(Self { site, pebble, clock, _authority: authority, _dns: dns })
    }

    fn request(&self, more: &[&str]) -> program::Finished {
        let line = ["cert", "request", "relay1", "--acme", "--email", "hostmaster@relay.test"];
        self.site.ctl(&[&line[..], more].concat())
    }

    /// Has the virtual server show it.
    fn show(&self) {
        self.site.ctl(&["server", "set", "default", "access.tls.certificate=relay1"]).ok();
    }

    fn certificate(&self) -> Value {
        let all = self.site.control().json(&["cert", "list"]);
        all.as_array().unwrap().iter().find(|it| it["name"] == "relay1").unwrap().clone()
    }

    /// Who signed what a client is shown, for whom it is, and its number.
    fn shown(&self) -> String {
        let address = self.site.address().to_string();
        let script = format!(
            "openssl s_client -connect {address} -starttls smtp -servername {HOSTNAME} </dev/null 2>/dev/null \
             | openssl x509 -noout -serial -issuer -ext subjectAltName"
        );
        program::run(Command::new("sh").arg("-c").arg(script), b"").ok()
    }

    fn file(&self) -> std::path::PathBuf {
        self.site.home().join("state/tls/relay1.pem")
    }

    fn metric(&self, result: &str) -> u64 {
        let text = self.site.ctl(&["metrics"]).ok();
        let name = format!("mailroot_acme_requests_total{{result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        line.parse().unwrap()
    }
}

#[test]
fn a_certificate_is_asked_for_shown_and_renewed_while_sessions_go_on() {
    let Some(world) = World::new(120, None) else { return };
    let site = &world.site;
    let mut open = site.talk();
    open.expect("EHLO client.test", 250);
    let said = world.request(&["--for", HOSTNAME, "--for", "mail.relay.test"]).ok();
    assert!(said.contains("relay1") && said.contains("Pebble"), "{said}");
    world.show();
    let first = world.shown();
    assert!(first.contains("Pebble") && first.contains("DNS:relay.test"), "{first}");
    assert!(first.contains("DNS:mail.relay.test"), "{first}");
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.file()), 0o600);
    assert_eq!(mode(site.home().join("state/tls/acme-account.json")), 0o600);
    site.logged(&["event=certificate ", "name=relay1", "relay.test"]);
    let config = fs::read_to_string(site.home().join("etc/mailroot.yaml")).unwrap();
    assert!(config.contains("acme: [relay.test, mail.relay.test]"), "{config}");
    assert!(config.contains("email: hostmaster@relay.test"), "{config}");
    let looked = site.ctl(&["doctor", "tls"]).ok();
    assert!(looked.contains("relay1 for ") && looked.contains("expires in"), "{looked}");

    // Nobody asks again before it is time, also after a restart; an operator may.
    site.stop();
    site.launch();
    assert_eq!(world.certificate()["acme"]["asking"], false);
    site.ctl(&["cert", "renew", "relay1"]).ok();
    let second = world.shown();
    assert!(second.contains("Pebble") && second != first, "{second}");
    assert_eq!((world.metric("issued"), world.metric("failed")), (1, 0));
    let mut open = site.talk();
    open.expect("EHLO client.test", 250);
    site.ctl(&["cert", "renew"]).ok();
    assert_ne!(world.shown(), second);
    open.expect("NOOP", 250);
    open.expect("QUIT", 221);
}

#[test]
fn it_is_renewed_when_two_thirds_of_its_life_are_over_and_also_when_it_has_expired() {
    let Some(mut world) = World::new(121, None) else { return };
    if world.clock.is_none() {
        return skip::note("renewal of certificates", "libfaketime is not installed");
    }
    world.request(&[]).ok();
    world.show();
    let first = world.shown();
    let ahead = |world: &World, by: &str| world.clock.as_ref().unwrap().set(by);
    ahead(&world, "+59d");
    assert_eq!(world.certificate()["acme"]["asking"], false);
    ahead(&world, "+61d");
    world.site.logged(&["event=acme-request", "name=relay1"]);
    mailroot_tests::wait::until("another certificate", || (world.shown() != first).then_some(()));
    assert_eq!(world.metric("issued"), 2);

    // The authority is gone until it is too late: the old one is shown on, and said to be over.
    world.pebble.stop();
    ahead(&world, "+95d");
    world.site.logged(&["event=acme-failed", "name=relay1", "gives no certificate"]);
    let status = world.site.ctl(&["status"]).out;
    assert!(status.contains("certificate relay1 expired at"), "{status}");
    assert!(status.contains("could not be renewed"), "{status}");
    assert!(world.shown().contains("Pebble"));
    let before = world.shown();

    // It is back, with another memory: our account is made anew.
    world.pebble.launch();
    let failed = world.metric("failed");
    assert!((1..=2).contains(&failed), "one try at a time, and not again at once: {failed}");
    ahead(&world, "+96d");
    mailroot_tests::wait::until("a third one", || (world.shown() != before).then_some(()));
    assert_eq!(world.metric("issued"), 3);
}

#[test]
fn without_an_answer_there_is_none_and_everything_else_goes_on() {
    let elsewhere = ports::host(122, ports::free());
    let Some(world) = World::new(122, Some(elsewhere)) else { return };
    let said = world.request(&[]).exited(1);
    for part in ["relay.test: ", "nobody came to", &elsewhere.to_string(), "cert renew"] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    world.show();
    let mut talk = world.site.talk();
    talk.expect("EHLO client.test", 250);
    assert!(!world.shown().contains("Pebble"), "our own stands in");
    let certificate = world.certificate();
    assert_eq!(certificate["acme"]["failures"], 1);
    let listed = world.site.ctl(&["cert", "list"]).ok();
    assert!(listed.contains("did not find the answer"), "{listed}");
    for words in [world.site.ctl(&["status"]).out, world.site.ctl(&["doctor", "tls"]).out] {
        assert!(words.contains("auto stands in for it"), "{words}");
    }
    assert_eq!((world.metric("issued"), world.metric("failed")), (0, 1));

    // An address that is taken is said at once, without a word to the authority.
    let taken = TcpListener::bind(ports::host(122, 0)).unwrap();
    let taken = taken.local_addr().map(|at| (taken, at)).unwrap();
    let key = format!("tls.acme.listen={}", taken.1);
    world.site.ctl(&["config", "set", &key]).ok();
    let said = world.site.ctl(&["cert", "renew", "relay1"]).exited(1);
    assert!(said.err.contains("cannot listen on") && said.err.contains("in use"), "{}", said.err);
}

#[test]
fn an_authority_that_is_not_one_is_refused_and_a_wish_must_make_sense() {
    let Some(mut world) = World::new(123, None) else { return };
    // Whoever vouches for it is not trusted.
    world.site.ctl(&["config", "set", "tls.acme.trust=system"]).ok();
    let said = world.request(&[]).exited(1);
    assert!(said.err.contains("gives no certificate"), "{}", said.err);
    world.pebble.stop();
    let said = world.site.ctl(&["cert", "renew"]).exited(1);
    assert!(said.err.contains("gives no certificate"), "{}", said.err);

    let wrong = |line: &[&str]| world.site.ctl(line).err;
    let said = wrong(&["cert", "request", "relay2", "--acme=http://ca.example/dir"]);
    assert!(said.contains("https://"), "{said}");
    let said = wrong(&["cert", "request", "relay2", "--acme", "--for", "*.relay.test"]);
    assert!(said.contains("*.relay.test"), "{said}");
    assert!(wrong(&["cert", "request", "relay2"]).contains("--acme"));
    world.site.ctl(&["cert", "self-signed", "own", "--for", "own.test"]).ok();
    world.site.ctl(&["cert", "renew", "own"]).exited(7);
    world.site.ctl(&["cert", "renew", "nobody"]).exited(3);
    let shown = world.site.ctl(&["cert", "request", "own", "--acme", "--dry-run"]).ok();
    assert!(shown.contains("acme: relay.test"), "{shown}");
    world.site.ctl(&["cert", "remove", "relay1"]).ok();
    assert!(
        world.site.ctl(&["cert", "renew"]).exited(3).err.contains("no certificate is asked for")
    );
}
