//! Logins that are bound to the connection (SCRAM-SHA-256-PLUS): a real client of another make logs in by
//! them, and one that somebody stands in front of is refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::Command;

use mailroot_tests::program::{self, Finished};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::skip;

const PASSWORD: &str = "correct-horse";

/// A server with one user and these mechanisms.
fn site(mechanisms: &str, setup: Setup) -> Site {
    let setup = setup
        .key("access.basic.enabled", "true")
        .key("access.basic.mechanisms", mechanisms)
        .key("access.auth_failures.delay", "0s")
        .key("access.auth_failures.max", "100");
    let site = Site::start(setup);
    site.control()
        .input(&format!("{PASSWORD}\n"))
        .run(&["user", "add", "ada", "--password-stdin"])
        .ok();
    site
}

fn gsasl(site: &Site, more: &[&str]) -> Option<Finished> {
    let gsasl = program::find("gsasl")?;
    let (host, port) = (site.address().ip().to_string(), site.address().port().to_string());
    let mut command = Command::new(gsasl);
    command.args(["--smtp", "--starttls", "--x509-ca-file=", "--authentication-id=ada"]);
    command.arg("--verbose").args(more).args([host, port]);
    Some(program::run(&mut command, b""))
}

#[test]
fn a_client_of_another_make_binds_its_login() {
    let site = site("[SCRAM-SHA-256-PLUS, SCRAM-SHA-256]", Setup::new());
    let password = format!("--password={PASSWORD}");
    let Some(done) = gsasl(&site, &["--mechanism=SCRAM-SHA-256-PLUS", &password]) else {
        return skip::note("logins bound to the connection", "gsasl is not installed");
    };
    assert!(done.out.contains("235 2.7.0"), "{done}");
    site.logged(&["event=login ", "mech=SCRAM-SHA-256-PLUS", "user=\"ada\""]);
    let wrong = gsasl(&site, &["--mechanism=SCRAM-SHA-256-PLUS", "--password=wrong"]).unwrap();
    assert!(!wrong.out.contains("235 2.7.0"), "{wrong}");
    site.logged(&["event=login-failed", "mech=SCRAM-SHA-256-PLUS", "reason=bad-password"]);
}

/// A client that logs in, bound to what it is told to or to nothing: port, version of TLS, mechanism, GS2
/// flag, what to bind to (`end-point`, `other` or `none`).
const CLIENT: &str = "
import base64, hashlib, hmac, smtplib, ssl, sys
port, version, mechanism, flag, bind = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5]
password = sys.argv[6].encode()
context = ssl._create_unverified_context()
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
client = smtplib.SMTP('127.0.0.1', port)
client.ehlo('before.test')
print('before', client.esmtp_features.get('auth', '-'))
client.starttls(context=context)
client.ehlo('under.test')
print('offered', client.esmtp_features.get('auth', '-').strip())
data = {'none': b'', 'other': b'x' * 32,
        'end-point': hashlib.sha256(client.sock.getpeercert(True)).digest()}[bind]
def b64(octets): return base64.b64encode(octets).decode()
def mac(key, text): return hmac.digest(key, text, 'sha256')
bare, head = 'n=ada,r=abcdef', flag + ',,'
code, said = client.docmd('AUTH', mechanism + ' ' + b64((head + bare).encode()))
if code == 334:
    first = base64.b64decode(said).decode()
    asked = dict(part.split('=', 1) for part in first.split(','))
    salted = hashlib.pbkdf2_hmac('sha256', password, base64.b64decode(asked['s']), int(asked['i']))
    key, without = mac(salted, b'Client Key'), 'c=' + b64(head.encode() + data) + ',r=' + asked['r']
    sign = mac(hashlib.sha256(key).digest(), ','.join([bare, first, without]).encode())
    proof = bytes(a ^ b for a, b in zip(key, sign))
    code, said = client.docmd(b64((without + ',p=' + b64(proof)).encode()))
    if code == 334:
        code, said = client.docmd('')
print('code', code)
";

fn client(site: &Site, version: &str, words: [&str; 3]) -> String {
    let port = site.address().port().to_string();
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", CLIENT, &port, version]).args(words).arg(PASSWORD);
    program::run(&mut python, b"").ok()
}

#[test]
fn a_login_is_good_on_the_connection_it_is_bound_to_and_on_no_other() {
    let site = site("[SCRAM-SHA-256-PLUS, SCRAM-SHA-256]", Setup::new());
    let (plus, plain) = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256");
    for version in ["TLSv1_2", "TLSv1_3"] {
        for (mechanism, flag, bind, code) in [
            (plus, "p=tls-server-end-point", "end-point", "235"),
            (plus, "p=tls-server-end-point", "other", "535"),
            (plus, "p=tls-server-end-point", "none", "535"),
            (plus, "p=tls-exporter", "other", "535"),
            (plus, "p=tls-unique", "other", "535"),
            (plus, "n", "none", "501"),
            (plain, "n", "none", "235"),
            (plain, "y", "none", "535"),
            (plain, "p=tls-server-end-point", "end-point", "501"),
        ] {
            let said = client(&site, version, [mechanism, flag, bind]);
            let case = format!("{version} {mechanism} {flag} {bind}: {said}");
            assert!(said.contains(&format!("code {code}\n")), "{case}");
            assert!(said.contains("before -\n"), "{case}");
            assert!(said.contains(&format!("offered {plus} {plain}\n")), "{case}");
        }
    }
    site.logged(&["event=reject", "stage=auth", "reason=channel-differs"]);
}

#[test]
fn where_it_is_not_offered_a_client_may_say_that_it_could_have() {
    let site = site("[SCRAM-SHA-256]", Setup::new());
    let said = client(&site, "TLSv1_3", ["SCRAM-SHA-256", "y", "none"]);
    assert!(said.contains("code 235\n") && said.contains("offered SCRAM-SHA-256\n"), "{said}");
    let said =
        client(&site, "TLSv1_3", ["SCRAM-SHA-256-PLUS", "p=tls-server-end-point", "end-point"]);
    assert!(said.contains("code 504\n"), "{said}");
    // In clear text there is nothing to bind to.
    let clear = self::site(
        "[SCRAM-SHA-256-PLUS, PLAIN]",
        Setup::new().key("access.basic.require_tls", "false"),
    );
    let offered = clear.talk().expect("EHLO client.test", 250);
    assert!(offered.lines.contains(&"AUTH PLAIN".to_owned()), "{offered}");
}
