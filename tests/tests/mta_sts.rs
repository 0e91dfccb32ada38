//! Policies of domains for mail to them (MTA-STS): a real DNS server, a policy host under TLS, and a real
//! Postfix with certificates good and bad.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mailroot_tests::certificates::{Authority, Identity, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::policy_host::{self, PolicyHost};
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};
use serde_json::json;

const MX: &str = "mx.sts.test";
const POLICY_HOST: &str = "mta-sts.sts.test";
const ENFORCE: &str = "version: STSv1\nmode: enforce\nmx: mx.sts.test\nmax_age: 86400\n";

/// A domain with a policy and its hosts.
struct World {
    authority: Authority,
    address: SocketAddr,
    policy: PolicyHost,
    dns: Dns,
    site: Site,
}

impl World {
    /// `host` is the first of three numbers of loopback addresses that no other test has. The certificate
    /// of the policy host is signed by `signer`, or by somebody who is trusted.
    fn new(host: u8, policy: &str, signer: Option<&Authority>) -> Option<Self> {
        let authority = Authority::new();
        let identity = signer.unwrap_or(&authority).sign(POLICY_HOST, Valid::Now);
        let Some(policy) = PolicyHost::start(host + 1, identity.path(), policy) else {
            skip::note("policies of domains", policy_host::ABSENT);
            return None;
        };
        let address = ports::host(host, ports::free());
        let dns = serve(address, &policy, "1")?;
        let setup = Setup::new().dns(dns.address(), address.port());
        let setup = setup
            .service("tls.trust", &authority.file().display().to_string())
            .key("delivery.connections.reuse", "never");
        let site = Site::start(setup);
        Some(Self { authority, address, policy, dns, site })
    }

    fn postfix(&self, name: &str) -> Option<Postfix> {
        let settings = under_tls(&self.authority.sign(name, Valid::Now));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let started = Postfix::start(self.address, None, &settings);
        if started.is_none() {
            skip::note("policies of domains", postfix::ABSENT);
        }
        started
    }

    fn send(&self, to: &str) {
        let mut talk = self.site.talk();
        talk.expect("EHLO client.test", 250);
        let sent = talk.message("a@local.test", &[to], &tagged("sts")).unwrap();
        assert_eq!(sent.code, 250);
    }

    fn await_reason(&self, parts: &[&str]) -> String {
        wait::until(&format!("a message that waits because of {parts:?}"), || {
            let waiting = self.site.control().json(&["queue", "list"]);
            let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
            parts.iter().all(|part| reason.contains(part)).then_some(reason)
        })
    }
}

fn under_tls(identity: &Identity) -> Vec<String> {
    vec![
        format!("smtpd_tls_chain_files = {}", identity.path().display()),
        "smtpd_tls_security_level = may".to_owned(),
        "smtpd_tls_received_header = yes".to_owned(),
        "tls_random_source = dev:/dev/urandom".to_owned(),
        "virtual_mailbox_domains = sts.test".to_owned(),
    ]
}

/// Where the host listens that no policy here names.
fn other(address: SocketAddr) -> SocketAddr {
    let IpAddr::V4(ip) = address.ip() else { unreachable!("it is one of 127.0.1.0/24") };
    SocketAddr::new(Ipv4Addr::from_bits(ip.to_bits() + 2).into(), address.port())
}

/// `sts.test` with two hosts, of which the policies here name the second, and `free.test` without a policy.
fn serve(address: SocketAddr, policy: &PolicyHost, id: &str) -> Option<Dns> {
    let other = other(address);
    let records = [
        format!("sts.test. 60 IN MX 20 {MX}."),
        "sts.test. 60 IN MX 10 other.sts.test.".to_owned(),
        format!("{MX}. 60 IN A {}", address.ip()),
        format!("other.sts.test. 60 IN A {}", other.ip()),
        "free.test. 60 IN MX 10 other.sts.test.".to_owned(),
        format!("{POLICY_HOST}. 60 IN A {}", policy.address().ip()),
        format!("_mta-sts.sts.test. 60 IN TXT \"v=STSv1; id={id};\""),
    ];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let dns = Dns::serve(&records);
    if dns.is_none() {
        skip::note("policies of domains", "unbound is not installed");
    }
    dns
}

#[test]
fn mail_goes_to_the_hosts_that_an_enforced_policy_names_and_nowhere_else() {
    let Some(mut world) = World::new(61, ENFORCE, None) else { return };
    let other = Peer::accepting(other(world.address));
    let Some(good) = world.postfix(MX) else { return };
    world.send("b@sts.test");
    let delivered = good.await_delivered(1);
    assert!(delivered[0].text().contains("(using TLSv1.3"), "{}", delivered[0].text());
    world.site.logged(&["delivered", "relay=mx.sts.test", "verified=sts"]);
    world.site.logged(&["sts-policy", "domain=sts.test", "mode=enforce", "policy=1"]);
    assert_eq!(world.policy.requests(), ["mta-sts.sts.test /.well-known/mta-sts.txt"]);
    world.site.await_empty_queue();
    let story = world.site.ctl(&["trace", "--last", "1"]).ok();
    assert!(story.contains("verified (MTA-STS)"), "{story}");
    let way = world.site.ctl(&["route", "show", "b@sts.test"]).ok();
    assert!(way.contains("MTA-STS: enforce until") && way.contains("hosts mx.sts.test"), "{way}");

    // A certificate for another name, then no TLS at all: the mail waits, and says why.
    drop(good);
    let Some(bad) = world.postfix("mx.elsewhere.test") else { return };
    world.send("b@sts.test");
    world.await_reason(&["for another name", "MTA-STS policy of sts.test"]);
    drop(bad);
    let clear = Peer::accepting(world.address);
    // It may have been tried already.
    let _flushed = world.site.ctl(&["queue", "flush"]);
    world.await_reason(&["does not offer STARTTLS", "MTA-STS policy of sts.test"]);
    let why = world.site.ctl(&["trace", "--last", "1"]).ok();
    assert!(why.contains("smtpctl route show b@sts.test"), "{why}");

    // The policy outlives the daemon and its own host; an operator's word goes before it.
    world.site.stop();
    world.policy.stop();
    world.site.launch_again();
    world.send("c@sts.test");
    world.site.logged(&["deferred", "to=<c@sts.test>", "STARTTLS (MTA-STS policy of sts.test)"]);
    assert_eq!((clear.received().len(), other.received().len()), (0, 0));
    world.site.ctl(&["domain", "add", "remote", "sts.test", "--tls", "off"]).ok();
    // It may have been tried already.
    let _flushed = world.site.ctl(&["queue", "flush"]);
    other.await_received(2);
    drop(world.dns);
}

#[test]
fn a_message_may_ask_to_be_sent_without_tls_rather_than_not_at_all() {
    let Some(world) = World::new(79, ENFORCE, None) else { return };
    let clear = Peer::accepting(world.address);
    world.send("strict@sts.test");
    world.await_reason(&["does not offer STARTTLS", "MTA-STS policy of sts.test"]);
    let mut talk = world.site.talk();
    talk.expect("EHLO client.test", 250);
    let octets = [&b"TLS-Required: No\r\n"[..], &tagged("relaxed")].concat();
    assert_eq!(talk.message("a@local.test", &["relaxed@sts.test"], &octets).unwrap().code, 250);
    let received = clear.await_received(1);
    assert_eq!(received[0].recipients(), ["relaxed@sts.test"]);
    // It may have been tried already.
    let _flushed = world.site.ctl(&["queue", "flush"]);
    world.await_reason(&["does not offer STARTTLS", "MTA-STS policy of sts.test"]);
    assert_eq!(clear.received().len(), 1);
}

#[test]
fn a_policy_on_trial_is_told_of_and_changes_nothing() {
    let testing = ENFORCE.replace("enforce", "testing").replace("mx.sts", "other.sts");
    let Some(world) = World::new(64, &testing, None) else { return };
    // The other host does not answer, so that the mail goes on to one that is not named.
    let Some(postfix) = world.postfix("mx.elsewhere.test") else { return };
    world.send("b@sts.test");
    postfix.await_delivered(1);
    world.site.logged(&["delivered", "relay=mx.sts.test", "verified=no"]);
    world.site.logged(&["sts-testing", "domain=sts.test", "does not name mx.sts.test"]);

    // With it goes the connection that it was given mail by.
    drop(postfix);
    let other = Peer::accepting(other(world.address));
    world.send("b@sts.test");
    other.await_received(1);
    world.site.logged(&["sts-testing", "relay=other.sts.test", "not under TLS"]);
}

#[test]
fn what_is_no_policy_is_told_of_and_mail_goes_as_without_one() {
    let stranger = Authority::new();
    let Some(world) = World::new(67, ENFORCE, Some(&stranger)) else { return };
    let other = Peer::accepting(other(world.address));
    world.send("b@sts.test");
    other.await_received(1);
    world.site.logged(&["sts-failed", "then=no-policy", "signed by nobody we trust"]);
    assert_eq!(world.policy.requests().len(), 0);

    // What failed is not asked for again at once, but a new life begins anew.
    world.send("b@sts.test");
    other.await_received(2);
    assert_eq!(world.site.log().matches("event=sts-failed").count(), 1);
}

#[test]
fn a_redirect_and_a_page_are_no_policies() {
    let Some(world) = World::new(70, ENFORCE, None) else { return };
    let other = Peer::accepting(other(world.address));
    for (number, (state, words)) in [
        (json!({"status": 301, "location": "/policy", "body": ENFORCE}), "answers 301"),
        (json!({"type": "text/html; charset=utf-8", "body": ENFORCE}), "not text/plain"),
        (json!({"body": format!("{ENFORCE}{}", "#:\n".repeat(30_000))}), "longer than 65536"),
        (json!({"body": "mode: enforce"}), "STSv1"),
    ]
    .into_iter()
    .enumerate()
    {
        world.policy.answer(&state);
        world.send("b@sts.test");
        other.await_received(number + 1);
        world.site.logged(&["sts-failed", words]);
        world.site.stop();
        world.site.launch_again();
    }
    assert_eq!(world.policy.requests().len(), 4);
}

#[test]
fn a_policy_host_that_says_nothing_holds_up_its_own_domain_only() {
    let Some(world) = World::new(73, ENFORCE, None) else { return };
    let other = Peer::accepting(other(world.address));
    world.policy.answer(&json!({"silent": true, "body": ""}));
    world.send("b@sts.test");
    wait::until("a question for the policy", || {
        (!world.policy.requests().is_empty()).then_some(())
    });
    world.send("b@free.test");
    let received = other.await_received(1);
    assert_eq!(received[0].recipients(), ["b@free.test"]);
}

#[test]
fn mail_waits_for_the_next_policy_where_the_last_one_was_to_be_enforced() {
    // It is over as soon as it is there.
    let Some(world) = World::new(187, &ENFORCE.replace("86400", "0"), None) else { return };
    let other = Peer::accepting(other(world.address));
    world.send("b@sts.test");
    other.await_received(1);
    world.site.stop();
    world.policy.answer(&json!({"status": 500, "body": ""}));
    world.site.launch_again();
    world.send("b@sts.test");
    world.await_reason(&["answers 500", "mail waits for it until"]);
    let _flushed = world.site.ctl(&["queue", "flush"]);
    world.await_reason(&["answers 500", "mail waits for it until"]);
    world.site.logged(&["sts-failed", "then=mail-waits", "answers 500"]);
    assert_eq!(other.received().len(), 1);

    world.site.stop();
    world.policy.answer(&json!({"body": ENFORCE.replace("enforce", "none")}));
    world.site.launch_again();
    other.await_received(2);
}

#[test]
fn a_new_id_brings_a_new_policy() {
    let Some(world) = World::new(76, ENFORCE, None) else { return };
    let other = Peer::accepting(other(world.address));
    world.send("b@sts.test");
    // The host that is named does not answer.
    world.await_reason(&["connection refused"]);
    assert_eq!(other.received().len(), 0);
    world.site.stop();
    world.policy.answer(&json!({"body": ENFORCE.replace("enforce", "none")}));
    let Some(dns) = serve(world.address, &world.policy, "2") else { return };
    let setup = world.site.setup().dns(dns.address(), world.address.port());
    world.site.configure(setup);
    world.site.launch_again();
    world.site.logged(&["sts-policy", "mode=none", "policy=2"]);
    other.await_received(1);
    drop(world.dns);
}
