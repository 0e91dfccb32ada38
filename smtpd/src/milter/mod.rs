//! Milters: programs of the operator's that look at mail before it is accepted.
//!
//! In: what a client says, stage by stage, and its message. Out: whether that may go on, in whose words not,
//! and what is to be changed. A milter is called when a client begins its first message, and not for whoever
//! only connects; it hears of the connection and of the greeting then. Each wait has an end. What a milter
//! that is broken, slow or hostile costs is told by its entry: mail waits, or goes on without it.

mod talk;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use mailroot_common::config::milter::{Milter, OnFailure};
use smtpd_core::milter::MilterError;
use smtpd_core::milter::answer::{Change, Reply, Verdict};
use smtpd_core::milter::command::Command;
use smtpd_core::milter::edit::edited;
use smtpd_core::milter::offer::Stage;
use tokio::time::Instant;

use self::talk::Talk;
pub use self::talk::{Trouble, Values};
use crate::net::Net;
use crate::observe::{Level, Log};
use crate::resolve::Resolver;

/// How long all milters together may take over a complete message: a client waits 10 minutes for what is
/// said to it (RFC 5321 section 4.5.3.2.6).
const SHOWING_MAX: Duration = Duration::from_secs(300);

/// By which means milters are called.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The network.
    pub net: &'a Net,
    /// Asks DNS.
    pub resolver: &'a Resolver,
    /// The log.
    pub log: &'a Log,
    /// The virtual server, for the log.
    pub server: &'a str,
    /// What we call ourselves.
    pub host: &'a str,
}

/// Who the client is, as milters are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its name, or its address in brackets.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// What it calls itself.
    pub helo: String,
    /// The version and cipher of its TLS.
    pub tls: Option<(&'static str, &'static str)>,
}

/// Why something does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum No {
    /// A milter refuses it.
    Refused,
    /// A milter puts it off.
    Deferred,
    /// A milter has words of its own for it.
    Said(Reply),
    /// A milter cannot be heard, and mail waits for it.
    Unheard,
    /// A milter wants the session ended.
    Close,
}

/// A message as milters have made it so far.
#[derive(Clone, Debug, Default)]
pub struct Work {
    /// Its header with the empty line.
    pub header: Vec<u8>,
    /// Another body, if one was given.
    pub body: Option<Vec<u8>>,
    /// What is to be done about its envelope, in order.
    pub changes: Vec<Change>,
    /// Who did what, for the log.
    pub by: Vec<String>,
    /// Whether it is to be forgotten.
    pub discard: bool,
}

/// The milters of one session.
#[derive(Debug)]
pub struct Milters {
    peers: Vec<Peer>,
    /// Whom they were told of.
    told: Option<Who>,
    /// Whether one of them wants the message under way forgotten.
    discards: bool,
    /// When they all must be through with the message that they are shown.
    until: Instant,
}

#[derive(Debug)]
struct Peer {
    milter: Milter,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It was not called yet, or is to be called again.
    Closed,
    /// It hears of the message under way.
    Open(Box<Talk>),
    /// It needs to hear no more of this message.
    Rests(Box<Talk>),
    /// It needs to hear no more of this session, or was not to be had for this message.
    Gone(Gone),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Gone {
    Satisfied,
    Unheard,
    /// It refused the client as such.
    Refused(No),
}

impl Milters {
    /// Those of a session; none is called yet.
    #[must_use]
    pub fn new(milters: &[Milter]) -> Self {
        let peer = |milter: &Milter| Peer { milter: milter.clone(), state: State::Closed };
        let peers = milters.iter().map(peer).collect();
        Self { peers, told: None, discards: false, until: Instant::now() }
    }

    /// Whether there are none.
    #[must_use]
    pub fn are_none(&self) -> bool {
        self.peers.is_empty()
    }

    /// A message begins.
    ///
    /// # Errors
    ///
    /// [`No`].
    pub async fn mail(
        &mut self,
        who: &Who,
        (sender, values): (&str, &Values<'_>),
        reach: &Reach<'_>,
    ) -> Result<(), No> {
        let anew = self.told.as_ref() != Some(who);
        (self.told, self.discards) = (Some(who.clone()), false);
        // All of them first: one that refuses keeps the ones behind it from being asked.
        for peer in &mut self.peers {
            peer.rewind(anew).await;
        }
        for peer in &mut self.peers {
            let is_new = matches!(peer.state, State::Closed);
            if is_new {
                let begun = peer.begin(who, reach).await;
                peer.settle(begun, reach)?;
            }
            let mail = Command::Mail(sender);
            let is_old = !is_new && matches!(peer.state, State::Open(_));
            let mut heard = peer.stage(Stage::Mail, values, mail).await;
            if heard.is_err() && is_old {
                // It may have hung up since the last message.
                peer.state = State::Closed;
                heard = match peer.begin(who, reach).await {
                    Ok(_) => peer.stage(Stage::Mail, values, mail).await,
                    trouble => trouble,
                };
            }
            self.discards |= matches!(heard, Ok(Verdict::Discard));
            peer.settle(heard, reach)?;
        }
        Ok(())
    }

    /// A recipient is named. What a milter says is about that one.
    ///
    /// # Errors
    ///
    /// [`No`].
    pub async fn rcpt(
        &mut self,
        (recipient, values): (&str, &Values<'_>),
        reach: &Reach<'_>,
    ) -> Result<(), No> {
        for peer in &mut self.peers {
            let heard = peer.stage(Stage::Rcpt, values, Command::Rcpt(recipient)).await;
            self.discards |= matches!(heard, Ok(Verdict::Discard));
            peer.settle(heard, reach)?;
        }
        Ok(())
    }

    /// Whether one of them wants the message forgotten, by what it has heard before the header.
    #[must_use]
    pub const fn discards(&self) -> bool {
        self.discards
    }

    /// They are to be shown a message one after the other: how many there are. Their time for all of it
    /// begins.
    pub fn showing(&mut self) -> usize {
        self.until = Instant::now() + SHOWING_MAX;
        self.peers.len()
    }

    /// Shows a milter the header; whether it wants to see the body.
    ///
    /// # Errors
    ///
    /// [`No`].
    pub async fn header(
        &mut self,
        number: usize,
        (work, values): (&mut Work, &Values<'_>),
        reach: &Reach<'_>,
    ) -> Result<bool, No> {
        let Some(peer) = self.peers.get_mut(number) else { return Ok(false) };
        let State::Open(talk) = &mut peer.state else { return Ok(false) };
        let wants_body = talk.wants_body();
        let heard = talk.header(&work.header, values, self.until).await;
        work.discard |= matches!(heard, Ok(Verdict::Discard));
        let is_enough = matches!(heard, Ok(Verdict::Skip));
        peer.settle(heard, reach)?;
        Ok(wants_body && !is_enough && matches!(peer.state, State::Open(_)))
    }

    /// Shows a milter a piece of the body; whether it wants to see more.
    ///
    /// # Errors
    ///
    /// [`No`].
    pub async fn body(
        &mut self,
        number: usize,
        (work, piece): (&mut Work, &[u8]),
        reach: &Reach<'_>,
    ) -> Result<bool, No> {
        let Some(peer) = self.peers.get_mut(number) else { return Ok(false) };
        let State::Open(talk) = &mut peer.state else { return Ok(false) };
        let heard = talk.body(piece).await;
        work.discard |= matches!(heard, Ok(Verdict::Discard));
        let is_enough = matches!(heard, Ok(Verdict::Skip));
        peer.settle(heard, reach)?;
        Ok(!is_enough && matches!(peer.state, State::Open(_)))
    }

    /// Tells a milter that the message is complete, and does what it wants.
    ///
    /// # Errors
    ///
    /// [`No`].
    pub async fn end(
        &mut self,
        number: usize,
        (work, values): (&mut Work, &Values<'_>),
        (header_max, reach): (usize, &Reach<'_>),
    ) -> Result<(), No> {
        let Some(peer) = self.peers.get_mut(number) else { return Ok(()) };
        let State::Open(talk) = &mut peer.state else { return Ok(()) };
        let (heard, keeps_blanks) = (talk.end(values).await, talk.keeps_blanks());
        let verdict = heard.and_then(|(verdict, changes)| {
            if !matches!(verdict, Verdict::Continue | Verdict::Accept) {
                return Ok(verdict);
            }
            work.take(changes, keeps_blanks, header_max)?;
            Ok(verdict)
        });
        if matches!(verdict, Ok(Verdict::Continue | Verdict::Accept)) && !work.by.is_empty() {
            let what = std::mem::take(&mut work.by).join(", ");
            let line = reach.log.line(Level::Info, "milter").word("server", reach.server);
            let id = values.iter().find(|(name, _)| *name == "i").map(|(_, id)| *id);
            let line = line.maybe("id", id).word("milter", &peer.milter.address);
            line.text("changes", what).send();
        }
        work.discard |= matches!(verdict, Ok(Verdict::Discard));
        peer.settle(verdict, reach)
    }

    /// Says goodbye to all of them.
    pub async fn quit(&mut self) {
        for peer in &mut self.peers {
            if let State::Open(talk) | State::Rests(talk) =
                std::mem::replace(&mut peer.state, State::Closed)
            {
                talk.quit().await;
            }
        }
    }
}

impl Work {
    /// Takes in what a milter wants changed: all of it, or nothing where a part of it makes no sense.
    fn take(
        &mut self,
        changes: Vec<Change>,
        keeps_blanks: bool,
        header_max: usize,
    ) -> Result<(), MilterError> {
        let header = edited(&self.header, &changes, keeps_blanks, header_max)?;
        let (mut body, mut others, mut by): (Option<Vec<u8>>, _, _) = (None, vec![], vec![]);
        for change in changes {
            by.push(words(&change));
            match change {
                Change::Body(piece) => body.get_or_insert_default().extend_from_slice(&piece),
                Change::AddHeader(_) | Change::InsertHeader(..) | Change::ChangeHeader(..) => {}
                other => others.push(other),
            }
        }
        if body.as_ref().is_some_and(|body| body.contains(&0)) {
            return Err(MilterError::Form('b'));
        }
        self.header = header;
        self.body = body.or_else(|| self.body.take());
        self.changes.append(&mut others);
        self.by.append(&mut by);
        self.by.dedup();
        Ok(())
    }
}

/// A change, for the log.
fn words(change: &Change) -> String {
    let name = |field: &smtpd_core::milter::answer::Field| {
        String::from_utf8_lossy(&field.name).into_owned()
    };
    match change {
        Change::AddHeader(field) | Change::InsertHeader(_, field) => format!("+{}", name(field)),
        Change::ChangeHeader(_, field) if field.value.is_empty() => format!("-{}", name(field)),
        Change::ChangeHeader(_, field) => format!("={}", name(field)),
        Change::Body(_) => "body".to_owned(),
        Change::AddRecipient(to) => format!("+<{to}>"),
        Change::DeleteRecipient(to) => format!("-<{to}>"),
        Change::Sender(from) => format!("from=<{from}>"),
        Change::Hold(reason) => format!("hold: {reason}"),
    }
}

impl Peer {
    /// Makes it ready for another message.
    async fn rewind(&mut self, anew: bool) {
        let was = std::mem::replace(&mut self.state, State::Closed);
        self.state = match was {
            State::Open(talk) | State::Rests(talk) if anew => {
                talk.quit().await;
                State::Closed
            }
            State::Open(mut talk) | State::Rests(mut talk) => {
                talk.abort();
                if talk.is_over().await { State::Closed } else { State::Open(talk) }
            }
            State::Gone(Gone::Satisfied | Gone::Refused(_)) if !anew => was,
            State::Gone(_) | State::Closed => State::Closed,
        };
    }

    /// Calls it, and tells it of the connection and the greeting.
    async fn begin(&mut self, who: &Who, reach: &Reach<'_>) -> Result<Verdict, Trouble> {
        let mut talk = Box::new(Talk::open(&self.milter, reach).await?);
        let address = who.address.to_string();
        let port = who.port.to_string();
        let values = [
            ("j", reach.host),
            ("{daemon_name}", reach.server),
            ("v", "Mailroot"),
            ("_", who.name.as_str()),
            ("{client_name}", who.name.as_str()),
            ("{client_ptr}", who.name.as_str()),
            ("{client_addr}", address.as_str()),
            ("{client_port}", port.as_str()),
        ];
        let connect = Command::Connect(&who.name, who.address, who.port);
        let mut verdict = talk.tell(Stage::Connect, &values, connect).await?;
        if verdict == Verdict::Continue {
            let (version, cipher) = who.tls.unwrap_or_default();
            let tls = [("{tls_version}", version), ("{cipher}", cipher)];
            let values = if who.tls.is_some() { &tls[..] } else { &[] };
            verdict = talk.tell(Stage::Hello, values, Command::Hello(&who.helo)).await?;
        }
        self.state = match verdict {
            Verdict::Continue | Verdict::Skip => State::Open(talk),
            Verdict::Accept | Verdict::Discard => {
                talk.quit().await;
                State::Gone(Gone::Satisfied)
            }
            Verdict::Reject | Verdict::Defer | Verdict::Reply(_) | Verdict::Close => {
                talk.quit().await;
                State::Gone(Gone::Refused(refusal(&verdict).unwrap_or(No::Refused)))
            }
        };
        Ok(Verdict::Continue)
    }

    async fn stage(
        &mut self,
        stage: Stage,
        values: &Values<'_>,
        command: Command<'_>,
    ) -> Result<Verdict, Trouble> {
        match &mut self.state {
            State::Open(talk) => {
                talk.renew();
                talk.tell(stage, values, command).await
            }
            State::Gone(Gone::Refused(no)) => Ok(match no {
                No::Said(reply) => Verdict::Reply(reply.clone()),
                No::Deferred | No::Unheard => Verdict::Defer,
                No::Refused => Verdict::Reject,
                No::Close => Verdict::Close,
            }),
            State::Closed | State::Rests(_) | State::Gone(_) => Ok(Verdict::Continue),
        }
    }

    /// Goes by what it said, or by what its entry says where it cannot be heard.
    fn settle(&mut self, heard: Result<Verdict, Trouble>, reach: &Reach<'_>) -> Result<(), No> {
        match heard {
            Ok(Verdict::Continue | Verdict::Skip) => Ok(()),
            Ok(Verdict::Accept | Verdict::Discard) => {
                self.state = match std::mem::replace(&mut self.state, State::Closed) {
                    State::Open(talk) => State::Rests(talk),
                    other => other,
                };
                Ok(())
            }
            Ok(verdict) => {
                if let Verdict::Reply(Reply { code, enhanced, words }) = &verdict {
                    let line = reach.log.line(Level::Info, "milter").word("server", reach.server);
                    let line = line.word("milter", &self.milter.address);
                    line.text("said", format_args!("{code} {enhanced} {words}")).send();
                }
                Err(refusal(&verdict).unwrap_or(No::Refused))
            }
            Err(trouble) => {
                self.state = State::Gone(Gone::Unheard);
                let on_failure = self.milter.on_failure;
                let line = reach.log.line(Level::Warn, "milter-failed");
                let line = line.word("server", reach.server).word("milter", &self.milter.address);
                let line = line.text("reason", &trouble);
                line.word("then", on_failure.word()).send();
                match on_failure {
                    OnFailure::Accept => Ok(()),
                    OnFailure::Defer => Err(No::Unheard),
                }
            }
        }
    }
}

/// The "no" in a verdict.
fn refusal(verdict: &Verdict) -> Option<No> {
    match verdict {
        Verdict::Reject => Some(No::Refused),
        Verdict::Defer => Some(No::Deferred),
        Verdict::Reply(reply) => Some(No::Said(reply.clone())),
        Verdict::Close => Some(No::Close),
        Verdict::Continue | Verdict::Accept | Verdict::Skip | Verdict::Discard => None,
    }
}
