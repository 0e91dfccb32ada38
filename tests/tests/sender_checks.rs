//! Whether strangers' mail is from whom it says: messages signed by dkimpy, senders judged by pyspf, and
//! what the daemon finds, marks and refuses, with a real DNS server.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Write as _;

use mailroot_tests::dkim::{self, Wish};
use mailroot_tests::dns::Dns;
use mailroot_tests::message::{self, Stored};
use mailroot_tests::setup::{LOCAL_DOMAIN, Setup};
use mailroot_tests::site::Site;
use mailroot_tests::talk::Talk;
use mailroot_tests::{ports, skip, spf};

/// A zone-file line for a text, cut into strings of bounded length.
fn text_record(name: &str, text: &str) -> String {
    let mut line = format!("{name}. 60 IN TXT");
    for part in text.as_bytes().chunks(200) {
        let _infallible = write!(line, " \"{}\"", String::from_utf8_lossy(part));
    }
    line
}

fn serve(records: &[String]) -> Option<Dns> {
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let dns = Dns::serve(&records);
    if dns.is_none() {
        skip::note("sender checks", "unbound is not installed");
    }
    dns
}

/// A server for which every client of this machine is a stranger, and with a partner who is not there.
fn site(dns: &Dns, keys: &[(&str, &str)]) -> Site {
    let setup = Setup::new().dns(dns.address(), ports::local().port());
    let nobody = ports::local();
    let partner = format!(
        "{{name: partner.test, type: remote, relay: true, route: \"[{}]:{}\"}}",
        nobody.ip(),
        nobody.port()
    );
    let setup = setup.key("access.relay.list", "[192.0.2.0/24]").domain(&partner);
    Site::start(keys.iter().fold(setup, |setup, (key, value)| setup.key(key, value)))
}

const MARK_ALL: &[(&str, &str)] = &[
    ("senders.spf", "mark"),
    ("senders.dkim", "mark"),
    ("senders.dmarc", "mark"),
    ("senders.arc", "mark"),
    ("senders.name", "checks.test"),
];

/// Sends messages over one session, each from its sender; how each was answered.
fn send(site: &Site, messages: &[(&str, &[u8])]) -> Vec<u16> {
    let mut talk = site.talk();
    talk.expect("EHLO mail.sender.test", 250);
    let to = format!("b@{LOCAL_DOMAIN}");
    let mut codes = Vec::new();
    for (from, octets) in messages {
        let reply = talk.message(from, &[&to], octets).unwrap();
        codes.push(reply.code);
        if reply.code != 250 {
            talk.expect("RSET", 250);
        }
    }
    codes
}

/// The dropped message whose body ends with this mark.
fn marked<'a>(all: &'a [Stored], mark: &str) -> &'a Stored {
    let end = format!("{mark}\r\n");
    all.iter().find(|it| it.text().trim_end().ends_with(end.trim_end())).unwrap()
}

/// Our results of a message, in one line.
fn results(stored: &Stored) -> String {
    let fields = stored.fields("Authentication-Results");
    let ours: Vec<&String> = fields.iter().filter(|it| it.starts_with("checks.test")).collect();
    assert_eq!(ours.len(), 1, "{}", stored.text());
    ours[0].split_whitespace().collect::<Vec<_>>().join(" ")
}

fn plain(from: &str, mark: &str) -> Vec<u8> {
    format!("From: A <{from}>\r\nTo: b@local.test\r\nSubject: x\r\n\r\ntext {mark}\r\n")
        .into_bytes()
}

/// Messages whose canonical forms are easy to get wrong.
fn bodies() -> Vec<String> {
    let mut all: Vec<String> =
        ["", "\r\n\r\n", "a \t b\t\r\n", "a\r\n \t \r\n \r\n", "\r\n\r\na\r\n"]
            .iter()
            .map(|&body| body.to_owned())
            .collect();
    all.push(
        "0123456789  abcdef\t\r\n".repeat(30_000) + &"\r\n".repeat(50_000) + "end\r\n \r\n\r\n",
    );
    all
}

#[test]
fn signatures_of_all_forms_hold_in_memory_and_in_files_and_are_found_out_when_changed() {
    if !dkim::is_here() {
        skip::note("sender checks", dkim::ABSENT);
        return;
    }
    let mut messages = Vec::new();
    for (number, body) in bodies().into_iter().enumerate() {
        let text = format!(
            "From: A <a@sender.test>\r\nTo: b@local.test\r\nSubject:  folded\r\n\t x {number}\r\n\
             Authentication-Results: checks.test; forged=pass\r\n\
             Authentication-Results: other.test; kept=pass\r\n\r\n{body}"
        );
        messages.push(text.into_bytes());
    }
    let mut wishes = Vec::new();
    for message in &messages {
        for (kind, forms) in [
            ("rsa", "relaxed/relaxed"),
            ("rsa", "simple/simple"),
            ("ed25519", "relaxed/simple"),
            ("ed25519", "simple/relaxed"),
        ] {
            wishes.push(Wish { message, domain: "sender.test", kind, forms, length: false });
        }
    }
    let (keys, signed) = dkim::sign(&wishes);
    let mut records: Vec<String> =
        keys.iter().map(|(name, text)| text_record(name, text)).collect();
    records.push(text_record("_dmarc.sender.test", "v=DMARC1; p=reject"));
    let Some(dns) = serve(&records) else { return };
    let site = site(&dns, MARK_ALL);
    let mut sent: Vec<(&str, Vec<u8>)> =
        signed.iter().map(|octets| ("a@elsewhere.test", octets.clone())).collect();
    for octets in &signed {
        let text = String::from_utf8(octets.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let changed = format!("{head}\r\n\r\nadded\r\n{body}");
        sent.push(("changed@elsewhere.test", changed.into_bytes()));
    }
    let offered: Vec<(&str, &[u8])> =
        sent.iter().map(|(from, it)| (*from, it.as_slice())).collect();
    assert!(send(&site, &offered).iter().all(|&code| code == 250));
    let all = site.await_dropped(sent.len());
    assert_eq!(all.len(), sent.len());
    for stored in &all {
        let found = results(stored);
        let changed = stored.fields("X-Sender")[0].contains("changed@");
        let expected =
            if changed { ("dkim=fail ", "dmarc=fail") } else { ("dkim=pass ", "dmarc=pass") };
        assert!(found.contains(expected.0) && found.contains(expected.1), "{found}");
        assert!(found.contains("spf=none smtp.mailfrom=elsewhere.test"), "{found}");
        assert!(found.contains("header.d=sender.test"), "{found}");
        let text = stored.text();
        assert!(!text.contains("forged=pass") && text.contains("kept=pass"), "{text}");
        let head = text.split_once("\r\n\r\n").unwrap().0;
        assert!(head.lines().all(|line| line.len() <= 998));
    }
    // What was taken in is what comes out, but for our fields and the forged one.
    for (_, octets) in &sent {
        let body = message::body(octets);
        assert!(all.iter().any(|stored| stored.body() == body), "{}", body.len());
    }
    let line = site.logged(&["event=received", "checks="]);
    assert!(line.contains("dkim=pass(sender.test)") && line.contains("dmarc=pass"), "{line}");
}

#[test]
fn a_part_of_a_body_that_is_signed_vouches_for_none_of_it() {
    if !dkim::is_here() {
        skip::note("sender checks", dkim::ABSENT);
        return;
    }
    let message = plain("a@sender.test", "whole");
    let wish = Wish {
        message: &message,
        domain: "sender.test",
        kind: "rsa",
        forms: "relaxed/relaxed",
        length: true,
    };
    let (keys, signed) = dkim::sign(&[wish]);
    let mut records: Vec<String> =
        keys.iter().map(|(name, text)| text_record(name, text)).collect();
    records.push(text_record("_dmarc.sender.test", "v=DMARC1; p=reject"));
    let Some(dns) = serve(&records) else { return };
    let site = site(&dns, MARK_ALL);
    let longer = [&signed[0][..], b"bought\r\n"].concat();
    let sent = [("a@sender.test", &signed[0][..]), ("a@sender.test", &longer)];
    assert_eq!(send(&site, &sent), [250, 250]);
    let all = site.await_dropped(2);
    assert!(results(marked(&all, "whole")).contains("dkim=pass"));
    let found = results(marked(&all, "bought"));
    assert!(found.contains("dkim=policy") && found.contains("dmarc=fail"), "{found}");
}

#[test]
fn chains_of_those_who_passed_mail_on_hold_until_somebody_changes_the_message() {
    if !dkim::is_here() {
        skip::note("sender checks", dkim::ABSENT);
        return;
    }
    let text = "Authentication-Results: one.test; arc=none; spf=pass\r\n".to_owned()
        + &String::from_utf8(plain("a@sender.test", "first")).unwrap();
    let wish = |message, domain| Wish { message, domain, kind: "arc", forms: "", length: false };
    let (keys, sealed) = dkim::sign(&[wish(text.as_bytes(), "one.test")]);
    let records: Vec<String> = keys.iter().map(|(name, text)| text_record(name, text)).collect();
    let Some(dns) = serve(&records) else { return };
    let site = site(&dns, MARK_ALL);
    let sealed = String::from_utf8(sealed[0].clone()).unwrap();
    let changed = sealed.replace("text first", "text changed");
    let forged = sealed.replace("one.test; arc=none; spf=pass", "one.test; arc=none; spf=fail");
    let forged = forged.replace("text first", "text first forged");
    let none = String::from_utf8(plain("a@sender.test", "none")).unwrap();
    let sent: Vec<(&str, &[u8])> =
        [&sealed, &changed, &forged, &none].map(|it| ("a@sender.test", it.as_bytes())).to_vec();
    assert_eq!(send(&site, &sent), [250; 4]);
    let all = site.await_dropped(4);
    for (mark, expected) in [
        ("text first", "arc=pass header.d=one.test"),
        ("text changed", "arc=fail header.d=one.test"),
        ("forged", "arc=fail header.d=one.test"),
        ("none", "arc=none"),
    ] {
        assert!(
            results(marked(&all, mark)).ends_with(expected),
            "{mark}: {}",
            results(marked(&all, mark))
        );
    }
}

#[test]
fn mail_is_refused_where_its_domain_wants_that_and_we_do_and_only_strangers_mail() {
    let records = [
        text_record("no.test", "v=spf1 -all"),
        text_record("soft.test", "v=spf1 ~all"),
        text_record("yes.test", "v=spf1 ip4:127.0.0.1 -all"),
        text_record("broken.test", "v=spf1 moo"),
        text_record("_dmarc.strict.test", "v=DMARC1; p=reject"),
        text_record("_dmarc.yes.test", "v=DMARC1; p=reject"),
        text_record("_dmarc.mild.test", "v=DMARC1; p=quarantine"),
    ];
    let Some(dns) = serve(&records) else { return };
    let keys =
        [("senders.spf", "reject"), ("senders.dmarc", "reject"), ("senders.name", "checks.test")];
    let site = site(&dns, &keys);
    let mut talk = site.talk();
    talk.expect("EHLO mail.no.test", 250);
    let refused = talk.expect("MAIL FROM:<a@no.test>", 550);
    assert_eq!(refused.enhanced(), Some("5.7.23"), "{refused}");
    // Without a sender it is what the client calls itself that counts.
    talk.expect("MAIL FROM:<>", 250);
    talk.expect("RSET", 250);
    for fine in ["soft.test", "yes.test", "broken.test", "none.test"] {
        talk.expect(&format!("MAIL FROM:<a@{fine}>"), 250);
        talk.expect("RSET", 250);
    }
    let large = "x\r\n".repeat(200_000);
    for (author, body, code) in [
        ("a@strict.test", "small", 550),
        ("a@sub.strict.test", &large, 550),
        ("a@mild.test", "mild", 250),
        ("a@yes.test", "yes", 250),
    ] {
        let octets = format!("From: {author}\r\nSubject: x\r\n\r\n{body}\r\n");
        let reply = talk.message("a@yes.test", &["b@local.test"], octets.as_bytes()).unwrap();
        assert_eq!(reply.code, code, "{author}: {reply}");
        assert!(code == 250 || reply.enhanced() == Some("5.7.26"), "{reply}");
    }
    site.logged(&["event=reject", "reason=spf-failed", "from=<a@no.test>"]);
    site.logged(&["event=reject", "reason=dmarc-failed", "stage=end"]);
    let all = site.await_dropped(2);
    assert!(
        results(marked(&all, "mild")).contains("dmarc=fail (p=quarantine) header.from=mild.test")
    );
    let found = results(marked(&all, "yes"));
    assert!(found.contains("spf=pass") && found.contains("dmarc=pass"), "{found}");

    // Whoever may relay is not looked at.
    site.ctl(&["server", "set", "default", "access.relay.list=[127.0.0.0/8]"]).ok();
    assert_eq!(send(&site, &[("a@no.test", &plain("a@strict.test", "known"))]), [250]);
    let all = site.await_dropped(3);
    assert!(marked(&all, "known").fields("Authentication-Results").is_empty());
    assert_eq!(all.len(), 3, "what was refused is nowhere");
}

#[test]
fn what_dns_does_not_tell_refuses_nothing_and_what_was_found_is_shown() {
    let Some(dns) = serve(&[text_record("known.test", "v=spf1 ip4:127.0.0.1 -all")]) else {
        return;
    };
    let keys =
        [("senders.spf", "reject"), ("senders.dmarc", "reject"), ("senders.name", "checks.test")];
    let site = site(&dns, &keys);
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = nobody.local_addr().unwrap();
    site.ctl(&["config", "set", &format!("dns.resolvers={silent}"), "dns.timeout=1s"]).ok();
    site.ctl(&["server", "set", "default", "senders.timeout=1s"]).ok();
    assert_eq!(send(&site, &[("a@known.test", &plain("a@known.test", "silent"))]), [250]);
    let all = site.await_dropped(1);
    let found = results(&all[0]);
    assert!(found.contains("spf=temperror") && found.contains("dmarc=temperror"), "{found}");

    site.ctl(&["config", "set", &format!("dns.resolvers={}", dns.address())]).ok();
    assert_eq!(send(&site, &[("a@known.test", &plain("a@known.test", "told"))]), [250]);
    let all = site.await_dropped(2);
    assert!(results(marked(&all, "told")).contains("spf=pass smtp.mailfrom=known.test"));
    let listed = site.control().json(&["trace", "--from", "a@known.test"]).to_string();
    assert!(listed.contains("spf=pass") && listed.contains("spf=temperror"), "{listed}");

    let mut talk = site.talk();
    talk.expect("EHLO mail.sender.test", 250);
    let octets = plain("a@known.test", "waits");
    assert_eq!(talk.message("a@known.test", &["c@partner.test"], &octets).unwrap().code, 250);
    let line = site.logged(&["event=received", "c@partner.test"]);
    let id = line.split(" id=").nth(1).unwrap().split(' ').next().unwrap();
    let shown = site.ctl(&["queue", "show", id]).ok();
    assert!(shown.contains("checks      spf=pass dkim=none dmarc=none"), "{shown}");
}

#[test]
fn doctor_says_whether_our_own_records_let_our_mail_leave() {
    let many: Vec<String> = (0..11).map(|number| format!("a:h{number}.own.test")).collect();
    let records = [
        text_record("own.test", "v=spf1 ip4:198.51.100.9 include:more.test -all"),
        text_record("more.test", "v=spf1 a mx ip4:198.51.100.7 ~all"),
        text_record("_dmarc.own.test", "v=DMARC1; p=reject"),
        text_record("many.test", &format!("v=spf1 {} -all", many.join(" "))),
    ];
    let Some(dns) = serve(&records) else { return };
    let site = site(&dns, &[("delivery.source", "198.51.100.9")]);
    let look = |masquerade: &str| {
        let key = format!("delivery.masquerade_domain={masquerade}");
        site.ctl(&["server", "set", "default", &key]).ok();
        site.ctl(&["doctor", "spf", "dmarc"]).exited(10).out
    };
    let found = look("own.test");
    assert!(found.contains("3 of 10 terms ask DNS"), "{found}");
    assert!(found.contains("own.test leads to more.test: \"v=spf1 a mx"), "{found}");
    assert!(found.contains("own.test lets 198.51.100.9 send"), "{found}");
    assert!(found.contains("own.test wants reject for mail that fails"), "{found}");
    let found = look("many.test");
    assert!(found.contains("11 of 10 terms ask DNS, so that it may not count"), "{found}");
    assert!(found.contains("many.test publishes no policy"), "{found}");
    let found = look("none.test");
    assert!(found.contains("none.test: there is no record"), "{found}");
}

#[test]
fn senders_are_judged_as_another_implementation_judges_them() {
    if !spf::is_here() {
        skip::note("sender checks", spf::ABSENT);
        return;
    }
    const COUNT: usize = 300;
    let zone = spf::random_zone(COUNT);
    let lines: Vec<String> = zone
        .iter()
        .map(|(name, kind, value)| match *kind {
            "TXT" => text_record(name, value),
            _ => format!("{name}. 60 IN {kind} {value}"),
        })
        .collect();
    let Some(dns) = serve(&lines) else { return };
    let site = site(&dns, &[("senders.spf", "mark"), ("senders.name", "checks.test")]);
    let sender = |number: usize| format!("us@d{number}.test");
    let client =
        |number: usize| if number.is_multiple_of(4) { "2001:db8::7" } else { "203.0.113.1" };
    let claims: Vec<(String, String, String)> = (0..COUNT)
        .map(|number| (client(number).to_owned(), sender(number), "mail.sender.test".to_owned()))
        .collect();
    let expected = spf::judge(&zone, &claims);
    site.ctl(&["server", "set", "default", "access.proxy_from=127.0.0.1"]).ok();
    for (numbers, header) in [
        (0, "PROXY TCP6 2001:db8::7 ::1 4000 25\r\n"),
        (1, "PROXY TCP4 203.0.113.1 127.0.0.1 4000 25\r\n"),
    ] {
        let mut talk = Talk::connect(site.address()).unwrap();
        talk.send(header.as_bytes()).unwrap();
        assert_eq!(talk.reply().unwrap().code, 220);
        talk.expect("EHLO mail.sender.test", 250);
        for number in (0..COUNT).filter(|number| numbers == usize::from(!number.is_multiple_of(4)))
        {
            let octets = plain("a@x.test", &sender(number));
            let to = format!("b@{LOCAL_DOMAIN}");
            assert_eq!(talk.message(&sender(number), &[&to], &octets).unwrap().code, 250);
        }
    }
    let all = site.await_dropped(COUNT);
    let mut differing = Vec::new();
    let mut kinds = std::collections::BTreeMap::<&str, usize>::new();
    for stored in &all {
        let from = stored.fields("X-Sender")[0].trim_matches(['<', '>']).to_owned();
        let number: usize = from["us@d".len()..from.len() - ".test".len()].parse().unwrap();
        let record = &zone[zone.len() - COUNT + number].2;
        let found = results(stored);
        let said = &*expected[number];
        if !found.contains(&format!("spf={said} ")) {
            differing.push(format!("{record}: {found}, and pyspf says {said}"));
        }
        *kinds.entry(said).or_default() += 1;
    }
    assert!(differing.is_empty(), "{} differ: {differing:#?}", differing.len());
    assert!(kinds.len() >= 5, "{kinds:?}");
}
