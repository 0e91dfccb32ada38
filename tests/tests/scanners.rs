//! Scanners of the distribution as milters: Rspamd with a configuration of a few lines, ClamAV with one signature
//! of its own, so that nothing has to be downloaded.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use mailroot_tests::milter::Milter;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip};
use tempfile::TempDir;

/// What tests of spam filters look for, in two parts so that this file is no spam.
const GTUBE: [&str; 2] =
    ["XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"];
/// The same for virus scanners.
const EICAR: [&str; 2] =
    ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!$H+H*"];

fn home(name: &str) -> TempDir {
    tempfile::Builder::new().prefix(&format!("mailroot-{name}-")).tempdir().unwrap()
}

fn rspamd() -> Option<Milter> {
    let Some(rspamd) = program::find("rspamd") else {
        skip::note("Rspamd as a milter", "rspamd is not installed");
        return None;
    };
    let (home, address) = (home("rspamd"), ports::local());
    let at = home.path().display();
    fs::write(home.path().join("tld"), "test\n").unwrap();
    let text = format!(
        "options {{ filters = \"\"; url_tld = \"{at}/tld\"; disable_hyperscan = true;\n\
         dns {{ nameserver = [\"127.0.0.1:1\"]; timeout = 0.1s; retransmits = 1; }} }}\n\
         logging {{ type = \"console\"; level = \"info\"; }}\n\
         actions {{ reject = 15; add_header = 6; }}\n\
         worker \"rspamd_proxy\" {{ bind_socket = \"{address}\"; milter = yes; count = 1; timeout = 120s;\n\
         upstream \"local\" {{ default = yes; self_scan = yes; }} }}\n"
    );
    let config = home.path().join("rspamd.conf");
    fs::write(&config, text).unwrap();
    let mut command = Command::new(rspamd);
    command.args(["-f", "-i", "-c"]).arg(&config);
    for name in ["DBDIR", "RUNDIR", "LOGDIR"] {
        command.arg(format!("--var={name}={at}"));
    }
    Some(Milter::run(command, address, home))
}

/// The scanner, and the milter that asks it.
fn clamav() -> Option<(Milter, Milter)> {
    let (Some(clamd), Some(asks)) = (program::find("clamd"), program::find("clamav-milter")) else {
        skip::note("ClamAV as a milter", "clamav-daemon or clamav-milter is not installed");
        return None;
    };
    let (kept, scanner) = (home("clamd"), ports::local());
    let database = kept.path().join("db");
    fs::create_dir(&database).unwrap();
    let octets = EICAR.concat();
    let hex: String = octets.bytes().map(|octet| format!("{octet:02x}")).collect();
    fs::write(database.join("own.ndb"), format!("Own.Eicar:0:*:{hex}\n")).unwrap();
    let config = kept.path().join("clamd.conf");
    let text = format!(
        "TCPAddr {}\nTCPSocket {}\nDatabaseDirectory {}\nForeground yes\n",
        scanner.ip(),
        scanner.port(),
        database.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(clamd);
    command.arg("-c").arg(&config);
    let scans = Milter::run(command, scanner, kept);
    let (kept, address) = (home("clamav-milter"), ports::local());
    let config = kept.path().join("milter.conf");
    let text = format!(
        "MilterSocket inet:{}@{}\nClamdSocket tcp:{scanner}\nOnInfected Reject\nOnFail Defer\n\
         RejectMsg found %v\nAddHeader Add\nForeground yes\n",
        address.port(),
        address.ip()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(asks);
    command.arg("-c").arg(&config);
    Some((scans, Milter::run(command, address, kept)))
}

fn entry(address: SocketAddr, on_failure: &str) -> String {
    format!("messages.milters=[{{address: \"inet:{address}\", on_failure: {on_failure}}}]")
}

fn site(milter: &Milter) -> Site {
    let site = Site::start(Setup::new());
    site.ctl(&["server", "set", "default", &entry(milter.address(), "defer")]).ok();
    site
}

/// What is said to a message with this body.
fn send(site: &Site, body: &str) -> (u16, String) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let octets = format!(
        "From: a@client.test\r\nTo: b@local.test\r\nSubject: x\r\nMessage-ID: <1@client.test>\r\n\
         Date: Mon, 30 Nov 2026 12:00:00 +0000\r\n\r\n{body}\r\n"
    );
    let said = talk.message("a@client.test", &["b@local.test"], octets.as_bytes()).unwrap();
    (said.code, said.to_string())
}

/// Mail waits without the milter, and goes on where that is what its entry says.
fn without(site: &Site, milter: Milter) {
    let address = milter.address();
    drop(milter);
    let (code, text) = send(site, "nobody looks at this");
    assert_eq!(code, 451, "{text}");
    site.logged(&["event=milter-failed", "then=defer"]);
    let before = site.dropped("default").len();
    site.ctl(&["server", "set", "default", &entry(address, "accept")]).ok();
    assert_eq!(send(site, "nobody looks at this").0, 250);
    site.await_dropped(before + 1);
    site.logged(&["event=milter-failed", "then=accept"]);
}

#[test]
fn rspamd_refuses_spam_and_passes_other_mail() {
    let Some(milter) = rspamd() else { return };
    let site = site(&milter);
    let (code, text) = send(&site, &GTUBE.concat());
    assert_eq!(code, 554, "{text}");
    assert!(text.contains("5.7.1"), "{text}");
    for body in ["good mail".to_owned(), "a good line of mail\r\n".repeat(50_000)] {
        let (code, text) = send(&site, &body);
        assert_eq!(code, 250, "{text}");
    }
    assert_eq!(site.await_dropped(2).len(), 2);
    site.logged(&["event=reject", "reason=filter-refused", "stage=end"]);
    without(&site, milter);
}

#[test]
fn clamav_refuses_a_virus_and_marks_what_is_clean() {
    let Some((scanner, milter)) = clamav() else { return };
    let site = site(&milter);
    let (code, text) = send(&site, &EICAR.concat());
    assert_eq!(code, 550, "{text}");
    assert!(text.contains("found Own.Eicar"), "{text}");
    let large = "a good line of mail\r\n".repeat(50_000);
    let (code, text) = send(&site, &format!("{large}{}\r\n", EICAR.concat()));
    assert_eq!(code, 550, "{text}");
    for body in ["good mail", &large] {
        assert_eq!(send(&site, body).0, 250);
    }
    for stored in site.await_dropped(2) {
        let marked = stored.fields("X-Virus-Status");
        assert!(marked.len() == 1 && marked[0].contains("Clean"), "{marked:?}");
    }
    // The milter is there and its scanner is not: it says itself that mail is to wait.
    drop(scanner);
    let (code, text) = send(&site, "nobody looks at this");
    assert_eq!(code, 451, "{text}");
    without(&site, milter);
}
