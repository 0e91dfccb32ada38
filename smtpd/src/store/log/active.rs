//! What is in memory of messages that somebody works on, or that came just now.
//!
//! A message is *open* while a recipient of it is leased or an operator's wish for it is under
//! way: then its envelope and its state are here, and every change of state starts from them. A
//! message is *fresh* after it was committed, until it is first opened or newer ones push it out:
//! mail that goes out as it comes in is never read back from disk.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mailroot_common::id::QueueId;
use smtpd_core::queue::envelope::Envelope;
use smtpd_core::queue::recipient::MessageState;

/// Octets of fresh messages that are kept.
const FRESH_MAX: usize = 8 << 20;
/// What an envelope costs at least, besides the body.
const ENVELOPE_COST: usize = 600;

type Map<T> = HashMap<QueueId, T, foldhash::fast::RandomState>;

/// Who has a recipient of an open message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Seat {
    /// Nobody.
    #[default]
    Free,
    /// Whoever leased it. The turn that the message had is its own as long as the recipient is not tried.
    Leased(Option<u64>),
    /// Nobody any more: it comes back untried, and the message to this turn.
    Back(u64),
}

impl Seat {
    pub(super) const fn is_leased(self) -> bool {
        matches!(self, Self::Leased(_))
    }

    /// The turn of a message that comes back.
    pub(super) const fn turn_back(self) -> Option<u64> {
        match self {
            Self::Back(turn) => Some(turn),
            Self::Free | Self::Leased(_) => None,
        }
    }
}

/// A message in memory.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) envelope: Arc<Envelope>,
    pub(super) state: MessageState,
    /// The content, if it is small and was at hand.
    pub(super) body: Option<Arc<Vec<u8>>>,
    /// One for each recipient.
    pub(super) seats: Vec<Seat>,
    /// Operators' wishes under way.
    pub(super) pins: u32,
}

impl Active {
    pub(super) fn new(
        envelope: Arc<Envelope>,
        state: MessageState,
        body: Option<Arc<Vec<u8>>>,
    ) -> Self {
        let seats = vec![Seat::Free; state.recipients.len()];
        Self { envelope, state, body, seats, pins: 0 }
    }

    pub(super) fn is_leased(&self) -> bool {
        self.seats.iter().any(|seat| seat.is_leased())
    }

    /// Whether somebody waits and is not being tried.
    pub(super) fn has_idle(&self) -> bool {
        let mut all = self.state.recipients.iter().zip(&self.seats);
        all.any(|(status, seat)| !seat.is_leased() && !status.phase.is_end())
    }

    /// Takes a new state. Whoever was tried has made use of the message's turn.
    pub(super) fn change_state(&mut self, state: MessageState) {
        let pairs = self.state.recipients.iter().zip(&state.recipients);
        for (seat, (old, new)) in self.seats.iter_mut().zip(pairs) {
            let is_untried = old.attempts == new.attempts && old.next_attempt == new.next_attempt;
            if seat.is_leased() && !is_untried {
                *seat = Seat::Leased(None);
            }
        }
        self.state = state;
    }

    pub(super) fn give_back(&mut self, places: impl IntoIterator<Item = usize>) {
        for place in places {
            if let Some(seat) = self.seats.get_mut(place) {
                *seat = match *seat {
                    Seat::Leased(Some(turn)) => Seat::Back(turn),
                    Seat::Free | Seat::Leased(None) | Seat::Back(_) => Seat::Free,
                };
            }
        }
    }

    /// Whoever comes back later has no turn.
    pub(super) fn forget_turns(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| seat.is_leased()) {
            *seat = Seat::Leased(None);
        }
    }

    /// Whoever came back is there.
    pub(super) fn end_return(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| seat.turn_back().is_some()) {
            *seat = Seat::Free;
        }
    }
}

#[derive(Debug)]
struct Fresh {
    envelope: Arc<Envelope>,
    body: Option<Arc<Vec<u8>>>,
}

impl Fresh {
    fn cost(&self) -> usize {
        ENVELOPE_COST
            + self.envelope.recipients.len() * 100
            + self.body.as_ref().map_or(0, |body| body.len())
    }
}

/// Open and fresh messages.
#[derive(Debug, Default)]
pub(super) struct Actives {
    open: Map<Active>,
    fresh: Map<Fresh>,
    order: VecDeque<QueueId>,
    octets: usize,
}

impl Actives {
    pub(super) fn get(&self, id: QueueId) -> Option<&Active> {
        self.open.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: QueueId) -> Option<&mut Active> {
        self.open.get_mut(&id)
    }

    /// The open message, opened now if it is fresh.
    pub(super) fn open_fresh(&mut self, id: QueueId) -> Option<&mut Active> {
        if let Some(fresh) = self.fresh.remove(&id) {
            self.octets -= fresh.cost();
            let state = MessageState::fresh(&fresh.envelope);
            let active = Active::new(fresh.envelope, state, fresh.body);
            return Some(self.open.entry(id).or_insert(active));
        }
        self.open.get_mut(&id)
    }

    /// Whether opening the message needs no disk.
    pub(super) fn is_at_hand(&self, id: QueueId) -> bool {
        self.open.contains_key(&id) || self.fresh.contains_key(&id)
    }

    pub(super) fn open(&mut self, id: QueueId, active: Active) -> &mut Active {
        self.forget_fresh(id);
        self.open.entry(id).or_insert(active)
    }

    /// Ends an operator's wish.
    pub(super) fn unpin(&mut self, id: QueueId) {
        if let Some(active) = self.open.get_mut(&id) {
            active.pins -= 1;
        }
        self.close_if_idle(id);
    }

    /// Closes a message that nobody needs open any more.
    pub(super) fn close_if_idle(&mut self, id: QueueId) {
        if self.open.get(&id).is_some_and(|active| active.pins == 0 && !active.is_leased()) {
            self.open.remove(&id);
        }
    }

    /// Forgets a message that has reached its end.
    pub(super) fn remove(&mut self, id: QueueId) {
        self.open.remove(&id);
        self.forget_fresh(id);
    }

    fn forget_fresh(&mut self, id: QueueId) {
        if let Some(fresh) = self.fresh.remove(&id) {
            self.octets -= fresh.cost();
        }
    }

    /// Keeps a message that was committed just now.
    pub(super) fn keep_fresh(
        &mut self,
        id: QueueId,
        envelope: Arc<Envelope>,
        body: Option<Arc<Vec<u8>>>,
    ) {
        let fresh = Fresh { envelope, body };
        self.octets += fresh.cost();
        self.fresh.insert(id, fresh);
        self.order.push_back(id);
        while let Some(oldest) = self.order.front().copied() {
            if self.octets <= FRESH_MAX && self.fresh.contains_key(&oldest) {
                break;
            }
            self.order.pop_front();
            self.forget_fresh(oldest);
        }
    }

    /// How many messages have a leased recipient.
    pub(super) fn leased(&self) -> u64 {
        self.open.values().filter(|active| active.is_leased()).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::{envelope, id, start};
    use super::*;

    #[test]
    fn fresh_messages_are_kept_within_their_bound_and_the_oldest_go_first() {
        let mut actives = Actives::default();
        for number in 0..100 {
            let body = Some(Arc::new(vec![0; 200_000]));
            let envelope = Arc::new(envelope(&["a@x.example"], start()));
            actives.keep_fresh(id(number), envelope, body);
        }
        assert!(actives.octets <= FRESH_MAX && actives.octets > FRESH_MAX / 2);
        assert!(!actives.is_at_hand(id(0)) && actives.is_at_hand(id(99)));
        let opened = actives.open_fresh(id(99)).unwrap();
        assert!(!opened.is_leased());
        actives.close_if_idle(id(99));
        assert!(!actives.is_at_hand(id(99)));
        for number in 0..100 {
            actives.remove(id(number));
        }
        assert_eq!(actives.octets, 0);
    }
}
