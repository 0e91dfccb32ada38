//! What a message begins with on the wire, where that is not what it begins with in the store: fields
//! of ours before its first octet, or another header.

use std::io;
use std::sync::Arc;

use crate::queue::BodyReader;

/// Octets that leave before a message, or instead of its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Front {
    /// They leave first.
    pub(super) octets: Vec<u8>,
    /// So many octets of the message are left out behind them.
    pub(super) replaces: u64,
}

/// Hands a message out as it leaves.
#[derive(Debug)]
pub(super) struct Outgoing {
    reader: BodyReader,
    /// Until the first piece was handed out.
    front: Option<Arc<Front>>,
    /// The first piece, if it is not one of the reader's.
    first: Vec<u8>,
}

impl Outgoing {
    pub(super) fn new(reader: BodyReader, front: Option<Arc<Front>>) -> Self {
        Self { reader, front, first: Vec::new() }
    }

    /// The next piece, or nothing after the last one.
    ///
    /// # Errors
    ///
    /// Those of [`BodyReader::next`].
    pub(super) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(front) = self.front.take() else {
            self.first = Vec::new();
            return self.reader.next().await;
        };
        self.first.extend_from_slice(&front.octets);
        // One piece with what follows: a chunk of its own could cost a round trip.
        let mut left_out = front.replaces;
        while let Some(piece) = self.reader.next().await? {
            let octets = piece.len() as u64;
            if left_out < octets {
                let from = usize::try_from(left_out).unwrap_or(piece.len());
                self.first.extend_from_slice(&piece[from..]);
                break;
            }
            left_out -= octets;
        }
        Ok(Some(&self.first))
    }
}
