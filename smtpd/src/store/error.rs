//! Why the store could not do what it was asked: for the operator in words, for the peer as a code.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mailroot_common::id::QueueId;
use mailroot_common::units::ByteSize;

/// Why mail could not be made durable. Nothing of it will ever be sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk has less room than must stay free.
    #[error(
        "{} has {free} left, under service.min_free ({floor}): free space or lower the limit",
        .path.display()
    )]
    Low {
        /// The queue's directory.
        path: PathBuf,
        /// What is free.
        free: ByteSize,
        /// What must stay free.
        floor: ByteSize,
    },
    /// The disk is full (ENOSPC, EDQUOT).
    #[error("no space left to write {}: free space on its disk", .path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The disk refused.
    #[error("cannot write {}: {source}", .path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Envelope and outcomes do not fit into one record.
    #[error("a record of {octets} octets is over the limit of {limit} by store.segment_size")]
    TooLarge {
        /// What it takes.
        octets: u64,
        /// What there is.
        limit: u64,
    },
    /// The id is taken.
    #[error("{id} is in the queue already: this is a bug in Mailroot, please report it")]
    Duplicate {
        /// The id.
        id: QueueId,
    },
    /// The body was written into the file of another queue.
    #[error(
        "the body of {id} belongs to another queue: this is a bug in Mailroot, please report it"
    )]
    Foreign {
        /// The message.
        id: QueueId,
    },
    /// The store is being closed.
    #[error("the queue is being closed")]
    Closed,
}

impl CommitError {
    /// Sorts an error of the system into "full" and "trouble".
    #[must_use]
    pub fn from_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        let source = Arc::new(source);
        if full { Self::Full { path, source } } else { Self::Write { path, source } }
    }

    /// Whether room is what is missing, so that it may be taken later.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Low { .. } | Self::Full { .. })
    }

    /// Whether it is the message that can never be taken, whatever room there is.
    #[must_use]
    pub const fn is_of_the_message(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }
}

/// Why new mail would not be taken at the moment, asked before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unready {
    /// The disk is full, or has less room than must stay free.
    #[error("the queue has no room")]
    NoRoom,
    /// The disk refused for another reason.
    #[error("the queue cannot be written")]
    Trouble,
}

impl From<&CommitError> for Unready {
    fn from(error: &CommitError) -> Self {
        if error.is_full() { Self::NoRoom } else { Self::Trouble }
    }
}

/// Why stored mail could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// What was read is not what was written.
    #[error("message {id} is damaged ({what}); it is held, see smtpctl queue show {id}")]
    Damaged {
        /// The message.
        id: QueueId,
        /// Which part.
        what: &'static str,
    },
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Read { source, .. } => source.kind(),
            ReadError::Damaged { .. } => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_any_other_trouble() {
        let path = Path::new("Queue/segment");
        let full = CommitError::from_io(path, io::ErrorKind::StorageFull.into());
        assert!(full.is_full());
        let trouble = CommitError::from_io(path, io::Error::from_raw_os_error(5));
        assert!(!trouble.is_full() && trouble.to_string().contains("Queue/segment"));
    }
}
