//! Hosts that have proved who they are are not trusted with less: a real Postfix with a certificate that is
//! good, that lapses, and that is taken away.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;

use mailroot_tests::certificates::{Authority, Identity, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};

const MX: &str = "mx.memory.test";

fn postfix(address: SocketAddr, identity: &Identity) -> Option<Postfix> {
    let chain = format!("smtpd_tls_chain_files = {}", identity.path().display());
    let settings = [
        chain.as_str(),
        "smtpd_tls_security_level = may",
        "tls_random_source = dev:/dev/urandom",
        "virtual_mailbox_domains = memory.test",
    ];
    let started = Postfix::start(address, None, &settings);
    if started.is_none() {
        skip::note("what is remembered of hosts", postfix::ABSENT);
    }
    started
}

fn send(site: &Site) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@local.test", &["b@memory.test"], &tagged("memory")).unwrap();
    assert_eq!(sent.code, 250);
}

/// Until a host is remembered nothing may go in clear text: a Postfix that has just begun may not have
/// TLS yet.
const AT_FIRST: (&str, &str) = ("delivery.security.tls", "required");

fn take_what_is_offered(site: &Site) {
    site.ctl(&["server", "unset", "default", AT_FIRST.0]).ok();
}

fn await_reason(site: &Site, parts: &[&str]) {
    wait::until(&format!("a message that waits because of {parts:?}"), || {
        let waiting = site.control().json(&["queue", "list"]);
        let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
        parts.iter().all(|part| reason.contains(part)).then_some(())
    });
}

#[test]
fn a_host_that_had_a_good_certificate_gets_no_mail_with_less_until_it_is_forgotten() {
    let (authority, address) = (Authority::new(), ports::host(91, ports::free()));
    let records =
        [format!("memory.test. 60 IN MX 10 {MX}."), format!("{MX}. 60 IN A {}", address.ip())];
    let Some(dns) = Dns::serve(&[&records[0], &records[1]]) else {
        return skip::note("what is remembered of hosts", "unbound is not installed");
    };
    let setup = Setup::new().dns(dns.address(), address.port());
    let trust = authority.file().display().to_string();
    let setup = setup.service("tls.trust", &trust).key("delivery.connections.reuse", "never");
    let site = Site::start(setup.key(AT_FIRST.0, AT_FIRST.1));

    // What never proved anything is taken as it comes.
    let Some(other) = postfix(address, &authority.sign("other.test", Valid::Now)) else { return };
    send(&site);
    other.await_delivered(1);
    site.logged(&["delivered", "verified=no"]);
    site.await_empty_queue();
    assert_eq!(site.control().json(&["tls", "list"]), serde_json::json!([]));
    drop(other);

    let Some(good) = postfix(address, &authority.sign(MX, Valid::Now)) else { return };
    send(&site);
    good.await_delivered(1);
    site.logged(&["delivered", "verified=name"]);
    take_what_is_offered(&site);
    let hosts = site.control().json(&["tls", "list"]);
    assert_eq!(hosts[0]["host"], MX);
    assert!(hosts[0]["until"].is_string(), "{hosts}");
    let way = site.ctl(&["route", "show", "b@memory.test"]).ok();
    assert!(way.contains("remembered: mx.memory.test must have a good certificate until"), "{way}");
    drop(good);

    // It lapses; then the offer of TLS is gone. The mail waits, over a restart too.
    let Some(lapsed) = postfix(address, &authority.sign(MX, Valid::Before)) else { return };
    send(&site);
    await_reason(&site, &["has expired", "smtpctl tls forget mx.memory.test"]);
    assert!(lapsed.delivered().is_empty());
    drop(lapsed);
    site.stop();
    let clear = Peer::accepting(address);
    site.launch_again();
    await_reason(&site, &["does not offer STARTTLS", "smtpctl tls forget mx.memory.test"]);
    let why = site.ctl(&["trace", "--last", "1"]).ok();
    assert!(why.contains("smtpctl tls forget mx.memory.test"), "{why}");
    assert_eq!(clear.received().len(), 0);

    let unknown = site.ctl(&["tls", "forget", "mx.elsewhere.test"]).exited(3).err;
    assert!(unknown.contains("no certificate of mx.elsewhere.test is remembered"), "{unknown}");
    site.ctl(&["tls", "forget", MX]).ok();
    site.logged(&["tls-forgotten", "host=mx.memory.test"]);
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    clear.await_received(1);
}

#[test]
fn whoever_asks_for_tls_with_any_certificate_gets_no_less_than_whoever_takes_what_comes() {
    let (authority, address) = (Authority::new(), ports::host(93, ports::free()));
    let records =
        [format!("memory.test. 60 IN MX 10 {MX}."), format!("{MX}. 60 IN A {}", address.ip())];
    let Some(dns) = Dns::serve(&[&records[0], &records[1]]) else {
        return skip::note("what is remembered of hosts", "unbound is not installed");
    };
    let setup = Setup::new().dns(dns.address(), address.port());
    let trust = authority.file().display().to_string();
    let setup = setup.service("tls.trust", &trust).key("delivery.connections.reuse", "never");
    let site = Site::start(setup.key(AT_FIRST.0, AT_FIRST.1));
    let Some(good) = postfix(address, &authority.sign(MX, Valid::Now)) else { return };
    send(&site);
    good.await_delivered(1);
    site.await_empty_queue();
    drop(good);
    // Somebody else's certificate, who stands in the way.
    let stranger = Authority::new();
    let Some(other) = postfix(address, &stranger.sign(MX, Valid::Now)) else { return };
    send(&site);
    await_reason(&site, &["signed by nobody we trust", "smtpctl tls forget mx.memory.test"]);
    assert!(other.delivered().is_empty());
    site.ctl(&["tls", "forget", MX]).ok();
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    other.await_delivered(1);
}

#[test]
fn what_is_remembered_counts_only_where_that_is_wanted() {
    let (authority, address) = (Authority::new(), ports::host(92, ports::free()));
    let Some(dns) = Dns::serve(&[&format!("{MX}. 60 IN A {}", address.ip())]) else {
        return skip::note("what is remembered of hosts", "unbound is not installed");
    };
    let trust = authority.file().display().to_string();
    let host = format!("{MX}:{}", address.port());
    let setup = Setup::new().dns(dns.address(), 25).service("tls.trust", &trust);
    let setup = setup.key("delivery.smart_host", &host).key("delivery.connections.reuse", "never");
    let site = Site::start(setup.key(AT_FIRST.0, AT_FIRST.1));
    let Some(good) = postfix(address, &authority.sign(MX, Valid::Now)) else { return };
    send(&site);
    good.await_delivered(1);
    take_what_is_offered(&site);
    drop(good);
    let clear = Peer::accepting(address);
    send(&site);
    await_reason(&site, &["smtpctl tls forget mx.memory.test"]);
    site.ctl(&["config", "set", "tls.memory=false"]).ok();
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    clear.await_received(1);
}
