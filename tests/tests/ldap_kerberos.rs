//! A directory that is asked by Kerberos: a real slapd of a real realm.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::haproxy::{self, Haproxy};
use mailroot_tests::kdc::{self, Kdc, REALM};
use mailroot_tests::program::Finished;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::slapd::{self, BASE, Entry, Slapd, Tickets};
use mailroot_tests::{skip, wait};

const NAME: &str = "dc1.corp.test";
const WHAT: &str = "a directory that is asked by Kerberos";
const PASSWORD: &str = "a word of ours";
const PEOPLE: &[Entry<'_>] = &[("ada", &["mail: ada@local.test"])];
/// The mechanism of the directory's library.
const MECHANISM: &str = "/usr/lib/x86_64-linux-gnu/sasl2/libgssapiv2.so";

/// Keys by which a directory of this name is asked by Kerberos.
fn keys(setup: Setup, server: &str) -> Setup {
    setup
        .key("ldap.enabled", "true")
        .key("ldap.server", &format!("[\"{server}\"]"))
        .key("ldap.schema", "openldap")
        .key("ldap.base", &format!("\"{BASE}\""))
        .key("ldap.bind", "gssapi")
        .key("ldap.timeout", "30s")
}

fn checked(setup: Setup) -> String {
    let checked = Site::prepare(setup).run(&["--check"]);
    format!("{}{}", checked.out, checked.err)
}

/// Whether the daemon was built with the feature. If not, it says so, and names it.
fn knows_kerberos() -> bool {
    let said = checked(keys(Setup::new(), "ldaps://dc1.corp.test"));
    let knows = !said.contains("E0335");
    assert!(knows || said.contains("needs the feature gssapi"), "{said}");
    knows
}

#[test]
fn what_cannot_be_asked_by_kerberos_is_told() {
    let said = checked(keys(Setup::new(), "ldaps://192.0.2.1"));
    assert!(said.contains("E0336"), "{said}");
    let nobodys = keys(Setup::new(), "ldaps://dc1.corp.test");
    let said = checked(nobodys.key("ldap.password", "{file: directory}"));
    assert!(said.contains("E0334") && said.contains("whose password it is"), "{said}");
    let _told = knows_kerberos();
}

/// A directory that takes tickets of a realm, and a service that asks it; not started.
struct World {
    site: Site,
    kdc: Kdc,
    directory: Slapd,
    authority: Authority,
    _dns: Dns,
}

impl World {
    fn new() -> Option<Self> {
        let absent = |why: &str| {
            skip::note(WHAT, why);
            None
        };
        if !knows_kerberos() {
            return absent("smtpd was built without its feature gssapi");
        }
        if !Path::new(MECHANISM).exists() {
            return absent("libsasl2-modules-gssapi-mit is not installed");
        }
        let Some(kdc) = Kdc::start(&[("reader", PASSWORD)], &format!("ldap/{NAME}")) else {
            return absent(kdc::ABSENT);
        };
        let (authority, environment, key) =
            (Authority::new(), kdc.environment(), kdc.service_key());
        let identity = authority.sign(NAME, Valid::Now);
        let tickets = Tickets { name: NAME, realm: &environment, key: &key };
        let tls = Some((&identity, &*authority.file()));
        let Some(directory) = Slapd::start_with(PEOPLE, tls, Some(tickets)) else {
            return absent(slapd::ABSENT);
        };
        let names = [NAME, "other.corp.test"].map(|name| format!("{name}. 60 IN A 127.0.0.1"));
        let Some(dns) = Dns::serve(&[&names[0], &names[1]]) else {
            return absent("unbound is not installed");
        };
        let secure = directory.secure().port();
        let setup = Setup::new()
            .dns(dns.address(), secure)
            .service("tls.trust", &authority.file().display().to_string());
        let setup = keys(setup, &format!("ldaps://{NAME}:{secure}"));
        let site = Site::prepare(setup.key("ldap.user", &format!("reader@{REALM}")));
        site.under(&["env", &environment]);
        site.launch();
        Some(Self { site, kdc, directory, authority, _dns: dns })
    }

    fn test(&self) -> Finished {
        self.site.ctl(&["ldap", "test", "--address", "ada@local.test"])
    }

    fn password(&self, word: &str) {
        self.site.control().input(word).run(&["ldap", "passwd", "--password-stdin"]).ok();
    }

    /// What a client hears of a recipient.
    fn says(&self, recipient: &str) -> u16 {
        let mut talk = self.site.talk();
        talk.expect("EHLO client.test", 250);
        talk.expect("MAIL FROM:<sender@else.test>", 250);
        talk.say(&format!("RCPT TO:<{recipient}>")).code
    }

    /// For how long the directory was left alone, each time that it was.
    fn rests(&self) -> Vec<String> {
        let log = self.site.log();
        let rest = |line: &str| {
            let rest = line.split_once(" rests=")?.1;
            line.contains("event=ldap-down").then(|| rest.split(' ').next().unwrap().to_owned())
        };
        log.lines().filter_map(rest).collect()
    }
}

#[test]
fn a_directory_is_asked_with_a_ticket_got_by_a_password_or_by_a_key() {
    let Some(world) = World::new() else { return };
    let (site, failed) = (&world.site, "the login by Kerberos failed");
    let tested = world.test();
    assert!(tested.code != 0 && tested.out.contains(failed), "{tested}");
    world.password("wrong");
    let tested = world.test();
    assert!(tested.code != 0 && tested.out.contains(failed), "{tested}");
    world.password(PASSWORD);
    let words = format!("as reader@{REALM} by a ticket (gssapi, TLSv1.3, verified)");
    let tested = world.test().ok();
    assert!(tested.contains(&words) && tested.contains("1 entry: cn=ada"), "{tested}");
    assert!(world.directory.log().contains("BIND dn=\"cn=reader,dc=local,dc=test\" mech=GSSAPI"));

    // From here on the password is good no more, but the key is where the library looks for it.
    world.kdc.keep_key_of("reader");
    site.ctl(&["server", "unset", "default", "ldap.password"]).ok();
    let tested = world.test().ok();
    assert!(tested.contains(&words), "{tested}");
    assert_eq!(world.says("ada@local.test"), 250);
    assert_eq!(world.says("nobody@local.test"), 550);
    // No ticket of the realm is for a host of another name.
    let other = format!("server=ldap://other.corp.test:{}", world.directory.address().port());
    site.ctl(&["ldap", "set", "tls=off", &other]).ok();
    let tested = world.test();
    assert!(tested.code != 0 && tested.out.contains(failed), "{tested}");
}

#[test]
fn a_realm_that_refuses_us_is_not_asked_again_soon_and_one_that_is_silent_is() {
    let Some(mut world) = World::new() else { return };
    let mut times = 0;
    let mut refused = |why: &str| {
        assert_eq!(world.says("ada@local.test"), 451, "{why}");
        times += 1;
        wait::until(why, || (world.rests().len() == times).then_some(()));
        let asked = world.kdc.asked();
        assert_eq!(world.says("ada@local.test"), 451, "{why}");
        assert_eq!(world.kdc.asked(), asked, "{why}: asked again");
        world.rests().pop().unwrap()
    };
    let order = |order: &str| world.kdc.order(order);
    // A new password has the realm asked at once.
    world.password("wrong");
    assert_eq!(refused("it answers what our password does not open"), "300s");
    order("modprinc +requires_preauth reader");
    world.password("wrong");
    assert_eq!(refused("it wants a proof, and ours is wrong"), "300s");
    for (change, back, why) in [
        ("-allow_tix", "+allow_tix", "the account is locked"),
        ("-expire 2020-01-01", "-expire never", "the account has expired"),
        ("-pwexpire 2020-01-01", "-pwexpire never", "its password has expired"),
    ] {
        order(&format!("modprinc {change} reader"));
        world.password(PASSWORD);
        assert_eq!(refused(why), "300s", "{why}");
        order(&format!("modprinc {back} reader"));
    }
    world.password(PASSWORD);
    assert_eq!(world.says("ada@local.test"), 250);
    let nobody = format!("ldap.user=nobody@{REALM}");
    world.site.ctl(&["server", "set", "default", &nobody]).ok();
    assert_eq!(refused("nobody has the name"), "300s");
    // A key of which the realm has a newer one.
    world.kdc.keep_key_of("reader");
    order("cpw -randkey reader");
    let user = format!("ldap.user=reader@{REALM}");
    world.site.ctl(&["server", "set", "default", &user]).ok();
    world.site.ctl(&["server", "unset", "default", "ldap.password"]).ok();
    assert_eq!(refused("the key is of old"), "300s");
    // Who watches over the service asks nobody in vain either.
    let asked = world.kdc.asked();
    let watched = world.site.ctl(&["doctor", "relay", "ldap"]);
    assert!(watched.code != 0 && watched.out.contains("left alone for"), "{watched}");
    assert_eq!(world.kdc.asked(), asked, "doctor has asked");
    let told = world.test();
    assert!(told.out.contains("smtpctl ldap passwd") && told.out.contains("locked"), "{told}");
    assert_ne!(world.kdc.asked(), asked, "a person is told at once");
    wait::until("the refusal of the test", || (world.rests().len() > times).then_some(()));
    let times = world.rests().len();

    world.kdc.stop();
    world.password(PASSWORD);
    assert_eq!(world.says("ada@local.test"), 451);
    wait::until("an outage", || (world.rests().len() > times).then_some(()));
    assert_eq!(world.rests().pop().unwrap(), "1s");
}

#[test]
fn nobody_in_between_passes_our_login_on() {
    let Some(world) = World::new() else { return };
    let between = Authority::called("somebody in between");
    let identity = between.sign(NAME, Valid::Now);
    let Some(passing) = Haproxy::between(world.directory.secure(), identity.path()) else {
        return skip::note("somebody between us and a directory", haproxy::ABSENT);
    };
    // Both are good for the name, by authorities that we trust.
    let both = world.site.home().join("both.pem");
    let texts = [&world.authority, &between].map(|it| fs::read_to_string(it.file()).unwrap());
    fs::write(&both, texts.concat()).unwrap();
    world.site.ctl(&["config", "set", &format!("tls.trust={}", both.display())]).ok();
    world.password(PASSWORD);
    world.test().ok();
    let server = format!("server=ldaps://{NAME}:{}", passing.address().port());
    world.site.ctl(&["ldap", "set", &server]).ok();
    let tested = world.test();
    assert!(tested.code != 0 && tested.out.contains("the bind is refused"), "{tested}");
    let keys = ["unset", "default", "ldap.user", "ldap.password", "ldap.bind"];
    world.site.ctl(&[&["server"], &keys[..]].concat()).ok();
    let tested = world.test().ok();
    assert!(tested.contains("anonymously") && tested.contains("1 entry: cn=ada"), "{tested}");
}
