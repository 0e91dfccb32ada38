//! The way from Badmail back into the queue.
//!
//! In: a message in Badmail, and perhaps another sender or other recipients. Out: a message in the
//! queue, durable before the one in Badmail goes, so that at worst there are two.

use mailroot_common::address::{Mailbox, ReversePath};
use mailroot_common::control::{Kind, Problem};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::message::header;
use smtpd_core::queue::envelope::{BodyKind, Envelope, Origin, Recipient, Via};
use smtpd_core::queue::wishes::Wishes;

use super::answer::Refused;
use super::badmail::read_piece;
use crate::badmail::{Badmail, Reason, Record};
use crate::queue::{Body, Draft, Queue};

/// What is to be other than it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// The recipients, if any are named.
    pub(super) to: Vec<Mailbox>,
    /// The sender.
    pub(super) from: Option<ReversePath>,
}

/// Puts one message back; its new id, its envelope and its octets.
pub(super) async fn put_back(
    badmail: &Badmail,
    queue: &Queue,
    name: &str,
    wish: &Wish,
    now: Timestamp,
) -> Result<(QueueId, Envelope, u64), Refused> {
    let (entry, mut file) = badmail.requeue(name).await?;
    // What never was a message may have line ends of any kind; what comes from the queue has not.
    let came_by_file = |record: &Record| record.reason == Reason::BadPickupFile;
    let mut ends = entry.record.as_ref().is_none_or(came_by_file).then(LineEnds::default);
    let mut gathered = Vec::new();
    let mut large = None;
    let mut facts = None;
    loop {
        let (rest, piece) = read_piece(file).await.map_err(|error| {
            Problem::new("badmail", Kind::Failed, format!("cannot read {name}: {error}"))
        })?;
        file = rest;
        let is_end = piece.is_empty();
        match &mut ends {
            Some(ends) => ends.mend(&piece, &mut gathered),
            None => gathered.extend_from_slice(&piece),
        }
        if facts.is_none() && (is_end || gathered.len() > Body::MEMORY_MAX) {
            facts = Some(header::scan(&gathered, gathered.len()));
        }
        if is_end {
            break;
        }
        if gathered.len() > Body::MEMORY_MAX {
            let writer = match large.take() {
                Some(writer) => writer,
                None => queue.large_body().await?,
            };
            large = Some(appended(writer, &std::mem::take(&mut gathered)).await?);
        }
    }
    let envelope = envelope(name, entry.record.as_ref(), &facts.unwrap_or_default(), wish, now)?;
    let body = match large {
        Some(writer) => Body::File(appended(writer, &gathered).await?.finish().await?),
        None => Body::Memory(gathered),
    };
    let (size, kept) = (body.size(), envelope.clone());
    let id = queue.accept(Draft { envelope, body }).await?;
    badmail.remove(name).await?;
    Ok((id, kept, size))
}

async fn appended(
    mut writer: crate::queue::LargeBodyWriter,
    octets: &[u8],
) -> Result<crate::queue::LargeBodyWriter, Refused> {
    writer.append(octets).await?;
    Ok(writer)
}

/// The envelope of the message's new life, which begins now.
fn envelope(
    name: &str,
    record: Option<&Record>,
    facts: &header::HeaderFacts,
    wish: &Wish,
    now: Timestamp,
) -> Result<Envelope, Problem> {
    let before = record.and_then(|record| record.envelope.as_ref());
    let sender = wish.from.clone().or_else(|| record.and_then(|record| record.sender.clone()));
    let sender = sender.ok_or_else(|| {
        Problem::new("badmail", Kind::Usage, format!("{name} has no sender"))
            .hint("name one with --from")
    })?;
    let again = |concerned: &crate::badmail::Concerned| {
        let was = before.and_then(|before| before.recipients.get(concerned.place));
        match was {
            Some(recipient) if recipient.mailbox == concerned.mailbox => recipient.clone(),
            _ => Recipient::plain(concerned.mailbox.clone()),
        }
    };
    let recipients: Vec<_> = match (wish.to.as_slice(), record) {
        ([], Some(record)) => record.recipients.iter().map(again).collect(),
        (to, _) => to.iter().cloned().map(Recipient::plain).collect(),
    };
    if recipients.is_empty() {
        let detail = format!("{name} has no recipients");
        return Err(Problem::new("badmail", Kind::Usage, detail).hint("name them with --to"));
    }
    let require_tls = before.is_some_and(|before| before.wishes.require_tls);
    let is_ascii = sender.mailbox().is_none_or(Mailbox::is_ascii)
        && recipients.iter().all(|recipient| recipient.mailbox.is_ascii());
    Ok(Envelope {
        hold: None,
        sender,
        recipients,
        accepted_at: now,
        // Of a file nobody declared anything; eight bits are the safe assumption.
        body: before.map_or(BodyKind::EightBitMime, |before| before.body),
        smtputf8: before.is_some_and(|before| before.smtputf8) || !is_ascii || facts.is_eight_bit,
        ret: before.and_then(|before| before.ret),
        envid: before.and_then(|before| before.envid.clone()),
        // An operator who sends a message that went in circles again has opened the circle.
        hops: if record.is_some_and(|record| record.reason == Reason::HopCount) {
            0
        } else {
            facts.hops
        },
        origin: Origin {
            via: Via::Requeue,
            client: None,
            helo: None,
            session: None,
            source: Some(name.to_owned()),
            user: None,
            uid: None,
            checks: None,
        },
        tls_optional: facts.tls_optional && !require_tls,
        message_id: facts.message_id.clone(),
        subject: facts.subject.clone(),
        // Their time is over; what the message was worth is not.
        wishes: Wishes {
            priority: before.map(|before| before.wishes.priority).unwrap_or_default(),
            require_tls,
            ..Wishes::default()
        },
    })
}

/// Makes CRLF of every line end.
#[derive(Debug, Default)]
struct LineEnds {
    after_cr: bool,
}

impl LineEnds {
    fn mend(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        for &octet in octets {
            match octet {
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => out.extend_from_slice(b"\r\n"),
                other => out.push(other),
            }
            self.after_cr = octet == b'\r';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_end_becomes_crlf_whatever_the_pieces() {
        for pieces in [vec![&b"a\nb\r\nc\rd"[..]], vec![&b"a\nb\r"[..], &b"\nc"[..], &b"\rd"[..]]] {
            let (mut ends, mut out) = (LineEnds::default(), Vec::new());
            pieces.iter().for_each(|piece| ends.mend(piece, &mut out));
            assert_eq!(out, b"a\r\nb\r\nc\r\nd");
        }
    }

    fn made(record: Option<&Record>, wish: &Wish) -> Result<Envelope, Problem> {
        let facts = header::scan(b"Subject: x\r\nReceived: y\r\n\r\n", 100);
        envelope("6FZK5D3VYE2S", record, &facts, wish, Timestamp::from_millis(7))
    }

    fn record(recipients: &[&str]) -> Record {
        let concerned = |(place, text): (usize, &&str)| crate::badmail::Concerned {
            mailbox: Mailbox::parse(text).unwrap(),
            place,
            outcome: None,
        };
        Record {
            id: QueueId::parse("6FZK5D3VYE2S").unwrap(),
            at: Timestamp::from_millis(5),
            reason: Reason::NdrOfDsn,
            detail: "x".to_owned(),
            sender: Some(ReversePath::Null),
            recipients: recipients.iter().enumerate().map(concerned).collect(),
            source: None,
            envelope: None,
        }
    }

    #[test]
    fn a_new_life_begins_now_with_what_was_known() {
        let known = record(&["a@x.example", "b@x.example"]);
        let envelope = made(Some(&known), &Wish::default()).unwrap();
        assert_eq!(envelope.recipients.len(), 2);
        assert_eq!((envelope.sender.is_null(), envelope.hops), (true, 1));
        assert_eq!(envelope.accepted_at, Timestamp::from_millis(7));
        assert_eq!(envelope.origin.source.as_deref(), Some("6FZK5D3VYE2S"));
        let looped = Record { reason: Reason::HopCount, ..known };
        assert_eq!(made(Some(&looped), &Wish::default()).unwrap().hops, 0);
    }

    #[test]
    fn what_is_wished_replaces_what_was_known_and_what_is_missing_is_told() {
        let wish = Wish {
            to: vec![Mailbox::parse("c@x.example").unwrap()],
            from: Some(ReversePath::parse("s@x.example").unwrap()),
        };
        let envelope = made(None, &wish).unwrap();
        assert_eq!(envelope.sender.to_string(), "s@x.example");
        assert_eq!(envelope.recipients[0].mailbox.to_string(), "c@x.example");
        let problem = made(None, &Wish::default()).unwrap_err();
        assert_eq!(problem.hint.as_deref(), Some("name one with --from"));
        let problem = made(Some(&record(&[])), &Wish::default()).unwrap_err();
        assert_eq!(problem.hint.as_deref(), Some("name them with --to"));
    }
}
