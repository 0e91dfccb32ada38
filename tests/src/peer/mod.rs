//! A remote server that does what a test tells it to: accepts, refuses, defers, falls silent, vanishes.
//!
//! It reads strictly: only CRLF ends a line, only CRLF.CRLF a body, and it counts what an honest sender
//! never sends (bare CR, bare LF, lines over 998 octets). What it accepted is kept octet for octet.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::talk::Talk;
use crate::wait;
use session::Session;

mod session;

/// Where in a dialogue the peer is asked what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Before the greeting.
    Connect,
    /// EHLO or HELO.
    Hello,
    /// MAIL.
    Mail,
    /// RCPT, once for each.
    Rcpt,
    /// DATA, or the first BDAT.
    Data,
    /// The first octets of the body have come.
    Body,
    /// The body is complete.
    End,
    /// RSET, NOOP, QUIT and others.
    Other,
}

/// What the peer does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The ordinary positive reply.
    Accept,
    /// This reply, without its CRLF.
    Say(String),
    /// Closes the connection without a word.
    Close,
    /// Never answers; ends when the client gives up or the peer is stopped.
    Silence,
    /// Answers with lines that announce further lines, for as long as the client reads.
    Endless,
    /// Accepts and keeps what came, but closes before saying so.
    AcceptAndClose,
}

impl Answer {
    /// [`Self::Say`].
    #[must_use]
    pub fn say(text: &str) -> Self {
        Self::Say(text.to_owned())
    }
}

/// What the behaviour of a peer decides by.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Where in the dialogue.
    pub stage: Stage,
    /// The command line.
    pub line: &'a str,
    /// The number of the connection, from 0.
    pub session: usize,
    /// How often this stage was met before with the same line, in all sessions.
    pub before: usize,
    /// The recipients of this transaction so far, accepted ones only.
    pub recipients: &'a [String],
}

/// A message the peer accepted.
#[derive(Clone, Debug)]
pub struct Received {
    /// The arguments of MAIL, after `FROM:`.
    pub mail: String,
    /// The arguments of each RCPT it accepted, after `TO:`.
    pub rcpt: Vec<String>,
    /// The message, dots removed.
    pub octets: Vec<u8>,
    /// The hello line.
    pub hello: String,
    /// The number of the connection.
    pub session: usize,
    /// Whether it came by BDAT.
    pub chunked: bool,
}

impl Received {
    /// The return path without brackets and parameters.
    #[must_use]
    pub fn sender(&self) -> &str {
        bare(&self.mail)
    }

    /// The recipients without brackets and parameters.
    #[must_use]
    pub fn recipients(&self) -> Vec<&str> {
        self.rcpt.iter().map(|argument| bare(argument)).collect()
    }
}

fn bare(argument: &str) -> &str {
    argument.trim_start_matches('<').split('>').next().unwrap_or_default()
}

/// What no honest sender sends.
#[derive(Debug, Default)]
pub struct Audit {
    /// CR without LF.
    pub bare_cr: AtomicUsize,
    /// LF without CR.
    pub bare_lf: AtomicUsize,
    /// Lines of more than 998 octets before CRLF.
    pub long_lines: AtomicUsize,
}

type Behaviour = Box<dyn Fn(&Event) -> Answer + Send + Sync>;

struct Shared {
    behaviour: Mutex<Arc<Behaviour>>,
    keywords: Vec<String>,
    received: Mutex<Vec<Received>>,
    attempts: Mutex<Vec<(Instant, String)>>,
    seen: Mutex<HashMap<(Stage, String), usize>>,
    open: AtomicUsize,
    open_most: AtomicUsize,
    sessions: AtomicUsize,
    stopping: AtomicBool,
    audit: Audit,
}

/// A running peer; it stops when dropped.
pub struct Peer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// The keywords a peer offers unless told otherwise.
pub const KEYWORDS: [&str; 6] =
    ["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "SIZE 104857600"];

impl Peer {
    /// A peer that accepts everything.
    #[must_use]
    pub fn accepting(address: SocketAddr) -> Self {
        Self::start(address, |_| Answer::Accept)
    }

    /// A peer that asks `behaviour` at every stage.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        behaviour: impl Fn(&Event) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::offering(address, &KEYWORDS, behaviour)
    }

    /// [`Self::start`] with these EHLO keywords.
    ///
    /// # Panics
    ///
    /// When the address is taken.
    #[must_use]
    pub fn offering(
        address: SocketAddr,
        keywords: &[&str],
        behaviour: impl Fn(&Event) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address)
            .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(Box::new(behaviour))),
            keywords: keywords.iter().map(|&word| word.to_owned()).collect(),
            received: Mutex::default(),
            attempts: Mutex::default(),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            open_most: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            audit: Audit::default(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Serves a connection that a test has made, and whose server has become a client (ATRN). Returns when
    /// it is over.
    ///
    /// # Panics
    ///
    /// When a behaviour does.
    pub fn serve(&self, reversed: Talk) {
        let number = self.shared.sessions.fetch_add(1, Ordering::SeqCst);
        // As below.
        let _ended = Session::new(reversed.into_stream(), &self.shared, number)
            .and_then(|mut session| session.run());
    }

    /// Ends every silence; the peer takes no more connections.
    pub fn hush(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what the peer does from now on.
    ///
    /// # Panics
    ///
    /// When a session panicked.
    pub fn behave(&self, behaviour: impl Fn(&Event) -> Answer + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap() = Arc::new(Box::new(behaviour));
    }

    /// What it accepted so far.
    ///
    /// # Panics
    ///
    /// When a session panicked.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Calls `look` with what it accepted so far, without copying.
    ///
    /// # Panics
    ///
    /// When a session panicked.
    pub fn with_received<T>(&self, look: impl FnOnce(&[Received]) -> T) -> T {
        look(&self.shared.received.lock().unwrap())
    }

    /// Forgets all that came, for tests that go on for long.
    ///
    /// # Panics
    ///
    /// When a session panicked.
    pub fn forget(&self) {
        self.shared.received.lock().unwrap().clear();
        self.shared.attempts.lock().unwrap().clear();
        self.shared.seen.lock().unwrap().clear();
    }

    /// Waits until it accepted `count` messages.
    ///
    /// # Panics
    ///
    /// When it does not come to that.
    #[track_caller]
    pub fn await_received(&self, count: usize) -> Vec<Received> {
        wait::until(&format!("{count} messages at the peer"), || {
            let enough = self.with_received(|received| received.len() >= count);
            enough.then(|| self.received())
        })
    }

    /// The moments and lines of every MAIL command.
    ///
    /// # Panics
    ///
    /// When a session panicked.
    #[must_use]
    pub fn attempts(&self) -> Vec<(Instant, String)> {
        self.shared.attempts.lock().unwrap().clone()
    }

    /// How many connections came.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.sessions.load(Ordering::SeqCst)
    }

    /// The most connections that were open at once.
    #[must_use]
    pub fn most_open(&self) -> usize {
        self.shared.open_most.load(Ordering::SeqCst)
    }

    /// Requires that nothing came that no honest sender sends.
    ///
    /// # Panics
    ///
    /// When something did.
    #[track_caller]
    pub fn must_have_read_clean_lines(&self) {
        let audit = &self.shared.audit;
        let counts = [&audit.bare_cr, &audit.bare_lf, &audit.long_lines]
            .map(|count| count.load(Ordering::SeqCst));
        assert_eq!(counts, [0, 0, 0], "bare CR, bare LF, lines over 998 octets");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if it is gone already there is nobody to wake.
        let _woken = TcpStream::connect(self.address);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        std::thread::spawn(move || {
            let open = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
            shared.open_most.fetch_max(open, Ordering::SeqCst);
            let number = shared.sessions.fetch_add(1, Ordering::SeqCst);
            // A client that vanishes is what these tests are about.
            let _ended =
                Session::new(stream, &shared, number).and_then(|mut session| session.run());
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}
