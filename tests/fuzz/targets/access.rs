//! Lists of clients and the relay decision: networks agree with a reader of single bits, lists with
//! a slow search, and no spelling of a recipient is local to the door and remote to the router.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::{Domain, Mailbox};
use mailroot_common::net::Network;
use mailroot_common::units::Timestamp;
use smtpd_core::policy::access::{Entry, Line, List, Listed, Mode};
use smtpd_core::policy::connect::ConnectPolicy;
use smtpd_core::policy::relay::{RelayCertificates, RelayPolicy, RelayRule};
use smtpd_core::policy::{Certified, Facts, NameFact, Verdict};
use smtpd_core::route::domain::{Pattern, RemoteDomain};
use smtpd_core::route::table::{DirectFirst, NextHop, Settings, Table};

/// The moment everything is judged at.
const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fuzz_target!(|input: (u8, [u8; 16], &str)| {
    let (style, octets, text) = input;
    let client: IpAddr = if style & 1 == 0 {
        Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()
    } else {
        Ipv6Addr::from(octets).into()
    };
    let mut lines = text.lines();
    let (recipient, names) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let names: Vec<Domain> = names.split(' ').filter_map(|name| Domain::parse(name).ok()).collect();
    let lines: Vec<&str> = lines.collect();
    for line in &lines {
        network(line, client);
        entry(line);
    }
    let entries: Vec<Entry> = lines.iter().filter_map(|line| Entry::parse(line).ok()).collect();
    let mode = if style & 2 == 0 { Mode::Only } else { Mode::AllExcept };
    let name = match style >> 2 & 3 {
        0 => NameFact::Unknown,
        1 => NameFact::None,
        _ => NameFact::Names(names),
    };
    let authenticated = (style & 16 != 0).then(|| "ada".to_owned());
    let certificate = (style & 128 != 0).then_some(Certified::Pinned);
    let facts = Facts { name, authenticated, certificate, ..Facts::of_address(client) };
    let list = List { mode, lines: entries.into_iter().map(Line::from).collect() };
    assert!(list.asks_for_names(NOW) || !list.needs_name_of(client, NOW));
    let found = search(&list, &facts);
    judge(&list, &facts, found, style, recipient);
});

/// Bits of an address, and how many there are; IPv4 in IPv6's clothing is IPv4.
fn bits(address: IpAddr) -> Vec<bool> {
    let octets: Vec<u8> = match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => {
            v6.to_ipv4_mapped().map_or(v6.octets().to_vec(), |v4| v4.octets().to_vec())
        }
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}

/// Whether the text means the address: `None` if it is no network.
fn slow_contains(text: &str, client: IpAddr) -> Option<bool> {
    let (address, length) = match text.split_once('/') {
        None => (text.parse::<IpAddr>().ok()?, None),
        Some((address, length)) => {
            let plain = length.len() <= 3
                && length.bytes().all(|octet| octet.is_ascii_digit())
                && (length == "0" || !length.starts_with('0'));
            (address.parse().ok()?, Some(length.parse::<usize>().ok().filter(|_| plain)?))
        }
    };
    let full = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(full);
    let all = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    };
    if length > full || (length < 128 && all << length != 0) {
        return None;
    }
    let (network, client) = (bits(address), bits(client));
    let mapped = address.is_ipv6() && network.len() == 32;
    if mapped && length < 96 {
        // A network around all mapped addresses is one of IPv6: it holds no IPv4 address.
        return Some(client.len() == 128 && bits_of_v6(address)[..length] == client[..length]);
    }
    let length = if mapped { length - 96 } else { length };
    Some(network.len() == client.len() && network[..length] == client[..length])
}

fn bits_of_v6(address: IpAddr) -> Vec<bool> {
    let IpAddr::V6(v6) = address else { return Vec::new() };
    let all = v6.to_bits();
    (0..128).rev().map(|bit| all >> bit & 1 == 1).collect()
}

fn network(text: &str, client: IpAddr) {
    let parsed = Network::parse(text);
    match (&parsed, slow_contains(text, client)) {
        (Ok(network), Some(inside)) => {
            assert_eq!(network.contains(client), inside, "{text:?} {client}");
            let written = network.to_string();
            assert_eq!(written.parse().as_ref(), Ok(network), "{written}");
            assert_eq!(network.is_everything(), network.prefix() == 0);
            if network.is_loopback() {
                assert!(!inside || client.to_canonical().is_loopback());
            }
            assert_eq!(Network::are_everything(&[*network]), network.is_everything());
        }
        (Err(error), None) => assert!(!error.to_string().is_empty()),
        (parsed, slow) => panic!("{text:?}: {parsed:?} but {slow:?}"),
    }
}

fn entry(text: &str) {
    if let Ok(entry) = Entry::parse(text) {
        assert_eq!(entry.to_string().parse(), Ok(entry));
    }
    if let Ok(pattern) = Pattern::parse(text) {
        assert_eq!(pattern.to_string().parse(), Ok(pattern));
    }
}

/// Whether the client is on the list, entry by entry: `None` if nobody can know.
fn search(list: &List, facts: &Facts) -> Option<bool> {
    let mut unknown = false;
    for line in &list.lines {
        match (&line.entry, &facts.name) {
            (Entry::Network(network), _) => {
                if slow_contains(&network.to_string(), facts.client) == Some(true) {
                    return Some(true);
                }
            }
            (Entry::Name(_), NameFact::Unknown) => unknown = true,
            (Entry::Name(pattern), NameFact::Names(names)) => {
                let text = pattern.to_string();
                let on = names.iter().any(|name| match text.strip_prefix('*') {
                    Some(suffix) => name.as_str().ends_with(suffix) && name.as_str() != suffix,
                    None => name.as_str() == text,
                });
                if on {
                    return Some(true);
                }
            }
            (Entry::Name(_), NameFact::None) => {}
        }
    }
    (!unknown).then_some(false)
}

/// Compares the list with the slow reference; whether it lets this client in, if that is known.
fn judge_connection(list: &List, facts: &Facts, found: Option<bool>) -> Option<bool> {
    let said = match list.find(facts, NOW) {
        Listed::By(_) => Some(true),
        Listed::No => Some(false),
        Listed::Unknown => None,
    };
    assert_eq!(said, found, "{list:?} {facts:?}");
    let lets_in = found.map(|on| on == (list.mode == Mode::Only));
    let verdict = ConnectPolicy { list: list.clone() }.judge(facts, NOW);
    match lets_in {
        Some(true) => assert!(matches!(verdict, Verdict::Admit(_))),
        Some(false) => assert!(matches!(verdict, Verdict::Refuse(_))),
        None => assert!(matches!(verdict, Verdict::Defer(_))),
    }
    lets_in
}

fn judge(list: &List, facts: &Facts, found: Option<bool>, style: u8, recipient: &str) {
    let lets_in = judge_connection(list, facts, found);
    // Nobody may relay whom a balancer does not tell, whichever side of the list he would be on.
    let lets_in = if facts.client.is_unspecified() { Some(false) } else { lets_in };
    let domain = |text: &str| Domain::parse(text).expect("a domain");
    let remote = |text: &str, relay| RemoteDomain {
        relay,
        ..RemoteDomain::plain(Pattern::parse(text).expect("a pattern"))
    };
    let remote_domains = vec![remote("*.p.test", true), remote("no.p.test", false)];
    let table = Table::new(Settings {
        default_domain: domain("o.test"),
        alias_domains: vec![domain("a.test")],
        sender_routes: Vec::new(),
        remote_domains: remote_domains.clone(),
        smart_hosts: Vec::new(),
        direct_first: DirectFirst::Never,
    })
    .expect("a table");
    let Ok(mailbox) = Mailbox::parse(recipient) else { return };
    let policy = RelayPolicy {
        list: list.clone(),
        authenticated: style & 32 != 0,
        anonymous: style & 64 == 0,
        certificates: RelayCertificates::Pinned,
    };
    let opening = policy.opening(&remote_domains);
    assert!(opening.as_ref().is_none_or(|opening| !opening.to_string().is_empty()));
    assert!(matches!(ConnectPolicy::default().judge(facts, NOW), Verdict::Admit(_)));
    assert!(opening.is_some() || list.mode == Mode::Only || !policy.anonymous);
    let local = table.route(None, &mailbox).hop == NextHop::Drop;
    // What goes out on the wire again is judged and routed alike.
    let again = Mailbox::parse(&mailbox.to_string()).expect("it reads back");
    assert_eq!(table.route(None, &again), table.route(None, &mailbox));
    assert_eq!(
        policy.judge(facts, &again, &table, NOW),
        policy.judge(facts, &mailbox, &table, NOW)
    );
    let stranger = facts.authenticated.is_none();
    assert_eq!(
        matches!(policy.judge_sender(facts), Verdict::Admit(_)),
        policy.anonymous || !stranger
    );
    match policy.judge(facts, &mailbox, &table, NOW) {
        Verdict::Admit(admitted) => {
            assert!(policy.anonymous || !stranger);
            assert_eq!(admitted.mailbox(), &mailbox);
            assert_eq!(*admitted.rule() == RelayRule::LocalDomain, local);
            match admitted.rule() {
                RelayRule::LocalDomain => {}
                RelayRule::RemoteDomain(_) => {
                    let text = mailbox.host().to_string();
                    assert!(text.ends_with(".p.test") && text != "no.p.test");
                }
                RelayRule::Authenticated => assert!(!stranger && policy.authenticated),
                RelayRule::Certificate(how) => assert_eq!(facts.certificate, Some(*how)),
                RelayRule::List(_) | RelayRule::NotExcepted => assert_eq!(lets_in, Some(true)),
            }
            assert!(!admitted.rule().to_string().is_empty());
        }
        Verdict::Defer(_) => {
            assert!(!local && lets_in.is_none() && facts.certificate.is_none());
        }
        Verdict::Refuse(_) => {
            let shut = stranger && !policy.anonymous;
            assert!(shut || !local && lets_in == Some(false) && facts.certificate.is_none());
        }
    }
}
