//! Logins by Kerberos with tickets of a real realm: ours at a Postfix whose Dovecot knows them, and
//! those of clients at our service.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::Command;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::dovecot::{self, Dovecot};
use mailroot_tests::kdc::{self, Kdc, REALM};
use mailroot_tests::message::tagged;
use mailroot_tests::ports;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::program::{self, Finished};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::wait;

const NAME: &str = "smtp.isp.test";
const WHAT: &str = "logins by Kerberos";
const TAKING: &str = "logins of clients by Kerberos";
const PASSWORD: &str = "a word of ours";

/// The realm, the host in it, and a daemon that is to log in there; each part absent is a skip.
struct World {
    site: Site,
    kdc: Kdc,
    postfix: Postfix,
    _dovecot: Dovecot,
    _dns: Dns,
    _authority: Authority,
}

impl World {
    fn new(host: u8) -> Option<Self> {
        let absent = |why| {
            skip::note(WHAT, why);
            None
        };
        if !knows_kerberos() {
            return absent("smtpd was built without its feature gssapi");
        }
        let Some(kdc) = Kdc::start(&[("relay", PASSWORD)], &format!("smtp/{NAME}")) else {
            return absent(kdc::ABSENT);
        };
        let Some(dovecot) = Dovecot::taking_tickets(&kdc, NAME) else {
            return absent(dovecot::ABSENT);
        };
        let (authority, address) = (Authority::new(), ports::host(host, ports::free()));
        let identity = authority.sign(NAME, Valid::Now);
        let tls = [
            format!("smtpd_tls_chain_files = {}", identity.path().display()),
            "smtpd_tls_security_level = may".to_owned(),
            "tls_random_source = dev:/dev/urandom".to_owned(),
        ];
        let settings = [tls.to_vec(), dovecot.for_postfix("GSSAPI")].concat();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let Some(postfix) = Postfix::start(address, None, &settings) else {
            return absent(postfix::ABSENT);
        };
        let Some(dns) = Dns::serve(&[&format!("{NAME}. 60 IN A {}", address.ip())]) else {
            return absent("unbound is not installed");
        };
        let setup = Setup::new()
            .dns(dns.address(), address.port())
            .service("tls.trust", &authority.file().display().to_string())
            .service("smart_hosts.isp.host", NAME)
            .service("smart_hosts.isp.port", &address.port().to_string())
            .key("delivery.smart_host", "smarthost:isp")
            .key("delivery.connections.reuse", "never");
        let site = Site::prepare(setup);
        site.under(&["env", &kdc.environment()]);
        site.launch();
        Some(Self { site, kdc, postfix, _dovecot: dovecot, _dns: dns, _authority: authority })
    }

    /// Has the smart host log in by tickets.
    fn log_in(&self, more: &[&str]) {
        let user = format!("smart_hosts.isp.auth.user=relay@{REALM}");
        let mut line = vec!["config", "set", "smart_hosts.isp.auth.method=integrated", &user];
        line.extend(more);
        self.site.ctl(&line).ok();
    }

    fn send(&self, word: &str) {
        let mut talk = self.site.talk();
        talk.expect("EHLO client.test", 250);
        let sent = talk.message("a@local.test", &["b@example.com"], &tagged(word)).unwrap();
        assert_eq!(sent.code, 250);
    }
}

/// Whether the daemon was built with the feature. If not, it says so, and names it.
fn knows_kerberos() -> bool {
    let setup = Setup::new()
        .service("smart_hosts.isp.host", NAME)
        .service("smart_hosts.isp.auth.method", "integrated")
        .service("smart_hosts.isp.auth.user", "relay@MAILROOT.TEST");
    let checked = Site::prepare(setup).run(&["--check"]);
    let said = format!("{}{}", checked.out, checked.err);
    let knows = !said.contains("E0370");
    assert!(knows || said.contains("needs the feature gssapi") && checked.code != 0, "{said}");
    knows
}

#[test]
fn mail_goes_with_a_ticket_got_by_a_key_or_by_a_password() {
    let Some(world) = World::new(41) else { return };
    let secret = world.site.home().join("etc/secrets.d");
    std::fs::create_dir_all(&secret).unwrap();
    let file = secret.join("realm");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, private).unwrap();
    world.log_in(&["smart_hosts.isp.auth.password={file: realm}"]);
    world.send("by-password");
    let first = world.postfix.await_delivered(1);
    let text = first[0].text().to_lowercase();
    let sender = format!("authenticated sender: relay@{REALM}").to_lowercase();
    assert!(text.contains(&sender), "{text}");

    // From here on the password is good no more, but the key is where the library looks for it.
    world.kdc.keep_key_of("relay");
    world.site.ctl(&["config", "unset", "smart_hosts.isp.auth.password"]).ok();
    world.send("by-key");
    world.postfix.await_delivered(2);
    let tested = world.site.ctl(&["smarthost", "test", "isp"]).ok();
    assert!(tested.contains("logged in"), "{tested}");
}

#[test]
fn without_a_ticket_mail_waits_and_says_why() {
    let Some(world) = World::new(42) else { return };
    world.log_in(&[]);
    world.send("no-key");
    let reason = wait::until("a message that waits for a ticket", || {
        let waiting = world.site.control().json(&["queue", "list"]);
        let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("GSSAPI").then_some(reason)
    });
    assert!(reason.contains("the login failed in GSSAPI"), "{reason}");
    assert!(world.postfix.delivered().is_empty());
}

/// A daemon that takes tickets of the realm, for whom the library finds a key of the user `ada`.
fn ticket_taker(more: &[(&str, &str)]) -> Option<(Site, Kdc)> {
    if !knows_kerberos() {
        skip::note(TAKING, "smtpd was built without its feature gssapi");
        return None;
    }
    let Some(kdc) = Kdc::start(&[("ada", PASSWORD)], &format!("smtp/{NAME}")) else {
        skip::note(TAKING, kdc::ABSENT);
        return None;
    };
    kdc.keep_key_of("ada");
    let mut setup = Setup::new()
        .key("access.anonymous", "false")
        .key("access.integrated.enabled", "true")
        .key("access.integrated.realms", &format!("[{REALM}]"))
        .key("access.auth_failures.delay", "0s");
    for (key, value) in more {
        setup = setup.key(key, value);
    }
    let site = Site::prepare(setup);
    let key = format!("KRB5_KTNAME=FILE:{}", kdc.service_key().display());
    site.under(&["env", &kdc.environment(), &key]);
    site.launch();
    Some((site, kdc))
}

/// A client that knows tickets sends a message; how it ended.
fn curl(site: &Site, kdc: &Kdc) -> Finished {
    let (to, text) = (site.address(), site.home().join("message"));
    std::fs::write(&text, tagged("by-ticket")).unwrap();
    let (environment, port) = (kdc.environment(), to.port());
    let (variable, value) = environment.split_once('=').unwrap();
    let mut command = Command::new("curl");
    command
        .env(variable, value)
        .args(["--silent", "--show-error", "--max-time", "60", "--ssl-reqd", "--insecure"])
        .args(["--url", &format!("smtp://{NAME}:{port}/client.test")])
        .args(["--connect-to", &format!("{NAME}:{port}:{}:{port}", to.ip())])
        .args(["--login-options", "AUTH=GSSAPI", "--user", ":"])
        .args(["--mail-from", "ada@client.test", "--mail-rcpt", "b@local.test"])
        .arg("--upload-file")
        .arg(&text);
    program::run(&mut command, b"")
}

#[test]
fn a_client_logs_in_with_a_ticket_as_the_user_whom_the_realm_names() {
    let Some((site, kdc)) = ticket_taker(&[]) else { return };
    curl(&site, &kdc).ok();
    assert!(site.await_dropped(1)[0].text().contains("by-ticket"));
    site.logged(&["event=login ", "mech=GSSAPI", "user=\"ada@mailroot.test\""]);

    // What is said of the user here holds for him, too.
    let ctl = site.control();
    ctl.input("another word\n").run(&["user", "add", "ada@mailroot.test", "--password-stdin"]).ok();
    let eve = ["user", "set", "ada@mailroot.test", "--send-as", "eve@client.test"];
    site.ctl(&eve).ok();
    assert_ne!(curl(&site, &kdc).code, 0);
    site.logged(&["event=reject", "reason=sender-not-allowed"]);
    site.ctl(&["user", "set", "ada@mailroot.test", "--disabled"]).ok();
    assert_ne!(curl(&site, &kdc).code, 0);
    site.logged(&["event=login-failed", "mech=GSSAPI", "reason=disabled"]);
    // Where our users cannot be read nobody knows that, and nobody is let in.
    site.stop();
    let users = site.home().join("state/users.json");
    let kept = std::fs::read_to_string(&users).unwrap();
    std::fs::write(&users, &kept[..kept.len() / 2]).unwrap();
    site.launch();
    assert_ne!(curl(&site, &kdc).code, 0);
    site.logged(&["event=tickets-unusable", "users.json"]);
    site.stop();
    std::fs::write(&users, kept).unwrap();
    site.launch();

    site.ctl(&["user", "remove", "ada@mailroot.test"]).ok();
    site.ctl(&["server", "set", "default", "access.integrated.realms=OTHER.TEST"]).ok();
    assert_ne!(curl(&site, &kdc).code, 0);
    site.logged(&["event=login-failed", "reason=bad-ticket", &format!("user=\"ada@{REALM}\"")]);
    assert_eq!(site.dropped("default").len(), 1);
}

#[test]
fn our_own_client_and_service_know_each_other_by_tickets() {
    let Some((site, kdc)) = ticket_taker(&[("access.basic.domain", "mailroot.test")]) else {
        return;
    };
    let address = site.address();
    let Some(dns) = Dns::serve(&[&format!("{NAME}. 60 IN A {}", address.ip())]) else {
        return skip::note(TAKING, "unbound is not installed");
    };
    let setup = Setup::new()
        .dns(dns.address(), address.port())
        .service("smart_hosts.hub.host", NAME)
        .service("smart_hosts.hub.port", &address.port().to_string())
        .service("smart_hosts.hub.tls", "required")
        .service("smart_hosts.hub.auth.method", "integrated")
        .service("smart_hosts.hub.auth.user", &format!("ada@{REALM}"))
        .key("delivery.smart_host", "smarthost:hub")
        .only_domains(&["{name: branch.test, type: default}"]);
    let branch = Site::prepare(setup);
    branch.under(&["env", &kdc.environment()]);
    branch.launch();
    let mut talk = branch.talk();
    talk.expect("EHLO client.test", 250);
    let sent = talk.message("ada@branch.test", &["b@local.test"], &tagged("between")).unwrap();
    assert_eq!(sent.code, 250);
    assert!(site.await_dropped(1)[0].text().contains("between"));
    site.logged(&["event=login ", "mech=GSSAPI", "user=\"ada\""]);
}

#[test]
fn what_is_no_ticket_is_refused_and_the_session_goes_on() {
    let clear = [("access.basic.require_tls", "false"), ("access.auth_failures.max", "9")];
    let Some((site, _kdc)) = ticket_taker(&clear) else { return };
    let mut talk = site.talk();
    assert!(talk.expect("EHLO client.test", 250).to_string().contains("AUTH GSSAPI"));
    for token in ["eA==", "YIIGhgYJKoZIhvcSAQICAQBuggZ1MIIGcaADAgEFoQMCAQ6i"] {
        talk.expect("AUTH GSSAPI", 334);
        talk.expect(token, 535);
    }
    talk.expect("AUTH GSSAPI =", 501);
    talk.expect("AUTH GSSAPI", 334);
    talk.expect(&"x".repeat(20_000), 500);
    talk.expect("AUTH GSSAPI", 334);
    talk.expect("*", 501);
    talk.expect("MAIL FROM:<a@client.test>", 530);
    site.logged(&["event=ticket-refused"]);
}
