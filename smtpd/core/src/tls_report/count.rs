//! Counts sessions of a span of time, by domain, policy and failure (RFC 8460 section 4.3).
//!
//! In: what a session came to, and how many octets there is room for. Out: what a report is made of, and
//! what that took. What goes beyond a bound is counted with less detail, or, where it is of one domain too
//! many, not at all; how many were not is known.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mailroot_common::address::Domain;
use mailroot_common::units::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use crate::route::dane::Tlsa;
use crate::route::sts;

/// Domains counted in one period.
pub const DOMAINS_MAX: usize = 5_000;
/// Policies of one domain told apart in one period: they rarely change twice a day.
const POLICIES_MAX: usize = 4;
/// Failures of one policy told apart, besides one of each kind without details.
const DETAILS_MAX: usize = 30;
/// Lines of a policy that are quoted, and the octets of each.
const LINES_MAX: usize = 30;
const LINE_OCTETS_MAX: usize = 300;
/// Octets of a reason.
const REASON_OCTETS_MAX: usize = 200;
/// What a domain, a policy or a failure takes besides its texts, in memory or as JSON: a cautious guess.
const ENTRY_OCTETS: usize = 256;
const DAY: Span = Span::days(1);

fn octets_of(texts: &[String]) -> usize {
    texts.iter().map(|text| text.len() + size_of::<String>()).sum()
}

/// What kind of policy a session went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// TLSA records (DANE).
    Tlsa,
    /// One of the domain's (MTA-STS).
    Sts,
    /// None was found.
    NoPolicyFound,
}

/// A policy as a session met it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What kind.
    pub kind: PolicyKind,
    /// Its text, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// The hosts that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

impl Policy {
    /// That there is none.
    #[must_use]
    pub const fn none() -> Self {
        Self { kind: PolicyKind::NoPolicyFound, lines: Vec::new(), hosts: Vec::new() }
    }

    /// A policy of the domain; without its text if it could not be had.
    #[must_use]
    pub fn sts(policy: Option<&sts::Policy>) -> Self {
        let Some(policy) = policy else {
            return Self { kind: PolicyKind::Sts, lines: Vec::new(), hosts: Vec::new() };
        };
        let hosts: Vec<String> =
            policy.mx.iter().take(LINES_MAX).map(ToString::to_string).collect();
        let head = ["version: STSv1".to_owned(), format!("mode: {}", policy.mode.as_str())];
        let life = format!("max_age: {}", policy.max_age);
        let mx = hosts.iter().map(|host| format!("mx: {host}"));
        let lines = head.into_iter().chain(mx).chain([life]).collect();
        Self { kind: PolicyKind::Sts, lines, hosts }
    }

    fn octets(&self) -> usize {
        ENTRY_OCTETS + octets_of(&self.lines) + octets_of(&self.hosts)
    }

    /// TLSA records of a host.
    #[must_use]
    pub fn tlsa(host: &Domain, records: &[Tlsa]) -> Self {
        let line = |record: &Tlsa| {
            let Tlsa { usage, selector, matching, data } = record;
            let octets = data.iter().take(LINE_OCTETS_MAX / 2);
            let digits: String = octets.map(|octet| format!("{octet:02x}")).collect();
            format!("{usage} {selector} {matching} {digits}")
        };
        let lines = records.iter().take(LINES_MAX).map(line).collect();
        Self { kind: PolicyKind::Tlsa, lines, hosts: vec![host.to_string()] }
    }
}

/// What kind of failure a session came to (RFC 8460 section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The host did not offer STARTTLS.
    #[serde(rename = "starttls-not-supported")]
    StartTlsNotSupported,
    /// Its certificate is for another name.
    CertificateHostMismatch,
    /// It has expired.
    CertificateExpired,
    /// Nobody who is trusted vouches for it, or no TLSA record speaks of it.
    CertificateNotTrusted,
    /// Another.
    ValidationFailure,
    /// None of the TLSA records can be used.
    TlsaInvalid,
    /// What DNS says of them was not validated.
    DnssecInvalid,
    /// The domain's policy could not be fetched.
    StsPolicyFetchError,
    /// It is no policy.
    StsPolicyInvalid,
    /// Its host has no good certificate.
    StsWebpkiInvalid,
}

/// What a session failed with, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// Our address on that connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending_ip: Option<IpAddr>,
    /// The host's name in MX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiving_ip: Option<IpAddr>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Failure {
    /// One of a kind, without details.
    #[must_use]
    pub const fn of(kind: FailureKind) -> Self {
        Self { kind, sending_ip: None, host: None, receiving_ip: None, reason: None }
    }

    fn octets(&self) -> usize {
        let texts = [&self.host, &self.reason].into_iter().flatten();
        ENTRY_OCTETS + texts.map(String::len).sum::<usize>()
    }

    /// The same for a reason, cut to what a report quotes.
    #[must_use]
    pub fn because(self, reason: &str) -> Self {
        let printable = reason.chars().map(|c| if c.is_control() { '?' } else { c });
        let mut text = String::new();
        for c in printable {
            if text.len() + c.len_utf8() > REASON_OCTETS_MAX {
                break;
            }
            text.push(c);
        }
        Self { reason: Some(text), ..self }
    }
}

/// Sessions that failed in the same way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// In which.
    pub failure: Failure,
    /// How many.
    pub count: u64,
}

/// Sessions by one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The policy.
    pub policy: Policy,
    /// Those that kept to it.
    pub successes: u64,
    /// Those that did not.
    pub failures: u64,
    /// How they failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed>,
}

impl Tally {
    const fn of(policy: Policy) -> Self {
        Self { policy, successes: 0, failures: 0, failed: Vec::new() }
    }

    fn octets(&self) -> usize {
        self.policy.octets() + self.failed.iter().map(|it| it.failure.octets()).sum::<usize>()
    }

    /// Counts a session; what that took of the room. Where there is none a failure has no details, and
    /// counts among those of its kind or among all.
    fn add(&mut self, failure: Option<Failure>, room: usize) -> usize {
        let Some(failure) = failure else {
            self.successes += 1;
            return 0;
        };
        self.failures += 1;
        if let Some(known) = self.failed.iter_mut().find(|it| it.failure == failure) {
            known.count += 1;
            return 0;
        }
        let rest = Failure::of(failure.kind);
        let has_room = self.failed.len() < DETAILS_MAX && failure.octets() <= room;
        let failure = if has_room { failure } else { rest };
        if let Some(known) = self.failed.iter_mut().find(|it| it.failure == failure) {
            known.count += 1;
            return 0;
        }
        let octets = failure.octets();
        if octets > room {
            return 0;
        }
        self.failed.push(Failed { failure, count: 1 });
        octets
    }
}

/// Sessions with the hosts of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// By policy.
    pub tallies: Vec<Tally>,
}

impl Counted {
    /// About how many octets of memory it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.tallies.iter().map(Tally::octets).sum()
    }

    /// Adds a session; what that took of the room. The first one is added whether there is room or not.
    pub fn add(&mut self, policy: Policy, failure: Option<Failure>, room: usize) -> usize {
        let is_small = policy.octets() <= room || self.tallies.is_empty();
        let has_room = self.tallies.len() < POLICIES_MAX && is_small;
        let same = self.tallies.iter().position(|it| it.policy == policy);
        // Without room for one more it is counted with the last of its kind, else with the last.
        let alike = || self.tallies.iter().rposition(|it| it.policy.kind == policy.kind);
        let place = match same {
            Some(place) => Some(place),
            None if has_room => None,
            None => alike().or(Some(self.tallies.len() - 1)),
        };
        match place.and_then(|place| self.tallies.get_mut(place)) {
            Some(tally) => tally.add(failure, room),
            None => {
                let mut tally = Tally::of(policy);
                let octets = tally.policy.octets();
                let more = tally.add(failure, room.saturating_sub(octets));
                self.tallies.push(tally);
                octets + more
            }
        }
    }

    /// Sessions that kept to a policy.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.successes).sum()
    }

    /// Sessions that did not.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.failures).sum()
    }
}

/// A span of time in which sessions are counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// When it began.
    pub begins: Timestamp,
    /// By domain.
    pub domains: BTreeMap<Domain, Counted>,
    /// Sessions that were not counted: there are too many domains.
    #[serde(default)]
    pub left_out: u64,
}

impl Period {
    /// One that begins now.
    #[must_use]
    pub const fn beginning(begins: Timestamp) -> Self {
        Self { begins, domains: BTreeMap::new(), left_out: 0 }
    }

    /// When it ends by itself: with its day (UTC).
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        let day = DAY.as_millis();
        Timestamp::from_millis((self.begins.as_millis() / day + 1).saturating_mul(day))
    }

    /// Counts a session; what that took of the room, or nothing if its domain is one too many.
    pub fn count(
        &mut self,
        domain: &Domain,
        policy: Policy,
        failure: Option<Failure>,
        room: usize,
    ) -> Option<usize> {
        if let Some(counted) = self.domains.get_mut(domain) {
            return Some(counted.add(policy, failure, room));
        }
        let own = octets_of_domain(domain);
        if self.domains.len() >= DOMAINS_MAX || own + policy.octets() > room {
            self.left_out += 1;
            return None;
        }
        let mut counted = Counted::default();
        let octets = own + counted.add(policy, failure, room - own);
        self.domains.insert(domain.clone(), counted);
        Some(octets)
    }

    /// About how many octets of memory it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.domains.iter().map(|(domain, it)| octets_of_domain(domain) + it.octets()).sum()
    }
}

/// What a domain takes, besides what is counted of it.
#[must_use]
pub fn octets_of_domain(domain: &Domain) -> usize {
    ENTRY_OCTETS + domain.as_str().len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    const ROOM: usize = usize::MAX;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn a_period_ends_with_its_day_in_utc() {
        for (begins, ends) in [
            ("2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("2026-11-30T23:59:59Z", "2026-12-01T00:00:00Z"),
            ("2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            let period = Period::beginning(Timestamp::parse(begins).unwrap());
            assert_eq!(period.ends(), Timestamp::parse(ends).unwrap(), "{begins}");
        }
    }

    #[test]
    fn sessions_are_counted_by_policy_and_failure() {
        let mut counted = Counted::default();
        let expired = Failure::of(FailureKind::CertificateExpired).because("it has\nexpired");
        for failure in [None, None, Some(expired.clone()), Some(expired.clone())] {
            counted.add(Policy::none(), failure, ROOM);
        }
        counted.add(Policy::sts(None), Some(Failure::of(FailureKind::StsPolicyFetchError)), ROOM);
        assert_eq!((counted.successes(), counted.failures()), (2, 3));
        let tally = &counted.tallies[0];
        assert_eq!(tally.failed, [Failed { failure: expired, count: 2 }]);
        assert_eq!(tally.failed[0].failure.reason.as_deref(), Some("it has?expired"));
        assert_eq!(counted.tallies[1].policy.kind, PolicyKind::Sts);
    }

    #[test]
    fn a_policy_is_quoted() {
        let policy = b"version: STSv1\nmode: testing\nmx: mx.test\nmx: *.b.test\nmax_age: 60";
        let policy = Policy::sts(Some(&sts::Policy::parse(policy).unwrap()));
        let lines =
            ["version: STSv1", "mode: testing", "mx: mx.test", "mx: *.b.test", "max_age: 60"];
        assert_eq!(policy.lines, lines);
        assert_eq!(policy.hosts, ["mx.test", "*.b.test"]);
        let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0x1f, 0x85] };
        let long = Tlsa { data: vec![7; 5_000], ..record.clone() };
        let policy = Policy::tlsa(&domain("mx.test"), &[record, long]);
        assert_eq!(policy.lines[0], "3 1 1 1f85");
        assert!(policy.lines[1].len() <= LINE_OCTETS_MAX + 6);
    }

    #[test]
    fn strangers_can_have_only_so_much_counted() {
        let mut counted = Counted::default();
        let at = |number: u64, kind| {
            let host = Some(format!("mx{number}.test"));
            Failure { host, ..Failure::of(kind) }.because(&"x".repeat(5_000))
        };
        for number in 0..500 {
            let policy = Policy { lines: vec![number.to_string()], ..Policy::none() };
            counted.add(policy, Some(at(number, FailureKind::ValidationFailure)), ROOM);
            counted.add(Policy::none(), Some(at(number, FailureKind::CertificateExpired)), ROOM);
        }
        assert_eq!(counted.tallies.len(), POLICIES_MAX);
        assert_eq!(counted.failures(), 1_000);
        for tally in &counted.tallies {
            assert!(tally.failed.len() <= DETAILS_MAX + 10);
            assert_eq!(tally.failed.iter().map(|it| it.count).sum::<u64>(), tally.failures);
        }
        let mut period = Period::beginning(Timestamp::from_millis(0));
        for number in 0..=DOMAINS_MAX {
            let of = domain(&format!("d{number}.test"));
            let counted = period.count(&of, Policy::none(), None, ROOM);
            assert_eq!(counted.is_some(), number < DOMAINS_MAX);
        }
        assert!(period.count(&domain("d0.test"), Policy::none(), None, ROOM).is_some());
        assert_eq!((period.domains.len(), period.left_out), (DOMAINS_MAX, 1));
    }

    #[test]
    fn without_room_known_domains_are_counted_without_details_and_others_are_not() {
        let mut period = Period::beginning(Timestamp::from_millis(0));
        let mut left: usize = 10_000;
        let (mut counted, of) = (0, domain("d.test"));
        for number in 0..1_000 {
            let lines = vec![number.to_string().repeat(40)];
            let policy = Policy { lines, ..Policy::none() };
            let why = "x".repeat(number % 190);
            let failure = Failure::of(FailureKind::ValidationFailure).because(&why);
            let took = period.count(&of, policy.clone(), Some(failure.clone()), left).unwrap();
            left = left.checked_sub(took).unwrap();
            let other = domain(&format!("d{number}.test"));
            if let Some(took) = period.count(&other, policy, Some(failure), left) {
                counted += 1;
                left = left.checked_sub(took).unwrap();
            }
        }
        assert_eq!(period.octets(), 10_000 - left);
        assert_eq!(period.domains[&of].failures(), 1_000);
        assert_eq!((period.domains.len(), period.left_out), (counted + 1, 1_000 - counted as u64));
        assert!((2..50).contains(&counted), "{counted}");
    }
}
