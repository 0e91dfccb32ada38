//! Mail on its way out under TLS and with a login: a real Postfix with certificates good and bad, and
//! with Dovecot that judges logins.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use mailroot_tests::certificates::{Authority, Identity, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::dovecot::{self, Dovecot};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Peer};
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};

const NAME: &str = "smtp.isp.test";
const PASSWORD: &str = "correct horse";

/// Postfix settings for a host with this certificate.
fn under_tls(identity: &Identity) -> Vec<String> {
    vec![
        format!("smtpd_tls_chain_files = {}", identity.path().display()),
        "smtpd_tls_security_level = may".to_owned(),
        "smtpd_tls_received_header = yes".to_owned(),
        "tls_random_source = dev:/dev/urandom".to_owned(),
    ]
}

fn start(address: SocketAddr, settings: &[String]) -> Option<Postfix> {
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let started = Postfix::start(address, None, &settings);
    if started.is_none() {
        skip::note("Postfix with TLS", postfix::ABSENT);
    }
    started
}

/// A daemon that knows [`NAME`] as `address`, and trusts the authority.
fn site(address: SocketAddr, authority: &Authority) -> Option<(Site, Dns)> {
    let Some(dns) = Dns::serve(&[&format!("{NAME}. 60 IN A {}", address.ip())]) else {
        skip::note("TLS to a host with a name", "unbound is not installed");
        return None;
    };
    let site = Site::start(Setup::new().dns(dns.address(), address.port()));
    site.ctl(&["config", "set", &format!("tls.trust={}", authority.file().display())]).ok();
    Some((site, dns))
}

fn set(site: &Site, address: SocketAddr, more: &[&str]) {
    let host = format!("{NAME}:{}", address.port());
    let mut arguments = vec!["smarthost", "set", &host, "--name", "isp"];
    arguments.extend(more);
    site.control().input(&format!("{PASSWORD}\n")).run(&arguments).ok();
}

fn send(site: &Site, word: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@local.test", &["b@example.com"], &tagged(word)).unwrap();
    assert_eq!(sent.code, 250);
}

/// What the only message that waits is waiting for.
fn await_reason(site: &Site, part: &str) -> String {
    wait::until(&format!("a message that waits because of {part:?}"), || {
        let waiting = site.control().json(&["queue", "list"]);
        let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains(part).then_some(reason)
    })
}

#[test]
fn mail_goes_under_tls_where_a_host_offers_it() {
    let authority = Authority::new();
    let identity = authority.sign("another.name.test", Valid::Before);
    let address = ports::local();
    let Some(postfix) = start(address, &under_tls(&identity)) else { return };
    let site = Site::start(Setup::new().smart_host(address));
    send(&site, "optional");
    let delivered = postfix.await_delivered(1);
    assert!(delivered[0].text().contains("(using TLSv1.3"), "{}", delivered[0].text());
    site.logged(&["delivered", "tls=TLSv1.3", "verified=no"]);

    // Where the operator does not want it, it is not asked for.
    site.ctl(&["server", "set", "default", "delivery.security.tls=off"]).ok();
    send(&site, "off");
    let delivered = postfix.await_delivered(2);
    let clear = delivered.iter().filter(|it| !it.text().contains("(using TLS")).count();
    assert_eq!(clear, 1);
}

#[test]
fn certificates_are_checked_where_that_is_wanted() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let address = ports::host(21, ports::free());
    let Some((site, _dns)) = site(address, &authority) else { return };
    set(&site, address, &[]);

    let good = authority.sign(NAME, Valid::Now);
    for (identity, words) in [
        (stranger.sign(NAME, Valid::Now), "signed by nobody we trust"),
        (authority.sign("mx.other.test", Valid::Now), "for another name"),
        (authority.sign(NAME, Valid::Before), "has expired"),
    ] {
        let Some(postfix) = start(address, &under_tls(&identity)) else { return };
        send(&site, "bad certificate");
        await_reason(&site, words);
        let tested = site.ctl(&["smarthost", "test", "isp"]).exited(10).out;
        assert!(tested.contains(words), "{tested}");
        assert!(postfix.delivered().is_empty());
        site.ctl(&["queue", "remove", "--all", "--yes"]).ok();
    }

    let Some(postfix) = start(address, &under_tls(&good)) else { return };
    let tested = site.ctl(&["smarthost", "test", "isp"]).ok();
    assert!(tested.contains("certificate verified"), "{tested}");
    send(&site, "good certificate");
    postfix.await_delivered(1);
    site.logged(&["delivered", "tls=TLSv1.3", "verified=name"]);
    site.await_empty_queue();
    let story = site.ctl(&["trace", "--last", "1"]).ok();
    assert!(story.contains("(TLSv1.3, verified)"), "{story}");
    let sessions = site.control().json(&["session", "list"]);
    assert_eq!(sessions[0]["tls"], "TLSv1.3", "the connection is kept: {sessions}");
}

#[test]
fn a_pinned_key_needs_no_authority_and_no_other_key_will_do() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let address = ports::host(22, ports::free());
    let Some((site, _dns)) = site(address, &authority) else { return };
    let identity = stranger.sign("whatever.test", Valid::Before);
    let Some(postfix) = start(address, &under_tls(&identity)) else { return };
    set(&site, address, &["--pin", &"0".repeat(64)]);
    send(&site, "pinned");
    await_reason(&site, "none of those it is pinned to");
    let digest = program::run(&mut Command::new("sha256sum"), identity.public_key()).ok();
    set(&site, address, &["--pin", digest.split(' ').next().unwrap()]);
    postfix.await_delivered(1);
    site.logged(&["delivered", "verified=pin"]);
}

#[test]
fn a_host_may_speak_tls_from_the_first_octet() {
    let authority = Authority::new();
    let address = ports::host(23, ports::free());
    let Some((site, _dns)) = site(address, &authority) else { return };
    let mut settings = under_tls(&authority.sign(NAME, Valid::Now));
    settings.push("smtpd_tls_wrappermode = yes".to_owned());
    // Its own readiness test would wait for a greeting in clear text.
    let Some(plain) = start(ports::local(), &[]) else { return };
    plain.listen_too(address, &settings);
    set(&site, address, &["--tls", "implicit"]);
    send(&site, "implicit");
    plain.await_delivered(1);
    site.logged(&["delivered", "tls=TLSv1.3", "verified=name"]);
}

#[test]
fn mail_waits_for_a_host_without_tls_where_tls_is_required() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    site.ctl(&["server", "set", "default", "delivery.security.tls=required"]).ok();
    send(&site, "required");
    let reason = await_reason(&site, "does not offer STARTTLS");
    assert!(reason.contains("4.7.4"), "{reason}");
    assert_eq!(peer.received().len(), 0);
    site.ctl(&["server", "set", "default", "delivery.security.tls=optional"]).ok();
    site.ctl(&["queue", "flush"]).ok();
    peer.await_received(1);
}

#[test]
fn a_handshake_that_fails_falls_back_once_where_tls_is_optional() {
    // It offers STARTTLS, agrees to it, and goes on in clear text.
    let peer = Peer::offering(ports::local(), &["STARTTLS"], |event| {
        if event.line.starts_with("STARTTLS") {
            Answer::say("220 go ahead")
        } else {
            Answer::Accept
        }
    });
    let setup = Setup::new().smart_host(peer.address());
    let site = Site::start(setup.key("delivery.connections.timeout", "3s"));
    send(&site, "fallback");
    peer.await_received(1);
    site.logged(&["tls-failed", "then=clear-text"]);
    site.ctl(&["server", "set", "default", "delivery.security.tls=required"]).ok();
    send(&site, "no fallback");
    await_reason(&site, "TLS failed");
    assert_eq!(peer.received().len(), 1);
}

#[test]
fn a_host_that_speaks_old_tls_alone_gets_no_mail_by_it() {
    let Some(openssl) = program::find("openssl") else {
        return skip::note("a host with TLS 1.0 alone", "openssl is not installed");
    };
    let address = ports::local();
    let old = [
        "smtpd_tls_protocols = TLSv1, TLSv1.1",
        "smtpd_tls_mandatory_protocols = TLSv1, TLSv1.1",
        "smtpd_tls_ciphers = low",
        "tls_low_cipherlist = ALL:@SECLEVEL=0",
    ];
    let old = old.map(str::to_owned).to_vec();
    let identity = Authority::new().sign(NAME, Valid::Now);
    let Some(postfix) = start(address, &[under_tls(&identity), old].concat()) else { return };
    let speaks = |version: &str| {
        let mut client = Command::new(&openssl);
        client.args(["s_client", "-starttls", "smtp", "-brief", "-connect", &address.to_string()]);
        client.args([version, "-cipher", "ALL:@SECLEVEL=0"]);
        program::run(&mut client, b"QUIT\r\n").err.contains("CONNECTION ESTABLISHED")
    };
    assert!(speaks("-tls1") && !speaks("-tls1_2"), "it is as old as it is meant to be");

    let setup = Setup::new().smart_host(address).key("delivery.security.tls", "required");
    let site = Site::start(setup);
    send(&site, "required");
    let reason = await_reason(&site, "TLS failed");
    assert!(reason.contains("4.7.5"), "{reason}");
    assert!(postfix.delivered().is_empty());
    site.ctl(&["server", "set", "default", "delivery.security.tls=optional"]).ok();
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    let delivered = postfix.await_delivered(1);
    assert!(!delivered[0].text().contains("(using TLS"), "{}", delivered[0].text());
    site.logged(&["tls-failed", "then=clear-text"]);
}

#[test]
fn a_smart_host_may_have_an_oldest_version_of_its_own() {
    let authority = Authority::new();
    let address = ports::host(27, ports::free());
    let Some((site, _dns)) = site(address, &authority) else { return };
    let mut settings = under_tls(&authority.sign(NAME, Valid::Now));
    settings.push("smtpd_tls_protocols = TLSv1.2".to_owned());
    let Some(postfix) = start(address, &settings) else { return };
    set(&site, address, &[]);
    site.ctl(&["config", "set", "smart_hosts.isp.min_version=1.3"]).ok();
    send(&site, "the newest alone");
    await_reason(&site, "TLS failed");
    // The smart host's own word goes before the service's.
    site.ctl(&["config", "set", "tls.min_version=1.3"]).ok();
    site.ctl(&["config", "set", "smart_hosts.isp.min_version=1.2"]).ok();
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "flush"]);
    postfix.await_delivered(1);
    site.logged(&["delivered", "tls=TLSv1.2", "verified=name"]);
    let refused = site.ctl(&["config", "set", "smart_hosts.isp.tls=off"]).exited(6).err;
    assert!(refused.contains("E0445"), "{refused}");
}

const USER: &str = "relay@postfix.test";

fn logins() -> Option<Dovecot> {
    let started = Dovecot::start(USER, PASSWORD);
    if started.is_none() {
        skip::note("logins at a host", dovecot::ABSENT);
    }
    started
}

#[test]
fn each_mechanism_logs_in() {
    let (authority, address) = (Authority::new(), ports::host(24, ports::free()));
    let Some(dovecot) = logins() else { return };
    let Some((site, _dns)) = site(address, &authority) else { return };
    let identity = authority.sign(NAME, Valid::Now);
    set(&site, address, &["--user", USER, "--password-stdin"]);
    for mechanism in ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"] {
        let settings = [under_tls(&identity), dovecot.for_postfix(mechanism)].concat();
        let Some(postfix) = start(address, &settings) else { return };
        let tested = site.ctl(&["smarthost", "test", "isp"]).ok();
        assert!(tested.contains("logged in"), "{mechanism}: {tested}");
        send(&site, mechanism);
        let delivered = postfix.await_delivered(1);
        let text = delivered[0].text();
        assert!(text.contains("(Authenticated sender: relay@postfix.test)"), "{mechanism}: {text}");
        site.await_empty_queue();
    }
    let log = site.log();
    let config = site.ctl(&["config", "export"]).ok();
    assert!(!log.contains(PASSWORD) && !config.contains(PASSWORD), "a password is never told");
    let kept = site.home().join("etc/secrets.d/isp");
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&kept).unwrap().trim_end(), PASSWORD);
}

#[test]
fn mail_waits_for_a_login_that_does_not_work() {
    let (authority, address) = (Authority::new(), ports::host(25, ports::free()));
    let Some((site, _dns)) = site(address, &authority) else { return };
    let Some(dovecot) = logins() else { return };
    let identity = authority.sign(NAME, Valid::Now);
    let settings = [under_tls(&identity), dovecot.for_postfix("PLAIN")].concat();
    let Some(postfix) = start(address, &settings) else { return };
    set(&site, address, &["--user", USER, "--password-stdin"]);
    site.control().input("wrong").run(&["smarthost", "passwd", "isp", "--password-stdin"]).ok();
    send(&site, "login");
    let reason = await_reason(&site, "the login was refused");
    assert!(reason.contains("authentication failed"), "the host's words are kept: {reason}");
    let why = site.ctl(&["trace", "--last", "1"]).ok();
    assert!(why.contains("smtpctl smarthost passwd isp"), "{why}");

    // A file that others can read is no secret.
    let kept = site.home().join("etc/secrets.d/isp");
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
    site.ctl(&["queue", "flush"]).ok();
    await_reason(&site, "chmod 600");

    site.control().input(PASSWORD).run(&["smarthost", "passwd", "isp", "--password-stdin"]).ok();
    site.ctl(&["queue", "flush"]).ok();
    postfix.await_delivered(1);

    // A host that offers no login gets nothing, with TLS or without.
    drop(postfix);
    let Some(postfix) = start(address, &under_tls(&identity)) else { return };
    send(&site, "no login");
    await_reason(&site, "offers no AUTH");
    drop(postfix);
    let Some(postfix) = start(address, &[]) else { return };
    site.ctl(&["queue", "flush"]).ok();
    await_reason(&site, "does not offer STARTTLS");
    assert!(postfix.delivered().is_empty());
}

#[test]
fn smart_hosts_are_made_used_and_taken_away() {
    let site = Site::start(Setup::new());
    let made = site.control().json(&["smarthost", "set", "--preset", "gmail", "--no-use"]);
    assert_eq!(made["changed"], true);
    let listed = site.control().json(&["smarthost", "list"]);
    assert_eq!(listed[0]["hosts"][0], "smtp.gmail.com:587");
    assert_eq!((&listed[0]["tls"], &listed[0]["auth"]), (&"verify".into(), &"none".into()));

    let before = site.control().json(&["config", "history"])[0]["revision"].as_u64().unwrap();
    let rule = ["--direct-first", "on_dns_failure"];
    let made = ["smarthost", "set", "relay.example:2525", "--tls", "off", rule[0], rule[1]];
    let made = site.control().json(&made);
    assert_eq!(made["revision"].as_u64(), Some(before + 1), "one revision, one answer: {made}");
    let key = site.ctl(&["config", "get", "delivery.direct_first", "-s", "default"]).ok();
    assert_eq!(key.trim(), "on_dns_failure");
    site.ctl(&["server", "unset", "default", "delivery.direct_first"]).ok();
    let key = site.ctl(&["config", "get", "delivery.smart_host", "-s", "default"]).ok();
    assert_eq!(key.trim(), "smarthost:relay-example");
    site.ctl(&["domain", "add", "remote", "partner.example", "--route", "smarthost:gmail"]).ok();
    let listed = site.control().json(&["smarthost", "list"]);
    assert_eq!(listed[0]["used_by"][0], "default/partner.example");
    let way = site.ctl(&["route", "show", "x@partner.example", "--no-dns"]).ok();
    assert!(way.contains("smarthost:gmail"), "{way}");

    let refused = site.ctl(&["smarthost", "remove", "gmail"]).exited(6).err;
    assert!(refused.contains("there is no smart host gmail"), "{refused}");
    site.ctl(&["domain", "remove", "partner.example"]).ok();
    site.ctl(&["smarthost", "remove", "gmail"]).ok();
    site.ctl(&["smarthost", "clear"]).ok();
    site.ctl(&["smarthost", "remove", "relay-example"]).ok();
    assert_eq!(site.control().json(&["smarthost", "list"]), serde_json::json!([]));

    // Bad wishes, each with what to do; a password is never quoted back.
    site.ctl(&["smarthost", "set", "relay.example", "--user", "me"]).exited(2);
    let unknown = site.ctl(&["server", "set", "default", "delivery.smart_host=smarthost:ips"]);
    assert!(unknown.exited(6).err.contains("there is no smart host ips"));
    let inline = ["config", "set", "smart_hosts.isp.auth.password=hunter2"];
    let said = site.ctl(&inline);
    let said = format!("{}{}", said.out, said.err);
    assert!(said.contains("E0313") && !said.contains("hunter2"), "{said}");
    assert!(!site.log().contains("hunter2"));
}

#[test]
fn smart_host_that_does_not_answer_is_told_until_it_takes_mail() {
    let address = ports::local();
    let site = Site::start(Setup::new());
    let host = format!("[{}]:{}", address.ip(), address.port());
    site.ctl(&["smarthost", "set", &host, "--name", "isp", "--tls", "off"]).ok();
    let of_list = || site.control().json(&["smarthost", "list"])[0].clone();
    assert_eq!(of_list()["state"], "unused");
    send(&site, "waits");
    wait::until("the smart host is down", || (of_list()["state"] == "down").then_some(()));
    let told = site.ctl(&["status", "--check"]).exited(10).out;
    assert!(told.contains("Smart hosts   isp down (next try in "), "{told}");
    assert!(told.contains("mail for the smart host isp waits: "), "{told}");
    assert_eq!(of_list()["last_delivery_at"], serde_json::Value::Null);

    let peer = Peer::accepting(address);
    site.ctl(&["queue", "flush"]).ok();
    peer.await_received(1);
    wait::until("the smart host is up", || (of_list()["state"] == "up").then_some(()));
    let told = site.ctl(&["status", "--check"]).ok();
    assert!(told.contains("Smart hosts   isp up (last delivery "), "{told}");
}
