//! Mail as milters see it: what they are told of a session, and what they make of a message before it is
//! durable.

use std::io;

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;
use mailroot_common::message::line_ends::LineEnds;
use mailroot_common::status::Class;
use smtpd_core::message::header::{self, HeaderFacts};
use smtpd_core::milter::answer::Change;
use smtpd_core::milter::edit::part;
use smtpd_core::queue::envelope::{Envelope, Recipient};
use smtpd_core::queue::recipient::Hold;
use smtpd_core::sender::SpfFinding;
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::Server;

use super::message::{Client, FRONT_OCTETS, Large};
use super::session::Session;
use super::vouch::{Looked, Room};
use crate::milter::{Milters, No, Reach, Values, Who, Work};
use crate::observe::Level;
use crate::queue::{Body, LargeBody};

/// A message that is to be committed, or forgotten.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) id: QueueId,
    pub(super) facts: HeaderFacts,
    pub(super) body: Body,
    pub(super) eight_bit: bool,
    /// What milters want; nothing where there are none.
    pub(super) work: Work,
    /// What was found about its sender, in a few words.
    pub(super) checks: Option<String>,
}

/// Where the body of a message lies.
enum Source<'a> {
    Memory(&'a [u8]),
    /// In a file, behind so many octets that are not the body's.
    File(&'a LargeBody, u64),
}

/// Why a message does not go on.
enum Stop {
    No(No),
    Read(io::Error),
}

impl From<No> for Stop {
    fn from(no: No) -> Self {
        Self::No(no)
    }
}

/// What a client hears of it.
fn refusal(server: &mut Server, no: No) -> Refusal {
    match no {
        No::Refused => Refusal::FilterRefused,
        No::Deferred => Refusal::FilterDeferred,
        No::Unheard => Refusal::FilterUnavailable,
        No::Close => Refusal::FilterClosed,
        No::Said(reply) => {
            let refusal = match (reply.code.as_u16(), reply.code.class()) {
                (421, _) => Refusal::FilterClosed,
                (_, Class::Transient) => Refusal::FilterDeferred,
                _ => Refusal::FilterRefused,
            };
            server.say_instead(reply);
            refusal
        }
    }
}

/// Tells milters of the sender, and before the first one of the client.
pub(super) async fn sender(session: &mut Session<'_>) -> Result<(), Refusal> {
    let Some(reach) = session.client.reach() else { return Ok(()) };
    let who = session.client.who(&session.server, session.live.client().port());
    let sender = session.server.transaction().map(|it| it.sender.clone());
    let address = sender.as_ref().and_then(ReversePath::mailbox).map(ToString::to_string);
    let address = address.unwrap_or_default();
    let user = session.client.user.as_ref().map(|user| user.name.to_string());
    let mut values = vec![("{mail_addr}", address.as_str())];
    if let Some(user) = &user {
        values.extend([("{auth_authen}", user.as_str()), ("{auth_type}", "SASL")]);
    }
    let argument = format!("<{address}>");
    let heard = session.filters.mail(&who, (&argument, &values), &reach).await;
    heard.map_err(|no| refusal(&mut session.server, no))
}

/// Tells milters of a recipient.
pub(super) async fn recipient(session: &mut Session<'_>) -> Result<(), Refusal> {
    let Some(reach) = session.client.reach() else { return Ok(()) };
    let address = session.server.candidate().map(|it| it.mailbox.to_string()).unwrap_or_default();
    let (argument, values) = (format!("<{address}>"), [("{rcpt_addr}", address.as_str())]);
    let heard = session.filters.rcpt((&argument, &values), &reach).await;
    heard.map_err(|no| refusal(&mut session.server, no))
}

/// Shows a message to each milter, as the ones before have made it.
async fn show(
    filters: &mut Milters,
    work: &mut Work,
    (source, values, id): (Source<'_>, &Values<'_>, QueueId),
    (header_max, reach): (usize, &Reach<'_>),
) -> Result<(), Stop> {
    for number in 0..filters.showing() {
        let mut more = filters.header(number, (work, values), reach).await?;
        if let Some(body) = work.body.take() {
            if more {
                filters.body(number, (work, &body), reach).await?;
            }
            work.body = Some(body);
        } else {
            match &source {
                Source::Memory(octets) if more => {
                    filters.body(number, (work, octets), reach).await?;
                }
                Source::File(stored, front) if more => {
                    let mut skip = *front;
                    let mut reader = stored.read(id).await.map_err(Stop::Read)?;
                    while let (true, Some(piece)) = (more, reader.next().await.map_err(Stop::Read)?)
                    {
                        more =
                            filters.body(number, (work, behind(piece, &mut skip)), reach).await?;
                    }
                }
                Source::Memory(_) | Source::File(..) => {}
            }
        }
        if !work.discard {
            filters.end(number, (work, values), (header_max, reach)).await?;
        }
        if work.discard {
            return Ok(());
        }
    }
    Ok(())
}

/// What is left of a piece when so many octets are passed over.
fn behind<'a>(piece: &'a [u8], skip: &mut u64) -> &'a [u8] {
    let now = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
    *skip -= now as u64;
    piece.get(now..).unwrap_or_default()
}

/// A body of a milter's, with the line ends of mail.
fn clean(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut ends = LineEnds::new(true, false);
    // What may be fixed is no fault.
    ends.feed(body, &mut out).unwrap_or_default();
    ends.finish(&mut out).unwrap_or_default();
    out
}

impl Client<'_> {
    /// By which means milters are called; nothing if there are none.
    fn reach(&self) -> Option<Reach<'_>> {
        let parts = &self.inner.parts;
        let host = &self.settings.session.host;
        (!self.settings.milters.is_empty() && self.local.is_none()).then(|| Reach {
            net: &parts.net,
            resolver: &self.settings.resolver,
            log: &parts.log,
            server: &parts.name,
            host,
        })
    }

    fn who(&self, server: &Server, port: u16) -> Who {
        let address = self.facts.client;
        let name = self.name().map_or_else(|| format!("[{address}]"), str::to_owned);
        let helo = server.hello().map(|hello| hello.name.clone()).unwrap_or_default();
        Who { name, address, port, helo, tls: self.tls.map(|tls| (tls.version, tls.cipher)) }
    }

    /// Has milters look at a message that is in memory, as it was found to be.
    pub(super) async fn filter(
        &self,
        server: &mut Server,
        filters: &mut Milters,
        spf: Option<&SpfFinding>,
    ) -> Result<Arrived, Refusal> {
        let header_max = self.settings.session.body.header_max;
        let facts = header::scan(server.body(), header_max);
        let id = self.inner.parts.queue.new_id();
        let looked = self.look(server, &facts, spf).await?;
        let (came, rest) = server.body().split_at(facts.header_octets);
        let (field, header, checks) = match looked {
            Some(Looked { field, header, words }) => (field, header, Some(words)),
            None => (Vec::new(), came.to_vec(), None),
        };
        let mut work = Work { header: header.clone(), ..Work::default() };
        let source = (Source::Memory(rest), header_max);
        let shown = self.show(filters, &mut work, source, id).await;
        if work.body.is_some() || work.header != header {
            part(&mut work.header);
        }
        let body = work.body.as_deref().map(clean);
        let message = [&work.header, body.as_deref().unwrap_or(rest)].concat();
        self.heed(shown, server)?;
        let facts = header::scan(&message, header_max);
        let mut octets = Vec::with_capacity(field.len() + message.len() + FRONT_OCTETS);
        octets.extend_from_slice(&field);
        self.write_front(server, id, &facts, &mut octets);
        octets.extend_from_slice(&message);
        server.body_taken();
        let eight_bit = !message.is_ascii();
        Ok(Arrived { id, facts, body: Body::Memory(octets), eight_bit, work, checks })
    }

    /// Has milters look at a message that is in a file; one that they change is written anew.
    pub(super) async fn filter_large(
        &self,
        server: &mut Server,
        large: Large,
        (filters, spf): (&mut Milters, Option<&SpfFinding>),
    ) -> Result<Arrived, Refusal> {
        let Large { id, facts, mut writer, eight_bit, front, header, vouch } = large;
        let (mut field, mut checks) = (Vec::new(), None);
        if let Some(vouch) = vouch {
            let vouched = self.vouch(vouch, Room::Kept, spf).await?;
            writer.begin_with(&vouched.field).await.map_err(|error| self.trouble(&error))?;
            (field, checks) = (vouched.field, Some(vouched.words));
        }
        let stored = writer.finish().await.map_err(|error| self.trouble(&error))?;
        let whole =
            |body, facts, eight_bit, work| Arrived { id, facts, body, eight_bit, work, checks };
        if filters.are_none() {
            return Ok(whole(Body::File(stored), facts, eight_bit, Work::default()));
        }
        let header_max = self.settings.session.body.header_max;
        let behind_header = front + header;
        let old = self.read_part(&stored, id, front..behind_header).await?;
        let mut work = Work { header: old.clone(), ..Work::default() };
        let source = (Source::File(&stored, behind_header), header_max);
        let shown = self.show(filters, &mut work, source, id).await;
        self.heed(shown, server)?;
        if work.discard || (work.body.is_none() && work.header == old) {
            return Ok(whole(Body::File(stored), facts, eight_bit, work));
        }
        part(&mut work.header);
        let facts = if work.header == old { facts } else { header::scan(&work.header, header_max) };
        let mut begin = field;
        self.write_front(server, id, &facts, &mut begin);
        begin.extend_from_slice(&work.header);
        let (made, is_ascii) = self.rewrite(&begin, &work, (&stored, behind_header), id).await?;
        Ok(whole(Body::File(made), facts, eight_bit || !is_ascii, work))
    }

    /// Writes a changed message: a new beginning, and the old body or another one.
    async fn rewrite(
        &self,
        begin: &[u8],
        work: &Work,
        (stored, skip): (&LargeBody, u64),
        id: QueueId,
    ) -> Result<(LargeBody, bool), Refusal> {
        let trouble = |error| self.trouble(&error);
        let mut writer = self.inner.parts.queue.large_body().await.map_err(trouble)?;
        writer.append(begin).await.map_err(trouble)?;
        let mut is_ascii = begin.is_ascii();
        if let Some(body) = work.body.as_deref().map(clean) {
            is_ascii &= body.is_ascii();
            writer.append(&body).await.map_err(trouble)?;
        } else {
            let mut skip = skip;
            let mut reader = stored.read(id).await.map_err(|error| self.unread(&error))?;
            while let Some(piece) = reader.next().await.map_err(|error| self.unread(&error))? {
                writer.append(behind(piece, &mut skip)).await.map_err(trouble)?;
            }
        }
        Ok((writer.finish().await.map_err(trouble)?, is_ascii))
    }

    async fn read_part(
        &self,
        stored: &LargeBody,
        id: QueueId,
        part: std::ops::Range<u64>,
    ) -> Result<Vec<u8>, Refusal> {
        let mut skip = part.start;
        let wanted = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        let mut found = Vec::new();
        let mut reader = stored.read(id).await.map_err(|error| self.unread(&error))?;
        while found.len() < wanted
            && let Some(piece) = reader.next().await.map_err(|error| self.unread(&error))?
        {
            found.extend_from_slice(behind(piece, &mut skip));
        }
        found.truncate(wanted);
        Ok(found)
    }

    async fn show(
        &self,
        filters: &mut Milters,
        work: &mut Work,
        (source, header_max): (Source<'_>, usize),
        id: QueueId,
    ) -> Result<(), Stop> {
        let Some(reach) = self.reach() else { return Ok(()) };
        let name = id.to_string();
        work.discard |= filters.discards();
        if work.discard {
            return Ok(());
        }
        let values = [("i", name.as_str())];
        // Boxed, so that sessions without milters hold no room for it.
        let shown = show(filters, work, (source, &values, id), (header_max, &reach));
        Box::pin(shown).await
    }

    fn heed(&self, shown: Result<(), Stop>, server: &mut Server) -> Result<(), Refusal> {
        shown.map_err(|stop| match stop {
            Stop::No(no) => refusal(server, no),
            Stop::Read(error) => self.unread(&error),
        })
    }

    fn unread(&self, error: &io::Error) -> Refusal {
        let line = self.inner.parts.log.line(Level::Error, "not-read");
        let line = line.word("server", &self.inner.parts.name).word("sid", self.session);
        line.text("reason", error).send();
        Refusal::LocalTrouble
    }

    /// The recipients as milters want them.
    pub(super) fn recipients_by(work: &Work, mut recipients: Vec<Recipient>) -> Vec<Recipient> {
        for change in &work.changes {
            match change {
                Change::AddRecipient(to) if !recipients.iter().any(|it| it.mailbox == *to) => {
                    recipients.push(Recipient::plain(to.clone()));
                }
                Change::DeleteRecipient(to) => recipients.retain(|it| it.mailbox != *to),
                _ => {}
            }
        }
        recipients
    }

    /// The rest of what they want of the envelope.
    pub(super) fn amend(work: &Work, envelope: &mut Envelope) {
        for change in &work.changes {
            match change {
                Change::Sender(sender) => envelope.sender = sender.clone(),
                Change::Hold(reason) => {
                    let (by, since) = ("milter".to_owned(), envelope.accepted_at);
                    let reason = Some(reason.clone()).filter(|reason| !reason.is_empty());
                    envelope.hold = Some(Hold { by, reason, since });
                }
                _ => {}
            }
        }
    }

    /// Tells the log of a message that a milter had forgotten.
    pub(super) fn discarded(&self, id: QueueId, server: &Server) {
        let line = self.inner.parts.log.line(Level::Info, "discarded");
        let line = line.word("server", &self.inner.parts.name).word("id", id);
        let from = server.transaction().map(|it| format!("<{}>", it.sender));
        line.word("sid", self.session).maybe("from", from).word("by", "milter").send();
        self.inner.parts.counters.messages_discarded.add_one();
    }
}
