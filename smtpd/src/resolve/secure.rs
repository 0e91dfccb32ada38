//! Answers that a validating resolver vouches for (RFC 7672 section 2.1).
//!
//! Validation is the resolver's work, not ours. What it says counts only if nobody can speak in its
//! place, so that every name server must be on this machine; its word is the AD flag. Answers are kept
//! with it for as long as they say, as all others are, so that no message causes a question of its own.

mod kept;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _, RetryDnsHandle};
use hickory_resolver::proto::op::{DnsRequestOptions, Query};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use mailroot_common::address::Domain;
use smtpd_core::route::dane::{Tlsa, Tlsas};

use self::kept::Kept;
use super::{LookupError, SetupError, absolute, host_name, kind_of};

/// Questions that aliases lead to.
const ALIASES_MAX: usize = 8;
/// How often a question is put that gets no reply.
const ATTEMPTS: usize = 2;

/// An answer, and whether it was validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<T> {
    /// The answer.
    pub value: T,
    /// Whether a validating resolver on this machine vouches for it.
    pub is_secure: bool,
}

impl<T> Checked<T> {
    /// An answer that nobody vouches for.
    pub const fn by_nobody(value: T) -> Self {
        Self { value, is_secure: false }
    }
}

/// An answer that aliases may have led to.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    pub(super) records: Vec<Record>,
    /// Whether each step to it was validated, and itself.
    pub(super) is_secure: bool,
    /// The name that has the records; another than was asked for if that is an alias.
    owner: Name,
}

/// Asks name servers on this machine for answers that they vouch for.
#[derive(Clone)]
pub(super) struct Validating {
    servers: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    patience: Duration,
    kept: Arc<Kept>,
}

impl fmt::Debug for Validating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validating").finish_non_exhaustive()
    }
}

/// The first name server that is not on this machine, or that there is none at all.
pub(super) fn elsewhere(servers: &[NameServerConfig]) -> Option<String> {
    let is_here = |address: IpAddr| address.to_canonical().is_loopback();
    let other = servers.iter().find(|server| !is_here(server.ip));
    match other {
        Some(server) => Some(format!("the resolver {} is not on this machine", server.ip)),
        None if servers.is_empty() => Some("there is no resolver".to_owned()),
        None => None,
    }
}

impl Validating {
    pub(super) fn new(
        servers: Vec<NameServerConfig>,
        options: ResolverOpts,
        patience: Duration,
    ) -> Result<Self, SetupError> {
        let tls = TlsConfig::new().map_err(|error| SetupError(error.to_string()))?;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        let servers = RetryDnsHandle::new(pool, ATTEMPTS);
        Ok(Self { servers, patience, kept: Arc::default() })
    }

    /// Asks, also for what a name is an alias of; an answer without a record is an error.
    pub(super) async fn ask(&self, name: Name, kind: RecordType) -> Result<Followed, LookupError> {
        let (mut asked, mut is_secure) = (name.clone(), true);
        for _ in 0..ALIASES_MAX {
            let found = self.ask_once(asked.clone(), kind).await?;
            is_secure &= found.is_secure;
            let is_there = found.value.iter().any(|record| record.record_type() == kind);
            match alias(&asked, &found.value) {
                Some(target) if !is_there => asked = target,
                target => {
                    let owner = target.unwrap_or(asked);
                    return Ok(Followed { records: found.value, is_secure, owner });
                }
            }
        }
        let why = format!("more than {ALIASES_MAX} aliases lead on from it");
        Err(LookupError::Temporary { name: name.to_ascii(), why })
    }

    async fn ask_once(
        &self,
        name: Name,
        kind: RecordType,
    ) -> Result<Checked<Vec<Record>>, LookupError> {
        if let Some(known) = self.kept.get(&name, kind) {
            return known;
        }
        let shown = name.to_ascii();
        let shown = shown.strip_suffix('.').unwrap_or(&shown).to_owned();
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        let asked = self.servers.lookup(Query::query(name.clone(), kind), options).first_answer();
        match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(response)) => {
                let is_secure = response.metadata.authentic_data;
                let answer = Checked { value: response.answers.clone(), is_secure };
                self.kept.put(name, kind, &answer);
                Ok(answer)
            }
            Ok(Err(error)) => {
                let why = kind_of(shown, &error);
                self.kept.put_no(name, kind, &error, &why);
                Err(why)
            }
            Err(_) => Err(LookupError::Temporary { name: shown, why: "no reply in time".into() }),
        }
    }

    /// The validated TLSA records of a host; none if it has none, or if what DNS says of it is not
    /// signed. Where even its addresses are not signed nobody is asked for TLSA: some name servers
    /// answer such a question badly (RFC 7672 section 2.2.2).
    pub(super) async fn tlsa(&self, host: &Domain, port: u16) -> Result<Tlsas, LookupError> {
        for base in self.bases(host).await? {
            let records = self.tlsa_at(&base, port).await?;
            if !records.is_empty() {
                return Ok(Tlsas { base, records });
            }
        }
        Ok(Tlsas { base: host.clone(), records: Vec::new() })
    }

    /// The names at which the TLSA records of a host may be: first what it is an alias of, if each step
    /// there is signed; then its own, if what DNS says of that is signed (RFC 7672 section 2.2.2).
    async fn bases(&self, host: &Domain) -> Result<Vec<Domain>, LookupError> {
        let name = absolute(host)?;
        for kind in [RecordType::A, RecordType::AAAA] {
            let found = match self.ask(name.clone(), kind).await {
                Ok(found) => found,
                Err(error) if error.is_temporary() => return Err(error),
                Err(_) => continue,
            };
            let target = Some(&found.owner).filter(|owner| **owner != name).and_then(host_name);
            let is_own_signed = match (&target, found.is_secure) {
                (_, true) => true,
                (None, false) => false,
                // The alias itself may be signed, although what it leads to is not.
                (Some(_), false) => match self.ask_once(name, RecordType::CNAME).await {
                    Ok(alias) => alias.is_secure,
                    Err(error) if error.is_temporary() => return Err(error),
                    Err(_) => false,
                },
            };
            let mut bases: Vec<Domain> = target.filter(|_| found.is_secure).into_iter().collect();
            bases.extend(is_own_signed.then(|| host.clone()));
            return Ok(bases);
        }
        Ok(Vec::new())
    }

    async fn tlsa_at(&self, base: &Domain, port: u16) -> Result<Vec<Tlsa>, LookupError> {
        let name = Name::from_ascii(format!("_{port}._tcp.{base}."));
        // A name that is too long to have records has none.
        let Ok(name) = name else { return Ok(Vec::new()) };
        match self.ask(name, RecordType::TLSA).await {
            Ok(found) if found.is_secure => Ok(found.records.iter().filter_map(tlsa_of).collect()),
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.is_temporary() => Err(error),
            Err(_) => Ok(Vec::new()),
        }
    }
}

/// What the aliases of an answer come to, if the name is one.
fn alias(name: &Name, records: &[Record]) -> Option<Name> {
    let target = |of: &Name| {
        records.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *of => Some(target.0.clone()),
            _ => None,
        })
    };
    let mut last = target(name)?;
    for _ in 0..ALIASES_MAX {
        match target(&last) {
            Some(next) => last = next,
            None => break,
        }
    }
    Some(last)
}

fn tlsa_of(record: &Record) -> Option<Tlsa> {
    let RData::TLSA(tlsa) = &record.data else { return None };
    Some(Tlsa {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data.clone(),
    })
}
