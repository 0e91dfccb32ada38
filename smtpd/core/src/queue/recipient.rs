//! The life of one recipient: it waits until it reaches exactly one end.

use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::envelope::Envelope;
use super::outcome::Outcome;

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// To be tried at its next attempt.
    #[default]
    Waiting,
    /// To be tried again, though the remote may have the message already.
    InDoubt,
    /// End: delivered.
    Delivered,
    /// End: returned to the sender, or the sender asked for no report.
    Returned,
    /// End: kept in Badmail.
    Badmail,
    /// End: removed by an operator.
    Removed,
}

impl Phase {
    /// Whether nothing more will happen to the recipient.
    #[must_use]
    pub const fn is_end(self) -> bool {
        !matches!(self, Self::Waiting | Self::InDoubt)
    }
}

/// Where a recipient stands, how it got there and when it is tried next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientStatus {
    /// Where it stands.
    #[serde(rename = "p", default)]
    pub phase: Phase,
    /// Attempts made.
    #[serde(rename = "n", default)]
    pub attempts: u32,
    /// When it may be tried next; without meaning after its end.
    #[serde(rename = "at")]
    pub next_attempt: Timestamp,
    /// Whether the sender was told of the delay.
    #[serde(rename = "d", default)]
    pub delay_told: bool,
    /// The last attempt's outcome.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Outcome>,
}

/// The part of a message that changes: one status for each recipient of its envelope, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageState {
    /// One for each recipient of the envelope.
    #[serde(rename = "r")]
    pub recipients: Vec<RecipientStatus>,
    /// Set while an operator holds the message back.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

impl MessageState {
    /// The state of a message just accepted: every recipient is due at once.
    #[must_use]
    pub fn fresh(envelope: &Envelope) -> Self {
        let status = RecipientStatus {
            phase: Phase::Waiting,
            attempts: 0,
            next_attempt: envelope.accepted_at,
            delay_told: false,
            last: None,
        };
        Self { recipients: vec![status; envelope.recipients.len()], hold: None }
    }

    /// Whether every recipient has reached its end.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.recipients.iter().all(|status| status.phase.is_end())
    }
}

/// Who holds a message back, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The operator's name.
    pub by: String,
    /// The reason given, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when.
    pub since: Timestamp,
}
