//! Clients that log in with signed tokens (JWT), made by PyJWT and judged by the keys of a provider.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use mailroot_tests::certificates::Authority;
use mailroot_tests::dns::Dns;
use mailroot_tests::peer::Peer;
use mailroot_tests::provider::{self, Provider};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{bearer, ports, program, skip};
use serde_json::{Value, json};
use tempfile::TempDir;

const WHAT: &str = "logins of clients by signed tokens";
const ISSUER: &str = "https://login.test/realm";

/// A daemon that takes signed tokens, the provider whose keys they are, and a place of secret keys.
struct World {
    site: Site,
    provider: Provider,
    keys: TempDir,
    _peer: Peer,
    _authority: Authority,
    _dns: Dns,
}

/// What `tests/oauth/signer.py` prints.
fn signer(arguments: &[&str]) -> String {
    let mut python = Command::new("/usr/bin/python3");
    python.arg(program::repository().join("tests/oauth/signer.py"));
    program::run(python.args(arguments), b"").ok()
}

fn has_pyjwt() -> bool {
    let mut python = Command::new("/usr/bin/python3");
    program::run(python.args(["-c", "import cryptography, jwt"]), b"").code == 0
}

impl World {
    fn new(host: u8, keys: &[(&str, &str)]) -> Option<Self> {
        let absent = |why: &str| {
            skip::note(WHAT, why);
            None
        };
        if !has_pyjwt() {
            return absent("python3-jwt is not installed");
        }
        let (authority, peer) = (Authority::new(), Peer::accepting(ports::local()));
        let at = ports::host(host, ports::free());
        let Some(provider) = Provider::start(at, &authority, "scanner@corp.test") else {
            return absent(provider::ABSENT);
        };
        let Some(dns) = Dns::serve(&[&format!("{}. 60 IN A {}", provider::NAME, at.ip())]) else {
            return absent("unbound is not installed");
        };
        let setup = Setup::new()
            .service("dns.resolvers", &format!("[\"{}\"]", dns.address()))
            .service("tls.trust", &authority.file().display().to_string())
            .smart_host(peer.address())
            .key("access.relay.list", "[]")
            .key("access.auth_failures.delay", "0s")
            .key("access.auth_failures.max", "100")
            .key("access.basic.domain", "corp.test")
            .key("access.tokens.enabled", "true")
            .key("access.tokens.jwks", &provider.keys())
            .key("access.tokens.issuer", ISSUER)
            .key("access.tokens.audience", "[smtp, mail]")
            .key("access.tokens.scope", "mail.send")
            .key("access.tokens.user", "preferred_username");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let site = Site::start(setup);
        let add = ["user", "add", "scanner", "--password-stdin"];
        site.control().input("a password nobody uses\n").run(&add).ok();
        let keys = tempfile::tempdir().unwrap();
        Some(Self { site, provider, keys, _peer: peer, _authority: authority, _dns: dns })
    }

    fn place(&self) -> &Path {
        self.keys.path()
    }

    /// Makes keys anew, and has the provider show them.
    fn show_keys(&self, names: &[&str]) -> Value {
        let place = self.place().to_str().unwrap();
        let made = signer(&[&["keys", place][..], names].concat());
        let set: Value = serde_json::from_str(&made).unwrap();
        self.provider.set("keys", &set);
        set
    }

    fn sign(&self, key: &str, header: &Value, claims: &Value) -> String {
        let (header, claims) = (header.to_string(), claims.to_string());
        signer(&["token", self.place().to_str().unwrap(), key, &header, &claims])
    }

    /// How a login with this token ends.
    fn code(&self, token: &str) -> String {
        let said = bearer::client(&self.site, "OAUTHBEARER", "", token);
        let code = said.lines().find_map(|line| line.strip_prefix("code ")).unwrap().to_owned();
        let recipient = if code == "235" { "rcpt 250" } else { "rcpt 550" };
        assert!(said.contains(recipient), "{said}");
        code
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn good() -> Value {
    json!({
        "iss": ISSUER, "aud": ["web", "smtp"], "scope": "read mail.send", "exp": now() + 600,
        "nbf": now(), "preferred_username": "Scanner@corp.test",
    })
}

#[test]
fn tokens_that_the_provider_has_signed_log_in_their_user() {
    let algorithms = "[RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]";
    let Some(world) = World::new(195, &[("access.tokens.algorithms", algorithms)]) else { return };
    world.show_keys(&["rsa1", "p2561", "p3841", "ed1"]);
    for (key, algorithm) in [
        ("rsa1", "RS256"),
        ("rsa1", "RS384"),
        ("rsa1", "RS512"),
        ("rsa1", "PS256"),
        ("rsa1", "PS384"),
        ("rsa1", "PS512"),
        ("p2561", "ES256"),
        ("p3841", "ES384"),
        ("ed1", "EdDSA"),
    ] {
        let named = world.sign(key, &json!({"alg": algorithm, "kid": key}), &good());
        assert_eq!(world.code(&named), "235", "{algorithm}");
        // Without a name the only key that fits is meant.
        let unnamed = world.sign(key, &json!({"alg": algorithm, "typ": "at+jwt"}), &good());
        assert_eq!(world.code(&unnamed), "235", "{algorithm}");
    }
    world.site.logged(&["event=login ", "mech=OAUTHBEARER", "user=\"scanner\""]);
    assert_eq!(world.provider.keys_asked(), 1, "all of them by one answer");
    let token = world.sign("rsa1", &json!({"alg": "RS256", "kid": "rsa1"}), &good());
    let boss = bearer::client(&world.site, "XOAUTH2", "boss", &token);
    assert!(boss.contains("code 535\nrcpt 550"), "{boss}");
    world.site.logged(&["event=login-failed", "reason=bad-identity"]);
    assert!(!world.site.log().contains(&token));
}

#[test]
fn tokens_of_others_for_others_and_of_another_time_are_no_good() {
    let Some(world) = World::new(196, &[]) else { return };
    world.show_keys(&["rsa1", "small1", "p2561"]);
    let rs256 = json!({"alg": "RS256", "kid": "rsa1"});
    assert_eq!(world.code(&world.sign("rsa1", &rs256, &good())), "235");
    for (name, value, why) in [
        ("iss", json!("https://login.test/other"), "somebody else gave it"),
        ("aud", json!("web"), "for somebody else"),
        ("scope", json!("read"), "good for something else"),
        ("exp", json!(now() - 61), "it is over"),
        ("nbf", json!(now() + 300), "it has not begun"),
        ("typ", json!("Refresh"), "no token for access"),
        ("cnf", json!({"jkt": "x"}), "no token for access"),
        ("preferred_username", json!(7), "whose it is"),
    ] {
        let mut claims = good();
        claims[name] = value;
        assert_eq!(world.code(&world.sign("rsa1", &rs256, &claims)), "535", "{claims}");
        world.site.logged(&["event=token-no-good", why]);
    }
    let mut endless = good();
    endless.as_object_mut().unwrap().remove("exp");
    assert_eq!(world.code(&world.sign("rsa1", &rs256, &endless)), "535");
    for (key, header, why) in [
        ("rsa1", json!({"alg": "none", "kid": "rsa1"}), "not signed by an algorithm"),
        // The public key, which everybody knows, as a secret.
        ("rsa1", json!({"alg": "HS256", "kid": "rsa1"}), "not signed by an algorithm"),
        ("rsa1", json!({"alg": "RS384", "kid": "rsa1"}), "not signed by an algorithm"),
        ("rsa1", json!({"alg": "RS256", "kid": "p2561"}), "shows no key"),
        ("p2561", json!({"alg": "ES256", "kid": "rsa1"}), "shows no key"),
        ("small1", json!({"alg": "RS256", "kid": "small1"}), "shows no key"),
        ("small1", json!({"alg": "RS256", "kid": "rsa1"}), "signature is wrong"),
        ("rsa1", json!({"alg": "RS256", "kid": "rsa1", "crit": ["x"]}), "(crit)"),
        ("rsa1", json!({"alg": "RS256", "kid": "rsa1", "typ": "dpop+jwt"}), "no token for access"),
        // Where the token says that its key lies nobody looks.
        (
            "p2561",
            json!({"alg": "ES256", "kid": "rsa9", "jku": world.provider.keys()}),
            "shows no key",
        ),
    ] {
        assert_eq!(world.code(&world.sign(key, &header, &good())), "535", "{header}");
        world.site.logged(&["event=token-no-good", why]);
    }
    let token = world.sign("rsa1", &rs256, &good());
    let (said, signature) = token.rsplit_once('.').unwrap();
    let other = world.sign("rsa1", &rs256, &endless);
    let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    for token in [said, &format!("{said}."), &swapped, "no.such-token", "a.b.c.d.e"] {
        assert_eq!(world.code(token), "535", "{token}");
    }
    assert_eq!(world.code(&token), "235");
    world.site.ctl(&["user", "set", "scanner", "--disabled"]).ok();
    assert_eq!(world.code(&token), "535");
    world.site.logged(&["event=login-failed", "mech=OAUTHBEARER", "reason=disabled"]);
}

#[test]
fn a_new_key_is_asked_for_and_made_up_ones_not_again_and_again() {
    let Some(world) = World::new(197, &[]) else { return };
    let first = world.show_keys(&["rsa1"]);
    let by = |key: &str| world.sign(key, &json!({"alg": "RS256", "kid": key}), &good());
    let old = by("rsa1");
    assert_eq!(world.code(&old), "235");
    for _ in 0..3 {
        let made_up = json!({"alg": "RS256", "kid": "made-up"});
        assert_eq!(world.code(&world.sign("rsa1", &made_up, &good())), "535");
    }
    assert_eq!(world.provider.keys_asked(), 1, "not within a minute");
    // What a reload forgets is asked for anew: the first key is gone then.
    world.show_keys(&["rsa2"]);
    world.site.ctl(&["server", "set", "default", "access.tokens.leeway=30s"]).ok();
    assert_eq!(world.code(&by("rsa2")), "235");
    assert_eq!(world.code(&old), "535");
    assert!(first["keys"][0]["kid"] == "rsa1" && world.provider.keys_asked() == 2);
}

#[test]
fn without_keys_nobody_is_let_in_and_nobody_is_shut_out() {
    let keys = [("access.auth_failures.max", "2")];
    let Some(mut world) = World::new(198, &keys) else { return };
    let set = world.show_keys(&["rsa1"]);
    let token = world.sign("rsa1", &json!({"alg": "RS256", "kid": "rsa1"}), &good());
    let mut padded = set.clone();
    padded["keys"][0]["x5c"] = json!(["A".repeat(300_000)]);
    for (keys, why) in [
        (json!(500), "status 500"),
        (json!({"keys": []}), "no keys that tokens"),
        (json!({"keys": [{"kty": "oct", "kid": "rsa1", "k": "c2VjcmV0"}]}), "no keys that tokens"),
        (json!("nothing"), "no keys that tokens"),
        (padded, "longer than 262144 octets"),
    ] {
        world.provider.set("keys", &keys);
        // Each reload forgets that there was just no answer.
        for leeway in ["10s", "20s"] {
            let leeway = format!("access.tokens.leeway={leeway}");
            world.site.ctl(&["server", "set", "default", &leeway]).ok();
            assert_eq!(world.code(&token), "454", "{keys}");
        }
        world.site.logged(&["event=token-not-judged", why]);
    }
    world.provider.stop();
    world.site.ctl(&["server", "set", "default", "access.tokens.leeway=40s"]).ok();
    assert_eq!(world.code(&token), "454");
    world.site.logged(&["event=token-not-judged", "cannot connect"]);
    assert!(!world.site.log().contains("event=login-failed"));
    world.provider.launch();
    world.provider.set("keys", &set);
    world.site.ctl(&["server", "set", "default", "access.tokens.leeway=50s"]).ok();
    assert_eq!(world.code(&token), "235");
}

#[test]
fn signed_tokens_that_nobody_could_judge_are_told() {
    let check = |keys: &[(&str, &str)]| {
        let setup = Setup::new().key("access.tokens.enabled", "true");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let checked = Site::prepare(setup).run(&["--check"]);
        format!("{}{}", checked.out, checked.err)
    };
    let (jwks, issuer) = ("access.tokens.jwks", ("access.tokens.issuer", ISSUER));
    let whole = [(jwks, "https://login.test/keys"), issuer, ("access.tokens.audience", "smtp")];
    let said = check(&whole);
    assert!(!said.contains("E03") && !said.contains("W0476"), "{said}");
    for (keys, label) in [
        (&whole[..2], "a token for something else"),
        (&[whole[0], whole[2]], "may sign for many"),
        (&[(jwks, "http://127.0.0.1/keys"), whole[1], whole[2]], "without TLS"),
        (
            &[
                whole[0],
                whole[1],
                whole[2],
                ("access.tokens.introspection", "https://login.test/i"),
            ],
            "two judges",
        ),
        (&[whole[0], whole[1], whole[2], ("access.tokens.client_id", "x")], "nobody is asked"),
        (
            &[whole[0], whole[1], whole[2], ("access.tokens.client_secret", "{file: x}")],
            "nobody is asked",
        ),
        (&[whole[0], whole[1], whole[2], ("access.tokens.keep", "0s")], "keep says nothing about"),
        (&[whole[0], whole[1], whole[2], ("access.tokens.algorithms", "[]")], "no signature"),
    ] {
        let said = check(keys);
        assert!(said.contains("E0388") && said.contains(label), "{keys:?}: {said}");
    }
    for algorithm in ["none", "HS256"] {
        let keys = [&whole[..], &[("access.tokens.algorithms", algorithm)]].concat();
        assert!(check(&keys).contains("E0206"), "{algorithm}");
    }
}
