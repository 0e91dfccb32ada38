//! Real servers and clients on both sides: Postfix, smtp-sink, Exim, msmtp, Python, nodemailer, with MX
//! records from a real DNS server. What arrives is compared octet for octet with what was sent.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::process::Command;

use mailroot_tests::dns::Dns;
use mailroot_tests::exim::{self, Exim};
use mailroot_tests::message::{awkward, tagged};
use mailroot_tests::peer::Peer;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::sink::Sink;
use mailroot_tests::site::Site;
use mailroot_tests::{nodemailer, ports, program, skip, wait};

const NO_DNS: &str = "unbound is not installed";

/// What is after the trace fields that hosts on the way put in front.
fn holds(octets: &[u8], sent: &[u8]) -> bool {
    octets.windows(sent.len()).any(|window| window == sent)
}

/// As a program hands a message to `sendmail`, and as a maildir stores it.
fn with_bare_line_ends(octets: &[u8]) -> Vec<u8> {
    octets.iter().copied().filter(|&octet| octet != b'\r').collect()
}

#[test]
fn mail_found_by_mx_reaches_postfix_and_smtp_sink_unchanged() {
    let port = ports::free();
    let (at_postfix, at_sink) = (ports::host(1, port), ports::host(2, port));
    let Some(dns) = Dns::serve(&[
        "example.com. 60 IN MX 10 mx1.example.com.",
        "mx1.example.com. 60 IN A 127.0.1.1",
        "sink.test. 60 IN MX 10 mx.sink.test.",
        "mx.sink.test. 60 IN A 127.0.1.2",
    ]) else {
        return skip::note("MX", NO_DNS);
    };
    let Some(postfix) = Postfix::start(at_postfix, None, &[]) else {
        return skip::note("Postfix as receiver", postfix::ABSENT);
    };
    let Some(sink) = Sink::start(at_sink) else {
        return skip::note("smtp-sink", "smtp-sink is not installed");
    };
    let site = Site::start(Setup::new().dns(dns.address(), port));
    let sent = awkward("mx");
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    assert_eq!(talk.message("a@client.test", &["b@example.com"], &sent).unwrap().code, 250);
    assert_eq!(talk.message("a@client.test", &["b@sink.test"], &sent).unwrap().code, 250);

    let delivered = postfix.await_delivered(1);
    let expected = with_bare_line_ends(&sent);
    assert!(holds(&delivered[0].octets, &expected), "{}", delivered[0].text());
    assert_eq!(delivered[0].fields("Return-Path"), ["<a@client.test>"]);

    let kept = sink.await_kept(1, |sunk| holds(&sunk.octets, &sent));
    assert_eq!(kept[0].mail.split(' ').next(), Some("<a@client.test>"));
    assert_eq!(kept[0].rcpt[0].split(' ').next(), Some("<b@sink.test>"));
    site.await_empty_queue();
}

#[test]
fn mx_hosts_are_tried_by_preference_and_the_address_of_a_domain_without_mx_is_used() {
    let port = ports::free();
    let Some(dns) = Dns::serve(&[
        "pref.test. 60 IN MX 20 second.pref.test.",
        "pref.test. 60 IN MX 10 first.pref.test.",
        "first.pref.test. 60 IN A 127.0.1.3",
        "second.pref.test. 60 IN A 127.0.1.4",
        "plain.test. 60 IN A 127.0.1.4",
        "null.test. 60 IN MX 0 .",
    ]) else {
        return skip::note("MX", NO_DNS);
    };
    let second = Peer::accepting(ports::host(4, port));
    let site = Site::start(Setup::new().dns(dns.address(), port));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let send = |talk: &mut mailroot_tests::talk::Talk, to: &str| {
        assert_eq!(talk.message("a@client.test", &[to], &tagged(to)).unwrap().code, 250);
    };

    send(&mut talk, "a@pref.test");
    second.await_received(1);
    let first = Peer::accepting(ports::host(3, port));
    send(&mut talk, "b@plain.test");
    second.await_received(2);
    assert_eq!(first.received().len(), 0);

    // No such domain, and a domain that takes no mail: reported at once (RFC 7505, RFC 5321 5.1).
    talk.expect("MAIL FROM:<ops@local.test>", 250);
    talk.expect("RCPT TO:<x@null.test>", 250);
    talk.expect("RCPT TO:<y@nowhere.test>", 250);
    talk.expect("DATA", 354);
    talk.expect("Subject: undeliverable\r\n\r\n.", 250);
    let reports = wait::until("a report for each bad domain", || {
        let text: String =
            site.dropped("default").iter().map(mailroot_tests::message::Stored::text).collect();
        (text.contains("x@null.test") && text.contains("y@nowhere.test")).then_some(text)
    });
    assert!(reports.contains("5.1.10"), "{reports}");
    assert!(reports.contains("5.1.2"), "{reports}");
}

#[test]
fn an_alias_is_followed_and_an_mx_that_leads_back_to_us_is_recognised() {
    let setup = Setup::new();
    let port = setup.servers[0].address.port();
    let Some(dns) = Dns::serve(&[
        "self.test. 60 IN MX 10 mx.self.test.",
        "mx.self.test. 60 IN A 127.0.0.1",
        "mail.real.test. 60 IN MX 10 mx.real.test.",
        "mx.real.test. 60 IN A 127.0.1.5",
        "alias.test. 60 IN CNAME mail.real.test.",
    ]) else {
        return skip::note("MX", NO_DNS);
    };
    let peer = Peer::accepting(ports::host(5, port));
    let site = Site::start(setup.dns(dns.address(), port));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let to = ["loop@self.test", "ada@alias.test"];
    assert_eq!(talk.message("ops@local.test", &to, &tagged("loop")).unwrap().code, 250);

    let report = site.await_dropped(1).remove(0);
    assert!(report.text().contains("loop@self.test"), "{}", report.text());
    assert!(report.text().contains("5.4.6"), "{}", report.text());
    assert_eq!(peer.await_received(1)[0].recipients(), ["ada@alias.test"]);
}

#[test]
fn what_postfix_sends_arrives_unchanged() {
    let site = Site::start(Setup::new());
    let Some(postfix) = Postfix::start(ports::local(), Some(site.address()), &[]) else {
        return skip::note("Postfix as sender", postfix::ABSENT);
    };
    let sent = awkward("postfix");
    postfix.sendmail("a@client.test", &format!("b@{LOCAL_DOMAIN}"), &with_bare_line_ends(&sent));

    let dropped = site.await_dropped(1);

    assert!(holds(&dropped[0].octets, &sent), "{}", dropped[0].text());
    assert_eq!(dropped[0].fields("Return-Path"), ["<a@client.test>"]);
}

#[test]
fn what_smtp_source_sends_arrives_each_once() {
    let Some(source) = program::find("smtp-source") else {
        return skip::note("smtp-source", "smtp-source is not installed");
    };
    let site = Site::start(Setup::new());
    program::run(
        Command::new(source)
            .args(["-s", "10", "-m", "200", "-l", "2048", "-f", "a@client.test"])
            .args(["-t", &format!("b@{LOCAL_DOMAIN}"), &site.address().to_string()]),
        b"",
    )
    .ok();

    site.await_dropped(200);
    site.await_empty_queue();
    assert_eq!(site.dropped("default").len(), 200);
}

#[test]
fn what_exim_sends_arrives_unchanged() {
    let site = Site::start(Setup::new());
    let Some(exim) = Exim::relaying_to(site.address()) else {
        return skip::note("Exim as sender", exim::ABSENT);
    };
    let sent = tagged("exim");
    let finished =
        exim.send("a@client.test", &format!("b@{LOCAL_DOMAIN}"), &with_bare_line_ends(&sent));
    assert_eq!(finished.code, 0, "{finished}\n{}", exim.log());

    let dropped = site.await_dropped(1);

    assert_eq!(dropped[0].fields("X-Tag"), ["exim"]);
    assert_eq!(dropped[0].body(), mailroot_tests::message::body(&sent));
    assert_eq!(dropped[0].fields("Return-Path"), ["<a@client.test>"]);
}

#[test]
fn what_msmtp_sends_arrives_unchanged() {
    let Some(msmtp) = program::find("msmtp") else {
        return skip::note("msmtp", "msmtp is not installed");
    };
    let site = Site::start(Setup::new());
    let sent = awkward("msmtp");
    program::run(
        Command::new(msmtp)
            .args(["--file=/dev/null", "--host=127.0.0.1", "--tls=off", "--auth=off"])
            .arg(format!("--port={}", site.address().port()))
            .args(["--from=a@client.test", &format!("b@{LOCAL_DOMAIN}")]),
        &with_bare_line_ends(&sent),
    )
    .ok();

    assert!(holds(&site.await_dropped(1)[0].octets, &sent));
}

#[test]
fn what_pythons_smtplib_sends_arrives_unchanged() {
    let Some(python) = program::find("python3") else {
        return skip::note("Python", "python3 is not installed");
    };
    let site = Site::start(Setup::new());
    let sent = awkward("python");
    let script = "import smtplib, sys\n\
        host, port, to = sys.argv[1], int(sys.argv[2]), sys.argv[3]\n\
        with smtplib.SMTP(host, port) as smtp:\n    \
            smtp.sendmail('a@client.test', [to], sys.stdin.buffer.read(), ['BODY=8BITMIME'])\n";
    program::run(
        Command::new(python)
            .args(["-c", script, "127.0.0.1", &site.address().port().to_string()])
            .arg(format!("b@{LOCAL_DOMAIN}")),
        &sent,
    )
    .ok();

    assert!(holds(&site.await_dropped(1)[0].octets, &sent));
}

#[test]
fn what_nodemailer_sends_arrives_unchanged() {
    let site = Site::start(Setup::new());
    let sent = tagged("nodemailer");
    let to = format!("b@{LOCAL_DOMAIN}");
    match nodemailer::send(site.address(), &to, &["clear"], "", &sent) {
        Some(done) => drop(done.ok()),
        None => return skip::note("nodemailer", nodemailer::ABSENT),
    }

    assert!(holds(&site.await_dropped(1)[0].octets, &sent));
}

#[test]
fn a_pickup_file_reaches_postfix_with_its_bcc_gone() {
    let Some(postfix) = Postfix::start(ports::local(), None, &[]) else {
        return skip::note("Postfix as receiver", postfix::ABSENT);
    };
    let site = Site::start(Setup::new().smart_host(postfix.address()));
    let staged = site.home().join("p.eml");
    let text = "From: app@client.test\r\nTo: a@example.com\r\nBcc: b@example.org\r\nSubject: p\r\n\r\nx\r\n";
    fs::write(&staged, text).unwrap();
    fs::rename(&staged, site.spool("default", "Pickup").join("p.eml")).unwrap();

    let delivered = postfix.await_delivered(2);

    for stored in &delivered {
        assert!(stored.fields("Bcc").is_empty(), "{}", stored.text());
        assert_eq!(stored.fields("Subject"), ["p"]);
    }
}
