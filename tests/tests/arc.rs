//! Mail of strangers that is passed on with seals of ours (ARC, RFC 8617), judged by Debian's dkimpy; and
//! sealers that are believed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use mailroot_tests::dkim::{self, Judged, Wish};
use mailroot_tests::dns::Dns;
use mailroot_tests::message::fields;
use mailroot_tests::peer::Peer;
use mailroot_tests::setup::Setup;
use mailroot_tests::site::Site;
use mailroot_tests::{ports, skip};

type Records = Vec<(String, String)>;

/// A name server with these texts.
fn serve(records: &Records) -> Option<Dns> {
    let line = |(name, text): &(String, String)| {
        let parts = text.as_bytes().chunks(200).map(String::from_utf8_lossy);
        let parts: Vec<String> = parts.map(|part| format!("\"{part}\"")).collect();
        format!("{name}. 60 IN TXT {}", parts.join(" "))
    };
    let lines: Vec<String> = records.iter().map(line).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let dns = Dns::serve(&lines);
    if dns.is_none() {
        skip::note("ARC", "unbound is not installed");
    }
    dns
}

fn is_here() -> bool {
    let here = dkim::is_here();
    if !here {
        skip::note("ARC", dkim::ABSENT);
    }
    here
}

/// A server to which everybody is a stranger; what it takes for `partner.test` goes to the peer.
fn site(dns: &Dns, peer: &Peer, keys: &[(&str, &str)]) -> Site {
    let at = peer.address();
    let route = format!("\"[{}]:{}\"", at.ip(), at.port());
    let partner = format!("{{name: partner.test, type: remote, relay: true, route: {route}}}");
    let setup = Setup::new().dns(dns.address(), ports::local().port()).domain(&partner);
    let usual = [
        ("access.relay.list", "[192.0.2.0/24]"),
        ("senders.spf", "mark"),
        ("senders.dkim", "mark"),
        ("senders.dmarc", "mark"),
        ("senders.arc", "mark"),
        ("senders.name", "own.test"),
    ];
    let all = usual.iter().filter(|(key, _)| !keys.iter().any(|(other, _)| other == key));
    Site::start(all.chain(keys).fold(setup, |setup, (key, value)| setup.key(key, value)))
}

/// The same with a key that seals.
fn sealing(dns: &Dns, peer: &Peer) -> (Site, Records) {
    let site = site(dns, peer, &[]);
    site.ctl(&["dkim", "create", "own.test", "--selector", "small", "--type", "ed25519"]).ok();
    site.ctl(&["dkim", "create", "own.test", "--selector", "mr1"]).ok();
    site.ctl(&["server", "set", "default", "senders.seal=own.test"]).ok();
    let records = dkim::records_of(&site.ctl(&["dkim", "dns", "own.test"]).ok());
    (site, records)
}

fn send(site: &Site, messages: &[Vec<u8>]) {
    let mut talk = site.talk();
    talk.expect("EHLO mail.sender.test", 250);
    for octets in messages {
        let sent = talk.message("a@sender.test", &["b@partner.test"], octets).unwrap();
        assert_eq!(sent.code, 250, "{sent}");
    }
}

fn plain(body: &str) -> Vec<u8> {
    format!("From: A <a@sender.test>\r\nTo: b@partner.test\r\nSubject: x\r\n\r\n{body}")
        .into_bytes()
}

/// The message as somebody before us has sealed it.
fn sealed(message: &[u8], domain: &str, found: &str) -> (Records, Vec<u8>) {
    let text = format!("Authentication-Results: {domain}; {found}\r\n").into_bytes();
    let whole = [&text[..], message].concat();
    let wish = Wish { message: &whole, domain, kind: "arc", forms: "", length: false };
    let (records, mut messages) = dkim::sign(&[wish]);
    (records, messages.remove(0))
}

fn judged(records: &Records, octets: &[u8]) -> Judged {
    dkim::judge_chains(records, &[octets]).remove(0)
}

#[test]
fn mail_that_is_passed_on_bears_a_chain_that_others_find_good() {
    if !is_here() {
        return;
    }
    let (keys, passed_on) = sealed(&plain("sealed before\r\n"), "list.test", "arc=none; spf=pass");
    let Some(dns) = serve(&keys) else { return };
    let peer = Peer::accepting(ports::local());
    let (site, own) = sealing(&dns, &peer);
    let records: Records = keys.into_iter().chain(own).collect();
    // A body of each kind: in memory, in a file, with ends that canonical forms differ about.
    let large = "0123456789 abc\t\r\n".repeat(40_000) + &"\r\n".repeat(50_000) + "end\r\n \r\n\r\n";
    let messages = vec![plain("first\r\n \t\r\n\r\n"), plain(&large), plain(""), passed_on];
    send(&site, &messages);
    let received = peer.await_received(4);
    for it in &received {
        let text = String::from_utf8_lossy(&it.octets).into_owned();
        let head = text.split_once("\r\n\r\n").unwrap().0;
        let before = usize::from(head.contains("d=list.test"));
        let judged = judged(&records, &it.octets);
        assert_eq!(
            (judged.status.as_str(), judged.sets.len()),
            ("pass", before + 1),
            "{judged:?} {head}"
        );
        assert!(judged.sets.iter().all(|(_, message, seal, _)| *message && *seal), "{judged:?}");
        let said = if before == 1 { "pass" } else { "none" };
        assert_eq!((judged.sets[0].0, judged.sets[0].3.as_str()), (before as u64 + 1, said));
        let results = fields(&it.octets, "ARC-Authentication-Results");
        let ours: Vec<&String> = results.iter().filter(|it| it.contains("own.test;")).collect();
        assert_eq!(ours.len(), 1, "{head}");
        assert!(ours[0].contains("spf=none") && ours[0].contains(&format!("arc={said}")), "{head}");
        assert!(head.contains("a=rsa-sha256") && !head.contains("a=ed25519"), "{head}");
        assert!(head.lines().all(|line| line.len() <= 998), "{head}");
        assert_eq!(fields(&it.octets, "DKIM-Signature").len(), 0);
    }
    peer.must_have_read_clean_lines();
    // Somebody behind us changes it, and is found out.
    let changed = [&received[0].octets[..], b"added\r\n"].concat();
    assert_eq!(judged(&records, &changed).status, "fail");

    // Whoever is known is not looked at, and vouches for himself.
    site.ctl(&["server", "set", "default", "access.relay.list=[127.0.0.0/8]"]).ok();
    send(&site, &[plain("known\r\n")]);
    let received = peer.await_received(5);
    assert_eq!(judged(&records, &received[4].octets).status, "none");
}

#[test]
fn a_chain_that_does_not_hold_is_ended_once() {
    if !is_here() {
        return;
    }
    let (keys, good) = sealed(&plain("sealed\r\n"), "list.test", "arc=none; spf=pass");
    let Some(dns) = serve(&keys) else { return };
    let peer = Peer::accepting(ports::local());
    let (site, own) = sealing(&dns, &peer);
    let records: Records = keys.into_iter().chain(own).collect();
    let broken = String::from_utf8(good).unwrap().replace("\r\n\r\nsealed", "\r\n\r\nchanged");
    send(&site, &[broken.into_bytes()]);
    let ended = peer.await_received(1).remove(0).octets;
    let told = judged(&records, &ended);
    assert_eq!(told.status, "ended", "{told:?}");
    let (number, message, _, said) = &told.sets[0];
    assert_eq!((*number, *message, said.as_str()), (2, true, "fail"));
    // Our own judgement of the seal, which covers its set alone, and nobody seals it once more.
    let text = String::from_utf8_lossy(&ended).into_owned();
    let start = text.find("ARC-Seal: i=2").unwrap();
    let from = text.find("From: A").unwrap();
    let alone = format!("{}{}", &text[start..from], &text[from..]);
    assert!(alone.contains("cv=fail"), "{alone}");
    send(&site, std::slice::from_ref(&ended));
    let again = peer.await_received(2).remove(1).octets;
    assert_eq!(fields(&again, "ARC-Seal").len(), 2);
    assert_eq!(judged(&records, &again).status, "ended");
}

#[test]
fn sealers_that_are_trusted_overrule_a_policy_and_others_do_not() {
    if !is_here() {
        return;
    }
    let passed = "arc=none; dmarc=pass header.from=sender.test";
    let message = |mark: &str| plain(&format!("{mark}\r\n"));
    let (mut records, believed) = sealed(&message("believed"), "list.test", passed);
    let (more, large) = sealed(&plain(&"large\r\n".repeat(60_000)), "list.test", passed);
    let large_keys: Records = more;
    let (stranger_keys, stranger) = sealed(&message("stranger"), "other.test", passed);
    let (failed_keys, failed) =
        sealed(&message("failed"), "mild.test", "arc=none; dmarc=fail header.from=sender.test");
    // Each call of the signer has keys of its own, so that each sealer is used once but for the first.
    records.extend(stranger_keys);
    records.extend(failed_keys);
    records.push(("_dmarc.sender.test".to_owned(), "v=DMARC1; p=reject".to_owned()));
    let Some(dns) = serve(&records) else { return };
    let peer = Peer::accepting(ports::local());
    let keys = [("senders.dmarc", "reject"), ("senders.trusted_sealers", "[list.test, mild.test]")];
    let site = site(&dns, &peer, &keys);
    let changed = String::from_utf8(believed.clone()).unwrap() + "added\r\n";
    let mut talk = site.talk();
    talk.expect("EHLO mail.sender.test", 250);
    for (octets, code) in [
        (&believed[..], 250),
        (changed.as_bytes(), 550),
        (&stranger[..], 550),
        (&failed[..], 550),
        (&message("bare")[..], 550),
    ] {
        let sent = talk.message("a@sender.test", &["b@local.test"], octets).unwrap();
        assert_eq!(sent.code, code, "{sent} {}", String::from_utf8_lossy(octets));
        assert!(code == 250 || sent.enhanced() == Some("5.7.26"), "{sent}");
    }
    let results = &site.await_dropped(1)[0].fields("Authentication-Results")[0];
    let results = results.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        results.contains("dmarc=fail (p=reject, overruled by arc=pass of list.test)"),
        "{results}"
    );
    assert!(results.ends_with("arc=pass header.d=list.test"), "{results}");
    site.logged(&["event=received", "checks=", "dmarc=fail arc=pass(list.test)"]);
    let told = site.ctl(&["trace", "--from", "a@sender.test", "--last", "1"]).ok();
    assert!(told.contains("dmarc=fail arc=pass(list.test)"), "{told}");
    drop(site);

    // The same with a body that goes to a file, where there is room for what will be found.
    let mut records = large_keys;
    records.push(("_dmarc.sender.test".to_owned(), "v=DMARC1; p=reject".to_owned()));
    let Some(dns) = serve(&records) else { return };
    let site = self::site(&dns, &peer, &keys);
    let mut talk = site.talk();
    talk.expect("EHLO mail.sender.test", 250);
    assert_eq!(talk.message("a@sender.test", &["b@local.test"], &large).unwrap().code, 250);
    let stored = &site.await_dropped(1)[0];
    assert!(stored.text().contains("overruled by arc=pass of list.test"));
}

#[test]
fn keys_about_chains_need_each_other() {
    let site = Site::start(Setup::new());
    let refused = |change: &str| site.ctl(&["server", "set", "default", change]).exited(6).err;
    assert!(refused("senders.trusted_sealers=[list.test]").contains("E0450"));
    site.ctl(&["server", "set", "default", "senders.arc=mark"]).ok();
    assert!(refused("senders.seal=own.test").contains("E0451"));
    assert!(refused("senders.trusted_sealers=[list.test]").contains("E0450"));
    site.ctl(&["server", "set", "default", "senders.dmarc=mark"]).ok();
    site.ctl(&["server", "set", "default", "senders.trusted_sealers=[list.test]"]).ok();
}
