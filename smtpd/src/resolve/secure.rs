//! Answers that a validating resolver vouches for (RFC 7672 section 2.1).
//!
//! Validation is the resolver's work, not ours. What it says counts only if nobody can speak in its
//! place, so that every name server must be on this machine; its word is the AD flag. Answers are
//! not kept here: the resolver has them at hand.

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
use smtpd_core::route::dane::Tlsa;

use super::{LookupError, SetupError, absolute, kind_of};

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

/// Asks name servers on this machine for answers that they vouch for.
#[derive(Clone)]
pub(super) struct Validating {
    servers: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    patience: Duration,
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
        Ok(Self { servers: RetryDnsHandle::new(pool, ATTEMPTS), patience })
    }

    /// Asks, also for what a name is an alias of; an answer without a record is an error.
    pub(super) async fn ask(
        &self,
        name: Name,
        kind: RecordType,
    ) -> Result<Checked<Vec<Record>>, LookupError> {
        let (mut asked, mut is_secure) = (name.clone(), true);
        for _ in 0..ALIASES_MAX {
            let found = self.ask_once(asked.clone(), kind).await?;
            is_secure &= found.is_secure;
            let is_there = found.value.iter().any(|record| record.record_type() == kind);
            match alias(&asked, &found.value).filter(|_| !is_there) {
                Some(target) => asked = target,
                None => return Ok(Checked { value: found.value, is_secure }),
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
        let shown = name.to_ascii();
        let shown = shown.strip_suffix('.').unwrap_or(&shown).to_owned();
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = true;
        let asked = self.servers.lookup(Query::query(name, kind), options).first_answer();
        match tokio::time::timeout(self.patience, asked).await {
            Ok(Ok(response)) => {
                let is_secure = response.metadata.authentic_data;
                Ok(Checked { value: response.answers.clone(), is_secure })
            }
            Ok(Err(error)) => Err(kind_of(shown, &error)),
            Err(_) => Err(LookupError::Temporary { name: shown, why: "no reply in time".into() }),
        }
    }

    /// The validated TLSA records of a host; none if it has none, or if what DNS says of it is not
    /// signed. Where even its addresses are not signed nobody is asked for TLSA: some name servers
    /// answer such a question badly (RFC 7672 section 2.2.2).
    pub(super) async fn tlsa(&self, host: &Domain, port: u16) -> Result<Vec<Tlsa>, LookupError> {
        let mut is_signed = false;
        for kind in [RecordType::A, RecordType::AAAA] {
            match self.ask(absolute(host)?, kind).await {
                Ok(found) => {
                    is_signed = found.is_secure;
                    break;
                }
                Err(error) if error.is_temporary() => return Err(error),
                Err(_) => {}
            }
        }
        if !is_signed {
            return Ok(Vec::new());
        }
        let name = Name::from_ascii(format!("_{port}._tcp.{host}."));
        // A name that is too long to have records has none.
        let Ok(name) = name else { return Ok(Vec::new()) };
        match self.ask(name, RecordType::TLSA).await {
            Ok(found) if found.is_secure => Ok(found.value.iter().filter_map(tlsa_of).collect()),
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
