//! Clients that log in with tokens: real clients of three makes, and a provider that is asked about each token
//! under TLS. What it does not call good, or cannot be asked about, lets nobody in.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use mailroot_tests::certificates::Authority;
use mailroot_tests::dns::Dns;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::program::{self, Finished};
use mailroot_tests::provider::{self, Provider, SECRET};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{bearer, ports, skip};
use serde_json::json;

/// A daemon that takes tokens, the provider that judges them, and where mail goes.
struct World {
    site: Site,
    provider: Provider,
    peer: Peer,
    _authority: Authority,
    _dns: Dns,
}

impl World {
    /// `host` is a number of loopback addresses that no other test has.
    fn new(host: u8, keys: &[(&str, &str)]) -> Option<Self> {
        let (authority, peer) = (Authority::new(), Peer::accepting(ports::local()));
        let at = ports::host(host, ports::free());
        let Some(provider) = Provider::start(at, &authority, "scanner@corp.test") else {
            skip::note("logins of clients by tokens", provider::ABSENT);
            return None;
        };
        let Some(dns) = Dns::serve(&[&format!("{}. 60 IN A {}", provider::NAME, at.ip())]) else {
            skip::note("logins of clients by tokens", "unbound is not installed");
            return None;
        };
        let setup = Setup::new()
            .service("dns.resolvers", &format!("[\"{}\"]", dns.address()))
            .service("tls.trust", &authority.file().display().to_string())
            .smart_host(peer.address())
            .key("access.relay.list", "[]")
            .key("access.auth_failures.delay", "0s")
            .key("access.basic.domain", "corp.test")
            .key("access.tokens.enabled", "true")
            .key("access.tokens.scope", "mail")
            .key("access.tokens.introspection", &provider.introspection())
            .key("access.tokens.client_id", "app-1")
            .key("access.tokens.client_secret", "{file: tokens}");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let site = Site::prepare(setup);
        let secrets = site.home().join("etc/secrets.d");
        fs::create_dir_all(&secrets).unwrap();
        fs::write(secrets.join("tokens"), SECRET).unwrap();
        fs::set_permissions(secrets.join("tokens"), fs::Permissions::from_mode(0o600)).unwrap();
        site.launch();
        for user in ["scanner", "boss"] {
            let add = ["user", "add", user, "--password-stdin"];
            site.control().input("a password nobody uses\n").run(&add).ok();
        }
        Some(Self { site, provider, peer, _authority: authority, _dns: dns })
    }

    fn msmtp(&self, mechanism: &str, user: &str, token: &str) -> Finished {
        let (place, port) = (self.site.home().join("msmtprc"), self.site.address().port());
        let text = format!(
            "account default\nhost 127.0.0.1\nport {port}\nfrom a@client.test\ntls on\n\
             tls_trust_file {}\ntls_host_override relay.test\nauth {mechanism}\nuser {user}\n\
             password {token}\n",
            self.site.home().join("state/tls/auto.pem").display()
        );
        fs::write(&place, text).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
        let mut msmtp = Command::new("msmtp");
        program::run(msmtp.arg("-C").arg(&place).arg("b@far.test"), &tagged(mechanism))
    }

    fn client(&self, mechanism: &str, user: &str, token: &str) -> String {
        bearer::client(&self.site, mechanism, user, token)
    }
}

#[test]
fn tokens_log_in_their_user_and_nobody_else() {
    let Some(world) = World::new(191, &[]) else { return };
    let (site, token) = (&world.site, world.provider.token());
    for mechanism in ["oauthbearer", "xoauth2"] {
        world.msmtp(mechanism, "scanner@corp.test", &token).ok();
        site.logged(&[
            "event=login ",
            &format!("mech={}", mechanism.to_uppercase()),
            "user=\"scanner\"",
        ]);
    }
    let mail = site.home().join("mail");
    fs::write(&mail, tagged("curl")).unwrap();
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--ssl-reqd",
        "--insecure",
        "--mail-from",
        "a@client.test",
    ]);
    curl.args(["--mail-rcpt", "b@far.test", "--user", "scanner", "--oauth2-bearer", &token]);
    program::run(curl.arg("-T").arg(&mail).arg(format!("smtp://{}", site.address())), b"").ok();
    assert_eq!(world.peer.await_received(3).len(), 3);
    // One question for all of them, by whom the provider knows.
    let judged = world.provider.judged();
    assert_eq!(judged.len(), 1, "{judged:?}");
    assert_eq!(
        (&judged[0]["client_id"], &judged[0]["client_secret"]),
        (&json!("app-1"), &json!(SECRET))
    );

    let words = "{\"status\":\"401\",\"schemes\":\"bearer\"}";
    for mechanism in ["OAUTHBEARER", "XOAUTH2"] {
        for (user, token, good) in [
            ("", &*token, true),
            ("SCANNER@corp.test", &token, true),
            ("boss", &token, false),
            ("scanner@other.test", &token, false),
            ("scanner", "no.such-token", false),
        ] {
            let said = world.client(mechanism, user, token);
            let case = format!("{mechanism} {user} {token}: {said}");
            assert!(said.starts_with("before -\noffered OAUTHBEARER XOAUTH2\n"), "{case}");
            let answers = if good { "code 235\nrcpt 250\n" } else { "code 535\nrcpt 550\n" };
            assert!(said.ends_with(answers), "{case}");
            assert_eq!(said.contains(&format!("told {words}\n")), !good, "{case}");
        }
    }
    site.logged(&["event=login-failed", "mech=XOAUTH2", "reason=bad-token"]);
    site.logged(&["event=login-failed", "mech=OAUTHBEARER", "reason=bad-identity"]);
    // In clear text no token is listened to.
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("AUTH XOAUTH2 dXNlcj1hAWF1dGg9QmVhcmVyIHQBAQ==", 538);
    let log = site.log();
    assert!(!log.contains(&token) && !log.contains(SECRET));
}

#[test]
fn a_token_for_somebody_else_is_no_good() {
    let keys = [
        ("access.tokens.issuer", "https://login.test"),
        ("access.tokens.audience", "[mail, smtp]"),
        ("access.tokens.keep", "0s"),
        ("access.auth_failures.max", "100"),
    ];
    let Some(world) = World::new(192, &keys) else { return };
    let token = world.provider.token();
    let good = json!({"iss": "https://login.test", "aud": ["web", "mail"]});
    let code = |claims: &serde_json::Value| {
        world.provider.set("claims", claims);
        let said = world.client("OAUTHBEARER", "scanner", &token);
        said.lines().find_map(|line| line.strip_prefix("code ")).unwrap().to_owned()
    };
    assert_eq!(code(&good), "235");
    for (name, value) in [
        ("iss", json!("https://other.test")),
        ("aud", json!("web")),
        ("scope", json!("calendar")),
        ("exp", json!(1_000_000_000)),
        ("nbf", json!(9_000_000_000_u64)),
        ("token_type", json!("refresh_token")),
        ("active", json!(false)),
        ("username", json!("nobody@corp.test")),
        ("username", json!("boss")),
    ] {
        let mut claims = good.clone();
        claims[name] = value;
        assert_eq!(code(&claims), "535", "{claims}");
    }
    assert_eq!(code(&good), "235");
    world.site.ctl(&["user", "set", "scanner", "--disabled"]).ok();
    assert_eq!(code(&good), "535");
    world.site.logged(&["event=login-failed", "mech=OAUTHBEARER", "reason=disabled"]);
}

#[test]
fn the_provider_is_not_asked_about_tokens_of_who_is_shut_out() {
    let Some(world) = World::new(194, &[("access.auth_failures.max", "2")]) else { return };
    for (user, asked) in [("scanner", 1), ("scanner", 2), ("scanner", 2), ("boss", 3), ("", 4)] {
        let said = world.client("XOAUTH2", user, "no.such-token");
        assert!(said.ends_with("code 535\nrcpt 550\n"), "{user}: {said}");
        assert_eq!(world.provider.judged().len(), asked, "{user}");
    }
    world.site.logged(&["event=login-failed", "mech=XOAUTH2", "reason=banned"]);
}

#[test]
fn where_the_provider_gives_no_answer_nobody_is_let_in_and_nobody_is_shut_out() {
    let keys = [("access.auth_failures.max", "2")];
    let Some(mut world) = World::new(193, &keys) else { return };
    let (known, other) = (world.provider.token(), world.provider.token());
    assert!(world.client("XOAUTH2", "scanner", &known).contains("code 235\n"));
    for claims in [json!(500), json!(401), json!({"active": "true"}), json!({"username": null})] {
        world.provider.set("claims", &claims);
        let said = world.client("XOAUTH2", "scanner", &other);
        assert!(said.ends_with("code 454\nrcpt 550\n"), "{claims}: {said}");
        // What it said a moment ago still counts.
        assert!(world.client("XOAUTH2", "scanner", &known).contains("code 235\n"));
    }
    world.site.logged(&["event=token-not-judged", "status 500"]);
    world.site.logged(&["event=token-not-judged", "does not say whether the token is active"]);
    world.site.logged(&["event=token-not-judged", "it has no username"]);
    world.provider.stop();
    let said = world.client("OAUTHBEARER", "scanner", &other);
    assert!(said.ends_with("code 454\nrcpt 550\n"), "{said}");
    world.site.logged(&["event=token-not-judged", "cannot connect"]);
    assert!(!world.site.log().contains("event=login-failed"));
}

#[test]
fn tokens_that_nobody_could_judge_are_told() {
    let check = |keys: &[(&str, &str)]| {
        let setup = Setup::new().key("access.tokens.enabled", "true");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let checked = Site::prepare(setup).run(&["--check"]);
        format!("{}{}", checked.out, checked.err)
    };
    let (at, url) = ("access.tokens.introspection", "https://login.test/introspect");
    for keys in [
        &[][..],
        &[(at, url), ("access.tokens.mechanisms", "[]")],
        &[(at, url), ("access.tls.mode", "off"), ("access.basic.require_tls", "false")],
        &[(at, url), ("access.tokens.client_secret", "{file: x}")],
    ] {
        let said = check(keys);
        assert!(said.contains("E0387"), "{keys:?}: {said}");
    }
    assert!(check(&[(at, url)]).contains("W0476"));
    let said = check(&[(at, url), ("access.tokens.audience", "mail")]);
    assert!(!said.contains("W0476") && !said.contains("E0387"), "{said}");
    assert!(check(&[(at, "http://login.test/introspect")]).contains("E0316"));
}
