//! Logins whose passwords a directory judges: a real slapd under TLS, and a bind as the user's entry.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::process::Command;

use mailroot_tests::certificates::{Authority, Identity, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::message::tagged;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::slapd::{self, BASE, Entry, Slapd};
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, program, skip, swaks, wait};

const NAME: &str = "dc1.local.test";
const OF_DIRECTORY: &str = "word in the directory";
const HERE: &str = "word kept here";

const PEOPLE: &[Entry<'_>] = &[
    (
        "ada",
        &[
            "uid: ada",
            "mail: ada@local.test",
            "mailLocalAddress: Countess@local.test",
            "userPassword: word in the directory",
        ],
    ),
    ("printer", &["uid: printer", "userPassword: word in the directory"]),
    ("keyless", &["uid: keyless", "mail: keyless@local.test"]),
    ("twin1", &["uid: twin", "userPassword: word in the directory"]),
    ("twin2", &["uid: twin", "userPassword: word in the directory"]),
    (
        "away",
        &["objectClass: referral", "uid: away", "ref: ldap://192.0.2.1/cn=away,dc=far,dc=test"],
    ),
];

/// A service that has a directory judge passwords, and where its mail goes.
struct World {
    site: Site,
    slapd: Slapd,
    peer: Peer,
    _identity: Identity,
    _authority: Authority,
    _dns: Dns,
}

impl World {
    fn new(scheme: &str, keys: &[(&str, &str)]) -> Option<Self> {
        let (authority, peer) = (Authority::new(), Peer::accepting(ports::local()));
        let identity = authority.sign(NAME, Valid::Now);
        let Some(slapd) = Slapd::start(PEOPLE, Some((&identity, &authority.file()))) else {
            skip::note("logins by a directory", slapd::ABSENT);
            return None;
        };
        let Some(dns) = Dns::serve(&[&format!("{NAME}. 60 IN A 127.0.0.1")]) else {
            skip::note("logins by a directory", "unbound is not installed");
            return None;
        };
        let port = if scheme == "ldaps" { slapd.secure() } else { slapd.address() }.port();
        let setup = Setup::new()
            .service("dns.resolvers", &format!("[\"{}\"]", dns.address()))
            .service("tls.trust", &authority.file().display().to_string())
            .smart_host(peer.address())
            .key("access.relay.list", "[]")
            .key("access.basic.enabled", "true")
            .key("access.basic.backends", "[users, ldap]")
            .key("access.basic.require_tls", "false")
            .key("access.basic.domain", "corp.test")
            .key("access.auth_failures.delay", "0s")
            .key("ldap.enabled", "true")
            .key("ldap.unknown", "deliver")
            .key("ldap.server", &format!("[\"{scheme}://{NAME}:{port}\"]"))
            .key("ldap.schema", "openldap")
            .key("ldap.base", &format!("\"{BASE}\""));
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let site = Site::start(setup);
        let add = ["user", "add", "local", "--password-stdin"];
        site.control().input(&format!("{HERE}\n")).run(&add).ok();
        Some(Self { site, slapd, peer, _identity: identity, _authority: authority, _dns: dns })
    }

    fn hello(&self) -> Talk {
        let mut talk = self.site.talk();
        talk.expect("EHLO client.test", 250);
        talk
    }

    /// What a client of its own hears of a name and a password.
    fn says(&self, name: &str, password: &str) -> u16 {
        self.hello().say(&plain(name, password)).code
    }

    /// Lines of the directory's log about binds with a password, each with its connection.
    fn binds(&self) -> Vec<(String, String)> {
        let log = self.slapd.log();
        let bind = |line: &str| {
            let (front, rest) = line.split_once(" BIND dn=\"")?;
            let connection = front.split_whitespace().find(|word| word.starts_with("conn="))?;
            let dn = rest.split_once("\" method=128")?.0;
            (!dn.is_empty()).then(|| (connection.to_owned(), dn.to_owned()))
        };
        log.lines().filter_map(bind).collect()
    }
}

/// `AUTH PLAIN` with its one word.
fn plain(user: &str, password: &str) -> String {
    let mut encode = Command::new("base64");
    let word = format!("\0{user}\0{password}");
    let encoded = program::run(encode.arg("-w0"), word.as_bytes()).ok();
    format!("AUTH PLAIN {encoded}")
}

#[test]
fn the_directory_lets_its_users_in_and_says_as_whom_they_send() {
    for scheme in ["ldaps", "ldap"] {
        let Some(world) = World::new(scheme, &[]) else { return };
        let mut talk = world.hello();
        talk.expect(&plain("Ada@corp.test", OF_DIRECTORY), 235);
        talk.expect("MAIL FROM:<boss@local.test>", 553);
        for own in ["ada@local.test", "COUNTESS@local.test", ""] {
            talk.expect(&format!("MAIL FROM:<{own}>"), 250);
            talk.expect("RSET", 250);
        }
        let sent = talk.message("ada@local.test", &["b@far.test"], &tagged("by ada")).unwrap();
        assert_eq!(sent.code, 250);
        assert_eq!(world.peer.await_received(1)[0].recipients(), ["b@far.test"]);
        world.site.logged(&["event=login ", "mech=PLAIN", "user=\"ada\""]);
        // Whoever has no address there sends with none.
        let mut talk = world.hello();
        talk.expect(&plain("printer", OF_DIRECTORY), 235);
        talk.expect("MAIL FROM:<printer@local.test>", 553);
        world.site.ctl(&["ldap", "set", "logins.send_as=any"]).ok();
        let mut talk = world.hello();
        talk.expect(&plain("printer", OF_DIRECTORY), 235);
        talk.expect("MAIL FROM:<printer@local.test>", 250);
        assert_eq!(world.says("local", HERE), 235, "our own users are asked for first");
        let log = format!("{}{}", world.site.log(), world.slapd.log());
        assert!(!log.contains(OF_DIRECTORY) && !log.contains(HERE));
    }
}

#[test]
fn a_user_is_one_by_whichever_name_he_was_found() {
    let keys = [("ldap.logins.filter", "\"(|(uid={user})(mail={user}))\"")];
    let Some(world) = World::new("ldaps", &keys) else { return };
    let add = ["user", "add", "ada", "--password-stdin", "--send-as", "boss@local.test"];
    world.site.control().input(&format!("{HERE}\n")).run(&add).ok();
    let mut talk = world.hello();
    talk.expect(&plain("ada@local.test", OF_DIRECTORY), 235);
    talk.expect("MAIL FROM:<ada@local.test>", 553);
    talk.expect("MAIL FROM:<boss@local.test>", 250);
    world.site.logged(&["event=login ", "user=\"ada\""]);
    world.site.ctl(&["user", "set", "ada", "--disabled"]).ok();
    assert_eq!(world.says("ada@local.test", OF_DIRECTORY), 535);
    // Without the name by which he would be known he is nobody.
    world.site.ctl(&["ldap", "set", "logins.name=employeeNumber"]).ok();
    assert_eq!(world.says("printer", OF_DIRECTORY), 535);
    world.site.logged(&["event=ldap-login-nameless", "cn=printer", "employeeNumber"]);
}

#[test]
fn a_users_quota_is_one_by_whichever_name_he_comes() {
    let keys = [
        ("ldap.logins.filter", "\"(|(uid={user})(mail={user})(mailLocalAddress={user}))\""),
        ("ldap.logins.send_as", "any"),
    ];
    let Some(world) = World::new("ldaps", &keys) else { return };
    let add = ["user", "add", "ada", "--password-stdin", "--quota", "2/d"];
    world.site.control().input(&format!("{HERE}\n")).run(&add).ok();
    // Of our own users nobody has the other names, so that the directory is asked for them.
    for (name, password, code) in [
        ("ada", HERE, 250),
        ("Ada@local.test", OF_DIRECTORY, 250),
        ("countess@local.test", OF_DIRECTORY, 450),
        ("ada", HERE, 450),
    ] {
        let mut talk = world.hello();
        talk.expect(&plain(name, password), 235);
        talk.expect("MAIL FROM:<ada@local.test>", 250);
        let said = talk.expect("RCPT TO:<b@far.test>", code);
        assert!(code == 250 || said.enhanced() == Some("4.7.1"), "{name}: {said}");
    }
    world.site.logged(&["event=reject", "stage=rcpt", "reason=quota"]);
}

#[test]
fn while_our_users_cannot_be_read_nobody_comes_in_by_the_directory() {
    let Some(world) = World::new("ldaps", &[]) else { return };
    let add = ["user", "add", "ada", "--password-stdin"];
    world.site.control().input(&format!("{HERE}\n")).run(&add).ok();
    world.site.ctl(&["user", "set", "ada", "--disabled"]).ok();
    // One who is known by another name in the directory than the one he comes by is shut out here as well.
    world.site.ctl(&["ldap", "set", "logins.filter=(|(uid={user})(mail={user}))"]).ok();
    assert_eq!(world.says("ada@local.test", OF_DIRECTORY), 535);
    world.site.stop();
    let users = world.site.home().join("state/users.json");
    let kept = fs::read_to_string(&users).unwrap();
    fs::write(&users, &kept[..kept.len() / 2]).unwrap();
    world.site.launch();
    for name in ["ada", "ADA@local.test", "printer"] {
        let said = world.hello().say(&plain(name, OF_DIRECTORY));
        assert_eq!((said.code, said.enhanced()), (454, Some("4.7.0")), "{name}: {said}");
    }
    world.site.logged(&["event=password-not-judged", "backend=ldap", "users.json"]);
    world.site.stop();
    fs::write(&users, kept).unwrap();
    world.site.launch();
    assert_eq!(world.says("ada@local.test", OF_DIRECTORY), 535);
    assert_eq!(world.says("printer", OF_DIRECTORY), 235);
}

#[test]
fn a_client_of_another_make_logs_in_by_what_is_offered() {
    let Some(world) = World::new("ldaps", &[]) else { return };
    let offered = world.hello().say("EHLO client.test");
    assert!(offered.lines.contains(&"AUTH PLAIN LOGIN".to_owned()), "no SCRAM: {offered}");
    for mechanism in ["PLAIN", "LOGIN"] {
        let account = ["--auth-user", "ada", "--auth-password", OF_DIRECTORY];
        let line = ["--tls", "--from", "ada@local.test", "--auth", mechanism];
        swaks::send(&world.site, &[&line[..], &account].concat()).ok();
    }
    assert_eq!(world.peer.await_received(2).len(), 2);
}

#[test]
fn nobody_else_is_let_in_and_all_of_them_hear_the_same() {
    let keys = [("access.auth_failures.max", "1000"), ("access.auth_failures.ban", "never")];
    let Some(world) = World::new("ldaps", &keys) else { return };
    for (name, password) in [
        ("ada", "wrong"),
        ("ada", HERE),
        ("local", OF_DIRECTORY),
        ("nobody", OF_DIRECTORY),
        ("keyless", OF_DIRECTORY),
        ("away", OF_DIRECTORY),
        ("twin", OF_DIRECTORY),
        ("a*", OF_DIRECTORY),
        ("ada)(uid=*", OF_DIRECTORY),
        ("cn=ada,dc=local,dc=test", OF_DIRECTORY),
        ("ada@other.test", OF_DIRECTORY),
    ] {
        let mut talk = world.hello();
        let said = talk.say(&plain(name, password));
        let told = "535 5.7.8 name or password is wrong";
        assert_eq!(format!("{} {}", said.code, said.lines[0]), told, "{name} {password}");
        talk.expect("MAIL FROM:<ada@local.test>", 250);
        talk.expect("RCPT TO:<b@far.test>", 550);
    }
    let mut talk = world.hello();
    talk.expect("AUTH LOGIN YWRh", 334);
    assert!([501, 535].contains(&talk.say("").code), "no password is none");
    world.site.logged(&["event=ldap-login-ambiguous", "user=\"twin\"", "cn=twin1"]);
    let log = world.slapd.log();
    // A password is looked at for a name that nobody has as for one that somebody has, on a connection of
    // its own; none comes with an empty one.
    let binds = world.binds();
    let is_decoy = |dn: &str| dn.split(',').next().is_some_and(|first| first.len() == 35);
    assert_eq!(binds.iter().filter(|(_, dn)| is_decoy(dn)).count(), 4, "{binds:?}");
    assert_eq!(binds.iter().filter(|(_, dn)| dn.starts_with("cn=ada,")).count(), 2, "{binds:?}");
    for (connection, dn) in &binds {
        let asked = log.lines().any(|line| {
            line.contains(" SRCH ") && line.split_whitespace().any(|word| word == connection)
        });
        assert!(!asked, "{dn} on {connection}");
    }
}

#[test]
fn guessers_are_shut_out_before_the_directory_is_asked() {
    let Some(world) = World::new("ldaps", &[("access.auth_failures.max", "2")]) else { return };
    for _ in 0..4 {
        assert_eq!(world.says("ada", "guess"), 535);
    }
    assert_eq!(world.says("ada", OF_DIRECTORY), 535);
    world.site.logged(&["event=login-failed", "reason=banned", "user=\"ada\""]);
    assert_eq!(world.binds().len(), 2, "{:?}", world.binds());
    assert_eq!(world.says("printer", OF_DIRECTORY), 235);
}

#[test]
fn while_no_directory_answers_nobody_is_refused_and_nobody_is_shut_out() {
    let keys = [("access.auth_failures.max", "2"), ("ldap.timeout", "1s")];
    let Some(mut world) = World::new("ldaps", &keys) else { return };
    assert_eq!(world.says("ada", OF_DIRECTORY), 235);
    world.slapd.kill();
    for _ in 0..4 {
        for (name, password) in [("ada", OF_DIRECTORY), ("ada", "wrong"), ("nobody", "wrong")] {
            let said = world.hello().say(&plain(name, password));
            assert_eq!((said.code, said.enhanced()), (454, Some("4.7.0")), "{said}");
        }
    }
    world.site.logged(&["event=password-not-judged", "backend=ldap", "cannot connect"]);
    assert_eq!(world.says("local", HERE), 235, "who is known here need not wait for it");
    assert!(!world.site.log().contains("event=login-failed"));
    world.slapd.launch();
    // Looking for names that nobody knows here is counted all the while.
    wait::until("the directory to answer", || {
        world.site.ctl(&["ldap", "test"]).out.contains("has dc=").then_some(())
    });
    wait::until("the directory to be asked again", || {
        (world.says("ada", OF_DIRECTORY) == 235).then_some(())
    });
}

#[test]
fn a_directory_that_is_not_proved_hears_no_password() {
    let Some(world) = World::new("ldaps", &[]) else { return };
    let foreign = Authority::new();
    fs::copy(foreign.file(), world.site.home().join("foreign.pem")).unwrap();
    let trust = format!("tls.trust={}", world.site.home().join("foreign.pem").display());
    world.site.ctl(&["config", "set", &trust]).ok();
    assert_eq!(world.says("ada", OF_DIRECTORY), 454);
    assert_eq!(world.binds(), []);
}

#[test]
fn what_cannot_judge_passwords_is_told() {
    let check = |keys: &[(&str, &str)]| {
        let setup = Setup::new().key("access.basic.enabled", "true");
        let setup = keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value));
        let checked = Site::prepare(setup).run(&["--check"]);
        format!("{}{}", checked.out, checked.err)
    };
    let backends = "access.basic.backends";
    let base = ("ldap.base", "dc=x");
    let server = |url| [("ldap.enabled", "true"), ("ldap.server", url), base, (backends, "[ldap]")];
    assert!(check(&[(backends, "[users, ldap]")]).contains("E0338"));
    // The password of a user goes over no wire in clear text, not even on this machine.
    let clear = server("[\"ldap://127.0.0.1\"]");
    let said = check(&[&clear[..], &[("ldap.tls", "off")]].concat());
    assert!(said.contains("E0338") && said.contains("clear text"), "{said}");
    assert!(!check(&clear).contains("E0338"), "StartTLS");
    let custom = [("ldap.schema", "custom"), ("ldap.filter", "(mail={address})")];
    let custom = [&server("[\"ldaps://dc1.test\"]")[..], &custom].concat();
    assert!(check(&custom).contains("ldap.logins.filter is missing"));
    let found = [&custom[..], &[("ldap.logins.filter", "(uid={user})")]].concat();
    assert!(!check(&found).contains("E03"), "{}", check(&found));
    for filter in ["(uid={address})", "(objectClass=*)", "(uid={user}"] {
        assert!(check(&[("ldap.logins.filter", filter)]).contains("E0331"), "{filter}");
    }
    assert!(check(&[(backends, "[]")]).contains("E0339"));
    assert!(check(&[(backends, "[users, users]")]).contains("E0339"));
    for (key, value) in [
        ("access.basic.pam_service", "mail"),
        ("ldap.logins.send_as", "any"),
        ("ldap.logins.name", "uid"),
    ] {
        let said = check(&[(key, value)]);
        assert!(said.contains("E0339") && said.contains(&format!("{key} says nothing")), "{said}");
    }
    let scram = [(backends, "[users, ldap]"), ("access.basic.mechanisms", "[SCRAM-SHA-256]")];
    assert!(check(&scram).contains("E0339"));
}
