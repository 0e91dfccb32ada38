//! The receiving session as a machine that does no input or output.
//!
//! In: octets from the client, moments, and answers to questions. Out: octets for the client
//! ([`Server::output`]), the message's octets ([`Server::body`]), and [`Action`]s: questions that
//! only the house around it can answer (may this sender, may this recipient, is there room, is the
//! message durable), and rejections for the log. While a question is open no octet is consumed, so
//! replies keep the order of commands however many came in one piece (RFC 2920).
//!
//! What shaped it: a client may send anything, at any pace, for ever. Every wait has a deadline,
//! every count a limit with its own refusal, and nothing is kept of what is refused.

mod action;
mod body;
mod converse;
mod login;
mod reverse;
mod secure;
mod settings;
mod time;
mod told;
#[cfg(test)]
mod transcript;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::address::Domain;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

pub use self::action::{Action, End, Hello, Question, Rejection, Stage, Standing, Transaction};
use self::login::Login;
pub use self::settings::{Logins, Settings, Tls};
pub use self::time::RATE_WINDOW;
use super::body::BodyDecoder;
use super::command::Chunk;
use super::etrn::Etrn;
use super::line::{Line, LineReader};
use super::refusal::{After, Refusal};
use super::xclient::Told;
use crate::milter::answer::Reply;
use crate::queue::envelope::Recipient;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Commands,
    Asking(Question),
    Data,
    Chunk,
    Handshake,
    /// The client's next line belongs to AUTH.
    Login,
    Closed(End),
}

/// What octets were taken for, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A command, or a part of one.
    Command(usize),
    /// A message.
    Body(usize),
}

/// A chunk whose octets are arriving.
#[derive(Clone, Copy, Debug)]
struct OpenChunk {
    said: Chunk,
    remaining: u64,
    /// The chunk is swallowed and then refused, so that its octets are not read as commands.
    refusal: Option<Refusal>,
}

/// One session.
#[derive(Debug)]
pub struct Server {
    settings: Arc<Settings>,
    state: State,
    lines: LineReader,
    hello: Option<Hello>,
    transaction: Option<Transaction>,
    candidate: Option<Recipient>,
    /// The priority of the message on its way in is not the one that was asked for.
    is_lowered: bool,
    /// What ETRN asks for, while that is a question.
    asked_for: Option<Etrn>,
    /// Whose mail the client is to be sent over this connection, while that is a question.
    fetched: Option<Vec<Domain>>,
    /// Whether the host at the other end may tell for whom it speaks.
    may_tell: bool,
    /// For whom it says that it speaks, while that is a question.
    told: Option<Told>,
    /// The client stays to see what becomes of its messages.
    is_verbose: bool,
    /// Present from the beginning of a body to its end, also between chunks.
    decoder: Option<BodyDecoder>,
    chunk: Option<OpenChunk>,
    body: Vec<u8>,
    output: Vec<u8>,
    rejections: Vec<Rejection>,
    errors: u32,
    /// MAIL was refused for a trouble of ours: so many commands that the client sent behind it in
    /// one go are out of order, but not by its fault.
    excused: u32,
    idle_commands: u32,
    messages: u64,
    /// Octets of bodies, also of refused ones.
    octets: u64,
    started: Duration,
    /// The wall clock at that moment.
    wall_at_start: Timestamp,
    /// When the last command was complete, or the last octets of a body came.
    quiet_since: Duration,
    window_start: Duration,
    window_octets: u64,
    stopping: bool,
    /// Whether the session is under TLS.
    secured: bool,
    /// Whether octets stand behind the command that is being read.
    more_behind: bool,
    /// What is said for the next refusal, in place of its own words.
    words: Option<Box<Reply>>,
    login: Login,
}

/// What a session may hold in buffers while it waits for the next message.
const KEPT_OCTETS_MAX: usize = 16 * 1024;

impl Server {
    /// A session whose greeting is in the output. `now` counts from any fixed moment, `wall` is what
    /// the wall clock shows then.
    #[must_use]
    pub fn new(settings: Arc<Settings>, now: Duration, wall: Timestamp) -> Self {
        let mut server = Self {
            settings,
            state: State::Commands,
            lines: LineReader::default(),
            hello: None,
            transaction: None,
            candidate: None,
            is_lowered: false,
            asked_for: None,
            fetched: None,
            may_tell: false,
            told: None,
            is_verbose: false,
            decoder: None,
            chunk: None,
            body: Vec::new(),
            output: Vec::with_capacity(256),
            rejections: Vec::new(),
            errors: 0,
            excused: 0,
            idle_commands: 0,
            messages: 0,
            octets: 0,
            started: now,
            wall_at_start: wall,
            quiet_since: now,
            window_start: now,
            window_octets: 0,
            stopping: false,
            secured: false,
            more_behind: false,
            words: None,
            login: Login::default(),
        };
        server.greet();
        server
    }

    fn greet(&mut self) {
        let Settings { host, banner, .. } = &*self.settings;
        say(&mut self.output, format_args!("220 {host} {banner}"));
    }

    /// A session that is closed instead of greeted (RFC 5321 section 3.1).
    #[must_use]
    pub fn refused(settings: Arc<Settings>, refusal: Refusal, now: Duration) -> Self {
        let mut server = Self::new(settings, now, Timestamp::default());
        server.output.clear();
        server.refuse(Stage::Connect, refusal, None);
        server
    }

    /// Takes octets in the order they came and says how many were used. The rest must come again:
    /// behind an open question after it is answered, else together with more octets.
    pub fn on_octets(&mut self, octets: &[u8], now: Duration) -> usize {
        self.on_time(now);
        let mut used = 0;
        loop {
            let rest = octets.get(used..).unwrap_or_default();
            match self.take(rest, now) {
                Taken::Command(0) | Taken::Body(0) => return used,
                Taken::Command(taken) | Taken::Body(taken) => used += taken,
            }
        }
    }

    /// As [`Server::on_octets`], but no more than one command, or octets of a body: for whoever wants
    /// to know which it was.
    pub fn on_one(&mut self, octets: &[u8], now: Duration) -> Taken {
        self.on_time(now);
        self.take(octets, now)
    }

    fn take(&mut self, octets: &[u8], now: Duration) -> Taken {
        match self.state {
            State::Commands => Taken::Command(self.take_line(octets, now)),
            State::Login => Taken::Command(self.take_response(octets, now)),
            State::Data => Taken::Body(self.take_data(octets, now)),
            State::Chunk => Taken::Body(self.take_chunk(octets, now)),
            State::Asking(_) | State::Handshake | State::Closed(_) => Taken::Command(0),
        }
    }

    fn take_line(&mut self, octets: &[u8], now: Duration) -> usize {
        let max = self.line_octets_max(octets);
        match self.lines.take_up_to(max, octets) {
            Line::Partial => 0,
            Line::Skipped { octets } => octets,
            Line::TooLong { octets } => {
                self.quiet_since = now;
                self.refuse(Stage::Command, Refusal::LineTooLong, None);
                octets
            }
            Line::BareEnd => {
                self.refuse(Stage::Command, Refusal::BareLineEndInCommand, None);
                0
            }
            Line::Whole { text, octets: used } => {
                self.quiet_since = now;
                self.more_behind = octets.len() > used;
                self.on_line(text, now);
                used
            }
        }
    }

    /// What has to be done next, if anything.
    pub fn poll(&mut self) -> Option<Action> {
        if !self.rejections.is_empty() {
            return Some(Action::Rejected(Box::new(self.rejections.remove(0))));
        }
        match self.state {
            State::Asking(question) => Some(Action::Answer(question)),
            State::Handshake => Some(Action::Handshake),
            State::Commands | State::Login | State::Data | State::Chunk | State::Closed(_) => None,
        }
    }

    /// Answers [`Question::Sender`], [`Question::Recipient`], [`Question::Body`] or
    /// [`Question::Secure`].
    pub fn admit(&mut self, verdict: Result<(), Refusal>, now: Duration) {
        self.quiet_since = now;
        match self.state {
            State::Asking(Question::Sender) => self.on_sender_verdict(verdict),
            State::Asking(Question::Recipient) => self.on_recipient_verdict(verdict),
            State::Asking(Question::Body) => self.on_body_verdict(verdict, now),
            State::Asking(Question::Secure) => self.on_secure_verdict(verdict),
            State::Asking(
                Question::Commit
                | Question::Etrn
                | Question::Reverse
                | Question::Told
                | Question::Login,
            )
            | State::Commands
            | State::Login
            | State::Data
            | State::Chunk
            | State::Handshake
            | State::Closed(_) => debug_assert!(false, "no such question is open"),
        }
        self.stop_if_asked();
    }

    /// Answers [`Question::Commit`]: under which id the message is durable, or why it is not.
    pub fn committed(&mut self, result: Result<QueueId, Refusal>, now: Duration) {
        self.quiet_since = now;
        if self.state != State::Asking(Question::Commit) {
            debug_assert!(false, "the question is not open");
            return;
        }
        self.state = State::Commands;
        match result {
            Ok(id) => {
                self.messages += 1;
                self.idle_commands = 0;
                self.say(format_args!("250 2.6.0 {id} queued for delivery"));
            }
            Err(refusal) => self.refuse(Stage::End, refusal, None),
        }
        self.forget_transaction();
        self.stop_if_asked();
    }

    /// Has the next refusal said in a filter's words. It follows at once, and is of the same class.
    pub fn say_instead(&mut self, reply: Reply) {
        self.words = Some(Box::new(reply));
    }

    /// Replies that wait to be sent. The driver takes them out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Octets of the message that are here and not taken yet; at [`Question::Commit`] they are the
    /// rest of the message.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The driver has taken [`Server::body`].
    pub fn body_taken(&mut self) {
        self.body.clear();
    }

    /// Octets of the message that is arriving, taken ones included; `None` between messages.
    #[must_use]
    pub fn body_octets(&self) -> Option<u64> {
        self.decoder.as_ref().map(BodyDecoder::octets)
    }

    /// The message on its way in.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Hands the recipients over, for the envelope; to be asked at [`Question::Commit`] only.
    pub fn take_recipients(&mut self) -> Vec<Recipient> {
        self.transaction.as_mut().map(|t| std::mem::take(&mut t.recipients)).unwrap_or_default()
    }

    /// The recipient that [`Question::Recipient`] is about.
    #[must_use]
    pub fn candidate(&self) -> Option<&Recipient> {
        self.candidate.as_ref()
    }

    /// The mail that [`Question::Etrn`] is about.
    #[must_use]
    pub fn asked_for(&self) -> Option<&Etrn> {
        self.asked_for.as_ref()
    }

    /// What the client called itself.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Messages accepted so far.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// How the session ended; then the output is to be sent and the connection to be closed.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        match self.state {
            State::Closed(end) => Some(end),
            State::Commands
            | State::Login
            | State::Asking(_)
            | State::Data
            | State::Chunk
            | State::Handshake => None,
        }
    }

    /// Where the session stands, in a word for people.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.state {
            State::Closed(End::Reversed) => Standing::Reversed,
            State::Closed(_) => Standing::Closing,
            State::Asking(Question::Commit) => Standing::Commit,
            State::Data | State::Chunk | State::Asking(Question::Body) => Standing::Body,
            State::Commands
            | State::Login
            | State::Handshake
            | State::Asking(
                Question::Sender
                | Question::Recipient
                | Question::Etrn
                | Question::Reverse
                | Question::Told
                | Question::Login
                | Question::Secure,
            ) => match (&self.transaction, &self.hello) {
                (Some(_), _) => Standing::Envelope,
                (None, Some(_)) => Standing::Idle,
                (None, None) => Standing::Greeting,
            },
        }
    }

    /// The virtual server stops: closes as soon as no message is on its way.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.stop_if_asked();
    }

    /// Closes at once, whatever is on its way.
    pub fn kill(&mut self, refusal: Refusal) {
        if self.end().is_none() {
            self.forget_transaction();
            refusal.write(&mut self.output);
            self.state = State::Closed(End::Refused(refusal));
        }
    }

    /// Gives memory back that is only of use while mail is coming.
    pub fn release(&mut self) {
        if self.body.is_empty() {
            self.body = Vec::new();
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    fn stop_if_asked(&mut self) {
        if self.stopping && self.state == State::Commands && self.decoder.is_none() {
            self.kill(Refusal::Stopping);
        }
    }

    fn say(&mut self, line: std::fmt::Arguments<'_>) {
        say(&mut self.output, line);
    }

    /// Says no, tells the log, and counts; the state must be the one to go on in.
    fn refuse(&mut self, stage: Stage, refusal: Refusal, about: Option<&str>) {
        match self.words.take() {
            Some(reply) => {
                let Reply { code, enhanced, words } = *reply;
                say(&mut self.output, format_args!("{code} {enhanced} {words}"));
            }
            None => refusal.write_about(about, &mut self.output),
        }
        self.reject(stage, refusal);
        match refusal.after() {
            After::GoOn => {}
            After::Error if self.excused > 0 && refusal == Refusal::MailFirst => self.excused -= 1,
            After::Close => self.state = State::Closed(End::Refused(refusal)),
            After::Error => {
                self.errors += 1;
                if self.errors >= self.settings.errors_max {
                    self.refuse(Stage::Session, Refusal::TooManyErrors, None);
                }
            }
        }
    }

    fn reject(&mut self, stage: Stage, refusal: Refusal) {
        let sender = self.transaction.as_ref().map(|transaction| transaction.sender.clone());
        let recipient = match stage {
            Stage::Rcpt => self.candidate.take().map(|candidate| candidate.mailbox),
            Stage::Connect
            | Stage::Command
            | Stage::Mail
            | Stage::Data
            | Stage::End
            | Stage::Etrn
            | Stage::Reverse
            | Stage::Auth
            | Stage::Session => None,
        };
        self.rejections.push(Rejection { stage, refusal, sender, recipient });
    }

    fn forget_transaction(&mut self) {
        self.excused = 0;
        self.transaction = None;
        self.candidate = None;
        self.decoder = None;
        self.body.clear();
        if self.body.capacity() > KEPT_OCTETS_MAX {
            self.body = Vec::new();
        }
    }
}

fn say(output: &mut Vec<u8>, line: std::fmt::Arguments<'_>) {
    let written = output.write_fmt(line);
    debug_assert!(written.is_ok(), "writing into a Vec cannot fail");
    output.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
