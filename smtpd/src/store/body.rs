//! The content of a message on its way into and out of the store.
//!
//! A body of up to [`Body::MEMORY_MAX`] octets travels in memory; a larger one goes through a
//! [`LargeBodyWriter`] while it arrives, so that a message costs the same memory whatever its size.
//! A [`BodyReader`] hands a body out in pieces and never hands out the last one before all were
//! compared with the checksums written with them.

use std::io;
use std::sync::Arc;

use super::CommitError;

/// Content that is not yet stored.
#[derive(Debug)]
pub enum Body {
    /// In memory; at most [`Body::MEMORY_MAX`] octets by custom, more are written out on commit.
    Memory(Vec<u8>),
    /// Written while it arrived.
    File(LargeBody),
}

impl Body {
    /// Bodies over this many octets should go through [`super::Store::large_body`].
    pub const MEMORY_MAX: usize = 256 << 10;

    /// How many octets it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(octets) => octets.len() as u64,
            Self::File(large) => large.size(),
        }
    }
}

/// A large body as it arrives. Dropped before [`LargeBodyWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct LargeBodyWriter(Writer);

#[derive(Debug)]
enum Writer {
    Memory(Vec<u8>),
}

impl LargeBodyWriter {
    pub(super) const fn memory() -> Self {
        Self(Writer::Memory(Vec::new()))
    }

    /// Adds octets at the end.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if they cannot be written.
    #[expect(clippy::unused_async, reason = "the arm on disk waits")]
    pub async fn append(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        match &mut self.0 {
            Writer::Memory(body) => body.extend_from_slice(octets),
        }
        Ok(())
    }

    /// Ends the body and makes it durable.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    #[expect(clippy::unused_async, reason = "the arm on disk waits")]
    pub async fn finish(self) -> Result<LargeBody, CommitError> {
        match self.0 {
            Writer::Memory(body) => Ok(LargeBody(Large::Memory(body))),
        }
    }
}

/// A large body that has arrived. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct LargeBody(Large);

#[derive(Debug)]
enum Large {
    Memory(Vec<u8>),
}

impl LargeBody {
    /// How many octets it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.0 {
            Large::Memory(body) => body.len() as u64,
        }
    }

    pub(super) fn into_memory(self) -> Vec<u8> {
        match self.0 {
            Large::Memory(body) => body,
        }
    }
}

/// Hands out a stored body from its first octet to its last.
#[derive(Debug)]
pub struct BodyReader {
    source: Source,
    size: u64,
}

#[derive(Debug)]
enum Source {
    Memory { body: Arc<[u8]>, at: usize },
}

impl BodyReader {
    /// The most octets one piece has.
    pub const PIECE_MAX: usize = 256 << 10;

    pub(super) fn memory(body: Arc<[u8]>) -> Self {
        let size = body.len() as u64;
        Self { source: Source::Memory { body, at: 0 }, size }
    }

    /// How many octets the body has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The next piece, or nothing after the last one.
    ///
    /// # Errors
    ///
    /// An error of the disk, or [`io::ErrorKind::InvalidData`] if the body is not what was
    /// written; then the message is held, and what was handed out must not be completed.
    #[expect(clippy::unused_async, reason = "the arm on disk waits")]
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        match &mut self.source {
            Source::Memory { body, at } => {
                let begin = *at;
                *at = body.len().min(begin + Self::PIECE_MAX);
                Ok((begin < *at).then(|| &body[begin..*at]))
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    ///
    /// Those of [`BodyReader::next`].
    pub async fn read_all(mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::with_capacity(usize::try_from(self.size).unwrap_or(0));
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(piece);
        }
        Ok(all)
    }

    /// The header with the empty line that ends it, at most `max` octets of it.
    ///
    /// # Errors
    ///
    /// Those of [`BodyReader::next`].
    pub async fn read_header(mut self, max: usize) -> io::Result<Vec<u8>> {
        let mut header = Vec::new();
        while let Some(piece) = self.next().await? {
            let from = header.len().saturating_sub(3);
            header.extend_from_slice(piece);
            if let Some(place) = memchr::memmem::find(&header[from..], b"\r\n\r\n") {
                header.truncate(from + place + 4);
                break;
            }
            if header.len() >= max {
                break;
            }
        }
        header.truncate(max);
        Ok(header)
    }
}
