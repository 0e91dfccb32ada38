//! Reports about TLS (RFC 8460): what connections came to is told to domains that want it, by mail and to
//! the web.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::{Arc, Mutex};

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::message::{fields, tagged};
use mailroot_tests::peer::{Peer, Received};
use mailroot_tests::policy_host::{self, PolicyHost};
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};
use serde_json::{Value, json};

fn send(site: &Site, to: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@local.test", &[to], &tagged("told")).unwrap();
    assert_eq!(sent.code, 250);
}

fn reporting(setup: Setup) -> Setup {
    setup
        .service("tls.reports.enabled", "true")
        .service("tls.reports.contact", "tls@local.test")
        .service("tls.reports.organization", "Local Ltd")
        .key("delivery.connections.reuse", "never")
}

fn reports(site: &Site) -> Value {
    site.control().json(&["tls", "report", "list"])
}

fn await_reports(site: &Site, wanted: &Value) {
    wait::until(&format!("reports such as {wanted}"), || {
        let reports = reports(site);
        let facts =
            |it: &Value| json!([it["domain"], it["state"], it["successes"], it["failures"]]);
        let found: Vec<Value> = reports.as_array().unwrap().iter().map(facts).collect();
        (json!(found) == *wanted).then_some(())
    });
}

/// The report in a packed file.
fn unpack(packed: &[u8]) -> Value {
    let text = program::run(Command::new("gzip").arg("-dc"), packed).ok();
    serde_json::from_str(&text).unwrap()
}

/// The packed report in a message.
fn attachment(octets: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(octets).into_owned();
    let part = text.split("application/tlsrpt+gzip").nth(1).unwrap();
    let digits = part.split("\r\n\r\n").nth(1).unwrap();
    let digits: String = digits.split_whitespace().collect();
    Command::new("base64").arg("-d").output_of(digits.as_bytes())
}

trait OutputOf {
    fn output_of(&mut self, input: &[u8]) -> Vec<u8>;
}

impl OutputOf for Command {
    fn output_of(&mut self, input: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        use std::process::Stdio;
        let mut child = self.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success());
        done.stdout
    }
}

fn of_reports(received: &[Received]) -> Vec<&Received> {
    received.iter().filter(|it| it.sender() == "tls@local.test").collect()
}

#[test]
fn a_domain_that_asks_for_reports_gets_one_by_mail_and_it_causes_no_other() {
    let address = ports::host(201, ports::free());
    let peer = Peer::accepting(address);
    let records = [
        "told.test. 60 IN MX 10 mx.told.test.".to_owned(),
        format!("mx.told.test. 60 IN A {}", address.ip()),
        "_smtp._tls.told.test. 60 IN TXT \"v=TLSRPTv1; rua=mailto:tls@told.test\"".to_owned(),
        "silent.test. 60 IN MX 10 mx.told.test.".to_owned(),
    ];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let Some(dns) = Dns::serve(&records) else {
        return skip::note("reports about TLS", "unbound is not installed");
    };
    let site = Site::start(reporting(Setup::new().dns(dns.address(), address.port())));
    site.ctl(&["dkim", "create", "local.test", "--selector", "told", "--type", "ed25519"]).ok();
    assert_eq!(reports(&site), json!([]));
    send(&site, "b@told.test");
    send(&site, "b@silent.test");
    peer.await_received(2);
    let counted = json!([["silent.test", "counting", 0, 1], ["told.test", "counting", 0, 1]]);
    await_reports(&site, &counted);

    // Over the end of the daemon.
    site.stop();
    site.launch_again();
    await_reports(&site, &counted);
    send(&site, "b@told.test");
    peer.await_received(3);
    await_reports(
        &site,
        &json!([["silent.test", "counting", 0, 1], ["told.test", "counting", 0, 2]]),
    );
    let shown = site.control().json(&["tls", "report", "show", "told.test"]);
    assert_eq!(shown[0]["policies"][0]["policy"]["policy-type"], "no-policy-found");
    site.ctl(&["tls", "report", "show", "elsewhere.test"]).exited(3);

    site.ctl(&["tls", "report", "send"]).ok();
    let received = peer.await_received(4);
    let of_reports = of_reports(&received);
    assert_eq!(of_reports.len(), 1);
    let mail = of_reports[0];
    assert_eq!(mail.recipients(), ["tls@told.test"]);
    assert_eq!(fields(&mail.octets, "TLS-Required"), ["No"]);
    assert_eq!(fields(&mail.octets, "TLS-Report-Domain"), ["told.test"]);
    assert_eq!(fields(&mail.octets, "DKIM-Signature").len(), 1);
    let kind = &fields(&mail.octets, "Content-Type")[0];
    assert!(kind.contains("multipart/report") && kind.contains("report-type=\"tlsrpt\""), "{kind}");
    let report = unpack(&attachment(&mail.octets));
    assert_eq!(report["organization-name"], "Local Ltd");
    assert_eq!(report["contact-info"], "tls@local.test");
    let policy = &report["policies"][0];
    assert_eq!(policy["policy"]["policy-domain"], "told.test");
    let summary = json!({"total-successful-session-count": 0, "total-failure-session-count": 2});
    assert_eq!(policy["summary"], summary);
    let details = &policy["failure-details"][0];
    assert_eq!(details["result-type"], "starttls-not-supported");
    assert_eq!(details["receiving-mx-hostname"], "mx.told.test");
    assert_eq!(details["receiving-ip"], address.ip().to_string());
    assert_eq!(details["failed-session-count"], 2);
    site.logged(&["tls-report", "domain=told.test", "failures=2", "mailto:tls@told.test"]);
    site.await_empty_queue();
    // Who wants none gets none, and the report has itself not counted.
    assert_eq!(reports(&site), json!([]));
    assert_eq!(peer.received().len(), 4);
}

/// Postfix with the certificate of another host: the policy on trial lets it have the mail.
fn lax_postfix(authority: &Authority, address: SocketAddr) -> Option<Postfix> {
    let identity = authority.sign("mx.elsewhere.test", Valid::Now);
    let chain = format!("smtpd_tls_chain_files = {}", identity.path().display());
    let settings = [
        chain.as_str(),
        "smtpd_tls_security_level = may",
        "tls_random_source = dev:/dev/urandom",
        "virtual_mailbox_domains = sts.test",
    ];
    let started = Postfix::start(address, None, &settings);
    if started.is_none() {
        skip::note("reports about TLS", postfix::ABSENT);
    }
    started
}

#[test]
fn what_would_fail_under_a_policy_is_told_to_the_web_with_its_kind() {
    let authority = Authority::new();
    let identity = authority.sign("mta-sts.sts.test", Valid::Now);
    let testing = "version: STSv1\nmode: testing\nmx: mx.sts.test\nmax_age: 86400\n";
    let Some(web) = PolicyHost::start(202, identity.path(), testing) else {
        return skip::note("reports about TLS", policy_host::ABSENT);
    };
    let address = ports::host(203, ports::free());
    let records = [
        "sts.test. 60 IN MX 10 mx.sts.test.".to_owned(),
        format!("mx.sts.test. 60 IN A {}", address.ip()),
        format!("mta-sts.sts.test. 60 IN A {}", web.address().ip()),
        "_mta-sts.sts.test. 60 IN TXT \"v=STSv1; id=1;\"".to_owned(),
        "_smtp._tls.sts.test. 60 IN TXT \"v=TLSRPTv1; rua=https://mta-sts.sts.test/told\""
            .to_owned(),
    ];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let Some(dns) = Dns::serve(&records) else {
        return skip::note("reports about TLS", "unbound is not installed");
    };
    let setup = Setup::new().dns(dns.address(), address.port());
    let setup = setup.service("tls.trust", &authority.file().display().to_string());
    let Some(postfix) = lax_postfix(&authority, address) else { return };
    let site = Site::start(reporting(setup));
    send(&site, "b@sts.test");
    postfix.await_delivered(1);
    await_reports(&site, &json!([["sts.test", "counting", 0, 1]]));
    site.ctl(&["tls", "report", "send", "sts.test"]).ok();
    let posted = wait::until("a report on the web", || {
        let posted = web.posted();
        (!posted.is_empty()).then_some(posted)
    });
    let report = unpack(&posted[0]);
    let policy = &report["policies"][0];
    assert_eq!(policy["policy"]["policy-type"], "sts");
    assert_eq!(policy["policy"]["policy-string"][1], "mode: testing");
    assert_eq!(policy["policy"]["mx-host"], json!(["mx.sts.test"]));
    assert_eq!(policy["failure-details"][0]["result-type"], "certificate-host-mismatch");
    let asked = web.requests();
    assert!(
        asked.contains(&"mta-sts.sts.test /told application/tlsrpt+gzip".to_owned()),
        "{asked:?}"
    );
    site.logged(&["tls-report", "domain=sts.test", "https://mta-sts.sts.test/told"]);
    assert_eq!(reports(&site), json!([]));
}

#[test]
fn a_destination_that_says_nothing_holds_up_no_other_report() {
    let authority = Authority::new();
    let identity = authority.sign("web.slow.test", Valid::Now);
    let Some(web) = PolicyHost::start(205, identity.path(), "") else {
        return skip::note("reports about TLS", policy_host::ABSENT);
    };
    let address = ports::host(206, ports::free());
    let peer = Peer::accepting(address);
    let ways: Vec<String> = (1..=4).map(|n| format!("https://web.slow.test/{n}")).collect();
    let records = [
        "a-slow.test. 60 IN MX 10 mx.told.test.".to_owned(),
        format!("_smtp._tls.a-slow.test. 60 IN TXT \"v=TLSRPTv1; rua={}\"", ways.join(",")),
        "told.test. 60 IN MX 10 mx.told.test.".to_owned(),
        "_smtp._tls.told.test. 60 IN TXT \"v=TLSRPTv1; rua=mailto:tls@told.test\"".to_owned(),
        format!("mx.told.test. 60 IN A {}", address.ip()),
        format!("web.slow.test. 60 IN A {}", web.address().ip()),
    ];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let Some(dns) = Dns::serve(&records) else {
        return skip::note("reports about TLS", "unbound is not installed");
    };
    let setup = Setup::new().dns(dns.address(), address.port());
    let setup = setup.service("tls.trust", &authority.file().display().to_string());
    let site = Site::start(reporting(setup));
    web.answer(&json!({"silent": true, "body": ""}));
    send(&site, "b@a-slow.test");
    send(&site, "b@told.test");
    peer.await_received(2);
    site.await_empty_queue();
    site.ctl(&["tls", "report", "send"]).ok();
    let received = peer.await_received(3);
    assert_eq!(of_reports(&received)[0].recipients(), ["tls@told.test"]);
    await_reports(&site, &json!([["a-slow.test", "due", 0, 1]]));
}

#[test]
fn a_report_goes_where_the_domain_said_at_first() {
    let authority = Authority::new();
    let identity = authority.sign("web.told.test", Valid::Now);
    let Some(web) = PolicyHost::start(208, identity.path(), "") else {
        return skip::note("reports about TLS", policy_host::ABSENT);
    };
    let address = ports::host(209, ports::free());
    let peer = Peer::accepting(address);
    let records = [
        "told.test. 60 IN MX 10 mx.told.test.".to_owned(),
        format!("mx.told.test. 60 IN A {}", address.ip()),
        format!("web.told.test. 60 IN A {}", web.address().ip()),
        "_smtp._tls.told.test. 60 IN TXT \"v=TLSRPTv1; rua=https://web.told.test/x\"".to_owned(),
    ];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let (Some(dns), Some(bare)) = (Dns::serve(&records), Dns::serve(&records[..3])) else {
        return skip::note("reports about TLS", "unbound is not installed");
    };
    let setup = Setup::new().dns(dns.address(), address.port());
    let setup = setup.service("tls.trust", &authority.file().display().to_string());
    let site = Site::start(reporting(setup));
    web.answer(&json!({"post": 500, "body": ""}));
    send(&site, "b@told.test");
    peer.await_received(1);
    site.await_empty_queue();
    site.ctl(&["tls", "report", "send"]).ok();
    site.logged(&["tls-report-failed", "domain=told.test", "then=later", "answers 500"]);
    site.stop();
    // What it says meanwhile, and that it says nothing, counts for the next report.
    web.answer(&json!({"body": ""}));
    site.configure(site.setup().dns(bare.address(), address.port()));
    site.launch_again();
    site.ctl(&["tls", "report", "send"]).ok();
    site.logged(&["event=tls-report", "domain=told.test", "to=\"https://web.told.test/x\""]);
    assert_eq!(web.posted().len(), 2);
    assert_eq!(reports(&site), json!([]));
}

#[test]
fn a_handshake_that_ends_with_the_server_is_no_failure_and_no_reason_to_send_in_clear_text() {
    let address = ports::host(207, ports::free());
    let records = [
        "told.test. 60 IN MX 10 mx.told.test.".to_owned(),
        format!("mx.told.test. 60 IN A {}", address.ip()),
    ];
    let Some(dns) = Dns::serve(&[&records[0], &records[1]]) else {
        return skip::note("reports about TLS", "unbound is not installed");
    };
    let heard = stuck_in_tls(address);
    let site = Site::start(reporting(Setup::new().dns(dns.address(), address.port())));
    send(&site, "b@told.test");
    wait::until("STARTTLS", || {
        heard.lock().unwrap().iter().any(|line| line.starts_with("STARTTLS")).then_some(())
    });
    site.stop();
    let lines = heard.lock().unwrap().clone();
    assert_eq!(lines.iter().filter(|line| *line == "connected").count(), 1, "{lines:?}");
    site.launch_again();
    assert_eq!(reports(&site), json!([]));
    assert!(!site.log().contains("event=tls-failed"), "{}", site.log());
}

/// A host that offers STARTTLS and never ends a handshake; what it hears.
fn stuck_in_tls(address: SocketAddr) -> Arc<Mutex<Vec<String>>> {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (listener, hearing) = (TcpListener::bind(address).unwrap(), Arc::clone(&heard));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, heard) = (stream.unwrap(), Arc::clone(&hearing));
            std::thread::spawn(move || {
                heard.lock().unwrap().push("connected".to_owned());
                // A client that vanishes is what this is about.
                let _gone = stream.write_all(b"220 stuck.test\r\n");
                for line in BufReader::new(stream.try_clone().unwrap()).split(b'\n') {
                    let Ok(line) = line else { return };
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    heard.lock().unwrap().push(line.clone());
                    let reply = match line.split(' ').next() {
                        Some("EHLO") => "250-stuck.test\r\n250 STARTTLS\r\n",
                        Some("STARTTLS") => "220 go on\r\n",
                        _ => continue,
                    };
                    let _gone = stream.write_all(reply.as_bytes());
                }
            });
        }
    });
    heard
}

#[test]
fn reports_need_somebody_who_answers_for_them_and_none_are_counted_where_they_are_off() {
    let address = ports::host(204, ports::free());
    let peer = Peer::accepting(address);
    let records = [
        "told.test. 60 IN MX 10 mx.told.test.".to_owned(),
        format!("mx.told.test. 60 IN A {}", address.ip()),
    ];
    let Some(dns) = Dns::serve(&[&records[0], &records[1]]) else {
        return skip::note("reports about TLS", "unbound is not installed");
    };
    let site = Site::start(Setup::new().dns(dns.address(), address.port()));
    let refused = site.ctl(&["config", "set", "tls.reports.enabled=true"]).exited(6).err;
    assert!(refused.contains("tls.reports.contact is missing"), "{refused}");
    let refused = site.ctl(&["tls", "report", "send"]).exited(7).err;
    assert!(refused.contains("tls.reports is not enabled"), "{refused}");
    send(&site, "b@told.test");
    peer.await_received(1);
    site.await_empty_queue();
    assert_eq!(reports(&site), json!([]));
    assert!(!site.home().join("state/tls-reports").exists());
}
