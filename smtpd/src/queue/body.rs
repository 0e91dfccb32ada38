//! The content of messages to be: too large for memory, or made of another's.

use std::io;
use std::pin::pin;

use super::{Body, CommitError, LargeBodyWriter, Lease, Queue};
use crate::store::guard;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The message cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The copy cannot be written.
    #[error(transparent)]
    Write(#[from] CommitError),
}

impl Queue {
    /// Begins a body that is too large for memory (over [`Body::MEMORY_MAX`]).
    ///
    /// # Errors
    ///
    /// [`CommitError`] if no file can be made for it.
    pub async fn large_body(&self) -> Result<LargeBodyWriter, CommitError> {
        guard::wait(pin!(self.0.store.large_body())).await
    }

    /// A copy of the content of a leased message, which may be of another queue.
    ///
    /// # Errors
    ///
    /// [`CopyError`].
    pub async fn copy_of(&self, lease: &Lease) -> Result<Body, CopyError> {
        let mut reader = lease.open();
        if lease.size <= Body::MEMORY_MAX as u64 {
            return Ok(Body::Memory(reader.read_all().await?));
        }
        let mut writer = self.large_body().await?;
        while let Some(piece) = reader.next().await? {
            writer.append(piece).await?;
        }
        Ok(Body::File(writer.finish().await?))
    }
}
