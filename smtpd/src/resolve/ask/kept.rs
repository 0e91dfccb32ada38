//! Answers that are kept for as long as they say, each with whether it was validated.
//!
//! An hour is the most, and five minutes for what does not exist. Their number and their size are bounded; of
//! more, some make way. A huge answer is not kept: strangers decide how long theirs are.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::proto::serialize::binary::BinEncodable as _;
use tokio::time::Instant;

use super::{ANSWERS_MAX, Checked, KNOWN_MAX, LookupError, UNKNOWN_MAX};

/// Records of an answer that is kept.
const RECORDS_MAX: usize = 100;
/// Octets of its records, as they are sent.
const OCTETS_MAX: usize = 4 * 1024;
/// Octets of memory for all answers.
const MEMORY_MAX: usize = 32 * 1024 * 1024;
/// What an answer takes beside its records: its name, when it ends, and why there is none.
const BESIDE: usize = 1024;
/// How long a search for answers that are over is not repeated.
const SEARCH_EVERY: Duration = Duration::from_secs(5);

type Answer = Result<Checked<Vec<Record>>, LookupError>;
type Key = (Name, RecordType);

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    answers: HashMap<Key, One>,
    /// Memory of all of them.
    memory: usize,
    /// When those that are over were looked for last.
    searched: Option<Instant>,
}

#[derive(Debug)]
struct One {
    until: Instant,
    memory: usize,
    answer: Answer,
}

impl All {
    fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.answers.remove(key) {
            self.memory -= gone.memory;
        }
    }

    /// Whether another one of this size is too much.
    fn is_full(&self, memory: usize) -> bool {
        self.answers.len() >= ANSWERS_MAX || self.memory + memory > MEMORY_MAX
    }

    /// Makes room: those that are over go first, and then any.
    fn make_room(&mut self, memory: usize, now: Instant) {
        let is_due = self.searched.is_none_or(|at| now.duration_since(at) >= SEARCH_EVERY);
        if self.is_full(memory) && is_due {
            self.searched = Some(now);
            self.answers.retain(|_, one| now < one.until);
            self.memory = self.answers.values().map(|one| one.memory).sum();
        }
        while self.is_full(memory) {
            // The order of a map is chance, which no stranger can guess.
            let Some(chosen) = self.answers.keys().next().cloned() else { return };
            self.remove(&chosen);
        }
    }
}

impl Kept {
    /// What is known.
    pub(super) fn get(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = all.answers.get(&(name.clone(), kind))?;
        (Instant::now() < one.until).then(|| one.answer.clone())
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
        if answer.value.len() > RECORDS_MAX {
            return;
        }
        let octets =
            answer.value.iter().map(|record| record.to_bytes().map_or(OCTETS_MAX, |it| it.len()));
        let octets: usize = octets.sum();
        if octets < OCTETS_MAX {
            let memory = octets + answer.value.len() * size_of::<Record>();
            self.keep((name.clone(), kind), life, memory, Ok(answer.clone()));
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
            self.keep((name.clone(), kind), life.min(UNKNOWN_MAX), 0, Err(why.clone()));
        }
    }

    fn keep(&self, key: Key, life: Duration, records: usize, answer: Answer) {
        if life.is_zero() {
            return;
        }
        let (now, memory) = (Instant::now(), BESIDE + records);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&key);
        all.make_room(memory, now);
        all.memory += memory;
        all.answers.insert(key, One { until: now + life, memory, answer });
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::RData;
    use hickory_resolver::proto::rr::rdata::TXT;

    use super::*;

    fn name(number: usize) -> Name {
        Name::from_ascii(format!("n{number}.test.")).unwrap()
    }

    /// An answer with so many texts of 200 octets.
    fn texts(name: &Name, count: usize) -> Checked<Vec<Record>> {
        let data = RData::TXT(TXT::new(vec!["x".repeat(200)]));
        Checked::by_nobody(vec![Record::from_rdata(name.clone(), 60, data); count])
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_decide_neither_the_number_nor_the_size_of_what_is_kept() {
        let kept = Kept::default();
        let put = |number, count| {
            kept.put(&name(number), RecordType::TXT, &texts(&name(number), count));
        };
        put(0, 50);
        assert!(kept.get(&name(0), RecordType::TXT).is_none(), "it is huge");
        for number in 0..ANSWERS_MAX + 100 {
            put(number, 15);
        }
        let last = name(ANSWERS_MAX + 99);
        assert!(kept.get(&last, RecordType::TXT).is_some());
        {
            let all = kept.0.lock().unwrap();
            let memory: usize = all.answers.values().map(|one| one.memory).sum();
            assert_eq!(memory, all.memory);
            assert!(memory <= MEMORY_MAX && all.answers.len() <= ANSWERS_MAX);
            assert!(all.answers.len() > MEMORY_MAX / (16 * 1024), "{}", all.answers.len());
        }
        tokio::time::sleep(Duration::from_mins(2)).await;
        put(ANSWERS_MAX + 100, 17);
        assert_eq!(kept.0.lock().unwrap().answers.len(), 1, "all others are over");
    }
}
