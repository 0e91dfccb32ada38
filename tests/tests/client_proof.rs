//! What clients prove by certificates: real clients relay and log in by them, and what is not good counts
//! as nothing, or ends the handshake where one is required.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use mailroot_tests::certificates::{Authority, Identity, Valid};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::program::{self, Finished};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, swaks};

/// A server that lets nobody relay for his address, before `peer`.
fn setup(peer: &Peer) -> Setup {
    Setup::new()
        .smart_host(peer.address())
        .key("access.relay.list", "[]")
        .key("access.auth_failures.delay", "0s")
}

fn trusting(setup: Setup, issuers: &Path) -> Setup {
    setup
        .key("access.certificates.mode", "request")
        .key("access.certificates.trust", &issuers.display().to_string())
}

/// What swaks says that shows a certificate, or none.
fn swaks_with(site: &Site, shown: Option<&Identity>, more: &[&str]) -> Finished {
    let path = shown.map(|it| it.path().to_str().unwrap());
    let own = path.map(|path| vec!["--tls-cert", path, "--tls-key", path]).unwrap_or_default();
    swaks::send(site, &[&["--tls"], &*own, more].concat())
}

/// What `openssl s_client` and the server say; the session asks to relay.
fn openssl(site: &Site, shown: Option<&Identity>, more: &[&str]) -> String {
    let mut command = Command::new("openssl");
    let server = site.address().to_string();
    command.args([
        "s_client",
        "-quiet",
        "-crlf",
        "-ign_eof",
        "-starttls",
        "smtp",
        "-connect",
        &server,
    ]);
    if let Some(shown) = shown {
        command.arg("-cert").arg(shown.path()).arg("-key").arg(shown.path());
    }
    let typed = "EHLO a.test\nMAIL FROM:<a@client.test>\nRCPT TO:<b@far.test>\nQUIT\n";
    let done = program::run(command.args(more), typed.as_bytes());
    format!("{}{}", done.out, done.err)
}

#[test]
fn only_a_good_certificate_lets_a_client_relay() {
    let peer = Peer::accepting(ports::local());
    let (ours, other) = (Authority::new(), Authority::new());
    let good = ours.sign_client("ada@corp.test", Valid::Now);
    let old = ours.sign_client("old@corp.test", Valid::Before);
    let foreign = other.sign_client("ada@corp.test", Valid::Now);
    let setup = trusting(setup(&peer), &ours.file()).key("access.relay.certificates", "trusted");
    let site = Site::start(setup);
    for version in ["-tls1_3", "-tls1_2"] {
        for (shown, code) in
            [(None, "550"), (Some(&old), "550"), (Some(&foreign), "550"), (Some(&good), "250")]
        {
            let said = openssl(&site, shown, &[version]);
            let answer = said.lines().find(|line| line.contains("<b@far.test>"));
            assert!(answer.is_some_and(|it| it.starts_with(code)), "{version} {shown:?}: {said}");
        }
    }
    site.logged(&["event=client-certificate", "standing=not-good", "has expired"]);
    site.logged(&["event=client-certificate", "standing=not-good", "nobody trusted vouches"]);
    let told =
        site.logged(&["event=client-certificate", "standing=trusted", "client ada@corp.test"]);
    let print = good.fingerprint().replace(':', "").to_lowercase();
    assert!(told.contains(&format!("cert={print} ")), "{told}");

    swaks_with(&site, Some(&good), &[]).ok();
    assert_ne!(swaks_with(&site, Some(&foreign), &[]).code, 0);
    peer.await_received(1);
    // Who speaks for others shows its own certificate, and not theirs.
    site.ctl(&["server", "set", "default", "access.xclient_from=127.0.0.1"]).ok();
    let told = ["--xclient", "ADDR=198.51.100.7", "--xclient-before-starttls"];
    let said = swaks_with(&site, Some(&good), &told);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.out.contains("<~* 550 5.7.1 <b@far.test>"), "{said:?}");
    assert!(said.out.contains("TLS started"), "{said:?}");
    swaks_with(&site, Some(&good), &[]).ok();
    site.logged(&["event=received", &format!("cert={print}")]);
    let told = site.ctl(&["trace", "--last", "1"]).ok();
    assert!(told.contains(&print) && told.contains("certificate trusted"), "{told}");

    // Mail for our own domains comes from anybody, whatever he shows.
    let own = ["--to", "b@local.test"];
    swaks_with(&site, Some(&foreign), &own).ok();
    swaks_with(&site, Some(&old), &own).ok();

    // Other issuers in the file count from the next client on; without them a list is enough.
    fs::copy(other.file(), ours.file()).unwrap();
    assert_ne!(swaks_with(&site, Some(&good), &[]).code, 0);
    swaks_with(&site, Some(&foreign), &[]).ok();
    fs::remove_file(ours.file()).unwrap();
    assert_ne!(swaks_with(&site, Some(&foreign), &[]).code, 0);
    let checked = site.ctl(&["config", "check"]);
    assert!(format!("{}{}", checked.out, checked.err).contains("W0475"), "{checked}");
    assert!(site.ctl(&["doctor", "tls"]).out.contains("access.certificates.trust"));
}

#[test]
fn a_certificate_that_its_issuer_has_revoked_proves_nothing() {
    let peer = Peer::accepting(ports::local());
    let (ours, other) = (Authority::new(), Authority::called("another"));
    let [good, bad] =
        ["ada@corp.test", "eve@corp.test"].map(|email| ours.sign_client(email, Valid::Now));
    let foreign = other.sign_client("bob@corp.test", Valid::Now);
    let both = [ours.file(), other.file()].map(|file| fs::read_to_string(file).unwrap());
    fs::write(ours.file(), both.concat()).unwrap();
    let list = ours.revoke(&[&bad], Valid::Now);
    let setup = trusting(setup(&peer), &ours.file())
        .key("access.relay.certificates", "trusted")
        .key("access.certificates.crl", &format!("[\"{}\"]", list.display()));
    let site = Site::start(setup);
    let relays = |shown: &Identity| {
        let said = openssl(&site, Some(shown), &[]);
        let answer = said.lines().find(|line| line.contains("<b@far.test>"));
        answer.unwrap_or_else(|| panic!("{said}")).starts_with("250")
    };
    assert!(relays(&good) && !relays(&bad));
    assert!(relays(&foreign), "where an issuer has no list nothing of it is revoked");
    let why = "was revoked by its issuer";
    site.logged(&["event=client-certificate", "standing=not-good", "client eve@corp.test", why]);
    let said = |words: &[&str]| {
        let done = site.ctl(words);
        format!("{}{}", done.out, done.err)
    };
    assert!(!said(&["config", "check"]).contains("W047"));

    // Another list counts from the next client on, in either form; without one nobody is trusted.
    let _list = ours.revoke(&[&bad, &good], Valid::Now);
    assert!(!relays(&good) && relays(&foreign));
    let _list = ours.revoke(&[&bad], Valid::Now);
    let mut to_der = Command::new("openssl");
    to_der.args(["crl", "-outform", "DER", "-in"]).arg(&list).arg("-out").arg(&list);
    program::run(&mut to_der, b"").ok();
    assert!(!fs::read(&list).unwrap().starts_with(b"-----"));
    assert!(relays(&good) && !relays(&bad));
    fs::write(&list, "no list").unwrap();
    assert!(!relays(&good) && !relays(&foreign));
    let checked = said(&["config", "check"]);
    assert!(checked.contains("W0475") && checked.contains("no list of revoked"), "{checked}");

    // One that somebody else has signed is none of its issuer.
    fs::copy(Authority::new().revoke(&[], Valid::Now), &list).unwrap();
    assert!(!relays(&good));
    site.logged(&["standing=not-good", "list of revoked certificates is not good"]);

    let _list = ours.revoke(&[&bad], Valid::Before);
    assert!(!relays(&good) && !relays(&bad) && relays(&foreign));
    site.logged(&["standing=not-good", "list of revoked certificates has expired"]);
    for words in [["config", "check"], ["doctor", "tls"]] {
        let told = said(&words);
        assert!(told.contains("crl.pem has expired (2021-01-01"), "{told}");
    }
    assert!(said(&["config", "check"]).contains("W0477"));
    site.ctl(&["server", "set", "default", "access.certificates.crl_expired=accept"]).ok();
    assert!(relays(&good) && !relays(&bad));
    let change = |verb: &str, key: &str, code: &str| {
        let refused = site.ctl(&["server", verb, "default", &format!("access.certificates.{key}")]);
        assert!(refused.exited(6).err.contains(code), "{key}");
    };
    change("set", "mode=off", "E0385");
    change("unset", "trust", "E0378");
}

#[test]
fn without_a_good_certificate_no_handshake_succeeds_where_one_is_required() {
    let peer = Peer::accepting(ports::local());
    let (ours, other) = (Authority::new(), Authority::new());
    let good = ours.sign_client("ada@corp.test", Valid::Now);
    let old = ours.sign_client("old@corp.test", Valid::Before);
    let foreign = other.sign_client("ada@corp.test", Valid::Now);
    let setup = trusting(setup(&peer), &ours.file())
        .key("access.tls.mode", "required")
        .key("access.certificates.mode", "require")
        .key("access.relay.certificates", "trusted");
    let site = Site::start(setup);
    for (shown, why) in [
        (None, "showed no certificate"),
        (Some(&old), "has expired"),
        (Some(&foreign), "nobody trusted vouches"),
    ] {
        for version in ["-tls1_3", "-tls1_2"] {
            let said = openssl(&site, shown, &[version]);
            assert!(!said.contains("250 2.1"), "{shown:?}: {said}");
        }
        site.logged(&["event=tls-failed", why]);
    }
    assert!(!site.log().contains("event=client-certificate"));
    for version in ["-tls1_3", "-tls1_2"] {
        assert!(openssl(&site, Some(&good), &[version]).contains("250 2.1.5 <b@far.test>"));
    }
    swaks_with(&site, Some(&good), &[]).ok();
    assert_ne!(swaks_with(&site, Some(&foreign), &["--to", "b@local.test"]).code, 0);
}

#[test]
fn keys_of_an_earlier_session_prove_no_more_than_they_did() {
    let peer = Peer::accepting(ports::local());
    let ours = Authority::new();
    let good = ours.sign_client("ada@corp.test", Valid::Now);
    let setup = trusting(setup(&peer), &ours.file()).key("access.relay.certificates", "trusted");
    let site = Site::start(setup);
    let kept = site.home().join("session.pem");
    let kept = kept.to_str().unwrap();
    for version in ["-tls1_2", "-tls1_3"] {
        let said = openssl(&site, Some(&good), &[version, "-sess_out", kept]);
        assert!(said.contains("250 2.1.5 <b@far.test>"), "{said}");
        let said = openssl(&site, None, &[version, "-sess_in", kept]);
        assert!(said.contains("250 2.1.5 <b@far.test>") || said.contains("550 5.7.1"), "{said}");
        // Whoever is not trusted any more has nothing of earlier times.
        let trust = fs::read(ours.file()).unwrap();
        fs::copy(Authority::new().file(), ours.file()).unwrap();
        let said = openssl(&site, None, &[version, "-sess_in", kept]);
        assert!(said.contains("550 5.7.1"), "{version}: {said}");
        fs::write(ours.file(), trust).unwrap();
    }
}

#[test]
fn postfix_relays_by_a_certificate_that_is_listed() {
    let peer = Peer::accepting(ports::local());
    let authorities = [Authority::new(), Authority::new()];
    let [own, other] = authorities.each_ref().map(|it| it.sign("postfix.test", Valid::Now));
    let listed = format!("[{{sha256: \"{}\", comment: the hub}}]", own.fingerprint());
    let setup = setup(&peer)
        .key("access.certificates.mode", "request")
        .key("access.certificates.pinned", &listed)
        .key("access.relay.certificates", "pinned");
    let site = Site::start(setup);
    let settings = |shown: &Identity| {
        vec![
            "smtp_tls_security_level = encrypt".to_owned(),
            format!("smtp_tls_chain_files = {}", shown.path().display()),
            "tls_random_source = dev:/dev/urandom".to_owned(),
        ]
    };
    let start = |shown: &Identity| {
        let settings = settings(shown);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        Postfix::start(ports::local(), Some(site.address()), &settings)
    };
    let Some(postfix) = start(&own) else {
        return skip::note("Postfix as client with a certificate", postfix::ABSENT);
    };
    let send = |postfix: &Postfix| {
        let mut talk = Talk::to(postfix.address());
        talk.expect("EHLO client.test", 250);
        let sent = talk.message("a@client.test", &["b@far.test"], &tagged("listed")).unwrap();
        assert_eq!(sent.code, 250);
    };
    send(&postfix);
    peer.await_received(1);
    site.logged(&["event=client-certificate", "standing=pinned"]);
    drop(postfix);
    let Some(postfix) = start(&other) else { panic!("it started before") };
    send(&postfix);
    site.logged(&["event=reject", "reason=relay-denied"]);
    assert_eq!(peer.received().len(), 1);
}

/// Logs in by EXTERNAL and asks to relay; says the mechanisms that are offered and what was answered.
const EXTERNAL: &str = "
import base64, smtplib, ssl, sys
port, chain, word = int(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3])
context = ssl._create_unverified_context()
if chain: context.load_cert_chain(chain)
client = smtplib.SMTP('127.0.0.1', port)
client.ehlo('before.test')
print('before', client.esmtp_features.get('auth', '-'))
client.starttls(context=context)
client.ehlo('under.test')
print('under', client.esmtp_features.get('auth', '-'))
print('auth', client.docmd('AUTH', 'EXTERNAL ' + (base64.b64encode(word).decode() or '='))[0])
print('mail', client.docmd('MAIL', 'FROM:<ada@corp.test>')[0])
print('rcpt', client.docmd('RCPT', 'TO:<b@far.test>')[0])
client.docmd('RSET')
print('other', client.docmd('MAIL', 'FROM:<boss@corp.test>')[0])
print(sys.stdin.readline())
";

fn external(site: &Site, shown: Option<&Identity>, word: &[u8]) -> String {
    let chain = shown.map_or(String::new(), |it| it.path().display().to_string());
    let word: String = word.iter().map(|octet| format!("{octet:02x}")).collect();
    let port = site.address().port().to_string();
    let mut python = Command::new("/usr/bin/python3");
    program::run(python.args(["-c", EXTERNAL, &port, &chain, &word]), b"\n").ok()
}

fn add(site: &Site, name: &str, more: &[&str]) {
    let arguments = [&["user", "add", name, "--password-stdin"], more].concat();
    site.control().input("a password nobody uses\n").run(&arguments).ok();
}

#[test]
fn a_user_logs_in_by_his_certificate_and_by_nobody_elses() {
    let peer = Peer::accepting(ports::local());
    let (ours, other) = (Authority::new(), Authority::new());
    let ada = ours.sign_client("Ada@corp.test", Valid::Now);
    let nobody = ours.sign_client("nobody@corp.test", Valid::Now);
    let foreign = other.sign_client("ada@corp.test", Valid::Now);
    let pinned = other.sign("printer.test", Valid::Now);
    let listed = format!("[{{sha256: {}, user: Scanner01}}]", pinned.fingerprint());
    let setup = trusting(setup(&peer), &ours.file())
        .key("access.certificates.pinned", &listed)
        .key("access.certificates.login", "true")
        .key("access.basic.domain", "corp.test");
    let site = Site::start(setup);
    add(&site, "ada", &["--send-as", "ada@corp.test"]);
    add(&site, "scanner01", &[]);
    let answers = |shown, word: &[u8]| {
        let said = external(&site, shown, word);
        let of = |name: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name}: {said}")).trim().to_owned()
        };
        assert_eq!(of("before "), "-", "{said}");
        [of("under "), of("auth "), of("rcpt "), of("other ")].join(" ")
    };
    for word in [&b""[..], b"ada", b"ADA@corp.test"] {
        assert_eq!(answers(Some(&ada), word), "EXTERNAL 235 250 553", "{word:?}");
    }
    site.logged(&["event=login ", "mech=EXTERNAL", "user=\"ada\""]);
    assert_eq!(answers(Some(&pinned), b"scanner01"), "EXTERNAL 235 250 250");
    // Whoever is no user is offered nothing, and what he says by himself is not known.
    for shown in [None, Some(&nobody), Some(&foreign)] {
        assert_eq!(answers(shown, b"ada"), "- 504 550 250", "{shown:?}");
    }
    for (word, code) in [
        (&b"scanner01"[..], "535"),
        (b"ada@other.test", "535"),
        (b"\xff\xfe\x00\x80", "501"),
        (b"ada\0ada", "501"),
        (&[0x41; 300], "501"),
    ] {
        assert_eq!(answers(Some(&ada), word), format!("EXTERNAL {code} 550 250"), "{word:?}");
    }
    site.logged(&["event=login-failed", "mech=EXTERNAL", "reason=bad-identity"]);
    site.ctl(&["user", "set", "ada", "--disabled"]).ok();
    assert_eq!(answers(Some(&ada), b""), "- 504 550 250");

    let (place, port) = (site.home().join("msmtprc"), site.address().port());
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\nfrom a@client.test\ntls on\nauth external\n\
         tls_trust_file {}\ntls_host_override relay.test\ntls_cert_file {own}\ntls_key_file {own}\n\
         user scanner01\n",
        site.home().join("state/tls/auto.pem").display(),
        own = pinned.path().display(),
    );
    fs::write(&place, text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    let mut msmtp = Command::new("msmtp");
    program::run(msmtp.arg("-C").arg(&place).arg("b@far.test"), &tagged("external")).ok();
    let received = peer.await_received(1);
    assert!(String::from_utf8_lossy(&received[0].octets).contains("with ESMTPSA"));
}

#[test]
fn a_session_shows_its_certificate() {
    let peer = Peer::accepting(ports::local());
    let ours = Authority::new();
    let good = ours.sign_client("ada@corp.test", Valid::Now);
    let site = Site::start(trusting(setup(&peer), &ours.file()));
    let chain = good.path().display().to_string();
    let port = site.address().port().to_string();
    let mut client = Command::new("/usr/bin/python3")
        .args(["-c", EXTERNAL, &port, &chain, ""])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let print = good.fingerprint().replace(':', "").to_lowercase();
    mailroot_tests::wait::until("a session with a certificate", || {
        let listed = site.control().json(&["session", "list"]);
        (listed[0]["certificate"] == print.as_str()).then_some(())
    });
    let id = site.ctl(&["session", "list", "-o", "name"]).ok().trim().to_owned();
    assert!(site.ctl(&["session", "show", &id]).ok().contains(&print));
    drop(client.stdin.take());
    client.wait().unwrap();
}

#[test]
fn configurations_that_lead_to_nothing_or_to_everybody_are_told() {
    let check = |keys: &[(&str, &str)]| {
        let setup = Setup::new().key("general.listen", "0.0.0.0:2525");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let checked = Site::prepare(setup).run(&["--check"]);
        format!("{}{}", checked.out, checked.err)
    };
    let mode = "access.certificates.mode";
    let (trust, login) = ("access.certificates.trust", "access.certificates.login");
    let (relay, pinned) = ("access.relay.certificates", "access.certificates.pinned");
    for (code, keys) in [
        ("E0381", &[(mode, "request"), (pinned, "\"AB:CD\"")][..]),
        ("E0382", &[(mode, "request"), (pinned, "{sha256: \"AB:CD\", user: \"a b\"}")]),
        ("E0383", &[(mode, "request"), (trust, "system"), ("access.tls.mode", "off")]),
        ("E0384", &[(mode, "request")]),
        ("E0385", &[(login, "true")]),
        ("E0385", &[(relay, "pinned")]),
        ("E0310", &[(mode, "request"), (trust, "system"), (relay, "trusted")]),
        ("W0473", &[(mode, "request"), (trust, "system"), (login, "true")]),
        ("W0474", &[(mode, "require"), (trust, "system")]),
    ] {
        let said = check(keys);
        assert!(said.contains(code), "{code}: {said}");
    }
    let insisting = [
        (mode, "request"),
        (trust, "system"),
        (relay, "trusted"),
        ("access.relay.i_want_an_open_relay", "true"),
    ];
    let said = check(&insisting);
    assert!(said.contains("W0310") && !said.contains("E0310"), "{said}");
}
