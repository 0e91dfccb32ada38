//! Recipients that a directory knows: a real slapd with the attributes of each kind of directory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use mailroot_tests::certificates::{Authority, Valid};
use mailroot_tests::dns::Dns;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::slapd::{
    self, BASE, Entry, PASSWORD, READER, Slapd, asking as setup, directory,
};
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, wait};

fn hello(site: &Site) -> Talk {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    talk
}

fn send(site: &Site, to: &[&str]) {
    let reply = hello(site).message("sender@else.test", to, b"Subject: x\r\n\r\nx\r\n");
    assert_eq!(reply.unwrap().code, 250);
}

/// Whom the files in Drop are for.
fn dropped_for(site: &Site, count: usize) -> Vec<String> {
    let mut all: Vec<String> =
        site.await_dropped(count).iter().flat_map(|it| it.fields("X-Receiver")).collect();
    all.sort();
    all
}

const PEOPLE: &[Entry<'_>] = &[
    ("ada", &["mail: ada@local.test", "mailLocalAddress: countess@local.test"]),
    ("bob", &["mail: bob@local.test", "mailRoutingAddress: bob@far.test"]),
    ("eve", &["mail: eve@local.test"]),
    (
        "all",
        &[
            "objectClass: groupOfNames",
            "mail: all@local.test",
            "member: cn=ada,dc=local,dc=test",
            "member: cn=bob,dc=local,dc=test",
            "member: cn=all,dc=local,dc=test",
            "member: cn=inner,dc=local,dc=test",
            "rfc822MailMember: guest@far.test",
        ],
    ),
    (
        "inner",
        &[
            "objectClass: groupOfNames",
            "mail: inner@local.test",
            "member: cn=all,dc=local,dc=test",
            "member: cn=eve,dc=local,dc=test",
        ],
    ),
    ("ring1", &["mail: ring1@local.test", "mailRoutingAddress: ring2@local.test"]),
    ("ring2", &["mail: ring2@local.test", "mailRoutingAddress: ring1@local.test"]),
    (
        "torn",
        &[
            "mail: torn@local.test",
            "rfc822MailMember: gone@local.test",
            "rfc822MailMember: eve@local.test",
        ],
    ),
    (
        "huge",
        &[
            "mail: huge@local.test",
            "rfc822MailMember: a1@far.test",
            "rfc822MailMember: a2@far.test",
            "rfc822MailMember: a3@far.test",
            "rfc822MailMember: a4@far.test",
            "rfc822MailMember: a5@far.test",
            "rfc822MailMember: a6@far.test",
            "rfc822MailMember: a7@far.test",
        ],
    ),
];

#[test]
fn a_member_in_another_directory_keeps_nobody_else_from_the_mail() {
    let entries: &[Entry<'_>] = &[
        ("ada", &["mail: ada@local.test"]),
        ("away", &["objectClass: referral", "ref: ldap://192.0.2.1/cn=away,dc=far,dc=test"]),
        (
            "both",
            &[
                "objectClass: groupOfNames",
                "mail: both@local.test",
                "member: cn=away,dc=local,dc=test",
                "member: cn=ada,dc=local,dc=test",
            ],
        ),
        (
            "none",
            &[
                "objectClass: groupOfNames",
                "mail: none@local.test",
                "member: cn=away,dc=local,dc=test",
            ],
        ),
    ];
    let Some(directory) = directory(entries) else { return };
    let site = Site::start(setup("openldap", &[directory.address()]));
    send(&site, &["none@local.test"]);
    send(&site, &["both@local.test"]);
    assert_eq!(dropped_for(&site, 1), ["ada@local.test"]);
    let words = "not to cn=away,dc=local,dc=test, which lies in another directory";
    site.logged(&["event=bounced", "to=<both@local.test>", words]);
    site.logged(&["event=ldap-elsewhere", "cn=away,dc=local,dc=test"]);
    site.logged(&["event=deferred", "to=<none@local.test>", "in another directory"]);
    let told = site.ctl(&["ldap", "test", "--address", "both@local.test"]);
    assert!(told.to_string().contains("ada@local.test, a group; not cn=away"), "{told}");
}

#[test]
fn clients_hear_which_recipients_there_are() {
    let Some(directory) = directory(PEOPLE) else { return };
    let site = Site::start(setup("openldap", &[directory.address()]));
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    for (to, code) in [
        ("ada@local.test", 250),
        ("ADA@Local.Test", 250),
        ("countess@local.test", 250),
        ("all@local.test", 250),
        ("nobody@local.test", 550),
        ("Postmaster@local.test", 250),
        ("nobody@far.test", 250),
        // None of these finds what an asterisk would.
        ("*@local.test", 550),
        ("a*@local.test", 550),
        ("\"*)(uid=*))(|(uid=*\"@local.test", 550),
        ("\"ada@local.test)(objectClass=*\"@local.test", 550),
        ("\"\\\\2a\"@local.test", 550),
        ("\"a\\\\\\\"\"@local.test", 550),
        ("ada%00@local.test", 550),
    ] {
        let reply = talk.say(&format!("RCPT TO:<{to}>"));
        assert_eq!(reply.code, code, "{to}: {reply}");
        if code == 550 {
            assert_eq!(reply.enhanced(), Some("5.1.1"), "{to}: {reply}");
        }
    }
    let long = format!("RCPT TO:<{}@local.test>", "*".repeat(64));
    talk.expect(&long, 550);
    let nul = talk.say("RCPT TO:<a\0da@local.test>");
    assert_eq!(nul.code / 100, 5, "{nul}");
    site.logged(&["event=reject", "reason=unknown-recipient", "to=<nobody@local.test>"]);
    let counted = site.ctl(&["server", "show", "default"]).ok();
    assert!(counted.contains("recipients unknown"), "{counted}");
    // With the switch off everybody is accepted, and whom nobody knows is returned.
    site.ctl(&["ldap", "set", "unknown=return"]).ok();
    hello(&site).message("eve@local.test", &["nobody@local.test"], b"\r\nx\r\n").unwrap();
    let report = site.await_dropped(1).pop().unwrap().text();
    assert!(report.contains("Status: 5.1.1") && report.contains("nobody@local.test"), "{report}");
    site.ctl(&["ldap", "set", "unknown=deliver"]).ok();
    send(&site, &["nobody@local.test"]);
    assert_eq!(dropped_for(&site, 2), ["eve@local.test", "nobody@local.test"]);
}

#[test]
fn mail_goes_where_the_directory_says() {
    let Some(directory) = directory(PEOPLE) else { return };
    let outside = Peer::accepting(ports::local());
    let setup = setup("openldap", &[directory.address()]).smart_host(outside.address());
    let site = Site::start(setup.key("ldap.groups.members", "6"));
    send(&site, &["countess@local.test"]);
    assert_eq!(dropped_for(&site, 1), ["ada@local.test"], "by its own address");
    send(&site, &["bob@local.test", "eve@local.test"]);
    assert_eq!(dropped_for(&site, 2), ["ada@local.test", "eve@local.test"]);
    assert_eq!(outside.await_received(1)[0].recipients(), ["bob@far.test"]);
    send(&site, &["all@local.test", "ada@local.test"]);
    let dropped = dropped_for(&site, 4);
    assert_eq!(dropped, ["ada@local.test", "ada@local.test", "eve@local.test", "eve@local.test"]);
    let received = outside.await_received(2);
    let mut members = received[1].recipients();
    members.sort_unstable();
    assert_eq!(members, ["bob@far.test", "guest@far.test"], "each once");
    site.await_empty_queue();
    site.logged(&["event=resolved", "to=<all@local.test>", "a group, sent on to"]);
    site.logged(&["event=sent-on"]);

    let shown = site.ctl(&["route", "show", "all@local.test"]).ok();
    assert!(shown.contains("directory") && shown.contains("bob@far.test"), "{shown}");
    let tested = site.ctl(&["ldap", "test", "--address", "bob@local.test"]).ok();
    assert!(tested.contains("bob@local.test -> bob@far.test"), "{tested}");
    assert!(tested.contains("anonymously (in clear text)"), "{tested}");
    let doctor = site.ctl(&["doctor", "ldap"]).ok();
    assert!(doctor.contains("has dc=local,dc=test"), "{doctor}");
}

#[test]
fn what_cannot_be_resolved_is_returned_in_words() {
    let Some(directory) = directory(PEOPLE) else { return };
    let outside = Peer::accepting(ports::local());
    let setup = setup("openldap", &[directory.address()]).smart_host(outside.address());
    let site = Site::start(setup.key("ldap.groups.members", "6"));
    let mut expected = 0;
    for (to, status, words) in [
        ("ring1@local.test", "5.4.6", "circle"),
        ("huge@local.test", "5.2.4", "more than 6 members"),
        ("torn@local.test", "5.1.1", "rfc822;torn@local.test"),
    ] {
        expected += 1;
        send(&site, &[to]);
        let report = outside.await_received(expected).pop().unwrap();
        let text = String::from_utf8_lossy(&report.octets).into_owned();
        assert_eq!((report.sender(), report.recipients()), ("", vec!["sender@else.test"]));
        let is_told =
            text.contains(&format!("Status: {status}")) && text.replace("; ", ";").contains(words);
        assert!(is_told, "{to}: {text}");
    }
    assert_eq!(dropped_for(&site, 1), ["eve@local.test"], "the others of a torn group have it");
    // Success is reported once for a group, and from the end for a name.
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    talk.expect("RCPT TO:<inner@local.test> NOTIFY=SUCCESS", 250);
    talk.expect("RCPT TO:<countess@local.test> NOTIFY=SUCCESS", 250);
    talk.expect("DATA", 354);
    talk.send(b"Subject: x\r\n\r\nx\r\n.\r\n").unwrap();
    assert_eq!(talk.reply().unwrap().code, 250);
    let reports = wait::until("both reports", || {
        let all = outside.received();
        let reports: Vec<String> = all
            .iter()
            .filter(|it| it.sender().is_empty())
            .map(|it| String::from_utf8_lossy(&it.octets).into_owned())
            .filter(|text| text.contains("Action: expanded") || text.contains("Action: delivered"))
            .collect();
        (reports.len() >= 2).then_some(reports)
    });
    let expanded: Vec<_> = reports.iter().filter(|it| it.contains("Action: expanded")).collect();
    assert!(expanded.len() == 1 && expanded[0].contains("inner@local.test"), "{reports:?}");
    let delivered: Vec<_> = reports.iter().filter(|it| it.contains("Action: delivered")).collect();
    assert!(
        delivered.len() == 1
            && delivered[0].contains("Original-Recipient: rfc822; countess@local.test")
            && delivered[0].contains("Final-Recipient: rfc822; ada@local.test"),
        "{reports:?}"
    );
}

#[test]
fn every_kind_of_directory_has_its_attributes() {
    let entries: &[Entry<'_>] = &[
        ("ad1", &["mail: ad1@local.test", "proxyAddresses: smtp:ad-alias@local.test"]),
        ("ad2", &["mail: ad2@local.test", "targetAddress: SMTP:ad2@far.test"]),
        (
            "ad3",
            &[
                "mail: ad3@local.test",
                "altRecipient: cn=ad1,dc=local,dc=test",
                "deliverAndRedirect: TRUE",
            ],
        ),
        ("adg", &["objectClass: group", "mail: adg@local.test", "member: cn=ad1,dc=local,dc=test"]),
        ("ade", &["objectClass: group", "mail: ade@local.test"]),
        ("ex1", &["mail: ex1@local.test", "otherMailbox: smtp$ex-alias@local.test"]),
        ("ex2", &["mail: ex2@local.test", "Target-Address: SMTP:ex2@far.test"]),
        ("ex3", &["mail: ex3@local.test", "Alt-Recipient: cn=ex1,dc=local,dc=test"]),
        ("ss1", &["mail: ss1@local.test", "mailAlternateAddress: ss-alias@local.test"]),
        ("ss2", &["mail: ss2@local.test", "mailForwardingAddress: ss2@far.test"]),
        ("cu1", &["description: cu1@local.test", "street: cu1@far.test"]),
        ("two", &["mail: two@local.test"]),
        ("twin", &["mail: two@local.test"]),
    ];
    let Some(directory) = directory(entries) else { return };
    let site = Site::start(setup("active-directory", &[directory.address()]));
    for (schema, address, answer) in [
        ("active-directory", "ad-alias@local.test", "-> ad1@local.test"),
        ("active-directory", "ad2@local.test", "-> ad2@far.test"),
        ("active-directory", "ad3@local.test", "-> ad3@local.test, ad1@local.test"),
        ("active-directory", "adg@local.test", "-> ad1@local.test, a group"),
        ("active-directory", "ade@local.test", "-> nobody: its group has no members"),
        ("active-directory", "ex-alias@local.test", "unknown: 550 5.1.1"),
        ("exchange-ldap", "ex-alias@local.test", "-> ex1@local.test"),
        ("exchange-ldap", "ex2@local.test", "-> ex2@far.test"),
        ("exchange-ldap", "ex3@local.test", "-> ex1@local.test"),
        ("site-server", "ss-alias@local.test", "-> ss1@local.test"),
        ("site-server", "ss2@local.test", "-> ss2@far.test"),
    ] {
        site.ctl(&["ldap", "set", &format!("schema={schema}")]).ok();
        let tested = site.ctl(&["ldap", "test", "--address", address]);
        assert!(tested.out.contains(answer), "{schema} {address}: {tested}");
    }
    let twice = site.ctl(&["ldap", "test", "--address", "two@local.test"]);
    assert!(twice.out.contains("several entries for two@local.test"), "{twice}");
    site.ctl(&[
        "ldap",
        "set",
        "schema=custom",
        "filter=(description={address})",
        "attributes.forward=street",
    ])
    .ok();
    let tested = site.ctl(&["ldap", "test", "--address", "cu1@local.test"]).ok();
    assert!(tested.contains("-> cu1@far.test"), "{tested}");
    let shown = site.ctl(&["ldap", "show", "-o", "json"]).ok();
    assert!(shown.contains("(description={address})"), "{shown}");
    let refused = site.ctl(&["ldap", "set", "filter=(objectClass=*)"]).exited(6).err;
    assert!(refused.contains("E0331"), "{refused}");
}

#[test]
fn while_no_directory_answers_mail_waits() {
    let Some(mut directory) = directory(PEOPLE) else { return };
    let site = Site::start(setup("openldap", &[directory.address()]));
    send(&site, &["ada@local.test"]);
    assert_eq!(dropped_for(&site, 1), ["ada@local.test"]);
    directory.kill();
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    let reply = talk.expect("RCPT TO:<ada@local.test>", 451);
    assert_eq!(reply.enhanced(), Some("4.4.3"));
    talk.expect("RCPT TO:<postmaster@local.test>", 250);
    site.logged(&["event=ldap-down"]);
    let failed = site.ctl(&["ldap", "test", "--address", "ada@local.test"]);
    assert!(failed.code != 0 && failed.out.contains("cannot connect"), "{failed}");
    site.ctl(&["ldap", "set", "unknown=return"]).ok();
    send(&site, &["bob@far.test", "eve@local.test", "nobody@local.test"]);
    site.logged(&["event=deferred", "to=<eve@local.test>", "dsn=4.4.3"]);
    assert_eq!(site.dropped("default").len(), 1, "nothing is returned and nothing is delivered");
    directory.launch();
    site.ctl(&["queue", "flush"]).ok();
    assert_eq!(dropped_for(&site, 2), ["ada@local.test", "eve@local.test"]);
    site.logged(&["event=ldap-up"]);
    site.logged(&["event=bounced", "to=<nobody@local.test>", "dsn=5.1.1"]);
}

#[test]
fn the_next_server_is_asked_where_one_is_dead_or_silent() {
    let Some(directory) = directory(PEOPLE) else { return };
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let servers = [ports::local(), silent.local_addr().unwrap(), directory.address()];
    let site = Site::start(setup("openldap", &servers).key("ldap.timeout", "500ms"));
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    talk.expect("RCPT TO:<ada@local.test>", 250);
    talk.expect("RCPT TO:<nobody@local.test>", 550);
    site.logged(&["event=ldap-down", "no answer within 500 ms"]);
    let tested = site.ctl(&["ldap", "test", "--address", "ada@local.test"]);
    assert!(tested.out.contains("1 entry: cn=ada"), "{tested}");
}

#[test]
fn a_directory_must_prove_its_name_before_it_hears_the_password() {
    let authority = Authority::new();
    let identity = authority.sign("dc1.local.test", Valid::Now);
    let Some(directory) = Slapd::start(PEOPLE, Some((&identity, &authority.file()))) else {
        skip::note("a directory under TLS", slapd::ABSENT);
        return;
    };
    let names = ["dc1", "other"].map(|name| format!("{name}.local.test. 60 IN A 127.0.0.1"));
    let Some(dns) = Dns::serve(&[&names[0], &names[1]]) else {
        skip::note("a directory with a name", "unbound is not installed");
        return;
    };
    let (plain, secure) = (directory.address().port(), directory.secure().port());
    let setup = Setup::new().dns(dns.address(), plain);
    let site = Site::start(setup);
    let secrets = site.home().join("etc/secrets.d");
    fs::create_dir_all(&secrets).unwrap();
    let keep = |text: &str| {
        let file = secrets.join("directory");
        fs::write(&file, format!("{text}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    };
    keep(PASSWORD);
    site.ctl(&["config", "set", &format!("tls.trust={}", authority.file().display())]).ok();
    let url =
        |scheme: &str, name: &str, port: u16| format!("server={scheme}://{name}.local.test:{port}");
    let (base, user) = (format!("base={BASE}"), format!("user={READER}"));
    site.ctl(&[
        "ldap",
        "set",
        "enabled=true",
        &url("ldap", "dc1", plain),
        "schema=openldap",
        "bind=simple",
        &base,
        &user,
        "password={file: directory}",
        "cache.positive=0s",
    ])
    .ok();
    let test = || site.ctl(&["ldap", "test", "--address", "ada@local.test"]);
    for (scheme, port) in [("ldap", plain), ("ldaps", secure)] {
        site.ctl(&["ldap", "set", &url(scheme, "dc1", port)]).ok();
        let tested = test();
        let is_good = tested.code == 0 && tested.out.contains("(simple, TLSv1.3, verified)");
        assert!(is_good && tested.out.contains(READER), "{scheme}: {tested}");
        site.ctl(&["ldap", "set", &url(scheme, "other", port)]).ok();
        let tested = test();
        assert!(tested.code != 0 && tested.out.contains("for another name"), "{scheme}: {tested}");
    }
    // It does not speak TLS where that begins with the first octet.
    site.ctl(&["ldap", "set", &url("ldaps", "dc1", plain)]).ok();
    assert!(test().code != 0);
    site.ctl(&["ldap", "set", &url("ldap", "dc1", plain)]).ok();
    keep("wrong");
    let tested = test();
    assert!(tested.out.contains("wrong name or password (49)"), "{tested}");
    let mut talk = hello(&site);
    talk.expect("MAIL FROM:<sender@else.test>", 250);
    talk.expect("RCPT TO:<ada@local.test>", 451);
    site.logged(&["event=ldap-down", "wrong name or password", "rests=300s"]);
    keep(PASSWORD);
    assert_eq!(test().code, 0);
    talk.expect("RCPT TO:<ada@local.test>", 250);
    let log = site.log();
    assert!(!log.contains(PASSWORD) && !log.contains("=wrong"), "{log}");
    let refused = site.ctl(&["ldap", "set", "tls=off"]).exited(6).err;
    assert!(refused.contains("E0333"), "{refused}");
}
