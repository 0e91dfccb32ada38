//! What was read from a client and is not used yet, in as little memory as serves.

use smtpd_core::smtp::server::Standing;

/// What a session reads into while it waits for commands; holds the longest command.
/// A ticket may fill it.
const SMALL_BUFFER: usize = 4 << 10;
/// What it reads into while a body comes; takes most messages in one piece.
const BODY_BUFFER: usize = 16 << 10;
/// What it reads into while a large body comes.
const LARGE_BUFFER: usize = 64 << 10;

/// Octets read and not used yet.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    pub(super) octets: Vec<u8>,
    /// Octets before this place are used.
    pub(super) used: usize,
}

impl Buffer {
    /// Makes room to read into: what is used goes, and a body that fills the buffer gets a larger
    /// one.
    pub(super) fn make_room(&mut self, standing: Standing) {
        let full = self.octets.len() == self.octets.capacity();
        self.octets.drain(..self.used);
        self.used = 0;
        let wanted = match standing {
            Standing::Body if full && self.octets.capacity() >= BODY_BUFFER => LARGE_BUFFER,
            Standing::Body => BODY_BUFFER,
            _ if full && self.octets.capacity() >= SMALL_BUFFER => BODY_BUFFER,
            Standing::Greeting
            | Standing::Idle
            | Standing::Envelope
            | Standing::Commit
            | Standing::Reversed
            | Standing::Closing => SMALL_BUFFER,
        };
        if self.octets.capacity() < wanted {
            self.octets.reserve_exact(wanted - self.octets.len());
        }
    }

    /// Gives a large buffer back.
    pub(super) fn release(&mut self) {
        if self.octets.capacity() > SMALL_BUFFER && self.octets.len() <= SMALL_BUFFER {
            self.octets.shrink_to(SMALL_BUFFER);
        }
    }
}
