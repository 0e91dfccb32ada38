//! A change on trial: taken back unless a person confirms it in time.
//!
//! It is written down, so that it also ends where the daemon was restarted in between.

use std::io;

use mailroot_common::units::Timestamp;
use serde::{Deserialize, Serialize};

use super::first_start::draft;
use super::paths::Paths;

/// The largest note of a trial.
const NOTE_OCTETS_MAX: u64 = 4096;

/// A change on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The revision on trial.
    pub revision: u64,
    /// The revision to go back to.
    pub back_to: u64,
    /// When it is over.
    pub until: Timestamp,
    /// Who wanted it.
    pub who: String,
}

impl Trial {
    /// The trial that is on, if one is. A note that cannot be read is none.
    #[must_use]
    pub fn read(paths: &Paths) -> Option<Self> {
        let octets = paths.disk.read(&paths.trial(), NOTE_OCTETS_MAX).ok()?;
        serde_json::from_slice(&octets).ok()
    }

    /// Notes that it is on. Durable when it returns.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn begin(&self, paths: &Paths) -> io::Result<()> {
        let octets = serde_json::to_vec(self).map_err(io::Error::other)?;
        paths.disk.create_dir_all(&paths.state)?;
        paths.disk.replace(&paths.trial(), &draft(&paths.trial()), &octets)
    }

    /// Notes that none is on any more. Durable when it returns.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn end(paths: &Paths) -> io::Result<()> {
        match paths.disk.unlink(&paths.trial()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done.and_then(|()| paths.disk.sync_dir(&paths.state)),
        }
    }
}
