//! Where log lines go. Rooms never wait for the log: lines gather in memory, one thread writes them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use mailroot_common::units::Timestamp;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::line::{Format, Head, Level, Line};
use super::style::{Raised, Sink, Style};
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
    /// What has the name of `logging.file` is a directory, a pipe or a device.
    #[error("the log file {} is no plain file: name one that is, or none that is there", .0.display())]
    NoFile(PathBuf),
    /// The key by which addresses are told apart cannot be read or kept.
    #[error("cannot keep the key of logging.addresses: hashed, {}", .path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory of `logging.w3c`.
    #[error("cannot write log files below {}: name a directory that the daemon may write to", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// No thread could be started.
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// The handle to the log, or to the part of it that is about one virtual server. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
    /// Whether what happens there is told at all; warnings and errors always are.
    speaks: Option<Arc<AtomicBool>>,
}

struct Inner {
    style: ArcSwap<Style>,
    /// A form that was asked for on the command line; it goes before the style's.
    form: Option<Format>,
    raised: ArcSwapOption<Raised>,
    servers: Mutex<BTreeMap<String, Arc<AtomicBool>>>,
    clock: Clock,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    writer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    dropped: u64,
    /// What was to be written before the log went elsewhere, and where it goes from then on.
    moved: Vec<(Vec<u8>, Target)>,
    /// What waits is to be written now.
    urgent: bool,
    closing: bool,
}

impl Waiting {
    /// What waits goes where it was to go, all that comes to this one.
    fn go_to(&mut self, target: Target) {
        let before = std::mem::take(&mut self.text);
        self.moved.push((before, target));
    }

    /// Whether the writer is to wait no longer.
    const fn is_pressed(&self) -> bool {
        self.urgent || self.closing || !self.moved.is_empty()
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("style", &self.inner.style.load()).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the sink and starts the thread that writes to it. `form` goes before the style's, also
    /// before that of later ones.
    ///
    /// # Errors
    ///
    /// [`LogError`], naming the file.
    pub fn open(style: Style, form: Option<Format>, clock: Clock) -> Result<Self, LogError> {
        let target = Target::open(&style.sink)?;
        let log = Self::with(style, form, clock);
        let writing = log.clone();
        let writer = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writing.write_until_closed(target))
            .map_err(LogError::Thread)?;
        *lock(&log.inner.writer) = Some(writer);
        Ok(log)
    }

    /// A log that tests can read: lines stand in the sink as soon as they are sent.
    #[must_use]
    pub fn captured(format: Format, level: Level, clock: Clock) -> (Self, Sink) {
        let sink = Sink::Memory(Arc::default());
        let style = Style { sink: sink.clone(), format, level, mask: None };
        (Self::with(style, None, clock), sink)
    }

    /// A log for tests that do not read it.
    #[must_use]
    pub fn quiet() -> Self {
        Self::captured(Format::Logfmt, Level::Error, Clock::real()).0
    }

    fn with(style: Style, form: Option<Format>, clock: Clock) -> Self {
        let inner = Inner {
            style: ArcSwap::from_pointee(style),
            form,
            raised: ArcSwapOption::empty(),
            servers: Mutex::default(),
            clock,
            waiting: Mutex::default(),
            wake: Condvar::new(),
            writer: Mutex::default(),
        };
        Self { inner: Arc::new(inner), speaks: None }
    }

    /// Goes by another style from now on. What was logged before goes where it was to go.
    ///
    /// # Errors
    ///
    /// [`LogError`], naming the file; nothing is changed then.
    pub fn set(&self, style: Style) -> Result<(), LogError> {
        let now = self.inner.style.load_full();
        // What tests read is read by them to the end.
        let style = match &now.sink {
            Sink::Memory(_) => Style { sink: now.sink.clone(), ..style },
            Sink::Stdout { .. } | Sink::File(_) => style,
        };
        let elsewhere = !now.sink.is_same(&style.sink);
        let target = elsewhere.then(|| Target::open(&style.sink)).transpose()?;
        let mut waiting = lock(&self.inner.waiting);
        if let Some(target) = target {
            waiting.go_to(target);
        }
        self.inner.style.store(Arc::new(style));
        drop(waiting);
        self.inner.wake.notify_one();
        Ok(())
    }

    /// Opens the log file again, after it was moved away. What was logged before goes where it was to go.
    ///
    /// # Errors
    ///
    /// [`LogError`], naming the file; the one that was moved away is written to then.
    pub fn reopen(&self) -> Result<(), LogError> {
        let sink = self.inner.style.load().sink.clone();
        if matches!(sink, Sink::File(_)) {
            let target = Target::open(&sink)?;
            let mut waiting = lock(&self.inner.waiting);
            // Whoever has changed it meanwhile has opened another.
            if self.inner.style.load().sink.is_same(&sink) {
                waiting.go_to(target);
            }
            drop(waiting);
            self.inner.wake.notify_one();
        }
        Ok(())
    }

    /// Whether the log could go by another style.
    ///
    /// # Errors
    ///
    /// [`LogError`], naming the file that cannot be opened.
    pub fn check(&self, style: &Style) -> Result<(), LogError> {
        let Sink::File(path) = &style.sink else { return Ok(()) };
        if self.inner.style.load().sink.is_same(&style.sink) {
            return Ok(());
        }
        // A link that leads nowhere yet is somebody's, and stays.
        let is_new = path.symlink_metadata().is_err();
        Target::open(&style.sink)?;
        if is_new {
            // What was only tried leaves nothing behind; an empty file harms nobody.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// How lines are written now, with the form that counts.
    #[must_use]
    pub fn style(&self) -> Style {
        let style = Style::clone(&self.inner.style.load());
        Style { format: self.inner.form.unwrap_or(style.format), ..style }
    }

    /// Lets more through for a while, or no longer.
    pub fn raise(&self, raised: Option<Raised>) {
        self.inner.raised.store(raised.map(Arc::new));
    }

    /// What is let through besides, while it is.
    #[must_use]
    pub fn raised(&self) -> Option<Arc<Raised>> {
        let now = self.inner.clock.now();
        self.inner.raised.load_full().filter(|raised| raised.until > now)
    }

    /// The log of a virtual server.
    #[must_use]
    pub fn of_server(&self, name: &str) -> Self {
        let mut servers = lock(&self.inner.servers);
        let speaks = servers.entry(name.to_owned());
        let speaks = speaks.or_insert_with(|| Arc::new(AtomicBool::new(true)));
        Self { inner: Arc::clone(&self.inner), speaks: Some(Arc::clone(speaks)) }
    }

    /// Whether a virtual server's log tells what happens; it tells what is wrong in any case.
    pub fn set_server(&self, name: &str, speaks: bool) {
        let log = self.of_server(name);
        if let Some(flag) = &log.speaks {
            flag.store(speaks, Ordering::Relaxed);
        }
    }

    /// Whether what happens at a virtual server is told at all.
    pub(super) fn tells_of(&self, name: &str) -> bool {
        let servers = lock(&self.inner.servers);
        servers.get(name).is_none_or(|speaks| speaks.load(Ordering::Relaxed))
    }

    /// The moment by the log's clock.
    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// A virtual server is no more.
    pub fn forget_server(&self, name: &str) {
        lock(&self.inner.servers).remove(name);
    }

    /// Begins a line; see [`Line`].
    pub fn line(&self, level: Level, event: &str) -> Line<'_> {
        let style = self.inner.style.load();
        let is_mute = |speaks: &Arc<AtomicBool>| !speaks.load(Ordering::Relaxed);
        let (mut wanted, mut client) = (level <= style.level, None);
        if !wanted && let Some(raised) = self.raised().filter(|raised| level <= raised.level) {
            (wanted, client) = (true, raised.client);
        }
        if level > Level::Warn && self.speaks.as_ref().is_some_and(is_mute) {
            wanted = false;
        }
        let head = wanted.then(|| self.head(&style, client));
        Line::begin(self, level, event, head)
    }

    fn head(&self, style: &Style, client: Option<mailroot_common::net::Network>) -> Head {
        Head {
            format: self.inner.form.unwrap_or(style.format),
            now: self.inner.clock.now(),
            dates: style.sink.wants_dates(),
            mask: style.mask.clone(),
            client,
        }
    }

    pub(super) fn write(&self, level: Level, line: &str) {
        let mut waiting = lock(&self.inner.waiting);
        let style = self.inner.style.load();
        if let Sink::Memory(text) = &style.sink {
            lock(text).push_str(line);
            return;
        }
        if waiting.text.len() + line.len() > WAITING_OCTETS_MAX {
            waiting.dropped += 1;
            return;
        }
        let was_empty = waiting.text.is_empty();
        if let Sink::Stdout { journal: true } = style.sink {
            waiting.text.extend_from_slice(&[b'<', level.severity() as u8, b'>']);
        }
        waiting.text.extend_from_slice(line.as_bytes());
        let urgent = level == Level::Error || waiting.text.len() >= GATHERED_OCTETS;
        let newly_urgent = urgent && !std::mem::replace(&mut waiting.urgent, true);
        drop(waiting);
        if was_empty || newly_urgent {
            self.inner.wake.notify_one();
        }
    }

    /// Writes what waits and ends the thread. Lines sent later are lost.
    pub fn close(&self) {
        lock(&self.inner.waiting).closing = true;
        self.inner.wake.notify_one();
        if let Some(writer) = lock(&self.inner.writer).take() {
            // A writer that panicked has nothing left to write.
            let _ = writer.join();
        }
    }

    fn write_until_closed(&self, mut target: Target) {
        let mut text = Vec::new();
        loop {
            let (moved, dropped, closing) = {
                let Inner { waiting, wake, .. } = &*self.inner;
                let mut waiting = lock(waiting);
                while waiting.text.is_empty() && !waiting.is_pressed() {
                    waiting = wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                }
                let gathers = |waiting: &mut Waiting| !waiting.is_pressed();
                let gathered = wake.wait_timeout_while(waiting, GATHERING, gathers);
                waiting = gathered.unwrap_or_else(PoisonError::into_inner).0;
                waiting.urgent = false;
                text.clear();
                std::mem::swap(&mut text, &mut waiting.text);
                let moved = std::mem::take(&mut waiting.moved);
                let dropped = std::mem::take(&mut waiting.dropped);
                (moved, dropped, waiting.closing)
            };
            for (before, next) in moved {
                // A log that cannot be written must not stop mail; there is nobody left to tell.
                let _ = target.write(&before);
                target = next;
            }
            // As above.
            let _ = target.write(&text);
            if dropped > 0 {
                // What is let through says nothing about lines that were, and are lost.
                let head = self.head(&self.inner.style.load(), None);
                let line = Line::begin(self, Level::Warn, "log-dropped", Some(head));
                line.word("lines", dropped).send();
            } else if closing {
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
            Sink::File(path) => open_file(path).map(Self::File),
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

/// Opens a plain file without ever waiting for who reads it, as a pipe would have it.
pub(super) fn open_file(path: &Path) -> Result<File, LogError> {
    let unopened = |source| LogError::Open { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o640);
    let nowhere = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    match options.custom_flags(nowhere.bits()).open(path) {
        Ok(file) if file.metadata().map_err(unopened)?.is_file() => Ok(file),
        Ok(_) => Err(LogError::NoFile(path.to_owned())),
        // Of a pipe that nobody reads, or a socket.
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            Err(LogError::NoFile(path.to_owned()))
        }
        Err(error) => Err(unopened(error)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use mailroot_common::net::Network;

    use super::*;

    fn style(path: &Path) -> Style {
        let sink = Sink::File(path.to_owned());
        Style { sink, format: Format::Logfmt, level: Level::Info, mask: None }
    }

    #[test]
    fn lines_reach_the_file_with_their_moment_and_another_file_is_gone_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("log"), dir.path().join("other"));
        let log = Log::open(style(&path), None, Clock::real()).unwrap();
        log.line(Level::Info, "one").send();
        log.set(Style { format: Format::Json, ..style(&other) }).unwrap();
        log.line(Level::Info, "two").send();
        assert!(log.set(style(&dir.path().join("none/log"))).is_err());
        log.line(Level::Debug, "hidden").send();
        log.close();
        let (first, second) =
            (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(&other).unwrap());
        assert!(first.starts_with("time=2") && first.ends_with("Z event=one\n"), "{first}");
        assert!(second.starts_with("{\"time\":") && second.contains("\"two\""), "{second}");
        assert_eq!((first.lines().count(), second.lines().count()), (1, 1));
        let missing = Log::open(style(&dir.path().join("none/log")), None, Clock::real());
        assert!(missing.unwrap_err().to_string().contains("none/log"));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_or_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        let log = Log::open(style(&path), None, Clock::real()).unwrap();
        log.line(Level::Info, "one").send();
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(log.reopen().unwrap_err().to_string().contains("/log:"));
        log.line(Level::Info, "two").send();
        std::fs::remove_dir(&path).unwrap();
        log.reopen().unwrap();
        log.line(Level::Info, "three").send();
        log.close();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert!(read(&moved).contains("two") && !read(&moved).contains("three"));
        assert!(read(&path).contains("three") && !read(&path).contains("two"));
    }

    #[test]
    fn lost_lines_are_told_whatever_the_level() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = Style { level: Level::Error, ..style(&path) };
        let log = Log::open(log, None, Clock::real()).unwrap();
        lock(&log.inner.waiting).dropped = 3;
        log.close();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(" event=log-dropped level=warn lines=3\n"), "{text}");
    }

    #[test]
    fn to_try_a_file_harms_nothing_and_waits_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (link, pipe) = (dir.path().join("link"), dir.path().join("pipe"));
        let log = Log::quiet();
        std::os::unix::fs::symlink(dir.path().join("later"), &link).unwrap();
        log.check(&style(&link)).unwrap();
        assert!(link.symlink_metadata().is_ok());
        log.check(&style(&dir.path().join("new"))).unwrap();
        assert!(!dir.path().join("new").exists());
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(log.check(&style(&pipe)), Err(LogError::NoFile(_))));
        let _reader =
            OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&pipe);
        assert!(matches!(log.check(&style(&pipe)), Err(LogError::NoFile(_))));
        assert!(pipe.symlink_metadata().is_ok());
    }

    #[test]
    fn a_server_that_is_not_logged_still_tells_what_is_wrong() {
        let (log, sink) = Log::captured(Format::Logfmt, Level::Debug, Clock::real());
        let lan = log.of_server("lan");
        log.set_server("lan", false);
        lan.line(Level::Info, "hidden").send();
        lan.line(Level::Warn, "told").send();
        log.of_server("other").line(Level::Info, "other").send();
        log.set_server("lan", true);
        lan.line(Level::Info, "again").send();
        assert_eq!(sink.text(), "event=told level=warn\nevent=other\nevent=again\n");
    }

    #[test]
    fn more_is_told_for_a_while_of_one_client() {
        let clock = Clock::real();
        let (log, sink) = Log::captured(Format::Logfmt, Level::Info, clock.clone());
        let until = |millis| Timestamp::from_millis(clock.now().as_millis() + millis);
        let client = Network::parse("10.1.0.0/16").ok();
        log.raise(Some(Raised { level: Level::Debug, until: until(60_000), client }));
        for address in ["10.1.2.3", "10.2.2.3"] {
            log.line(Level::Debug, "step").word("client", address).send();
            log.line(Level::Info, "usual").word("client", address).send();
        }
        log.line(Level::Debug, "nobody").send();
        log.raise(Some(Raised { level: Level::Debug, until: until(0), client: None }));
        assert!(log.raised().is_none());
        log.line(Level::Debug, "late").send();
        assert_eq!(
            sink.text(),
            "event=step level=debug client=10.1.2.3\nevent=usual client=10.1.2.3\n\
             event=usual client=10.2.2.3\n"
        );
    }
}
