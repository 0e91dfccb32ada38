//! Real name servers: those of the configuration, or those of the system, whose file is followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mailroot_common::address::Domain;
use smtpd_core::route::dane::Tlsas;
use smtpd_core::route::mx::MxRecord;

use super::ask::{Asker, Checked};
use super::system::{Follow, System};
use super::{Allowance, Family, LookupError, Settings, SetupError};
use crate::observe::{Level, Log};

/// MX records kept of one answer, before they are ordered and cut further.
const RECORDS_MAX: usize = 500;
/// Names of a client that are looked at.
pub(super) const NAMES_MAX: usize = 4;
/// Texts kept of one name.
const TEXTS_MAX: usize = 16;
/// This machine by name (RFC 6761 section 6.3).
const LOCALHOST: &str = "localhost";

/// Real name servers.
#[derive(Debug)]
pub struct Dns {
    /// Those to ask now.
    asker: ArcSwap<Asker>,
    /// Whether others are to be asked, if the system says whom.
    follow: Option<Follow>,
    timeout: Duration,
    log: Log,
}

impl Dns {
    pub(super) fn new(settings: &Settings, system: &Path, log: Log) -> Result<Self, SetupError> {
        let (read, follow) = match &settings.name_servers[..] {
            [] => {
                let (follow, read) = Follow::begin(system)?;
                (read, Some(follow))
            }
            list => {
                let servers = list.iter().map(|at| name_server(*at)).collect();
                (System { servers, options: ResolverOpts::default() }, None)
            }
        };
        let asker = Asker::new(read.servers, read.options, settings.timeout)?;
        let asker = ArcSwap::from_pointee(asker);
        Ok(Self { asker, follow, timeout: settings.timeout, log })
    }

    /// Whom to ask, as the system says by now. What others answered is forgotten.
    pub(super) async fn asker(&self) -> Arc<Asker> {
        let Some(follow) = &self.follow else { return self.asker.load_full() };
        let timeout = self.timeout;
        let make = move |System { servers, options }: System| {
            let named: Vec<String> = servers.iter().map(|it| it.ip.to_string()).collect();
            Ok((named, Asker::new(servers, options, timeout)?))
        };
        match follow.news(make).await {
            Ok(Some((named, asker))) => {
                self.asker.store(Arc::new(asker));
                let line = self.log.line(Level::Info, "resolvers-changed");
                line.text("servers", named.join(" ")).send();
            }
            Ok(None) => {}
            Err(error) => {
                self.log.line(Level::Warn, "resolvers-unread").text("reason", error).send();
            }
        }
        self.asker.load_full()
    }

    pub(super) async fn mx(
        &self,
        domain: &Domain,
        allowance: &Allowance,
    ) -> Result<Checked<Vec<MxRecord>>, LookupError> {
        let name = absolute(domain)?;
        let found = self.asker().await.ask(&name, RecordType::MX, allowance).await?;
        let is_secure = found.is_secure;
        Ok(Checked { value: mx_records(domain, &found.records)?, is_secure })
    }

    pub(super) async fn tlsa(
        &self,
        host: &Domain,
        port: u16,
        allowance: &Allowance,
    ) -> Result<Tlsas, LookupError> {
        let asker = self.asker().await;
        match asker.unvouched() {
            Some(_) => Ok(Tlsas { base: host.clone(), records: Vec::new() }),
            None => asker.tlsa(host, port, allowance).await,
        }
    }

    /// Whether whom we ask validates, or why its word would not count.
    pub(super) async fn validates(&self) -> Result<bool, String> {
        let asker = self.asker().await;
        if let Some(why) = asker.unvouched() {
            return Err(why.to_owned());
        }
        let root = asker.ask(&Name::root(), RecordType::NS, &Allowance::default()).await;
        Ok(root.is_ok_and(|found| found.is_secure))
    }

    pub(super) async fn addresses(
        &self,
        host: &Domain,
        family: Family,
        allowance: &Allowance,
    ) -> Result<Vec<IpAddr>, LookupError> {
        if host.as_str().rsplit('.').next() == Some(LOCALHOST) {
            return Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        let (name, asker) = (absolute(host)?, self.asker().await);
        let ask = async |wanted: bool, kind| match wanted {
            true => Some(addresses(&asker, &name, kind, allowance).await),
            false => None,
        };
        let (v4, v6) = tokio::join!(
            ask(family != Family::V6, RecordType::A),
            ask(family != Family::V4, RecordType::AAAA)
        );
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for answer in v4.into_iter().chain(v6) {
            match answer {
                Ok(records) => found.extend(records.iter().filter_map(address_of)),
                Err(error) => errors.push(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
        // "Not known" outweighs "has none", and that outweighs "no such name".
        let strongest = errors.into_iter().min_by_key(|error| match error {
            LookupError::Temporary { .. } | LookupError::NoneLeft { .. } => 0,
            LookupError::NoData(_) => 1,
            LookupError::NoSuchName(_) => 2,
        });
        Err(strongest.unwrap_or_else(|| LookupError::NoData(host.to_string())))
    }

    pub(super) async fn texts(&self, name: &str) -> Result<Vec<String>, LookupError> {
        let unknown = |_| LookupError::NoSuchName(name.to_owned());
        let absolute = Name::from_ascii(format!("{name}.")).map_err(unknown)?;
        let asker = self.asker().await;
        asker.forget(&absolute, RecordType::TXT);
        let found = asker.ask(&absolute, RecordType::TXT, &Allowance::default()).await?;
        let texts = found.records.iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.take(TEXTS_MAX).collect())
    }

    pub(super) async fn claimed_names(&self, address: IpAddr) -> Result<Vec<Domain>, LookupError> {
        let (name, asker) = (Name::from(address), self.asker().await);
        let found = match asker.hosts_file(&name, RecordType::PTR) {
            Some(found) => found,
            None if address.is_loopback() => {
                return Ok(Domain::parse(LOCALHOST).into_iter().collect());
            }
            None => asker.ask(&name, RecordType::PTR, &Allowance::default()).await?.records,
        };
        let names = found.iter().filter_map(|record| match &record.data {
            RData::PTR(name) => host_name(&name.0),
            _ => None,
        });
        Ok(names.take(NAMES_MAX).collect())
    }
}

async fn addresses(
    asker: &Asker,
    name: &Name,
    kind: RecordType,
    allowance: &Allowance,
) -> Result<Vec<Record>, LookupError> {
    match asker.hosts_file(name, kind) {
        Some(found) => Ok(found),
        None => Ok(asker.ask(name, kind, allowance).await?.records),
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

pub(super) fn address_of(record: &Record) -> Option<IpAddr> {
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
pub(super) fn absolute(domain: &Domain) -> Result<Name, LookupError> {
    Name::from_ascii(format!("{domain}.")).map_err(|_| LookupError::NoSuchName(domain.to_string()))
}

/// The name as a host name, if it is one.
pub(super) fn host_name(name: &Name) -> Option<Domain> {
    let text = name.to_ascii();
    Domain::parse(text.strip_suffix('.').unwrap_or(&text)).ok()
}
