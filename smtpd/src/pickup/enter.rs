//! One claimed file on its way into the queue, or into Badmail.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::control::PickupCheck;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::message::header::readable;
use smtpd_core::message::import::Bad;
use smtpd_core::message::pickup::Parsed;
use smtpd_core::message::received::{self, Entry, Trace};
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use smtpd_core::queue::wishes::{Priority, Wishes};
use smtpd_core::route::alias::{Locals, TooMany};
use smtpd_core::trace::event::Text;
use smtpd_core::trace::note::{Admission, Note};

use super::claim::{Claimed, ticket};
use super::filter::{Message, discarded, filter};
use super::read::{Front, PIECE_OCTETS, Reading, front};
use super::{AdoptError, Inner, Settings};
use crate::badmail::{BadmailError, Reason, Record};
use crate::directory::FileFacts;
use crate::filter::{amend, recipients_by};
use crate::observe::Level;
use crate::queue::{Body, CommitError, Draft};

use std::os::unix::ffi::OsStrExt;

/// Why a claim stays a claim for now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stuck {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Badmail(#[from] BadmailError),
    #[error("cannot read the file: {0}")]
    Read(#[from] io::Error),
    #[error("{0}; mend the file of aliases")]
    Alias(#[from] TooMany),
    #[error("a milter has it wait: {0}")]
    Filter(String),
    #[error("Pickup stops while milters look at it")]
    Stopping,
}

/// What became of a file that was not stuck.
pub(super) enum Step<T> {
    Good(T),
    Bad(Bad),
}

/// Makes a claimed file a queued message, or keeps it in Badmail. After `Ok` the claim may go.
pub(super) async fn enter(inner: &Arc<Inner>, claimed: Claimed) -> Result<(), Stuck> {
    let Claimed { name, claim, file, facts } = claimed;
    // Badmail wants the file from its start, whatever was read of it.
    let again = file.try_clone()?;
    let shown = readable(name.as_bytes());
    let bad = match queue(inner, file, &shown).await {
        Ok(Step::Good(_)) => return Ok(()),
        Ok(Step::Bad(bad)) => bad,
        Err(Stuck::Filter(words)) if is_too_old(inner, &claim) => {
            let patience = inner.settings.patience;
            Bad::Filtered(format!("it was put off for {patience}, last with these words: {words}"))
        }
        Err(stuck) => return Err(stuck),
    };
    inner.counters.pickup_bad.add_one();
    // What is kept again, after trouble or a crash, replaces what was kept.
    let id = ticket(&claim).unwrap_or_else(|| inner.queue.new_id());
    keep(inner, id, again, &facts, &shown, &bad).await?;
    Ok(())
}

/// Whether a file was claimed so long ago that nothing holds it up any more.
fn is_too_old(inner: &Inner, claim: &OsStr) -> bool {
    let claimed = ticket(claim).map(|id| Timestamp::from_millis(id.as_millis()));
    claimed.is_some_and(|at| inner.clock.now().since(at) >= inner.settings.patience)
}

/// Makes a file a queued message; its id and its octets. A file that is none is left to the caller.
pub(super) async fn adopt(
    inner: &Arc<Inner>,
    file: File,
    shown: &str,
) -> Result<(QueueId, u64), AdoptError> {
    match queue(inner, file, shown).await {
        Ok(Step::Good(entered)) => Ok(entered),
        Ok(Step::Bad(bad)) => Err(AdoptError::Bad(bad.to_string())),
        Err(stuck) => Err(AdoptError::Stuck(stuck.to_string())),
    }
}

/// Reads a file to its end.
pub(super) async fn check(
    inner: &Arc<Inner>,
    file: File,
    name: &str,
) -> Result<PickupCheck, AdoptError> {
    let rules = inner.settings.rules.clone();
    let read = blocking(move || {
        let Front { parsed, mut reading, .. } = match front(file, &rules)? {
            Ok(front) => front,
            Err(bad) => return Ok(Err(bad)),
        };
        let mut octets = Vec::new();
        while !reading.is_done() {
            octets.clear();
            if let Err(bad) = reading.piece(&mut octets)? {
                return Ok(Err(bad));
            }
        }
        Ok(rules.admit(&parsed.facts).map(|()| (parsed, reading.is_eight_bit())))
    });
    let read = read.await.map_err(|error| AdoptError::Stuck(error.to_string()))?;
    let (parsed, is_eight_bit) = read.map_err(|bad| AdoptError::Bad(bad.to_string()))?;
    Ok(inner.settings.rules.told(name, parsed, is_eight_bit))
}

async fn queue(inner: &Arc<Inner>, file: File, shown: &str) -> Result<Step<(QueueId, u64)>, Stuck> {
    let rules = inner.settings.rules.clone();
    let Front { parsed, body, reading } = match blocking(move || front(file, &rules)).await? {
        Ok(front) => front,
        Err(bad) => return Ok(Step::Bad(bad)),
    };
    if let Err(bad) = inner.settings.rules.admit(&parsed.facts) {
        return Ok(Step::Bad(bad));
    }
    let id = inner.queue.new_id();
    let now = inner.clock.now();
    let mut octets =
        Vec::with_capacity(received::PREFIX_OCTETS_MAX.min(512) + parsed.header.len() + body.len());
    write_prefix(&mut octets, &inner.settings, &parsed, id, now);
    let front = octets.len();
    octets.extend_from_slice(&parsed.header);
    octets.extend_from_slice(&body);
    drop(body);
    let (body, eight_bit) = match body_of(inner, octets, reading).await? {
        Step::Good(read) => read,
        Step::Bad(bad) => return Ok(Step::Bad(bad)),
    };
    let message = Message { parsed, body, front, eight_bit };
    let (message, work) = match filter(inner, message, (id, now)).await? {
        Step::Good(filtered) => filtered,
        Step::Bad(bad) => return Ok(Step::Bad(bad)),
    };
    let Message { parsed, body, eight_bit, .. } = message;
    let size = body.size();
    let mut envelope = envelope(inner, parsed, eight_bit, id, now, shown);
    amend(&work, &mut envelope);
    match recipients_by(&work, std::mem::take(&mut envelope.recipients)) {
        Ok(wanted) => envelope.recipients = wanted,
        Err(named) => {
            envelope.recipients = named;
            discarded(inner, (id, size), &envelope, work.discarded_by.as_deref());
            return Ok(Step::Good((id, size)));
        }
    }
    if let Some(default) = inner.settings.local_domains.first() {
        let is_local = |domain: &Domain| inner.settings.local_domains.contains(domain);
        let locals = Locals { default, is_local: &is_local };
        let about = (inner.settings.server.as_str(), id);
        envelope.recipients = inner.aliases.follow(envelope.recipients, locals, about).await?;
    }
    let line = received_line(&envelope);
    let note = note(inner, id, &envelope, size);
    match inner.queue.accept_as(id, Draft { envelope, body }).await {
        Ok(()) => {}
        // The envelope is at fault, not the disk: waiting would not help.
        Err(error) if error.is_of_the_message() => {
            return Ok(Step::Bad(Bad::Unstorable(error.to_string())));
        }
        Err(error) => return Err(error.into()),
    }
    inner.counters.pickup_taken.add_one();
    inner.counters.messages_received.add_one();
    inner.counters.octets_received.add(size);
    line.log(inner, id, size, shown);
    inner.trace.record(note);
    Ok(Step::Good((id, size)))
}

/// The message that begins with these octets, in memory or written while it is read; and whether it has an
/// octet beyond ASCII.
async fn body_of(
    inner: &Inner,
    mut octets: Vec<u8>,
    mut reading: Reading,
) -> Result<Step<(Body, bool)>, Stuck> {
    if reading.is_done() && octets.len() <= Body::MEMORY_MAX {
        return Ok(Step::Good((Body::Memory(octets), reading.is_eight_bit())));
    }
    let mut writer = inner.queue.large_body().await?;
    loop {
        writer.append(&octets).await?;
        if reading.is_done() {
            let body = Body::File(writer.finish().await?);
            return Ok(Step::Good((body, reading.is_eight_bit())));
        }
        octets.clear();
        let read = blocking(move || {
            let done = reading.piece(&mut octets)?;
            Ok(done.map(|()| (reading, octets)))
        });
        match read.await? {
            Ok(back) => (reading, octets) = back,
            Err(bad) => return Ok(Step::Bad(bad)),
        }
    }
}

/// Our trace field, and what the message lacks.
pub(super) fn write_prefix(
    out: &mut Vec<u8>,
    settings: &Settings,
    parsed: &Parsed,
    id: QueueId,
    now: Timestamp,
) {
    let only_recipient = match &parsed.recipients[..] {
        [mailbox] => Some(mailbox),
        _ => None,
    };
    let by = &settings.fqdn;
    let (entry, priority) = (Entry::Pickup, Priority::NORMAL);
    Trace { entry, by, id: Some(id), only_recipient, priority, at: now }.write(out);
    let date = (settings.rules.add_date && !parsed.facts.has_date).then_some(now);
    let wants_id = settings.rules.add_message_id && !parsed.facts.has_message_id;
    received::write_missing(out, date, wants_id.then_some(id), by);
}

fn envelope(
    inner: &Inner,
    parsed: Parsed,
    is_eight_bit: bool,
    id: QueueId,
    now: Timestamp,
    shown: &str,
) -> Envelope {
    let Parsed { sender, recipients, facts, .. } = parsed;
    // Only addresses ask for SMTPUTF8: programs that put raw octets into a Subject have been
    // served with 8BITMIME for decades, and a hop without SMTPUTF8 would have to refuse them.
    let smtputf8 = recipients.iter().chain(sender.mailbox()).any(|mailbox| !mailbox.is_ascii());
    let settings = &inner.settings;
    let added_id = (settings.rules.add_message_id && !facts.has_message_id)
        .then(|| received::message_id(id, &settings.fqdn));
    Envelope {
        hold: None,
        sender,
        recipients: recipients.into_iter().map(Recipient::plain).collect(),
        accepted_at: now,
        body: if is_eight_bit { BodyKind::EightBitMime } else { BodyKind::SevenBit },
        smtputf8,
        ret: None,
        envid: None,
        hops: facts.hops + 1,
        origin: Origin {
            via: Via::Pickup,
            client: None,
            helo: None,
            session: None,
            source: Some(shown.to_owned()),
            user: None,
            uid: None,
            checks: None,
        },
        tls_optional: facts.tls_optional,
        message_id: facts.message_id.or(added_id),
        subject: facts.subject,
        wishes: Wishes::default(),
    }
}

/// What is remembered of a message.
pub(super) fn note(inner: &Inner, id: QueueId, envelope: &Envelope, size: u64) -> Note {
    let admitted = Admission { subjects: inner.trace.wants_subjects(), ..Admission::default() };
    Note::received(&inner.settings.server, id, envelope, size, admitted)
}

/// What the log says of an envelope, kept while the queue has it.
struct ReceivedLine {
    recipients: usize,
    from: String,
    message_id: Option<String>,
    subject: Option<String>,
}

fn received_line(envelope: &Envelope) -> ReceivedLine {
    ReceivedLine {
        recipients: envelope.recipients.len(),
        from: format!("<{}>", envelope.sender),
        message_id: envelope.message_id.clone(),
        subject: envelope.subject.clone(),
    }
}

impl ReceivedLine {
    fn log(&self, inner: &Inner, id: QueueId, size: u64, shown: &str) {
        let line = inner.log.line(Level::Info, "received");
        let line = line
            .word("server", &inner.settings.server)
            .word("id", id)
            .word("via", "pickup")
            .word("size", size)
            .word("nrcpt", self.recipients)
            .word("from", &self.from)
            .maybe("msgid", self.message_id.as_ref());
        let line = match &self.subject {
            Some(subject) => line.text("subject", subject),
            None => line,
        };
        line.text("file", shown).send();
    }
}

async fn keep(
    inner: &Arc<Inner>,
    id: QueueId,
    mut file: File,
    facts: &FileFacts,
    shown: &str,
    bad: &Bad,
) -> Result<(), Stuck> {
    let written = Timestamp::from_millis(facts.modified_millis);
    let reason = match bad {
        Bad::Hops { .. } => Reason::HopCount,
        Bad::Fault(_) | Bad::LineEnd(_) | Bad::TooLarge(_) | Bad::Grew(_) => Reason::BadPickupFile,
        Bad::Unstorable(_) | Bad::Filtered(_) => Reason::General,
    };
    let (at, detail) = (inner.clock.now(), format!("{shown}: {bad}"));
    let note = Note::new("badmail", &inner.settings.server, at)
        .id(id)
        .text(Text::Source, shown)
        .text(Text::Via, Via::Pickup.as_str())
        .text(Text::Reason, reason)
        .text(Text::Words, &detail);
    let mut incoming = inner.badmail.begin(Record {
        id,
        at,
        reason,
        detail,
        sender: None,
        recipients: Vec::new(),
        source: Some(format!("Pickup/{shown}, written by uid {} at {written}", facts.uid)),
        envelope: None,
    });
    // What grew while it was read is cut where it was allowed to end.
    let mut left = inner.settings.rules.size_max.as_u64().saturating_add(1);
    file.rewind()?;
    let mut piece = Vec::new();
    while left > 0 {
        let most = left.min(PIECE_OCTETS as u64);
        (file, piece) = blocking(move || {
            piece.clear();
            (&mut file).take(most).read_to_end(&mut piece)?;
            Ok((file, piece))
        })
        .await?;
        if piece.is_empty() {
            break;
        }
        left -= piece.len() as u64;
        incoming.append(&piece).await?;
    }
    incoming.finish().await?;
    inner.trace.record(note);
    Ok(())
}

/// Runs what waits for the disk where waiting harms nobody.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A file's name for people: bounded, printable, on one line.
pub(super) fn shown(name: &OsStr) -> String {
    readable(name.as_bytes())
}
