//! A directory that is asked by Kerberos: a real slapd of a real realm.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::kdc::{self, Kdc, REALM};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::skip;
use mailroot_tests::slapd::{self, BASE, Entry, Slapd, Tickets};

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

#[test]
fn a_directory_is_asked_with_a_ticket_got_by_a_password_or_by_a_key() {
    if !knows_kerberos() {
        return skip::note(WHAT, "smtpd was built without its feature gssapi");
    }
    if !Path::new(MECHANISM).exists() {
        return skip::note(WHAT, "libsasl2-modules-gssapi-mit is not installed");
    }
    let Some(kdc) = Kdc::start(&[("reader", PASSWORD)], &format!("ldap/{NAME}")) else {
        return skip::note(WHAT, kdc::ABSENT);
    };
    let (authority, environment, key) = (Authority::new(), kdc.environment(), kdc.service_key());
    let identity = authority.sign(NAME, Valid::Now);
    let tickets = Tickets { name: NAME, realm: &environment, key: &key };
    let tls = Some((&identity, &*authority.file()));
    let Some(directory) = Slapd::start_with(PEOPLE, tls, Some(tickets)) else {
        return skip::note(WHAT, slapd::ABSENT);
    };
    let names = [NAME, "other.corp.test"].map(|name| format!("{name}. 60 IN A 127.0.0.1"));
    let Some(dns) = Dns::serve(&[&names[0], &names[1]]) else {
        return skip::note(WHAT, "unbound is not installed");
    };
    let secure = directory.secure().port();
    let setup = Setup::new()
        .dns(dns.address(), secure)
        .service("tls.trust", &authority.file().display().to_string());
    let setup = keys(setup, &format!("ldaps://{NAME}:{secure}"));
    let site = Site::prepare(setup.key("ldap.user", &format!("reader@{REALM}")));
    site.under(&["env", &environment]);
    site.launch();
    let test = || site.ctl(&["ldap", "test", "--address", "ada@local.test"]);
    let failed = test();
    assert!(failed.code != 0 && failed.out.contains("the login by Kerberos failed"), "{failed}");
    site.control().input("wrong").run(&["ldap", "passwd", "--password-stdin"]).ok();
    let failed = test();
    assert!(failed.code != 0 && failed.out.contains("the login by Kerberos failed"), "{failed}");
    site.control().input(PASSWORD).run(&["ldap", "passwd", "--password-stdin"]).ok();
    let words = format!("as reader@{REALM} by a ticket (gssapi, TLSv1.3, verified)");
    let tested = test().ok();
    assert!(tested.contains(&words) && tested.contains("1 entry: cn=ada"), "{tested}");
    assert!(directory.log().contains("BIND dn=\"cn=reader,dc=local,dc=test\" mech=GSSAPI"));

    // From here on the password is good no more, but the key is where the library looks for it.
    kdc.keep_key_of("reader");
    site.ctl(&["server", "unset", "default", "ldap.password"]).ok();
    let tested = test().ok();
    assert!(tested.contains(&words), "{tested}");
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    talk.expect("RCPT TO:<ada@local.test>", 250);
    talk.expect("RCPT TO:<nobody@local.test>", 550);
    // No ticket of the realm is for a host of another name.
    let other = format!("server=ldap://other.corp.test:{}", directory.address().port());
    site.ctl(&["ldap", "set", "tls=off", &other]).ok();
    let failed = test();
    assert!(failed.code != 0 && failed.out.contains("the login by Kerberos failed"), "{failed}");
}
