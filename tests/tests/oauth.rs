//! Logins by tokens: a provider that gives them under TLS, and a real Postfix whose Dovecot asks that provider
//! whether each of them is good.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::dovecot::{self, Dovecot};
use mailroot_tests::message::tagged;
use mailroot_tests::peer::{Answer, Event, Peer, Stage};
use mailroot_tests::postfix::{self, Postfix};
use mailroot_tests::program::Finished;
use mailroot_tests::provider::{self, Provider, RIGHT, SECRET};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, program, skip, wait};
use serde_json::json;

const NAME: &str = "smtp.cloud.test";
const MAILBOX: &str = "scanner@postfix.test";

/// A daemon, a provider of tokens, and where the smart host belongs.
struct World {
    site: Site,
    provider: Provider,
    authority: Authority,
    address: SocketAddr,
    _dns: Dns,
}

impl World {
    /// `host` is a number of loopback addresses that no other test has.
    fn new(host: u8) -> Option<Self> {
        let authority = Authority::new();
        let address = ports::host(host, ports::free());
        let at = ports::host(host, ports::free());
        let Some(provider) = Provider::start(at, &authority, MAILBOX) else {
            skip::note("logins by tokens", provider::ABSENT);
            return None;
        };
        let names = [
            format!("{NAME}. 60 IN A {}", address.ip()),
            format!("{}. 60 IN A {}", provider::NAME, at.ip()),
        ];
        let Some(dns) = Dns::serve(&[&names[0], &names[1]]) else {
            skip::note("logins by tokens", "unbound is not installed");
            return None;
        };
        let setup = Setup::new().dns(dns.address(), address.port());
        let site = Site::start(setup.key("delivery.connections.reuse", "never"));
        site.ctl(&["config", "set", &format!("tls.trust={}", authority.file().display())]).ok();
        let smart_host = format!("{NAME}:{}", address.port());
        site.ctl(&["smarthost", "set", &smart_host, "--name", "cloud"]).ok();
        Some(Self { site, provider, authority, address, _dns: dns })
    }

    /// Postfix as the smart host, which takes tokens shown by this mechanism.
    fn host(&self, mechanism: &str) -> Option<(Postfix, Dovecot)> {
        let Some(dovecot) = Dovecot::judging_tokens(self.provider.plain()) else {
            skip::note("logins by tokens", dovecot::ABSENT);
            return None;
        };
        let identity = self.authority.sign(NAME, Valid::Now);
        let tls = [
            format!("smtpd_tls_chain_files = {}", identity.path().display()),
            "smtpd_tls_security_level = may".to_owned(),
            "tls_random_source = dev:/dev/urandom".to_owned(),
        ];
        let settings = [tls.to_vec(), dovecot.for_postfix(mechanism)].concat();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let Some(postfix) = Postfix::start(self.address, None, &settings) else {
            skip::note("logins by tokens", postfix::ABSENT);
            return None;
        };
        Some((postfix, dovecot))
    }

    /// `smarthost login` with these options, and on standard input a secret.
    fn login(&self, secret: &str, options: &[&str]) -> Finished {
        let (token, device) =
            (self.provider.endpoint("token"), self.provider.endpoint("devicecode"));
        let mut line = vec!["smarthost", "login", "cloud", "--mailbox", MAILBOX];
        line.extend(["--client-id", "app-1", "--token-endpoint", &token]);
        line.extend(["--device-endpoint", &device]);
        line.extend(options);
        self.site.control().input(secret).run(&line)
    }

    fn login_by_client(&self, secret: &str) -> Finished {
        self.login(secret, &["--client-credentials", "--client-secret-stdin"])
    }

    fn test(&self) -> String {
        self.site.ctl(&["smarthost", "test", "cloud"]).ok()
    }

    fn send(&self, word: &str) {
        let mut talk = self.site.talk();
        talk.expect("EHLO client.test", 250);
        let sent = talk.message("a@local.test", &["b@example.com"], &tagged(word)).unwrap();
        assert_eq!(sent.code, 250);
    }

    fn await_reason(&self, part: &str) -> String {
        wait::until(&format!("a message that waits because of {part:?}"), || {
            let waiting = self.site.control().json(&["queue", "list"]);
            let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
            reason.contains(part).then_some(reason)
        })
    }

    /// Nothing that an operator sees has a secret in it.
    fn must_keep_secrets(&self) {
        let site = &self.site;
        let mut seen = site.log();
        for line in [
            &["smarthost", "list", "-o", "json"][..],
            &["smarthost", "show", "cloud"],
            &["smarthost", "show", "cloud", "-o", "json"],
            &["trace", "--last", "20", "-o", "json"],
            &["queue", "list", "-o", "json"],
            &["config", "export"],
            &["config", "show"],
        ] {
            seen.push_str(&site.ctl(line).ok());
        }
        for secret in self.provider.secrets() {
            assert!(!seen.contains(&secret), "{secret} is told in {seen}");
        }
    }
}

#[test]
fn each_mechanism_logs_in_with_a_token() {
    let Some(world) = World::new(31) else { return };
    for mechanism in ["xoauth2", "oauthbearer"] {
        let Some((postfix, _dovecot)) = world.host(&mechanism.to_uppercase()) else { return };
        let options = ["--client-credentials", "--client-secret-stdin", "--mechanism", mechanism];
        let told = world.login(SECRET, &options).ok();
        assert!(told.contains("token of cloud for scanner@postfix.test"), "{told}");
        assert!(told.contains("logged in"), "{told}");
        world.send(mechanism);
        let delivered = postfix.await_delivered(1);
        let text = delivered[0].text();
        assert!(text.contains("(Authenticated sender: scanner@postfix.test)"), "{text}");
        world.site.await_empty_queue();
        let listed = world.site.control().json(&["smarthost", "list"]);
        assert_eq!((&listed[0]["auth"], &listed[0]["user"]), (&mechanism.into(), &MAILBOX.into()));
        assert!(listed[0]["token_until"].is_string(), "{listed}");
        let shown = world.site.ctl(&["smarthost", "show", "cloud"]).ok();
        assert!(shown.contains("The token at hand is good until: 59m"), "{shown}");
    }
    // One token for each login of ours; mail and tests used the one at hand.
    assert_eq!(world.provider.requests().len(), 2);
    world.must_keep_secrets();
    let state = world.site.home().join("state/oauth");
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(state.join("cloud")).unwrap().mode() & 0o777, 0o600);
    let secret = world.site.home().join("etc/secrets.d/cloud.client-secret");
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);

    // Back to a password: what belonged to tokens goes.
    let line = ["smarthost", "set", "--name", "cloud", "--user", "u", "--password-stdin"];
    world.site.control().input("p\n").run(&line).ok();
    let listed = world.site.control().json(&["smarthost", "list"]);
    assert_eq!((&listed[0]["auth"], &listed[0]["user"]), (&"basic".into(), &"u".into()));
}

/// A certificate and its key: the file of the one, and the texts of both.
fn certificate(folder: &Path, name: &str) -> (PathBuf, String, String) {
    let (key, file) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.cert")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=application", "-keyout"]).arg(&key).arg("-out").arg(&file);
    program::run(&mut openssl, b"").ok();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let (certificate, key) = (read(&file), read(&key));
    (file, certificate, key)
}

#[test]
fn an_application_proves_itself_by_a_certificate() {
    if program::find("openssl").is_none() {
        return skip::note("an application with a certificate", "openssl is not installed");
    }
    let Some(world) = World::new(37) else { return };
    let Some((postfix, _dovecot)) = world.host("XOAUTH2") else { return };
    let site = &world.site;
    let (known, certificate_text, key) = certificate(site.home(), "known");
    let (_, other_text, other_key) = certificate(site.home(), "other");
    world.provider.set("certificate", &json!(known));
    let pem = site.home().join("both.pem");
    let login = |text: &str| {
        fs::write(&pem, text).unwrap();
        world.login("", &["--client-credentials", "--client-cert", pem.to_str().unwrap()])
    };
    for (text, words) in [
        (
            format!("{other_text}{other_key}"),
            "the certificate of the application is not known there",
        ),
        (format!("{certificate_text}{other_key}"), "is not that of its certificate"),
        (certificate_text.clone(), "holds no private key"),
        (key.clone(), "holds no certificate"),
    ] {
        let told = login(&text).exited(10).out;
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = login(&format!("{certificate_text}{key}")).ok();
    assert!(told.contains("logged in"), "{told}");
    world.send("by certificate");
    postfix.await_delivered(1);
    let kept = site.home().join("etc/secrets.d/cloud.client-certificate");
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o600);
    world.must_keep_secrets();

    // A secret takes its place.
    world.login_by_client(SECRET).ok();
    let config = site.ctl(&["config", "export"]).ok();
    assert!(!config.contains("client_certificate") && config.contains("client_secret"), "{config}");
}

#[test]
fn a_token_that_ended_or_was_taken_back_is_replaced() {
    let Some(world) = World::new(32) else { return };
    let Some((postfix, _dovecot)) = world.host("XOAUTH2") else { return };
    world.login_by_client(SECRET).ok();
    world.test();
    assert_eq!(world.provider.requests().len(), 1, "the token at hand is used");

    // The host knows it no more: another is asked for, once, and the mail does not notice.
    world.provider.set("epoch", &json!(2));
    world.send("taken back");
    postfix.await_delivered(1);
    assert_eq!(world.provider.requests().len(), 2);
    world.site.logged(&["token-refused", "smart_host=cloud", "status 401"]);

    // It ends by itself.
    world.provider.set("life", &json!(1));
    world.login_by_client(SECRET);
    wait::until("a token that is asked for because the last has ended", || {
        world.test();
        (world.provider.requests().len() > 4).then_some(())
    });
    world.must_keep_secrets();
}

#[test]
fn mail_waits_while_no_token_can_be_had() {
    let Some(mut world) = World::new(33) else { return };
    let Some((postfix, _dovecot)) = world.host("XOAUTH2") else { return };

    // Wrong secrets and names, in words.
    let told = world.login_by_client("wrong").exited(10).out;
    assert!(told.contains("the client secret is wrong"), "{told}");
    assert!(told.contains("AADSTS7000215: Invalid client secret provided."), "{told}");
    let site = &world.site;
    for (key, value, words) in [
        ("client_id", "app-2", "the tenant knows no application of this id"),
        ("client_id", "app-1", "the client secret is wrong"),
        (
            "token_endpoint",
            &*world.provider.endpoint("token").replace("tenant.test", "t"),
            "no such tenant",
        ),
        ("token_endpoint", &world.provider.endpoint("token"), "the client secret is wrong"),
    ] {
        site.ctl(&["config", "set", &format!("smart_hosts.cloud.auth.oauth.{key}={value}")]).ok();
        let told = site.ctl(&["smarthost", "test", "cloud"]).exited(10).out;
        assert!(told.contains(words), "{key}={value}: {told}");
    }
    world.send("waits");
    let reason = world.await_reason("the client secret is wrong");
    assert!(reason.contains("4.7.8") && reason.contains("invalid_client"), "{reason}");
    let why = world.site.ctl(&["trace", "--last", "1"]).ok();
    assert!(why.contains("smtpctl smarthost login cloud"), "{why}");
    assert!(why.contains("the client secret is wrong"), "{why}");
    assert!(postfix.delivered().is_empty());

    // Nobody answers.
    world.provider.stop();
    world.site.ctl(&["queue", "flush"]).ok();
    world.await_reason("Connection refused");
    world.provider.launch();
    let told = world.login_by_client(SECRET).ok();
    assert!(told.contains("logged in"), "{told}");
    // It may have been tried already.
    let _flushed = world.site.ctl(&["queue", "flush"]);
    postfix.await_delivered(1);
    world.site.await_empty_queue();
    world.must_keep_secrets();
}

#[test]
fn each_refusal_that_providers_document_is_told_in_words_with_what_to_do() {
    let Some(world) = World::new(30) else { return };
    let Some((_postfix, _dovecot)) = world.host("XOAUTH2") else { return };
    let refused = |status: u16, error: &str, description: &str| json!([status, {"error": error, "error_description": description}]);
    let microsoft = |status, error: &str, code: &str| {
        let trace = "Trace ID: 00000000-0000-0000-0000-000000000000";
        let description = format!("{code}: Words of the provider. {trace}\r\nCorrelation ID: 1");
        refused(status, error, &description)
    };
    let google = |error: &str, description: &str| refused(400, error, description);
    world.login_by_client("any");
    for (answer, words) in [
        (microsoft(401, "invalid_client", "AADSTS7000222"), "the client secret has expired"),
        (microsoft(400, "invalid_grant", "AADSTS700082"), "the refresh token has expired"),
        (microsoft(400, "invalid_grant", "AADSTS70043"), "has people sign in often"),
        (microsoft(400, "invalid_grant", "AADSTS50173"), "as after a change of password"),
        (microsoft(400, "invalid_grant", "AADSTS65001"), "nobody has allowed the application"),
        (microsoft(400, "interaction_required", "AADSTS53003"), "conditional access"),
        (microsoft(400, "invalid_scope", "AADSTS1002012"), "must end in /.default"),
        (microsoft(503, "temporarily_unavailable", "AADSTS90033"), "out of order"),
        (
            google("invalid_grant", "Token has been expired or revoked."),
            "expired, or was taken back",
        ),
        (google("invalid_grant", "reauth related error (invalid_rapt)"), "has sign-ins end"),
        (
            google("invalid_client", "The OAuth client was not found."),
            "does not know the application",
        ),
        (google("unauthorized_client", "Unauthorized"), "may not ask for tokens in this way"),
        (google("admin_policy_enforced", "Blocked"), "a rule of the organization forbids"),
    ] {
        world.provider.set("answer", &answer);
        let told = world.site.ctl(&["smarthost", "test", "cloud"]).exited(10).out;
        assert!(told.contains(words), "{answer}: {told}");
        // The provider's own words are kept, without what only its support can read.
        let own = answer[1]["error_description"].as_str().unwrap().lines().next().unwrap();
        assert!(told.contains(own) && !told.contains("Correlation"), "{answer}: {told}");
    }
    world.provider.set("answer", &json!(null));
    world.login_by_client(SECRET).ok();
}

#[test]
fn a_right_that_no_mail_uses_is_used_in_time_and_goes_with_its_smart_host() {
    let Some(world) = World::new(38) else { return };
    let Some((_postfix, _dovecot)) = world.host("OAUTHBEARER") else { return };
    world.login(RIGHT, &["--refresh-token-stdin", "--mechanism", "oauthbearer"]).ok();
    let asked = world.provider.requests().len();
    let file = world.site.home().join("state/oauth/cloud");
    world.site.stop();
    let mut kept: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert!(kept["right_used"].is_string(), "it is known when the right was used");
    kept["right_used"] = json!("2020-01-01T00:00:00Z");
    fs::write(&file, kept.to_string()).unwrap();
    world.site.launch();
    wait::until("a right that is used without mail", || {
        (world.provider.requests().len() > asked).then_some(())
    });
    wait::until("the new moment of its use", || {
        let kept = fs::read_to_string(&file).unwrap();
        (!kept.contains("2020-01-01")).then_some(())
    });

    // It ends with its smart host.
    world.site.ctl(&["server", "unset", "default", "delivery.smart_host"]).ok();
    world.site.ctl(&["smarthost", "remove", "cloud", "--dry-run"]).ok();
    assert!(file.exists());
    world.site.ctl(&["smarthost", "remove", "cloud"]).ok();
    assert!(!file.exists());
}

#[test]
fn a_right_that_is_about_to_lapse_is_warned_of() {
    let Some(mut world) = World::new(39) else { return };
    let Some((_postfix, _dovecot)) = world.host("OAUTHBEARER") else { return };
    world.login(RIGHT, &["--refresh-token-stdin", "--mechanism", "oauthbearer"]).ok();
    let file = world.site.home().join("state/oauth/cloud");
    world.site.stop();
    world.provider.stop();
    let kept = fs::read_to_string(&file).unwrap();
    let mut kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    kept["right_used"] = json!("2020-01-01T00:00:00Z");
    fs::write(&file, kept.to_string()).unwrap();
    world.site.launch();
    world.site.logged(&["token-right-lapses", "smart_host=cloud", "used=2020-01-01T00:00:00.000Z"]);
    let status = world.site.control().json(&["status"]);
    let warnings = status["warnings"].as_array().unwrap();
    let warning = warnings.iter().find(|it| it["code"] == "smarthost.right").unwrap();
    assert!(warning["text"].as_str().unwrap().contains("gives no token"), "{warning}");
}

#[test]
fn a_right_that_each_use_replaces_survives_a_restart() {
    let Some(world) = World::new(34) else { return };
    let Some((postfix, _dovecot)) = world.host("OAUTHBEARER") else { return };
    let options = ["--refresh-token-stdin", "--mechanism", "oauthbearer"];
    let told = world.login("right.of-nobody", &options).exited(10).out;
    assert!(told.contains("Token has been expired or revoked."), "{told}");
    assert!(told.contains("sign in again"), "{told}");
    world.login(RIGHT, &options).ok();
    world.send("first");
    postfix.await_delivered(1);

    world.site.stop();
    world.site.launch();
    // The token at hand was kept as well; the host takes it no more, so that the right is used.
    world.provider.set("epoch", &json!(2));
    world.send("second");
    postfix.await_delivered(2);
    let used = |request: &serde_json::Value| request["asked"]["refresh_token"].clone();
    let used: Vec<_> = world.provider.requests().iter().map(used).collect();
    assert_eq!(used, ["right.of-nobody", RIGHT, "right.1"]);
    world.must_keep_secrets();
}

#[test]
fn a_person_signs_in_with_a_code() {
    let Some(world) = World::new(35) else { return };
    let Some((postfix, _dovecot)) = world.host("XOAUTH2") else { return };
    let told = world.login("", &["--device-code"]);
    assert!(told.err.contains("https://provider.test/device"), "{told}");
    assert!(told.err.contains("WDJB-MJHT"), "{told}");
    assert!(told.ok().contains("logged in"));
    world.send("signed in");
    postfix.await_delivered(1);
    // Renewed without the person.
    world.provider.set("epoch", &json!(2));
    world.send("renewed");
    postfix.await_delivered(2);
    world.must_keep_secrets();
}

/// A host that offers both forms and answers AUTH with this, then the answer to 334 with that.
fn refusing(address: SocketAddr, first: &str, then: &str) -> (Peer, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (lines, first, then) = (Arc::clone(&heard), first.to_owned(), then.to_owned());
    let behave = move |event: &Event| {
        let is_answer = event.stage == Stage::Other && ["", "AQ=="].contains(&event.line);
        if event.line.starts_with("AUTH") || is_answer {
            lines.lock().unwrap().push(event.line.to_owned());
        }
        match event.line {
            line if line.starts_with("AUTH") => Answer::say(&first),
            _ if is_answer => Answer::say(&then),
            _ => Answer::Accept,
        }
    };
    (Peer::offering(address, &["AUTH XOAUTH2 OAUTHBEARER"], behave), heard)
}

#[test]
fn hosts_hear_what_the_descriptions_say_and_their_words_are_kept() {
    let Some(world) = World::new(36) else { return };
    let site = &world.site;
    let at = format!("[{}]:{}", world.address.ip(), world.address.port());
    // eyJzdGF0dXMiOiI0MDAifQ== is {"status":"400"}.
    let json = "334 eyJzdGF0dXMiOiI0MDAifQ==";
    let disabled = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.";
    let (_peer, heard) = refusing(world.address, json, disabled);

    // A token does not leave in clear text, unless somebody insists, and then on this machine only.
    site.ctl(&["smarthost", "set", &at, "--name", "cloud", "--tls", "optional"]).ok();
    let told = world.login_by_client(SECRET).exited(10).out;
    assert!(told.contains("not sent without TLS"), "{told}");
    assert!(heard.lock().unwrap().is_empty());

    site.ctl(&["smarthost", "set", "--name", "cloud", "--without-tls"]).ok();
    world.send("refused");
    let reason = world.await_reason("SmtpClientAuthentication is disabled");
    assert!(reason.contains("4.7.139"), "it waits and is not returned: {reason}");
    assert!(reason.contains("status 400"), "{reason}");
    assert!(reason.contains("Set-CASMailbox"), "{reason}");
    let lines = heard.lock().unwrap().clone();
    assert!(lines[0].starts_with("AUTH XOAUTH2 dXNlcj1"), "{lines:?}");
    assert_eq!(lines[1], "");
    site.ctl(&["config", "set", "smart_hosts.cloud.auth.method=oauthbearer"]).ok();
    wait::until("the answer of OAUTHBEARER to a refusal", || {
        heard.lock().unwrap().iter().any(|line| line == "AQ==").then_some(())
    });
    let why = site.ctl(&["trace", "--last", "1"]).ok();
    assert!(why.contains("does not take our token"), "{why}");
    assert!(why.contains("smtpctl smarthost login cloud"), "{why}");
    site.logged(&["token-refused", "dsn=4.7.139", "status 400"]);
    world.must_keep_secrets();
}

#[test]
fn the_steps_of_an_administrator_are_printed_without_a_daemon() {
    let site = Site::prepare(Setup::new());
    let line = ["smarthost", "login", "m365", "--print-admin-steps", "--mailbox", MAILBOX];
    let steps = site.ctl(&line).ok();
    assert!(steps.contains("Add-MailboxPermission -Identity scanner@postfix.test"), "{steps}");
    assert!(steps.contains("smtpctl smarthost login m365 --client-credentials"), "{steps}");
}
