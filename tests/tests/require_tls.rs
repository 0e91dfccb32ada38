//! Mail that goes under TLS all the way or not at all (REQUIRETLS, RFC 8689): between two of ours, by a zone
//! that Knot signs and a resolver that validates.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::dnssec::{self, Dnssec};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::policy_host::{self, PolicyHost};
use mailroot_tests::program::Finished;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};

const MX: &str = "mx.rtls.signed.test";

/// Sends one message under TLS as Python's library does.
fn submit(site: &Site, (from, to): (&str, &str), options: &str, header: &str) -> Finished {
    let script = format!(
        "import smtplib, ssl\n\
         client = smtplib.SMTP('127.0.0.1', {port})\n\
         client.ehlo()\n\
         assert not client.has_extn('requiretls')\n\
         client.starttls(context=ssl._create_unverified_context())\n\
         client.ehlo()\n\
         assert client.has_extn('requiretls')\n\
         client.sendmail('{from}', ['{to}'], '{header}Subject: x\\r\\n\\r\\nhello\\r\\n',\n\
         \x20               mail_options=[{options}])\n\
         client.quit()\n",
        port = site.address().port()
    );
    program::run(Command::new("/usr/bin/python3").arg("-c").arg(script), b"")
}

const REQUIRED: &str = "'REQUIRETLS'";

/// The certificate and its key, as two files.
fn install(place: &Path, authority: &Authority) -> (String, String) {
    let both = fs::read_to_string(authority.sign(MX, Valid::Now).path()).unwrap();
    let at = both.find("-----BEGIN CERTIFICATE").unwrap();
    let (chain, key) = (place.join("chain.pem"), place.join("mx.key"));
    fs::write(&key, &both[..at]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&chain, &both[at..]).unwrap();
    (chain.display().to_string(), key.display().to_string())
}

/// A server of ours with a good certificate, whose domains are these.
fn receiver(at: SocketAddr, authority: &Authority, place: &Path, extensions: Option<&str>) -> Site {
    let (chain, key) = install(place, authority);
    let mut setup = Setup::new()
        .service("tls.certificates.mx.chain", &chain)
        .service("tls.certificates.mx.key", &key)
        .key("access.tls.certificate", "mx")
        .key("general.listen", &format!("\"{at}\""));
    setup.servers[0].address = at;
    if let Some(words) = extensions {
        setup = setup.key("general.extensions", words);
    }
    Site::start(setup.only_domains(&[
        "{name: rtls.signed.test, type: default}",
        "{name: other.signed.test, type: alias}",
        "{name: plain.test, type: alias}",
    ]))
}

/// A signed domain whose host has a good certificate, one whose host has that of another, and one that is
/// not signed.
fn serve(at: SocketAddr) -> Option<Dnssec> {
    let records = [
        format!("rtls.signed.test. 60 IN MX 10 {MX}."),
        format!("{MX}. 60 IN A {}", at.ip()),
        "other.signed.test. 60 IN MX 10 mx.other.signed.test.".to_owned(),
        format!("mx.other.signed.test. 60 IN A {}", at.ip()),
        format!("plain.test. 60 IN MX 10 {MX}."),
    ];
    let dnssec = Dnssec::serve(&records);
    if dnssec.is_none() {
        skip::note("REQUIRETLS by signed DNS", dnssec::ABSENT);
    }
    dnssec
}

fn sender(dnssec: &Dnssec, authority: &Authority, port: u16) -> Site {
    let setup = Setup::new().dns(dnssec.resolver().address(), port);
    Site::start(
        setup
            .service("tls.trust", &authority.file().display().to_string())
            .service("dns.timeout", "2s")
            .key("delivery.outbound.retry", "[1h]"),
    )
}

#[test]
fn mail_goes_under_tls_to_hosts_that_are_beyond_doubt_and_to_no_others() {
    let (authority, at) = (Authority::new(), ports::host(171, ports::free()));
    let Some(dnssec) = serve(at) else { return };
    let site = sender(&dnssec, &authority, at.port());
    // Nobody is there: it waits, over a restart too.
    submit(&site, ("a@local.test", "b@rtls.signed.test"), REQUIRED, "").ok();
    site.logged(&["event=received", "TLS all the way"]);
    site.logged(&["event=deferred", "connection refused"]);
    site.kill();
    site.launch_again();
    let rows = wait::until("the message", || {
        let rows = site.control().json(&["queue", "list"]);
        rows[0]["id"].as_str().map(str::to_owned)
    });
    let shown = site.ctl(&["queue", "show", &rows]).ok();
    assert!(shown.contains("required all the way (REQUIRETLS)"), "{shown}");
    let place = tempfile::tempdir().unwrap();
    let mx = receiver(at, &authority, place.path(), None);
    // It may have been tried already.
    let _flushed = site.ctl(&["queue", "retry", "--all"]);
    mx.await_dropped(1);
    let told = mx.logged(&["event=received", "TLS all the way"]);
    assert!(told.contains("tls=TLSv1.3"), "{told}");
    site.logged(&["event=delivered", &format!("relay={MX}")]);
    site.await_empty_queue();

    // Other mail of the same domain needs none of that, nor does it wait.
    submit(&site, ("a@local.test", "b@plain.test"), "", "").ok();
    mx.await_dropped(2);
    for (to, status, words) in [
        ("b@other.signed.test", "5.7.10", "another name"),
        ("b@plain.test", "5.7.10", "nobody vouches for mx.rtls.signed.test"),
    ] {
        submit(&site, ("a@local.test", to), REQUIRED, "").ok();
        let told = site.logged(&["event=bounced", &format!("dsn={status}"), &format!("<{to}>")]);
        assert!(told.contains(words), "{told}");
    }
    site.await_dropped(2);
    submit(&site, ("a@local.test", "b@plain.test"), "", "").ok();
    mx.await_dropped(3);

    // A report is protected as what it is about was.
    submit(&site, ("a@rtls.signed.test", "b@plain.test"), REQUIRED, "").ok();
    let dropped = mx.await_dropped(4);
    assert!(dropped.iter().any(|it| it.text().contains("5.7.10")));
    wait::until("the report", || {
        let log = mx.log();
        let reports = log.lines().filter(|line| line.contains("event=received"));
        let strict = reports.filter(|line| line.contains("TLS all the way"));
        (strict.filter(|line| line.contains("from=<>")).count() == 1).then_some(())
    });
    // Where it cannot be, it ends here.
    submit(&site, ("a@plain.test", "b@other.signed.test"), REQUIRED, "").ok();
    wait::until("the report in Badmail", || (!site.badmail().is_empty()).then_some(()));
}

#[test]
fn a_policy_vouches_for_hosts_where_no_zone_is_signed() {
    let (authority, at) = (Authority::new(), ports::host(174, ports::free()));
    let identity = authority.sign("mta-sts.plain.test", Valid::Now);
    let text = format!("version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 86400\n");
    let Some(policy) = PolicyHost::start(175, identity.path(), &text) else {
        return skip::note("REQUIRETLS by MTA-STS", policy_host::ABSENT);
    };
    let unnamed = Peer::accepting(ports::host(176, at.port()));
    let Some(dns) = Dns::serve(&[
        "plain.test. 60 IN MX 5 mx.elsewhere.test.",
        &format!("plain.test. 60 IN MX 10 {MX}."),
        &format!("mx.elsewhere.test. 60 IN A {}", unnamed.address().ip()),
        &format!("{MX}. 60 IN A {}", at.ip()),
        &format!("mta-sts.plain.test. 60 IN A {}", policy.address().ip()),
        "_mta-sts.plain.test. 60 IN TXT \"v=STSv1; id=1;\"",
        &format!("other.signed.test. 60 IN MX 10 {MX}."),
    ]) else {
        return skip::note("REQUIRETLS by MTA-STS", "unbound is not installed");
    };
    let place = tempfile::tempdir().unwrap();
    let mx = receiver(at, &authority, place.path(), None);
    let setup = Setup::new()
        .dns(dns.address(), at.port())
        .service("tls.trust", &authority.file().display().to_string())
        .key("delivery.outbound.retry", "[1h]");
    let site = Site::start(setup);
    submit(&site, ("a@local.test", "b@plain.test"), REQUIRED, "").ok();
    mx.await_dropped(1);
    let told = mx.logged(&["event=received", "TLS all the way"]);
    assert!(told.contains("tls=TLSv1.3"), "{told}");
    site.logged(&["event=delivered", &format!("relay={MX}"), "verified=sts"]);
    assert_eq!(unnamed.sessions(), 0, "a host that the policy does not name");

    // It vouches for the same host in nobody else's name.
    submit(&site, ("a@local.test", "b@other.signed.test"), REQUIRED, "").ok();
    let told = site.logged(&["event=bounced", "dsn=5.7.10", "<b@other.signed.test>"]);
    assert!(told.contains(&format!("nobody vouches for {MX}")), "{told}");
    submit(&site, ("a@local.test", "b@other.signed.test"), "", "").ok();
    mx.await_dropped(2);
}

#[test]
fn a_host_that_does_not_promise_the_same_gets_none_of_it() {
    let (authority, at) = (Authority::new(), ports::host(172, ports::free()));
    let Some(dnssec) = serve(at) else { return };
    let place = tempfile::tempdir().unwrap();
    let mx = receiver(at, &authority, place.path(), Some("[SIZE, PIPELINING]"));
    let site = sender(&dnssec, &authority, at.port());
    // The connection that the first has made is good for the second, and not for the third.
    submit(&site, ("a@local.test", "b@rtls.signed.test"), "", "").ok();
    mx.await_dropped(1);
    submit(&site, ("a@local.test", "b@rtls.signed.test"), REQUIRED, "").ok();
    let told = site.logged(&["event=bounced", "dsn=5.7.30", "<b@rtls.signed.test>"]);
    assert!(told.contains("does not offer (REQUIRETLS)"), "{told}");
    let report = site.await_dropped(1);
    assert!(report[0].text().contains("5.7.30"), "{}", report[0].text());
    submit(&site, ("a@local.test", "b@rtls.signed.test"), "", "").ok();
    mx.await_dropped(2);
}

#[test]
fn hosts_of_the_operator_are_held_to_it_as_well() {
    let (authority, at) = (Authority::new(), ports::host(173, ports::free()));
    let Some(dnssec) = serve(at) else { return };
    let place = tempfile::tempdir().unwrap();
    let mx = receiver(at, &authority, place.path(), None);
    let site = sender(&dnssec, &authority, at.port());
    let hub = format!("delivery.smart_host={MX}:{}", at.port());
    site.ctl(&["server", "set", "default", &hub]).ok();
    submit(&site, ("a@local.test", "b@plain.test"), REQUIRED, "").ok();
    mx.await_dropped(1);
    mx.logged(&["event=received", "TLS all the way"]);
    site.logged(&["event=delivered", "verified=name"]);
    // By its address nobody can vouch for it.
    let hub = format!("delivery.smart_host=[{}]:{}", at.ip(), at.port());
    site.ctl(&["server", "set", "default", &hub]).ok();
    submit(&site, ("a@local.test", "b@plain.test"), REQUIRED, "").ok();
    site.logged(&["event=bounced", "dsn=5.7.10"]);
    submit(&site, ("a@local.test", "b@plain.test"), "", "").ok();
    mx.await_dropped(2);
}

#[test]
fn nothing_leaves_in_clear_text_whatever_else_the_message_says() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(Setup::new().smart_host(peer.address()));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@local.test> REQUIRETLS", 555);
    submit(&site, ("a@local.test", "b@far.test"), REQUIRED, "TLS-Required: No\\r\\n").ok();
    site.logged(&["event=bounced", "dsn=5.7.10", "<b@far.test>"]);
    assert!(peer.attempts().is_empty());
    // The report is for a domain of ours, which no connection is needed for.
    site.await_dropped(1);
    assert_eq!(talk.message("a@local.test", &["b@far.test"], &tagged("free")).unwrap().code, 250);
    peer.await_received(1);
}
