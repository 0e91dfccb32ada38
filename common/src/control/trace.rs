//! What became of messages, and who was turned away.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::session::Direction;
use crate::id::QueueId;
use crate::units::Timestamp;

/// The story of one message, as far as the trace knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceEntry {
    /// Its id.
    pub id: QueueId,
    /// The virtual server.
    pub server: String,
    /// Where it stands: a state of the queue, or its end: `delivered`, `returned`, `badmail`,
    /// `requeued` (back from Badmail under another id), `removed`, `discarded` (by a milter); `unknown`
    /// if the trace does not tell.
    pub state: String,
    /// When it was accepted; absent if that is not in the trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Timestamp>,
    /// Octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where reports go; empty for the null path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The recipients, as far as they are known.
    pub recipients: Vec<TraceRecipient>,
    /// The door it came in by: `smtp`, `pickup`, `submit`, `report`, `requeue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// What DNS calls the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the client called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The session it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Who had logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// SHA-256 of the client's certificate, if it showed a good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// The number of the user who handed it in over the submit socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The rule that let it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What SPF, DKIM, DMARC and ARC came to, where that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<String>,
    /// The Pickup file, or the id it had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The Message-ID field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The Subject field, where `trace.subjects` has it recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What the sender wants of time and order, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wishes: Option<String>,
    /// What happened, the oldest first.
    pub events: Vec<TraceEvent>,
    /// Events that are not in the list, because there are too many.
    #[serde(default)]
    pub left_out: u64,
    /// What was said over SMTP about the message, where that is remembered and was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dialogues: Vec<TraceDialogue>,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The moment the sender named, if that is what it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_at: Option<Timestamp>,
    /// When the sender is told of the delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
    /// When it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Why it stands where it does, for people; absent where there is nothing to explain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
}

/// What was said about a message in one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceDialogue {
    /// When that ended.
    pub at: Timestamp,
    /// Who connected.
    pub direction: Direction,
    /// The other side.
    pub peer: String,
    /// The lines, with `C: ` in front of what the client said and `S: ` of what the server said; without
    /// what nobody may see.
    pub lines: Vec<String>,
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceRecipient {
    /// The address.
    pub address: String,
    /// Where it stands, in the words of [`TraceEntry::state`].
    pub state: String,
}

/// Something that happened to a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceEvent {
    /// When.
    pub at: Timestamp,
    /// What: `received`, `delivered`, `dropped`, `deferred`, `delayed` (the sender is told that it
    /// waits; no attempt), `in_doubt`, `bounced`, `expired`, `badmail`, `report`, `held`, `released`, `removed`, `scheduled`, `requeued`; more may come.
    pub event: String,
    /// The recipient concerned, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Attempts made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// When the next one was to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The route, such as `mx:example.com` or `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The remote host, `name[address]:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How the connection to it was protected, such as `TLSv1.3, verified`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// The reply code, if a reply decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u64>,
    /// The enhanced code, the remote's or ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The remote's words, or ours; lines joined by LF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The part of the attempt that decided, such as `connect` or `rcpt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in a word of ours or in the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The report that was sent, or the message that this one became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<QueueId>,
}

/// Why something is as it is, and what can be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Advice {
    /// Why, in sentences.
    pub why: String,
    /// What can be done, the best first; may be empty.
    #[serde(rename = "do", default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// Something that can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The command line, or a place to look at.
    pub command: String,
    /// What it does.
    pub purpose: String,
}

/// A client that was turned away, or what it wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// When.
    pub at: Timestamp,
    /// The virtual server.
    pub server: String,
    /// The client's address.
    pub client: String,
    /// What the client called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The part of the session, such as `connect` or `rcpt`.
    pub stage: String,
    /// Our reply code.
    pub code: u64,
    /// Our enhanced code.
    pub status: String,
    /// Why, in the word of the log, such as `relay-denied`.
    pub reason: String,
    /// The sender, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The recipient, if it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why, and what can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
}

/// What the trace holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceRecord {
    /// Since when; absent while nothing is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The moment of the latest event; absent while nothing is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Events.
    pub events: u64,
    /// Octets on disk.
    pub size: u64,
    /// Events that were not recorded since the daemon started, because too many came at once or the
    /// disk refused them.
    pub dropped: u64,
    /// Blocks that could not be read.
    pub damaged: u64,
}

/// `451 4.7.1 Greylisted`: code, enhanced code and words as far as there are any.
impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code} ")?;
        }
        if let Some(status) = &self.status {
            write!(f, "{status} ")?;
        }
        f.write_str(&self.text.as_deref().unwrap_or_default().replace('\n', " / "))
    }
}
