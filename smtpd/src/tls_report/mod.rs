//! What domains are to be told of the TLS that mail to them met (TLS-RPT, RFC 8460): counted, kept, and
//! due for sending when a day (UTC) is over.
//!
//! In: what sessions came to. Out: reports that are due. Who sends them, and by what, is decided above.
//! A session costs a look at a map; what was counted is written in the background, so that the last
//! half minute before a crash may be missing. Numbers, times and the octets of all of it are bounded.

mod kept;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use mailroot_common::address::Domain;
use mailroot_common::units::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use smtpd_core::tls_report::count::{DOMAINS_MAX, octets_of_domain};
use smtpd_core::tls_report::record::Destination;
use smtpd_core::tls_report::{Counted, Failure, Period, Policy};

use self::kept::Files;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::observe::{Level, Log};

/// How long sessions gather before their counts are written.
const GATHER: Duration = Duration::from_secs(30);
/// The octets of what is counted and of what waits, as [`Period::octets`] has them.
const OCTETS_MAX: usize = 16 * 1024 * 1024;
/// What is quoted of a failure.
const TROUBLE_CHARACTERS_MAX: usize = 300;
/// Reports that wait; of more, the newest.
const DUE_MAX: usize = 2 * DOMAINS_MAX;
/// Reports of all senders must not arrive with the stroke of midnight (RFC 8460 section 5.5).
const SPREAD: Span = Span::hours(4);
/// How long a report is tried (RFC 8460 section 5.5), and how often.
const TRIED_FOR: Span = Span::hours(24);
const TRIED_EVERY: Span = Span::hours(1);

/// A report that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// The domain that is told.
    pub domain: Domain,
    /// When counting began.
    pub begins: Timestamp,
    /// When it ended.
    pub ends: Timestamp,
    /// What was counted.
    pub counted: Counted,
    /// When it is tried next.
    pub next: Timestamp,
    /// When it is given up.
    pub until: Timestamp,
    /// Where it goes, as the domain said when it was asked first; empty before that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<Destination>,
    /// Destinations that have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<String>,
    /// What the last attempt failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Due {
    fn is_same(&self, other: &Self) -> bool {
        (&self.domain, self.begins) == (&other.domain, other.begins)
    }

    /// About how many octets of memory it takes.
    fn octets(&self) -> usize {
        let destinations = self.destinations.iter().map(|it| it.to_string().len());
        let texts = destinations.chain(self.done.iter().map(String::len));
        let trouble = self.trouble.as_ref().map_or(0, String::len);
        let own = octets_of_domain(&self.domain) + self.counted.octets();
        own + texts.map(|octets| octets + size_of::<String>()).sum::<usize>() + trouble
    }

    /// Brings moments nearer that a clock has named which was ahead.
    fn set_right(&mut self, now: Timestamp) {
        let latest = now.after(SPREAD);
        self.next = self.next.min(latest);
        self.until = self.until.min(latest.after(TRIED_FOR));
    }
}

/// What is counted and what is due, for as long as the daemon runs and longer. Cheap to clone.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    files: Files,
    clock: Clock,
    log: Log,
    state: Mutex<State>,
    /// Held by whoever writes, so that what is older never replaces what is newer.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Period>,
    due: Vec<Due>,
    /// What both take.
    octets: usize,
    /// Somebody writes it soon.
    is_written_soon: bool,
}

impl State {
    fn room(&self) -> usize {
        OCTETS_MAX.saturating_sub(self.octets)
    }

    fn count_octets(&mut self) {
        let current = self.current.as_ref().map_or(0, Period::octets);
        self.octets = current + self.due.iter().map(Due::octets).sum::<usize>();
    }

    fn find(&self, report: &Due) -> Option<usize> {
        self.due.iter().position(|it| it.is_same(report))
    }

    fn remove(&mut self, report: &Due) {
        if let Some(place) = self.find(report) {
            let gone = self.due.remove(place);
            self.octets = self.octets.saturating_sub(gone.octets());
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Ledger {
    /// What lies in this directory, which is made when it is needed. What cannot be read is told and
    /// counts as nothing.
    #[must_use]
    pub fn open(disk: Disk, directory: PathBuf, clock: Clock, log: Log) -> Self {
        let files = Files::new(disk, directory);
        let (current, mut due) = files.read(&log);
        due.retain(|due| due.until > clock.now());
        due.iter_mut().for_each(|due| due.set_right(clock.now()));
        let mut state = State { current, due, ..State::default() };
        state.count_octets();
        let (state, writing) = (Mutex::new(state), Default::default());
        Self(Arc::new(Shared { files, clock, log, state, writing }))
    }

    /// Counts a session with a host of a domain.
    pub fn count(&self, domain: &Domain, policy: Policy, failure: Option<Failure>) {
        let now = self.0.clock.now();
        let mut state = lock(&self.0.state);
        self.close_over(&mut state, now);
        let room = state.room();
        let period = state.current.get_or_insert_with(|| Period::beginning(now));
        let took = period.count(domain, policy, failure, room);
        if took.is_none() && period.left_out == 1 {
            let line = self.0.log.line(Level::Warn, "tls-report-full");
            line.word("domains", period.domains.len()).word("domain", domain).send();
        }
        state.octets += took.unwrap_or_default();
        self.write_soon(&mut state);
    }

    /// Has the reports of a period that is over become due, each at a moment of its own.
    fn close_over(&self, state: &mut State, now: Timestamp) {
        if let Some(period) = &mut state.current {
            // It may have begun by a clock that was ahead.
            period.begins = period.begins.min(now);
        }
        let Some(period) = state.current.take_if(|period| period.ends() <= now) else { return };
        let ends = period.ends();
        self.close(state, period, ends, |random| {
            ends.after(Span::millis(random % SPREAD.as_millis()))
        });
    }

    fn close(
        &self,
        state: &mut State,
        period: Period,
        ends: Timestamp,
        next: impl Fn(u64) -> Timestamp,
    ) {
        let begins = period.begins;
        // Some may have been written down before a death, and the period not yet anew.
        let same = state.due.iter().filter(|it| it.begins == begins);
        let known: HashSet<Domain> = same.map(|it| it.domain.clone()).collect();
        for (domain, counted) in period.domains {
            if known.contains(&domain) {
                continue;
            }
            let next = next(self.0.clock.random());
            let until = next.after(TRIED_FOR);
            let (destinations, done, trouble) = Default::default();
            let due =
                Due { domain, begins, ends, counted, next, until, destinations, done, trouble };
            state.due.push(due);
        }
        let too_many = state.due.len().saturating_sub(DUE_MAX);
        state.due.drain(..too_many);
        state.count_octets();
        self.write_soon(state);
    }

    /// Ends the period that runs, and has what was counted about a domain, or all of it, become due at
    /// once; what waited for its moment as well. How many reports that are.
    pub fn hasten(&self, domain: Option<&Domain>) -> usize {
        let now = self.0.clock.now();
        let mut state = lock(&self.0.state);
        self.close_over(&mut state, now);
        let is_meant = |it: &Domain| domain.is_none_or(|domain| domain == it);
        if let Some(period) = state.current.take_if(|it| it.domains.keys().any(&is_meant)) {
            self.close(&mut state, period, now, |_| now.after(SPREAD));
        }
        let meant = state.due.iter_mut().filter(|due| is_meant(&due.domain));
        meant.map(|due| due.next = now).count()
    }

    /// Ends the period if its day is over; whether there are reports whose moment has come.
    #[must_use]
    pub fn has_ripe(&self) -> bool {
        let now = self.0.clock.now();
        let mut state = lock(&self.0.state);
        self.close_over(&mut state, now);
        state.due.iter_mut().for_each(|due| due.set_right(now));
        state.due.iter().any(|due| due.next <= now)
    }

    /// Reports whose moment has come, so many at most.
    #[must_use]
    pub fn ripe(&self, most: usize) -> Vec<Due> {
        let now = self.0.clock.now();
        let mut state = lock(&self.0.state);
        self.close_over(&mut state, now);
        state.due.iter().filter(|due| due.next <= now).take(most).cloned().collect()
    }

    /// Notes that a report needs nothing more, because every destination has it or there is none.
    pub fn settle(&self, report: &Due) {
        let mut state = lock(&self.0.state);
        state.remove(report);
        self.write_soon(&mut state);
    }

    /// Notes where a report goes, which destinations have it, and why others do not; it is tried again,
    /// or, if it was long enough or there is no room for it any more, given up: then false.
    pub fn postpone(&self, mut report: Due, trouble: &str) -> bool {
        report.next = self.0.clock.now().after(TRIED_EVERY);
        report.trouble = Some(trouble.chars().take(TROUBLE_CHARACTERS_MAX).collect());
        let mut state = lock(&self.0.state);
        let place = state.find(&report).filter(|_| report.next < report.until);
        state.remove(&report);
        if report.octets() > state.room() {
            // The domain is asked anew then.
            (report.destinations, report.trouble) = Default::default();
        }
        let place = place.filter(|_| report.octets() <= state.room());
        if let Some(place) = place {
            state.octets += report.octets();
            state.due.insert(place, report);
        }
        self.write_soon(&mut state);
        place.is_some()
    }

    /// The period that runs, and the reports that wait.
    #[must_use]
    pub fn list(&self) -> (Option<Period>, Vec<Due>) {
        let now = self.0.clock.now();
        let mut state = lock(&self.0.state);
        self.close_over(&mut state, now);
        (state.current.clone(), state.due.clone())
    }

    /// Writes what is not written yet.
    pub async fn keep(&self) {
        if lock(&self.0.state).is_written_soon {
            self.write().await;
        }
    }

    fn write_soon(&self, state: &mut State) {
        if std::mem::replace(&mut state.is_written_soon, true) {
            return;
        }
        let ledger = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            ledger.keep().await;
        });
    }

    async fn write(&self) {
        let _turn = self.0.writing.lock().await;
        let (current, due) = {
            let mut state = lock(&self.0.state);
            state.is_written_soon = false;
            (state.current.clone(), state.due.clone())
        };
        let files = self.0.files.clone();
        let writing = tokio::task::spawn_blocking(move || files.write(current.as_ref(), &due));
        if let Err(error) = writing.await.map_err(io::Error::other).flatten() {
            let line = self.0.log.line(Level::Error, "tls-report-not-kept");
            line.word("directory", self.0.files.directory()).text("error", error).send();
        }
    }
}

/// A report as it is sent: packed (RFC 1952).
///
/// # Errors
///
/// None in practice: it is packed in memory.
pub fn pack(json: &str) -> io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(json.as_bytes())?;
    packer.finish()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
