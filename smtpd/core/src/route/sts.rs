//! What a domain demands of connections that bring it mail (MTA-STS, RFC 8461).
//!
//! In: the texts of a TXT record, the octets of a policy file. Out: the record's id, the policy, and
//! what it says of a host. Both are written by strangers: lengths and counts are bounded, and what
//! is not understood makes no policy rather than half of one.

use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::units::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::domain::Pattern;

/// The largest policy that is read, in octets (RFC 8461 section 3.3).
pub const POLICY_OCTETS_MAX: usize = 64 * 1024;
/// The longest a policy holds, in seconds (RFC 8461 section 3.2).
pub const AGE_MAX_SECONDS: u32 = 31_557_600;
/// The longest id of a record (RFC 8461 section 3.1).
const ID_OCTETS_MAX: usize = 32;
/// Patterns of hosts in one policy. The largest mail systems name some dozen.
const PATTERNS_MAX: usize = 200;
/// What a host takes besides its name, and a policy besides its hosts: a cautious guess.
const ENTRY_OCTETS: usize = 64;
/// The longest a policy is used without having been asked for again.
const REFRESH_MAX: Span = Span::days(1);
/// How long mail is careful when a policy that was to be enforced is over.
const MISSED: Span = Span::days(30);

/// What is done about hosts that do not keep to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They get no mail.
    Enforce,
    /// They get it as if there were no policy; whoever sends may tell.
    Testing,
    /// There is no policy any more.
    None,
}

impl Mode {
    /// The word of the policy.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }
}

/// A policy as a domain publishes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What is done about hosts that do not keep to it.
    pub mode: Mode,
    /// How long it holds, in seconds; at most [`AGE_MAX_SECONDS`].
    pub max_age: u32,
    /// Which hosts may be given mail; `*.` stands for one label.
    pub mx: Vec<Pattern>,
}

/// Why a text is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is longer than a policy may be.
    #[error("it is longer than {POLICY_OCTETS_MAX} octets")]
    TooLong,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotText,
    /// A line is not of the form `key: value`.
    #[error("line {0} is not of the form \"key: value\"")]
    Line(usize),
    /// The version is missing, or is one that is not known.
    #[error("it has no \"version: STSv1\"")]
    Version,
    /// The mode is missing, or is none.
    #[error("it has no mode: enforce, testing or none")]
    Mode,
    /// The life is missing, or no number.
    #[error("it has no max_age: a number of seconds")]
    MaxAge,
    /// It names no host.
    #[error("it names no host (mx)")]
    NoHost,
    /// It names too many.
    #[error("it names more than {PATTERNS_MAX} hosts (mx)")]
    TooManyHosts,
    /// A host is none.
    #[error("line {0} does not name a host, nor \"*.\" and a domain")]
    Host(usize),
}

impl Policy {
    /// Reads a policy file. Keys that are not known are passed over, and of a key that may stand once
    /// the first counts (RFC 8461 section 3.2). A life that is too long is cut.
    ///
    /// # Errors
    ///
    /// [`PolicyError`]: then the domain has no policy, or keeps the one that was known.
    pub fn parse(octets: &[u8]) -> Result<Self, PolicyError> {
        if octets.len() > POLICY_OCTETS_MAX {
            return Err(PolicyError::TooLong);
        }
        let text = std::str::from_utf8(octets).map_err(|_| PolicyError::NotText)?;
        let (mut version, mut mode, mut max_age, mut mx) = (None, None, None, Vec::new());
        for (place, line) in text.split('\n').enumerate() {
            let number = place + 1;
            let line = line.trim_end_matches([' ', '\t', '\r']);
            if line.is_empty() {
                continue;
            }
            let (key, value) = line.split_once(':').ok_or(PolicyError::Line(number))?;
            let value = value.trim_start_matches([' ', '\t']);
            match key {
                "version" => _ = version.get_or_insert(value),
                "mode" => _ = mode.get_or_insert(value),
                "max_age" => _ = max_age.get_or_insert(value),
                "mx" if mx.len() == PATTERNS_MAX => return Err(PolicyError::TooManyHosts),
                "mx" => mx.push(Pattern::parse(value).map_err(|_| PolicyError::Host(number))?),
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err(PolicyError::Version);
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(PolicyError::Mode),
        };
        if mx.is_empty() && mode != Mode::None {
            return Err(PolicyError::NoHost);
        }
        Ok(Self { mode, max_age: seconds(max_age).ok_or(PolicyError::MaxAge)?, mx })
    }

    /// Whether it allows mail for its domain to be given to this host (RFC 8461 section 4.1).
    #[must_use]
    pub fn names(&self, host: &Domain) -> bool {
        self.mx.iter().any(|pattern| match pattern {
            Pattern::Exact(name) => name == host,
            // One label, unlike elsewhere in a configuration.
            Pattern::Below(rest) => {
                host.as_str().split_once('.').is_some_and(|(_, after)| after == rest.as_str())
            }
        })
    }
}

/// A number of one to ten digits, cut to the longest life.
fn seconds(text: Option<&str>) -> Option<u32> {
    let text = text?;
    let is_number = (1..=10).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit());
    let number = is_number.then(|| text.parse::<u64>().ok()).flatten()?;
    u32::try_from(number.min(AGE_MAX_SECONDS.into())).ok()
}

/// The id that the TXT records below `_mta-sts` give; nothing unless one of them, and only one,
/// speaks of a policy in a form that is understood (RFC 8461 section 3.1).
#[must_use]
pub fn record_id<'t>(texts: impl IntoIterator<Item = &'t str>) -> Option<&'t str> {
    let mut ours = texts.into_iter().filter_map(after_version);
    let (first, second) = (ours.next()?, ours.next());
    if second.is_some() {
        return None;
    }
    let mut id = None;
    for field in first.split(';').map(|field| field.trim_matches([' ', '\t'])) {
        if field.is_empty() {
            continue;
        }
        let (key, value) = field.split_once('=')?;
        if key == "id" && id.is_none() {
            id = Some(value);
        }
    }
    id.filter(|id| {
        (1..=ID_OCTETS_MAX).contains(&id.len()) && id.bytes().all(|it| it.is_ascii_alphanumeric())
    })
}

/// What follows the version of a record, if it speaks of a policy.
fn after_version(text: &str) -> Option<&str> {
    text.strip_prefix("v=STSv1")?.trim_start_matches([' ', '\t']).strip_prefix(';')
}

/// A policy that was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The id that the record had.
    pub id: String,
    /// When it was fetched.
    pub at: Timestamp,
    /// When the first of the domain was; absent if it is this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The policy.
    pub policy: Policy,
}

impl Known {
    /// When a policy of the domain was first known.
    #[must_use]
    pub fn first(&self) -> Timestamp {
        self.since.unwrap_or(self.at)
    }

    /// When it ends.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.at.after(Span::seconds(self.policy.max_age.into()))
    }

    /// Whether it holds no longer.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.until()
    }

    /// Whether no host of the domain gets mail that does not keep to it.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.policy.mode == Mode::Enforce
    }

    /// Until when it is missed where the next one cannot be had: for a month beyond its end if it was to
    /// be enforced, else no longer than it holds.
    #[must_use]
    pub fn missed_until(&self) -> Timestamp {
        match self.is_enforced() {
            true => self.until().after(MISSED),
            false => self.until(),
        }
    }

    /// About how many octets of memory it takes.
    #[must_use]
    pub fn octets(&self) -> usize {
        let hosts = self.policy.mx.iter().map(|host| host.to_string().len());
        hosts.map(|octets| octets + ENTRY_OCTETS).sum::<usize>() + ENTRY_OCTETS + self.id.len()
    }

    /// How long it need not be fetched again unless its id changes: each day it is, and before it ends.
    #[must_use]
    pub fn due_in(&self, now: Timestamp) -> Duration {
        let life = REFRESH_MAX.min(Span::seconds(u64::from(self.policy.max_age) / 2));
        life.as_duration().saturating_sub(now.since(self.at).as_duration())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn a_policy_is_read_with_either_line_end_and_unknown_keys() {
        for end in ["\n", "\r\n", " \t\r\n"] {
            let text = [
                "version: STSv1",
                "mode: enforce",
                "mx: MX1.Example.com",
                "mx:*.example.net",
                "x-later: ü: anything",
                "max_age: 604800",
                "mode: none",
                "",
            ];
            let policy = Policy::parse(text.join(end).as_bytes()).unwrap();
            assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800), "{end:?}");
            let mx: Vec<String> = policy.mx.iter().map(ToString::to_string).collect();
            assert_eq!(mx, ["mx1.example.com", "*.example.net"]);
        }
        let none = Policy::parse(b"mode: none\nmax_age: 0\nversion: STSv1").unwrap();
        assert_eq!((none.mode, none.mx.len()), (Mode::None, 0));
    }

    #[test]
    fn what_is_no_policy_says_why() {
        let good = "version: STSv1\nmode: enforce\nmx: mx.test\nmax_age: 60";
        assert!(Policy::parse(good.as_bytes()).is_ok());
        for (from, to, expected) in [
            ("version: STSv1", "version: STSv2", PolicyError::Version),
            ("version: STSv1\n", "", PolicyError::Version),
            ("mode: enforce", "mode: Enforce", PolicyError::Mode),
            ("mx: mx.test\n", "", PolicyError::NoHost),
            ("mx: mx.test", "mx: mx.*.test", PolicyError::Host(3)),
            ("mx: mx.test", "mx: *", PolicyError::Host(3)),
            ("mx: mx.test", "mx mx.test", PolicyError::Line(3)),
            ("max_age: 60", "max_age: -1", PolicyError::MaxAge),
            ("max_age: 60", "max_age: ", PolicyError::MaxAge),
            ("max_age: 60", "max_age: 12345678901", PolicyError::MaxAge),
        ] {
            let text = good.replace(from, to);
            assert_eq!(Policy::parse(text.as_bytes()), Err(expected), "{text}");
        }
        assert_eq!(Policy::parse(b"version: STSv1\n\xff"), Err(PolicyError::NotText));
        assert_eq!(Policy::parse(&vec![b'\n'; 65_537]), Err(PolicyError::TooLong));
        let many = format!("{good}\n{}", "mx: a.test\n".repeat(PATTERNS_MAX));
        assert_eq!(Policy::parse(many.as_bytes()), Err(PolicyError::TooManyHosts));
    }

    #[test]
    fn a_life_is_cut_to_the_longest() {
        let text = "version: STSv1\nmode: none\nmax_age: 9999999999";
        assert_eq!(Policy::parse(text.as_bytes()).unwrap().max_age, AGE_MAX_SECONDS);
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let text = "version: STSv1\nmode: enforce\nmx: mx.test\nmx: *.hosts.test\nmax_age: 60";
        let policy = Policy::parse(text.as_bytes()).unwrap();
        for (host, named) in [
            ("mx.test", true),
            ("MX.test", true),
            ("a.mx.test", false),
            ("a.hosts.test", true),
            ("hosts.test", false),
            ("b.a.hosts.test", false),
            ("ahosts.test", false),
            ("test", false),
        ] {
            assert_eq!(policy.names(&domain(host)), named, "{host}");
        }
    }

    #[test]
    fn one_record_and_no_more_has_an_id() {
        for (texts, expected) in [
            (&["v=STSv1; id=20160831085700Z;"][..], Some("20160831085700Z")),
            (&["v=STSv1;id=1"], Some("1")),
            (&["v=STSv1 \t; x=y; id=a; id=b"], Some("a")),
            (&["v=spf1 -all", "v=STSv1; id=2"], Some("2")),
            (&["v=STSv1; id=2", "v=STSv1; id=2"], None),
            (&["v=STSv10; id=2"], None),
            (&["v=stsv1; id=2"], None),
            (&["v=STSv1; id="], None),
            (&["v=STSv1; id=a-b"], None),
            (&["v=STSv1; id=abcdefghijabcdefghijabcdefghijabc"], None),
            (&["v=STSv1; junk; id=2"], None),
            (&["v=STSv1"], None),
            (&[], None),
        ] {
            assert_eq!(record_id(texts.iter().copied()), expected, "{texts:?}");
        }
    }

    #[test]
    fn a_policy_is_asked_for_again_before_it_ends() {
        let at = Timestamp::from_millis(1_000_000);
        let known = |max_age| {
            let policy = Policy { mode: Mode::None, max_age, mx: vec![] };
            Known { id: "1".to_owned(), at, since: None, policy }
        };
        for (max_age, after, due, over) in [
            (60, Span::seconds(29), false, false),
            (60, Span::seconds(30), true, false),
            (60, Span::seconds(60), true, true),
            (0, Span::seconds(0), true, true),
            (AGE_MAX_SECONDS, Span::hours(23), false, false),
            (AGE_MAX_SECONDS, Span::hours(24), true, false),
        ] {
            let (known, now) = (known(max_age), at.after(after));
            assert_eq!(
                (known.due_in(now).is_zero(), known.is_over(now)),
                (due, over),
                "{max_age} {after}"
            );
        }
        // A clock that was set back ends nothing.
        assert!(!known(60).is_over(Timestamp::from_millis(1)));
    }

    proptest! {
        #[test]
        fn strangers_may_write_anything(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(policy) = Policy::parse(&octets) {
                prop_assert!(policy.max_age <= AGE_MAX_SECONDS);
            }
            if let Ok(text) = std::str::from_utf8(&octets) {
                let _no_panic = record_id([text]);
            }
        }
    }
}
