//! Writes files into a Drop directory, many for each sync of the directory.
//!
//! Deliveries put jobs into a list. A few writers, started when there is work and gone when there
//! is none, take what has gathered, write all files, sync each, rename all, sync the directory once
//! and answer. Several at a time let the file system join their syncs.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailroot_common::units::{ByteSize, Timestamp};
use tokio::sync::oneshot;

use super::usage::Usage;
use super::{DropError, Format, Settings};
use crate::clock::Clock;
use crate::directory::{Directory, FileKind};

/// How many writers may work at once.
const WRITERS_MAX: usize = 4;
/// How many files share one sync of the directory.
const BATCH_MAX: usize = 64;
/// `mailroot-drop`, the directory's group, reads; nobody else does.
const FILE_MODE: u32 = 0o640;
/// A half-written file that did not change for this long, in milliseconds, is litter.
const LITTER_MILLIS: u64 = 3_600_000;

/// One file to be made.
pub(super) struct Job {
    pub(super) temporary: String,
    pub(super) name: String,
    pub(super) content: Content,
    pub(super) answer: oneshot::Sender<Result<(), DropError>>,
}

/// What the file is to hold.
pub(super) enum Content {
    /// All of it.
    Octets(Vec<u8>),
    /// What is written already, and the rest.
    Partial(Partial, Vec<u8>),
}

/// A file of which the front is written.
#[derive(Debug)]
pub(super) struct Partial {
    file: File,
    path: PathBuf,
}

/// See the module.
pub(super) struct Writer {
    settings: Settings,
    clock: Clock,
    waiting: Mutex<Waiting>,
    usage: Mutex<Usage>,
    /// Whether what an earlier run left half-written was looked for.
    was_swept: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    writers: usize,
}

/// The directories of a batch: where files are written, and where they end.
struct Target {
    temporary: Directory,
    /// Absent where both are the same.
    last: Option<Directory>,
    /// Where readers put what they have seen, which counts for the quota.
    seen: Option<Directory>,
}

impl Target {
    fn last(&self) -> &Directory {
        self.last.as_ref().unwrap_or(&self.temporary)
    }

    fn counted(&self) -> Vec<&Directory> {
        [Some(self.last()), self.seen.as_ref()].into_iter().flatten().collect()
    }
}

impl Writer {
    pub(super) fn new(settings: Settings, clock: Clock) -> Self {
        let was_swept = AtomicBool::new(false);
        Self { settings, clock, waiting: Mutex::default(), usage: Mutex::default(), was_swept }
    }

    /// Adds a job. Returns a writer to be run if one more is useful.
    pub(super) fn enqueue(self: &Arc<Self>, job: Job) -> Option<Arc<Self>> {
        let mut waiting = lock(&self.waiting);
        waiting.jobs.push(job);
        if waiting.writers == WRITERS_MAX {
            return None;
        }
        waiting.writers += 1;
        Some(Arc::clone(self))
    }

    /// Writes batches until no job waits.
    pub(super) fn write_until_idle(&self) {
        loop {
            let batch: Vec<Job> = {
                let mut waiting = lock(&self.waiting);
                let count = waiting.jobs.len().min(BATCH_MAX);
                if count == 0 {
                    waiting.writers -= 1;
                    return;
                }
                waiting.jobs.drain(..count).collect()
            };
            self.write_batch(batch);
        }
    }

    fn write_batch(&self, batch: Vec<Job>) {
        let target = match self.open() {
            Ok(target) => target,
            Err(error) => {
                for job in batch {
                    // A delivery that nobody waits for any more is done again later.
                    let _ = job.answer.send(Err(error.clone()));
                }
                return;
            }
        };
        let mut written = Vec::with_capacity(batch.len());
        for Job { temporary, name, content, answer } in batch {
            match self.write(&target, &temporary, content) {
                Ok(file) => written.push((file, temporary, name, answer)),
                Err(error) => self.fail(&target, &temporary, answer, error),
            }
        }
        let mut renamed = Vec::with_capacity(written.len());
        for (file, temporary, name, answer) in written {
            let (from, to) = (OsStr::new(&temporary), OsStr::new(&name));
            let done = file
                .sync_all()
                .and_then(|()| target.temporary.replace(from, target.last(), to))
                .map_err(|source| write_error(target.last(), &name, source));
            match done {
                Ok(()) => renamed.push((name, answer)),
                Err(error) => self.fail(&target, &temporary, answer, error),
            }
        }
        if renamed.is_empty() {
            return;
        }
        let synced = target.last().sync();
        for (name, answer) in renamed {
            let result = match &synced {
                Ok(()) => Ok(()),
                Err(error) => {
                    let source = io::Error::new(error.kind(), error.to_string());
                    Err(write_error(target.last(), &name, source))
                }
            };
            let _ = answer.send(result);
        }
    }

    fn fail(
        &self,
        target: &Target,
        temporary: &str,
        answer: oneshot::Sender<Result<(), DropError>>,
        error: DropError,
    ) {
        // If it cannot be removed it is a dot-file that the next try replaces.
        let _ = target.temporary.remove(OsStr::new(temporary));
        if !matches!(error, DropError::Quota { .. }) {
            // What was claimed and not written must not count for ever.
            *lock(&self.usage) = Usage::default();
        }
        let _ = answer.send(Err(error));
    }

    fn write(&self, target: &Target, temporary: &str, content: Content) -> Result<File, DropError> {
        let trouble = |source| write_error(&target.temporary, temporary, source);
        let (mut file, rest) = match content {
            Content::Octets(octets) => {
                self.claim(target, octets.len() as u64)?;
                (target.temporary.create(temporary, FILE_MODE).map_err(trouble)?, octets)
            }
            // Its place was claimed when it began.
            Content::Partial(Partial { file, .. }, rest) => (file, rest),
        };
        file.write_all(&rest).map_err(trouble)?;
        Ok(file)
    }

    fn claim(&self, target: &Target, octets: u64) -> Result<(), DropError> {
        let Some(quota) = self.settings.quota else { return Ok(()) };
        let claimed = lock(&self.usage).claim(
            &target.counted(),
            octets,
            quota.as_u64(),
            self.clock.elapsed(),
        );
        let path = self.settings.directory.clone();
        match claimed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(used)) => Err(DropError::Quota { path, used: ByteSize::bytes(used), quota }),
            Err(source) => Err(DropError::Directory { path, source: Arc::new(source) }),
        }
    }

    fn open(&self) -> Result<Target, DropError> {
        let open = || {
            let base = Directory::open(&self.settings.directory)?;
            if self.settings.format == Format::Eml {
                return Ok(Target { temporary: base, last: None, seen: None });
            }
            Ok(Target {
                temporary: base.shared("tmp")?,
                last: Some(base.shared("new")?),
                seen: Some(base.shared("cur")?),
            })
        };
        let opened = open().inspect(|target| {
            if !self.was_swept.swap(true, Ordering::Relaxed) {
                // What cannot be swept is only litter.
                let _ = sweep(&target.temporary, self.clock.now());
            }
        });
        opened.map_err(|source| DropError::Directory {
            path: self.settings.directory.clone(),
            source: Arc::new(source),
        })
    }

    /// Begins a file that is too large to be gathered; `size` is its length to be.
    pub(super) fn begin(&self, temporary: &str, size: u64) -> Result<Partial, DropError> {
        let target = self.open()?;
        self.claim(&target, size)?;
        let file = target
            .temporary
            .create(temporary, FILE_MODE)
            .map_err(|source| write_error(&target.temporary, temporary, source))?;
        Ok(Partial { file, path: target.temporary.path().join(temporary) })
    }

    /// Writes the next octets of such a file.
    pub(super) fn append(&self, partial: &mut Partial, octets: &[u8]) -> Result<(), DropError> {
        partial.file.write_all(octets).map_err(|source| DropError::Write {
            path: partial.path.clone(),
            source: Arc::new(source),
        })
    }
}

/// Removes files that a crash left half-written and no delivery replaced since.
fn sweep(directory: &Directory, now: Timestamp) -> io::Result<()> {
    let mut litter = Vec::new();
    directory.each_name(|name| {
        let is_ours = name.to_str().is_some_and(|n| n.starts_with('.') && n.ends_with(".tmp"));
        // What vanished in the meantime is swept.
        if is_ours
            && let Ok(facts) = directory.facts(&name)
            && facts.kind == FileKind::Regular
            && now.as_millis().saturating_sub(facts.changed_millis) > LITTER_MILLIS
        {
            litter.push(name);
        }
        true
    })?;
    litter.iter().try_for_each(|name| directory.remove(name))
}

fn write_error(directory: &Directory, name: &str, source: io::Error) -> DropError {
    DropError::Write { path: directory.path().join(name), source: Arc::new(source) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn litter_goes_and_everything_else_stays() {
        let root = tempfile::tempdir().unwrap();
        for name in [".000000000001.tmp", "a.eml", ".hidden"] {
            std::fs::write(root.path().join(name), "x").unwrap();
        }
        let directory = Directory::open(root.path()).unwrap();
        let now = Clock::real().now();
        sweep(&directory, now).unwrap();
        assert!(root.path().join(".000000000001.tmp").exists(), "it may be in use");
        sweep(&directory, Timestamp::from_millis(now.as_millis() + 2 * LITTER_MILLIS)).unwrap();
        assert!(!root.path().join(".000000000001.tmp").exists());
        assert!(root.path().join("a.eml").exists() && root.path().join(".hidden").exists());
    }
}
