//! Messages on their way through milters: shown to them, and made anew where they want that.
//!
//! In: a message in memory or in a file of the queue, whoever received it. Out: what milters make of it, before
//! it is durable.

use std::io;
use std::ops::Range;

use mailroot_common::id::QueueId;
use mailroot_common::message::line_ends::LineEnds;
use smtpd_core::milter::answer::Change;
use smtpd_core::queue::envelope::{Envelope, Recipient};
use smtpd_core::queue::recipient::Hold;

use crate::milter::{Milters, Next, No, Reach, Values, Work};
use crate::queue::{CommitError, LargeBody, Queue};

/// Where the body of a message lies.
#[derive(Debug)]
pub enum Source<'a> {
    /// In memory.
    Memory(&'a [u8]),
    /// In a file, behind so many octets that are not the body's.
    File(&'a LargeBody, u64),
}

/// Why a message does not go on.
#[derive(Debug)]
pub enum Stop {
    /// A milter does not want it.
    No(No),
    /// It cannot be read back.
    Read(io::Error),
}

impl From<No> for Stop {
    fn from(no: No) -> Self {
        Self::No(no)
    }
}

/// Why a message that was changed cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// The queue would not.
    #[error(transparent)]
    Store(#[from] CommitError),
    /// It cannot be read back.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// Shows a message to each milter, as the ones before have made it. What they know of it is its id.
///
/// # Errors
///
/// [`Stop`].
pub async fn show(
    filters: &mut Milters,
    work: &mut Work,
    (source, id): (Source<'_>, QueueId),
    (header_max, reach): (usize, &Reach<'_>),
) -> Result<(), Stop> {
    work.discarded_by = filters.discarded_by().map(str::to_owned);
    if work.discarded_by.is_some() {
        return Ok(());
    }
    let name = id.to_string();
    let (values, means) = ([("i", name.as_str())], (header_max, reach));
    let shown = (&source, &values[..], id);
    for number in 0..filters.showing() {
        if show_to(filters, number, work, shown, means).await? == Next::Again {
            show_to(filters, number, work, shown, means).await?;
        }
        if work.discarded_by.is_some() {
            return Ok(());
        }
    }
    Ok(())
}

/// Shows a message to one milter.
async fn show_to(
    filters: &mut Milters,
    number: usize,
    work: &mut Work,
    (source, values, id): (&Source<'_>, &Values<'_>, QueueId),
    (header_max, reach): (usize, &Reach<'_>),
) -> Result<Next, Stop> {
    let mut next = filters.header(number, (work, values), reach).await?;
    if let Some(body) = work.body.take() {
        if next == Next::More {
            next = filters.body(number, (work, &body), reach).await?;
        }
        work.body = Some(body);
    } else {
        match source {
            Source::Memory(octets) if next == Next::More => {
                next = filters.body(number, (work, octets), reach).await?;
            }
            Source::File(stored, front) if next == Next::More => {
                let mut skip = *front;
                let mut reader = stored.read(id).await.map_err(Stop::Read)?;
                while let (Next::More, Some(piece)) =
                    (next, reader.next().await.map_err(Stop::Read)?)
                {
                    next = filters.body(number, (work, behind(piece, &mut skip)), reach).await?;
                }
            }
            Source::Memory(_) | Source::File(..) => {}
        }
    }
    if next != Next::Again && work.discarded_by.is_none() {
        next = filters.end(number, (work, values), (header_max, reach)).await?;
    }
    Ok(next)
}

/// What is left of a piece when so many octets are passed over.
fn behind<'a>(piece: &'a [u8], skip: &mut u64) -> &'a [u8] {
    let now = usize::try_from(*skip).unwrap_or(usize::MAX).min(piece.len());
    *skip -= now as u64;
    piece.get(now..).unwrap_or_default()
}

/// A body of a milter's, with the line ends of mail.
#[must_use]
pub fn clean(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut ends = LineEnds::new(true, false);
    // What may be fixed is no fault.
    ends.feed(body, &mut out).unwrap_or_default();
    ends.finish(&mut out).unwrap_or_default();
    out
}

/// A part of a stored message.
///
/// # Errors
///
/// Those of reading.
pub async fn part_of(stored: &LargeBody, id: QueueId, part: Range<u64>) -> io::Result<Vec<u8>> {
    let mut skip = part.start;
    let wanted = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    let mut reader = stored.read(id).await?;
    while found.len() < wanted
        && let Some(piece) = reader.next().await?
    {
        found.extend_from_slice(behind(piece, &mut skip));
    }
    found.truncate(wanted);
    Ok(found)
}

/// Writes a changed message: a new beginning, and another body or the old one behind so many octets; and
/// whether it is of ASCII alone as far as it is new.
///
/// # Errors
///
/// [`RewriteError`].
pub async fn rewrite(
    queue: &Queue,
    begin: &[u8],
    work: &Work,
    (stored, skip): (&LargeBody, u64),
    id: QueueId,
) -> Result<(LargeBody, bool), RewriteError> {
    let mut writer = queue.large_body().await?;
    writer.append(begin).await?;
    let mut is_ascii = begin.is_ascii();
    if let Some(body) = work.body.as_deref().map(clean) {
        is_ascii &= body.is_ascii();
        writer.append(&body).await?;
    } else {
        let mut skip = skip;
        let mut reader = stored.read(id).await?;
        while let Some(piece) = reader.next().await? {
            writer.append(behind(piece, &mut skip)).await?;
        }
    }
    Ok((writer.finish().await?, is_ascii))
}

/// The recipients as milters want them.
///
/// # Errors
///
/// Those that were named, where the message is to be forgotten.
pub fn recipients_by(work: &Work, named: Vec<Recipient>) -> Result<Vec<Recipient>, Vec<Recipient>> {
    if work.discarded_by.is_some() {
        return Err(named);
    }
    if work.changes.is_empty() {
        return Ok(named);
    }
    let mut recipients = named.clone();
    for change in &work.changes {
        match change {
            Change::AddRecipient(to) if !recipients.iter().any(|it| it.mailbox == *to) => {
                recipients.push(Recipient { forwarded: true, ..Recipient::plain(to.clone()) });
            }
            Change::DeleteRecipient(to) => recipients.retain(|it| it.mailbox != *to),
            _ => {}
        }
    }
    if recipients.is_empty() { Err(named) } else { Ok(recipients) }
}

/// The rest of what they want of the envelope.
pub fn amend(work: &Work, envelope: &mut Envelope) {
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

#[cfg(test)]
mod tests {
    use mailroot_common::address::Mailbox;

    use super::*;

    #[test]
    fn a_recipient_that_a_milter_adds_is_known_as_led_here() {
        let [named, added] = ["a@x.example", "b@y.example"].map(|it| Mailbox::parse(it).unwrap());
        let changes = [&named, &added].map(|to| Change::AddRecipient(to.clone())).into();
        let work = Work { changes, ..Work::default() };
        let found = recipients_by(&work, vec![Recipient::plain(named)]).unwrap();
        let found: Vec<_> = found.iter().map(|it| (it.mailbox.to_string(), it.forwarded)).collect();
        assert_eq!(found, [("a@x.example".to_owned(), false), ("b@y.example".to_owned(), true)]);
    }
}
