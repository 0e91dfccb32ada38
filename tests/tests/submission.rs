//! Programs as they stand on desks and in racks hand in mail: each comes under TLS, picks a way to log in from those
//! that are offered, in its own order, and may relay then.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::talk::{Talk, auth_plain, base64};
use mailroot_tests::{nodemailer, ports, program, skip, swaks};

const USER: &str = "ada";
const PASSWORD: &str = "correct horse";

/// A daemon that takes logins, and lets nobody relay who has none.
struct Desk {
    peer: Peer,
    site: Site,
    /// Where TLS begins at once.
    secure: SocketAddr,
}

fn desk() -> Desk {
    let (peer, secure) = (Peer::accepting(ports::local()), ports::local());
    let setup = Setup::new()
        .implicit_tls(secure)
        .smart_host(peer.address())
        .key("access.relay.list", "[]")
        .key("access.basic.enabled", "true")
        .key("access.auth_failures.delay", "0s")
        .key("access.auth_failures.ban", "never");
    let site = Site::start(setup);
    let add = ["user", "add", USER, "--password-stdin"];
    site.control().input(&format!("{PASSWORD}\n")).run(&add).ok();
    Desk { peer, site, secure }
}

impl Desk {
    fn logged_in_by(&self, mechanism: &str, times: usize) {
        let line = format!("mech={mechanism} ");
        self.site.logged(&["event=login ", &line, "user=\"ada\""]);
        let log = self.site.log();
        let found = log.lines().filter(|it| it.contains("event=login ") && it.contains(&line));
        assert_eq!(found.count(), times, "{mechanism}");
    }
}

#[test]
fn nodemailer_logs_in_at_either_door() {
    let desk = desk();
    let send = |door: &str, at: SocketAddr, more: &[&str]| {
        nodemailer::send(at, "b@far.test", &[&[door], more].concat(), PASSWORD, &tagged("node"))
    };
    let Some(refused) = send("starttls", desk.site.address(), &[]) else {
        return skip::note("nodemailer under TLS", nodemailer::ABSENT);
    };
    assert!(refused.exited(1).err.contains("550"), "nobody relays without a login");
    // Its own choice, and each that it knows and is told to make.
    send("starttls", desk.site.address(), &[USER]).unwrap().ok();
    send("tls", desk.secure, &[USER]).unwrap().ok();
    send("starttls", desk.site.address(), &[USER, "LOGIN"]).unwrap().ok();
    send("tls", desk.secure, &[USER, "PLAIN"]).unwrap().ok();
    desk.peer.await_received(4);
    desk.logged_in_by("PLAIN", 3);
    desk.logged_in_by("LOGIN", 1);
    let wrong = send("starttls", desk.site.address(), &["eve"]).unwrap();
    assert!(wrong.exited(1).err.contains("535"));
}

#[test]
fn swaks_msmtp_and_python_log_in_at_either_door() {
    let desk = desk();
    let account = ["--auth-user", USER, "--auth-password", PASSWORD];
    for mechanism in ["PLAIN", "LOGIN"] {
        let words = [&["--tls", "--auth", mechanism][..], &account].concat();
        swaks::send(&desk.site, &words).ok();
        let (server, words) = (desk.secure.to_string(), ["--tls-on-connect", "--auth", mechanism]);
        swaks::send(&desk.site, &[&["--server", &server], &words[..], &account].concat()).ok();
    }
    desk.logged_in_by("PLAIN", 2);
    desk.logged_in_by("LOGIN", 2);

    // By its own choice, and by each that it knows.
    let place = desk.site.home().join("msmtprc");
    let trust = desk.site.home().join("state/tls/auto.pem");
    for (number, (method, port, at_once)) in [
        ("on", desk.site.address().port(), false),
        ("plain", desk.secure.port(), true),
        ("login", desk.site.address().port(), false),
        ("scram-sha-256", desk.secure.port(), true),
    ]
    .into_iter()
    .enumerate()
    {
        let starttls = if at_once { "off" } else { "on" };
        let text = format!(
            "account default\nhost 127.0.0.1\nport {port}\nfrom a@client.test\ntls on\ntls_starttls {starttls}\n\
             tls_trust_file {}\ntls_host_override relay.test\nauth {method}\nuser {USER}\n\
             password \"{PASSWORD}\"\n",
            trust.display()
        );
        fs::write(&place, text).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
        let mut msmtp = Command::new("msmtp");
        let body = tagged(&format!("msmtp{number}"));
        program::run(msmtp.arg("-C").arg(&place).arg("b@far.test"), &body).ok();
    }
    desk.logged_in_by("LOGIN", 3);

    // Python's choice, and with it what the others would choose.
    let script = "
import smtplib, ssl, sys
port, secure, password = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
context = ssl._create_unverified_context()
def send(client):
    client.sendmail('a@client.test', ['b@far.test'], 'Subject: python\\r\\n\\r\\nhello\\r\\n')
    client.quit()
for mechanism, known in [('', True), ('PLAIN', True), ('PLAIN', False), ('LOGIN', True), ('LOGIN', False)]:
    for at_once in [False, True]:
        client = smtplib.SMTP_SSL('127.0.0.1', secure, context=context) if at_once else smtplib.SMTP('127.0.0.1', port)
        if not at_once: client.starttls(context=context)
        client.ehlo()
        client.user, client.password = 'ada', password
        if mechanism:
            answer = {'PLAIN': client.auth_plain, 'LOGIN': client.auth_login}[mechanism]
            assert client.auth(mechanism, answer, initial_response_ok=known)[0] == 235
        else:
            client.login('ada', password)
        send(client)
";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", script, &desk.site.address().port().to_string()]);
    program::run(python.args([&desk.secure.port().to_string(), PASSWORD]), b"").ok();
    desk.peer.await_received(4 + 4 + 10);
}

/// What `openssl s_client` hears, with these lines typed under TLS.
fn typed(address: SocketAddr, lines: &[String]) -> String {
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-quiet", "-crlf", "-ign_eof", "-starttls", "smtp", "-connect"]);
    let typed = ["EHLO client.test".to_owned()]
        .iter()
        .chain(lines)
        .fold(String::new(), |all, it| all + it + "\n");
    let tail = "MAIL FROM:<a@client.test>\nRCPT TO:<b@far.test>\nQUIT\n";
    program::run(openssl.arg(address.to_string()), (typed + tail).as_bytes()).out
}

#[test]
fn a_hand_at_openssl_logs_in_by_every_form_of_a_password() {
    let desk = desk();
    let word = |text: &str| base64(text.as_bytes());
    let plain = auth_plain(USER, PASSWORD);
    let initial = plain.rsplit(' ').next().unwrap().to_owned();
    let forms: [Vec<String>; 6] = [
        vec![plain.clone()],
        vec!["AUTH PLAIN".to_owned(), initial.clone()],
        vec!["AUTH LOGIN".to_owned(), word(USER), word(PASSWORD)],
        vec![format!("AUTH LOGIN {}", word(USER)), word(PASSWORD)],
        // Given up and begun anew, in small letters.
        vec!["AUTH LOGIN".to_owned(), "*".to_owned(), plain.replace("AUTH PLAIN", "auth plain")],
        // Somebody else first.
        vec![auth_plain("eve", PASSWORD), "auth login".to_owned(), word(USER), word(PASSWORD)],
    ];
    for form in &forms {
        let heard = typed(desk.site.address(), form);
        assert!(heard.contains("\n235 2.7.0"), "{form:?}: {heard}");
        assert!(heard.contains("\n250 2.1.5") && heard.contains("\n221 "), "{form:?}: {heard}");
    }
    let heard = typed(desk.site.address(), &[]);
    assert!(heard.contains("\n550 5.7.1"), "{heard}");
}

/// Clients whose order is known, each with the mechanisms that it knows, the dearest first, as it is set up as a
/// rule: a password that is not encrypted but by TLS.
const ORDERS: [(&str, &[&str]); 5] = [
    ("Thunderbird", &["PLAIN", "LOGIN"]),
    ("Outlook", &["LOGIN", "PLAIN"]),
    ("Apple Mail", &["CRAM-MD5", "PLAIN", "LOGIN"]),
    ("Go and .NET libraries", &["PLAIN"]),
    ("old devices", &["CRAM-MD5", "DIGEST-MD5", "NTLM", "LOGIN"]),
];

#[test]
fn each_order_of_mechanisms_finds_one_that_is_offered() {
    let desk = desk();
    for (client, order) in ORDERS {
        let mut talk = Talk::under_tls(desk.secure).unwrap();
        assert_eq!(talk.reply().unwrap().code, 220);
        let offered = talk.expect("EHLO client.test", 250);
        let words: Vec<&str> = offered
            .lines
            .iter()
            .find_map(|line| line.strip_prefix("AUTH "))
            .unwrap_or_else(|| panic!("no AUTH in {offered}"))
            .split(' ')
            .collect();
        let chosen = order.iter().find(|it| words.contains(it));
        match *chosen.unwrap_or_else(|| panic!("{client} finds nothing in {words:?}")) {
            "PLAIN" => drop(talk.expect(&auth_plain(USER, PASSWORD), 235)),
            "LOGIN" => {
                talk.expect("AUTH LOGIN", 334);
                talk.expect(&base64(USER.as_bytes()), 334);
                talk.expect(&base64(PASSWORD.as_bytes()), 235);
            }
            other => panic!("{other} is offered, which this test does not speak"),
        }
        talk.expect("MAIL FROM:<a@client.test>", 250);
        talk.expect("RCPT TO:<b@far.test>", 250);
        // What was refused once is refused again, and the session goes on.
        talk.expect("RSET", 250);
        talk.expect("AUTH CRAM-MD5", 503);
        talk.expect("QUIT", 221);
    }
    // What is not offered is refused without a guess being counted.
    let mut talk = Talk::to(desk.site.address()).starttls();
    talk.expect("EHLO client.test", 250);
    for unknown in ["CRAM-MD5", "DIGEST-MD5", "NTLM", "ANONYMOUS", "GSSAPI", "XOAUTH2"] {
        talk.expect(&format!("AUTH {unknown}"), 504);
    }
    assert!(!desk.site.log().contains("event=login-failed"));
}
