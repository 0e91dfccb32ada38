//! `limits:` - how much mail goes to one smart host or remote domain at once, and how fast.

use super::section::section;
use crate::rate::Rate;

section! {
    /// How much mail goes there at once, and how fast.
    pub struct LaneLimits {
        /// Connections at the same time, over all that goes there.
        connections: Option<u32> = None, None, in 1..=10_000,
            shown "the preset's, else delivery.connections.per_domain";
        /// Messages in a time, such as 30/min; also per s, h and d. They are spread evenly, and mail that
        /// has to wait for its turn is not delayed mail.
        rate: Option<Rate> = None, None, shown "the preset's, else none";
        /// Recipients of one message; more get it in further ones.
        recipients: Option<u32> = None, None, in 1..=100_000, shown "what the host says";
    }
}

impl LaneLimits {
    /// The same, with what another one has where this one says nothing.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            connections: self.connections.or(other.connections),
            rate: self.rate.or(other.rate),
            recipients: self.recipients.or(other.recipients),
        }
    }
}
