//! What a list shows of a message, and the filters a list can have.

use std::sync::Arc;

use mailroot_common::address::Domain;
use mailroot_common::control::queue::QueueState;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::{MessageState, Phase, RecipientStatus};
use smtpd_core::route::table::RouteName;

/// One stored message with everything known of it but its content.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its id.
    pub id: QueueId,
    /// Octets of its body.
    pub size: u64,
    /// Its envelope.
    pub envelope: Arc<Envelope>,
    /// Where its recipients stand, and who holds it.
    pub state: MessageState,
    /// Whether an attempt is being made for some of its recipients.
    pub active: bool,
    /// The route of each recipient, in the order of the envelope.
    pub routes: Vec<RouteName>,
}

impl Message {
    /// The recipients that have not reached their end, with their places.
    pub fn waiting(&self) -> impl Iterator<Item = (usize, &RecipientStatus)> {
        self.state.recipients.iter().enumerate().filter(|(_, status)| !status.phase.is_end())
    }

    /// The one word for where the message stands.
    #[must_use]
    pub fn standing(&self) -> QueueState {
        if self.state.hold.is_some() {
            QueueState::Held
        } else if self.active {
            QueueState::Active
        } else if self.waiting().any(|(_, status)| status.phase == Phase::InDoubt) {
            QueueState::InDoubt
        } else if self.attempts() > 0 {
            QueueState::Retry
        } else {
            QueueState::Queued
        }
    }

    /// The most attempts of any recipient that waits.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.waiting().map(|(_, status)| status.attempts).max().unwrap_or(0)
    }

    /// When the first of the waiting recipients is tried next; nothing while it is held.
    #[must_use]
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        match self.state.hold {
            Some(_) => None,
            None => self.waiting().filter_map(|(_, status)| status.next_attempt()).min(),
        }
    }

    /// Why it still waits: the hold, or the last words said of a waiting recipient.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        if let Some(hold) = &self.state.hold {
            return Some(match &hold.reason {
                Some(reason) => format!("by {}: {reason}", hold.by),
                None => format!("by {}", hold.by),
            });
        }
        let last = self.waiting().find_map(|(_, status)| status.last.as_ref());
        match self.awaits_release() {
            Some(at) => Some(format!("its sender wants it sent at {at}")),
            None => last.map(ToString::to_string),
        }
    }

    /// The moment the sender named, if that is what everybody waits for.
    #[must_use]
    pub fn awaits_release(&self) -> Option<Timestamp> {
        let at = self.envelope.wishes.release_at.filter(|_| self.state.is_free())?;
        let waits = |status: &RecipientStatus| status.is_fixed() && status.next_attempt == at;
        self.waiting().all(|(_, status)| waits(status)).then_some(at)
    }
}

/// What a list is narrowed to. Every part that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these messages; empty is all.
    pub ids: Vec<QueueId>,
    /// Where they stand.
    pub state: Option<QueueState>,
    /// The sender's address; `<>` is the null path.
    pub from: Option<Glob>,
    /// The address of a recipient that waits.
    pub to: Option<Glob>,
    /// The domain of a recipient that waits, or a domain above it.
    pub domain: Option<Domain>,
    /// The domain of a recipient that waits, and none below it. Mail for others is not read.
    pub exact_domain: Option<Domain>,
    /// The route of a recipient that waits.
    pub route: Option<RouteName>,
    /// Accepted before this moment.
    pub accepted_before: Option<Timestamp>,
    /// Accepted at this moment or later.
    pub accepted_after: Option<Timestamp>,
    /// At least this many octets.
    pub size_min: Option<u64>,
    /// At most this many octets.
    pub size_max: Option<u64>,
    /// Words in the reason, small and capital letters alike.
    pub reason: Option<String>,
}

impl Filter {
    /// Whether a message passes.
    #[must_use]
    pub fn matches(&self, message: &Message) -> bool {
        let accepted = message.envelope.accepted_at;
        let mailbox = |place: usize| &message.envelope.recipients[place].mailbox;
        let some_waiting =
            |test: &dyn Fn(usize) -> bool| message.waiting().any(|(place, _)| test(place));
        (self.ids.is_empty() || self.ids.contains(&message.id))
            && self.state.is_none_or(|state| message.standing() == state)
            && self.accepted_before.is_none_or(|moment| accepted < moment)
            && self.accepted_after.is_none_or(|moment| accepted >= moment)
            && self.size_min.is_none_or(|size| message.size >= size)
            && self.size_max.is_none_or(|size| message.size <= size)
            && self.from.as_ref().is_none_or(|glob| match message.envelope.sender.mailbox() {
                Some(sender) => glob.matches(&sender.to_string()),
                None => glob.matches("<>"),
            })
            && self
                .to
                .as_ref()
                .is_none_or(|glob| some_waiting(&|at| glob.matches(&mailbox(at).to_string())))
            && self.domain.as_ref().is_none_or(|domain| {
                some_waiting(&|at| {
                    mailbox(at).domain().is_some_and(|own| own == domain || own.is_below(domain))
                })
            })
            && self.exact_domain.as_ref().is_none_or(|domain| {
                some_waiting(&|at| mailbox(at).domain().is_some_and(|own| own == domain))
            })
            && self
                .route
                .as_ref()
                .is_none_or(|route| some_waiting(&|at| message.routes[at] == *route))
            && self.reason.as_ref().is_none_or(|words| {
                let words = words.to_lowercase();
                message.reason().is_some_and(|reason| reason.to_lowercase().contains(&words))
            })
    }
}

/// A pattern for addresses: `*` stands for any text, `?` for one character; small and capital
/// letters are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<char>);

impl Glob {
    /// Takes the text of a pattern; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_lowercase().chars().collect())
    }

    /// Whether the whole of `text` fits. Takes time in proportion to both lengths at worst.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.to_lowercase().chars().collect();
        let (mut at, mut in_pattern) = (0, 0);
        // Where to go on when the text after the last star does not fit.
        let mut resume: Option<(usize, usize)> = None;
        while at < text.len() {
            match self.0.get(in_pattern) {
                Some('*') => {
                    resume = Some((in_pattern + 1, at));
                    in_pattern += 1;
                }
                Some(&c) if c == '?' || c == text[at] => {
                    at += 1;
                    in_pattern += 1;
                }
                _ => {
                    let Some((after_star, from)) = resume else { return false };
                    resume = Some((after_star, from + 1));
                    (in_pattern, at) = (after_star, from + 1);
                }
            }
        }
        self.0[in_pattern..].iter().all(|&c| c == '*')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_addresses_without_regard_to_case() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("loop@*", "Loop@example.net", true),
            ("loop@*", "xloop@example.net", false),
            ("*@example.net", "a@b@example.net", true),
            ("a?c@*.example", "abc@x.example", true),
            ("a?c", "ac", false),
            ("<>", "<>", true),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} {text}");
        }
    }
}
