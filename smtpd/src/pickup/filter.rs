//! Files of Pickup as milters see them, before they are mail.
//!
//! In: a file that was read and has its place in memory or in the queue's directory. Out: what milters make of
//! it; or why it is for Badmail; or that it waits, because one of them wants that or cannot be heard, or because Pickup stops. Nobody
//! is there to be told of a refusal but whoever looks into Badmail, so one that is about a recipient is about
//! the file.

use std::net::Ipv4Addr;
use std::sync::Arc;

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;
use mailroot_common::status::Class;
use mailroot_common::units::Timestamp;
use smtpd_core::message::header;
use smtpd_core::message::import::Bad;
use smtpd_core::message::pickup::Parsed;
use smtpd_core::milter::edit::part;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::trace::event::Text;
use smtpd_core::trace::note::Note;

use super::Inner;
use super::enter::{Step, Stuck, note, write_prefix};
use crate::filter::{self, RewriteError, Source, Stop, clean};
use crate::milter::{LOCALHOST, Milters, No, Reach, Who, Work};
use crate::observe::Level;
use crate::queue::Body;

/// A file as it would be queued.
pub(super) struct Message {
    pub(super) parsed: Parsed,
    /// Our own fields, its header, its body.
    pub(super) body: Body,
    /// Octets of our own fields.
    pub(super) front: usize,
    pub(super) eight_bit: bool,
}

/// Has milters look at a file, if there are any.
pub(super) async fn filter(
    inner: &Arc<Inner>,
    message: Message,
    (id, now): (QueueId, Timestamp),
) -> Result<Step<(Message, Work)>, Stuck> {
    if inner.settings.milters.is_empty() {
        return Ok(Step::Good((message, Work::default())));
    }
    let mut filters = Milters::new(&inner.settings.milters);
    let mut work = Work { header: message.parsed.header.clone(), ..Work::default() };
    let mut stopping = inner.stopping.subscribe();
    let shown = tokio::select! {
        biased;
        _ = stopping.wait_for(|stops| *stops) => return Err(Stuck::Stopping),
        shown = Box::pin(show(inner, &mut filters, &mut work, &message, id)) => shown,
    };
    filters.quit().await;
    match shown {
        Ok(()) => {}
        Err(Stop::Read(error)) => return Err(error.into()),
        Err(Stop::No(no)) => return refusal(no).map(Step::Bad),
    }
    let is_same = work.body.is_none() && work.header == message.parsed.header;
    if is_same || work.discarded_by.is_some() {
        return Ok(Step::Good((message, work)));
    }
    remake(inner, message, work, (id, now)).await.map(Step::Good)
}

async fn show(
    inner: &Inner,
    filters: &mut Milters,
    work: &mut Work,
    message: &Message,
    id: QueueId,
) -> Result<(), Stop> {
    let Inner { net, resolver, log, settings, .. } = inner;
    let reach = Reach { net, resolver, log, server: &settings.server, host: &settings.fqdn };
    let who = Who {
        name: LOCALHOST.to_owned(),
        address: Ipv4Addr::LOCALHOST.into(),
        port: 0,
        helo: settings.fqdn.clone(),
        tls: None,
    };
    let parsed = &message.parsed;
    let sender = ReversePath::mailbox(&parsed.sender).map(ToString::to_string).unwrap_or_default();
    let values = [("{mail_addr}", sender.as_str())];
    filters.mail(&who, (&format!("<{sender}>"), &values), &reach).await?;
    for to in parsed.recipients.iter().map(ToString::to_string) {
        let values = [("{rcpt_addr}", to.as_str())];
        filters.rcpt((&format!("<{to}>"), &values), &reach).await?;
    }
    let behind = message.front + parsed.header.len();
    let source = match &message.body {
        Body::Memory(octets) => Source::Memory(octets.get(behind..).unwrap_or_default()),
        Body::File(stored) => Source::File(stored, behind as u64),
    };
    let header_max = settings.rules.parse.header_octets_max;
    filter::show(filters, work, (source, id), (header_max, &reach)).await
}

/// What a "no" means for a file.
fn refusal(no: No) -> Result<Bad, Stuck> {
    let words = match no {
        No::Refused => return Ok(Bad::Filtered("it gave no reason".to_owned())),
        No::Said(reply) => {
            let words = format!("{} {} {}", reply.code, reply.enhanced, reply.words);
            if reply.code.class() == Class::Permanent {
                return Ok(Bad::Filtered(words));
            }
            words
        }
        No::Deferred => "it gave no reason".to_owned(),
        No::Close => "it ended the session".to_owned(),
        No::Unheard => "it cannot be heard".to_owned(),
    };
    Err(Stuck::Filter(words))
}

/// Writes a message anew that milters have changed.
async fn remake(
    inner: &Inner,
    message: Message,
    mut work: Work,
    (id, now): (QueueId, Timestamp),
) -> Result<(Message, Work), Stuck> {
    let Message { mut parsed, body, front, eight_bit } = message;
    let behind = front + parsed.header.len();
    part(&mut work.header);
    parsed.facts = header::scan(&work.header, inner.settings.rules.parse.header_octets_max);
    parsed.header.clone_from(&work.header);
    let mut begin = Vec::new();
    write_prefix(&mut begin, &inner.settings, &parsed, id, now);
    let front = begin.len();
    begin.extend_from_slice(&work.header);
    let (body, eight_bit) = match body {
        Body::Memory(old) => {
            let changed = work.body.as_deref().map(clean);
            let old = old.get(behind..).unwrap_or_default();
            begin.extend_from_slice(changed.as_deref().unwrap_or(old));
            let eight_bit = !begin.is_ascii();
            (Body::Memory(begin), eight_bit)
        }
        Body::File(old) => {
            let old = (&old, behind as u64);
            let written = filter::rewrite(&inner.queue, &begin, &work, old, id).await;
            let (made, is_ascii) = written.map_err(|error| match error {
                RewriteError::Store(error) => Stuck::Commit(error),
                RewriteError::Read(error) => Stuck::Read(error),
            })?;
            (Body::File(made), eight_bit || !is_ascii)
        }
    };
    Ok((Message { parsed, body, front, eight_bit }, work))
}

/// Tells log and trace of a file that a milter had forgotten.
pub(super) fn discarded(
    inner: &Inner,
    (id, size): (QueueId, u64),
    envelope: &Envelope,
    by: Option<&str>,
) {
    let (server, why) = (&inner.settings.server, by.unwrap_or("no recipient is left"));
    let line = inner.log.line(Level::Info, "discarded").word("server", server).word("id", id);
    let line = line.word("from", format_args!("<{}>", envelope.sender)).word("by", "milter");
    line.text("reason", why).send();
    inner.trace.record(note(inner, id, envelope, size));
    let note = Note::new("discarded", server, envelope.accepted_at).id(id);
    inner.trace.record(note.text(Text::By, "milter").text(Text::Reason, why));
    inner.counters.messages_discarded.add_one();
}
