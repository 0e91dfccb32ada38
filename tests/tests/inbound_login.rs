//! Logins of clients: real clients log in and may relay, guessers are slowed and shut out, and nobody
//! learns who is a user.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use mailroot_tests::load::Spent;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::{ServerFile, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::{Talk, auth_plain as plain};
use mailroot_tests::{ports, program, skip, swaks, wait};

const PASSWORD: &str = "correct horse";

/// A server that takes logins and lets nobody relay for his address, before `peer`.
fn setup(peer: &Peer) -> Setup {
    Setup::new()
        .smart_host(peer.address())
        .key("access.relay.list", "[]")
        .key("access.basic.enabled", "true")
        .key("access.auth_failures.delay", "0s")
}

fn add(site: &Site, name: &str, more: &[&str]) {
    let mut arguments = vec!["user", "add", name, "--password-stdin"];
    arguments.extend(more);
    site.control().input(&format!("{PASSWORD}\n")).run(&arguments).ok();
}

#[test]
fn clients_of_every_kind_log_in_and_may_relay_then() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer));
    add(&site, "ada", &[]);
    let account = ["--auth-user", "ada", "--auth-password", PASSWORD];
    assert_ne!(swaks::send(&site, &["--tls"]).code, 0, "nobody relays without a login");
    for mechanism in ["PLAIN", "LOGIN"] {
        swaks::send(&site, &[&["--tls", "--auth", mechanism][..], &account].concat()).ok();
    }
    let told = site.logged(&["event=login ", "mech=PLAIN", "user=\"ada\""]);
    assert!(!told.contains(PASSWORD));
    site.logged(&["event=received", "user=ada"]);

    // Python takes the first mechanism that it knows.
    let script = format!(
        "import smtplib, ssl\n\
         client = smtplib.SMTP('127.0.0.1', {})\n\
         client.starttls(context=ssl._create_unverified_context())\n\
         client.login('Ada', '{PASSWORD}')\n\
         client.sendmail('a@client.test', ['b@far.test'], 'Subject: python\\r\\n\\r\\nhello\\r\\n')\n",
        site.address().port()
    );
    program::run(Command::new("/usr/bin/python3").arg("-c").arg(script), b"").ok();

    let (place, port) = (site.home().join("msmtprc"), site.address().port());
    let trust = site.home().join("state/tls/auto.pem");
    let text = format!(
        "account default\nhost 127.0.0.1\nport {port}\nfrom a@client.test\ntls on\n\
         tls_trust_file {}\ntls_host_override relay.test\nauth scram-sha-256\nuser ada\n\
         password \"{PASSWORD}\"\n",
        trust.display()
    );
    fs::write(&place, text).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
    let msmtp = |body: &[u8]| {
        let mut command = Command::new("msmtp");
        program::run(command.arg("-C").arg(&place).arg("b@far.test"), body)
    };
    msmtp(&tagged("scram")).ok();
    site.logged(&["event=login ", "mech=SCRAM-SHA-256", "user=\"ada\""]);
    let wrong = fs::read_to_string(&place).unwrap().replace(PASSWORD, "wrong horse");
    fs::write(&place, wrong).unwrap();
    assert_ne!(msmtp(&tagged("wrong")).code, 0);
    site.logged(&["event=login-failed", "mech=SCRAM-SHA-256", "reason=bad-password"]);

    let received = peer.await_received(4);
    let text = String::from_utf8_lossy(&received[0].octets).into_owned();
    assert!(text.contains("with ESMTPSA"), "{text}");
    let told = site.ctl(&["trace", "--last", "1"]).ok();
    assert!(told.contains("logged in as ada") && told.contains("authenticated"), "{told}");
    let listed = site.control().json(&["user", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["failed"]), (&"ada".into(), &1.into()));
    assert_eq!(listed[0]["last_client"], "127.0.0.1");
    assert!(!fs::read_to_string(site.home().join("state/users.json")).unwrap().contains(PASSWORD));
    assert!(!site.log().contains(PASSWORD));
}

#[test]
fn postfix_logs_in_as_a_client_does() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer).key("access.basic.mechanisms", "[PLAIN]"));
    add(&site, "relay", &[]);
    let address = site.address();
    let password = format!("static:relay:{}", PASSWORD.replace(' ', "-"));
    site.control()
        .input(&format!("{}\n", PASSWORD.replace(' ', "-")))
        .run(&["user", "passwd", "relay", "--password-stdin"])
        .ok();
    let settings = [
        "smtp_tls_security_level = encrypt",
        "smtp_sasl_auth_enable = yes",
        "smtp_sasl_security_options = noanonymous",
        &format!("smtp_sasl_password_maps = {password}"),
    ];
    let Some(postfix) = Postfix::start(ports::local(), Some(address), &settings) else {
        return skip::note("Postfix as client with a login", postfix::ABSENT);
    };
    let mut talk = Talk::to(postfix.address());
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("a@client.test", &["b@far.test"], &tagged("by postfix")).unwrap();
    assert_eq!(sent.code, 250);
    peer.await_received(1);
    site.logged(&["event=login ", "mech=PLAIN", "user=\"relay\""]);
}

#[test]
fn before_tls_logins_are_neither_offered_nor_judged() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer));
    add(&site, "ada", &[]);
    let mut talk = site.talk();
    let offered = talk.expect("EHLO client.test", 250);
    assert!(!offered.lines.iter().any(|line| line.starts_with("AUTH")), "{offered}");
    for (user, password) in [("ada", PASSWORD), ("ada", "wrong"), ("nobody", "wrong")] {
        let reply = talk.expect(&plain(user, password), 538);
        assert_eq!(reply.enhanced(), Some("5.7.11"));
    }
    assert!(!site.log().contains("login-failed"));
}

#[test]
fn who_is_a_user_shows_neither_in_words_nor_by_a_quick_answer() {
    /// Enough for a clock of hundredths of a second.
    const LOGINS: usize = 20;
    let peer = Peer::accepting(ports::local());
    let setup = setup(&peer)
        .key("access.basic.require_tls", "false")
        .key("access.auth_failures.max", "1000")
        .key("general.max_errors", "unlimited")
        .key("access.auth_failures.ban", "never");
    let site = Site::start(setup);
    add(&site, "ada", &[]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let words = ["ada", "nobody"].map(|user| plain(user, "wrong"));
    let mut said = Vec::new();
    // The first one makes what names that nobody has are compared with.
    said.extend(words.each_ref().map(|word| talk.expect(word, 535).to_string()));
    let [known, unknown] = words.each_ref().map(|word| {
        let before = Spent::by(site.pid());
        said.extend((0..LOGINS).map(|_| talk.expect(word, 535).to_string()));
        Spent::by(site.pid()).since(&before)
    });
    // Both look at a hash that takes its time; to find no user takes next to none. What the processor did is
    // compared, which does not depend on what else it does.
    assert!(unknown * 2 > known && known * 2 > unknown, "{known:?} and {unknown:?}");
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    // A proof is asked for from nobody as well.
    let first = |user: &str| {
        let word = format!("n,,n={user},r=abcdef");
        program::run(Command::new("base64").arg("-w0"), word.as_bytes()).ok()
    };
    for user in ["ada", "nobody", "nobody"] {
        talk.expect(&format!("AUTH SCRAM-SHA-256 {}", first(user)), 334);
        talk.expect("*", 501);
    }
}

#[test]
fn guessers_are_slowed_told_and_shut_out() {
    let peer = Peer::accepting(ports::local());
    let setup = setup(&peer)
        .key("access.basic.require_tls", "false")
        .key("access.auth_failures.max", "3")
        .key("access.auth_failures.delay", "1s");
    let site = Site::start(setup);
    add(&site, "ada", &[]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let begun = Instant::now();
    for _ in 0..3 {
        talk.expect(&plain("ada", "guess"), 535);
    }
    assert!(begun.elapsed() >= Duration::from_secs(3), "each wrong guess waits");
    assert_eq!(talk.reply().unwrap().code, 421);
    let line = site.logged(&["event=login-failed", "reason=bad-password"]);
    let client = line.find("client=127.0.0.1").unwrap();
    assert!(client < line.find("user=\"ada\"").unwrap(), "{line}");

    // The name is closed to this address, even with the right password; another name is not.
    add(&site, "bob", &[]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect(&plain("ada", PASSWORD), 535);
    site.logged(&["event=login-failed", "reason=banned"]);
    talk.expect(&plain("bob", PASSWORD), 235);
}

#[test]
fn users_send_as_themselves_and_are_disabled_at_once() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer).key("access.basic.require_tls", "false"));
    add(&site, "scanner01", &["--send-as", "scanner*@local.test"]);
    let mut talk = site.talk();
    let offered = talk.expect("EHLO client.test", 250);
    let words = "AUTH SCRAM-SHA-256 PLAIN LOGIN".to_owned();
    assert!(offered.lines.contains(&words), "{offered}");
    talk.expect(&plain("scanner01", PASSWORD), 235);
    talk.expect("MAIL FROM:<boss@local.test>", 553);
    talk.expect("MAIL FROM:<scanner7@local.test> AUTH=<>", 250);
    talk.expect("RCPT TO:<b@far.test>", 250);
    talk.expect("RSET", 250);
    wait::until("a session with its user", || {
        let listed = site.control().json(&["session", "list"]);
        (listed[0]["user"] == "scanner01").then_some(())
    });

    let changed = site.control().json(&["user", "set", "scanner01", "--disabled"]);
    assert_eq!(
        (&changed["sessions_ended"], &changed["user"]["enabled"]),
        (&1.into(), &false.into())
    );
    assert_eq!(talk.reply().unwrap().code, 421);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect(&plain("scanner01", PASSWORD), 535);
    let verify = |word: &str| {
        site.control().input(word).run(&["user", "verify", "scanner01", "--password-stdin"])
    };
    verify(PASSWORD).exited(10);
    site.ctl(&["user", "set", "scanner01", "--enabled"]).ok();
    verify(PASSWORD).exited(0);
    verify("wrong").exited(10);
    site.stop();
    site.launch();
    assert!(site.ctl(&["user", "list"]).ok().contains("scanner*@local.test"));
    site.ctl(&["user", "remove", "scanner01"]).ok();
    site.ctl(&["user", "remove", "scanner01"]).exited(3);
    site.control().input("x\n").run(&["user", "add", "a b", "--password-stdin"]).exited(2);
}

#[test]
fn a_login_is_never_shown_to_whoever_listens() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer).key("access.basic.require_tls", "false"));
    add(&site, "ada", &[]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    let id = site.ctl(&["session", "list", "-o", "name"]).ok().trim().to_owned();
    let following = site.control().follow(&["session", "show", &id, "--dialogue", "-o", "jsonl"]);
    wait::until("somebody who listens", || {
        talk.expect("NOOP", 250);
        (!following.lines().is_empty()).then_some(())
    });
    let word = plain("ada", PASSWORD);
    let secret = word.rsplit(' ').next().unwrap().to_owned();
    talk.expect("AUTH PLAIN", 334);
    talk.expect(&secret, 235);
    talk.expect("QUIT", 221);
    let shown = following.finish().1.concat();
    assert!(shown.contains("AUTH PLAIN") && shown.contains("235"), "{shown}");
    assert!(!shown.contains(&secret) && !shown.contains(PASSWORD), "{shown}");
}

#[test]
fn mail_from_strangers_stays_out_where_a_login_is_asked_for() {
    let peer = Peer::accepting(ports::local());
    let setup = setup(&peer)
        .key("access.anonymous", "false")
        .key("access.basic.require_tls", "false")
        .key("access.relay.authenticated", "false");
    let site = Site::start(setup);
    add(&site, "ada", &[]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<a@client.test>", 530);
    talk.expect(&plain("ada", PASSWORD), 235);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@local.test>", 250);
    talk.expect("RCPT TO:<b@far.test>", 550);
}

#[test]
fn a_test_message_goes_under_tls_and_by_a_login_where_the_server_wants_both() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(
        setup(&peer).key("access.tls.mode", "required").key("access.anonymous", "false"),
    );
    add(&site, "ada", &[]);
    let line = ["send", "--to", "b@far.test", "--from", "a@client.test"];
    let refused = site.ctl(&line).exited(1);
    assert!(refused.err.contains("530") && refused.err.contains("--user"), "{refused}");
    let login = [&line[..], &["--user", "ada", "--password-stdin", "--wait"]].concat();
    let sent = site.control().input(&format!("{PASSWORD}\n")).run(&login).exited(0);
    assert!(sent.out.contains("done"), "{sent}");
    assert_eq!(peer.await_received(1)[0].recipients(), ["b@far.test"]);
    let wrong = site.control().input("not it\n").run(&login).exited(1);
    assert!(wrong.err.contains("535") && !wrong.err.contains("AGFkYQ"), "{wrong}");
    let nobody = site.ctl(&[&line[..], &["--user", "ada", "--no-input"]].concat()).exited(2);
    assert!(nobody.err.contains("--password-stdin"), "{nobody}");
}

/// A client that proves that it knows the password, says `last` to our last word, and asks to relay.
const SCRAM_CLIENT: &str = "
import base64, hashlib, hmac, socket, sys
port, password, last = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
wire = socket.create_connection(('127.0.0.1', port), 60).makefile('rwb')
def say(line):
    wire.write(line.encode() + b'\\r\\n'); wire.flush()
    return hear()
def hear():
    while (line := wire.readline().decode())[3] == '-': pass
    return line
def b64(octets): return base64.b64encode(octets).decode()
def mac(key, text): return hmac.digest(key, text, 'sha256')
hear(); say('EHLO client.test')
bare = 'n=ada,r=abcdef'
first = base64.b64decode(say('AUTH SCRAM-SHA-256 ' + b64(b'n,,' + bare.encode()))[4:]).decode()
asked = dict(part.split('=', 1) for part in first.split(','))
salted = hashlib.pbkdf2_hmac('sha256', password, base64.b64decode(asked['s']), int(asked['i']))
key, without = mac(salted, b'Client Key'), 'c=biws,r=' + asked['r']
sign = mac(hashlib.sha256(key).digest(), ','.join([bare, first, without]).encode())
proof = bytes(a ^ b for a, b in zip(key, sign))
print(say(b64((without + ',p=' + b64(proof)).encode()))[:3])
print(say(last)[:3], say('MAIL FROM:<a@client.test>')[:3], say('RCPT TO:<b@far.test>')[:3])
";

#[test]
fn a_proof_gives_no_rights_before_the_last_word_is_taken() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer).key("access.basic.require_tls", "false"));
    add(&site, "ada", &[]);
    assert_eq!(proves(&site, "*"), ["334", "501", "250", "550"]);
    assert_eq!(proves(&site, "!"), ["334", "501", "250", "550"]);
    assert_eq!(proves(&site, ""), ["334", "235", "250", "250"]);
}

/// What [`SCRAM_CLIENT`] hears as ada.
fn proves(site: &Site, last: &str) -> Vec<String> {
    let mut python = Command::new("/usr/bin/python3");
    let port = site.address().port().to_string();
    let heard = program::run(python.args(["-c", SCRAM_CLIENT, &port, PASSWORD, last]), b"").ok();
    heard.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_hash_made_elsewhere_lets_its_user_in() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer).key("access.basic.require_tls", "false"));
    let run = |input: &str, words: &[&str]| site.control().input(input).run(words);
    let hash = run(PASSWORD, &["user", "hash"]).ok();
    run(&hash, &["user", "add", "ada", "--hash-stdin", "--send-as", "*@client.test"]).ok();
    assert_eq!(proves(&site, ""), ["334", "235", "250", "250"]);
    let account = ["--auth", "PLAIN", "--auth-user", "ada", "--auth-password", PASSWORD];
    swaks::send(&site, &account).ok();
    let _good = run(PASSWORD, &["user", "verify", "ada", "--password-stdin"]).ok();
    let _wrong = run("wrong horse", &["user", "verify", "ada", "--password-stdin"]).exited(10);

    // Another one takes its place, out of a file; what is none changes nothing.
    let another = run("another horse", &["user", "hash"]).ok();
    let place = site.home().join("hash");
    fs::write(&place, another).unwrap();
    let _set = site.ctl(&["user", "passwd", "ada", "--hash-file", place.to_str().unwrap()]).ok();
    let _good = run("another horse", &["user", "verify", "ada", "--password-stdin"]).ok();
    for wrong in [PASSWORD, hash.split_once(' ').unwrap().0, &hash.replace("t=2", "t=1")] {
        let refused = run(wrong, &["user", "passwd", "ada", "--hash-stdin"]).exited(2);
        assert!(refused.err.contains("smtpctl user hash"), "{refused}");
    }
    let both = ["user", "passwd", "ada", "--hash-stdin", "--password-stdin"];
    let _usage = run(&hash, &both).exited(2);
    let _still = run("another horse", &["user", "verify", "ada", "--password-stdin"]).ok();

    // A script may say the same again.
    let add = ["user", "add", "ada", "--hash-stdin"];
    assert!(run(&hash, &add).exited(7).err.contains("there is a user ada already"));
    let _again = run(&hash, &[&add[..], &["--if-not-exists"]].concat()).ok();
    let _still = run("another horse", &["user", "verify", "ada", "--password-stdin"]).ok();
    let _gone = site.ctl(&["user", "remove", "ada"]).ok();
    let _none = site.ctl(&["user", "remove", "ada"]).exited(3);
    let _none = site.ctl(&["user", "remove", "ada", "--if-exists"]).ok();
}

#[test]
fn a_user_is_put_out_while_the_server_waits_for_his_session() {
    let peer = Peer::accepting(ports::local());
    let site = Site::start(setup(&peer).key("access.basic.require_tls", "false"));
    add(&site, "ada", &[]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect(&plain("ada", PASSWORD), 235);
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| site.ctl(&["server", "stop", "default", "--drain=300s"]));
        wait::until("no new sessions", || {
            let mut late = Talk::connect(site.address()).ok()?;
            (late.reply().ok()?.code == 421).then_some(())
        });
        assert_eq!(site.control().json(&["session", "list"])[0]["user"], "ada");
        assert!(!stop.is_finished(), "it waits for the session");
        let changed = site.control().json(&["user", "set", "ada", "--disabled"]);
        assert_eq!(changed["sessions_ended"], 1);
        assert_eq!(talk.reply().unwrap().code, 421);
        let _stopped = stop.join().unwrap().ok();
    });
}

#[test]
fn a_login_at_one_server_is_none_at_another() {
    let peer = Peer::accepting(ports::local());
    let second = ServerFile::new("second")
        .only_domains(&["{name: second.test, type: default}"])
        .key("access.relay.list", "[]");
    let address = second.address;
    let setup = setup(&peer).key("access.basic.require_tls", "false");
    let site = Site::start(setup.with(second));
    add(&site, "ada", &[]);
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect(&plain("ada", PASSWORD), 235);
    talk.expect("MAIL FROM:<a@client.test>", 250);
    talk.expect("RCPT TO:<b@far.test>", 250);

    let mut other = Talk::to(address);
    other.expect("EHLO client.test", 250);
    other.expect(&plain("ada", PASSWORD), 502);
    other.expect("MAIL FROM:<a@client.test>", 250);
    other.expect("RCPT TO:<b@far.test>", 550);
}
