//! Milters: programs of the operator's that look at mail before it is accepted.
//!
//! In: what a client says, stage by stage, and its message. Out: whether that may go on, in whose words not,
//! and what is to be changed. A milter is called when a client begins its first message, and not for whoever
//! only connects; it hears of the connection and of the greeting then. Each wait has an end. What a milter
//! that is broken, slow or hostile costs is told by its entry: mail waits, or goes on without it.

mod peer;
mod talk;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use mailroot_common::config::milter::Milter;
use smtpd_core::milter::MilterError;
use smtpd_core::milter::answer::{Change, Reply, Verdict};
use smtpd_core::milter::command::Command;
use smtpd_core::milter::edit::edited;
use smtpd_core::milter::offer::Stage;
use tokio::time::Instant;

use self::peer::{Again, Peer, Said, Told};
pub use self::talk::{Trouble, Values};
use crate::net::Net;
use crate::observe::{Level, Log};
use crate::resolve::Resolver;

/// How long all milters together may take over a complete message: a client waits 10 minutes for what is
/// said to it (RFC 5321 section 4.5.3.2.6).
const SHOWING_MAX: Duration = Duration::from_secs(300);

/// What the client of mail from this machine is called.
pub const LOCALHOST: &str = "localhost";

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
    /// The milter that wants it forgotten, if one does.
    pub discarded_by: Option<String>,
}

/// The milters of one session.
#[derive(Debug)]
pub struct Milters {
    peers: Vec<Peer>,
    /// Whom they were told of.
    told: Option<Who>,
    /// The one that wants the message under way forgotten.
    discarded_by: Option<String>,
    /// What they were told of the message under way.
    said: Said,
    /// When they all must be through with the message that they are shown.
    until: Instant,
}

/// How it goes on with showing a message to a milter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It wants to see more.
    More,
    /// It needs to see no more.
    Enough,
    /// It was called anew, and is to be shown the message from its beginning.
    Again,
}

impl Milters {
    /// Those of a session; none is called yet.
    #[must_use]
    pub fn new<'a>(milters: impl IntoIterator<Item = &'a Milter>) -> Self {
        let peers = milters.into_iter().map(Peer::new).collect();
        let said = Said::default();
        Self { peers, told: None, discarded_by: None, said, until: Instant::now() }
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
        (self.told, self.discarded_by) = (Some(who.clone()), None);
        (self.said, self.until) = (Said::default(), Instant::now() + SHOWING_MAX);
        // All of them first: one that refuses keeps the ones behind it from being asked.
        for peer in &mut self.peers {
            peer.rewind(anew).await;
        }
        let again = Again { who, said: &self.said, until: self.until, reach };
        for peer in &mut self.peers {
            if peer.is_closed() {
                let begun = peer.begin(who, reach).await;
                peer.settle(begun, reach)?;
            }
            let heard = peer.tell(Stage::Mail, values, Command::Mail(sender), &again).await;
            peer.note_discard(&heard, &mut self.discarded_by);
            peer.settle(heard, reach)?;
        }
        self.said.sender = Some(Told::new(sender, values));
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
        let Some(who) = &self.told else { return Ok(()) };
        let until = Instant::now() + SHOWING_MAX;
        let again = Again { who, said: &self.said, until, reach };
        for peer in &mut self.peers {
            let heard = peer.tell(Stage::Rcpt, values, Command::Rcpt(recipient), &again).await;
            peer.note_discard(&heard, &mut self.discarded_by);
            peer.settle(heard, reach)?;
        }
        self.said.recipients.push(Told::new(recipient, values));
        Ok(())
    }

    /// The one that wants the message forgotten, by what it has heard before the header.
    #[must_use]
    pub fn discarded_by(&self) -> Option<&str> {
        self.discarded_by.as_deref()
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
    ) -> Result<Next, No> {
        let (Some(peer), Some(who)) = (self.peers.get_mut(number), &self.told) else {
            return Ok(Next::Enough);
        };
        let again = Again { who, said: &self.said, until: self.until, reach };
        let mut heard = peer.header(&work.header, values, self.until).await;
        if let Err(trouble) = &heard
            && peer.is_unproved()
        {
            heard = match peer.call_again(trouble, &again).await {
                Ok(Verdict::Continue) => peer.header(&work.header, values, self.until).await,
                other => other,
            };
        }
        peer.note_discard(&heard, &mut work.discarded_by);
        let is_enough = matches!(heard, Ok(Verdict::Skip)) || !peer.wants_body();
        peer.settle(heard, reach)?;
        Ok(if !is_enough && peer.is_open() { Next::More } else { Next::Enough })
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
    ) -> Result<Next, No> {
        let (Some(peer), Some(who)) = (self.peers.get_mut(number), &self.told) else {
            return Ok(Next::Enough);
        };
        let mut heard = peer.body(piece).await;
        if let Err(trouble) = &heard
            && peer.is_unproved()
        {
            let again = Again { who, said: &self.said, until: self.until, reach };
            heard = peer.call_again(trouble, &again).await;
            if matches!(heard, Ok(Verdict::Continue)) {
                return Ok(Next::Again);
            }
        }
        peer.note_discard(&heard, &mut work.discarded_by);
        let is_enough = matches!(heard, Ok(Verdict::Skip));
        peer.settle(heard, reach)?;
        Ok(if !is_enough && peer.is_open() { Next::More } else { Next::Enough })
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
    ) -> Result<Next, No> {
        let (Some(peer), Some(who)) = (self.peers.get_mut(number), &self.told) else {
            return Ok(Next::Enough);
        };
        let verdict = match peer.end(values).await {
            Ok((verdict @ (Verdict::Continue | Verdict::Accept), changes)) => {
                let taken = work.take(changes, peer.keeps_blanks(), header_max);
                taken.map(|()| verdict).map_err(Trouble::from)
            }
            Ok((verdict, _)) => Ok(verdict),
            Err(trouble) if peer.is_unproved() => {
                let again = Again { who, said: &self.said, until: self.until, reach };
                match peer.call_again(&trouble, &again).await {
                    Ok(Verdict::Continue) => return Ok(Next::Again),
                    other => other,
                }
            }
            Err(trouble) => Err(trouble),
        };
        if matches!(verdict, Ok(Verdict::Continue | Verdict::Accept)) && !work.by.is_empty() {
            let what = std::mem::take(&mut work.by).join(", ");
            let line = reach.log.line(Level::Info, "milter").word("server", reach.server);
            let id = values.iter().find(|(name, _)| *name == "i").map(|(_, id)| *id);
            let line = line.maybe("id", id).word("milter", peer.address());
            line.text("changes", what).send();
        }
        peer.note_discard(&verdict, &mut work.discarded_by);
        peer.settle(verdict, reach)?;
        Ok(Next::Enough)
    }

    /// Says goodbye to all of them.
    pub async fn quit(&mut self) {
        for peer in &mut self.peers {
            peer.quit().await;
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
