//! A remote server that does what a test tells it to: accepts, refuses, defers, falls silent, vanishes.
//!
//! It reads strictly: only CRLF ends a line, only CRLF.CRLF a body, and it counts what an honest sender
//! never sends (bare CR, bare LF, lines over 998 octets). What it accepted is kept octet for octet.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::wait;

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

struct Session<'a> {
    shared: &'a Shared,
    number: usize,
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    hello: String,
    mail: Option<String>,
    rcpt: Vec<String>,
    chunks: Vec<u8>,
}

/// The connection is over, by our wish or the client's.
struct Over;

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl<'a> Session<'a> {
    fn new(stream: TcpStream, shared: &'a Shared, number: usize) -> Result<Self, Over> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        let reader = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Self {
            shared,
            number,
            stream,
            reader,
            hello: String::new(),
            mail: None,
            rcpt: Vec::new(),
            chunks: Vec::new(),
        })
    }

    fn ask(&self, stage: Stage, line: &str) -> Answer {
        let before = {
            let mut seen = self.shared.seen.lock().unwrap();
            let count = seen.entry((stage, line.to_owned())).or_default();
            *count += 1;
            *count - 1
        };
        let behaviour = Arc::clone(&self.shared.behaviour.lock().unwrap());
        behaviour(&Event { stage, line, session: self.number, before, recipients: &self.rcpt })
    }

    /// Carries out an answer; true if it was positive.
    fn answer(&mut self, answer: Answer, positive: &str) -> Result<bool, Over> {
        match answer {
            Answer::Accept => {
                self.write(positive)?;
                Ok(true)
            }
            Answer::Say(text) => {
                self.write(&text)?;
                if text.starts_with("421") {
                    return Err(Over);
                }
                Ok(text.starts_with(['2', '3']))
            }
            Answer::Close | Answer::AcceptAndClose => Err(Over),
            Answer::Silence => {
                self.stream.set_read_timeout(Some(Duration::from_millis(50)))?;
                let mut waste = [0; 4096];
                while !self.shared.stopping.load(Ordering::SeqCst) {
                    match self.reader.read(&mut waste) {
                        Ok(0) => break,
                        Err(error)
                            if error.kind() != io::ErrorKind::WouldBlock
                                && error.kind() != io::ErrorKind::TimedOut =>
                        {
                            break;
                        }
                        Ok(_) | Err(_) => {}
                    }
                }
                Err(Over)
            }
        }
    }

    fn write(&mut self, reply: &str) -> io::Result<()> {
        self.stream.write_all(format!("{reply}\r\n").as_bytes())
    }

    fn line(&mut self) -> Result<Vec<u8>, Over> {
        let mut octets = Vec::new();
        loop {
            if self.reader.read_until(b'\n', &mut octets)? == 0 {
                return Err(Over);
            }
            if octets.ends_with(b"\r\n") {
                return Ok(octets);
            }
            self.shared.audit.bare_lf.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn run(&mut self) -> Result<(), Over> {
        let answer = self.ask(Stage::Connect, "");
        if !self.answer(answer, "220 peer.test ESMTP")? {
            // RFC 5321 section 3.1: after 554 only QUIT is welcome.
            return Ok(());
        }
        loop {
            let octets = self.line()?;
            let line = String::from_utf8_lossy(&octets).trim_end().to_owned();
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" | "HELO" => self.greet(&verb, &line)?,
                "MAIL" => self.sender(&line)?,
                "RCPT" => self.recipient(&line)?,
                "DATA" => self.data(&line)?,
                "BDAT" => self.chunk(&line)?,
                "QUIT" => {
                    self.write("221 2.0.0 bye")?;
                    return Ok(());
                }
                _ => {
                    if verb == "RSET" {
                        self.clear();
                    }
                    let answer = self.ask(Stage::Other, &line);
                    self.answer(answer, "250 2.0.0 ok")?;
                }
            }
        }
    }

    fn clear(&mut self) {
        self.mail = None;
        self.rcpt.clear();
        self.chunks.clear();
    }

    fn greet(&mut self, verb: &str, line: &str) -> Result<(), Over> {
        self.clear();
        let mut reply = "250 peer.test".to_owned();
        if verb == "EHLO" {
            let mut words = vec!["peer.test".to_owned()];
            words.extend(self.shared.keywords.iter().cloned());
            let last = words.pop().unwrap_or_default();
            reply = words.iter().map(|word| format!("250-{word}\r\n")).collect();
            reply.push_str(&format!("250 {last}"));
        }
        let answer = self.ask(Stage::Hello, line);
        if self.answer(answer, &reply)? {
            line.clone_into(&mut self.hello);
        }
        Ok(())
    }

    fn sender(&mut self, line: &str) -> Result<(), Over> {
        self.shared.attempts.lock().unwrap().push((Instant::now(), line.to_owned()));
        let answer = self.ask(Stage::Mail, line);
        if self.answer(answer, "250 2.1.0 ok")? {
            self.mail = Some(line.split_once(':').map_or("", |(_, rest)| rest.trim()).to_owned());
            self.rcpt.clear();
        }
        Ok(())
    }

    fn recipient(&mut self, line: &str) -> Result<(), Over> {
        if self.mail.is_none() {
            self.write("503 5.5.1 MAIL first")?;
            return Ok(());
        }
        let answer = self.ask(Stage::Rcpt, line);
        if self.answer(answer, "250 2.1.5 ok")? {
            self.rcpt.push(line.split_once(':').map_or("", |(_, rest)| rest.trim()).to_owned());
        }
        Ok(())
    }

    fn data(&mut self, line: &str) -> Result<(), Over> {
        if self.rcpt.is_empty() {
            self.write("503 5.5.1 no valid recipients")?;
            return Ok(());
        }
        let answer = self.ask(Stage::Data, line);
        if !self.answer(answer, "354 go on")? {
            return Ok(());
        }
        let octets = self.body()?;
        self.end(octets, false)
    }

    fn body(&mut self) -> Result<Vec<u8>, Over> {
        let mut body = Vec::new();
        let mut asked = false;
        loop {
            let line = self.line()?;
            if !asked {
                asked = true;
                if self.ask(Stage::Body, "") != Answer::Accept {
                    return Err(Over);
                }
            }
            if line == b".\r\n" {
                return Ok(body);
            }
            body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    fn chunk(&mut self, line: &str) -> Result<(), Over> {
        let mut words = line.split(' ').skip(1);
        let size: usize = words.next().and_then(|word| word.parse().ok()).ok_or(Over)?;
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        let start = self.chunks.len();
        self.chunks.resize(start + size, 0);
        self.reader.read_exact(&mut self.chunks[start..])?;
        if self.rcpt.is_empty() {
            self.chunks.clear();
            self.write("503 5.5.1 no valid recipients")?;
            return Ok(());
        }
        if start == 0 {
            let answer = self.ask(Stage::Data, "BDAT");
            if answer != Answer::Accept {
                self.chunks.clear();
                self.answer(answer, "")?;
                return Ok(());
            }
        }
        if last {
            let octets = std::mem::take(&mut self.chunks);
            return self.end(octets, true);
        }
        self.write("250 2.0.0 more")?;
        Ok(())
    }

    fn end(&mut self, octets: Vec<u8>, chunked: bool) -> Result<(), Over> {
        self.audit(&octets);
        let answer = self.ask(Stage::End, self.mail.as_deref().unwrap_or_default());
        let keeps = match &answer {
            Answer::Accept | Answer::AcceptAndClose => true,
            Answer::Say(text) => text.starts_with('2'),
            Answer::Close | Answer::Silence => false,
        };
        if keeps {
            self.shared.received.lock().unwrap().push(Received {
                mail: self.mail.take().unwrap_or_default(),
                rcpt: std::mem::take(&mut self.rcpt),
                octets,
                hello: self.hello.clone(),
                session: self.number,
                chunked,
            });
        }
        self.clear();
        self.answer(answer, "250 2.0.0 kept")?;
        Ok(())
    }

    fn audit(&self, octets: &[u8]) {
        let audit = &self.shared.audit;
        for (place, &octet) in octets.iter().enumerate() {
            let before = place.checked_sub(1).map(|at| octets[at]);
            if octet == b'\n' && before != Some(b'\r') {
                audit.bare_lf.fetch_add(1, Ordering::SeqCst);
            }
            if octet == b'\r' && octets.get(place + 1) != Some(&b'\n') {
                audit.bare_cr.fetch_add(1, Ordering::SeqCst);
            }
        }
        let long = octets.split(|&octet| octet == b'\n').filter(|line| line.len() > 999).count();
        audit.long_lines.fetch_add(long, Ordering::SeqCst);
    }
}
