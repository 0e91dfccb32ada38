//! Names to hosts and addresses, and back.
//!
//! In: names and addresses. Out: what DNS says, or one of three kinds of no: there is no such name,
//! the name has no such record, or nobody could tell (try again later). The difference decides
//! whether mail is returned or waits, so no kind is ever turned into another.
//!
//! Answers are written by strangers: every wait is bounded here, every list is cut, and a name
//! that is not a plain host name never gets out.

mod allowance;
mod ask;
mod booked;
mod dns;
mod secure;
mod simulated;
mod system;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use smtpd_core::route::dane::Tlsas;
use smtpd_core::route::mx::MxRecord;

pub use self::allowance::{Allowance, QUESTIONS_MAX};
pub use self::ask::Checked;
pub use self::dns::Dns;
use self::dns::NAMES_MAX;
pub use self::simulated::SimulatedDns;
use crate::observe::Log;

/// Whom to ask, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The name servers; empty for those of the system.
    pub name_servers: Vec<SocketAddr>,
    /// How long to wait for one server's answer.
    pub timeout: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The name does not exist (NXDOMAIN).
    #[error("there is no name {0} in DNS")]
    NoSuchName(String),
    /// The name exists, without records of the kind asked for.
    #[error("the name {0} has no such record in DNS")]
    NoData(String),
    /// Nobody could tell; later somebody may.
    #[error("DNS gives no answer for {name}: {why}")]
    Temporary {
        /// The name.
        name: String,
        /// What the servers or the network said.
        why: String,
    },
    /// Nobody was asked: one piece of business has no more questions left.
    #[error("DNS gives no answer for {name}: more than {most} questions would be needed")]
    NoneLeft {
        /// The name.
        name: String,
        /// How many there were.
        most: u32,
    },
}

impl LookupError {
    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. } | Self::NoneLeft { .. })
    }
}

/// Why no resolver could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up DNS: {0}; check /etc/resolv.conf or set dns.resolvers")]
pub struct SetupError(String);

/// Which addresses are wanted, in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Both, IPv6 first.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, IPv4 first.
    Prefer4,
}

impl Family {
    /// Whether addresses of this kind are wanted.
    #[must_use]
    pub const fn allows(self, address: IpAddr) -> bool {
        match self {
            Self::Any | Self::Prefer4 => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    /// How many kinds of addresses are asked for.
    const fn kinds(self) -> u32 {
        match self {
            Self::Any | Self::Prefer4 => 2,
            Self::V4 | Self::V6 => 1,
        }
    }
}

/// Addresses kept of one host.
const ADDRESSES_MAX: usize = 16;

/// Asks DNS. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Resolver {
    /// The world's.
    Dns(Arc<Dns>),
    /// A made-up one, for tests.
    Simulated(SimulatedDns),
}

impl Resolver {
    /// A resolver that asks name servers.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if the system's configuration cannot be read.
    pub fn new(settings: &Settings, log: Log) -> Result<Self, SetupError> {
        let dns = Dns::new(settings, Path::new(system::FILE), log);
        dns.map(|dns| Self::Dns(Arc::new(dns)))
    }

    /// The MX records of a domain, and whether a validating resolver on this machine vouches for them; none
    /// is an empty list if the domain exists.
    ///
    /// # Errors
    ///
    /// [`LookupError`], but not `NoData`.
    pub async fn mx(
        &self,
        domain: &Domain,
        allowance: &Allowance,
    ) -> Result<Checked<Vec<MxRecord>>, LookupError> {
        let found = match self {
            Self::Dns(dns) => dns.mx(domain, allowance).await,
            Self::Simulated(dns) => allowance
                .take(domain.as_str())
                .and_then(|()| dns.answer(domain, |host| host.mx.clone()))
                .map(Checked::by_nobody),
        };
        match found {
            // The domain is its own host then, and is signed if its addresses are.
            Err(LookupError::NoData(_)) => Ok(Checked { value: Vec::new(), is_secure: true }),
            other => other,
        }
    }

    /// The TLSA records of a host at a port that a validating resolver on this machine vouches for; none
    /// if there are none, or nobody to vouch.
    ///
    /// # Errors
    ///
    /// [`LookupError`], of a kind that is temporary: there may be some.
    pub async fn tlsa(
        &self,
        host: &Domain,
        port: u16,
        allowance: &Allowance,
    ) -> Result<Tlsas, LookupError> {
        match self {
            Self::Dns(dns) => dns.tlsa(host, port, allowance).await,
            Self::Simulated(_) => Ok(Tlsas { base: host.clone(), records: Vec::new() }),
        }
    }

    /// Whether the resolver validates what it answers.
    ///
    /// # Errors
    ///
    /// Why its word would not count.
    pub async fn validates(&self) -> Result<bool, String> {
        match self {
            Self::Dns(dns) => dns.validates().await,
            Self::Simulated(_) => Ok(false),
        }
    }

    /// The addresses of a host, at most 16, in the order the family asks for; never an empty list.
    ///
    /// # Errors
    ///
    /// [`LookupError`]; temporary if one kind of address is missing and the other unknown.
    pub async fn addresses(
        &self,
        host: &Domain,
        family: Family,
        allowance: &Allowance,
    ) -> Result<Vec<IpAddr>, LookupError> {
        let mut found = match self {
            Self::Dns(dns) => dns.addresses(host, family, allowance).await?,
            Self::Simulated(dns) => {
                for _ in 0..family.kinds() {
                    allowance.take(host.as_str())?;
                }
                dns.answer(host, |host| host.addresses.clone())?
            }
        };
        found.retain(|address| family.allows(*address));
        if found.is_empty() {
            return Err(LookupError::NoData(host.to_string()));
        }
        match family {
            Family::Any => found.sort_by_key(IpAddr::is_ipv4),
            Family::Prefer4 => found.sort_by_key(IpAddr::is_ipv6),
            Family::V4 | Family::V6 => {}
        }
        found.truncate(ADDRESSES_MAX);
        Ok(found)
    }

    /// The texts of the TXT records of a name, each with its strings joined; asked anew, whatever was
    /// known before.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, LookupError> {
        match self {
            Self::Dns(dns) => dns.texts(name).await,
            Self::Simulated(dns) => {
                let unknown = |_| LookupError::NoSuchName(name.to_owned());
                let name = Domain::parse(name).map_err(unknown)?;
                dns.answer(&name, |host| host.texts.clone())
            }
        }
    }

    /// The names of an address that lead back to it. A name that its own zone does not confirm
    /// is worth nothing: whoever holds an address can give it any name.
    ///
    /// # Errors
    ///
    /// [`LookupError`]; an address without a confirmed name is `NoData`.
    pub async fn names(&self, address: IpAddr) -> Result<Vec<Domain>, LookupError> {
        let address = address.to_canonical();
        let claimed = match self {
            Self::Dns(dns) => dns.claimed_names(address).await?,
            Self::Simulated(dns) => dns.claimed_names(address)?,
        };
        let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
        let (mut confirmed, mut unknown) = (Vec::new(), None);
        for name in claimed.into_iter().take(NAMES_MAX) {
            match self.addresses(&name, family, &Allowance::default()).await {
                Ok(addresses) if addresses.contains(&address) => confirmed.push(name),
                Err(error) if error.is_temporary() => unknown = Some(error),
                Ok(_) | Err(_) => {}
            }
        }
        match unknown {
            Some(error) if confirmed.is_empty() => Err(error),
            _ if confirmed.is_empty() => Err(LookupError::NoData(address.to_string())),
            _ => Ok(confirmed),
        }
    }
}

#[cfg(test)]
mod tests;
