//! What the TLSA records of a host demand of a connection to it (DANE, RFC 6698, RFC 7671, RFC 7672).
//!
//! In: records as DNS gave them; that they were validated is the caller's affair. Out: what is
//! demanded. Which certificate a record speaks of is looked at where certificates are.

use mailroot_common::address::Domain;

/// Records looked at; nobody needs as many.
const RECORDS_MAX: usize = 24;

/// A TLSA record as it stands in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// How the certificate is used (RFC 6698 section 2.1.1).
    pub usage: u8,
    /// Which part of it counts (RFC 6698 section 2.1.2).
    pub selector: u8,
    /// How that is written (RFC 6698 section 2.1.3).
    pub matching: u8,
    /// What is written.
    pub data: Vec<u8>,
}

/// Whose certificate a record speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// DANE-TA(2): an authority that vouches for the host.
    Authority,
    /// DANE-EE(3): the host's own, whatever name and time it says.
    Host,
}

/// Which part of a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    /// Cert(0): all of it.
    Certificate,
    /// SPKI(1): its public key.
    Key,
}

/// How that part is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matching {
    /// Full(0): as it is.
    Whole,
    /// SHA2-256(1).
    Sha256,
    /// SHA2-512(2).
    Sha512,
}

/// The records of a host, and the name that they were found at (RFC 7672 section 2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsas {
    /// The host's own name, or what that is an alias of: certificates are for it.
    pub base: Domain,
    /// The records.
    pub records: Vec<Tlsa>,
}

/// A record that can be used for mail.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Association {
    /// Whose certificate.
    pub usage: Usage,
    /// Which part of it.
    pub selector: Selector,
    /// How that is written.
    pub matching: Matching,
    /// What is written.
    pub data: Vec<u8>,
}

/// What records demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// TLS with any certificate: the host says that it has TLS, and none of its records can be used
    /// (RFC 7672 section 2.2).
    Tls,
    /// A certificate that one of these speaks of.
    Proof(Vec<Association>),
}

impl Demand {
    /// What these records demand; nothing if there are none.
    #[must_use]
    pub fn of(records: Vec<Tlsa>) -> Option<Self> {
        if records.is_empty() {
            return None;
        }
        let usable = records.into_iter().take(RECORDS_MAX).filter_map(Association::read);
        let usable: Vec<Association> = usable.collect();
        let usable = strongest(&usable);
        Some(if usable.is_empty() { Self::Tls } else { Self::Proof(usable) })
    }
}

/// Without digests beside which there are stronger ones: of the same usage and part of a certificate only
/// the strongest count, so that a host can leave a weak one behind (RFC 7671 section 9). What stands
/// there whole always counts.
fn strongest(all: &[Association]) -> Vec<Association> {
    let outdone = |weak: &Association| {
        weak.matching == Matching::Sha256
            && all.iter().any(|other| {
                other.matching == Matching::Sha512
                    && (other.usage, other.selector) == (weak.usage, weak.selector)
            })
    };
    all.iter().filter(|it| !outdone(it)).cloned().collect()
}

impl From<&Association> for Tlsa {
    fn from(association: &Association) -> Self {
        let usage = match association.usage {
            Usage::Authority => 2,
            Usage::Host => 3,
        };
        let selector = match association.selector {
            Selector::Certificate => 0,
            Selector::Key => 1,
        };
        let matching = match association.matching {
            Matching::Whole => 0,
            Matching::Sha256 => 1,
            Matching::Sha512 => 2,
        };
        Self { usage, selector, matching, data: association.data.clone() }
    }
}

impl Association {
    /// The record, if it can be used. Those that speak of the authorities of the web, PKIX-TA(0) and
    /// PKIX-EE(1), cannot for mail (RFC 7672 section 3.1.3).
    fn read(record: Tlsa) -> Option<Self> {
        let usage = match record.usage {
            2 => Usage::Authority,
            3 => Usage::Host,
            _ => return None,
        };
        let selector = match record.selector {
            0 => Selector::Certificate,
            1 => Selector::Key,
            _ => return None,
        };
        let (matching, is_whole) = match (record.matching, record.data.len()) {
            (0, octets) => (Matching::Whole, octets > 0),
            (1, octets) => (Matching::Sha256, octets == 32),
            (2, octets) => (Matching::Sha512, octets == 64),
            _ => return None,
        };
        is_whole.then_some(Self { usage, selector, matching, data: record.data })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn record(usage: u8, selector: u8, matching: u8, octets: usize) -> Tlsa {
        Tlsa { usage, selector, matching, data: vec![7; octets] }
    }

    #[test]
    fn usages_for_the_web_and_unknown_numbers_cannot_be_used() {
        for (record, usable) in [
            (record(3, 1, 1, 32), true),
            (record(3, 0, 2, 64), true),
            (record(3, 0, 0, 500), true),
            (record(2, 0, 1, 32), true),
            (record(2, 1, 2, 64), true),
            (record(0, 1, 1, 32), false),
            (record(1, 1, 1, 32), false),
            (record(4, 1, 1, 32), false),
            (record(255, 1, 1, 32), false),
            (record(3, 2, 1, 32), false),
            (record(3, 1, 3, 32), false),
            (record(3, 1, 1, 31), false),
            (record(3, 1, 2, 32), false),
            (record(3, 1, 0, 0), false),
        ] {
            let demand = Demand::of(vec![record.clone()]).unwrap();
            assert_eq!(demand != Demand::Tls, usable, "{record:?}");
        }
    }

    #[test]
    fn of_digests_only_the_strongest_of_their_kind_count() {
        let all = vec![
            record(3, 1, 1, 32),
            record(3, 1, 2, 64),
            record(3, 1, 0, 90),
            record(3, 0, 1, 32),
            record(2, 1, 1, 32),
            record(3, 1, 3, 96),
        ];
        let Some(Demand::Proof(usable)) = Demand::of(all) else { panic!("some can be used") };
        let told: Vec<Tlsa> = usable.iter().map(Tlsa::from).collect();
        let numbers: Vec<_> = told.iter().map(|it| (it.usage, it.selector, it.matching)).collect();
        assert_eq!(numbers, [(3, 1, 2), (3, 1, 0), (3, 0, 1), (2, 1, 1)]);
    }

    #[test]
    fn those_that_can_be_used_count_and_none_demand_nothing() {
        assert_eq!(Demand::of(Vec::new()), None);
        let both = Demand::of(vec![record(1, 1, 1, 32), record(3, 1, 1, 32)]);
        let Some(Demand::Proof(usable)) = both else { panic!("{both:?}") };
        assert_eq!((usable.len(), usable[0].usage), (1, Usage::Host));
        let many = Demand::of(vec![record(3, 1, 1, 32); 500]);
        assert!(matches!(many, Some(Demand::Proof(usable)) if usable.len() == RECORDS_MAX));
    }
}
