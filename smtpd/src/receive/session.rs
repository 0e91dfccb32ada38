//! One session: octets to the machine, questions to policy and queue, replies to the client.
//!
//! No reply text and no verb of SMTP stands here. What does: time. There is one timer for each
//! session, set again only when it fires, so that traffic costs no timers; replies to commands that
//! came together leave together; and a client that does not read its replies is given up.

use std::pin::Pin;
use std::sync::Arc;
#[cfg(feature = "gssapi")]
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailroot_common::address::ReversePath;
use mailroot_common::config::trace::Dialogues;
use mailroot_common::control::Direction;
use mailroot_common::id::QueueId;
use smtpd_core::smtp::dialogue::Side;
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::{Action, End, Question, Server, Taken};
use smtpd_core::trace::note::Note;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;
use zeroize::Zeroize;

use super::buffer::Buffer;
use super::judge::{
    Piece, charge, find_sender, gather, may_begin, may_connect, may_send_to, unready,
};
use super::listener::Entry;
use super::message::{Client, Incoming};
use super::registry::{Live, Order};
#[cfg(feature = "gssapi")]
use super::ticket::Ticket;
use super::told::Peer;
use super::visit::Visit;
use super::{Settings, filter, login};
use crate::milter::Milters;
use crate::net::Stream;
use crate::observe::{Ear, Level, Party};
use crate::queue::Claim;

/// A session that is silent for so long gives its buffers back.
const RELEASE_AFTER: Duration = Duration::from_secs(5);
/// The longest span after which limits of time are looked at.
const LOOK_AFTER: Duration = Duration::from_mins(1);
/// How long, and for how many octets, a client that we cut off may go on talking before its
/// connection goes: one that is reset at once would never read why.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_OCTETS: usize = 64 << 20;

/// Converses until one side ends the session; how it ended in words, if it did.
pub(super) async fn converse(
    visit: &Visit,
    stream: &mut Stream,
    settings: Arc<Settings>,
) -> Option<End> {
    let inner = &*visit.inner;
    let client = visit.live.client();
    let facts = match &visit.local {
        Some(user) => user.facts(),
        None => gather(inner, &settings, client.ip()).await,
    };
    let context = Client {
        inner,
        settings: &settings,
        facts,
        session: visit.live.id,
        local: visit.local.clone(),
        peer: if visit.entry == Entry::Adopted { Peer::Called } else { Peer::Caller },
        tls: None,
        certificate: None,
        user: None,
        asked: None,
    };
    let line = inner.parts.log.line(Level::Info, "connect");
    line.word("server", &inner.parts.name)
        .word("sid", visit.live.id)
        .word("client", client.ip())
        .word("port", client.port())
        .maybe("uid", context.uid())
        .maybe("name", context.name())
        .send();
    let party = Party {
        id: visit.live.id,
        server: Arc::clone(&inner.parts.name),
        direction: Direction::In,
        peer: client,
    };
    let (now, wall) = (inner.parts.clock.elapsed(), inner.parts.clock.now());
    let rules = Arc::clone(context.rules(wall));
    let mut session = Session {
        client: context,
        live: &visit.live,
        stream,
        server: Server::new(Arc::clone(&rules), now, wall),
        incoming: Incoming::new(&inner.body_memory),
        buffer: Buffer::default(),
        alarm: Box::pin(tokio::time::sleep(RELEASE_AFTER)),
        helo_shown: false,
        filters: Milters::new(settings.milters_for(visit.local.is_some())),
        ear: inner.parts.dialogues.ear(party, inner.parts.clock.clone()),
        heard: 0,
        claim: None,
        #[cfg(feature = "gssapi")]
        ticket: None,
    };
    let has_called = visit.local.is_none() && session.client.peer == Peer::Caller;
    session.server.let_tell(has_called && settings.may_tell(client.ip()));
    if visit.entry == Entry::Adopted {
        session.adopt();
    } else if let (None, Err(refusal)) =
        (&visit.local, may_connect(&settings, &session.client.facts, wall))
    {
        session.server = Server::refused(rules, refusal, now);
    }
    let gone = session.run(visit.entry == Entry::Implicit).await;
    session.filters.quit().await;
    session.say_goodbye(gone);
    session.server.end()
}

/// How a session ended when nobody said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// It was ended in words.
    Said,
    /// The client closed the connection.
    Closed,
    /// The connection broke, or the client did not read.
    Broken,
    /// It did not come under TLS.
    Insecure,
}

pub(super) struct Session<'a> {
    pub(super) client: Client<'a>,
    pub(super) live: &'a Live,
    pub(super) stream: &'a mut Stream,
    pub(super) server: Server,
    pub(super) incoming: Incoming<'a>,
    pub(super) buffer: Buffer,
    alarm: Pin<Box<Sleep>>,
    /// Whether what the client calls itself is shown.
    pub(super) helo_shown: bool,
    /// Who looks at mail before it is accepted.
    pub(super) filters: Milters,
    ear: Ear,
    /// Octets of the output that were handed to the ear.
    heard: usize,
    /// The mail that is about to leave by this connection.
    pub(super) claim: Option<Claim>,
    /// What the client's ticket has said so far. The library's contexts are for one thread at a time.
    #[cfg(feature = "gssapi")]
    pub(super) ticket: Option<Box<Mutex<Ticket>>>,
}

impl Session<'_> {
    async fn run(&mut self, implicit: bool) -> Gone {
        if self.client.inner.stopped.load(Ordering::Relaxed) {
            self.server.stop();
        }
        if implicit && let Err(gone) = self.begin_under_tls().await {
            return gone;
        }
        loop {
            if let Err(gone) = self.work().await {
                return gone;
            }
            self.obey();
            if self.flush().await.is_err() {
                return Gone::Broken;
            }
            if let Some(end) = self.server.end() {
                match end {
                    End::Reversed => self.hand_over().await,
                    End::Quit | End::Inquiry | End::Refused(_) => self.linger(end).await,
                }
                return Gone::Said;
            }
            match self.read().await {
                Ok(0) => return Gone::Closed,
                Ok(_) => {}
                Err(_) => return Gone::Broken,
            }
        }
    }

    fn obey(&mut self) {
        match self.live.order() {
            Order::None => {}
            Order::Stop => self.server.stop(),
            Order::Kill => self.server.kill(Refusal::Stopping),
        }
    }

    /// Uses what was read as far as it goes.
    pub(super) async fn work(&mut self) -> Result<(), Gone> {
        loop {
            let now = self.client.inner.parts.clock.elapsed();
            let octets = self.buffer.octets.get(self.buffer.used..).unwrap_or_default();
            let secret = self.server.mechanism().is_some() || login::is_auth(octets);
            let used = match self.ear.is_open() {
                false => self.server.on_octets(octets, now),
                true => hear(&mut self.ear, &mut self.server, octets, now),
            };
            self.buffer.used += used;
            if secret {
                // Nothing of a password is left where it was read, whatever became of the line.
                let said = self.buffer.octets.get_mut(..self.buffer.used).unwrap_or_default();
                said.zeroize();
            }
            let mut acted = false;
            while let Some(action) = self.server.poll() {
                acted = true;
                match action {
                    Action::Answer(question) => self.answer(question).await,
                    Action::Handshake => {
                        self.flush().await.map_err(|_| Gone::Broken)?;
                        self.secure().await?;
                    }
                    Action::Rejected(rejection) => self.on_rejection(&rejection),
                }
            }
            self.incoming.on_octets(&self.client, &mut self.server).await;
            self.hear_output();
            if used == 0 && !acted {
                break;
            }
        }
        self.show();
        Ok(())
    }

    async fn answer(&mut self, question: Question) {
        let Client { inner, settings, .. } = self.client;
        let ready = || inner.parts.queue.ready().map_err(unready);
        let verdict = match question {
            Question::Body => ready(),
            Question::Secure => match &settings.tls {
                Some(tls) if tls.is_ready() => Ok(()),
                _ => Err(Refusal::TlsUnavailable),
            },
            Question::Sender => self.judge_sender().await,
            Question::Recipient => self.judge_recipient().await,
            Question::Login => {
                // Boxed as all that most sessions never do, so that they hold no room for it.
                Box::pin(login::judge(self)).await;
                return;
            }
            Question::Told => {
                Box::pin(self.introduce()).await;
                return;
            }
            Question::Etrn => {
                let answer = self.ask_for_mail().await;
                self.server.turned(answer, inner.parts.clock.elapsed());
                return;
            }
            Question::Reverse => {
                let answer = self.claim_mail();
                self.server.reversed(answer, inner.parts.clock.elapsed());
                return;
            }
            Question::Commit => {
                self.show();
                let server = &mut self.server;
                let kept = self.incoming.keep(&self.client, server, &mut self.filters).await;
                self.incoming.forget();
                let id = kept.as_ref().ok().copied();
                self.server.committed(kept, inner.parts.clock.elapsed());
                if let Some(id) = id.filter(|_| self.ear.is_open()) {
                    self.remember_dialogue(id);
                }
                return;
            }
        };
        self.server.admit(verdict, inner.parts.clock.elapsed());
    }

    /// Whether the sender may begin; what is cheap is asked first.
    async fn judge_sender(&mut self) -> Result<(), Refusal> {
        self.incoming.rule = None;
        let queue = &self.client.inner.parts.queue;
        may_begin(&self.client, self.server.transaction().map(|it| &it.sender))?;
        queue.ready().map_err(unready)?;
        charge(&self.client, Piece::Message)?;
        self.vouch_for_sender().await?;
        self.know_sender().await?;
        if self.filters.are_none() {
            return Ok(());
        }
        Box::pin(filter::sender(self)).await
    }

    /// Asks the directory for the sender, if it is to say something about senders.
    async fn know_sender(&mut self) -> Result<(), Refusal> {
        let Some(transaction) = self.server.transaction() else { return Ok(()) };
        let (ReversePath::Mailbox(from), is_utf8) = (&transaction.sender, transaction.smtputf8)
        else {
            return Ok(());
        };
        if let Some(primary) = find_sender(&self.client, from, is_utf8).await? {
            self.server.goes_on_from(primary);
        }
        Ok(())
    }

    /// Whether mail may go to the recipient.
    async fn judge_recipient(&mut self) -> Result<(), Refusal> {
        let candidate = self.server.candidate().ok_or(Refusal::LocalTrouble)?;
        let now = self.client.inner.parts.clock.now();
        let rule = may_send_to(&self.client, &candidate.mailbox, now).await?;
        charge(&self.client, Piece::Recipient)?;
        self.incoming.note_rule(rule);
        if self.filters.are_none() {
            return Ok(());
        }
        Box::pin(filter::recipient(self)).await
    }

    /// Has the trace remember what was said about a message that was accepted, where it is to.
    fn remember_dialogue(&mut self, id: QueueId) {
        self.hear_output();
        let said = self.ear.take_tape();
        let parts = &self.client.inner.parts;
        if let (Some(said), Dialogues::All) = (said, parts.trace.wants_dialogues()) {
            let (at, peer) = (parts.clock.now(), self.live.client());
            parts.trace.record(Note::dialogue(&parts.name, id, at, "in", &peer, &said));
        }
    }

    fn show(&mut self) {
        self.live.show(self.server.standing(), self.server.messages());
        if !self.helo_shown
            && let Some(hello) = self.server.hello()
        {
            self.live.show_helo(&hello.name);
            self.helo_shown = true;
        }
    }

    /// Has listeners hear the replies that were put out.
    fn hear_output(&mut self) {
        let output = self.server.output();
        if self.ear.is_open() {
            self.ear.hear(Side::Server, output.get(self.heard..).unwrap_or_default());
        }
        self.heard = output.len();
    }

    /// Sends all replies in one write; a client that does not take them within the idle time is
    /// given up.
    async fn flush(&mut self) -> std::io::Result<()> {
        if self.server.output().is_empty() {
            return Ok(());
        }
        self.hear_output();
        self.heard = 0;
        let patience = self.client.settings.session.idle;
        let live = self.live;
        let output = self.server.output();
        let sent = tokio::select! {
            biased;
            sent = self.stream.send(output, patience) => sent,
            () = live.killed() => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        };
        output.clear();
        sent.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }

    /// Waits for octets, or until an order or a limit of time ends the session; that counts as
    /// something read, so that what the machine has to say about it is sent.
    async fn read(&mut self) -> std::io::Result<usize> {
        self.buffer.make_room(self.server.standing());
        // An order may have come while replies were being sent.
        self.obey();
        while self.server.end().is_none() {
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.buffer.octets) => {
                    let octets = read?;
                    self.live.add_octets(octets as u64);
                    return Ok(octets);
                }
                () = self.live.told() => {
                    self.obey();
                }
                () = &mut self.alarm => {
                    let now = self.client.inner.parts.clock.elapsed();
                    self.server.on_time(now);
                    let next = self.server.deadline().saturating_sub(now).min(LOOK_AFTER);
                    self.alarm.as_mut().set(tokio::time::sleep(next));
                    self.server.release();
                    self.buffer.release();
                }
            }
        }
        Ok(1)
    }

    /// Lets a client that was cut off read why.
    async fn linger(&mut self, end: End) {
        match end {
            // It waits for our end of the connection and has nothing to say.
            End::Quit | End::Inquiry | End::Reversed | End::Refused(Refusal::Stopping) => return,
            End::Refused(_) => {}
        }
        let drain = async {
            // Under TLS this has octets to send as well, and waits for whoever does not read.
            if self.stream.shutdown().await.is_err() {
                return;
            }
            let mut left = LINGER_OCTETS;
            loop {
                self.buffer.octets.clear();
                match self.stream.read_buf(&mut self.buffer.octets).await {
                    Ok(octets) if octets > 0 && octets < left => left -= octets,
                    Ok(_) | Err(_) => return,
                }
            }
        };
        // Whether it read our words or not, its time is up.
        tokio::select! {
            _ = tokio::time::timeout(LINGER, drain) => {}
            () = self.live.killed() => {}
        }
    }

    fn say_goodbye(&self, gone: Gone) {
        let inner = self.client.inner;
        let reason = match (gone, self.server.end()) {
            (Gone::Said, Some(End::Quit)) => "quit",
            (Gone::Said, Some(End::Reversed)) => "reversed",
            (Gone::Said, Some(End::Inquiry)) => "inquiry",
            (Gone::Said, Some(End::Refused(refusal))) => refusal.reason(),
            (Gone::Closed, _) => "client-closed",
            (Gone::Insecure, _) => "tls-failed",
            (Gone::Said | Gone::Broken, _) => "connection-lost",
        };
        let line = inner.parts.log.line(Level::Info, "disconnect");
        line.word("server", &inner.parts.name)
            .word("sid", self.live.id)
            .word("client", self.live.client().ip())
            .word("port", self.live.client().port())
            .word("reason", reason)
            .word("messages", self.server.messages())
            .word("octets", self.live.octets())
            .send();
    }
}

/// Has the machine take one thing, and listeners hear it.
fn hear(ear: &mut Ear, server: &mut Server, octets: &[u8], now: Duration) -> usize {
    let taken = server.on_one(octets, now);
    match taken {
        Taken::Command(used) => {
            ear.hear(Side::Client, octets.get(..used).unwrap_or_default());
            used
        }
        Taken::Body(used) => {
            ear.pass_body(used);
            used
        }
    }
}
