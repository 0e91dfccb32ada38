//! One leased message on its way through an attempt: who is still to be tried, what was said.

use std::sync::Arc;

use mailroot_common::address::ReversePath;
use mailroot_common::id::QueueId;
use mailroot_common::units::Timestamp;
use smtpd_core::queue::envelope::{BodyKind, Envelope, Recipient};
use smtpd_core::queue::outcome::{AttemptResult, Outcome, RemoteHost};
use smtpd_core::queue::wishes::ByMode;
use smtpd_core::route::table::RouteName;
use smtpd_core::smtp::client::{Fate, Finished, Transaction};

use super::finish::deadline;
use super::front::Front;
use crate::clock::Clock;
use crate::queue::{Draft, Lease};

/// A recipient for which the attempt is over.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// Its place in the envelope.
    pub(super) place: usize,
    /// How it ended.
    pub(super) outcome: Outcome,
    /// Whether the next hop took over the duty to report (RFC 3461).
    pub(super) dsn: bool,
    /// Whether the sender is to hear that the next hop took it over, for the sake of its time
    /// (RFC 2852).
    pub(super) tells_of_relay: bool,
}

/// What was found in the message itself, where a peer's limits made it worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// Octets beyond ASCII stand in it.
    pub(super) eight_bit: bool,
    /// They stand in its header.
    pub(super) in_header: bool,
}

/// One leased message.
#[derive(Debug)]
pub(super) struct Job {
    /// The lease, until it is settled.
    pub(super) lease: Option<Lease>,
    pub(super) id: QueueId,
    pub(super) envelope: Arc<Envelope>,
    pub(super) size: u64,
    /// The way it goes.
    pub(super) route: RouteName,
    sender: ReversePath,
    /// Places of the recipients to try at the host at hand.
    todo: Vec<usize>,
    /// Places under way in a transaction.
    sent: Vec<usize>,
    /// Places that got "not now" from the host at hand.
    held: Vec<usize>,
    /// The last "not now" of each.
    last: Vec<(usize, Outcome)>,
    pub(super) ended: Vec<Ended>,
    pub(super) content: Option<Content>,
    has_progress: bool,
    /// What leaves before the message or instead of its beginning.
    pub(super) front: Option<Arc<Front>>,
    /// The message for those whom the directory names in the place of recipients who end here.
    pub(super) made: Option<Box<Draft>>,
}

impl Job {
    pub(super) fn new(lease: Lease, sender: ReversePath, route: RouteName) -> Self {
        let todo = lease.places().collect();
        Self {
            id: lease.id,
            envelope: Arc::clone(&lease.envelope),
            size: lease.size,
            route,
            sender,
            todo,
            sent: Vec::new(),
            held: Vec::new(),
            last: Vec::new(),
            ended: Vec::with_capacity(lease.due.len()),
            content: None,
            has_progress: false,
            front: None,
            made: None,
            lease: Some(lease),
        }
    }

    /// Whether recipients wait for the host at hand.
    pub(super) fn has_todo(&self) -> bool {
        !self.todo.is_empty()
    }

    /// Whether recipients could be tried at a further host.
    pub(super) fn is_open(&self) -> bool {
        self.lease.is_some() && !(self.todo.is_empty() && self.held.is_empty())
    }

    /// Whether the attempt is over for every recipient.
    pub(super) fn is_over(&self) -> bool {
        self.lease.is_some() && self.todo.is_empty() && self.held.is_empty() && self.sent.is_empty()
    }

    /// Whether a directory named the host that it goes to.
    pub(super) fn is_by_directory(&self) -> bool {
        let is_named =
            |place: usize| self.envelope.recipients.get(place).is_some_and(|it| it.via.is_some());
        let lease = self.lease.as_ref().filter(|lease| lease.via.is_none());
        lease.is_some_and(|lease| lease.places().any(is_named))
    }

    /// Another host's turn: those it was "not now" for are tried again.
    pub(super) fn turn_to_next_host(&mut self) {
        self.todo.append(&mut self.held);
        self.todo.sort_unstable();
    }

    /// The transaction for those who wait, who are under way from now on.
    pub(super) fn begin(&mut self, clock: &Clock) -> Transaction<'_> {
        self.sent = std::mem::take(&mut self.todo);
        let eight_bit = match (self.envelope.body, self.content) {
            (BodyKind::BinaryMime, _) => BodyKind::BinaryMime,
            (_, Some(content)) if content.eight_bit => BodyKind::EightBitMime,
            (_, Some(_)) => BodyKind::SevenBit,
            (declared, None) => declared,
        };
        Transaction {
            sender: &self.sender,
            recipients: self.sent.iter().map(|&place| self.recipient(place)).collect(),
            envid: self.envelope.envid.as_deref(),
            ret: self.envelope.ret,
            size: self.size_outside(),
            body: eight_bit,
            smtputf8: self.content.map_or(self.envelope.smtputf8, |content| content.in_header),
            by: self.envelope.wishes.deliver_by.map(|by| {
                let past = clock.past();
                by.left(deadline(&past, &self.envelope).unwrap_or(by.at), past.now)
            }),
            priority: self.envelope.wishes.priority,
            require_tls: self.envelope.wishes.require_tls,
        }
    }

    /// Whether it is rather sent without what a domain or a host demands than not at all.
    pub(super) fn is_tls_optional(&self) -> bool {
        self.envelope.tls_optional
    }

    /// Whether it goes under TLS all the way or not at all (RFC 8689).
    pub(super) fn requires_tls(&self) -> bool {
        self.envelope.wishes.require_tls
    }

    /// The sender as other hosts see it.
    pub(super) const fn sender(&self) -> &ReversePath {
        &self.sender
    }

    /// The octets that leave.
    pub(super) fn size_outside(&self) -> u64 {
        let front = self.front.as_deref();
        front.map_or(self.size, |it| self.size.saturating_sub(it.replaces) + it.octets.len() as u64)
    }

    /// The first of those to try; all have one route.
    pub(super) fn first_recipient(&self) -> Option<&Recipient> {
        self.todo.first().map(|&place| self.recipient(place))
    }

    fn recipient(&self, place: usize) -> &Recipient {
        self.envelope.recipients.get(place).expect("the store leases recipients of the envelope")
    }

    /// The end of the message is about to leave for these of the recipients under way. Those that
    /// have it by an earlier transaction, and whose outcome is not recorded yet, stay marked.
    pub(super) fn mark_sending(&mut self, completed: &[usize], host: &RemoteHost) {
        let Some(lease) = self.lease.as_mut().filter(|_| !completed.is_empty()) else { return };
        let has_it = |ended: &&Ended| {
            matches!(ended.outcome.result, AttemptResult::Delivered | AttemptResult::InDoubt)
        };
        let earlier = self.ended.iter().filter(has_it).map(|ended| ended.place);
        let now = completed.iter().filter_map(|&place| self.sent.get(place).copied());
        lease.mark_sending(&now.chain(earlier).collect::<Vec<_>>(), host);
    }

    /// Takes the result of the transaction.
    pub(super) fn apply(&mut self, finished: Finished, at: Timestamp, host: &RemoteHost) {
        let dsn = finished.dsn;
        let by = self.envelope.wishes.deliver_by;
        let told = finished.deliver_by;
        let tells_of_relay = by.is_some_and(|by| by.trace || (by.mode == ByMode::Notify && !told));
        self.has_progress |= finished.has_progress();
        for (place, fate) in std::mem::take(&mut self.sent).into_iter().zip(finished.fates) {
            match fate {
                Fate::Unsent | Fate::Untried => self.todo.push(place),
                Fate::Ended(ending) => {
                    let outcome = ending.into_outcome(at, Some(host.clone()));
                    if outcome.result == AttemptResult::Deferred {
                        self.held.push(place);
                        self.last.retain(|(known, _)| *known != place);
                        self.last.push((place, outcome));
                    } else {
                        let tells_of_relay =
                            tells_of_relay && outcome.result == AttemptResult::Delivered;
                        self.ended.push(Ended { place, outcome, dsn, tells_of_relay });
                    }
                }
            }
        }
    }

    /// No further host is left: those still waiting end with what was last said about them, or
    /// with `otherwise`.
    pub(super) fn give_up(&mut self, otherwise: &Outcome) {
        self.turn_to_next_host();
        self.todo.append(&mut self.sent);
        for place in std::mem::take(&mut self.todo) {
            let said = self.last.iter().position(|(known, _)| *known == place);
            let outcome = match said {
                Some(at) => self.last.swap_remove(at).1,
                None => otherwise.clone(),
            };
            self.ended.push(Ended { place, outcome, dsn: false, tells_of_relay: false });
        }
    }

    /// Whether a host took it for somebody.
    pub(super) fn had_progress(&self) -> bool {
        self.has_progress
    }

    /// The last "not now" of a recipient that is still to be tried.
    pub(super) fn last_word(&self) -> Option<&Outcome> {
        self.todo.iter().chain(&self.held).find_map(|place| {
            self.last.iter().find(|(known, _)| known == place).map(|(_, outcome)| outcome)
        })
    }

    /// The attempt is broken off: what is known of recipients counts, the others were not tried.
    pub(super) fn break_off(&mut self) {
        self.turn_to_next_host();
        for place in std::mem::take(&mut self.todo) {
            if let Some(said) = self.last.iter().position(|(known, _)| *known == place) {
                let (place, outcome) = self.last.swap_remove(said);
                self.ended.push(Ended { place, outcome, dsn: false, tells_of_relay: false });
            }
        }
    }

    /// The end of one recipient that waits; `relieved` if its sender hears from elsewhere what becomes
    /// of it.
    pub(super) fn end(&mut self, place: usize, outcome: Outcome, relieved: bool) {
        self.todo.retain(|waiting| *waiting != place);
        self.ended.push(Ended { place, outcome, dsn: relieved, tells_of_relay: false });
    }

    /// Places of those who wait.
    pub(super) fn waiting(&self) -> &[usize] {
        &self.todo
    }

    /// The same end for every recipient that waits.
    pub(super) fn end_all(&mut self, outcome: &Outcome) {
        self.last.clear();
        self.give_up(outcome);
    }
}
