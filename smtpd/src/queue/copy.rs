//! The content of a message once more, for one that is made of it.

use std::io;

use super::{Body, CommitError, Lease, Queue};

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
