//! Who listens to sessions, and what they hear.
//!
//! A session that nobody listens to pays for one look at a number. One that is listened to hands each
//! line to every listener who wants it; a listener who is slow loses lines and is told how many. No
//! session ever waits for a listener.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use mailroot_common::control::{DialogueLine, Direction, Spoken};
use mailroot_common::id::{QueueId, SessionId};
use mailroot_common::units::Timestamp;
use smtpd_core::smtp::dialogue::{Dialogue, Said, Side};
use tokio::sync::mpsc;

use super::followed::Followed;
use super::tape::Tape;
use crate::clock::Clock;

/// Lines that wait for a slow listener; more are lost to it.
const LINES_MAX: usize = 1_000;

/// The listeners. Cheap to clone.
#[derive(Clone, Default)]
pub struct Dialogues(Arc<Hub>);

#[derive(Default)]
struct Hub {
    count: AtomicUsize,
    /// Whether sessions that others began keep what was said in them lately.
    keeps_inbound: AtomicBool,
    /// The same of those that we began.
    keeps_outbound: AtomicBool,
    /// Messages whose senders see what becomes of them; sessions that we begin keep what was said as long
    /// as there are any.
    followed: Followed,
    /// Moves whenever somebody comes or goes.
    changes: AtomicUsize,
    listeners: Mutex<Vec<Arc<Listener>>>,
}

impl Hub {
    const fn keeps(&self, direction: Direction) -> &AtomicBool {
        match direction {
            Direction::In => &self.keeps_inbound,
            Direction::Out => &self.keeps_outbound,
        }
    }
}

struct Listener {
    wants: Box<dyn Fn(&Party) -> bool + Send + Sync>,
    lines: mpsc::Sender<DialogueLine>,
    lost: AtomicU64,
    /// Whether it hears sessions to their end, also while the daemon stops.
    stays: bool,
}

impl fmt::Debug for Dialogues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.count.load(Ordering::Relaxed);
        f.debug_struct("Dialogues").field("listeners", &count).finish()
    }
}

/// A session as listeners know it.
#[derive(Clone, Debug)]
pub struct Party {
    /// Its name.
    pub id: SessionId,
    /// The virtual server.
    pub server: Arc<str>,
    /// Who connected.
    pub direction: Direction,
    /// The other side.
    pub peer: SocketAddr,
}

/// What a listener hears.
pub(super) type Words = mpsc::Receiver<DialogueLine>;

/// Somebody listens until this is dropped.
pub struct Listening {
    place: Place,
    lines: Words,
}

/// A listener's place; once it is dropped, what was heard so far is all.
pub(super) struct Place {
    hub: Arc<Hub>,
    listener: Weak<Listener>,
}

/// The sender of a message sees what becomes of it.
pub struct Follow {
    hub: Arc<Hub>,
    message: QueueId,
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.hub.followed.take(self.message);
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Follow").field(&self.message).finish()
    }
}

impl Listening {
    /// Whether no line is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The next line, with how many were lost before it; nothing once the daemon stops.
    pub async fn next(&mut self) -> Option<DialogueLine> {
        self.lines.recv().await
    }

    /// The place, and what is heard from it.
    pub(super) fn split(self) -> (Place, Words) {
        (self.place, self.lines)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut listeners = lock(&self.hub.listeners);
        listeners.retain(|listener| !std::ptr::eq(Arc::as_ptr(listener), self.listener.as_ptr()));
        self.hub.count.store(listeners.len(), Ordering::Relaxed);
        self.hub.changes.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Dialogues {
    /// Begins to listen to the sessions that `wants` chooses.
    pub fn listen(&self, wants: impl Fn(&Party) -> bool + Send + Sync + 'static) -> Listening {
        self.begin(LINES_MAX, wants, false)
    }

    /// The same for whoever hears sessions to their end, and for whom so many lines may wait.
    pub(super) fn listen_on(
        &self,
        lines_max: usize,
        wants: impl Fn(&Party) -> bool + Send + Sync + 'static,
    ) -> Listening {
        self.begin(lines_max, wants, true)
    }

    fn begin(
        &self,
        lines_max: usize,
        wants: impl Fn(&Party) -> bool + Send + Sync + 'static,
        stays: bool,
    ) -> Listening {
        let (sender, lines) = mpsc::channel(lines_max);
        let lost = AtomicU64::new(0);
        let listener = Arc::new(Listener { wants: Box::new(wants), lines: sender, lost, stays });
        let mut listeners = lock(&self.0.listeners);
        listeners.push(Arc::clone(&listener));
        self.0.changes.fetch_add(1, Ordering::Relaxed);
        self.0.count.store(listeners.len(), Ordering::Relaxed);
        drop(listeners);
        let listener = Arc::downgrade(&listener);
        Listening { place: Place { hub: Arc::clone(&self.0), listener }, lines }
    }

    /// Sends all listeners away but those that hear sessions to their end.
    pub fn close(&self) {
        let mut listeners = lock(&self.0.listeners);
        listeners.retain(|listener| listener.stays);
        self.0.count.store(listeners.len(), Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether sessions of a direction are to keep what was said in them until somebody asks: see
    /// [`Ear::take_tape`].
    pub fn keep(&self, direction: Direction, keeps: bool) {
        self.0.keeps(direction).store(keeps, Ordering::Relaxed);
    }

    /// A sender sees what becomes of a message until this is dropped.
    #[must_use]
    pub fn follow(&self, message: QueueId) -> Follow {
        self.0.followed.add(message);
        Follow { hub: Arc::clone(&self.0), message }
    }

    /// Whether a sender sees what becomes of a message.
    #[must_use]
    pub fn is_followed(&self, message: QueueId) -> bool {
        self.0.followed.has(message)
    }

    /// The ear at a session.
    #[must_use]
    pub fn ear(&self, party: Party, clock: Clock) -> Ear {
        let hub = Arc::clone(&self.0);
        let mut ear = Ear { hub, clock, party, heard: None, tape: None };
        ear.tape = ear.is_kept().then(Box::default);
        ear
    }
}

/// What a session says goes in here.
pub struct Ear {
    hub: Arc<Hub>,
    clock: Clock,
    party: Party,
    heard: Option<Box<Heard>>,
    tape: Option<Box<Tape>>,
}

/// A session that was listened to when it last said something.
struct Heard {
    /// [`Hub::changes`] when the listeners were asked.
    as_of: usize,
    /// Only the hub keeps them: a session that rests holds nobody.
    listeners: Vec<Weak<Listener>>,
    dialogue: Dialogue,
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").field("party", &self.party).finish_non_exhaustive()
    }
}

impl Ear {
    /// Whether anybody listens to any session, or what is said in this one is kept. If not, nothing need be handed in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.has_listeners() || self.is_kept()
    }

    fn is_kept(&self) -> bool {
        let direction = self.party.direction;
        self.hub.keeps(direction).load(Ordering::Relaxed)
            || direction == Direction::Out && self.hub.followed.is_any()
    }

    fn has_listeners(&self) -> bool {
        self.hub.count.load(Ordering::Relaxed) > 0
    }

    /// What is kept, where it is to be.
    fn tape(&mut self) -> Option<&mut Tape> {
        if !self.is_kept() {
            self.tape = None;
            return None;
        }
        Some(self.tape.get_or_insert_with(|| Box::new(Tape::late())))
    }

    /// What was said since the last time this was asked, each line with `C: ` or `S: ` in front; nothing
    /// where it is not kept.
    pub fn take_tape(&mut self) -> Option<String> {
        self.tape()?.take()
    }

    /// Another message is begun before all replies that concern the last have come: so many have not.
    /// What is kept is told apart, and that of the last is what is asked for next.
    pub fn split_tape(&mut self, replies: usize) {
        if let Some(tape) = self.tape() {
            tape.split(replies);
        }
    }

    /// Takes commands or replies.
    pub fn hear(&mut self, side: Side, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        if let Some(tape) = self.tape() {
            tape.hear(side, octets);
        }
        if !self.attend() {
            return;
        }
        let Self { clock, party, heard, .. } = self;
        if let Some(Heard { listeners, dialogue, .. }) = heard.as_deref_mut() {
            dialogue.take(side, octets, |said| tell(listeners, party, clock.now(), said));
        }
    }

    /// Takes how many octets of a message went by.
    pub fn pass_body(&mut self, octets: usize) {
        if let Some(tape) = self.tape().filter(|_| octets > 0) {
            tape.pass_body(octets);
        }
        if octets > 0
            && self.attend()
            && let Some(heard) = &mut self.heard
        {
            heard.dialogue.pass_body(octets as u64);
        }
    }

    /// Whether anybody listens to this session.
    fn attend(&mut self) -> bool {
        if !self.has_listeners() {
            self.heard = None;
            return false;
        }
        let now = self.hub.changes.load(Ordering::Relaxed);
        if self.heard.as_ref().is_none_or(|heard| heard.as_of != now) {
            let wanted = |listener: &&Arc<Listener>| (listener.wants)(&self.party);
            let listeners: Vec<_> =
                lock(&self.hub.listeners).iter().filter(wanted).map(Arc::downgrade).collect();
            // Whoever listened before knows whether a secret is being said.
            let before = self.heard.take().filter(|heard| !heard.listeners.is_empty());
            let dialogue = before.map(|heard| heard.dialogue).unwrap_or_default();
            self.heard = Some(Box::new(Heard { as_of: now, listeners, dialogue }));
        }
        self.heard.as_ref().is_some_and(|heard| !heard.listeners.is_empty())
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        if !self.attend() {
            return;
        }
        let Some(Heard { listeners, dialogue, .. }) = self.heard.as_deref_mut() else { return };
        let now = self.clock.now();
        dialogue.finish(|said| tell(listeners, &self.party, now, said));
        let end = line(&self.party, now, Spoken::End);
        tell_all(listeners, &end);
    }
}

fn line(party: &Party, at: Timestamp, what: Spoken) -> DialogueLine {
    DialogueLine {
        at,
        id: party.id,
        server: party.server.to_string(),
        direction: party.direction,
        peer: party.peer.to_string(),
        what,
        text: None,
        octets: None,
        lost: 0,
    }
}

fn tell(listeners: &[Weak<Listener>], party: &Party, now: Timestamp, said: Said) {
    let line = match said {
        Said::Line(Side::Client, text) => {
            DialogueLine { text: Some(text), ..line(party, now, Spoken::Client) }
        }
        Said::Line(Side::Server, text) => {
            DialogueLine { text: Some(text), ..line(party, now, Spoken::Server) }
        }
        Said::Body(octets) => {
            DialogueLine { octets: Some(octets), ..line(party, now, Spoken::Body) }
        }
    };
    tell_all(listeners, &line);
}

fn tell_all(listeners: &[Weak<Listener>], line: &DialogueLine) {
    listeners.iter().filter_map(Weak::upgrade).for_each(|listener| listener.tell(line.clone()));
}

impl Listener {
    fn tell(&self, mut line: DialogueLine) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        line.lost = lost;
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ear(dialogues: &Dialogues, id: u64) -> Ear {
        let party = Party {
            id: SessionId::from_u64(id),
            server: "default".into(),
            direction: Direction::In,
            peer: "192.0.2.1:4000".parse().unwrap(),
        };
        dialogues.ear(party, Clock::real())
    }

    #[test]
    fn what_is_kept_of_one_direction_costs_the_other_nothing() {
        let dialogues = Dialogues::default();
        let mut client = ear(&dialogues, 1);
        dialogues.keep(Direction::Out, true);
        client.hear(Side::Client, b"NOOP\r\n");
        assert!(!client.is_open() && client.take_tape().is_none() && client.tape.is_none());
        dialogues.keep(Direction::In, true);
        client.hear(Side::Client, b"NOOP\r\n");
        client.hear(Side::Client, b"MAIL FROM:<>\r\n");
        let said = client.take_tape();
        assert!(client.is_open() && said.is_some_and(|said| said == "C: MAIL FROM:<>"));
    }

    #[test]
    fn what_is_said_is_kept_while_a_message_is_followed() {
        let dialogues = Dialogues::default();
        let outward = || {
            let party = Party { direction: Direction::Out, ..ear(&dialogues, 1).party.clone() };
            dialogues.ear(party, Clock::real())
        };
        let (one, other) = (QueueId::from_u64(1), QueueId::from_u64(2));
        let follow = dialogues.follow(one);
        assert!(dialogues.is_followed(one) && !dialogues.is_followed(other));
        let mut host = outward();
        host.hear(Side::Server, b"220 mx\r\n");
        assert!(host.take_tape().is_some() && !ear(&dialogues, 2).is_open());
        drop(follow);
        host.hear(Side::Server, b"250 ok\r\n");
        assert!(host.take_tape().is_none() && !dialogues.is_followed(one));
    }

    #[tokio::test]
    async fn listeners_hear_what_they_want_and_nothing_is_kept_for_nobody() {
        let dialogues = Dialogues::default();
        let (mut one, mut other) = (ear(&dialogues, 1), ear(&dialogues, 2));
        one.hear(Side::Client, b"EHLO before\r\n");
        assert!(!one.is_open() && one.heard.is_none());
        let mut listening = dialogues.listen(|party| party.id == SessionId::from_u64(1));
        one.hear(Side::Client, b"EHLO x\r\n");
        other.hear(Side::Client, b"EHLO y\r\n");
        one.pass_body(7);
        drop(one);
        let mut heard = Vec::new();
        while heard.last() != Some(&Spoken::End) {
            heard.push(listening.next().await.unwrap().what);
        }
        assert_eq!(heard, [Spoken::Client, Spoken::Body, Spoken::End]);
        drop(listening);
        other.hear(Side::Client, b"NOOP\r\n");
        let mut last = dialogues.listen(|_| true);
        other.hear(Side::Client, b"NOOP\r\n");
        assert!(last.next().await.is_some());
        dialogues.close();
        assert!(last.next().await.is_none());
        other.hear(Side::Client, b"NOOP\r\n");
        assert!(!other.is_open() && other.heard.is_none());
    }

    #[tokio::test]
    async fn a_slow_listener_loses_lines_and_is_told_how_many() {
        let dialogues = Dialogues::default();
        let mut one = ear(&dialogues, 1);
        let mut listening = dialogues.listen(|_| true);
        for _ in 0..LINES_MAX + 5 {
            one.hear(Side::Server, b"250 ok\r\n");
        }
        for _ in 0..LINES_MAX {
            assert_eq!(listening.next().await.unwrap().lost, 0);
        }
        one.hear(Side::Server, b"250 ok\r\n");
        assert_eq!(listening.next().await.unwrap().lost, 5);
    }

    #[tokio::test]
    async fn a_second_listener_does_not_unmask_what_the_first_must_not_see() {
        let dialogues = Dialogues::default();
        let mut one = ear(&dialogues, 1);
        let mut first = dialogues.listen(|_| true);
        one.hear(Side::Server, b"220 mx\r\n");
        one.hear(Side::Client, b"AUTH LOGIN\r\n");
        let _second = dialogues.listen(|_| true);
        one.hear(Side::Server, b"334 VXNlcm5hbWU6\r\n");
        one.hear(Side::Client, b"QUIT\r\n");
        let mut texts = Vec::new();
        for _ in 0..4 {
            texts.extend(first.next().await.unwrap().text);
        }
        assert_eq!(texts, ["220 mx", "AUTH LOGIN", "334 ***", "***"]);
    }
}
