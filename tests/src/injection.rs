//! Faults at a chosen call on files: the daemon is killed before it, or the call fails.
//!
//! The program `nth-call` does the work beside the daemon; here is who starts it and reads what it says.
//! Calls are counted from the moment it is attached, over all threads, below the spool only.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::program;
use crate::skip;
use crate::wait;

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process ends by SIGKILL, before the call is made.
    Kill,
    /// The call is not made and says EIO.
    InputOutput,
    /// The call is not made and says ENOSPC.
    NoSpace,
}

impl Fault {
    /// The word for `nth-call`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::InputOutput => "EIO",
            Self::NoSpace => "ENOSPC",
        }
    }
}

/// A call on a file of the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number among all of them, from 1.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// The file, relative to the spool.
    pub path: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call {}, {} {}", self.number, self.name, self.path)
    }
}

impl Call {
    /// Whether it makes something durable.
    #[must_use]
    pub fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }

    /// Reads `NUMBER NAME PATH`.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let number = words.next()?.parse().ok()?;
        let name = words.next()?.to_owned();
        Some(Self { number, name, path: words.next()?.to_owned() })
    }
}

#[derive(Debug, Default)]
struct Heard {
    attached: bool,
    ended: bool,
    calls: Vec<Call>,
    injected: Option<Call>,
}

/// A process whose calls are watched. It goes on alone when this is dropped.
pub struct Injection {
    tracer: Child,
    input: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
}

impl Injection {
    /// Attaches to the process `pid` and watches its calls below `folder`; `fault` happens at the call of
    /// this number.
    ///
    /// # Panics
    ///
    /// When it cannot be attached to.
    #[track_caller]
    #[must_use]
    pub fn attach(pid: u32, folder: &Path, fault: Option<(usize, Fault)>) -> Self {
        match Self::try_attach(pid, folder, fault) {
            Ok(injection) => injection,
            Err(reason) => panic!("cannot watch process {pid}: {reason}"),
        }
    }

    fn try_attach(pid: u32, folder: &Path, fault: Option<(usize, Fault)>) -> Result<Self, String> {
        let mut command = Command::new(program::ours("nth-call"));
        command.arg(pid.to_string()).arg(folder).env("RUST_BACKTRACE", "0");
        if let Some((number, fault)) = fault {
            command.arg(number.to_string()).arg(fault.word());
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut tracer = pipes.spawn().unwrap();
        let input = tracer.stdin.take();
        let output = BufReader::new(tracer.stdout.take().unwrap());
        let heard = Arc::new(Mutex::new(Heard::default()));
        let listening = Arc::clone(&heard);
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                listening.lock().unwrap().hear(&line);
            }
        });
        let mut injection = Self { tracer, input, heard, reader: Some(reader) };
        wait::until("the tracer", || {
            let ended = injection.tracer.try_wait().unwrap().is_some();
            (ended || injection.heard.lock().unwrap().attached).then_some(())
        });
        if !injection.heard.lock().unwrap().attached {
            // It ended; perhaps its last words were not heard yet.
            injection.detach();
        }
        if injection.heard.lock().unwrap().attached {
            return Ok(injection);
        }
        let mut words = String::new();
        let mut errors = injection.tracer.stderr.take().unwrap();
        errors.read_to_string(&mut words).unwrap_or_default();
        Err(words.trim().replace('\n', ": "))
    }

    /// The call at which the fault happened, if it did.
    ///
    /// # Panics
    ///
    /// When the reading thread panicked.
    #[must_use]
    pub fn injected(&self) -> Option<Call> {
        self.heard.lock().unwrap().injected.clone()
    }

    /// Whether the process is gone.
    ///
    /// # Panics
    ///
    /// When the reading thread panicked.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.heard.lock().unwrap().ended
    }

    /// Every call that was made so far.
    ///
    /// # Panics
    ///
    /// When the reading thread panicked.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.heard.lock().unwrap().calls.clone()
    }

    /// Lets the process go on alone. What was told of it until then is complete.
    ///
    /// # Panics
    ///
    /// When the tracer does not end.
    pub fn detach(&mut self) {
        drop(self.input.take());
        let Some(reader) = self.reader.take() else { return };
        wait::until("the tracer's end", || self.tracer.try_wait().unwrap());
        reader.join().unwrap();
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.detach();
    }
}

impl Heard {
    fn hear(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("call", rest)) => self.calls.extend(Call::parse(rest)),
            Some(("fault", rest)) => {
                self.injected = Call::parse(rest);
                self.calls.extend(self.injected.clone());
            }
            _ => {
                self.attached |= line == "attached";
                self.ended |= line == "ended";
            }
        }
    }
}

/// Whether calls can be injected here.
///
/// # Errors
///
/// The reason why not.
///
/// # Panics
///
/// When no process can be started at all.
pub fn possible() -> Result<(), String> {
    if !skip::root() {
        return Err("only root may look into the daemon".to_owned());
    }
    let mut idle = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let tried = Injection::try_attach(idle.id(), Path::new("/nowhere"), None);
    let result = tried.map(drop);
    drop(idle.stdin.take());
    wait::until("the end of cat", || idle.try_wait().unwrap());
    result
}
