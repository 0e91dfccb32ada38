//! Policies of domains for mail to them, and the records that speak of them: any octets become a policy within
//! its bounds or a reason why they are none; a pattern names the hosts that it reads as, and what was read is
//! read again from its own text.
#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::fuzz_target;
use mailroot_common::address::Domain;
use smtpd_core::route::domain::Pattern;
use smtpd_core::route::sts::{AGE_MAX_SECONDS, Mode, POLICY_OCTETS_MAX, Policy, record_id};

fuzz_target!(|octets: &[u8]| {
    match Policy::parse(octets) {
        Ok(policy) => {
            assert!(octets.len() <= POLICY_OCTETS_MAX);
            look_at(&policy);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Some(id) = record_id(text.split('\n')) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_alphanumeric()));
        assert_eq!(record_id([format!("v=STSv1; id={id};").as_str()]), Some(id));
        // Two records are none.
        assert_eq!(record_id([text, "v=STSv1; id=1"].join("\n").split('\n')), None);
    }
});

fn look_at(policy: &Policy) {
    assert!(policy.max_age <= AGE_MAX_SECONDS);
    assert!(policy.mode == Mode::None || !policy.mx.is_empty());
    let mut text = format!("version: STSv1\r\nmode: {}\r\n", policy.mode.as_str());
    for pattern in &policy.mx {
        let (named, alone) = match pattern {
            Pattern::Exact(host) => (host.to_string(), format!("x.{host}")),
            Pattern::Below(host) => (format!("x.{host}"), format!("y.x.{host}")),
        };
        let only = Policy { mx: vec![pattern.clone()], ..policy.clone() };
        // One label more may be too long for a name.
        for (host, expected) in [(named, true), (alone, false)] {
            if let Ok(host) = Domain::parse(&host) {
                assert_eq!(only.names(&host), expected, "{pattern} {host}");
            }
        }
        write!(text, "mx: {pattern}\r\n").expect("writing to a string cannot fail");
    }
    write!(text, "max_age: {}", policy.max_age).expect("writing to a string cannot fail");
    assert_eq!(Policy::parse(text.as_bytes()).as_ref(), Ok(policy));
}
