//! Names to hosts and addresses, and back.
//!
//! In: names and addresses. Out: what DNS says, or one of three kinds of no: there is no such name,
//! the name has no such record, or nobody could tell (try again later). The difference decides
//! whether mail is returned or waits, so no kind is ever turned into another.
//!
//! Answers are written by strangers: every wait is bounded here, every list is cut, and a name
//! that is not a plain host name never gets out.

mod booked;
mod secure;
mod simulated;
mod system;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mailroot_common::address::Domain;
use smtpd_core::route::dane::Tlsas;
use smtpd_core::route::mx::MxRecord;

pub use self::secure::Checked;
use self::secure::Validating;
pub use self::simulated::SimulatedDns;

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
}

impl LookupError {
    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Temporary { .. })
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
}

/// Addresses kept of one host.
const ADDRESSES_MAX: usize = 16;
/// MX records kept of one answer, before they are ordered and cut further.
const RECORDS_MAX: usize = 500;
/// Names of a client that are looked at.
const NAMES_MAX: usize = 4;
/// Texts kept of one name.
const TEXTS_MAX: usize = 16;
/// Answers kept in memory.
const CACHE_ANSWERS: u64 = 16 * 1024;
/// The longest a name is taken for known, or for not existing.
const KNOWN_MAX: Duration = Duration::from_hours(1);
const UNKNOWN_MAX: Duration = Duration::from_mins(5);

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
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        Dns::new(settings).map(|dns| Self::Dns(Arc::new(dns)))
    }

    /// The MX records of a domain; none is an empty list if the domain exists.
    ///
    /// # Errors
    ///
    /// [`LookupError`], but not `NoData`.
    pub async fn mx(&self, domain: &Domain) -> Result<Vec<MxRecord>, LookupError> {
        let found = match self {
            Self::Dns(dns) => dns.mx(domain).await,
            Self::Simulated(dns) => dns.answer(domain, |host| host.mx.clone()),
        };
        match found {
            Err(LookupError::NoData(_)) => Ok(Vec::new()),
            other => other,
        }
    }

    /// The same, and whether a validating resolver on this machine vouches for it.
    ///
    /// # Errors
    ///
    /// [`LookupError`], but not `NoData`.
    pub async fn mx_checked(&self, domain: &Domain) -> Result<Checked<Vec<MxRecord>>, LookupError> {
        let found = match self {
            Self::Dns(dns) => dns.mx_checked(domain).await,
            Self::Simulated(dns) => {
                dns.answer(domain, |host| host.mx.clone()).map(Checked::by_nobody)
            }
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
    /// [`LookupError::Temporary`]: there may be some.
    pub async fn tlsa(&self, host: &Domain, port: u16) -> Result<Tlsas, LookupError> {
        match self {
            Self::Dns(dns) => match &dns.validating {
                Ok(validating) => validating.tlsa(host, port).await,
                Err(_) => Ok(Tlsas { base: host.clone(), records: Vec::new() }),
            },
            Self::Simulated(_) => Ok(Tlsas { base: host.clone(), records: Vec::new() }),
        }
    }

    /// Whether the resolver validates what it answers.
    ///
    /// # Errors
    ///
    /// Why its word would not count.
    pub async fn validates(&self) -> Result<bool, String> {
        let Self::Dns(dns) = self else { return Ok(false) };
        let validating = dns.validating.as_ref().map_err(String::clone)?;
        let root = validating.ask(Name::root(), RecordType::NS).await;
        Ok(root.is_ok_and(|found| found.is_secure))
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
    ) -> Result<Vec<IpAddr>, LookupError> {
        let mut found = match self {
            Self::Dns(dns) => dns.addresses(host, family).await?,
            Self::Simulated(dns) => dns.answer(host, |host| host.addresses.clone())?,
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
            match self.addresses(&name, family).await {
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

/// Real name servers.
#[derive(Clone, Debug)]
pub struct Dns {
    resolver: TokioResolver,
    /// For one whole look-up, whatever the servers do.
    patience: Duration,
    /// Asks for answers that are vouched for, or says why nobody's word would count.
    validating: Result<Validating, String>,
}

impl Dns {
    fn new(settings: &Settings) -> Result<Self, SetupError> {
        let failed = |error: NetError| SetupError(error.to_string());
        let (config, mut options) = if settings.name_servers.is_empty() {
            system::read(Path::new(system::FILE))?
        } else {
            let servers = settings.name_servers.iter().map(|at| name_server(*at)).collect();
            (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
        };
        options.timeout = settings.timeout;
        options.attempts = 2;
        options.cache_size = CACHE_ANSWERS;
        options.try_tcp_on_error = true;
        options.positive_max_ttl = Some(KNOWN_MAX);
        options.negative_max_ttl = Some(UNKNOWN_MAX);
        let patience = settings.timeout.saturating_mul(3);
        let servers = config.name_servers().to_vec();
        let validating = match secure::elsewhere(&servers) {
            Some(why) => Err(why),
            None => Ok(Validating::new(servers, options.clone(), patience)?),
        };
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(failed)?;
        Ok(Self { resolver, patience, validating })
    }

    async fn ask(&self, name: Name, kind: RecordType) -> Result<Lookup, LookupError> {
        let mut shown = name.to_ascii();
        if shown.len() > 1 && shown.ends_with('.') {
            shown.pop();
        }
        match tokio::time::timeout(self.patience, self.resolver.lookup(name, kind)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(kind_of(shown, &error)),
            Err(_) => Err(LookupError::Temporary { name: shown, why: "no reply in time".into() }),
        }
    }

    async fn mx(&self, domain: &Domain) -> Result<Vec<MxRecord>, LookupError> {
        mx_records(domain, self.ask(absolute(domain)?, RecordType::MX).await?.answers())
    }

    async fn mx_checked(&self, domain: &Domain) -> Result<Checked<Vec<MxRecord>>, LookupError> {
        let Ok(validating) = &self.validating else {
            return self.mx(domain).await.map(Checked::by_nobody);
        };
        let found = validating.ask(absolute(domain)?, RecordType::MX).await?;
        let is_secure = found.is_secure;
        Ok(Checked { value: mx_records(domain, &found.records)?, is_secure })
    }

    async fn addresses(&self, host: &Domain, family: Family) -> Result<Vec<IpAddr>, LookupError> {
        if host.as_str() == "localhost" {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        let name = absolute(host)?;
        let ask = async |wanted: bool, kind| match wanted {
            true => Some(self.ask(name.clone(), kind).await),
            false => None,
        };
        let (v4, v6) = tokio::join!(
            ask(family != Family::V6, RecordType::A),
            ask(family != Family::V4, RecordType::AAAA)
        );
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for answer in v4.into_iter().chain(v6) {
            match answer {
                Ok(lookup) => found.extend(lookup.answers().iter().filter_map(address_of)),
                Err(error) => errors.push(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        // "Not known" outweighs "has none", and that outweighs "no such name".
        let strongest = errors.into_iter().min_by_key(|error| match error {
            LookupError::Temporary { .. } => 0,
            LookupError::NoData(_) => 1,
            LookupError::NoSuchName(_) => 2,
        });
        Err(strongest.unwrap_or_else(|| LookupError::NoData(host.to_string())))
    }

    async fn texts(&self, name: &str) -> Result<Vec<String>, LookupError> {
        let unknown = |_| LookupError::NoSuchName(name.to_owned());
        let absolute = Name::from_ascii(format!("{name}.")).map_err(unknown)?;
        self.resolver.clear_lookup_cache(absolute.clone(), RecordType::TXT);
        let found = self.ask(absolute, RecordType::TXT).await?;
        let texts = found.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.take(TEXTS_MAX).collect())
    }

    async fn claimed_names(&self, address: IpAddr) -> Result<Vec<Domain>, LookupError> {
        let found = self.ask(Name::from(address), RecordType::PTR).await?;
        let names = found.answers().iter().filter_map(|record| match &record.data {
            RData::PTR(name) => host_name(&name.0),
            _ => None,
        });
        Ok(names.take(NAMES_MAX).collect())
    }
}

fn mx_records(domain: &Domain, answers: &[Record]) -> Result<Vec<MxRecord>, LookupError> {
    let mut records = Vec::new();
    let mut unusable = false;
    for record in answers.iter().take(RECORDS_MAX) {
        let RData::MX(mx) = &record.data else { continue };
        if mx.exchange.is_root() {
            records.push(MxRecord { preference: mx.preference, exchange: None });
        } else if let Some(host) = host_name(&mx.exchange) {
            records.push(MxRecord { preference: mx.preference, exchange: Some(host) });
        } else {
            unusable = true;
        }
    }
    if records.is_empty() && unusable {
        let why = "none of its MX records names a valid host".to_owned();
        return Err(LookupError::Temporary { name: domain.to_string(), why });
    }
    Ok(records)
}

fn address_of(record: &Record) -> Option<IpAddr> {
    match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

fn name_server(at: SocketAddr) -> NameServerConfig {
    let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
    udp.port = at.port();
    tcp.port = at.port();
    NameServerConfig::new(at.ip(), true, vec![udp, tcp])
}

/// The name with its final dot, so that no search list is tried.
fn absolute(domain: &Domain) -> Result<Name, LookupError> {
    Name::from_ascii(format!("{domain}.")).map_err(|_| LookupError::NoSuchName(domain.to_string()))
}

/// The name as a host name, if it is one.
fn host_name(name: &Name) -> Option<Domain> {
    let text = name.to_ascii();
    Domain::parse(text.strip_suffix('.').unwrap_or(&text)).ok()
}

fn kind_of(name: String, error: &NetError) -> LookupError {
    let why = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => return LookupError::NoSuchName(name),
            // A referral is no answer.
            ResponseCode::NoError if none.ns.is_some() && none.soa.is_none() => {
                "the server refers to others".to_owned()
            }
            ResponseCode::NoError => return LookupError::NoData(name),
            other => format!("the server says {other}"),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the server says {code}"),
        NetError::Timeout => "no reply in time".to_owned(),
        other => other.to_string(),
    };
    let printable = why.chars().map(|c| if c.is_control() { '?' } else { c }).take(200);
    LookupError::Temporary { name, why: printable.collect() }
}

#[cfg(test)]
mod tests;
