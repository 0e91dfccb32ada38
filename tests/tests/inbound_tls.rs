//! TLS of clients: real clients come under it, a new certificate counts without a restart, and what a
//! hostile one says before the handshake, or instead of it, comes to nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::message::tagged;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::{ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, program, skip, wait};

/// A certificate and its key for a host, as two files.
struct Files {
    chain: PathBuf,
    key: PathBuf,
}

fn install(place: &Path, called: &str, authority: &Authority, host: &str) -> Files {
    let (chain, key) = authority.sign(host, Valid::Now).apart(place, called);
    Files { chain, key }
}

fn with(setup: Setup, name: &str, files: &Files) -> Setup {
    setup
        .service(&format!("tls.certificates.{name}.chain"), &files.chain.display().to_string())
        .service(&format!("tls.certificates.{name}.key"), &files.key.display().to_string())
}

/// What `openssl s_client` says, with these lines typed under TLS.
fn openssl(address: SocketAddr, more: &[&str], typed: &str) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-crlf", "-ign_eof", "-connect", &address.to_string()]);
    command.args(more);
    if more.contains(&"-CAfile") {
        command.arg("-verify_return_error");
    }
    let done = program::run(&mut command, typed.as_bytes());
    format!("{}{}", done.out, done.err)
}

const STARTTLS: [&str; 2] = ["-starttls", "smtp"];

#[test]
fn a_first_start_has_tls_for_every_client() {
    let site = Site::start(Setup::new());
    let kept = site.home().join("state/tls/auto.pem");
    let said = openssl(
        site.address(),
        &[&STARTTLS[..], &["-CAfile", kept.to_str().unwrap(), "-verify_hostname", "relay.test"]]
            .concat(),
        "EHLO a.test\nQUIT\n",
    );
    assert!(said.contains("250 HELP") && !said.contains("STARTTLS"), "{said}");
    site.logged(&["event=tls ", "client=127.0.0.1", "tls=TLSv1.3", "cipher=TLS_"]);
    let key = fs::metadata(site.home().join("state/tls/auto.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    // The same one after a restart: whoever pinned it is not disturbed.
    let before = fs::read(&kept).unwrap();
    site.stop();
    site.launch();
    assert_eq!(fs::read(&kept).unwrap(), before);
}

#[test]
fn mail_under_tls_says_so() {
    let site = Site::start(Setup::new());
    let script = format!(
        "import smtplib, ssl\n\
         context = ssl.create_default_context(cafile='{}')\n\
         context.check_hostname = False\n\
         client = smtplib.SMTP('127.0.0.1', {})\n\
         client.starttls(context=context)\n\
         client.sendmail('a@client.test', ['b@local.test'], 'Subject: python\\r\\n\\r\\nhello\\r\\n')\n\
         client.quit()\n",
        site.home().join("state/tls/auto.pem").display(),
        site.address().port()
    );
    program::run(Command::new("/usr/bin/python3").arg("-c").arg(script), b"").ok();
    let received = site.await_dropped(1)[0].fields("Received")[0].clone();
    assert!(received.contains("with ESMTPS"), "{received}");
    assert!(received.contains("tls TLS_") && received.contains("(TLSv1.3)"), "{received}");
    site.logged(&["event=received", "tls=TLSv1.3"]);
    let told = site.ctl(&["trace", "--last", "1"]).ok();
    assert!(told.contains("TLSv1.3"), "{told}");
}

#[test]
fn swaks_and_msmtp_come_under_tls() {
    let site = Site::start(Setup::new());
    let server = site.address().to_string();
    let swaks = |more: &[&str]| {
        let mut command = Command::new("swaks");
        command.args(["--server", &server, "--from", "a@client.test", "--to", "b@local.test"]);
        program::run(command.args(more), b"")
    };
    swaks(&["--tls"]).ok();
    swaks(&["--tls", "--tls-protocol", "tlsv1_2"]).ok();
    site.logged(&["event=received", "tls=TLSv1.2"]);
    // What is too old is not spoken.
    assert_ne!(swaks(&["--tls", "--tls-protocol", "tlsv1"]).code, 0);

    let (place, port) = (site.home().join("msmtprc"), site.address().port());
    let trust = site.home().join("state/tls/auto.pem");
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\nfrom a@client.test\ntls on\n\
         tls_starttls on\ntls_trust_file {}\ntls_host_override relay.test\n",
        trust.display()
    );
    fs::write(&place, text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    let mut msmtp = Command::new("msmtp");
    program::run(msmtp.arg("-C").arg(&place).arg("b@local.test"), &tagged("msmtp")).ok();
    site.await_dropped(3);
}

#[test]
fn postfix_sends_over_a_listener_that_speaks_tls_at_once() {
    let address = ports::local();
    let site = Site::start(Setup::new().implicit_tls(address));
    let settings = ["smtp_tls_security_level = encrypt", "smtp_tls_wrappermode = yes"];
    let Some(postfix) = Postfix::start(ports::local(), Some(address), &settings) else {
        return skip::note("Postfix as client with TLS", postfix::ABSENT);
    };
    let mut talk = Talk::to(postfix.address());
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@client.test", &["b@local.test"], &tagged("wrapped")).unwrap();
    assert_eq!(sent.code, 250);
    let received = site.await_dropped(1)[0].fields("Received")[0].clone();
    assert!(received.contains("with ESMTPS"), "{received}");
    let looked = site.ctl(&["doctor", "ports"]).out;
    assert_eq!(looked.matches("answers: 220").count(), 2, "{looked}");
}

#[test]
fn the_certificate_is_the_one_that_is_asked_for_and_the_newest() {
    let authority = Authority::new();
    let place = tempfile::tempdir().unwrap();
    let one = install(place.path(), "one", &authority, "one.test");
    let two = install(place.path(), "two", &authority, "*.two.test");
    let setup = with(with(Setup::new(), "one", &one), "two", &two);
    let site = Site::start(setup.key("access.tls.certificate", "[one, two]"));
    let trust = authority.file();
    let is_shown = |asked: &str, host: &str| {
        let more = ["-CAfile", trust.to_str().unwrap(), "-servername", asked];
        let verify = ["-verify_hostname", host];
        let said = openssl(site.address(), &[&STARTTLS[..], &more, &verify].concat(), "QUIT\n");
        said.contains("221 ")
    };
    assert!(is_shown("one.test", "one.test") && is_shown("mx.two.test", "mx.two.test"));
    assert!(is_shown("nobody.test", "one.test"), "the first one is for everybody else");
    assert!(!is_shown("nobody.test", "mx.two.test"));

    // Sessions go on while certificates change, and a broken one leaves the old in its place.
    let mut open = site.talk();
    open.expect("EHLO client.test", 250);
    fs::write(&one.chain, "-----BEGIN CERTIFICATE-----\nhalf").unwrap();
    site.ctl(&["reload"]).ok();
    site.logged(&["event=certificate-refused", "name=one"]);
    assert!(is_shown("one.test", "one.test"));
    let status = site.ctl(&["status"]).out;
    assert!(status.contains("certificate one"), "{status}");
    install(place.path(), "one", &authority, "new.test");
    site.ctl(&["reload"]).ok();
    assert!(is_shown("new.test", "new.test") && !is_shown("one.test", "one.test"));
    open.expect("NOOP", 250);
    open.expect("QUIT", 221);
}

#[test]
fn a_file_that_changes_is_found_without_a_word() {
    let authority = Authority::new();
    let place = tempfile::tempdir().unwrap();
    let files = install(place.path(), "one", &authority, "one.test");
    let setup = with(Setup::new(), "one", &files);
    let site = Site::start(setup.key("access.tls.certificate", "one"));
    install(place.path(), "one", &authority, "two.test");
    site.logged(&["event=certificate ", "name=one", "hosts=\"two.test\""]);
}

#[test]
fn clients_that_must_come_under_tls_cannot_send_without() {
    let site = Site::start(Setup::new().key("access.tls.mode", "required"));
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 530);
    let said = openssl(
        site.address(),
        &STARTTLS,
        "EHLO a.test\nMAIL FROM:<a@client.test>\nRCPT TO:<b@local.test>\nQUIT\n",
    );
    assert!(said.contains("250 2.1.5"), "{said}");

    // Without a certificate such a server does not start, and says why; others do.
    site.stop();
    let place = tempfile::tempdir().unwrap();
    let files = install(place.path(), "one", &Authority::new(), "one.test");
    fs::remove_file(&files.chain).unwrap();
    let setup = with(site.setup(), "one", &files).key("access.tls.certificate", "one");
    site.configure(setup);
    let refused = site.run(&[]);
    assert_ne!(refused.code, 0);
    assert!(refused.err.contains("no certificate can be shown"), "{refused}");
}

#[test]
fn words_behind_starttls_are_nobodys() {
    let site = Site::start(Setup::new());
    for behind in ["EHLO injected.test\r\n", "MAIL FROM:<eve@client.test>\r\n", "\x16\x03\x01"] {
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        talk.send(format!("STARTTLS\r\n{behind}").as_bytes()).unwrap();
        let reply = talk.reply().unwrap();
        assert_eq!((reply.code, reply.enhanced()), (503, Some("5.5.1")), "{behind:?}");
        assert!(talk.reply().is_err(), "the session is over");
    }
    site.logged(&["event=reject", "reason=octets-behind-starttls"]);
}

#[test]
fn a_handshake_that_never_ends_costs_no_other_client_anything() {
    let setup = Setup::new().key("limits.handshakes", "1").key("limits.handshake_time", "10s");
    let site = Site::start(setup);
    let mut silent: Vec<Talk> = (0..10)
        .map(|_| {
            let mut talk = site.talk();
            talk.expect("EHLO slow.test", 250);
            talk.expect("STARTTLS", 220);
            // The beginning of a ClientHello that never comes.
            talk.send(&[0x16, 0x03, 0x01, 0x01, 0x00]).unwrap();
            talk
        })
        .collect();
    let said = openssl(site.address(), &STARTTLS, "QUIT\n");
    assert!(said.contains("221 "), "{said}");
    for talk in &mut silent {
        assert!(talk.reply().is_err(), "it is cut off");
    }
    site.logged(&["event=tls-failed", "took too long"]);

    // Clear text instead of a handshake ends the session as well, and nothing of it is heard.
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("STARTTLS", 220);
    talk.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@local.test>\r\n").unwrap();
    let heard = talk.reply();
    assert!(heard.is_err(), "{heard:?}");
    site.logged(&["event=tls-failed", "does not speak TLS"]);
    wait::until("no session", || {
        let listed = site.control().json(&["session", "list"]);
        listed.as_array().is_some_and(Vec::is_empty).then_some(())
    });
}

#[test]
fn a_session_under_tls_is_listed_so() {
    let site = Site::start(Setup::new());
    let script = format!(
        "import smtplib, ssl, sys\n\
         context = ssl._create_unverified_context()\n\
         client = smtplib.SMTP('127.0.0.1', {})\n\
         client.starttls(context=context)\n\
         client.ehlo('under.test')\n\
         sys.stdin.readline()\n",
        site.address().port()
    );
    let mut client = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(script)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait::until("a session under TLS", || {
        let listed = site.control().json(&["session", "list"]);
        let is = |it: &serde_json::Value| it["tls"] == "TLSv1.3" && it["name"] == "under.test";
        listed.as_array().is_some_and(|all| all.iter().any(is)).then_some(())
    });
    drop(client.stdin.take());
    client.wait().unwrap();
}

#[test]
fn certificates_are_kept_and_changed_by_command() {
    let authority = Authority::new();
    let place = tempfile::tempdir().unwrap();
    let files = install(place.path(), "given", &authority, "mx.test");
    let site = Site::start(Setup::new());
    let [chain, key] = [&files.chain, &files.key].map(|path| path.to_str().unwrap().to_owned());
    site.ctl(&["cert", "install", "relay1", "--chain", &chain, "--key", &key]).ok();
    site.ctl(&["server", "set", "default", "access.tls.certificate=relay1"]).ok();
    let trust = authority.file();
    let is_shown = |host: &str| {
        let verify = ["-CAfile", trust.to_str().unwrap(), "-verify_hostname", host];
        openssl(site.address(), &[&STARTTLS[..], &verify].concat(), "QUIT\n").contains("221 ")
    };
    assert!(is_shown("mx.test"));
    let listed = site.control().json(&["cert", "list"]);
    let relay1 = &listed.as_array().unwrap().iter().find(|it| it["name"] == "relay1").unwrap();
    assert_eq!(
        (&relay1["hosts"][0], &relay1["used_by"][0]),
        (&"mx.test".into(), &"default".into())
    );
    assert!(!site.ctl(&["cert", "show", "relay1"]).ok().contains("PRIVATE"));

    // Another in its place, at once; a key that does not belong to it changes nothing.
    let other = install(place.path(), "other", &authority, "new.test");
    let [chain2, key2] = [&other.chain, &other.key].map(|path| path.to_str().unwrap().to_owned());
    let bad = ["cert", "install", "relay1", "--chain", &chain2, "--key", &key];
    assert!(site.ctl(&bad).exited(6).err.contains("is not the key of"));
    assert!(is_shown("mx.test"));
    site.ctl(&["cert", "install", "relay1", "--chain", &chain2, "--key", &key2]).ok();
    assert!(is_shown("new.test"));

    site.ctl(&["cert", "remove", "relay1"]).exited(6);
    site.ctl(&["cert", "self-signed", "own", "--for", "own.test", "--for", "192.0.2.1"]).ok();
    site.ctl(&["server", "set", "default", "access.tls.certificate=own"]).ok();
    site.ctl(&["cert", "remove", "relay1"]).ok();
    let kept = site.home().join("state/tls/own.pem");
    let verify = ["-CAfile", kept.to_str().unwrap(), "-verify_hostname", "own.test"];
    let said = openssl(site.address(), &[&STARTTLS[..], &verify].concat(), "QUIT\n");
    assert!(said.contains("221 "), "{said}");
    site.ctl(&["cert", "show", "relay1"]).exited(3);
}

#[test]
fn a_server_starts_by_itself_when_its_certificate_comes() {
    let authority = Authority::new();
    let place = tempfile::tempdir().unwrap();
    let files = install(place.path(), "one", &authority, "one.test");
    let chain = fs::read(&files.chain).unwrap();
    fs::remove_file(&files.chain).unwrap();
    let secure = ServerFile::new("secure")
        .key("access.tls.mode", "required")
        .key("access.tls.certificate", "one");
    let address = secure.address;
    let site = Site::prepare(with(Setup::new(), "one", &files).with(secure));
    site.spawn(&[]);
    let trouble = wait::until("a daemon that answers", || {
        let listed = site.ctl(&["status", "-o", "json"]);
        listed.out.contains("no certificate can be shown").then_some(listed.out)
    });
    assert!(trouble.contains("tls.certificate"), "{trouble}");
    let looked = site.ctl(&["doctor", "tls"]).exited(10).out;
    assert!(looked.contains("one cannot be shown"), "{looked}");
    fs::write(&files.chain, chain).unwrap();
    wait::until("a server that runs", || Talk::try_to(address).ok());
}
