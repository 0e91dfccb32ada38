//! Mail as milters see it: what they are told of a session, and what they make of a message before it is
//! durable.

use std::io;

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;
use mailroot_common::status::Class;
use smtpd_core::message::header::{self, HeaderFacts};
use smtpd_core::milter::edit::part;
use smtpd_core::policy::relay::RelayRule;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::sender::SpfFinding;
use smtpd_core::smtp::refusal::Refusal;
use smtpd_core::smtp::server::Server;
use smtpd_core::trace::event::Text;
use smtpd_core::trace::note::Note;

use super::message::{Client, FRONT_OCTETS, Large};
use super::session::Session;
use super::vouch::{Looked, Room};
use crate::filter::{self, RewriteError, Source, Stop, clean};
use crate::milter::{LOCALHOST, Milters, No, Reach, Who, Work};
use crate::observe::Level;
use crate::queue::Body;

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

impl Client<'_> {
    /// By which means milters are called; nothing if there are none.
    fn reach(&self) -> Option<Reach<'_>> {
        let parts = &self.inner.parts;
        let host = &self.settings.session.host;
        (!self.settings.milters.is_empty()).then(|| Reach {
            net: &parts.net,
            resolver: &self.settings.resolver,
            log: &parts.log,
            server: &parts.name,
            host,
        })
    }

    fn who(&self, server: &Server, port: u16) -> Who {
        let address = self.facts.client;
        let name = match self.local {
            Some(_) => LOCALHOST.to_owned(),
            None => self.name().map_or_else(|| format!("[{address}]"), str::to_owned),
        };
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
        let old = filter::part_of(&stored, id, front..behind_header).await;
        let old = old.map_err(|error| self.unread(&error))?;
        let mut work = Work { header: old.clone(), ..Work::default() };
        let source = (Source::File(&stored, behind_header), header_max);
        let shown = self.show(filters, &mut work, source, id).await;
        self.heed(shown, server)?;
        if work.discarded_by.is_some() || (work.body.is_none() && work.header == old) {
            return Ok(whole(Body::File(stored), facts, eight_bit, work));
        }
        part(&mut work.header);
        let facts = if work.header == old { facts } else { header::scan(&work.header, header_max) };
        let mut begin = field;
        self.write_front(server, id, &facts, &mut begin);
        begin.extend_from_slice(&work.header);
        let (queue, old) = (&self.inner.parts.queue, (&stored, behind_header));
        let written = filter::rewrite(queue, &begin, &work, old, id).await;
        let (made, is_ascii) = written.map_err(|error| match error {
            RewriteError::Store(error) => self.trouble(&error),
            RewriteError::Read(error) => self.unread(&error),
        })?;
        Ok(whole(Body::File(made), facts, eight_bit || !is_ascii, work))
    }

    async fn show(
        &self,
        filters: &mut Milters,
        work: &mut Work,
        (source, header_max): (Source<'_>, usize),
        id: QueueId,
    ) -> Result<(), Stop> {
        let Some(reach) = self.reach() else { return Ok(()) };
        // Boxed, so that sessions without milters hold no room for it.
        Box::pin(filter::show(filters, work, (source, id), (header_max, &reach))).await
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

    /// Tells log and trace of a message that a milter had forgotten.
    pub(super) fn discarded(
        &self,
        (id, size): (QueueId, u64),
        envelope: &Envelope,
        (by, rule): (Option<&str>, Option<&RelayRule>),
    ) {
        let parts = &self.inner.parts;
        let why = by.unwrap_or("no recipient is left");
        let line = parts.log.line(Level::Info, "discarded").word("server", &parts.name);
        let line = line.word("id", id).word("sid", self.session);
        let line = line.word("from", format_args!("<{}>", envelope.sender)).word("by", "milter");
        line.text("reason", why).send();
        if let Some(received) = self.note(id, envelope, size, rule) {
            parts.trace.record(received);
            let note = Note::new("discarded", &parts.name, envelope.accepted_at).id(id);
            parts.trace.record(note.text(Text::By, "milter").text(Text::Reason, why));
        }
        parts.counters.messages_discarded.add_one();
    }
}
