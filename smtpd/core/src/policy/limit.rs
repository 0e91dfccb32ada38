//! How many connections there may be, in all and from one client.
//!
//! Memory is bounded by the connections that are open: a client's count is forgotten when its last connection ends. Clients choose
//! their addresses, so the table is hashed with a key of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use super::client::Client;
use super::{Denial, Reason, Verdict};

/// The limits; absent is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections of the virtual server.
    pub total: Option<u32>,
    /// Connections of one client.
    pub per_client: Option<u32>,
}

/// A counted connection. It goes back to [`ConnectionCounts::leave`] when the connection ends.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Seat {
    client: Client,
}

/// The connections that are open.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    total: u32,
    clients: HashMap<Client, u32>,
}

impl ConnectionCounts {
    /// Counts a connection in, unless a limit is met. The limits may differ from call to call;
    /// nobody who is in is thrown out when they shrink.
    pub fn enter(&mut self, client: IpAddr, limits: ConnectionLimits) -> Verdict<Seat> {
        if limits.total.is_some_and(|max| self.total >= max) {
            return Verdict::Defer(Denial::plain(Reason::TooManyConnections));
        }
        let client = Client::of(client);
        let here = self.clients.get(&client).copied().unwrap_or(0);
        if limits.per_client.is_some_and(|max| here >= max) {
            return Verdict::Defer(Denial::plain(Reason::TooManyFromClient));
        }
        self.clients.insert(client, here + 1);
        self.total += 1;
        Verdict::Admit(Seat { client })
    }

    /// Counts a connection out.
    #[expect(clippy::needless_pass_by_value, reason = "a seat is given back once")]
    pub fn leave(&mut self, seat: Seat) {
        if let Entry::Occupied(mut count) = self.clients.entry(seat.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
            self.total -= 1;
        }
        // A flood that is over shall not hold its memory for ever.
        if self.clients.capacity() > 1024 && self.clients.len() < self.clients.capacity() / 8 {
            self.clients.shrink_to(self.clients.len() * 2);
        }
    }

    /// Connections open now.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Connections of this client open now.
    #[must_use]
    pub fn of(&self, client: IpAddr) -> u32 {
        self.clients.get(&Client::of(client)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { total: Some(5), per_client: Some(2) };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn reason(verdict: Verdict<Seat>) -> Option<Reason> {
        match verdict {
            Verdict::Admit(_) => None,
            Verdict::Defer(denial) | Verdict::Refuse(denial) => Some(denial.reason),
        }
    }

    #[test]
    fn limits_count_clients_by_address_and_by_ipv6_network() {
        let mut counts = ConnectionCounts::default();
        let (total, client) = (Some(Reason::TooManyConnections), Some(Reason::TooManyFromClient));
        for (address, answer) in [
            ("192.0.2.1", None),
            ("::ffff:192.0.2.1", None),
            ("192.0.2.1", client),
            ("192.0.2.2", None),
            ("2001:db8::1", None),
            ("2001:db8::ffff:0:0:2", None),
            ("2001:db8::3", total),
            ("192.0.2.3", total),
        ] {
            assert_eq!(reason(counts.enter(ip(address), LIMITS)), answer, "{address}");
        }
        assert_eq!((counts.total(), counts.of(ip("2001:db8::9"))), (5, 2));
        assert_eq!(counts.of(ip("2001:db8:0:1::9")), 0);
    }

    #[test]
    fn seat_given_back_can_be_taken_again() {
        let mut counts = ConnectionCounts::default();
        let one = ConnectionLimits { total: None, per_client: Some(1) };
        for _ in 0..3 {
            let Verdict::Admit(seat) = counts.enter(ip("192.0.2.1"), one) else {
                panic!("the seat was given back");
            };
            counts.leave(seat);
        }
        assert_eq!((counts.total(), counts.clients.len()), (0, 0));
    }

    #[test]
    fn memory_of_a_flood_is_given_back() {
        let mut counts = ConnectionCounts::default();
        let unlimited = ConnectionLimits { total: None, per_client: None };
        let mut seats = Vec::new();
        for number in 0..20_000_u32 {
            match counts.enter(IpAddr::V4(number.into()), unlimited) {
                Verdict::Admit(seat) => seats.push(seat),
                other => panic!("{other:?}"),
            }
        }
        seats.into_iter().for_each(|seat| counts.leave(seat));
        assert!(counts.clients.capacity() <= 1024, "{}", counts.clients.capacity());
    }

    proptest! {
        #[test]
        fn counts_are_the_seats_taken_and_never_above_a_limit(
            steps in vec((any::<bool>(), 0_u8..4), 0..200),
        ) {
            let mut counts = ConnectionCounts::default();
            let mut seats: Vec<Seat> = Vec::new();
            for (comes, last) in steps {
                if comes {
                    let client = IpAddr::from([192, 0, 2, last]);
                    if let Verdict::Admit(seat) = counts.enter(client, LIMITS) {
                        seats.push(seat);
                    }
                    prop_assert!(counts.of(client) <= 2);
                } else if let Some(seat) = seats.pop() {
                    counts.leave(seat);
                }
                prop_assert_eq!(counts.total() as usize, seats.len());
                prop_assert!(counts.total() <= 5);
            }
        }
    }
}
