//! Logins by Kerberos at a Postfix whose Dovecot knows tickets of a real realm.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::dovecot::{self, Dovecot};
use mailroot_tests::kdc::{self, Kdc, REALM};
use mailroot_tests::message::tagged;
use mailroot_tests::ports;
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::wait;

const NAME: &str = "smtp.isp.test";
const WHAT: &str = "logins by Kerberos";
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
