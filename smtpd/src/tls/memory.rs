//! Hosts that have proved who they are, so that they are not believed with less afterwards.
//!
//! Most domains publish no policy. That a host has a certificate for its name is seen from the first
//! connection, and whoever takes the offer of TLS away from a later one is told apart by that. What is
//! remembered costs a look at a map for each connection; it is written in the background, so that the
//! last seconds before a crash may be missing. Number and time are bounded, and so is how many hosts that
//! count an hour may push out: their names are often a stranger's choice.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::units::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use smtpd_core::route::crowd::{self, Door, Push, Standing};

use crate::clock::Clock;
use crate::disk::Disk;
use crate::observe::{Level, Log};

/// Hosts remembered.
const HOSTS_MAX: usize = 20_000;
/// Of those that count, so many are pushed out in an hour.
const PUSHED_MAX: u32 = 200;
/// The largest file that is read: as many of the longest names.
const FILE_OCTETS_MAX: u64 = 16 * 1024 * 1024;
/// The longest that a host may count: `tls.memory_for`.
const COUNTS_MAX: Span = Span::days(366);
/// How long a host that was seen again is not news.
const NEWS: Span = Span::hours(1);
/// How long news gather before they are written.
const GATHER: Duration = Duration::from_secs(5);

/// What is remembered, for as long as the daemon runs and longer. Cheap to clone.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    disk: Disk,
    file: PathBuf,
    clock: Clock,
    log: Log,
    state: Mutex<State>,
    /// How often a host came or went.
    changes: AtomicU64,
    /// Held by whoever writes, so that what is older never replaces what is newer.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Domain, Seen>,
    door: Door,
    /// Somebody writes them soon.
    is_written_soon: bool,
}

/// When a host proved who it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// First.
    pub first: Timestamp,
    /// Last, within an hour.
    pub last: Timestamp,
    /// To whom: what `tls.trust` was.
    pub trust: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    host: Domain,
    #[serde(flatten)]
    seen: Seen,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

impl Memory {
    /// What lies in this file. One that cannot be read is told and counts as empty.
    #[must_use]
    pub fn open(disk: Disk, file: PathBuf, clock: Clock, log: Log) -> Self {
        let mut hosts = HashMap::new();
        match disk.read(&file, FILE_OCTETS_MAX) {
            Ok(octets) => {
                let lines = octets.split(|octet| *octet == b'\n');
                let lines = lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok());
                hosts.extend(lines.take(HOSTS_MAX).map(|Line { host, seen }| (host, seen)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let line = log.line(Level::Error, "tls-memory-lost").word("file", file.display());
                line.text("error", error).send();
            }
        }
        let state = Mutex::new(State { hosts, ..State::default() });
        let (changes, writing) = Default::default();
        Self(Arc::new(Shared { disk, file, clock, log, state, changes, writing }))
    }

    /// A host has proved who it is. Without room it is not remembered: `span` is for how long the others
    /// count.
    pub fn saw(&self, host: &Domain, trust: &str, span: Span) {
        let now = self.0.clock.now();
        let mut state = lock(&self.0.state);
        match state.hosts.get_mut(host) {
            Some(seen) if seen.trust == trust => {
                if now.since(seen.last) < NEWS {
                    return;
                }
                seen.last = now;
            }
            _ => {
                let is_known = state.hosts.contains_key(host);
                if !is_known && state.hosts.len() >= HOSTS_MAX && !self.make_room(&mut state, span)
                {
                    return;
                }
                let seen = Seen { first: now, last: now, trust: trust.to_owned() };
                state.hosts.insert(host.clone(), seen);
                self.0.changes.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.write_soon(&mut state);
    }

    /// Forgets whoever is worth least; false if too many went in this hour.
    fn make_room(&self, state: &mut State, span: Span) -> bool {
        let now = self.0.clock.now();
        let standing = |seen: &Seen| Standing {
            is_over: now.since(seen.last) >= span,
            since: seen.first,
            used: seen.last,
        };
        let all = state.hosts.iter().map(|(host, seen)| (host, standing(seen)));
        let Some((host, standing)) = crowd::least(all) else { return true };
        let host = host.clone();
        let push = match standing.is_over {
            true => Push::Allowed,
            false => state.door.push(now, PUSHED_MAX),
        };
        if push == Push::JustFull {
            let line = self.0.log.line(Level::Warn, "tls-memory-full");
            line.word("hosts", HOSTS_MAX).send();
        }
        push == Push::Allowed && state.hosts.remove(&host).is_some()
    }

    /// When a host last proved who it is, if it counts still.
    #[must_use]
    pub fn remembers(&self, host: &Domain, trust: &str, span: Span) -> Option<Timestamp> {
        let now = self.0.clock.now();
        let state = lock(&self.0.state);
        let seen = state.hosts.get(host).filter(|seen| seen.trust == trust)?;
        (now.since(seen.last) < span).then_some(seen.last)
    }

    /// Everything, by name.
    #[must_use]
    pub fn list(&self) -> Vec<(Domain, Seen)> {
        let hosts = lock(&self.0.state).hosts.clone();
        let mut hosts: Vec<(Domain, Seen)> = hosts.into_iter().collect();
        hosts.sort_by(|a, b| a.0.cmp(&b.0));
        hosts
    }

    /// Forgets a host durably; what was remembered of it.
    ///
    /// # Errors
    ///
    /// The system's: it is forgotten until the daemon ends.
    pub async fn forget(&self, host: &Domain) -> std::io::Result<Option<Seen>> {
        let seen = lock(&self.0.state).hosts.remove(host);
        if seen.is_some() {
            self.0.changes.fetch_add(1, Ordering::Relaxed);
            self.write().await?;
        }
        Ok(seen)
    }

    /// Writes what is not written yet.
    pub async fn settle(&self) {
        let is_news = lock(&self.0.state).is_written_soon;
        if !is_news {
            return;
        }
        if let Err(error) = self.write().await {
            let line = self.0.log.line(Level::Error, "tls-memory-not-kept");
            line.word("file", self.0.file.display()).text("error", error).send();
        }
    }

    fn write_soon(&self, state: &mut State) {
        if std::mem::replace(&mut state.is_written_soon, true) {
            return;
        }
        let memory = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(GATHER).await;
            memory.settle().await;
        });
    }

    async fn write(&self) -> std::io::Result<()> {
        let _turn = self.0.writing.lock().await;
        let hosts: Vec<Line> = {
            let mut state = lock(&self.0.state);
            state.is_written_soon = false;
            let now = self.0.clock.now();
            state.hosts.retain(|_, seen| now.since(seen.last) < COUNTS_MAX);
            let lines = state.hosts.iter();
            lines.map(|(host, seen)| Line { host: host.clone(), seen: seen.clone() }).collect()
        };
        let shared = Arc::clone(&self.0);
        let writing = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            for line in &hosts {
                serde_json::to_writer(&mut text, line)?;
                text.push(b'\n');
            }
            shared.disk.replace(&shared.file, &shared.file.with_extension("new"), &text)
        });
        writing.await.map_err(std::io::Error::other)?
    }
}

/// What is remembered, by the settings in force. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recall {
    memory: Memory,
    trust: Arc<str>,
    span: Span,
}

impl Recall {
    /// Hosts count for a span, if the same authorities were trusted.
    #[must_use]
    pub fn new(memory: Memory, trust: &str, span: Span) -> Self {
        Self { memory, trust: trust.into(), span }
    }

    /// A host has proved who it is.
    pub fn saw(&self, host: &Domain) {
        self.memory.saw(host, &self.trust, self.span);
    }

    /// How often a host came or went, as long as the daemon runs.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.memory.0.changes.load(Ordering::Relaxed)
    }

    /// Until when a host is to prove who it is, if it did before.
    #[must_use]
    pub fn until(&self, host: &Domain) -> Option<Timestamp> {
        self.memory.remembers(host, &self.trust, self.span).map(|last| last.after(self.span))
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::path::Path;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_763_000_000_000);

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn open(place: &Path, clock: &Clock) -> Memory {
        Memory::open(Disk::Real, place.join("tls-hosts"), clock.clone(), Log::quiet())
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_remembered_over_a_restart_and_for_as_long_as_that_counts() {
        let place = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(START, 1);
        let memory = open(place.path(), &clock);
        let (host, month) = (domain("mx.test"), Span::days(30));
        assert_eq!(memory.remembers(&host, "system", month), None);
        memory.saw(&host, "system", month);
        memory.settle().await;

        let again = open(place.path(), &clock);
        assert_eq!(again.remembers(&host, "system", month), Some(START));
        assert_eq!(again.remembers(&host, "/etc/other.pem", month), None);
        tokio::time::advance(month.as_duration()).await;
        assert_eq!(again.remembers(&host, "system", month), None);
        again.saw(&host, "system", month);
        assert!(again.remembers(&host, "system", month).is_some());
        assert_eq!(again.list()[0].1.first, START);
        assert!(again.forget(&host).await.unwrap().is_some());
        assert!(again.forget(&host).await.unwrap().is_none());
        assert_eq!(open(place.path(), &clock).list(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded_and_what_is_damaged_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let clock = Clock::simulated(START, 1);
        let memory = open(place.path(), &clock);
        let day = Span::days(1);
        memory.saw(&domain("friend.test"), "system", day);
        tokio::time::advance(day.as_duration()).await;
        memory.saw(&domain("friend.test"), "system", Span::days(30));
        for number in 1..HOSTS_MAX {
            memory.saw(&domain(&format!("h{number}.test")), "system", day);
        }
        // A flood pushes out only so many newcomers, and nobody who came back after a day.
        tokio::time::advance(Duration::from_hours(2)).await;
        for number in 0..1_000 {
            memory.saw(&domain(&format!("flood{number}.test")), "system", Span::days(30));
        }
        let list = memory.list();
        assert_eq!(list.len(), HOSTS_MAX);
        let count = |word: &str| list.iter().filter(|it| it.0.as_str().starts_with(word)).count();
        assert_eq!((count("flood"), count("friend")), (PUSHED_MAX as usize, 1));
        tokio::time::advance(Duration::from_hours(1)).await;
        memory.saw(&domain("later.test"), "system", Span::days(30));
        assert!(memory.remembers(&domain("later.test"), "system", day).is_some());
        // Those that do not count any more make room without end.
        tokio::time::advance(Duration::from_hours(50)).await;
        for number in 0..1_000 {
            memory.saw(&domain(&format!("late{number}.test")), "system", day);
        }
        assert!(memory.remembers(&domain("late999.test"), "system", day).is_some());
        assert_eq!(memory.list().len(), HOSTS_MAX);
        let line = r#"{"host":"a.test","first":"2026-01-01T00:00:00Z","last":"x","trust":"y"}"#;
        std::fs::write(place.path().join("tls-hosts"), format!("{line}\n{{\n\n")).unwrap();
        assert_eq!(open(place.path(), &clock).list(), []);
    }
}
