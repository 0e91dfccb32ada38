//! MX answers to hosts in the order to try them.
//!
//! In: the records of a domain as DNS gave them, our own names, a random number. Out: hosts by
//! preference, equals in random order, or why the domain gets no mail. Whether a host's address
//! may be connected to is [`super::loopback`]'s business.
//!
//! DNS answers are written by strangers: their number is bounded here, and a host that is
//! ourselves ends the list, because sending to it or to those after it makes a loop.

use mailroot_common::address::Domain;
use mailroot_common::status::EnhancedCode;

/// Hosts tried for one domain: with a look-up of two kinds of addresses for each, and that of the domain,
/// 31 questions.
pub const HOSTS_MAX: usize = 15;

/// One MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxRecord {
    /// Lower comes first.
    pub preference: u16,
    /// The host; `None` is the root, which stands for "no mail" (RFC 7505).
    pub exchange: Option<Domain>,
}

/// A host to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHost {
    /// Its preference; 0 for a domain without MX records.
    pub preference: u16,
    /// Its name.
    pub name: Domain,
}

/// The hosts of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MxHosts {
    /// Those to try, in this order; at most [`HOSTS_MAX`].
    pub to_try: Vec<MxHost>,
    /// The names of all of them, sorted: the same at each look-up, whichever of them are tried.
    pub all: Vec<Domain>,
}

/// Why no host of a domain may be tried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MxError {
    /// The domain has a null MX (RFC 7505).
    #[error("{0} takes no mail: it has a null MX record")]
    NullMx(Domain),
    /// We are the most preferred host ourselves.
    #[error("mail for {0} loops back to this server: its MX is ourselves")]
    Loop(Domain),
}

impl MxError {
    /// The status of RFC 3463 and RFC 7505.
    #[must_use]
    pub const fn status(&self) -> EnhancedCode {
        match self {
            Self::NullMx(_) => EnhancedCode::permanent(1, 10),
            Self::Loop(_) => EnhancedCode::permanent(4, 6),
        }
    }
}

/// The hosts of `domain`, in the order to try them. Without records the domain itself is the
/// host (RFC 5321 section 5.1). A null MX beside real ones is a mistake of the domain's owner
/// and is passed over. `is_ours` tells our own names; such a host and those preferred less are
/// left out.
///
/// # Errors
///
/// [`MxError`]: all are permanent.
pub fn hosts(
    domain: &Domain,
    records: Vec<MxRecord>,
    is_ours: impl Fn(&Domain) -> bool,
    random: u64,
) -> Result<MxHosts, MxError> {
    if records.is_empty() {
        if is_ours(domain) {
            return Err(MxError::Loop(domain.clone()));
        }
        let to_try = vec![MxHost { preference: 0, name: domain.clone() }];
        return Ok(MxHosts { to_try, all: vec![domain.clone()] });
    }
    let mut found: Vec<MxHost> = records
        .into_iter()
        .filter_map(|record| {
            record.exchange.map(|name| MxHost { preference: record.preference, name })
        })
        .collect();
    if found.is_empty() {
        return Err(MxError::NullMx(domain.clone()));
    }
    let mut random = random;
    found.sort_by_cached_key(|host| {
        random = next_random(random);
        (host.preference, random)
    });
    let mut seen = std::collections::HashSet::new();
    found.retain(|host| seen.insert(host.name.clone()));
    if let Some(us) = found.iter().find(|host| is_ours(&host.name)).map(|host| host.preference) {
        found.retain(|host| host.preference < us);
        if found.is_empty() {
            return Err(MxError::Loop(domain.clone()));
        }
    }
    let mut all: Vec<Domain> = found.iter().map(|host| host.name.clone()).collect();
    all.sort_unstable();
    found.truncate(HOSTS_MAX);
    Ok(MxHosts { to_try: found, all })
}

/// One step of SplitMix64: enough to shuffle with.
fn next_random(random: u64) -> u64 {
    let mut next = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    next = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    next = (next ^ (next >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    next ^ (next >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn records(texts: &[(u16, &str)]) -> Vec<MxRecord> {
        let record = |&(preference, name): &(u16, &str)| MxRecord {
            preference,
            exchange: (name != ".").then(|| domain(name)),
        };
        texts.iter().map(record).collect()
    }

    fn names(texts: &[(u16, &str)], random: u64) -> Result<Vec<String>, MxError> {
        let ours = |name: &Domain| name.as_str() == "us.test";
        let found = hosts(&domain("x.test"), records(texts), ours, random)?;
        Ok(found.to_try.into_iter().map(|host| host.name.to_string()).collect())
    }

    #[test]
    fn hosts_come_by_preference_and_equals_in_any_order() {
        let mut orders = HashSet::new();
        for random in 0..64 {
            let found =
                names(&[(20, "c.test"), (10, "a.test"), (10, "b.test"), (5, "first.test")], random)
                    .unwrap();
            assert_eq!((found[0].as_str(), found[3].as_str()), ("first.test", "c.test"));
            orders.insert(found);
        }
        assert_eq!(orders.len(), 2);
    }

    #[test]
    fn domain_without_records_is_its_own_host() {
        assert_eq!(names(&[], 0).unwrap(), ["x.test"]);
    }

    #[test]
    fn null_mx_alone_refuses_and_beside_real_ones_is_passed_over() {
        assert_eq!(names(&[(0, ".")], 0), Err(MxError::NullMx(domain("x.test"))));
        assert_eq!(names(&[(0, "."), (0, ".")], 0), Err(MxError::NullMx(domain("x.test"))));
        assert_eq!(names(&[(0, "."), (10, "a.test")], 0).unwrap(), ["a.test"]);
        assert_eq!(MxError::NullMx(domain("x.test")).status().to_string(), "5.1.10");
    }

    #[test]
    fn we_and_those_preferred_less_are_left_out() {
        let all = [(10, "a.test"), (20, "us.test"), (20, "b.test"), (30, "c.test")];
        assert_eq!(names(&all, 7).unwrap(), ["a.test"]);
        assert_eq!(names(&all[1..], 7), Err(MxError::Loop(domain("x.test"))));
        let ours = |_: &Domain| true;
        assert!(hosts(&domain("x.test"), Vec::new(), ours, 0).is_err());
    }

    #[test]
    fn their_number_is_bounded_and_doubles_count_once() {
        let many: Vec<String> = (0..300).map(|n| format!("h{n}.test")).collect();
        let many: Vec<(u16, &str)> = many.iter().map(|name| (10, name.as_str())).collect();
        assert_eq!(names(&many, 1).unwrap().len(), HOSTS_MAX);
        let all = |random| hosts(&domain("x.test"), records(&many), |_| false, random).unwrap().all;
        assert_eq!(all(1).len(), 300);
        assert_eq!(all(1), all(2), "whichever are tried");
        assert_eq!(names(&[(10, "a.test"), (20, "A.test")], 0).unwrap(), ["a.test"]);
    }
}
