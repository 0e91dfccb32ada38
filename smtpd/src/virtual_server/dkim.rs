//! Keys that mail is signed with: whether they can be used, and whether DNS publishes them.

use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::config::DkimEntry;
use mailroot_common::control::{Check, DkimKey, DkimRecord, Level, RecordState};
use smtpd_core::message::sign::is_same_key;

use super::{Shared, VirtualServer};
use crate::config::{NoKey, signing_key};
use crate::dkim::SigningKey;
use crate::resolve::LookupError;

/// How long DNS is waited for.
const WAIT: Duration = Duration::from_secs(10);

impl VirtualServer {
    /// All of them, in the order of the file.
    pub async fn dkim_keys(&self) -> Vec<DkimKey> {
        let (config, shared) = (self.config(), self.shared.load_full());
        let mut out = Vec::new();
        for entry in &config.dkim {
            let read = read(&shared, entry).await;
            let key = read.as_ref().ok();
            out.push(DkimKey {
                domain: entry.domain.to_string(),
                selector: entry.selector.to_string(),
                server: self.name().to_string(),
                algorithm: key.map(|key| key.algorithm().key_type().to_owned()),
                bits: key.map(|key| key.bits() as u64),
                subdomains: entry.subdomains,
                key_at: entry.key.to_string(),
                trouble: read.as_ref().err().cloned(),
            });
        }
        out
    }

    /// What DNS must say of the keys of a domain, or of all, and what it says.
    pub async fn dkim_records(&self, domain: Option<&Domain>) -> Vec<DkimRecord> {
        let (config, shared) = (self.config(), self.shared.load_full());
        let wanted = |entry: &&DkimEntry| domain.is_none_or(|domain| entry.domain == *domain);
        let mut out = Vec::new();
        for entry in config.dkim.iter().filter(wanted) {
            out.push(record(&shared, entry).await);
        }
        out
    }

    /// What was found about keys and their records, each with what to do.
    pub(super) async fn check_dkim(&self) -> Vec<Check> {
        self.dkim_records(None).await.iter().map(check).collect()
    }
}

async fn read(shared: &Arc<Shared>, entry: &DkimEntry) -> Result<SigningKey, String> {
    let (secrets, entry) = (shared.secrets.clone(), entry.clone());
    let read = tokio::task::spawn_blocking(move || signing_key(&secrets, &entry)).await;
    match read {
        Ok(read) => read.map_err(|error: NoKey| error.to_string()),
        Err(_) => Err("the key could not be read".to_owned()),
    }
}

async fn record(shared: &Arc<Shared>, entry: &DkimEntry) -> DkimRecord {
    let name = entry.record_name();
    let key = read(shared, entry).await;
    let text = key.and_then(|key| key.record().map_err(|error| error.to_string()));
    let mut record =
        DkimRecord { name, text: None, state: RecordState::Unknown, found: Vec::new(), why: None };
    match text {
        Ok(text) => record.text = Some(text),
        Err(why) => {
            record.why = Some(why);
            return record;
        }
    }
    match tokio::time::timeout(WAIT, shared.resolver.texts(&record.name)).await {
        Ok(Ok(found)) => {
            let text = record.text.as_deref().unwrap_or_default();
            let is_there = found.iter().any(|other| is_same_key(text, other));
            record.state = if is_there { RecordState::Published } else { RecordState::Different };
            record.found = found;
        }
        Ok(Err(LookupError::NoSuchName(_) | LookupError::NoData(_))) => {
            record.state = RecordState::Absent;
        }
        Ok(Err(error)) => record.why = Some(error.to_string()),
        Err(_) => record.why = Some(format!("no answer within {} s", WAIT.as_secs())),
    }
    record
}

fn check(record: &DkimRecord) -> Check {
    let name = &record.name;
    let check = |level, text: String| Check::new(level, "dkim", "record", text);
    let domain = name.split_once("._domainkey.").map_or(name.as_str(), |(_, domain)| domain);
    let publish = format!("smtpctl dkim dns {domain} prints what to publish");
    let why = record.why.as_deref().unwrap_or_default();
    match record.state {
        RecordState::Published => check(Level::Ok, format!("{name} publishes the key")),
        RecordState::Different => {
            check(Level::Fail, format!("{name} publishes another key")).hint(publish)
        }
        RecordState::Absent => check(Level::Warn, format!("{name} is not in DNS")).hint(publish),
        RecordState::Unknown if record.text.is_none() => {
            check(Level::Fail, format!("mail of {domain} waits: {why}"))
                .hint("put the key back, or take the entry out: smtpctl dkim remove")
        }
        RecordState::Unknown => check(Level::Warn, why.to_owned()),
    }
}
