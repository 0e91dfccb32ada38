//! The life of one recipient: it waits until it reaches exactly one end.

use mailroot_common::address::ReversePath;
use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::envelope::{Envelope, Recipient};
use super::outcome::Outcome;
use crate::route::smart_host::SmartHost;
use crate::route::table::{Route, RouteName, Table};

/// What ends words that were cut.
const CUT: &str = " [cut]";

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
    /// Whether an attempt left it in doubt, and what to do about that was decided: it may have the
    /// message, whatever came after.
    #[serde(rename = "q", default, skip_serializing_if = "std::ops::Not::not")]
    pub doubted: bool,
    /// Whether the sender was told that the time it named has passed.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub deadline_told: bool,
    /// Whether the next attempt is at a moment that the sender named: then no jump of the wall clock
    /// moves it. Without meaning after an attempt.
    #[serde(rename = "f", default, skip_serializing_if = "std::ops::Not::not")]
    pub fixed: bool,
    /// The last attempt's outcome.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Outcome>,
}

impl RecipientStatus {
    /// The next attempt of a recipient in doubt that waits for an operator's word: the year 9999,
    /// which no schedule reaches and every clock can write.
    pub const AT_OPERATORS_WORD: Timestamp = Timestamp::from_millis(253_370_764_800_000);

    /// When it is tried next; not at all after its end, or before an operator's word.
    #[must_use]
    pub fn next_attempt(&self) -> Option<Timestamp> {
        (!self.phase.is_end() && !self.awaits_operator()).then_some(self.next_attempt)
    }

    /// When its next attempt was decided on: at the last one. Before the first it is due at once.
    #[must_use]
    pub fn decided_at(&self) -> Timestamp {
        self.last.as_ref().map_or(self.next_attempt, |last| last.at)
    }

    /// Whether its first attempt waits for the moment that the sender named.
    #[must_use]
    pub const fn is_fixed(&self) -> bool {
        self.fixed && self.last.is_none()
    }

    /// Whether it is tried again only when an operator says so.
    #[must_use]
    pub fn awaits_operator(&self) -> bool {
        self.phase == Phase::InDoubt && self.next_attempt >= Self::AT_OPERATORS_WORD
    }

    /// Whether our own death left it in doubt, and nobody has decided about that yet.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.phase == Phase::InDoubt && !self.doubted
    }
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
    /// Set once an operator wants the message returned to its sender: nobody who waits is tried any
    /// more, held or not, and each is returned as soon as no attempt for it is under way.
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    pub returning: Option<ReturnOrder>,
    /// The host an operator chose for this message, whatever the table of routes says.
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    pub via: Option<SmartHost>,
}

impl MessageState {
    /// The state of a message just accepted: every recipient is due at once or at the moment the
    /// sender named, unless it is held from the beginning.
    #[must_use]
    pub fn fresh(envelope: &Envelope) -> Self {
        let status = RecipientStatus {
            phase: Phase::Waiting,
            attempts: 0,
            next_attempt: envelope.begins_at(),
            delay_told: false,
            doubted: false,
            deadline_told: false,
            fixed: envelope.wishes.release_at.is_some(),
            last: None,
        };
        let recipients = vec![status; envelope.recipients.len()];
        Self { recipients, hold: envelope.hold.clone(), returning: None, via: None }
    }

    /// Whether attempts may be made: nobody holds the message back or wants it returned.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.hold.is_none() && self.returning.is_none()
    }

    /// The name of the way from a sender to a recipient: by the operator's host, else by its own.
    #[must_use]
    pub fn route_name(&self, table: &Table, sender: &ReversePath, to: &Recipient) -> RouteName {
        match &self.via {
            Some(host) => Route::to_host(host.clone()).name(),
            None => to.route_name(table, sender),
        }
    }

    /// Cuts the longest words of remote hosts, if all together have more than `most` octets.
    ///
    /// Words are never thinned for their looks. But a host could say so much about so many
    /// recipients that no record holds it, and an outcome that cannot be recorded would have the
    /// mail sent again and again.
    pub fn cut_words(&mut self, most: usize) {
        let texts =
            || self.recipients.iter().filter_map(|status| Some(&status.last.as_ref()?.text));
        if texts().map(String::len).sum::<usize>() <= most {
            return;
        }
        let share = (most / texts().count().max(1)).saturating_sub(CUT.len());
        for last in self.recipients.iter_mut().filter_map(|status| status.last.as_mut()) {
            if last.text.len() > share + CUT.len() {
                last.text.truncate(last.text.floor_char_boundary(share));
                last.text.push_str(CUT);
            }
        }
    }

    /// Whether a recipient is tried again only when an operator says so.
    #[must_use]
    pub fn awaits_operator(&self) -> bool {
        self.recipients.iter().any(RecipientStatus::awaits_operator)
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

/// Who wants a message returned to its sender, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReturnOrder {
    /// The operator's name; the sender is not told it.
    pub by: String,
    /// The reason given, for the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it was ordered.
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use mailroot_common::status::EnhancedCode;

    use super::*;
    use crate::queue::outcome::Stage;

    fn state(words: &[String]) -> MessageState {
        let at = Timestamp::from_millis(0);
        let recipients = words.iter().map(|text| RecipientStatus {
            phase: Phase::Waiting,
            attempts: 1,
            next_attempt: at,
            delay_told: false,
            doubted: false,
            deadline_told: false,
            fixed: false,
            last: Some(Outcome::local(at, Stage::Rcpt, EnhancedCode::transient(2, 0), text)),
        });
        MessageState { recipients: recipients.collect(), hold: None, returning: None, via: None }
    }

    #[test]
    fn words_are_cut_only_where_there_are_too_many_and_between_letters() {
        let words = ["short".to_owned(), "\u{fffd}".repeat(50), "x".repeat(45)];
        let mut whole = state(&words);
        whole.cut_words(200);
        assert_eq!(whole, state(&words));
        let mut cut = state(&words);
        cut.cut_words(150);
        let texts: Vec<&str> =
            cut.recipients.iter().map(|one| one.last.as_ref().unwrap().text.as_str()).collect();
        let shortened = format!("{} [cut]", "\u{fffd}".repeat(14));
        assert_eq!(texts, ["short", &shortened, &"x".repeat(45)]);
    }
}
