//! One outbound connection: octets between the network and the sending machine.
//!
//! This file decides nothing about mail and knows no verb and no code; it reads, writes, keeps the
//! machine's deadlines and streams bodies. While a body's end is on its way the commands of the
//! next message are put behind it, so that one write and one read carry both.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mailroot_common::id::SessionId;
use mailroot_common::status::EnhancedCode;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::outcome::{RemoteHost, Stage};
use smtpd_core::smtp::client::{Action, BodyFlow, Client, Ending};
use smtpd_core::smtp::dialogue::Side;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::Settings;
use super::aim::Target;
use super::finish::finish;
use super::front::Outgoing;
use super::job::{Content, Job};
use super::permits::Permits;
use super::remember;
use super::room::Room;
use super::tls_report::Trouble;
use crate::net::Stream;
use crate::observe::{Ear, Level};
use crate::queue::Leashed;
use crate::tls::Flaw;

/// How much is read at once; replies are short.
const READ_OCTETS: usize = 4 * 1024;
/// How long to look for a last word after the network refused our octets.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What `sessions` shows of an outbound connection.
#[derive(Debug)]
pub struct SessionView {
    /// Its name.
    pub id: SessionId,
    /// The peer.
    pub host: RemoteHost,
    /// When it was opened.
    pub since: Timestamp,
    /// Messages begun on it.
    pub messages: AtomicU32,
    /// The version of TLS it is under.
    pub tls: OnceLock<Box<str>>,
    /// The name it is logged in with.
    pub user: OnceLock<String>,
    /// What it was opened for.
    pub(super) target: Target,
}

/// One outbound connection. It is handed about boxed: it is large, and goes through many hands.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) stream: Stream,
    pub(super) target: Target,
    pub(super) host: RemoteHost,
    pub(super) view: Arc<SessionView>,
    pub(super) room: Arc<Room>,
    pub(super) used: u32,
    pub(super) input: Vec<u8>,
    pub(super) ear: Ear,
    /// Octets of the output that were handed to the ear.
    pub(super) heard: usize,
    /// Its place among those that limits count.
    pub(super) permits: Permits,
    /// The host has asked for less.
    pub(super) is_slowed: bool,
    /// It has taken something.
    pub(super) has_carried: bool,
    /// What is wrong with the host's certificate, where that was not asked.
    pub(super) flaw: Option<Flaw>,
    /// What TLS failed with, before it was called without.
    pub(super) trouble: Option<Trouble>,
    /// Our address, where somebody is told of it.
    pub(super) from: Option<IpAddr>,
    /// Held by whoever handed it over, if somebody did.
    pub(super) leashed: Option<Leashed>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.room.forget_session(self.view.id);
    }
}

impl Connection {
    /// Sends what the jobs have to do, as far as this connection goes. Jobs that are over are
    /// finished at once; what is left to do must go over another connection to the same host.
    pub(super) async fn send(&mut self, settings: &Settings, jobs: &mut [Job]) {
        let mut waiting: VecDeque<usize> =
            (0..jobs.len()).filter(|&place| jobs[place].has_todo()).collect();
        let mut running: VecDeque<usize> = VecDeque::new();
        loop {
            while self.has_turn(settings)
                && let Some(place) = waiting.pop_front()
            {
                if self.begin(&mut jobs[place]).await {
                    running.push_back(place);
                } else {
                    self.conclude(&mut jobs[place], place, &mut waiting).await;
                }
            }
            let is_worn = self.is_slowed || self.used >= settings.messages_per_connection;
            if self.client.is_spent() || is_worn {
                self.client.quit(self.room.clock.elapsed());
            }
            self.flush().await;
            match self.client.poll() {
                Some(Action::SendBody) => {
                    if let Some(&place) = running.front() {
                        self.send_body(&mut jobs[place]).await;
                    }
                }
                Some(Action::Done(finished)) => {
                    if let Some(place) = running.pop_front() {
                        self.is_slowed |= finished.asks_for_less(self.has_carried);
                        self.has_carried |= finished.has_progress();
                        if let Some(said) = self.ear.take_tape() {
                            let failed = !finished.is_success();
                            remember::dialogue(
                                &self.room,
                                jobs[place].id,
                                &self.host,
                                &said,
                                failed,
                            );
                        }
                        jobs[place].apply(finished, self.room.clock.now(), &self.host);
                        self.conclude(&mut jobs[place], place, &mut waiting).await;
                    }
                }
                Some(Action::Close) => return,
                // These come before a connection is open, or where no mail is sent.
                Some(
                    Action::Ready
                    | Action::Failed(_)
                    | Action::StartTls
                    | Action::LogIn
                    | Action::Challenge(_)
                    | Action::LoggedIn
                    | Action::Answered(_),
                ) => {}
                None if running.is_empty() && self.client.is_idle() => {
                    self.rest();
                    return;
                }
                None => self.read().await,
            }
        }
    }

    /// Gives the buffers back: thousands of connections may be kept that carry nothing.
    fn rest(&mut self) {
        self.input = Vec::new();
        *self.client.output() = Vec::new();
    }

    fn has_turn(&self, settings: &Settings) -> bool {
        !self.is_slowed && self.used < settings.messages_per_connection && self.client.can_begin()
    }

    /// Begins the job's transaction; says whether the peer is being asked.
    async fn begin(&mut self, job: &mut Job) -> bool {
        let peer = self.client.peer();
        let narrow = !peer.eight_bit_mime || (job.envelope.smtputf8 && !peer.smtputf8);
        if narrow && job.content.is_none() {
            // Without the message at hand nothing can be said of it: the declared kind counts.
            job.content = look_at(job).await.ok();
        }
        if self.client.awaited() > 0 {
            self.hear_output();
            self.ear.split_tape(self.client.awaited());
        }
        let now = self.room.clock.elapsed();
        match self.client.begin(&job.begin(&self.room.clock), now) {
            Ok(()) => {
                self.used += 1;
                self.view.messages.store(self.used, Ordering::Relaxed);
                true
            }
            Err(finished) => {
                job.apply(finished, self.room.clock.now(), &self.host);
                false
            }
        }
    }

    /// Finishes a job that is over; one with more to do here waits again.
    async fn conclude(&mut self, job: &mut Job, place: usize, waiting: &mut VecDeque<usize>) {
        if job.is_over() {
            finish(&self.room, job).await;
        } else if job.has_todo() {
            waiting.push_back(place);
        }
    }

    /// Streams the body; its end leaves only after all of it was read and proved whole.
    async fn send_body(&mut self, job: &mut Job) {
        let Some(lease) = &job.lease else { return };
        let reader = lease.open();
        if reader.size() != job.size {
            self.abandon("the message was removed while it was being sent");
            return;
        }
        let mut left = job.size_outside();
        let mut outgoing = Outgoing::new(reader, job.front.clone());
        loop {
            let piece = match outgoing.next().await {
                Ok(piece) => piece.unwrap_or_default(),
                Err(error) => {
                    let log = &self.room.log;
                    log.line(Level::Error, "unreadable")
                        .word("server", &self.room.server)
                        .word("id", job.id)
                        .word("error", &error)
                        .send();
                    self.abandon("the message cannot be read here");
                    return;
                }
            };
            let now = self.room.clock.elapsed();
            left = left.saturating_sub(piece.len() as u64);
            if left == 0 || piece.is_empty() {
                job.mark_sending(self.client.about_to_complete(), &self.host);
                self.hear_output();
                self.client.last_body(piece, now);
                self.hear_body();
                return;
            }
            self.hear_output();
            self.client.body(piece, now);
            self.hear_body();
            self.flush().await;
            while self.client.body_flow() == BodyFlow::Wait {
                self.read().await;
            }
            if self.client.body_flow() == BodyFlow::Stop {
                return;
            }
        }
    }

    fn abandon(&mut self, why: &str) {
        let ending = Ending::local(Stage::Data, EnhancedCode::transient(3, 0), why);
        self.client.abandon(&ending);
    }

    /// Writes what the machine has put out.
    pub(super) async fn flush(&mut self) {
        if self.client.output().is_empty() {
            return;
        }
        self.hear_output();
        self.heard = 0;
        let mut octets = std::mem::take(self.client.output());
        let patience = self.client.block_timeout();
        let written = tokio::select! {
            // Whoever takes octets at once waits for nothing else.
            biased;
            written = self.stream.send(&octets, patience) => written,
            ending = given_up(&self.room, &mut self.leashed) => return self.client.abandon(&ending),
        };
        octets.clear();
        match written {
            Ok(Ok(())) => {
                if self.client.output().is_empty() {
                    *self.client.output() = octets;
                }
            }
            Ok(Err(error)) => self.hear_last_word(&error).await,
            Err(_) => self.client.on_timeout(),
        }
    }

    /// Has listeners hear the commands that were put out.
    fn hear_output(&mut self) {
        if self.ear.is_open() {
            self.ear.hear(Side::Client, self.client.output().get(self.heard..).unwrap_or_default());
        }
        self.heard = self.client.output().len();
    }

    /// Has listeners know how much of a message was put out.
    fn hear_body(&mut self) {
        let put_out = self.client.output().len();
        self.ear.pass_body(put_out.saturating_sub(self.heard));
        self.heard = put_out;
    }

    /// Gives octets of the peer to the machine.
    fn take_input(&mut self) {
        if self.ear.is_open() {
            self.ear.hear(Side::Server, &self.input);
        }
        self.client.on_octets(&self.input, self.room.clock.elapsed());
    }

    /// The network refused our octets; the peer may have said why before it hung up.
    async fn hear_last_word(&mut self, error: &io::Error) {
        self.make_room();
        if let Ok(Ok(1..)) = timeout(LAST_WORD, self.stream.read_buf(&mut self.input)).await {
            self.take_input();
        }
        self.client.on_close(&words_of(error));
    }

    fn make_room(&mut self) {
        self.input.clear();
        self.input.reserve(READ_OCTETS);
    }

    /// Reads once, but not beyond the machine's deadline, nor when the room is given up.
    pub(super) async fn read(&mut self) {
        let now = self.room.clock.elapsed();
        let patience = match self.client.deadline() {
            Some(deadline) => deadline.saturating_sub(now),
            None => self.client.block_timeout(),
        };
        self.make_room();
        let reading = timeout(patience, self.stream.read_buf(&mut self.input));
        let read = tokio::select! {
            read = reading => read,
            ending = given_up(&self.room, &mut self.leashed) => return self.client.abandon(&ending),
        };
        match read {
            Ok(Ok(0)) => self.client.on_close("the host closed the connection"),
            Ok(Ok(_)) => self.take_input(),
            Ok(Err(error)) => self.client.on_close(&words_of(&error)),
            Err(_) => self.client.on_timeout(),
        }
    }

    /// Whether the connection can be used for further mail.
    pub(super) fn is_usable(&self, settings: &Settings) -> bool {
        self.client.is_idle()
            && !self.client.is_spent()
            && !self.is_slowed
            && self.used < settings.messages_per_connection
    }

    /// Whether the peer is still there and has said nothing since: looked at without waiting.
    pub(super) async fn is_fresh(&mut self) -> bool {
        self.input.clear();
        let read = self.stream.read_buf(&mut self.input);
        tokio::select! {
            biased;
            _ = read => false,
            () = std::future::ready(()) => true,
        }
    }

    /// Says goodbye and hangs up without waiting for the answer, so that another connection may take
    /// its place at once.
    pub(super) async fn make_way(mut self: Box<Self>) {
        self.client.quit(self.room.clock.elapsed());
        self.flush().await;
    }

    /// Says goodbye and hangs up.
    ///
    /// Boxed, because a task waits for each kept connection to expire, and lives on when that was
    /// taken: none of them is to hold room for the whole goodbye meanwhile.
    pub(super) fn close(self: Box<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.say_goodbye())
    }

    async fn say_goodbye(mut self: Box<Self>) {
        self.client.quit(self.room.clock.elapsed());
        loop {
            self.flush().await;
            match self.client.poll() {
                Some(Action::Close) => return,
                Some(_) => {}
                None if self.client.is_closed() => return,
                None => self.read().await,
            }
        }
    }
}

/// Waits until what is under way on a connection is to be given up; why.
pub(super) async fn given_up(room: &Room, leashed: &mut Option<Leashed>) -> Ending {
    let (status, text) = tokio::select! {
        () = room.given_up() => (EnhancedCode::transient(3, 2), "this server is stopping"),
        () = cut(leashed) => (EnhancedCode::transient(4, 2), "the session was ended here"),
    };
    Ending::local(Stage::Data, status, text)
}

/// Waits until whoever handed the connection over wants it ended.
async fn cut(leashed: &mut Option<Leashed>) {
    match leashed {
        Some(leashed) => leashed.cut().await,
        None => std::future::pending().await,
    }
}

/// The system's words for what happened, in those every administrator knows.
pub(super) fn words_of(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by the host".to_owned(),
        io::ErrorKind::BrokenPipe => "the host closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

/// Looks through the message for what a peer with narrow limits must not be sent.
async fn look_at(job: &Job) -> io::Result<Content> {
    let Some(lease) = &job.lease else { return Err(io::ErrorKind::NotFound.into()) };
    let mut reader = lease.open();
    let mut content = Content { eight_bit: false, in_header: false };
    let header = lease.read_header(usize::MAX).await?;
    content.in_header = !header.is_ascii();
    while let Some(piece) = reader.next().await? {
        content.eight_bit |= !piece.is_ascii();
    }
    Ok(content)
}
