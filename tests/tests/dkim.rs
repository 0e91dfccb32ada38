//! Mail that leaves with signatures, judged by Debian's dkimpy with the records that `smtpctl dkim dns`
//! prints.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use mailroot_tests::dns::Dns;
use mailroot_tests::message::{awkward, fields, tagged};
use mailroot_tests::peer::{Peer, Received};
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{dkim, ports, skip, wait};

const DOMAIN: &str = "client.test";

/// A daemon that sends everything to a peer with these extensions.
fn site(extensions: &[&'static str]) -> (Site, Peer) {
    let peer = Peer::offering(ports::local(), extensions, |_| mailroot_tests::peer::Answer::Accept);
    let site = Site::start(Setup::new().smart_host(peer.address()));
    (site, peer)
}

fn create(site: &Site, more: &[&str]) {
    let mut arguments = vec!["dkim", "create", DOMAIN];
    arguments.extend(more);
    site.ctl(&arguments).ok();
}

fn records(site: &Site) -> Vec<(String, String)> {
    dkim::records_of(&site.ctl(&["dkim", "dns", DOMAIN]).ok())
}

fn send(site: &Site, from: &str, messages: &[Vec<u8>]) {
    let mut talk = site.talk();
    talk.expect("EHLO client.test", 250);
    for message in messages {
        let sent = talk.message(from, &["b@example.com"], message).unwrap();
        assert_eq!(sent.code, 250, "{sent:?}");
    }
}

fn octets(received: &[Received]) -> Vec<&[u8]> {
    received.iter().map(|it| it.octets.as_slice()).collect()
}

/// Bodies that canonical forms have been got wrong for.
fn bodies() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        "\r\n",
        "\r\n\r\n\r\n",
        "one\r\n",
        "one\r\n\r\n\r\n\r\n",
        "one\r\n \t \r\n \r\n",
        "\r\n\r\none \r\n\ttwo\t\r\n",
        ".\r\n..\r\n.dot\r\n",
        "Gr\u{fc}\u{df}e \u{2709}\r\n",
    ]
    .map(|body| body.as_bytes().to_vec())
    .to_vec();
    all.push([&[b'x'; 998][..], b"\r\n"].concat());
    let mut random = fastrand::Rng::with_seed(6376);
    for _ in 0..20 {
        let pieces = ["a", " ", "\t", "\r\n", "\r\n\r\n", ".", "  b", "\u{e9}"];
        let count = random.usize(0..40);
        let text: String = (0..count).map(|_| pieces[random.usize(0..pieces.len())]).collect();
        all.push(format!("{text}\r\n").into_bytes());
    }
    all
}

fn messages() -> Vec<Vec<u8>> {
    let header = tagged("form");
    let end = header.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let mut all: Vec<Vec<u8>> =
        bodies().into_iter().map(|body| [&header[..end], &body].concat()).collect();
    all.push(awkward("awkward"));
    // Larger than what is kept in memory, with a run of empty lines across pieces.
    let large = b"0123456789 abcdef\r\n".repeat(40_000);
    all.push([&header[..end], &large, &b"\r\n".repeat(200_000), b"end\r\n\r\n"].concat());
    let folded = "From: \"A\tB\"\r\n  <a@CLIENT.test> \r\nSubject:\r\n\tfolded  twice\r\n \t \r\nsubject: two \
                  \r\nList-Id:x\r\nX-Other: y\r\n\r\nbody\r\n";
    all.push(folded.as_bytes().to_vec());
    all
}

#[test]
fn signatures_of_all_kinds_of_bodies_hold() {
    if !dkim::is_here() {
        skip::note("signatures", dkim::ABSENT);
        return;
    }
    for extensions in [&["8BITMIME", "PIPELINING"][..], &["8BITMIME", "CHUNKING", "SMTPUTF8"]] {
        let (site, peer) = site(extensions);
        create(&site, &["--type", "ed25519", "--selector", "small"]);
        create(&site, &[]);
        let records = records(&site);
        let names: Vec<&str> = records.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["small._domainkey.client.test", "mr1._domainkey.client.test"]);
        let messages = messages();
        send(&site, "a@client.test", &messages);
        let received = peer.await_received(messages.len());
        for (holds, it) in dkim::verify(&records, &octets(&received)).iter().zip(&received) {
            assert_eq!(*holds, [true, true], "{}", String::from_utf8_lossy(&it.octets));
        }
        let plain = String::from_utf8_lossy(&received[0].octets).into_owned();
        for kind in ["a=rsa-sha256", "a=ed25519-sha256"] {
            assert!(plain.contains(kind), "{plain}");
        }
        assert!(plain.contains("c=relaxed/simple;") && !plain.contains("l="), "{plain}");
        assert!(!plain.contains("h=Received") && !plain.contains(":Received"), "{plain}");
        peer.must_have_read_clean_lines();
    }
}

#[test]
fn a_message_that_was_changed_is_found_out() {
    if !dkim::is_here() {
        skip::note("signatures", dkim::ABSENT);
        return;
    }
    let (site, peer) = site(&["8BITMIME"]);
    create(&site, &["--type", "ed25519"]);
    create(&site, &["--bits", "3072"]);
    send(&site, "a@client.test", &[tagged("tamper")]);
    let received = peer.await_received(1);
    let text = String::from_utf8(received[0].octets.clone()).unwrap();
    let changed: Vec<String> = vec![
        text.clone(),
        text.replace("body of", "bodies of"),
        text.replace("Subject: tamper", "Subject: tempter"),
        format!("From: <other@client.test>\r\n{text}"),
        format!("{text}more\r\n"),
        text.replace("\r\nX-Tag: tamper", ""),
        text.replace("Subject: tamper", "SUBJECT:\r\n tamper \t"),
    ];
    let changed: Vec<&[u8]> = changed.iter().map(String::as_bytes).collect();
    let found = dkim::verify(&records(&site), &changed);
    let expected = [true, false, false, false, false, true, true].map(|holds| vec![holds; 2]);
    assert_eq!(found, expected);
}

#[test]
fn only_mail_of_domains_with_keys_is_signed_and_a_strangers_is_not() {
    let peer = Peer::accepting(ports::local());
    let at = peer.address();
    let partner = format!(
        "{{name: partner.test, type: remote, relay: true, route: \"[{}]:{}\"}}",
        at.ip(),
        at.port()
    );
    let closed = ports::local().port();
    let away =
        format!("{{name: away.test, type: remote, relay: true, route: \"[127.0.0.1]:{closed}\"}}");
    let setup = Setup::new().smart_host(at).domain(&partner).domain(&away);
    let setup = setup.key("access.relay.list", "[]");
    let site = Site::start(setup);
    create(&site, &["--type", "ed25519"]);
    let from = |address: &str| format!("From: {address}\r\nSubject: x\r\n\r\nx\r\n").into_bytes();
    let to_partner = |message: Vec<u8>| {
        let before = peer.received().len();
        let mut talk = site.talk();
        talk.expect("EHLO client.test", 250);
        assert_eq!(talk.message("a@client.test", &["b@partner.test"], &message).unwrap().code, 250);
        let received = peer.await_received(before + 1);
        fields(&received[before].octets, "DKIM-Signature").len()
    };
    assert_eq!(to_partner(from("a@client.test")), 0, "a stranger's");
    let (before, mut talk) = (peer.received().len(), site.talk());
    talk.expect("EHLO client.test", 250);
    let message = from("a@client.test");
    assert_eq!(talk.message("a@client.test", &["b@away.test"], &message).unwrap().code, 250);
    let waiting = site.control().json(&["queue", "list"]);
    let id = waiting[0]["id"].as_str().unwrap();
    site.ctl(&["queue", "redirect", id, "--to-address", "b@example.com"]).ok();
    let received = peer.await_received(before + 1);
    assert_eq!(fields(&received[before].octets, "DKIM-Signature").len(), 0, "led elsewhere");
    site.ctl(&["relay", "allow", "127.0.0.1"]).ok();
    assert_eq!(to_partner(from("a@client.test")), 1);
    assert_eq!(to_partner(from("a@below.client.test")), 0);
    assert_eq!(to_partner(from("a@other.test")), 0, "From counts, not the envelope");
    assert_eq!(to_partner(b"Subject: x\r\n\r\nx\r\n".to_vec()), 1, "the envelope without From");
    let text = fs::read_to_string(site.home().join("etc/servers.d/default.yaml")).unwrap();
    fs::write(
        site.home().join("etc/servers.d/default.yaml"),
        text.replace("domain: client.test", "subdomains: true, domain: client.test"),
    )
    .unwrap();
    site.ctl(&["reload"]).ok();
    assert_eq!(to_partner(from("a@below.client.test")), 1);
}

#[test]
fn mail_waits_with_words_while_its_key_cannot_be_used() {
    let (site, peer) = site(&["8BITMIME"]);
    create(&site, &["--type", "ed25519"]);
    let key = site.home().join("etc/secrets.d/mr1._domainkey.client.test");
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    let aside = site.home().join("aside");
    fs::rename(&key, &aside).unwrap();
    let warned = site.ctl(&["reload"]);
    let said = format!("{}{}", warned.out, warned.err);
    assert!(said.contains("mail of client.test cannot be signed"), "{said}");
    let checked = site.ctl(&["config", "check"]);
    assert!(format!("{}{}", checked.out, checked.err).contains("W0438"), "{checked}");
    send(&site, "a@client.test", &[tagged("waits")]);
    send(&site, "a@other.test", &[b"From: a@other.test\r\n\r\nother\r\n".to_vec()]);
    let reason = wait::until("a message that waits", || {
        let waiting = site.control().json(&["queue", "list"]);
        let reason = waiting[0]["reason"].as_str().unwrap_or_default().to_owned();
        reason.contains("cannot be signed").then_some(reason)
    });
    assert!(reason.contains("4.7.5") && reason.contains("No such file"), "{reason}");
    assert_eq!(peer.await_received(1).len(), 1, "other mail goes on");
    let why = site.ctl(&["trace", "--to", "b@example.com", "--last", "2"]).ok();
    assert!(why.contains("smtpctl dkim list"), "{why}");
    let listed = site.control().json(&["dkim", "list"]);
    assert!(listed[0]["trouble"].as_str().unwrap().contains("cannot read the secret"), "{listed}");

    fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let listed = site.control().json(&["dkim", "list"]);
    assert!(listed[0]["trouble"].as_str().unwrap().contains("neither an RSA key"), "{listed}");

    fs::rename(&aside, &key).unwrap();
    site.ctl(&["queue", "flush"]).ok();
    let received = peer.await_received(2);
    let signed = received.iter().filter(|it| !fields(&it.octets, "DKIM-Signature").is_empty());
    assert_eq!(signed.count(), 1);
    let secret = fs::read_to_string(&key).unwrap();
    let line = secret.lines().nth(1).unwrap();
    assert!(!site.log().contains(line), "a key is never told");
}

#[test]
fn keys_are_made_listed_published_and_taken_away() {
    let site = Site::start(Setup::new());
    let tried = site.ctl(&["dkim", "create", DOMAIN, "--dry-run"]).ok();
    assert!(tried.contains("+dkim:") && !tried.contains("W0438"), "{tried}");
    assert!(!site.home().join("etc/secrets.d").exists());
    create(&site, &["--type", "ed25519"]);
    create(&site, &[]);
    let refused = site.ctl(&["dkim", "create", DOMAIN, "--selector", "MR2"]).exited(7).err;
    assert!(refused.contains("mr2._domainkey.client.test already"), "{refused}");
    site.ctl(&["dkim", "create", DOMAIN, "--bits", "1024"]).exited(2);
    let listed = site.control().json(&["dkim", "list"]);
    assert_eq!(
        (&listed[0]["selector"], &listed[0]["algorithm"]),
        (&"mr1".into(), &"ed25519".into())
    );
    assert_eq!((&listed[1]["selector"], &listed[1]["bits"]), (&"mr2".into(), &2048.into()));

    let Some(dns) = Dns::serve(&["mr2._domainkey.client.test. 60 IN TXT \"v=DKIM1; p=AAAA\""])
    else {
        skip::note("records of keys", "unbound is not installed");
        return;
    };
    site.ctl(&["config", "set", &format!("dns.resolvers={}", dns.address())]).ok();
    let zone = site.ctl(&["dkim", "dns", DOMAIN]).ok();
    assert!(zone.lines().next().unwrap().ends_with("; not in DNS yet"), "{zone}");
    assert!(zone.contains("DNS has something else"), "{zone}");
    let found = site.ctl(&["doctor", "dkim"]).exited(10).out;
    assert!(found.contains("publishes another key"), "{found}");

    let record = |line: &str| line.split_once("   ; ").unwrap().0.replace(" TXT ", " 60 IN TXT ");
    let published: Vec<String> = zone.lines().map(record).collect();
    let published: Vec<&str> = published.iter().map(String::as_str).collect();
    let dns = Dns::serve(&published).unwrap();
    site.ctl(&["config", "set", &format!("dns.resolvers={}", dns.address())]).ok();
    let zone = site.ctl(&["dkim", "dns", DOMAIN]).ok();
    assert!(zone.lines().all(|line| line.ends_with("; in DNS")), "{zone}");
    site.ctl(&["doctor", "dkim"]).ok();

    site.ctl(&["dkim", "remove", DOMAIN, "--selector", "mr1"]).ok();
    assert_eq!(site.control().json(&["dkim", "list"]).as_array().unwrap().len(), 1);
    site.ctl(&["dkim", "remove", DOMAIN, "--selector", "mr1"]).exited(3);
    site.ctl(&["dkim", "remove", DOMAIN, "--selector", "mr2"]).ok();
    site.ctl(&["dkim", "dns", DOMAIN]).exited(3);
    assert!(site.home().join("etc/secrets.d/mr2._domainkey.client.test").exists());
    create(&site, &[]);
    let listed = site.control().json(&["dkim", "list"]);
    assert_eq!(listed[0]["selector"], "mr3", "a selector is not used twice");
}
