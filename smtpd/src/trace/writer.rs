//! The one thread that packs events and writes blocks.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use smtpd_core::trace::block::Builder;

use super::files::{file_octets_max, hour};
use super::{GATHERED_OCTETS, Inner, Snapshot, Waiting, lock};
use crate::observe::Level;

/// How long events gather before they are packed, so that a busy server does not pay for two changes
/// of thread with each of them.
const GATHERING: Duration = Duration::from_millis(50);
/// How long packed-to-be events stay in memory before they are written as a small block.
const HOLDING: Duration = Duration::from_secs(5);
/// How often age and size are looked at where nothing happens.
const PRUNE_EVERY: Duration = Duration::from_mins(10);

/// The file being written.
struct Current {
    hour: String,
    path: PathBuf,
    file: File,
    octets: u64,
}

/// What the thread holds.
pub(super) struct Writer {
    inner: Arc<Inner>,
    builder: Builder,
    current: Option<Current>,
    /// Until when, in the clock's time, gathered events may stay in memory.
    seal_at: Option<Duration>,
    prune_at: Duration,
    /// Whether the log was told that nothing can be written.
    in_trouble: bool,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let prune_at = inner.clock.elapsed();
        let (builder, current, seal_at) = (Builder::default(), None, None);
        Self { inner, builder, current, seal_at, prune_at, in_trouble: false }
    }

    pub(super) fn run(mut self) {
        let mut octets = Vec::new();
        loop {
            let mut work = self.wait(std::mem::take(&mut octets));
            self.gather(&work.octets);
            for asking in work.asking.drain(..) {
                // Whoever does not wait any more needs no answer.
                let _ = asking.send(self.snapshot());
            }
            let now = self.inner.clock.elapsed();
            if !self.builder.is_empty()
                && (work.closing || self.seal_at.is_some_and(|at| at <= now))
            {
                self.seal();
            }
            if now >= self.prune_at {
                self.prune();
            }
            if work.closing {
                return;
            }
            octets = work.octets;
            octets.clear();
            // A burst that is over shall not hold its memory for ever.
            octets.shrink_to(4 * GATHERED_OCTETS);
        }
    }

    /// Waits for something to do, and takes it. `empty` is the buffer for what comes next.
    fn wait(&self, empty: Vec<u8>) -> Waiting {
        let elapsed = self.inner.clock.elapsed();
        let until = self.seal_at.unwrap_or(self.prune_at).max(elapsed);
        let idle = |waiting: &mut Waiting| waiting.octets.is_empty() && !waiting.is_pressed();
        let waiting = lock(&self.inner.waiting);
        let woken = self.inner.wake.wait_timeout_while(waiting, until - elapsed, idle);
        let mut waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        if !waiting.octets.is_empty() {
            let gathers = |waiting: &mut Waiting| !waiting.is_pressed();
            let gathered = self.inner.wake.wait_timeout_while(waiting, GATHERING, gathers);
            waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.inner.tally.events.fetch_add(std::mem::take(&mut waiting.events), Ordering::Relaxed);
        Waiting {
            octets: std::mem::replace(&mut waiting.octets, empty),
            asking: std::mem::take(&mut waiting.asking),
            closing: waiting.closing,
            ..Waiting::default()
        }
    }

    fn gather(&mut self, mut octets: &[u8]) {
        while self.builder.take(&mut octets) {
            if self.builder.is_full() {
                self.seal();
            }
        }
        if !self.builder.is_empty() && self.seal_at.is_none() {
            self.seal_at = Some(self.inner.clock.elapsed() + HOLDING);
        }
    }

    /// Writes what has gathered as a block; what cannot be written is lost and counted.
    fn seal(&mut self) {
        self.seal_at = None;
        let events = self.builder.events();
        let block = self.builder.seal();
        match self.write(&block) {
            Ok(()) => self.in_trouble = false,
            Err(error) => {
                self.inner.tally.dropped.fetch_add(events.into(), Ordering::Relaxed);
                self.complain(&error);
            }
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.in_trouble, true) {
            self.inner.log.line(Level::Warn, "trace-failed").word("error", error).send();
        }
    }

    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        let hour = hour(self.inner.clock.now());
        let most = file_octets_max(self.inner.settings.load().max_size);
        let fits = |current: &Current| current.hour == hour && current.octets < most;
        if !self.current.as_ref().is_some_and(fits) {
            self.current = None;
            self.prune();
            let (path, file) = self.inner.directory.create(&hour)?;
            self.current = Some(Current { hour, path, file, octets: 0 });
        }
        let Some(current) = &mut self.current else { return Ok(()) };
        match current.file.write_all(block) {
            Ok(()) => {
                current.octets += block.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a block must not stand before others.
                if current.file.set_len(current.octets).is_err() {
                    self.current = None;
                }
                Err(error)
            }
        }
    }

    fn prune(&mut self) {
        self.prune_at = self.inner.clock.elapsed() + PRUNE_EVERY;
        let settings = self.inner.settings.load_full();
        let now = self.inner.clock.now();
        if let Err(error) = self.inner.directory.prune(settings.keep, settings.max_size, now) {
            self.complain(&error);
        }
        if self.current.as_ref().is_some_and(|current| !current.path.exists()) {
            self.current = None;
        }
    }

    fn snapshot(&self) -> Snapshot {
        // A directory that cannot be read holds nothing that could be told.
        let found = self.inner.directory.list().unwrap_or_default();
        Snapshot {
            files: found.into_iter().map(|found| (found.path, found.size)).collect(),
            plain: self.builder.plain().to_vec(),
        }
    }
}
