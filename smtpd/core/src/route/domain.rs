//! Remote domains: what an operator says about domains that are not local.
//!
//! A remote domain is written exactly or as `*.suffix`. The wildcard stands for one or more whole
//! labels, so `*.corp.example` covers `a.corp.example` and `b.a.corp.example`, neither
//! `corp.example` itself nor `badcorp.example`: one label too many here would be mail relayed for
//! strangers.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use mailroot_common::address::{AddressError, Domain};
use mailroot_common::net::Network;
use mailroot_common::rate::Rate;
use mailroot_common::units::Span;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::smart_host::SmartHost;
use super::table::TlsPolicy;
use crate::queue::dispose::InDoubtPolicy;

/// Why a text is not the name of a remote domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A star alone, which would be every domain.
    #[error("\"*\" would be every domain: set delivery.smart_host to send all mail one way")]
    Everything,
    /// A star at another place than the front.
    #[error("{0:?}: a * may only stand at the front, followed by a dot, as in *.example.com")]
    Star(String),
    /// The rest is not a domain name.
    #[error(transparent)]
    Domain(#[from] AddressError),
}

/// Which domains an entry speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// This domain and no other.
    Exact(Domain),
    /// Every domain below this one, itself not included: `*.suffix`.
    Below(Domain),
}

impl Pattern {
    /// Reads `example.com` or `*.example.com`.
    ///
    /// # Errors
    ///
    /// [`PatternError`], saying where a star may stand.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" {
            return Err(PatternError::Everything);
        }
        match text.strip_prefix("*.") {
            Some(suffix) if !suffix.contains('*') => Ok(Self::Below(Domain::parse(suffix)?)),
            None if !text.contains('*') => Ok(Self::Exact(Domain::parse(text)?)),
            _ => Err(PatternError::Star(text.to_owned())),
        }
    }

    /// Whether the entry speaks of this domain or of some below it.
    #[must_use]
    pub fn is_within(&self, domain: &Domain) -> bool {
        match self {
            Self::Exact(own) | Self::Below(own) => own == domain || own.is_below(domain),
        }
    }

    /// Whether the entry speaks of this domain.
    #[must_use]
    pub fn covers(&self, domain: &Domain) -> bool {
        match self {
            Self::Exact(exact) => exact == domain,
            Self::Below(suffix) => domain.is_below(suffix),
        }
    }
}

/// The form that [`Pattern::parse`] reads back.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => domain.fmt(f),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// How mail for a remote domain travels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum RemoteRoute {
    /// As mail for any other domain: by the virtual server's smart host if it has one, else by MX.
    #[default]
    Inherit,
    /// By MX, even if the virtual server has a smart host.
    Mx,
    /// By these hosts, the first that takes it, instead of the virtual server's smart host.
    Hosts(Vec<SmartHost>),
}

/// Mail of a domain that waits until a host of the domain asks for it (RFC 1985) or fetches it (RFC 2645).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// Whether ETRN has it sent.
    pub by_etrn: bool,
    /// From where it may be asked for by ETRN; from anywhere if empty.
    pub asked_from: Vec<Network>,
    /// The name of a queue that it can be asked for by, beside the domain's.
    pub queue: Option<String>,
    /// Who may fetch it by ATRN or TURN.
    pub fetchers: Vec<String>,
    /// How long its mail is kept.
    pub keep: Span,
}

impl Held {
    /// Whether a client at this address may ask for the mail.
    #[must_use]
    pub fn may_ask(&self, client: IpAddr) -> bool {
        let from = &self.asked_from;
        self.by_etrn && (from.is_empty() || from.iter().any(|net| net.contains(client)))
    }

    /// Whether a user may fetch the mail. Names of users are the same in capitals or not.
    #[must_use]
    pub fn may_fetch(&self, user: &str) -> bool {
        let user = user.to_lowercase();
        self.fetchers.iter().any(|name| name.to_lowercase() == user)
    }
}

/// How much mail goes somewhere at once, and how fast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: Option<u32>,
    /// Messages in a time.
    pub rate: Option<Rate>,
    /// Recipients of one transaction.
    pub recipients: Option<u32>,
}

impl Limits {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// One remote domain entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteDomain {
    /// The domains it speaks of.
    pub pattern: Pattern,
    /// Whether anybody may send mail there through us; overrides the relay list.
    pub relay: bool,
    /// Whether to greet with HELO and use no extensions.
    pub helo_only: bool,
    /// Which way its mail travels.
    pub route: RemoteRoute,
    /// What is done with recipients in doubt, if not what the virtual server does.
    pub in_doubt: Option<InDoubtPolicy>,
    /// What is done about TLS, if not what the virtual server does.
    pub tls: Option<TlsPolicy>,
    /// Present if its mail waits to be asked for.
    pub held: Option<Held>,
    /// How much mail goes to all domains that it speaks of.
    pub limits: Limits,
}

impl RemoteDomain {
    /// An entry that changes nothing yet: no relaying, extensions used, the usual way.
    #[must_use]
    pub fn plain(pattern: Pattern) -> Self {
        let (relay, helo_only, route) = (false, false, RemoteRoute::Inherit);
        let limits = Limits::default();
        Self { pattern, relay, helo_only, route, in_doubt: None, tls: None, held: None, limits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn wildcard_covers_whole_labels_below_and_not_the_name_itself() {
        let below = Pattern::parse("*.corp.example").unwrap();
        for (name, covered) in [
            ("a.corp.example", true),
            ("b.a.corp.example", true),
            ("A.CORP.example", true),
            ("corp.example", false),
            ("badcorp.example", false),
            ("bad-corp.example", false),
            ("corp.example.org", false),
            ("a.corp.example.org", false),
            ("example", false),
        ] {
            assert_eq!(below.covers(&domain(name)), covered, "{name}");
        }
        assert!(Pattern::parse("corp.example").unwrap().covers(&domain("corp.example")));
        assert!(!Pattern::parse("corp.example").unwrap().covers(&domain("a.corp.example")));
    }

    #[test]
    fn star_stands_at_the_front_or_nowhere() {
        for text in ["corp.example", "*.corp.example", "*.example"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Pattern::parse("*"), Err(PatternError::Everything));
        for bad in ["*corp.example", "a.*.example", "*.*.example", "corp.*", "**.example"] {
            assert!(matches!(Pattern::parse(bad), Err(PatternError::Star(_))), "{bad}");
        }
        for bad in ["", "*.", ".corp.example", "*..example", "*.corp.example."] {
            assert!(matches!(Pattern::parse(bad), Err(PatternError::Domain(_))), "{bad}");
        }
    }
}
