//! Where log lines go. Rooms never wait for the log: lines gather in memory, one thread writes them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::line::{Format, Level, Line};
use crate::clock::Clock;

/// What may wait to be written; beyond it lines are counted and dropped, mail goes on.
const WAITING_OCTETS_MAX: usize = 8 << 20;
/// How long lines gather before they are written, so that a busy server does not pay for a write and
/// two changes of thread with each of them. An error waits for nothing.
const GATHERING: Duration = Duration::from_millis(5);
/// So many octets are written at once.
const GATHERED_OCTETS: usize = 64 << 10;

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file of `logging.file`.
    #[error("cannot open the log file {}: check the directory and its mode", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// Where lines are written.
#[derive(Clone, Debug)]
pub enum Sink {
    /// Standard output; under systemd each line begins with its severity, as the journal wants it.
    Stdout {
        /// Whether standard output is the journal.
        journal: bool,
    },
    /// A file, appended to; opened again by [`Log::reopen`].
    File(PathBuf),
    /// Memory, for tests.
    Memory(Arc<Mutex<String>>),
}

impl Sink {
    /// What a memory sink holds; empty for the others.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Memory(text) => lock(text).clone(),
            Self::Stdout { .. } | Self::File(_) => String::new(),
        }
    }
}

/// The handle to the log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    format: Format,
    level: Level,
    sink: Sink,
    clock: Clock,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    dropped: u64,
    /// What waits is to be written now.
    urgent: bool,
    reopen: bool,
    closing: bool,
}

impl Waiting {
    /// Whether the writer is to wait no longer.
    const fn is_pressed(&self) -> bool {
        self.urgent || self.reopen || self.closing
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("sink", &self.0.sink).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the sink and starts the thread that writes to it.
    ///
    /// # Errors
    ///
    /// [`LogError`], naming the file.
    pub fn open(sink: Sink, format: Format, level: Level, clock: Clock) -> Result<Self, LogError> {
        let target = Target::open(&sink)?;
        let log = Self::inner(sink, format, level, clock);
        let inner = Arc::clone(&log.0);
        let writer = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || inner.write_until_closed(target))
            .map_err(LogError::Thread)?;
        *lock(&log.0.writer) = Some(writer);
        Ok(log)
    }

    /// A log that tests can read: lines stand in the sink as soon as they are sent.
    #[must_use]
    pub fn captured(format: Format, level: Level, clock: Clock) -> (Self, Sink) {
        let sink = Sink::Memory(Arc::default());
        (Self::inner(sink.clone(), format, level, clock), sink)
    }

    /// A log for tests that do not read it.
    #[must_use]
    pub fn quiet() -> Self {
        Self::captured(Format::Logfmt, Level::Error, Clock::real()).0
    }

    fn inner(sink: Sink, format: Format, level: Level, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            format,
            level,
            sink,
            clock,
            waiting: Mutex::default(),
            wake: Condvar::new(),
            writer: Mutex::default(),
        }))
    }

    /// Begins a line; see [`Line`].
    pub fn line(&self, level: Level, event: &str) -> Line<'_> {
        let head = (level <= self.0.level).then(|| (self.0.format, self.0.clock.now()));
        Line::begin(self, level, event, head)
    }

    pub(super) fn write(&self, level: Level, line: &str) {
        if let Sink::Memory(text) = &self.0.sink {
            lock(text).push_str(line);
            return;
        }
        let mut waiting = lock(&self.0.waiting);
        if waiting.text.len() + line.len() > WAITING_OCTETS_MAX {
            waiting.dropped += 1;
            return;
        }
        let was_empty = waiting.text.is_empty();
        if let Sink::Stdout { journal: true } = self.0.sink {
            waiting.text.extend_from_slice(&[b'<', level.severity() as u8, b'>']);
        }
        waiting.text.extend_from_slice(line.as_bytes());
        let urgent = level == Level::Error || waiting.text.len() >= GATHERED_OCTETS;
        let newly_urgent = urgent && !std::mem::replace(&mut waiting.urgent, true);
        drop(waiting);
        if was_empty || newly_urgent {
            self.0.wake.notify_one();
        }
    }

    /// Opens the log file again, after it was moved away.
    pub fn reopen(&self) {
        lock(&self.0.waiting).reopen = true;
        self.0.wake.notify_one();
    }

    /// Writes what waits and ends the thread. Lines sent later are lost.
    pub fn close(&self) {
        lock(&self.0.waiting).closing = true;
        self.0.wake.notify_one();
        if let Some(writer) = lock(&self.0.writer).take() {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }
}

impl Inner {
    fn write_until_closed(&self, mut target: Target) {
        let mut text = Vec::new();
        loop {
            let (dropped, reopen, closing) = {
                let mut waiting = lock(&self.waiting);
                while waiting.text.is_empty() && !waiting.is_pressed() {
                    waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                let gathers = |waiting: &mut Waiting| !waiting.is_pressed();
                let gathered = self.wake.wait_timeout_while(waiting, GATHERING, gathers);
                waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
                waiting.urgent = false;
                text.clear();
                std::mem::swap(&mut text, &mut waiting.text);
                let dropped = std::mem::take(&mut waiting.dropped);
                (dropped, std::mem::take(&mut waiting.reopen), waiting.closing)
            };
            if dropped > 0 {
                let note = format!("event=log-dropped level=warn lines={dropped}\n");
                text.extend_from_slice(note.as_bytes());
            }
            // A log that cannot be written must not stop mail; there is nobody left to tell.
            let _ = target.write(&text);
            if reopen && let Ok(fresh) = Target::open(&self.sink) {
                target = fresh;
            }
            if closing {
                return;
            }
        }
    }
}

enum Target {
    Stdout(io::Stdout),
    File(File),
    None,
}

impl Target {
    fn open(sink: &Sink) -> Result<Self, LogError> {
        match sink {
            Sink::Stdout { .. } => Ok(Self::Stdout(io::stdout())),
            Sink::Memory(_) => Ok(Self::None),
            Sink::File(path) => OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o640)
                .open(path)
                .map(Self::File)
                .map_err(|source| LogError::Open { path: path.clone(), source }),
        }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                stdout.write_all(text)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(text),
            Self::None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_reach_the_file_and_a_moved_file_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Log::open(Sink::File(path.clone()), Format::Logfmt, Level::Info, Clock::real());
        let log = log.unwrap();
        log.line(Level::Info, "one").send();
        log.close();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "event=one\n");
        let missing = Sink::File(dir.path().join("none/log"));
        let error = Log::open(missing, Format::Logfmt, Level::Info, Clock::real()).unwrap_err();
        assert!(error.to_string().contains("none/log"));
    }
}
