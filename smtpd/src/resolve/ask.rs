//! Questions to name servers: for what a name is, and for what it is an alias of.
//!
//! Answers are kept for as long as they say, each with whether a validating resolver vouches for it (RFC 7672
//! section 2.1). Validation is the resolver's work, not ours. What it says counts only if nobody can speak in
//! its place, so that every name server must be on this machine; its word is the AD flag.
//!
//! Records beside those that were asked for are nobody's: neither used nor kept for another question.

mod kept;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle as _, FirstAnswer as _, RetryDnsHandle};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{Hosts, NameServerPool, PoolContext, TlsConfig};

use self::kept::Kept;
use super::{Allowance, LookupError, SetupError};

/// Answers kept in memory.
const ANSWERS_MAX: usize = 16 * 1024;
/// The longest a name is taken for known, or for not existing.
const KNOWN_MAX: Duration = Duration::from_hours(1);
const UNKNOWN_MAX: Duration = Duration::from_mins(5);
/// Questions that aliases lead to.
const ALIASES_MAX: usize = 8;
/// How often a question is put again that gets no reply.
const ATTEMPTS: usize = 2;
/// How many time-outs one question may take, whatever the servers do.
const PATIENCE: u32 = 3;
/// Names below these exist nowhere, and nobody is asked for them (RFC 6761, RFC 7686).
const NOWHERE: [&[u8]; 2] = [b"invalid", b"onion"];

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
    /// Records of the kind that was asked for; never none.
    pub(super) records: Vec<Record>,
    /// Whether each step to it was validated, and itself.
    pub(super) is_secure: bool,
    /// The name that has the records; another than was asked for if that is an alias.
    pub(super) owner: Name,
}

/// Asks some name servers.
pub(super) struct Asker {
    servers: RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    hosts: Hosts,
    patience: Duration,
    /// Why nobody's word counts, if it does not.
    unvouched: Option<String>,
    kept: Kept,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

/// The first name server that is not on this machine, or that there is none at all.
fn elsewhere(servers: &[NameServerConfig]) -> Option<String> {
    let is_here = |address: IpAddr| address.to_canonical().is_loopback();
    let other = servers.iter().find(|server| !is_here(server.ip));
    match other {
        Some(server) => Some(format!("the resolver {} is not on this machine", server.ip)),
        None if servers.is_empty() => Some("there is no resolver".to_owned()),
        None => None,
    }
}

impl Asker {
    pub(super) fn new(
        servers: Vec<NameServerConfig>,
        options: ResolverOpts,
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        let unvouched = elsewhere(&servers);
        let mut options = options;
        options.timeout = timeout;
        options.try_tcp_on_error = true;
        let tls = TlsConfig::new().map_err(|error| SetupError(error.to_string()))?;
        let context = Arc::new(PoolContext::new(options, tls));
        let pool = NameServerPool::from_config(servers, context, TokioRuntimeProvider::default());
        Ok(Self {
            servers: RetryDnsHandle::new(pool, ATTEMPTS),
            hosts: Hosts::from_system().unwrap_or_default(),
            patience: timeout.saturating_mul(PATIENCE),
            unvouched,
            kept: Kept::default(),
        })
    }

    /// Why nobody's word counts, if it does not.
    pub(super) fn unvouched(&self) -> Option<&str> {
        self.unvouched.as_deref()
    }

    /// What the file of this machine's hosts says.
    pub(super) fn hosts_file(&self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        let found = self.hosts.lookup_static_host(&Query::query(name.clone(), kind))?;
        Some(found.answers().to_vec())
    }

    /// Forgets an answer.
    pub(super) fn forget(&self, name: &Name, kind: RecordType) {
        self.kept.forget(name, kind);
    }

    /// Asks, also for what a name is an alias of.
    ///
    /// # Errors
    ///
    /// [`LookupError`], also if there is no record of the kind.
    pub(super) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        allowance: &Allowance,
    ) -> Result<Followed, LookupError> {
        if name.iter().next_back().is_some_and(is_nowhere) {
            return Err(LookupError::NoSuchName(shown(name)));
        }
        let (mut asked, mut is_secure) = (name.clone(), true);
        let mut seen = Vec::new();
        while seen.len() < ALIASES_MAX {
            let found = self.ask_once(&asked, kind, allowance).await?;
            is_secure &= found.is_secure;
            let target = alias(&asked, &found.value);
            for owner in target.iter().chain([&asked]) {
                let records = records_of(owner, kind, &found.value);
                if !records.is_empty() {
                    return Ok(Followed { records, is_secure, owner: owner.clone() });
                }
            }
            let Some(target) = target else {
                return Err(LookupError::NoData(shown(name)));
            };
            seen.push(std::mem::replace(&mut asked, target));
            if seen.contains(&asked) {
                return Err(temporary(name, "its aliases lead in a circle"));
            }
        }
        Err(temporary(name, &format!("more than {ALIASES_MAX} aliases lead on from it")))
    }

    /// Asks for a name itself.
    pub(super) async fn ask_once(
        &self,
        name: &Name,
        kind: RecordType,
        allowance: &Allowance,
    ) -> Result<Checked<Vec<Record>>, LookupError> {
        if let Some(known) = self.kept.get(name, kind) {
            return known;
        }
        allowance.take(&shown(name))?;
        let mut options = DnsRequestOptions::default();
        options.edns_set_dnssec_ok = self.unvouched.is_none();
        let asked = self.servers.lookup(Query::query(name.clone(), kind), options).first_answer();
        match tokio::time::timeout(self.patience, asked).await {
            // An answer with an unknown code is none, whatever it holds.
            Ok(Ok(response)) if !is_answer(response.metadata.response_code) => {
                let code = response.metadata.response_code;
                Err(temporary(name, &format!("the server says {code}")))
            }
            Ok(Ok(response)) => {
                let is_secure = response.metadata.authentic_data && self.unvouched.is_none();
                let answer = Checked { value: response.answers.clone(), is_secure };
                self.kept.put(name, kind, &answer);
                Ok(answer)
            }
            Ok(Err(error)) => {
                let why = kind_of(shown(name), &error);
                self.kept.put_no(name, kind, &error, &why);
                Err(why)
            }
            Err(_) => Err(temporary(name, "no reply in time")),
        }
    }
}

/// Whether a reply with this code says something of the name: there is no name at the end of an alias, too.
const fn is_answer(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn is_nowhere(last: &[u8]) -> bool {
    NOWHERE.iter().any(|nowhere| nowhere.eq_ignore_ascii_case(last))
}

fn records_of(owner: &Name, kind: RecordType, records: &[Record]) -> Vec<Record> {
    let is_asked_for = |record: &&Record| record.record_type() == kind && record.name == *owner;
    records.iter().filter(is_asked_for).cloned().collect()
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

/// A name for people, without its final dot.
fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(&text).to_owned()
}

fn temporary(name: &Name, why: &str) -> LookupError {
    LookupError::Temporary { name: shown(name), why: why.to_owned() }
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
