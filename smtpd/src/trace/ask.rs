//! A question to the record, and what blocks and stories say to it.

use std::collections::BTreeSet;

use mailroot_common::control::selector::{Facts, RecipientFacts};
use mailroot_common::control::{Matcher, TraceEntry};
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::trace::event::{Event, RECEIVED};
use smtpd_core::trace::want::{Want, is_chosen};

/// How many messages from before the record are told at most.
const EARLY_MAX: usize = 100_000;

/// Messages that were accepted before the record begins, or seem to be.
#[derive(Debug, Default)]
pub(super) struct Early {
    /// When the record begins.
    pub(super) begins: Option<Timestamp>,
    pub(super) ids: BTreeSet<QueueId>,
    /// Those whose beginning was found after all.
    pub(super) begun: BTreeSet<QueueId>,
}

/// What one block tells of messages.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The chosen ones whose stories begin there.
    pub(super) chosen: Vec<QueueId>,
    /// All whose stories begin there.
    pub(super) begun: Vec<QueueId>,
    /// Those from before the record of which a chosen event tells.
    pub(super) early: Vec<QueueId>,
}

/// Whether a message was accepted before the record begins.
fn is_early(begins: Option<Timestamp>, id: QueueId) -> bool {
    begins.is_some_and(|begins| id.as_millis() <= begins.as_millis())
}

/// A question, and where it may be answered.
pub(super) struct Ask<'a> {
    pub(super) matcher: &'a Matcher,
    pub(super) want: Want,
    pub(super) now: Timestamp,
}

impl Ask<'_> {
    pub(super) fn chooses(&self, event: &Event<'_>) -> bool {
        is_chosen(self.matcher, event, self.now)
    }

    /// What events tell of beginnings. Others are not even taken apart unless some of them may be of
    /// messages from before the record.
    pub(super) fn look(&self, lowest: QueueId, plain: &[u8], begins: Option<Timestamp>) -> Told {
        let (mut told, may_be_early) = (Told::default(), is_early(begins, lowest));
        for (mut octets, is_beginning) in Event::each_is(plain, RECEIVED) {
            if !is_beginning && !may_be_early {
                continue;
            }
            let Some(event) = Event::take(&mut octets) else { break };
            let Some(id) = event.id() else { continue };
            if is_beginning && may_be_early {
                told.begun.push(id);
            }
            if (is_beginning || is_early(begins, id)) && self.chooses(&event) {
                let list = if is_beginning { &mut told.chosen } else { &mut told.early };
                list.push(id);
            }
        }
        told
    }
}

impl Early {
    /// Takes what a block told.
    pub(super) fn take(&mut self, told: &Told) {
        let begun = told.begun.iter().filter(|id| is_early(self.begins, **id));
        self.begun.extend(begun);
        self.ids.extend(&told.early);
        while self.ids.len() > EARLY_MAX {
            self.ids.pop_first();
        }
    }
}

/// Whether a whole story is chosen.
pub(super) fn suits(matcher: &Matcher, entry: &TraceEntry, now: Timestamp) -> bool {
    let id = entry.id.to_string();
    let by_id = || Timestamp::from_millis(entry.id.as_millis());
    let at = entry.accepted_at.unwrap_or_else(by_id);
    let facts = Facts {
        id: &id,
        server: &entry.server,
        state: &entry.state,
        at: Some(at),
        size: entry.size,
        from: entry.from.as_deref(),
        subject: entry.subject.as_deref(),
        client: entry.client.as_deref().and_then(|client| client.parse().ok()),
    };
    let recipients = entry.recipients.iter().map(|recipient| RecipientFacts {
        address: &recipient.address,
        reason: None,
        code: None,
        ..RecipientFacts::default()
    });
    matcher.matches(&facts, recipients, now)
}
