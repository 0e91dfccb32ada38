//! Whose mail is next where mail of several senders waits for the same destination.
//!
//! Each sender's messages get turns in their order, as many apart as they cost; those of a sender who
//! has nothing waiting begin with the turn that is on. So whoever brings fifty thousand messages waits
//! for himself only, and a single message of somebody else is next: start-time fair queueing, with one
//! number for each sender whose mail waits. Senders are told apart by a number that the caller makes
//! of [`hash_sender`]; two that share one share their turns.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use mailroot_common::address::ReversePath;

/// From how many octets on a message is large: of a lane's connections only some carry such mail.
pub const LARGE_OCTETS: u64 = 4 * 1024 * 1024;
/// Octets that cost one turn more.
const OCTETS_OF_A_TURN: u64 = 256 * 1024;

/// Whether a message of so many octets is large.
#[must_use]
pub const fn is_large(octets: u64) -> bool {
    octets >= LARGE_OCTETS
}

/// The turns of the mail that waits for one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// The turn that is on.
    now: u64,
    /// The first turn each sender may have next.
    next: BTreeMap<u16, u64>,
}

impl Turns {
    /// Nobody's mail waits, and this turn is on.
    #[must_use]
    pub fn beginning_at(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// The turn that is on.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Gives a sender's next message, of so many octets, its turn.
    pub fn give(&mut self, sender: u16, octets: u64) -> u64 {
        let next = self.next.entry(sender).or_default();
        let turn = self.now.max(*next);
        *next = turn + cost(octets);
        turn
    }

    /// A message is back that had this turn and made no use of it: it has it still. The sender is
    /// charged for it if that was forgotten, and never twice.
    pub fn keep(&mut self, sender: u16, octets: u64, turn: u64) {
        let next = self.next.entry(sender).or_default();
        *next = (turn + cost(octets)).max(*next);
    }

    /// A message that had this turn is taken.
    pub fn take(&mut self, turn: u64) {
        self.now = self.now.max(turn);
    }
}

/// How many turns a message of so many octets costs.
const fn cost(octets: u64) -> u64 {
    1 + octets / OCTETS_OF_A_TURN
}

/// Hashes what tells one sender from another. A sender that names each message's recipient or number
/// in its address, behind `+` or `=`, is one all the same.
pub fn hash_sender(sender: &ReversePath, state: &mut impl Hasher) {
    let Some(mailbox) = sender.mailbox() else { return };
    let local = mailbox.local().as_str();
    let marks: &[char] = if local.contains(['+', '=']) { &['+', '=', '-'] } else { &[] };
    local.split(marks).next().unwrap_or_default().hash(state);
    mailbox.host().hash(state);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::collections::BTreeSet;
    use std::collections::hash_map::DefaultHasher;

    use super::*;

    const SMALL: u64 = 4096;

    #[test]
    fn single_message_is_next_however_many_another_sender_has() {
        let mut turns = Turns::default();
        let mut waiting: BTreeSet<(u64, u32)> = BTreeSet::new();
        for number in 0..50_000 {
            waiting.insert((turns.give(1, SMALL), number));
        }
        let first: Vec<u32> = (0..100)
            .map(|_| {
                let (turn, number) = waiting.pop_first().unwrap();
                turns.take(turn);
                number
            })
            .collect();
        assert!(first.is_sorted());
        waiting.insert((turns.give(2, SMALL), 50_000));
        waiting.insert((turns.give(2, SMALL), 50_001));
        let next: Vec<u32> = waiting.iter().take(4).map(|(_, number)| *number).collect();
        assert_eq!(next, [50_000, 100, 50_001, 101]);
    }

    #[test]
    fn large_messages_cost_more_turns() {
        let mut turns = Turns::default();
        let [first, second] = [0, 1].map(|_| turns.give(1, 50 << 20));
        assert_eq!((first, second), (0, 201));
        let small: Vec<u64> = (0..3).map(|_| turns.give(2, SMALL)).collect();
        assert_eq!(small, [0, 1, 2]);
    }

    #[test]
    fn message_that_comes_back_keeps_its_turn_and_is_charged_once() {
        let mut turns = Turns::default();
        let large = turns.give(1, 50 << 20);
        turns.take(large);
        turns.keep(1, 50 << 20, large);
        assert_eq!(turns.give(1, SMALL), 201);
        let mut later = Turns::beginning_at(turns.now() + 7);
        later.keep(1, 50 << 20, large);
        assert_eq!((later.give(1, SMALL), later.give(2, SMALL)), (201, 7));
    }

    #[test]
    fn addresses_made_for_each_recipient_are_one_sender() {
        let hash = |text: &str| {
            let mut state = DefaultHasher::new();
            hash_sender(&ReversePath::parse(text).unwrap(), &mut state);
            state.finish()
        };
        assert_eq!(hash("list-bob=x.test@l.test"), hash("list-eve=y.test@l.test"));
        assert_eq!(hash("news+17@l.test"), hash("news+18@l.test"));
        assert_ne!(hash("anna-a@l.test"), hash("anna-b@l.test"));
        assert_ne!(hash("anna@l.test"), hash("anna@m.test"));
        assert_eq!(hash("<>"), hash("<>"));
    }
}
