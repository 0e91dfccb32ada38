//! The content of a message on its way into and out of the store.
//!
//! A body of up to [`Body::MEMORY_MAX`] octets travels in memory; a larger one goes through a
//! [`LargeBodyWriter`] while it arrives, so that a message costs the same memory whatever its size.
//! A [`BodyReader`] hands a body out in pieces and never hands out the last one before all were
//! compared with the checksums written with them.

use std::io;
use std::sync::Arc;

use mailroot_common::id::QueueId;
use tokio::task::spawn_blocking;

use super::log::{LargeFile, LargeFileWriter, LargeReader, Log, Opened};
use super::{CommitError, ReadError};

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
    File(LargeFileWriter),
    Memory(Vec<u8>),
}

impl LargeBodyWriter {
    pub(super) const fn memory() -> Self {
        Self(Writer::Memory(Vec::new()))
    }

    pub(super) async fn file(log: Arc<Log>) -> Result<Self, CommitError> {
        LargeFileWriter::begin(log).await.map(|writer| Self(Writer::File(writer)))
    }

    /// Adds octets at the end.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if they cannot be written.
    pub async fn append(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        match &mut self.0 {
            Writer::File(file) => file.append(octets).await,
            Writer::Memory(body) => {
                body.extend_from_slice(octets);
                Ok(())
            }
        }
    }

    /// Puts octets in the place of the first ones, which are at least as many.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if they cannot be written.
    pub async fn begin_with(&mut self, octets: &[u8]) -> Result<(), CommitError> {
        match &mut self.0 {
            Writer::File(file) => file.begin_with(octets).await,
            Writer::Memory(body) => {
                body[..octets.len()].copy_from_slice(octets);
                Ok(())
            }
        }
    }

    /// Ends the body and makes it durable.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if it cannot be made durable.
    pub async fn finish(self) -> Result<LargeBody, CommitError> {
        match self.0 {
            Writer::File(file) => file.finish().await.map(|done| LargeBody(Large::File(done))),
            Writer::Memory(body) => Ok(LargeBody(Large::Memory(body))),
        }
    }
}

/// A large body that has arrived. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct LargeBody(Large);

#[derive(Debug)]
enum Large {
    File(LargeFile),
    Memory(Vec<u8>),
}

impl LargeBody {
    /// How many octets it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.0 {
            Large::File(file) => file.size,
            Large::Memory(body) => body.len() as u64,
        }
    }

    /// Hands it out before it is committed; `id` is how errors call it.
    ///
    /// # Errors
    ///
    /// An error of the disk.
    pub async fn read(&self, id: QueueId) -> io::Result<BodyReader> {
        match &self.0 {
            Large::Memory(body) => Ok(BodyReader::memory(Arc::new(body.clone()))),
            Large::File(file) => {
                let reader = file.reader(id).await?;
                Ok(BodyReader { source: Source::Unstored(reader), size: file.size })
            }
        }
    }

    /// The content of a body that was written into a store in memory; nothing for one on disk,
    /// which can only be committed to the store it was made by.
    pub(super) fn into_memory(self) -> Option<Vec<u8>> {
        match self.0 {
            Large::File(_) => None,
            Large::Memory(body) => Some(body),
        }
    }

    /// The file; nothing for a body that was written into a store in memory.
    pub(super) fn into_file(self) -> Option<LargeFile> {
        match self.0 {
            Large::File(file) => Some(file),
            Large::Memory(_) => None,
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
    Memory {
        body: Arc<Vec<u8>>,
        at: usize,
    },
    Large {
        log: Arc<Log>,
        id: QueueId,
        reader: LargeReader,
    },
    Unopened {
        log: Arc<Log>,
        id: QueueId,
    },
    /// Of a message that no record names yet.
    Unstored(LargeReader),
    Gone(QueueId),
}

impl BodyReader {
    /// The most octets one piece has.
    pub const PIECE_MAX: usize = 256 << 10;

    pub(super) fn memory(body: Arc<Vec<u8>>) -> Self {
        let size = body.len() as u64;
        Self { source: Source::Memory { body, at: 0 }, size }
    }

    pub(super) const fn log(log: Arc<Log>, id: QueueId, size: u64) -> Self {
        Self { source: Source::Unopened { log, id }, size }
    }

    /// The reader of a message that an operator removed meanwhile.
    pub(super) const fn gone(id: QueueId) -> Self {
        Self { source: Source::Gone(id), size: 0 }
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
    pub async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if let Source::Unopened { log, id } = &self.source {
            self.source = open(Arc::clone(log), *id).await?;
        }
        match &mut self.source {
            Source::Memory { body, at } => {
                let begin = *at;
                *at = body.len().min(begin + Self::PIECE_MAX);
                Ok((begin < *at).then(|| &body[begin..*at]))
            }
            Source::Large { log, id, reader } => match reader.next().await {
                Ok(piece) => Ok(piece),
                Err(error) => {
                    log.set_aside(*id, &error);
                    Err(error.into())
                }
            },
            Source::Unstored(reader) => reader.next().await.map_err(io::Error::from),
            Source::Gone(id) | Source::Unopened { id, .. } => {
                Err(ReadError::Damaged { id: *id, what: "it was removed" }.into())
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

/// Finds the body on disk. A small one is read whole and verified here.
async fn open(log: Arc<Log>, id: QueueId) -> io::Result<Source> {
    let opened = spawn_blocking({
        let log = Arc::clone(&log);
        move || log.open_body(id)
    });
    match opened.await.map_err(io::Error::other)? {
        Ok(Opened::Small(body)) => Ok(Source::Memory { body, at: 0 }),
        Ok(Opened::Large(reader)) => Ok(Source::Large { log, id, reader }),
        Err(error) => {
            log.set_aside(id, &error);
            Err(error.into())
        }
    }
}
