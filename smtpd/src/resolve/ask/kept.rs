//! Answers that are kept for as long as they say, each with whether it was validated.
//!
//! An hour is the most, and five minutes for what does not exist. Their number is bounded; of more, some
//! one makes way. A huge answer is not kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use tokio::time::Instant;

use super::{ANSWERS_MAX, Checked, KNOWN_MAX, LookupError, UNKNOWN_MAX};

/// Records of an answer that is kept.
const RECORDS_MAX: usize = 100;

type Answer = Result<Checked<Vec<Record>>, LookupError>;

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<HashMap<(Name, RecordType), (Instant, Answer)>>);

impl Kept {
    /// What is known.
    pub(super) fn get(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = all.get(&(name.clone(), kind))?;
        (Instant::now() < *until).then(|| answer.clone())
    }

    /// Forgets what is known.
    pub(super) fn forget(&self, name: &Name, kind: RecordType) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(name.clone(), kind));
    }

    /// Keeps an answer for the shortest life of its records.
    pub(super) fn put(&self, name: &Name, kind: RecordType, answer: &Checked<Vec<Record>>) {
        let life = answer.value.iter().map(|record| record.ttl).min().unwrap_or_default();
        let life = Duration::from_secs(life.into()).min(KNOWN_MAX);
        if answer.value.len() <= RECORDS_MAX {
            self.keep(name, kind, life, Ok(answer.clone()));
        }
    }

    /// Keeps that there is no such name or record; that nobody could tell is not kept.
    pub(super) fn put_no(
        &self,
        name: &Name,
        kind: RecordType,
        error: &NetError,
        why: &LookupError,
    ) {
        let NetError::Dns(DnsError::NoRecordsFound(none)) = error else { return };
        if !why.is_temporary() {
            let life = Duration::from_secs(none.negative_ttl.unwrap_or_default().into());
            self.keep(name, kind, life.min(UNKNOWN_MAX), Err(why.clone()));
        }
    }

    fn keep(&self, name: &Name, kind: RecordType, life: Duration, answer: Answer) {
        if life.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= ANSWERS_MAX {
            all.retain(|_, (until, _)| now < *until);
            // The order of a map is chance, which no stranger can guess.
            let chosen = all.keys().next().cloned().filter(|_| all.len() >= ANSWERS_MAX);
            chosen.and_then(|it| all.remove(&it));
        }
        all.insert((name.clone(), kind), (now + life, answer));
    }
}
