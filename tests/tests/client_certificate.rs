//! A smart host that knows us by a certificate: a real Postfix that asks for one.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::message::tagged;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip, wait};

fn send(site: &Site, word: &str) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@local.test", &["b@example.com"], &tagged(word)).unwrap();
    assert_eq!(sent.code, 250);
}

fn await_reason(site: &Site, part: &str) {
    wait::until(&format!("mail that waits because of {part:?}"), || {
        let waiting = site.control().json(&["queue", "list"]);
        waiting[0]["reason"].as_str().is_some_and(|reason| reason.contains(part)).then_some(())
    });
}

#[test]
fn a_host_knows_us_by_our_certificate() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let (host, client) =
        (authority.sign("postfix.test", Valid::Now), ours.sign("relay.test", Valid::Now));
    let stranger = authority.sign("relay.test", Valid::Now);
    let settings = [
        format!("smtpd_tls_chain_files = {}", host.path().display()),
        "smtpd_tls_security_level = encrypt".to_owned(),
        "smtpd_tls_req_ccert = yes".to_owned(),
        format!("smtpd_tls_CAfile = {}", ours.file().display()),
        "smtpd_tls_received_header = yes".to_owned(),
        "tls_random_source = dev:/dev/urandom".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let address = ports::local();
    let Some(postfix) = Postfix::start(address, None, &settings) else {
        return skip::note("Postfix that asks for a certificate", postfix::ABSENT);
    };
    let site = Site::start(Setup::new());
    let at = format!("[{}]:{}", address.ip(), address.port());
    let set = ["smarthost", "set", &at, "--name", "hub", "--tls", "required"];
    let _set = site.ctl(&set).ok();
    send(&site, "without");
    await_reason(&site, "");

    let secrets = site.home().join("etc/secrets.d");
    let _made = fs::create_dir_all(&secrets);
    let place = secrets.join("hub-certificate");
    let keep = |pem: &str| {
        fs::write(&place, pem).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    };
    let key = "smart_hosts.hub.certificate={file: hub-certificate}";
    let _set = site.ctl(&["config", "set", key]).ok();
    let tested = |words: &str| {
        let tested = site.ctl(&["smarthost", "test", "hub"]).exited(10).out;
        assert!(tested.contains(words), "{words}: {tested}");
    };
    tested("cannot read the secret");
    keep("no certificate");
    tested("it has no certificate");
    let whole = fs::read_to_string(client.path()).unwrap();
    let begin = whole.find("-----BEGIN CERTIFICATE").unwrap();
    keep(&whole[begin..]);
    tested("it has no key beside it");
    keep(&fs::read_to_string(stranger.path()).unwrap());
    let _refused = site.ctl(&["smarthost", "test", "hub"]).exited(10);
    assert!(postfix.delivered().is_empty());

    keep(&whole);
    let tested = site.ctl(&["smarthost", "test", "hub"]).ok();
    assert!(tested.contains("TLSv1.3"), "{tested}");
    let _tried = site.ctl(&["queue", "retry", "--all", "--yes"]).ok();
    let delivered = postfix.await_delivered(1);
    let text = delivered[0].text();
    assert!(text.contains("Client CN") || text.contains("verified OK"), "{text}");
    let bad = site.ctl(&["config", "set", "smart_hosts.hub.tls=optional"]).exited(6);
    assert!(bad.err.contains("E0440"), "{bad}");
}
