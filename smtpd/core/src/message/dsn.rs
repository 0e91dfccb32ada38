//! Writes delivery status notifications: what became of a message, for its sender (RFC 3464).
//!
//! In: the message's envelope, the recipients to speak of with what they came to, and its header
//! or the whole of it. Out: a message of three parts (words for people, fields for programs, the
//! original) and the envelope to send it with.
//!
//! Two attacks shape this file. Peers choose most of its text, so nothing of theirs goes in
//! without passing `encode`, where control characters and over-long lines end; the boundary is
//! drawn by chance and looked for in the parts before it is used. And a report must not be a
//! weapon: whatever a peer says, it is at most the header of the original (itself at most
//! [`HEADER_OCTETS_MAX`]) and 64 KiB more, plus the addresses and at most 1 KiB of fields for each
//! recipient; reports about mail of the null sender are not written at all.

use mailroot_common::address::{Domain, Mailbox, ReversePath};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use crate::queue::envelope::{BodyKind, Envelope, Notify, Origin, Recipient, Ret, Via};
use crate::queue::outcome::{Outcome, Stage};
use crate::queue::recipient::RecipientStatus;
use crate::queue::wishes::Wishes;

mod encode;
mod fields;
mod original;
mod words;

/// The most of a header that is returned.
pub const HEADER_OCTETS_MAX: usize = 64 << 10;
/// The largest body that is returned with its header.
pub const BODY_OCTETS_MAX: usize = 36 << 10;
/// What all remotes' words together may take in one part, as they are encoded there, shared evenly
/// by the recipients.
const WORDS_OCTETS_MAX: usize = 10 << 10;
/// What each recipient's words may take however many there are.
const WORDS_OCTETS_MIN: usize = 160;

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The recipients cannot be reached, for good.
    Failure,
    /// The recipients have not been reached yet.
    Delay,
    /// The recipients have the message, or a host without DSN has it.
    Success,
}

impl Kind {
    /// The word of the subject.
    const fn title(self) -> &'static str {
        match self {
            Self::Failure => "Failure",
            Self::Delay => "Delay",
            Self::Success => "Success",
        }
    }

    /// The word of the log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Delay => "delay",
            Self::Success => "success",
        }
    }
}

/// What is returned of the original message, as it is stored.
#[derive(Clone, Copy, Debug)]
pub enum Original<'a> {
    /// Its header; what follows an empty line is left out.
    Header(&'a [u8]),
    /// All of it. Only its header is returned if it is too large, or cannot travel in a report
    /// (binary content, lines over 998 octets).
    Whole(&'a [u8]),
}

impl Original<'_> {
    /// Whether the whole message is to be read for a report: it failed, the sender asked for it
    /// (or said nothing, and `by_default` is on), it is not too large, and need not go under TLS all the
    /// way (RFC 8689 section 5).
    #[must_use]
    pub fn wants_whole(
        kind: Kind,
        envelope: &Envelope,
        by_default: bool,
        size_octets: u64,
    ) -> bool {
        let asked = match envelope.ret {
            Some(ret) => ret == Ret::Full,
            None => by_default,
        };
        kind == Kind::Failure
            && asked
            && !envelope.wishes.require_tls
            && usize::try_from(size_octets)
                .is_ok_and(|size| size <= HEADER_OCTETS_MAX + BODY_OCTETS_MAX)
    }
}

/// Everything a report is made of.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// What it is about.
    pub kind: Kind,
    /// The original's name in our logs.
    pub id: QueueId,
    /// The original's envelope.
    pub envelope: &'a Envelope,
    /// The recipients to speak of: their places in the envelope and their new states.
    pub recipients: &'a [(usize, &'a RecipientStatus)],
    /// The original, or its header.
    pub original: Original<'a>,
    /// Our own name.
    pub host: &'a Domain,
    /// The domain of the postmaster in whose name the report is sent.
    pub default_domain: &'a Domain,
    /// Who gets a copy of every report of failure.
    pub copy_to: Option<&'a Mailbox>,
    /// Until when delivery is tried; of meaning to reports of delay.
    pub retry_until: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// Chance for the boundary and the Message-ID; peers must not be able to guess it.
    pub random: u64,
}

/// A report, ready to be accepted into the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The message with CRLF line ends.
    pub octets: Vec<u8>,
    /// Its envelope: from the null sender to the sender of the original.
    pub envelope: Envelope,
}

/// One recipient of the report, with what both parts say of it.
struct Case<'a> {
    recipient: &'a Recipient,
    status: &'a RecipientStatus,
    outcome: &'a Outcome,
    /// How many octets of the remote's words each part may have.
    words_max: usize,
}

/// A part of the report: its own header fields and its content.
struct Part {
    content_type: &'static str,
    description: &'static str,
    encoding: encode::Encoding,
    octets: Vec<u8>,
}

/// Writes a report.
///
/// Absent if there is nobody to tell (the null sender, RFC 3464 section 2) or nothing to say: no
/// recipient that is in the envelope and has an outcome.
#[must_use]
pub fn write(report: &Report<'_>) -> Option<Written> {
    let sender = report.envelope.sender.mailbox()?;
    let cases = cases(report);
    if cases.is_empty() {
        return None;
    }
    let parts = [
        words::write(report, &cases),
        fields::write(report, &cases),
        original::write(report.original, report.envelope.smtputf8),
    ];
    let body = if parts.iter().any(|part| part.encoding == encode::Encoding::EightBit) {
        BodyKind::EightBitMime
    } else {
        BodyKind::SevenBit
    };
    let message_id = format!(
        "<{}.{:016x}.{}@{}>",
        report.id,
        report.random,
        report.now.as_millis(),
        report.host
    );
    let subject = format!("Delivery Status Notification ({})", report.kind.title());
    let octets = assemble(report, sender, &message_id, &subject, &parts);
    Some(Written { octets, envelope: envelope(report, sender, body, message_id, subject) })
}

fn cases<'a>(report: &Report<'a>) -> Vec<Case<'a>> {
    let count = report.recipients.len().max(1);
    let words_max = (WORDS_OCTETS_MAX / count).max(WORDS_OCTETS_MIN);
    let case = |(place, status): &(usize, &'a RecipientStatus)| {
        let recipient = report.envelope.recipients.get(*place)?;
        let outcome = status.last.as_ref()?;
        Some(Case { recipient, status, outcome, words_max })
    };
    report.recipients.iter().filter_map(case).collect()
}

fn envelope(
    report: &Report<'_>,
    sender: &Mailbox,
    body: BodyKind,
    message_id: String,
    subject: String,
) -> Envelope {
    // A report about a report must not come into being anywhere (RFC 3461 section 5.2).
    let quiet = |mailbox: &Mailbox| Recipient {
        notify: Some(Notify::NEVER),
        ..Recipient::plain(mailbox.clone())
    };
    let copy = report.copy_to.filter(|&copy| report.kind == Kind::Failure && copy != sender);
    Envelope {
        hold: None,
        tls_optional: false,
        sender: ReversePath::Null,
        recipients: std::iter::once(sender).chain(copy).map(quiet).collect(),
        accepted_at: report.now,
        body,
        smtputf8: !sender.is_ascii(),
        ret: None,
        envid: None,
        hops: 0,
        origin: Origin {
            via: Via::Report,
            client: None,
            helo: None,
            session: None,
            source: Some(report.id.to_string()),
            user: None,
            uid: None,
            checks: None,
        },
        message_id: Some(message_id),
        subject: Some(subject),
        wishes: Wishes {
            // As urgent as what it is about (RFC 6710 section 4.6), and what it quotes no less protected
            // than it was (RFC 8689 section 5).
            priority: report.envelope.wishes.priority,
            require_tls: report.envelope.wishes.require_tls,
            ..Wishes::default()
        },
    }
}

fn assemble(
    report: &Report<'_>,
    sender: &Mailbox,
    message_id: &str,
    subject: &str,
    parts: &[Part],
) -> Vec<u8> {
    let boundary = boundary(report.random, parts);
    let size: usize = parts.iter().map(|part| part.octets.len() + 256).sum();
    let mut header = format!(
        "From: Mail Delivery System <postmaster@{}>\r\nTo: <{sender}>\r\nSubject: {subject}\r\n\
         Date: {}\r\nMessage-ID: {message_id}\r\n",
        report.default_domain,
        report.now.to_rfc5322(),
    );
    if let Some(about) = report.envelope.message_id.as_deref().filter(|id| is_message_id(id)) {
        header.push_str(&format!("In-Reply-To: {about}\r\nReferences: {about}\r\n"));
    }
    let kind = if report.envelope.smtputf8 { "global-delivery-status" } else { "delivery-status" };
    header.push_str(&format!(
        "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type={kind};\r\n\tboundary=\"{boundary}\"\r\n\r\n\
         This is a report about mail, in MIME format (RFC 3464).\r\n",
    ));
    let mut octets = Vec::with_capacity(header.len() + size);
    octets.extend_from_slice(header.as_bytes());
    for part in parts {
        let fields = format!(
            "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Description: {}\r\n\
             Content-Transfer-Encoding: {}\r\n\r\n",
            part.content_type,
            part.description,
            part.encoding.as_str(),
        );
        octets.extend_from_slice(fields.as_bytes());
        octets.extend_from_slice(&part.octets);
    }
    octets.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    octets
}

/// A boundary that no part contains. The parts are finite, so the search ends.
fn boundary(mut random: u64, parts: &[Part]) -> String {
    loop {
        // Quoted-printable never writes "=_", so such parts need no second try.
        let boundary = format!("=_mailroot_{random:016x}");
        let finder = memchr::memmem::Finder::new(&boundary);
        if parts.iter().all(|part| finder.find(&part.octets).is_none()) {
            return boundary;
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
}

/// Whether a text from the original's header can stand in ours: one word in angle brackets.
fn is_message_id(text: &str) -> bool {
    let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
    inner.is_some_and(|inner| {
        (1..=248).contains(&inner.len())
            && inner.bytes().all(|o| o.is_ascii_graphic() && !matches!(o, b'<' | b'>'))
    })
}

impl Case<'_> {
    /// Whether the host that took the message reports nothing, so that its fate is unknown.
    fn is_relayed(&self) -> bool {
        !matches!(self.outcome.stage, Stage::Drop | Stage::Directory)
    }

    /// Whether it went on to several others (RFC 3461 section 5.2.7.3).
    fn is_expanded(&self) -> bool {
        self.outcome.stage == Stage::Directory
    }

    /// The remote's words as lines, control characters gone, within the share.
    fn said(&self) -> Vec<String> {
        encode::printable_lines(&self.outcome.text, self.words_max)
    }
}

#[cfg(test)]
mod tests;
