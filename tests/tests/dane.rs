//! Certificates by the word of DNS (DANE): a zone that Knot signs, a resolver on this machine that validates,
//! and a real Postfix.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use mailroot_tests::certificates::{Authority, Identity, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::dnssec::{self, Dnssec};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};

fn digest(program: &str, octets: &[u8]) -> String {
    let told = program::run(&mut Command::new(program), octets).ok();
    told.split(' ').next().unwrap().to_owned()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _infallible = write!(text, "{octet:02x}");
        text
    })
}

fn postfix(address: SocketAddr, identity: &Identity) -> Option<Postfix> {
    let chain = format!("smtpd_tls_chain_files = {}", identity.path().display());
    let settings = [
        chain.as_str(),
        "smtpd_tls_security_level = may",
        "smtpd_tls_received_header = yes",
        "tls_random_source = dev:/dev/urandom",
        "virtual_mailbox_domains = ee.signed.test, ta.signed.test, web.signed.test, alias.signed.test, half.signed.test, plain.test",
    ];
    let started = Postfix::start(address, None, &settings);
    if started.is_none() {
        skip::note("DANE", postfix::ABSENT);
    }
    started
}

fn serve(records: &[String]) -> Option<Dnssec> {
    let dnssec = Dnssec::serve(records);
    if dnssec.is_none() {
        skip::note("DANE", dnssec::ABSENT);
    }
    dnssec
}

fn site(resolver: &Dns, address: SocketAddr) -> Site {
    let setup = Setup::new().dns(resolver.address(), address.port());
    Site::start(setup.service("dns.timeout", "2s").key("delivery.connections.reuse", "never"))
}

fn send(site: &Site, to: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@local.test", &[to], &tagged("dane")).unwrap();
    assert_eq!(sent.code, 250);
}

fn await_reason(site: &Site, parts: &[&str]) {
    wait::until(&format!("a message that waits because of {parts:?}"), || {
        let waiting = site.control().json(&["queue", "list"]);
        let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
        parts.iter().all(|part| reason.contains(part)).then_some(())
    });
}

/// A domain below the zone with one host, which has this address and these TLSA records.
fn domain(name: &str, address: SocketAddr, records: &[String]) -> Vec<String> {
    let host = format!("mx.{name}");
    let mut all =
        vec![format!("{name}. 60 IN MX 10 {host}."), format!("{host}. 60 IN A {}", address.ip())];
    let record = |record: &String| format!("_{}._tcp.{host}. 60 IN TLSA {record}", address.port());
    all.extend(records.iter().map(record));
    all
}

#[test]
fn a_host_is_the_one_whose_key_its_zone_tells() {
    let (stranger, address) = (Authority::new(), ports::host(81, ports::free()));
    // Nobody trusts whoever signed it, and it is over and for another name: none of that counts.
    let told = stranger.sign("whatever.test", Valid::Before);
    let records = [
        format!("3 1 1 {}", "00".repeat(32)),
        format!("3 1 1 {}", digest("sha256sum", told.public_key())),
    ];
    let plain = domain("plain.test", address, &[format!("3 1 1 {}", "00".repeat(32))]);
    let all = [domain("ee.signed.test", address, &records), plain].concat();
    let Some(dnssec) = serve(&all) else { return };
    let site = site(dnssec.resolver(), address);
    let Some(good) = postfix(address, &told) else { return };
    send(&site, "b@ee.signed.test");
    let delivered = good.await_delivered(1);
    assert!(delivered[0].text().contains("(using TLSv1.3"), "{}", delivered[0].text());
    site.logged(&["delivered", "relay=mx.ee.signed.test", "verified=dane"]);
    let way = site.ctl(&["route", "show", "b@ee.signed.test"]).ok();
    assert!(way.contains("DANE: mx.ee.signed.test, 2 TLSA records"), "{way}");
    drop(good);

    // Another key, however good its certificate, and then none.
    let Some(bad) = postfix(address, &stranger.sign("mx.ee.signed.test", Valid::Now)) else {
        return;
    };
    send(&site, "b@ee.signed.test");
    await_reason(&site, &["none of those that its TLSA records speak of", "mx.ee.signed.test"]);
    // What is not signed demands nothing.
    send(&site, "b@plain.test");
    bad.await_delivered(1);
    site.logged(&["delivered", "relay=mx.plain.test", "verified=no"]);
    drop(bad);
    let clear = Peer::accepting(address);
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    await_reason(&site, &["does not offer STARTTLS", "TLSA records of mx.ee.signed.test"]);
    assert_eq!(clear.received().len(), 0);
    let checks = site.ctl(&["doctor", "dns"]);
    assert!(checks.out.contains("DANE"), "{checks}");

    site.ctl(&["config", "set", "tls.dane=false"]).ok();
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    clear.await_received(1);
}

#[test]
fn an_authority_of_the_zones_choice_vouches_for_a_name() {
    let (authority, address) = (Authority::new(), ports::host(82, ports::free()));
    let records = [format!("2 0 0 {}", hex(&authority.certificate()))];
    let Some(dnssec) = serve(&domain("ta.signed.test", address, &records)) else { return };
    let site = site(dnssec.resolver(), address);
    for (name, valid, words) in [
        ("mx.elsewhere.test", Valid::Now, "for another name"),
        ("mx.ta.signed.test", Valid::Before, "has expired"),
    ] {
        let Some(bad) = postfix(address, &authority.sign(name, valid)) else { return };
        send(&site, "b@ta.signed.test");
        await_reason(&site, &[words, "TLSA records of mx.ta.signed.test"]);
        assert!(bad.delivered().is_empty());
        site.ctl(&["queue", "remove", "--all", "--yes"]).ok();
    }
    // The name of the host, and that of the domain.
    for name in ["mx.ta.signed.test", "ta.signed.test"] {
        let Some(good) = postfix(address, &authority.sign(name, Valid::Now)) else { return };
        send(&site, "b@ta.signed.test");
        good.await_delivered(1);
        site.await_empty_queue();
    }
    assert_eq!(site.log().matches("verified=dane").count(), 2);
}

#[test]
fn records_that_cannot_be_used_demand_tls_and_a_question_without_answer_keeps_mail() {
    let (stranger, address) = (Authority::new(), ports::host(83, ports::free()));
    let unusable = [format!("1 1 1 {}", "00".repeat(32)), "3 1 9 00".to_owned()];
    let lame = [
        "lame.signed.test. 60 IN MX 10 mx.lame.signed.test.".to_owned(),
        format!("mx.lame.signed.test. 60 IN A {}", address.ip()),
        // Whoever is asked for what is below it never answers.
        "_tcp.mx.lame.signed.test. 60 IN NS ns.gone.signed.test.".to_owned(),
        "ns.gone.signed.test. 60 IN A 127.0.1.84".to_owned(),
    ];
    let all = [domain("web.signed.test", address, &unusable), lame.to_vec()].concat();
    let Some(dnssec) = serve(&all) else { return };
    let site = site(dnssec.resolver(), address);
    let clear = Peer::accepting(address);
    send(&site, "b@web.signed.test");
    await_reason(&site, &["does not offer STARTTLS", "TLSA records of mx.web.signed.test"]);
    drop(clear);
    let Some(postfix) = postfix(address, &stranger.sign("whatever.test", Valid::Before)) else {
        return;
    };
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    postfix.await_delivered(1);
    site.logged(&["delivered", "relay=mx.web.signed.test", "tls=TLSv1.3", "verified=no"]);
    site.await_empty_queue();

    send(&site, "b@lame.signed.test");
    await_reason(&site, &["no answer for _", "_tcp.mx.lame.signed.test"]);
    assert_eq!(postfix.delivered().len(), 1);
}

#[test]
fn a_host_that_is_an_alias_has_its_records_where_the_alias_leads_or_at_its_own_name() {
    let (stranger, address) = (Authority::new(), ports::host(85, ports::free()));
    let told = stranger.sign("whatever.test", Valid::Before);
    let good = format!("TLSA 3 1 1 {}", digest("sha256sum", told.public_key()));
    let bad = format!("TLSA 3 1 1 {}", "00".repeat(32));
    let at = |host: &str| format!("_{}._tcp.{host}. 60 IN", address.port());
    let all = [
        // Each step is signed: what it leads to has the records, whatever its own name has.
        "alias.signed.test. 60 IN MX 10 mx.alias.signed.test.".to_owned(),
        "mx.alias.signed.test. 60 IN CNAME real.signed.test.".to_owned(),
        format!("real.signed.test. 60 IN A {}", address.ip()),
        format!("{} {good}", at("real.signed.test")),
        format!("{} {bad}", at("mx.alias.signed.test")),
        // Only the alias is signed: its own name has the records.
        "half.signed.test. 60 IN MX 10 mx.half.signed.test.".to_owned(),
        "mx.half.signed.test. 60 IN CNAME real.plain.test.".to_owned(),
        format!("real.plain.test. 60 IN A {}", address.ip()),
        format!("{} {good}", at("mx.half.signed.test")),
        format!("{} {bad}", at("real.plain.test")),
    ];
    let Some(dnssec) = serve(&all) else { return };
    let site = site(dnssec.resolver(), address);
    let Some(host) = postfix(address, &told) else { return };
    for (number, domain) in ["alias.signed.test", "half.signed.test"].into_iter().enumerate() {
        send(&site, &format!("b@{domain}"));
        host.await_delivered(number + 1);
        site.await_empty_queue();
        assert_eq!(site.log().matches("verified=dane").count(), number + 1);
    }
    drop(host);
    let Some(other) = postfix(address, &stranger.sign("mx.alias.signed.test", Valid::Now)) else {
        return;
    };
    for domain in ["alias.signed.test", "half.signed.test"] {
        send(&site, &format!("b@{domain}"));
        await_reason(&site, &["none of those that its TLSA records speak of"]);
        site.ctl(&["queue", "remove", "--all", "--yes"]).ok();
    }
    assert!(other.delivered().is_empty());
}

#[test]
fn a_certificate_that_signed_itself_is_its_own_authority_and_weak_digests_count_for_nothing() {
    let address = ports::host(86, ports::free());
    let (own, other) = (Authority::of("mx.ta.signed.test"), Authority::of("mx.ta.signed.test"));
    let records = [
        format!("2 0 2 {}", digest("sha512sum", &own.certificate())),
        // The other's would be taken, were it not for the stronger digest above.
        format!("2 0 1 {}", digest("sha256sum", &other.certificate())),
    ];
    let Some(dnssec) = serve(&domain("ta.signed.test", address, &records)) else { return };
    let site = site(dnssec.resolver(), address);
    let Some(good) = postfix(address, &own.itself()) else { return };
    send(&site, "b@ta.signed.test");
    good.await_delivered(1);
    site.logged(&["delivered", "relay=mx.ta.signed.test", "verified=dane"]);
    drop(good);
    let Some(bad) = postfix(address, &other.itself()) else { return };
    send(&site, "b@ta.signed.test");
    await_reason(&site, &["none of those that its TLSA records speak of"]);
    assert!(bad.delivered().is_empty());
}

#[test]
fn our_own_limit_of_questions_is_not_told_to_a_domain_as_its_fault() {
    let address = ports::host(87, ports::free());
    let mut records = Vec::new();
    // More hosts than questions are asked for one attempt; nobody listens at any of them.
    for number in 0..15 {
        let host = format!("mx{number}.many.signed.test");
        records.push(format!("many.signed.test. 60 IN MX 10 {host}."));
        records.push(format!("{host}. 60 IN A {}", address.ip()));
        let key = "00".repeat(32);
        records.push(format!("_{}._tcp.{host}. 60 IN TLSA 3 1 1 {key}", address.port()));
    }
    let Some(dnssec) = serve(&records) else { return };
    let setup = Setup::new().dns(dnssec.resolver().address(), address.port());
    let setup = setup
        .service("dns.timeout", "2s")
        .service("tls.reports.enabled", "true")
        .service("tls.reports.contact", "tls@local.test");
    let site = Site::start(setup);
    send(&site, "b@many.signed.test");
    await_reason(&site, &["more than 32 questions"]);
    let reports = site.control().json(&["tls", "report", "list"]);
    assert_eq!(reports.as_array().map(Vec::len), Some(0), "{reports}");
}
