//! One event on its way into the trace: fields behind one another in one buffer.
//!
//! It is built by the task to which the event happens, so it costs one allocation and formats
//! nothing that is not text by nature. A field is a tag and a value; a reader passes over tags that
//! it does not know.

use std::fmt::{self, Write};
use std::net::IpAddr;

use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;

use super::event::{DIALOGUE, Number, Text};
use crate::queue::envelope::Envelope;
use crate::queue::outcome::{AttemptResult, Outcome, Stage};
use crate::queue::recipient::{Phase, RecipientStatus};

/// The longest text of a field; what is longer is cut between letters.
pub const TEXT_OCTETS_MAX: usize = 60_000;
/// The octets in front of an event that tell its length.
pub(super) const LENGTH_OCTETS: usize = 4;
/// What most events take.
const USUAL_OCTETS: usize = 320;

/// An event being written.
#[derive(Clone, Debug)]
pub struct Note(Vec<u8>);

impl Note {
    /// Begins an event of a virtual server.
    #[must_use]
    pub fn new(word: &str, server: &str, at: Timestamp) -> Self {
        let mut octets = Vec::with_capacity(USUAL_OCTETS);
        octets.extend_from_slice(&[0; LENGTH_OCTETS]);
        Self(octets)
            .number(Number::At, at.as_millis())
            .text(Text::Word, word)
            .text(Text::Server, server)
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, tag: Number, value: u64) -> Self {
        self.0.push(tag as u8);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Names the message.
    #[must_use]
    pub fn id(self, id: QueueId) -> Self {
        self.number(Number::Id, id.as_u64())
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, tag: Text, value: impl fmt::Display) -> Self {
        self.0.push(tag as u8);
        let start = self.0.len() + 2;
        self.0.extend_from_slice(&[0; 2]);
        let mut bounded = Bounded { octets: &mut self.0, most: start + TEXT_OCTETS_MAX };
        // It fails where the text is cut.
        let _ = write!(bounded, "{value}");
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start - 2..start].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// Adds a text if there is one.
    #[must_use]
    pub fn maybe(self, tag: Text, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.text(tag, value),
            None => self,
        }
    }

    /// The event, ready to be kept.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - LENGTH_OCTETS).unwrap_or(u32::MAX);
        self.0[..LENGTH_OCTETS].copy_from_slice(&length.to_le_bytes());
        self.0
    }

    /// A message that was accepted. `rule` let it in, `name` is what DNS calls the client.
    #[must_use]
    pub fn received(
        server: &str,
        id: QueueId,
        envelope: &Envelope,
        size: u64,
        admitted: Admission<'_>,
    ) -> Self {
        let origin = &envelope.origin;
        let mut note = Self::new("received", server, envelope.accepted_at)
            .id(id)
            .number(Number::Size, size)
            .text(Text::Via, origin.via.as_str())
            .maybe(Text::Client, origin.client)
            .maybe(Text::Helo, origin.helo.as_ref())
            .maybe(Text::Name, admitted.name)
            .maybe(Text::Session, origin.session)
            .maybe(Text::Tls, admitted.tls)
            .maybe(Text::Certificate, admitted.certificate)
            .maybe(Text::User, origin.user.as_ref())
            .maybe(Text::Uid, origin.uid)
            .maybe(Text::Rule, admitted.rule)
            .maybe(Text::Checks, origin.checks.as_ref())
            .maybe(Text::Source, origin.source.as_ref())
            .maybe(Text::MessageId, envelope.message_id.as_ref())
            .maybe(Text::Wishes, Some(envelope.wishes).filter(|wishes| !wishes.are_none()))
            .text(Text::From, &envelope.sender);
        if admitted.subjects {
            note = note.maybe(Text::Subject, envelope.subject.as_ref());
        }
        envelope.recipients.iter().fold(note, |note, to| note.text(Text::To, &to.mailbox))
    }

    /// What was said about a message, in a session with a peer: `in` or `out`.
    #[must_use]
    pub fn dialogue(
        server: &str,
        id: QueueId,
        at: Timestamp,
        way: &str,
        peer: &dyn fmt::Display,
        said: &str,
    ) -> Self {
        Self::new(DIALOGUE, server, at)
            .id(id)
            .text(Text::Via, way)
            .text(Text::Host, peer)
            .text(Text::Words, said)
    }

    /// What an attempt, or its age, came to for one recipient; nothing if that is no news.
    #[must_use]
    pub fn outcome(
        server: &str,
        id: QueueId,
        at: Timestamp,
        to: &impl fmt::Display,
        route: &dyn fmt::Display,
        (status, cause): (&RecipientStatus, Cause),
    ) -> Option<Self> {
        let last = status.last.as_ref()?;
        let word = match (word_of(status, last)?, cause) {
            ("deferred", Cause::Age) => "delayed",
            (word, _) => word,
        };
        let mut note = Self::new(word, server, at)
            .id(id)
            .text(Text::To, to)
            .number(Number::Attempt, status.attempts.into())
            .text(Text::Route, route)
            .text(Text::Stage, last.stage.as_str())
            .text(Text::Status, last.status)
            .text(Text::Words, &last.text)
            .maybe(Text::Host, last.host.as_ref())
            .maybe(Text::Tls, last.host.as_ref().and_then(|host| host.tls.as_ref()));
        if let Some(code) = last.code {
            note = note.number(Number::Code, code.as_u16().into());
        }
        match status.next_attempt() {
            Some(next) if !status.phase.is_end() => {
                Some(note.number(Number::Next, next.as_millis()))
            }
            _ => Some(note),
        }
    }

    /// A client that was turned away.
    #[must_use]
    pub fn refused(server: &str, client: IpAddr, at: Timestamp) -> Self {
        Self::new("refused", server, at).text(Text::Client, client)
    }
}

/// What brought a recipient to where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An attempt.
    Attempt,
    /// How long it has waited; the words are those of what kept it waiting.
    Age,
}

/// What let a message in, besides its envelope.
#[derive(Clone, Copy, Default)]
pub struct Admission<'a> {
    /// The rule that let its recipients in.
    pub rule: Option<&'a dyn fmt::Display>,
    /// The client's name, if DNS gave one that leads back.
    pub name: Option<&'a str>,
    /// The version of TLS that it came under.
    pub tls: Option<&'a str>,
    /// SHA-256 of the client's certificate, if it showed a good one.
    pub certificate: Option<&'a str>,
    /// Whether subjects are recorded (`trace.subjects`).
    pub subjects: bool,
}

/// The word for where a recipient stands now.
fn word_of(status: &RecipientStatus, last: &Outcome) -> Option<&'static str> {
    Some(match status.phase {
        Phase::Delivered if last.stage == Stage::Drop => "dropped",
        Phase::Delivered if last.stage == Stage::Directory => "resolved",
        Phase::Delivered => "delivered",
        _ if last.result == AttemptResult::InDoubt => "in_doubt",
        Phase::Waiting | Phase::InDoubt => "deferred",
        Phase::Badmail => "badmail",
        Phase::Returned if last.stage.is_age() => "expired",
        Phase::Returned => "bounced",
        Phase::Removed => return None,
    })
}

/// Takes text up to a length.
struct Bounded<'a> {
    octets: &'a mut Vec<u8>,
    most: usize,
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.most - self.octets.len();
        let part = &text[..text.floor_char_boundary(room)];
        self.octets.extend_from_slice(part.as_bytes());
        if part.len() == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
