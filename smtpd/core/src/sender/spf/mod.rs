//! Whether a host may send in the name of a domain (SPF, RFC 7208).
//!
//! In: the client, the name it claims, and the book of what DNS said. Out: one of the seven results.
//! Records are a stranger's: ten terms may ask DNS and two questions may find nothing (section 4.6.4),
//! hosts and names are cut at ten, so that no record costs more than about a hundred questions.

mod macros;
mod record;
mod tree;

use std::net::IpAddr;

use ipnet::IpNet;

use self::macros::{Letter, Template, Values};
use self::record::{Bits, Mechanism, Qualifier, Record};
pub use self::tree::{Branch, Tree};
use super::book::{Book, Nothing};

/// Terms that ask DNS (RFC 7208 section 4.6.4).
const TERMS_MAX: u32 = 10;
/// Questions that may find nothing.
const VOIDS_MAX: u32 = 2;
/// Hosts of one `mx` and names of one `ptr`.
const HOSTS_MAX: usize = 10;

/// What the domain says about the client (RFC 7208 section 2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpfResult {
    /// The domain publishes nothing.
    None,
    /// It does not say.
    Neutral,
    /// The client may send.
    Pass,
    /// It may not.
    Fail,
    /// It probably may not.
    SoftFail,
    /// DNS gave no answer.
    TempError,
    /// The record cannot be used.
    PermError,
}

impl SpfResult {
    /// The word of RFC 8601 section 2.7.2.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Neutral => "neutral",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

/// Who claims to send.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The client.
    pub client: IpAddr,
    /// What it called itself.
    pub helo: &'a str,
    /// The domain whose name is used.
    pub domain: &'a str,
    /// What stands before it; `postmaster` where there is nothing.
    pub local: &'a str,
}

/// Judges a claim; nothing if the book lacks something, which is wanted then.
pub fn check(book: &mut Book, claim: Claim<'_>) -> Option<SpfResult> {
    let mut walk = Walk {
        book,
        client: claim.client.to_canonical(),
        claim,
        domain: claim.domain.to_owned(),
        terms: 0,
        voids: 0,
    };
    match walk.check_host() {
        Ok(result) => Some(result),
        Err(Stop::Temporary) => Some(SpfResult::TempError),
        Err(Stop::Permanent) => Some(SpfResult::PermError),
        Err(Stop::Waiting) => None,
    }
}

/// What ends an evaluation before a term matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Waiting,
    Temporary,
    Permanent,
}

struct Walk<'a> {
    book: &'a mut Book,
    client: IpAddr,
    claim: Claim<'a>,
    /// The domain whose record is being looked at.
    domain: String,
    terms: u32,
    voids: u32,
}

impl Walk<'_> {
    /// The record of the domain, and what it says; `include` and `redirect` come here again, no more
    /// often than terms may ask DNS.
    fn check_host(&mut self) -> Result<SpfResult, Stop> {
        if !self.domain.contains('.') {
            return Ok(SpfResult::None);
        }
        let texts = match self.book.texts(&self.domain).ok_or(Stop::Waiting)? {
            Ok(texts) => texts,
            Err(Nothing::Absent) => return Ok(SpfResult::None),
            Err(Nothing::Unknown) => return Err(Stop::Temporary),
        };
        let mut records = texts.iter().filter(|text| record::is_record(text));
        let record = match (records.next(), records.next()) {
            (None, _) => return Ok(SpfResult::None),
            (Some(text), None) => Record::parse(text).ok_or(Stop::Permanent)?,
            (Some(_), Some(_)) => return Err(Stop::Permanent),
        };
        for (qualifier, mechanism) in &record.directives {
            if self.matches(mechanism)? {
                return Ok(match qualifier {
                    Qualifier::Pass => SpfResult::Pass,
                    Qualifier::Fail => SpfResult::Fail,
                    Qualifier::SoftFail => SpfResult::SoftFail,
                    Qualifier::Neutral => SpfResult::Neutral,
                });
            }
        }
        let Some(target) = &record.redirect else { return Ok(SpfResult::Neutral) };
        self.count()?;
        self.domain = self.name(Some(target))?;
        match self.check_host()? {
            SpfResult::None => Err(Stop::Permanent),
            found => Ok(found),
        }
    }

    fn matches(&mut self, mechanism: &Mechanism) -> Result<bool, Stop> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Network(network) => Ok(network.contains(&self.client)),
            Mechanism::Include(target) => {
                self.count()?;
                let target = self.name(Some(target))?;
                let outer = std::mem::replace(&mut self.domain, target);
                let found = self.check_host();
                self.domain = outer;
                match found? {
                    SpfResult::Pass => Ok(true),
                    SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => Ok(false),
                    SpfResult::TempError => Err(Stop::Temporary),
                    SpfResult::PermError | SpfResult::None => Err(Stop::Permanent),
                }
            }
            Mechanism::A(target, bits) => {
                self.count()?;
                let name = self.name(target.as_ref())?;
                self.is_at(&name, *bits)
            }
            Mechanism::Mx(target, bits) => {
                self.count()?;
                let name = self.name(target.as_ref())?;
                self.is_mail_host(&name, *bits)
            }
            Mechanism::Exists(target) => {
                self.count()?;
                let name = self.name(Some(target))?;
                self.addresses(&name, true).map(|found| !found.is_empty())
            }
            Mechanism::Ptr(target) => {
                self.count()?;
                let name = self.name(target.as_ref())?.to_ascii_lowercase();
                let name = name.strip_suffix('.').unwrap_or(&name);
                let is_below = |known: &String| {
                    known
                        .strip_suffix(name)
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                Ok(self.confirmed_names()?.iter().any(is_below))
            }
        }
    }

    /// Counts a term that asks DNS.
    fn count(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        if self.terms > TERMS_MAX { Err(Stop::Permanent) } else { Ok(()) }
    }

    /// What a question found; nothing found is counted, nothing known ends all.
    fn found<T>(&mut self, answer: Option<Result<Vec<T>, Nothing>>) -> Result<Vec<T>, Stop> {
        let found = match answer.ok_or(Stop::Waiting)? {
            Ok(found) => found,
            Err(Nothing::Absent) => Vec::new(),
            Err(Nothing::Unknown) => return Err(Stop::Temporary),
        };
        if found.is_empty() {
            self.voids += 1;
            if self.voids > VOIDS_MAX {
                return Err(Stop::Permanent);
            }
        }
        Ok(found)
    }

    fn addresses(&mut self, name: &str, v4: bool) -> Result<Vec<IpAddr>, Stop> {
        let answer = self.book.addresses(name, v4);
        self.found(answer)
    }

    /// Whether the client is one of a name's addresses, as far as these bits go.
    fn is_at(&mut self, name: &str, bits: Bits) -> Result<bool, Stop> {
        let addresses = self.addresses(name, self.client.is_ipv4())?;
        let length = if self.client.is_ipv4() { bits.v4 } else { bits.v6 };
        let near = |address: IpAddr| {
            IpNet::new(address, length).is_ok_and(|network| network.contains(&self.client))
        };
        Ok(addresses.into_iter().any(near))
    }

    fn is_mail_host(&mut self, name: &str, bits: Bits) -> Result<bool, Stop> {
        let answer = self.book.hosts(name);
        let hosts = self.found(answer)?;
        if hosts.len() > HOSTS_MAX {
            return Err(Stop::Permanent);
        }
        // All are looked up together, not one after the other.
        for host in &hosts {
            let _wanted = self.book.addresses(host, self.client.is_ipv4());
        }
        for host in &hosts {
            if self.is_at(host, bits)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of the client that lead back to it; what DNS does not tell counts as none (section 5.5).
    fn confirmed_names(&mut self) -> Result<Vec<String>, Stop> {
        let names = match self.book.names(self.client).ok_or(Stop::Waiting)? {
            Err(Nothing::Unknown) => return Ok(Vec::new()),
            known => self.found(Some(known))?,
        };
        let v4 = self.client.is_ipv4();
        let names: Vec<String> = names.into_iter().take(HOSTS_MAX).collect();
        let answers: Vec<_> = names.iter().map(|name| self.book.addresses(name, v4)).collect();
        let mut confirmed = Vec::new();
        for (name, answer) in names.into_iter().zip(answers) {
            if answer.ok_or(Stop::Waiting)?.is_ok_and(|found| found.contains(&self.client)) {
                confirmed.push(name.to_ascii_lowercase());
            }
        }
        Ok(confirmed)
    }

    /// The name a term is about: its own, or that of the record.
    fn name(&mut self, target: Option<&Template>) -> Result<String, Stop> {
        match target {
            Some(template) => template.fill(self),
            None => Ok(self.domain.clone()),
        }
    }
}

impl Values for Walk<'_> {
    type Missing = Stop;

    fn value(&mut self, letter: Letter) -> Result<String, Stop> {
        Ok(match letter {
            Letter::Sender => format!("{}@{}", self.claim.local, self.claim.domain),
            Letter::Local => self.claim.local.to_owned(),
            Letter::SenderDomain => self.claim.domain.to_owned(),
            Letter::Domain => self.domain.clone(),
            Letter::Helo => self.claim.helo.to_owned(),
            Letter::Version => if self.client.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            Letter::Address => dotted(self.client),
            Letter::Name => {
                let names = self.confirmed_names()?;
                let below = |name: &&String| name.ends_with(&format!(".{}", self.domain));
                let exact = names.iter().find(|name| **name == self.domain);
                let best = exact.or_else(|| names.iter().find(below)).or_else(|| names.first());
                best.map_or_else(|| "unknown".to_owned(), String::clone)
            }
        })
    }
}

/// An address as macros have it: an IPv6 address digit by digit.
fn dotted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let digits = address.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            let digits: Vec<String> = digits.map(|digit| format!("{digit:x}")).collect();
            digits.join(".")
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
