//! MX answers: any records become a bounded list by preference, or a reason why there is none;
//! nothing is tried at or behind ourselves. Addresses of hosts are judged alike in either clothing.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::Domain;
use smtpd_core::route::loopback::{AddressRule, FoundBy, Refused};
use smtpd_core::route::mx::{HOSTS_MAX, MxError, MxRecord, hosts};

type Addresses = (bool, Vec<(bool, [u8; 16], u8)>, [u8; 16], u8);

fuzz_target!(|input: (Vec<(u16, u8)>, u64, Option<u8>, Addresses)| {
    let (records, random, us, addresses) = input;
    let name = |number: u8| Domain::parse(&format!("h{}.test", number % 48)).expect("a domain");
    let domain = name(1);
    let us = us.map(name);
    let is_ours = |domain: &Domain| Some(domain) == us.as_ref();
    let records: Vec<MxRecord> = records
        .into_iter()
        .map(|(preference, number)| MxRecord {
            preference,
            exchange: (number != 0).then(|| name(number)),
        })
        .collect();
    let real: Vec<(u16, Domain)> =
        records.iter().filter_map(|r| Some((r.preference, r.exchange.clone()?))).collect();
    let best = |host: &Domain| real.iter().filter(|(_, n)| n == host).map(|(p, _)| *p).min();
    let ours = us.as_ref().and_then(best);

    match hosts(&domain, records.clone(), is_ours, random) {
        Err(MxError::NullMx(of)) => {
            assert_eq!(of, domain);
            assert!(real.is_empty() && !records.is_empty());
        }
        Err(error @ MxError::Loop(_)) => {
            assert!(!error.to_string().is_empty() && error.status().to_string().starts_with('5'));
            let lowest = real.iter().map(|(preference, _)| *preference).min();
            assert!(if records.is_empty() { is_ours(&domain) } else { ours == lowest });
        }
        Ok(found) => {
            let list = found.to_try;
            assert!(!list.is_empty() && list.len() <= HOSTS_MAX);
            assert!(list.is_sorted_by_key(|host| host.preference));
            for (place, host) in list.iter().enumerate() {
                assert!(!list[..place].iter().any(|before| before.name == host.name));
                assert!(!is_ours(&host.name));
                if records.is_empty() {
                    assert_eq!((list.len(), &host.name), (1, &domain));
                } else {
                    assert_eq!(best(&host.name), Some(host.preference));
                    assert!(ours.is_none_or(|ours| host.preference < ours));
                }
            }
            // Whoever was left out is not better than whoever stays.
            let last = list.last().map(|host| host.preference);
            if !records.is_empty() {
                for (preference, name) in &real {
                    let stays = list.iter().any(|host| host.name == *name);
                    let behind_us = ours.is_some_and(|ours| *preference >= ours);
                    assert!(stays || behind_us || Some(*preference) >= last);
                }
            }
        }
    }
    judge(addresses);
});

fn address(v6: bool, octets: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = octets;
    if v6 { Ipv6Addr::from(octets).into() } else { Ipv4Addr::new(a, b, c, d).into() }
}

fn judge((allow_loopback, listeners, octets, port): Addresses) {
    let port = u16::from(port % 4);
    let at = |(v6, octets, port): &(bool, [u8; 16], u8)| {
        SocketAddr::new(address(*v6, *octets), u16::from(port % 4))
    };
    let listeners: Vec<SocketAddr> = listeners.iter().map(at).collect();
    let own_addresses = listeners.iter().map(SocketAddr::ip).take(2).collect();
    let rule = AddressRule { allow_loopback, listeners, own_addresses };
    let v4 = Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
    let v6 = Ipv6Addr::from(octets);
    for found_by in [FoundBy::Mx, FoundBy::Operator] {
        let plain = rule.check(v4.into(), port, found_by);
        assert_eq!(rule.check(v4.to_ipv6_mapped().into(), port, found_by), plain);
        for (address, verdict) in
            [(IpAddr::V4(v4), plain), (v6.into(), rule.check(v6.into(), port, found_by))]
        {
            if rule.listeners.contains(&SocketAddr::new(address, port)) {
                assert_eq!(verdict, Err(Refused::Ourselves));
            }
            let local =
                address.to_canonical().is_loopback() || address.to_canonical().is_unspecified();
            if local && found_by == FoundBy::Mx && !allow_loopback {
                assert!(verdict.is_err(), "a stranger reaches nothing on this machine");
            }
        }
    }
}
