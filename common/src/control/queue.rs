//! Messages that wait.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Change;
use crate::address::{Mailbox, ReversePath};
use crate::id::{QueueId, SessionId};
use crate::status::{EnhancedCode, ReplyCode};
use crate::units::Timestamp;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    /// No attempt was made yet.
    Queued,
    /// An attempt is being made.
    Active,
    /// It waits for its next attempt.
    Retry,
    /// An operator holds it back.
    Held,
    /// An attempt ended without an answer; it will be tried again.
    InDoubt,
}

impl QueueState {
    /// The word of the interface and of `--state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Active => "active",
            Self::Retry => "retry",
            Self::Held => "held",
            Self::InDoubt => "in_doubt",
        }
    }
}

impl fmt::Display for QueueState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One message as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueEntry {
    /// Its id.
    pub id: QueueId,
    /// The virtual server.
    pub server: String,
    /// Where it stands.
    pub state: QueueState,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Octets.
    pub size: u64,
    /// Where reports go; empty for the null path.
    pub from: ReversePath,
    /// The recipients that have not reached their end.
    pub to: Vec<Mailbox>,
    /// The most attempts of any of them.
    pub attempts: u32,
    /// When the first of them is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The last words of the remote, or ours; or who holds it and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One message with everything known of it but its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueMessage {
    /// What a list says of it.
    #[serde(flatten)]
    pub entry: QueueEntry,
    /// The door it came in by: `smtp`, `pickup`, `submit`, `report`, `requeue`.
    pub via: String,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<std::net::IpAddr>,
    /// What the client called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The session it came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The Pickup file, or the id it had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What SPF, DKIM, DMARC and ARC came to, where that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<String>,
    /// The Message-ID field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The Subject field as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The sender's name for the transaction (RFC 3461 section 4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envid: Option<String>,
    /// Not before this moment, the sender wants (RFC 4865).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_at: Option<Timestamp>,
    /// By when the sender wants it delivered (RFC 2852).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver_by: Option<Timestamp>,
    /// What is done then: `return`, or `tell` the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_late: Option<String>,
    /// From -9 to 9: among the mail of one destination the higher goes first (RFC 6710).
    #[serde(default)]
    pub priority: i8,
    /// Whether it goes under TLS all the way or not at all (RFC 8689).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub require_tls: bool,
    /// `7bit`, `8bitmime` or `binarymime`.
    pub body: String,
    /// Whether it needs SMTPUTF8.
    #[serde(default)]
    pub smtputf8: bool,
    /// Received fields.
    #[serde(default)]
    pub hops: u32,
    /// All recipients, those that reached their end too.
    pub recipients: Vec<QueueRecipient>,
}

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecipientState {
    /// No attempt was made yet.
    Queued,
    /// It waits for its next attempt.
    Retry,
    /// An attempt ended without an answer; it will be tried again.
    InDoubt,
    /// End: delivered.
    Delivered,
    /// End: returned to the sender.
    Returned,
    /// End: in Badmail.
    Badmail,
    /// End: removed by an operator.
    Removed,
}

impl RecipientState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Delivered | Self::Returned | Self::Badmail | Self::Removed)
    }

    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Retry => "retry",
            Self::InDoubt => "in_doubt",
            Self::Delivered => "delivered",
            Self::Returned => "returned",
            Self::Badmail => "badmail",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for RecipientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueRecipient {
    /// The address.
    pub address: Mailbox,
    /// Where it stands.
    pub state: RecipientState,
    /// Where its mail goes now, such as `mx:example.com` or `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// When it is tried next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// What the last attempt came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Attempt>,
}

/// What an attempt came to, in the remote's words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// `delivered`, `deferred`, `failed` or `in_doubt`.
    pub result: String,
    /// The reply code, if a reply decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ReplyCode>,
    /// The enhanced code, the remote's or ours.
    pub status: EnhancedCode,
    /// The words, lines joined by LF.
    pub text: String,
    /// The remote host, `name[address]:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The part of the attempt that decided, such as `connect` or `rcpt`.
    pub stage: String,
}

/// What can be asked of messages in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueVerb {
    /// Try everything chosen now, and forget the back-off of its destinations.
    Flush,
    /// Try now.
    Retry,
    /// Try no more until released.
    Hold,
    /// End a hold.
    Release,
    /// Delete without a report to the sender.
    Remove,
    /// Return to the sender with a report.
    Bounce,
}

impl QueueVerb {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Flush, Self::Retry, Self::Hold, Self::Release, Self::Remove, Self::Bounce];

    /// The word of the interface.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flush => "flush",
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Remove => "remove",
            Self::Bounce => "bounce",
        }
    }
}

/// A word that is not a [`QueueVerb`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not flush, retry, hold, release, remove or bounce")]
pub struct QueueVerbError(pub String);

impl FromStr for QueueVerb {
    type Err = QueueVerbError;

    fn from_str(text: &str) -> Result<Self, QueueVerbError> {
        Self::ALL
            .into_iter()
            .find(|verb| verb.as_str() == text)
            .ok_or_else(|| QueueVerbError(text.to_owned()))
    }
}

/// A message that was put into the queue from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Adopted {
    /// Its id.
    pub id: QueueId,
    /// The virtual server.
    pub server: String,
    /// Octets.
    pub size: u64,
}

/// Asks to send messages another way. Exactly one aim is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Redirect {
    /// Which messages.
    #[serde(flatten)]
    pub change: Change,
    /// By this host, `name`, `name:port` or `[address]:port`, whatever the routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_host: Option<String>,
    /// To this address instead of those who wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_address: Option<String>,
    /// Into the queue of this virtual server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_server: Option<String>,
}
