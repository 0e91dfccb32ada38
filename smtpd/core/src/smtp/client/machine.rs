//! The machine itself: what leaves when, and how everything ends. What each reply means is said
//! in [`replies`]; how the session becomes a private one, and one with a name, in [`secure`].

mod ask;
mod expect;
mod replies;
mod secure;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use mailroot_common::status::EnhancedCode;

use super::super::extension::PeerExtensions;
use super::super::reply::{ReplyError, ReplyReader};
use super::body::{BareLineEnd, Stuffer};
use super::transaction::{Progress, Running, Transport};
use super::{Action, BodyFlow, Ending, Finished, Settings, Tls, Transaction};
use crate::queue::outcome::Stage;
use ask::ATRN_PATIENCE;
use expect::Expect;

/// Replies awaited at once, so that neither side fills the other's window with both writing.
const WINDOW: usize = 102;

/// One connection to a peer, from its greeting to its end.
#[derive(Debug)]
pub struct Client {
    settings: Arc<Settings>,
    reader: ReplyReader,
    peer: Arc<PeerExtensions>,
    phase: Phase,
    /// Octets for the driver to send.
    output: Vec<u8>,
    /// Replies awaited, in order.
    expected: VecDeque<Expect>,
    /// Commands that may not leave yet.
    pending: VecDeque<(Expect, Vec<u8>)>,
    /// At most two: one whose body has been sent, and the one pipelined behind it.
    running: VecDeque<Running>,
    stuffer: Stuffer,
    actions: VecDeque<Action>,
    /// Transactions that are over, however they ended.
    finished: u32,
    begun: u32,
    /// A transaction was left open at the peer: RSET goes before the next.
    needs_reset: bool,
    /// QUIT as soon as nothing runs.
    quits: bool,
    ehlo_dropped: bool,
    /// Whether what is said is said under TLS.
    is_secured: bool,
    is_logged_in: bool,
    /// A first response too long for the line of AUTH.
    unsaid: Option<String>,
    /// Since when the first awaited reply is awaited, or a reply nobody asked for is on its way.
    armed_at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    /// The driver negotiates TLS.
    Securing,
    /// The driver is asked for a step of the login.
    LoggingIn,
    Open,
    Closed,
}

impl Client {
    /// A connection just made; the peer is to speak first.
    #[must_use]
    pub fn new(settings: Arc<Settings>, now: Duration) -> Self {
        let is_secured = settings.tls == Tls::Implicit;
        Self {
            settings,
            reader: ReplyReader::default(),
            peer: Arc::default(),
            phase: Phase::Hello,
            output: Vec::new(),
            expected: VecDeque::from([Expect::Greeting]),
            pending: VecDeque::new(),
            running: VecDeque::new(),
            stuffer: Stuffer::default(),
            actions: VecDeque::new(),
            finished: 0,
            begun: 0,
            needs_reset: false,
            quits: false,
            ehlo_dropped: false,
            is_secured,
            is_logged_in: false,
            unsaid: None,
            armed_at: now,
        }
    }

    /// What to do next, if anything but sending [`Client::output`] and reading.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Octets to send. The driver takes them out as they are written.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// By when the next reply must be whole, in the driver's time; `None` while none is awaited
    /// and none has begun. One that nobody asked for must not drip in for ever either.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let patience = match self.expected.front() {
            _ if self.phase == Phase::Closed => return None,
            Some(expect) => self.patience(*expect),
            None if self.reader.has_rest() => self.block_timeout(),
            None => return None,
        };
        Some(self.armed_at + patience)
    }

    fn patience(&self, expect: Expect) -> Duration {
        let timeouts = &self.settings.timeouts;
        match expect {
            Expect::Greeting => timeouts.greeting,
            Expect::Data => timeouts.data,
            Expect::Chunk | Expect::End => timeouts.end,
            Expect::Quit => timeouts.command.min(QUIT_PATIENCE),
            Expect::Ehlo
            | Expect::Helo
            | Expect::StartTls
            | Expect::Auth
            | Expect::Reset
            | Expect::Mail
            | Expect::Etrn
            | Expect::Rcpt(_) => timeouts.command,
            Expect::Atrn => timeouts.command.max(ATRN_PATIENCE),
        }
    }

    /// How long the network may take for a piece of output.
    #[must_use]
    pub fn block_timeout(&self) -> Duration {
        self.settings.timeouts.block
    }

    /// What the peer offers; meaningful once [`Action::Ready`] was seen.
    #[must_use]
    pub fn peer(&self) -> &PeerExtensions {
        &self.peer
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether nothing is under way and the connection could be kept for later.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Open
            && !self.quits
            && self.running.is_empty()
            && self.expected.is_empty()
            && !self.reader.has_rest()
    }

    /// Whether the peer cut the connection at EHLO: with HELO it may do better.
    #[must_use]
    pub fn ehlo_was_dropped(&self) -> bool {
        self.ehlo_dropped
    }

    /// Whether [`Client::begin`] may be called now. With PIPELINING this is so already when the
    /// end of the body before has been handed over.
    #[must_use]
    pub fn can_begin(&self) -> bool {
        let room = match self.running.front() {
            None => self.expected.is_empty(),
            Some(first) => {
                self.running.len() == 1
                    && self.peer.pipelining
                    && first.progress == Progress::End
                    && self.pending.is_empty()
            }
        };
        let left = self.peer.mails_max.is_none_or(|most| self.begun < most);
        self.phase == Phase::Open && !self.quits && room && left
    }

    /// How many replies to what was said so far have not come yet.
    #[must_use]
    pub fn awaited(&self) -> usize {
        self.expected.len()
    }

    /// Whether no further transaction will be possible here.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.phase == Phase::Closed
            || self.quits
            || self.peer.mails_max.is_some_and(|most| self.begun >= most)
    }

    /// Begins a transaction; only while [`Client::can_begin`].
    ///
    /// # Errors
    ///
    /// What became of the recipients, if the peer need not be asked: it cannot take the message.
    pub fn begin(&mut self, transaction: &Transaction<'_>, now: Duration) -> Result<(), Finished> {
        debug_assert!(self.can_begin(), "begun only when possible");
        let mut running = Running::new(transaction, &self.peer);
        if let Some(ending) = transaction.obstacle(&self.peer, self.is_secured) {
            running.end_all(&ending);
            return Err(running.finish());
        }
        if running.chosen.is_empty() {
            return Err(running.finish());
        }
        self.begun += 1;
        // The state after a refused BDAT is indeterminate (RFC 3030 section 2).
        let behind_chunks =
            self.running.front().is_some_and(|first| first.transport == Transport::Bdat);
        if self.needs_reset || behind_chunks {
            self.needs_reset = false;
            self.command(Expect::Reset, now, |out| out.extend_from_slice(b"RSET\r\n"));
        }
        let peer = Arc::clone(&self.peer);
        self.command(Expect::Mail, now, |out| transaction.write_mail(&peer, &running.chosen, out));
        for &place in &running.chosen {
            let write = |out: &mut Vec<u8>| transaction.write_rcpt(&peer, place, out);
            self.command(Expect::Rcpt(place), now, write);
        }
        if running.transport == Transport::Data {
            self.command(Expect::Data, now, |out| out.extend_from_slice(b"DATA\r\n"));
        }
        self.running.push_back(running);
        Ok(())
    }

    /// Says goodbye: at once if nothing runs or the peer takes commands behind a body, else when
    /// the transaction is over.
    pub fn quit(&mut self, now: Duration) {
        if self.is_opening() {
            self.phase = Phase::Closed;
            self.actions.push_back(Action::Close);
        } else if self.phase == Phase::Open && !self.quits {
            self.quits = true;
            let behind = self.peer.pipelining
                && self.running.iter().all(|running| running.progress == Progress::End);
            if self.running.is_empty() || behind {
                self.command(Expect::Quit, now, |out| out.extend_from_slice(b"QUIT\r\n"));
            }
        }
    }

    /// Whether a piece of the body may be handed over.
    #[must_use]
    pub fn body_flow(&self) -> BodyFlow {
        match self.running.front() {
            Some(first) if first.progress == Progress::Body && first.has_accepted() => {
                let free = first.transport == Transport::Data || self.may_write();
                if free { BodyFlow::Send } else { BodyFlow::Wait }
            }
            _ => BodyFlow::Stop,
        }
    }

    /// Takes a piece of the body that is not the last; ignored unless [`Client::body_flow`] says
    /// `Send`.
    pub fn body(&mut self, piece: &[u8], now: Duration) {
        if self.body_flow() != BodyFlow::Send {
            return;
        }
        if self.transport() == Transport::Bdat {
            self.chunk(piece, "", Expect::Chunk, now);
        } else if self.stuffer.push(piece, &mut self.output) == Err(BareLineEnd) {
            self.spoil();
        }
    }

    /// The recipients, by their places in the transaction's list, whose message is complete with the
    /// next call of [`Client::last_body`]. Nobody if that call will send nothing.
    #[must_use]
    pub fn about_to_complete(&self) -> &[usize] {
        match self.running.front() {
            Some(first) if self.body_flow() == BodyFlow::Send => first.accepted(),
            _ => &[],
        }
    }

    /// Takes the last piece of the body, which may be empty. From now on a lost connection leaves
    /// the recipients in doubt.
    pub fn last_body(&mut self, piece: &[u8], now: Duration) {
        if self.body_flow() != BodyFlow::Send {
            return;
        }
        if self.transport() == Transport::Bdat {
            self.chunk(piece, " LAST", Expect::End, now);
        } else {
            let stuffed = self.stuffer.push(piece, &mut self.output);
            if stuffed.and_then(|()| self.stuffer.finish(&mut self.output)).is_err() {
                self.spoil();
                return;
            }
            self.expect(Expect::End, now);
        }
        if let Some(first) = self.running.front_mut() {
            first.progress = Progress::End;
        }
        self.needs_reset = false;
    }

    /// Gives the connection up, because the message cannot be read or we are stopping; whatever
    /// runs ends like this, and what has not begun in earnest is given back.
    pub fn abandon(&mut self, ending: &Ending) {
        if self.phase != Phase::Closed {
            self.break_all(ending, EndedBy::Us);
        }
    }

    fn transport(&self) -> Transport {
        self.running.front().map_or(Transport::Data, |first| first.transport)
    }

    fn chunk(&mut self, piece: &[u8], last: &str, expect: Expect, now: Duration) {
        self.output.extend_from_slice(format!("BDAT {}{last}\r\n", piece.len()).as_bytes());
        self.output.extend_from_slice(piece);
        self.expect(expect, now);
    }

    fn spoil(&mut self) {
        let status = EnhancedCode::permanent(6, 0);
        let ending = Ending::local(Stage::Data, status, BareLineEnd.to_string());
        self.break_all(&ending, EndedBy::Us);
    }

    /// Whether a command may leave before the replies to those before have come.
    fn may_write(&self) -> bool {
        let free = if self.peer.pipelining { WINDOW } else { 1 };
        self.pending.is_empty() && self.expected.len() < free
    }

    fn expect(&mut self, expect: Expect, now: Duration) {
        if self.expected.is_empty() {
            self.armed_at = now;
        }
        self.expected.push_back(expect);
    }

    fn command(&mut self, expect: Expect, now: Duration, write: impl FnOnce(&mut Vec<u8>)) {
        if self.may_write() {
            write(&mut self.output);
            self.expect(expect, now);
        } else {
            let mut octets = Vec::new();
            write(&mut octets);
            self.pending.push_back((expect, octets));
        }
    }

    /// Lets waiting commands leave. DATA is pointless when every recipient was refused.
    fn pump(&mut self, now: Duration) {
        let free = if self.peer.pipelining { WINDOW } else { 1 };
        while self.expected.len() < free
            && let Some((expect, octets)) = self.pending.pop_front()
        {
            let refused = self
                .running
                .back()
                .is_some_and(|last| last.unanswered == 0 && !last.has_accepted());
            if expect == Expect::Data && refused {
                continue;
            }
            self.output.extend_from_slice(&octets);
            self.expect(expect, now);
        }
        self.leave_envelope();
    }

    /// Goes on to the body, or ends the transaction, when its last command was answered.
    fn leave_envelope(&mut self) {
        let answered = self.expected.is_empty() && self.pending.is_empty();
        let Some(first) = self.running.front_mut() else { return };
        if !answered || first.progress != Progress::Envelope {
            return;
        }
        if first.has_accepted() {
            first.progress = Progress::Body;
            self.stuffer = Stuffer::default();
            self.actions.push_back(Action::SendBody);
        } else {
            self.finish_first();
        }
    }

    fn finish_first(&mut self) {
        if let Some(first) = self.running.pop_front() {
            self.finished += 1;
            self.actions.push_back(Action::Done(first.finish()));
        }
    }

    /// Takes octets from the peer.
    pub fn on_octets(&mut self, octets: &[u8], now: Duration) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.expected.is_empty() && !self.reader.has_rest() {
            self.armed_at = now;
        }
        self.reader.feed(octets);
        while self.phase != Phase::Closed {
            match self.reader.next_reply() {
                Ok(Some(reply)) => self.on_reply(reply, now),
                Ok(None) => return,
                Err(error) => self.lose_garbled(error),
            }
        }
    }

    /// The peer closed the connection, or the network did; `why` is for people.
    pub fn on_close(&mut self, why: &str) {
        self.ehlo_dropped |= self.expected.front() == Some(&Expect::Ehlo);
        self.lose(EnhancedCode::transient(4, 2), why);
    }

    /// The deadline has passed, or the network did not take our octets in time.
    pub fn on_timeout(&mut self) {
        let seconds = match self.expected.front() {
            Some(&expect) => self.patience(expect).as_secs(),
            None => self.block_timeout().as_secs(),
        };
        self.lose(EnhancedCode::transient(4, 2), &format!("nothing came within {seconds}s"));
    }

    /// What came is no reply. Its words are told, but in a login, where they may hold secrets.
    fn lose_garbled(&mut self, error: ReplyError) {
        let in_login = self.expected.front().is_some_and(|it| it.stage() == Stage::Login);
        let said = if in_login { String::new() } else { self.reader.line_text() };
        let why = if said.is_empty() { error.to_string() } else { format!("{error}: {said:?}") };
        self.lose(EnhancedCode::transient(5, 0), &why);
    }

    fn lose(&mut self, status: EnhancedCode, why: &str) {
        if self.phase == Phase::Closed {
            return;
        }
        let (stage, awaited) = match self.expected.front() {
            Some(expect) => (expect.stage(), expect.awaited()),
            None => (Stage::Data, "the end of the message was sent"),
        };
        let text = format!("{why} (before {awaited})");
        self.break_all(&Ending::local(stage, status, text), EndedBy::Nobody);
    }

    /// Ends everything that runs, and the connection with it.
    fn break_all(&mut self, cause: &Ending, by: EndedBy) {
        if self.is_opening() {
            self.actions.push_back(Action::Failed(cause.clone()));
        }
        self.phase = Phase::Closed;
        self.pending.clear();
        self.expected.clear();
        self.output.clear();
        let fresh = self.finished == 0;
        for (place, mut running) in std::mem::take(&mut self.running).into_iter().enumerate() {
            let first = place == 0;
            let tried = first && fresh && by != EndedBy::Us;
            let by_reply = first && by == EndedBy::Peer;
            running.break_off(cause, tried, by_reply);
            self.actions.push_back(Action::Done(running.finish()));
        }
        self.actions.push_back(Action::Close);
    }
}

/// QUIT is a courtesy: its reply is not waited for long.
const QUIT_PATIENCE: Duration = Duration::from_secs(5);

/// Who ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndedBy {
    /// The peer, by a reply.
    Peer,
    /// We, for a reason of ours.
    Us,
    /// Nobody: it broke, or the peer became unreadable.
    Nobody,
}
